"""The entries of a commit's tree that can be exported; anything else refuses the whole commit.

Exported are regular files below the documents' folder, and below the folder ``configs/`` that
stands in the same folder. An unsuitable entry there is never left out: the controller would take a
file that is left out for a removed one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

FILES_MAX = 10_000
DEPTH_MAX = 24
PATH_MAX = 1024
NAME_MAX = 255
FILE_MAX_BYTES = 8 << 20
TOTAL_MAX_BYTES = 64 << 20
#: The name of the charts' folder beside the documents' folder.
CHARTS = "configs"
#: A pointer of Git LFS has some 130 bytes.
POINTER_MAX_BYTES = 1024
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_ENTRY = re.compile(rb"(\d{6}) (blob|tree|commit) ([0-9a-f]{40,64}) +(\d+|-)\t(.+)", re.DOTALL)
_FILE_MODES = frozenset({"100644", "100755"})
_DOCUMENT = (".yaml", ".yml")
#: Characters that HFS+ ignores in names (git's utf8.c).
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
#: Git's folder as NTFS spells it: a short name, trailing dots and spaces, a stream.
_GIT_FOLDER = re.compile(r"(?:\.git|git~\d+)[. ]*(?::.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """An entry of a tree, as ``git ls-tree -r -z -l`` lists it."""

    mode: str
    kind: str
    object_id: str
    size_bytes: int
    path: bytes


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file that can be exported."""

    path: str
    object_id: str
    size_bytes: int

    @property
    def is_document(self) -> bool:
        """Return True if the file can declare a resource."""
        return self.path.endswith(_DOCUMENT) and self.size_bytes > 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a commit can't be exported."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ExportList:
    """The files to export."""

    files: tuple[TreeFile, ...]
    #: The number of files below the documents' folder that can declare a resource.
    documents: int


def folders_of(path: str) -> tuple[str, ...]:
    """Return the folders to export for the documents' folder *path*; '.' is the whole tree."""
    if path == ".":
        return (".",)
    charts = PurePosixPath(path).parent / CHARTS
    return (path, str(charts))


def parse_tree(output: bytes) -> tuple[TreeEntry, ...]:
    """Parse the output of ``git ls-tree -r -z -l``.

    Raises:
        ValueError: a line has another form.
    """
    entries = []
    for line in output.split(b"\0"):
        if not line:
            continue
        found = _ENTRY.fullmatch(line)
        if found is None:
            raise ValueError("git ls-tree printed a line of an unknown form")
        mode, kind, object_id, size = (found[at].decode() for at in range(1, 5))
        entries.append(
            TreeEntry(mode, kind, object_id, int(size) if size != "-" else 0, bytes(found[5]))
        )
    return tuple(entries)


def select_files(entries: Iterable[TreeEntry], *, path: str) -> ExportList | Refusal:
    """Return the files to export, or the first reason against the tree."""
    names = _Names()
    files: list[TreeFile] = []
    total_bytes = 0
    for entry in entries:
        refusal = _entry_refusal(entry) or names.collision(entry.path.decode())
        if refusal is not None:
            return refusal
        total_bytes += entry.size_bytes
        if len(files) >= FILES_MAX:
            return too_many_files(path)
        if total_bytes > TOTAL_MAX_BYTES:
            return _too_big(f"the files below {path} have more than {TOTAL_MAX_BYTES >> 20} MiB")
        files.append(TreeFile(entry.path.decode(), entry.object_id, entry.size_bytes))
    inside = "" if path == "." else f"{path}/"
    documents = sum(file.is_document and file.path.startswith(inside) for file in files)
    return ExportList(tuple(files), documents)


def too_many_files(path: str) -> Refusal:
    """Return the refusal of a tree with too many files."""
    return Refusal(
        "source.too-many-files",
        f"there are more than {FILES_MAX} files below {path}",
        "put the documents into a folder of their own, and name it in spec.git.path",
    )


