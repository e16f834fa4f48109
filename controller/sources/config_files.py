"""The files beside a document that a Config names: read whole, and only inside the source.

A path is relative to the document's folder. A link that leads out of the source, a device, a large
or a changing file is a problem of the Config, at the place of its name. Nothing raises.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from controller.core.encoding.text import printable_name
from controller.core.manifests.declaration import ParsedDocument
from controller.core.manifests.named_files import named_files, with_named_files
from controller.model.delivery import FILE_BYTES_MAX
from controller.model.errors import Problem
from controller.model.quantities import format_bytes
from controller.sources.safe_read import SourceFile, is_closed, is_inside, read_whole

_GIT = ".git"


@dataclass(frozen=True, slots=True)
class SourceRoot:
    """The folder that must contain the files: the resolved path, and a name for people."""

    top: str
    name: str = "the source"
    #: The folders that containers write to, by their resolved paths.
    closed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A folder that the paths of a document are relative to, in its source."""

    folder: str
    root: SourceRoot


def with_files(
    documents: Iterable[ParsedDocument], folder: str, root: SourceRoot
) -> list[ParsedDocument]:
    """Return the documents of a file in *folder*, with the files that their Configs name."""
    return [
        with_named_files(document, lambda path: _read(path, folder, root)) for document in documents
    ]


def with_files_of(document: ParsedDocument, places: Iterable[FilePlace]) -> ParsedDocument:
    """Return a document with its named files, each from the first place with such a file."""

    def read(path: str) -> bytes | Problem:
        found: bytes | Problem | None = None
        for place in places:
            content = _read(path, place.folder, place.root)
            if isinstance(content, bytes):
                return content
            found = found or content
        assert found is not None, "a file is looked for somewhere"
        return found

    return with_named_files(document, read)


def bytes_of(documents: Iterable[ParsedDocument]) -> int:
    """Return the size of the files that were read."""
    declared = (document.declaration for document in documents)
    return sum(len(data) for each in declared if each for _, data in each.files or ())


def hidden_files(
    documents: Iterable[ParsedDocument], folder: str, root: SourceRoot
) -> Iterator[str]:
    """Yield the paths of the named files in hidden folders, which no walk of the source visits."""
    for document in documents:
        names = named_files(document.declaration or document.partial).values()
        yield from in_hidden_folders(names, folder, root.top)


def in_hidden_folders(names: Iterable[str], folder: str, top: str) -> Iterator[str]:
    """Yield the paths of the files in hidden folders below *top*, other than Git's.

    *names* are relative to *folder*.
    """
    for name in names:
        path = posixpath.normpath(posixpath.join(folder, name))
        folders = posixpath.dirname(path.removeprefix(top)).split("/")
        is_hidden = any(each.startswith(".") for each in folders) and _GIT not in folders
        if is_hidden and is_inside(path, top):
            yield path


def _read(path: str, folder: str, root: SourceRoot) -> bytes | Problem:
    wanted = posixpath.normpath(posixpath.join(folder, path))
    shown = printable_name(path)
    if path.startswith("/") or not is_inside(wanted, root.top):
        message = f"{shown} leads out of {root.name}"
        return Problem("config.outside", message, remedy="copy the file beside the document")
    try:
        real = os.path.realpath(wanted, strict=True)
    except OSError as error:
        message = f"{shown} can't be read: {error.strerror}"
        return Problem("config.unreadable", message, remedy="add the file, or correct its name")
    if any(_GIT in each.removeprefix(root.top).split("/") for each in (wanted, real)):
        return Problem(
            "config.outside", f"{shown} lies in Git's folder", remedy="name another file"
        )
    if not is_inside(real, root.top):
        message = f"{shown} is, or lies behind, a link that leads out of {root.name}"
        return Problem("config.outside", message, remedy="copy the file in place of the link")
    if is_closed(real, root.closed):
        message = f"{shown} lies in a folder that containers write to"
        return Problem("config.outside", message, remedy="copy the file to another folder")
    content = read_whole(SourceFile(shown, real), root.top, is_known=lambda _content: True)
    if isinstance(content, Problem):
        message = f"{shown}: {content.message}"
        # The remedy for a document, to split it, is none for data.
        is_large = content.code == "file.too-big"
        remedy = _FOR_LARGE if is_large else content.remedy
        code = _CODES.get(content.code, content.code)
        return replace(content, code=code, message=message, remedy=remedy)
    if len(content) > FILE_BYTES_MAX:
        message = (
            f"{shown}: {format_bytes(len(content))} is more than {format_bytes(FILE_BYTES_MAX)}"
        )
        return Problem("config.too-large", message, remedy=_FOR_LARGE)
    return content


_FOR_LARGE = "mount a volume for large data"
_CODES = {
    "file.unreadable": "config.unreadable",
    "file.special": "config.unreadable",
    "file.outside": "config.outside",
    "file.too-big": "config.too-large",
}


def folder_in_chart(document: ParsedDocument, chart: str, place: str) -> str:
    """Return the folder whose files a rendered document names.

    *chart* is the resolved path of the chart's folder, and *place* its name in the names of files.
    """
    name = document.declaration.source.file if document.declaration is not None else ""
    return posixpath.join(chart, posixpath.dirname(name).removeprefix(place).strip("/"))
