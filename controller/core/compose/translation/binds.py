"""Binds of a service: paths of the host, and files and folders of the project.

A file, or a small folder that is mounted read-only, becomes a Config. Other folders stay folders of the
host. What containers can write is never read as a part of the desired state, and what is read for the
project is never writable: the folder with the Compose file is mounted read-only.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final

from controller.core.compose.project import TreePath
from controller.core.compose.translation.container import Workload
from controller.core.compose.translation.names import dns_name
from controller.core.compose.translation.scope import (
    Draft,
    FoundPath,
    TranslationScope,
    Tree,
    items,
    mapping,
)
from controller.model.host_paths import is_below

_EXECUTE: Final = "0555"
PLAIN: Final = "0444"


class ProjectPaths:
    """The files and folders that a project mounts: what is read, what is written, and their Configs."""

    def __init__(self, scope: TranslationScope) -> None:
        self.scope = scope
        #: The absolute path of the source's root; '' if folders have no lasting place.
        self.directory = scope.settings.directory
        #: The Config of each file or folder of the project.
        self._configs: dict[str, str] = {}
        self._names = {dns_name(name) for name in mapping(scope.project.tree.get("configs"))}
        #: The paths that trimtab reads for the project.
        self._read = frozenset(map(posixpath.normpath, _paths_read(scope)))
        #: The folders that containers of the project write to.
        self._written = frozenset(self._folders_written()) if self.directory else frozenset[str]()

    def _folders_written(self) -> Iterator[str]:
        for service in self.scope.services.values():
            for each in items(mapping(service).get("volumes")):
                terms = mapping(each)
                path = self.inside(self.expand(str(terms.get("source") or "")))
                if terms.get("type") != "bind" or terms.get("read_only") or path is None:
                    continue
                kind = self.scope.look(f"./{path}", listed=False).kind
                if kind in ("folder", "absent") and not self.is_read(path):
                    yield path

    def expand(self, source: str) -> str:
        """Return a source with the home for ``~``; unchanged if the directory lies in no home."""
        home = self.scope.settings.home
        return f"{home}{source[1:]}" if home and source.split("/", maxsplit=1)[0] == "~" else source

    def inside(self, source: str) -> str | None:
        """Return a path relative to the source's root; None for another place of the host."""
        path = posixpath.normpath(source)
        if not path.startswith("/"):
            return None if path.split("/")[0] in ("..", "~") else path
        if not self.directory or not is_below(path, self.directory):
            return None
        return posixpath.relpath(path, self.directory)

    def on_host(self, path: str) -> str:
        """Return the absolute path for a path relative to the source's root."""
        return posixpath.normpath(f"{self.directory}/{path}")

    def is_read(self, folder: str) -> bool:
        """Return True if trimtab reads a folder, or a file in it, for the project."""
        return folder == "." or any(is_below(path, folder) for path in self._read)

    def is_near_written(self, path: str) -> bool:
        """Return True if a path lies in a folder that containers write to, or contains one."""
        return any(is_below(path, each) or is_below(each, path) for each in self._written)

    def is_written_by(self, mount: Tree) -> bool:
        """Return True if a translated mount is a writable folder of the directory."""
        is_writable = mount.get("type") == "bind" and not mount.get("readOnly")
        return is_writable and self.inside(str(mount.get("source"))) is not None

    def config_of(self, path: str, files: dict[str, str], origin: TreePath) -> str:
        """Return the name of the Config with files of the project, made at the first use."""
        name = self._configs.get(path)
        if name is None:
            name = dns_name(posixpath.basename(path) or self.scope.namespace)
            if name in self._names:
                name = dns_name(f"{name}-{path}-{'x' * 20}")  # long, so that it ends with a digest
            self._configs[path] = name
            self._names.add(name)
            draft = Draft("Config", name, origin)
            draft.put("spec.files", files, ())
            self.scope.drafts.append(draft)
        return name


def _paths_read(scope: TranslationScope) -> Iterator[str]:
    """Yield the paths that trimtab reads for a project, and the contexts of builds."""
    yield from scope.project.files
    for config in mapping(scope.project.tree.get("configs")).values():
        yield str(mapping(config).get("file") or "")
    for service in scope.services.values():
        context = str(mapping(mapping(service).get("build")).get("context"))
        if context.startswith("./"):
            yield context