def pointer_refusal(path: str, content: bytes) -> Refusal | None:
    """Return the refusal of a file of Git LFS, which the repository doesn't contain."""
    if not content.startswith(_LFS_POINTER):
        return None
    return Refusal(
        "source.lfs",
        f"{path} is a pointer of Git LFS, not the file",
        f"commit the file itself: git lfs untrack {path} && git add --renormalize {path}",
    )


@dataclass(slots=True)
class _Names:
    """The names seen so far, as a file system without case and Unicode forms sees names."""

    #: By folded name: the name, and True for a file.
    seen: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def collision(self, path: str) -> Refusal | None:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            name, is_file = "/".join(parts[:count]), count == len(parts)
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
            is_new = folded not in self.seen
            other, was_file = self.seen.setdefault(folded, (name, is_file))
            if other != name:
                return Refusal(
                    "source.case",
                    f"{shown(name)} and {shown(other)} differ only in case or in Unicode form",
                    "rename one of them",
                )
            if not is_new and (is_file or was_file):
                return Refusal("source.case", f"{shown(name)} occurs twice", "remove one of them")
        return None


def _entry_refusal(entry: TreeEntry) -> Refusal | None:
    for refuse in _ENTRY_RULES:
        refusal = refuse(entry)
        if refusal is not None:
            return refusal
    return None


def _refuse_name(entry: TreeEntry) -> Refusal | None:
    why = _name_fault(entry.path)
    if why is None:
        return None
    return Refusal("source.path", f"{shown(entry.path)} {why}", "rename the file")


def _name_fault(path: bytes) -> str | None:
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return "isn't UTF-8"
    if not text.isprintable() or "\\" in text:
        return "has a control character, an invisible character or a backslash"
    parts = text.split("/")
    if len(path) > PATH_MAX or any(len(part.encode()) > NAME_MAX for part in parts):
        return f"is longer than {PATH_MAX} bytes, or a part of it than {NAME_MAX}"
    if len(parts) > DEPTH_MAX:
        return f"lies deeper than {DEPTH_MAX} folders"
    if {"", ".", ".."} & set(parts):
        return "has the part '', '.' or '..'"
    if any(_GIT_FOLDER.fullmatch(_IGNORED.sub("", part)) for part in parts):
        return "has a part that some file systems take for .git"
    return None


def _refuse_kind(entry: TreeEntry) -> Refusal | None:
    if entry.kind == "commit":
        return Refusal(
            "source.submodule",
            f"{shown(entry.path)} is a submodule; submodules aren't fetched",
            "commit the files themselves, or name a folder without it in spec.git.path",
        )
    if entry.mode == "120000":
        return Refusal(
            "source.link",
            f"{shown(entry.path)} is a symbolic link",
            "commit the file itself in its place",
        )
    if entry.mode not in _FILE_MODES:
        return Refusal(
            "source.mode",
            f"{shown(entry.path)} has the mode {entry.mode}",
            "commit it as an ordinary file",
        )
    return None


def _refuse_size(entry: TreeEntry) -> Refusal | None:
    if entry.size_bytes <= FILE_MAX_BYTES:
        return None
    return _too_big(
        f"{shown(entry.path)} has {entry.size_bytes} bytes; "
        f"at most {FILE_MAX_BYTES >> 20} MiB are possible"
    )


def _too_big(message: str) -> Refusal:
    return Refusal(
        "source.too-large",
        message,
        "put the documents into a folder without big files, and name it in spec.git.path",
    )


#: The name first: later messages show it.
_ENTRY_RULES: tuple[Callable[[TreeEntry], Refusal | None], ...] = (
    _refuse_name,
    _refuse_kind,
    _refuse_size,
)


def shown(path: bytes | str) -> str:
    """Return a path of a repository for messages: printable, and at most 120 characters."""
    text = path if isinstance(path, str) else path.decode("utf-8", "backslashreplace")
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return clean if len(clean) <= 120 else f"{clean[:119]}…"
