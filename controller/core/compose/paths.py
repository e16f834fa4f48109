"""Paths of the host in Compose files, relative to the root of the source.

Compose makes relative paths absolute. A source has no absolute folder, so a path becomes relative to
the root of the source, with ``./`` or ``../`` before it. Absolute paths stay as they are.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from controller.core.compose import nodes

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")
_WINDOWS = re.compile(r"(?:[a-zA-Z]:|\\\\[^\\/.][^\\/]*[\\/][^\\/.]+)[\\/]")

Resolver = Callable[[nodes.ComposeNode, str, nodes.NodePath], None]


def join(folder: str, path: str) -> str:
    """Return a path relative to the root of the source, for a path relative to a folder."""
    return posixpath.normpath(posixpath.join(folder, path))


def root_path(folder: str, path: str) -> nodes.RootPath:
    """Return a path of a tree: with ``./`` or ``../`` before a relative path."""
    joined = join(folder, path)
    if joined.startswith(("/", "../")) or joined == "..":
        return nodes.RootPath(joined.removeprefix("/") if joined.startswith("//") else joined)
    return nodes.RootPath("." if joined == "." else f"./{joined}")


def file_path(path: str) -> str:
    """Return the path of a file for the port, from a path of a tree."""
    return posixpath.normpath(path)


def resolve_paths(root: nodes.ComposeNode, folder: str, report: nodes.ReadingReport) -> None:
    """Resolve all paths of a tree that are relative to *folder*."""
    _RESOLVERS.walk(root, report, lambda resolve, node, path: resolve(node, folder, path))


def _local(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    text = node.text
    if text is None or isinstance(text, nodes.RootPath):
        return
    if text.startswith("~"):
        message = f"{text!r} depends on the home folder of a user"
        nodes.fail(node, "compose.home", message, "write a path beside the Compose file", path)
    if not text.startswith("/") and not _WINDOWS.match(text):
        node.value = root_path(folder, text)


def _not_empty(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    if node.value:
        _local(node, folder, path)


def _context(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    text = node.text or ""
    if "://" not in text and not text.startswith(("service:", *_REMOTE)):
        _not_empty(node, folder, path)


def _mount(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    kind, source = node.get("type"), node.get("source")
    if kind is None or kind.value != "bind":
        return
    if source is None:
        nodes.fail(node, "compose.missing", "a bind mount without source", "add source", path)
    if not (source.text or "").startswith("~"):  # the translation knows the home
        _local(source, folder, (*path, "source"))


def _driver_options(node: nodes.ComposeNode, folder: str, path: nodes.NodePath) -> None:
    driver, options = node.get("driver"), node.get("driver_opts")
    if driver is None or driver.value != "local" or options is None:
        return
    device, kind = options.get("device"), options.get("o")
    if device is not None and kind is not None and kind.value == "bind":
        _local(device, folder, (*path, "driver_opts", "device"))


_RESOLVERS: nodes.PathTable[Resolver] = nodes.PathTable(
    {
        "services.*.build.context": _context,
        "services.*.env_file.*.path": _not_empty,
        "services.*.label_file.*": _not_empty,
        "services.*.extends.file": _not_empty,
        "services.*.volumes.*": _mount,
        "configs.*.file": _local,
        "secrets.*.file": _local,
        "volumes.*": _driver_options,
    }
)