def put_bind(work: Workload, paths: ProjectPaths, terms: Tree, origin: TreePath) -> None:
    """Translate a bind mount."""
    written, target = str(terms.get("source") or ""), clean(terms.get("target"))
    is_read_only, source = bool(terms.get("read_only")), paths.expand(written)
    if source.startswith("~"):
        place = ("services", work.name, *origin)
        message = f"{source!r} depends on the home folder of a user"
        remedy = "write the absolute path, or a path beside the Compose file"
        work.scope.error(place, "compose.home", message, remedy, work.key)
        return
    path = paths.inside(source)
    if source.startswith("/") and (path is None or _look(paths, path, listed=False).is_absent):
        _put_host(work, clean(source), target, is_read_only=is_read_only, origin=origin)
        return
    source = source if path is None else f"./{path}" if path != "." else "."
    path = posixpath.normpath(source)
    is_host = not is_read_only or paths.is_near_written(path)
    found = work.scope.look(source, listed=not is_host)
    if fault := _fault(source, target, found, paths, is_read_only=is_read_only):
        work.refuse(origin, *fault)
        return
    is_folder = found.kind != "file"
    if (is_host and is_folder) or paths.is_near_written(path) or found.reason:
        keeps = is_read_only or not is_folder or paths.is_read(path)
        _put_host(work, paths.on_host(path), target, is_read_only=keeps, origin=origin)
        if keeps and not is_read_only:
            what = "is one file" if not is_folder else "holds files that trimtab reads"
            message = f"the container can't write to {target}: {written} {what}"
            remedy = "add :ro, or mount a folder below it for what the program writes"
            work.warn(origin, message, remedy, "compose.read-only")
        return
    _put_config(work, paths, source, target, found, origin)
    if not is_read_only:
        message = f"the container can't write to {target}: {source} is delivered as a Config"
        remedy = "add :ro, or mount a volume if the program writes there"
        work.warn(origin, message, remedy, "compose.read-only")


def _look(paths: ProjectPaths, path: str, *, listed: bool) -> FoundPath:
    return paths.scope.look("." if path == "." else f"./{path}", listed=listed)


def _put_host(
    work: Workload, source: str, target: str, *, is_read_only: bool, origin: TreePath
) -> None:
    entry: dict[str, object] = {"type": "bind", "source": source, "target": target}
    if is_read_only:
        entry["readOnly"] = True
    work.draft.add("mounts", entry, origin)


def _put_config(
    work: Workload,
    paths: ProjectPaths,
    source: str,
    target: str,
    found: FoundPath,
    origin: TreePath,
) -> None:
    path, place = posixpath.normpath(source), (*work.draft.origin, *origin)
    mount: dict[str, object] = {"type": "config", "target": target, "mode": PLAIN}
    if found.kind == "folder":
        files = {name: posixpath.join(path, name) for name in found.names}
        _warn_of_variables(work, source, target, found.names, origin)
        mount["source"] = paths.config_of(path, files, place)
    else:
        key = posixpath.basename(path)
        mount |= {"source": paths.config_of(path, {key: path}, place), "key": key}
        mount["mode"] = _EXECUTE if found.executable else PLAIN
    work.draft.add("mounts", mount, origin)


def _warn_of_variables(
    work: Workload, source: str, target: str, names: tuple[str, ...], origin: TreePath
) -> None:
    """Announce files with variables, which are often secret, in a delivered folder."""
    found = [name for name in names if _is_variables_file(posixpath.basename(name))]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        message = (
            f"{found[0]}{more} of {source} is delivered to {target}: its values are no secret there"
        )
        remedy = "mount a folder without it, and keep secret values in a Secret"
        work.warn(origin, message, remedy, "compose.variables-delivered")


def _is_variables_file(name: str) -> bool:
    return name == ".env" or name.startswith(".env.") or name.endswith(".env")


def _fault(
    source: str, target: str, found: FoundPath, paths: ProjectPaths, *, is_read_only: bool
) -> tuple[str, str] | None:
    """Return the message and the remedy for a path of the project that can't be mounted."""
    volume = f"name a volume (data:{target}) and declare it under volumes"
    # A name with an ending is a file's that was forgotten.
    is_new_folder = not is_read_only and "." not in posixpath.basename(source).lstrip(".")
    match found.kind:
        case "absent" if not is_new_folder or not paths.directory:
            remedy = "add the file, correct the path, or make the folder"
            return f"{source} doesn't exist in the project", remedy
        case "outside":
            remedy = (
                "copy the file into the project, or write an absolute path that the policy allows"
            )
            return f"{source} leads out of the folder that trimtab reads", remedy
        case "other":
            return f"{source} is no regular file and no folder", volume
        case "folder" | "absent" if not is_read_only and not paths.directory:
            message = f"{source} is a folder of the project, mounted writable, and the files of a Git source have no lasting place"
            return message, f"add :ro if the container only reads {target}; for data {volume}"
        case "folder" | "file" if found.reason and not paths.directory:
            return f"{source} can't be delivered as a Config: {found.reason}", volume
        case _:
            return None


def clean(value: object) -> str:
    """Return an absolute path without a slash at its end."""
    text = str(value or "")
    return posixpath.normpath(text) if text.startswith("/") and ".." not in text else text
