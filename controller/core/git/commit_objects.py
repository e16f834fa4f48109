"""Raw commits and tags, and the entries of a commit's tree that can be exported.

Raw commits and tags: their fields, and the signature with the bytes that it covers.

Formats: gitformat-signature(5), git-cat-file(1). An object that two readers could read differently
is refused: a header that occurs twice, or text after the signature of a tag.

The entries of a commit's tree that can be exported; anything else refuses the whole commit.

Exported are regular files below the documents' folder, and below the folder ``configs/`` that
stands in the same folder. An unsuitable entry there is never left out: the controller would take a
file that is left out for a removed one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from controller.model.names import COMMIT_ID
from controller.model.quantities import format_instant

SignatureFormat = Literal["openpgp", "ssh", "x509"]
#: Longest commit or tag object, in bytes.
OBJECT_MAX = 1024 * 1024
_TEXT_MAX = 200
_PERSON = re.compile(r"(?P<who>[^<>\n]*<[^<>\n]*>) (?P<time>\d{1,11}) [+-]\d{4}")
_SIGNATURE_HEADERS = ("gpgsig", "gpgsig-sha256")
#: The first line of each kind of signature. X.509 has no verifier here.
_FORMATS: dict[bytes, SignatureFormat] = {
    b"-----BEGIN PGP SIGNATURE-----": "openpgp",
    b"-----BEGIN PGP MESSAGE-----": "openpgp",
    b"-----BEGIN SSH SIGNATURE-----": "ssh",
    b"-----BEGIN SIGNED MESSAGE-----": "x509",
}
_ONCE = frozenset(
    {"tree", "author", "committer", "object", "type", "tag", "tagger", *_SIGNATURE_HEADERS}
)


@dataclass(frozen=True, slots=True)
class DetachedSignature:
    """A signature and the signed bytes."""

    format: SignatureFormat
    armored: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class CommitObject:
    """A commit. Times are RFC 3339; texts are printable and bounded."""

    tree: str
    parents: tuple[str, ...]
    author: str
    authored: str
    committed: str
    subject: str
    signature: DetachedSignature | None


@dataclass(frozen=True, slots=True)
class TagObject:
    """An annotated tag."""

    #: The id and the type of the tagged object.
    target: str
    kind: str
    name: str
    signature: DetachedSignature | None


def parse_commit(raw: bytes) -> CommitObject:
    """Parse a commit object.

    Raises:
        ValueError: *raw* is not a commit, or ambiguous.
    """
    headers, message = _split(raw)
    fields = _fields(headers)
    parents = tuple(_id(value) for name, value in headers if name == "parent")
    author, authored = _person(fields.get("author", b""))
    _, committed = _person(fields.get("committer", b""))
    return CommitObject(
        tree=_id(fields.get("tree", b"")),
        parents=parents,
        author=author,
        authored=authored,
        committed=committed,
        subject=printable(message.strip().partition(b"\n")[0]),
        signature=_commit_signature(raw, fields),
    )


def parse_tag(raw: bytes) -> TagObject:
    """Parse the object of an annotated tag.

    Raises:
        ValueError: *raw* is not a tag, or ambiguous.
    """
    headers, message = _split(raw)
    fields = _fields(headers)
    if any(name in fields for name in _SIGNATURE_HEADERS):
        raise ValueError("the tag has a signature in its header")
    begins = [
        match.start()
        for match in re.finditer(rb"^-----BEGIN [A-Z ]+-----$", message, re.MULTILINE)
        if match.group() in _FORMATS
    ]
    if len(begins) > 1:
        raise ValueError("the tag has more than one signature")
    signature = None
    if begins:
        cut = len(raw) - len(message) + begins[0]
        signature = _signature(raw[cut:], raw[:cut])
    return TagObject(
        target=_id(fields.get("object", b"")),
        kind=printable(fields.get("type", b"")),
        name=printable(fields.get("tag", b"")),
        signature=signature,
    )


def printable(text: bytes) -> str:
    """Return a text of the repository for people: one line, bounded, control characters escaped."""
    decoded = text[: 4 * _TEXT_MAX].decode("utf-8", "backslashreplace")
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)
    return clean if len(clean) <= _TEXT_MAX else clean[: _TEXT_MAX - 1] + "…"


def _split(raw: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """Return the headers, with continuation lines joined, and the message."""
    if len(raw) > OBJECT_MAX:
        raise ValueError(f"the object is longer than {OBJECT_MAX} bytes")
    head, blank, message = raw.partition(b"\n\n")
    if b"\0" in head:
        raise ValueError("a header has a NUL byte")
    headers: list[tuple[str, list[bytes]]] = []  # joined at the end: a value can have many lines
    for line in _lines(head if blank else head.rstrip(b"\n")):
        if line.startswith(b" "):
            if not headers:
                raise ValueError("the first header is a continuation")
            headers[-1][1].append(line[1:])
        else:
            name_bytes, space, value = line.partition(b" ")
            if not space:
                raise ValueError("a header has no value")
            headers.append((name_bytes.decode("ascii", "backslashreplace"), [value]))
    return [(name, b"\n".join(lines)) for name, lines in headers], message


def _lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines of a text, as ``split`` returns them. Other threads can run in between."""
    at = 0
    while (end := text.find(b"\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]


def _fields(headers: list[tuple[str, bytes]]) -> dict[str, bytes]:
    counts = Counter(name for name, _ in headers if name in _ONCE)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"the header {twice[0]} occurs twice")
    return dict(headers)


def _id(value: bytes) -> str:
    text = value.decode("ascii", "backslashreplace")
    if not COMMIT_ID.fullmatch(text):
        raise ValueError("an object id is missing or malformed")
    return text


def _person(value: bytes) -> tuple[str, str]:
    """Return name and address, and the time; a malformed line has neither time nor structure."""
    text = value.decode("utf-8", "backslashreplace")
    found = _PERSON.fullmatch(text)
    if found is None:
        return printable(value), ""
    return printable(found["who"].encode()), format_instant(float(found["time"]))


def _commit_signature(raw: bytes, fields: dict[str, bytes]) -> DetachedSignature | None:
    present = [name for name in _SIGNATURE_HEADERS if name in fields]
    if not present:
        return None
    if len(present) > 1:
        raise ValueError("the commit has signatures for two hash functions")
    if any(name.startswith("gpgsig") and name not in _SIGNATURE_HEADERS for name in fields):
        raise ValueError("the commit has an unknown header of a signature")
    return _signature(fields[present[0]] + b"\n", _without_header(raw, present[0]))


def _without_header(raw: bytes, name: str) -> bytes:
    """Return a commit without one header and its continuation lines: the signed bytes."""
    head, blank, message = raw.partition(b"\n\n")
    kept: list[bytes] = []
    inside = False
    for line in _lines(head):
        inside = line.startswith(b" ") if inside else line.startswith(name.encode() + b" ")
        if not inside:
            kept.append(line)
    return b"\n".join(kept) + blank + message


def _signature(armored: bytes, payload: bytes) -> DetachedSignature:
    lines = armored.rstrip(b"\n").split(b"\n")
    kind = _FORMATS.get(lines[0].rstrip())
    if kind is None:
        raise ValueError("the signature has an unknown form")
    end = lines[0].rstrip().replace(b"BEGIN", b"END")
    if lines[-1].rstrip() != end or sum(line.startswith(b"-----") for line in lines) != 2:
        raise ValueError("the signature has no end, or something follows it")
    return DetachedSignature(kind, armored, payload)


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
