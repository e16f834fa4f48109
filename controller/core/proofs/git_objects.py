"""Git objects of a proof: each object is known by the hash of its bytes, never by a claimed name.

A proof is a sequence of objects in the form of ``git cat-file --batch``: a line ``ID KIND SIZE``, the
bytes, and a line feed. Object ids are those of gitformat-pack(5): the hash of ``KIND SIZE NUL BYTES``.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controller.core.git.signed_object import OBJECT_MAX
from controller.core.git.tree_checks import DEPTH_MAX, FILES_MAX, TreeEntry

#: Longest proof, in bytes.
PROOF_MAX = 16 << 20
OBJECTS_MAX = 4 * FILES_MAX
#: Most entries of trees below the documents' folder: few trees can list each other without end.
ENTRIES_MAX = 4 * FILES_MAX
#: Longest tree, in bytes: that of a folder with the most files, with the longest names.
TREE_MAX = 4 << 20
_HEAD = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) (commit|tree|blob) (0|[1-9][0-9]{0,8})\n")
_HEAD_MAX = 90
_MODE = re.compile(rb"[1-7][0-9]{4,5}")
_TREE, _SUBMODULE = "040000", "160000"


class InvalidProof(ValueError):
    """The bytes prove nothing. The message says why; the code is an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A signed commit that doesn't descend from the accepted one."""

    commit: str
    signer: str
    key: str
    #: From the commit: the time, and the first line of the message.
    committed: str
    subject: str


class NotNewer(InvalidProof):
    """The commit is signed, and isn't a descendant of the accepted one."""

    def __init__(self, message: str, line: OtherLine) -> None:
        super().__init__("proof.not-newer", message)
        self.line = line


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The objects of a proof by id. Each id is the hash of the bytes."""

    #: The commits in the order of the proof.
    commits: Mapping[str, bytes]
    trees: Mapping[str, bytes]
    #: Parts of the proof's bytes: copies of many megabytes would stop the broker's loop.
    blobs: Mapping[str, memoryview]
    #: The length of an id in bytes.
    id_bytes: int = field(default=20)


def read_objects(data: bytes, *, hash_name: str) -> ObjectStore:
    """Read the objects of a proof, and check each id. *hash_name* is sha1 or sha256.

    Raises:
        InvalidProof: the form is wrong, or bytes have another id.
    """
    if len(data) > PROOF_MAX:
        raise InvalidProof("proof.too-large", f"it has more than {PROOF_MAX >> 20} MiB")
    commits: dict[str, bytes] = {}
    trees: dict[str, bytes] = {}
    blobs: dict[str, memoryview] = {}
    for count, (claimed, kind, content) in enumerate(_frames(data), 1):
        if count > OBJECTS_MAX:
            raise InvalidProof("proof.too-large", f"it has more than {OBJECTS_MAX} objects")
        if claimed != object_id(kind, content, hash_name=hash_name):
            raise InvalidProof("proof.object", f"the bytes of {kind} {claimed} have another hash")
        if kind == "blob":
            blobs[claimed] = content
            continue
        if len(content) > (OBJECT_MAX if kind == "commit" else TREE_MAX):
            raise InvalidProof("proof.too-large", f"the {kind} {claimed} is too long")
        (commits if kind == "commit" else trees)[claimed] = bytes(content)
    id_bytes = 32 if hash_name == "sha256" else 20
    return ObjectStore(commits, trees, blobs, id_bytes)


def object_id(kind: str, content: bytes | memoryview, *, hash_name: str) -> str:
    """Return the id of an object."""
    hashed = hashlib.new(hash_name, f"{kind} {len(content)}\0".encode(), usedforsecurity=False)
    hashed.update(content)
    return hashed.hexdigest()


def entries_below(store: ObjectStore, tree: str, folder: str) -> tuple[TreeEntry, ...]:
    """Return the entries of all files below a folder of a commit's tree; '.' is the whole tree.

    Raises:
        InvalidProof: the folder, a tree or a file is missing, or there are too many entries.
    """
    parts = [] if folder == "." else folder.split("/")
    for part in parts:
        found = [each for each in _entries(store, tree) if each[1] == part.encode()]
        if len(found) != 1 or found[0][0] != _TREE:
            raise InvalidProof("proof.path", f"the commit has no folder {folder}")
        tree = found[0][2]
    prefix = b"" if folder == "." else folder.encode() + b"/"
    return tuple(_walk(store, tree, prefix, depth=len(parts), count=itertools.count(1)))


def has_folder(store: ObjectStore, tree: str, folder: str) -> bool:
    """Return True if a commit's tree has a folder.

    Raises:
        InvalidProof: a tree that leads to the folder is missing.
    """
    for part in folder.split("/"):
        found = [each for each in _entries(store, tree) if each[1] == part.encode()]
        if not found or found[0][0] != _TREE:
            return False
        tree = found[0][2]
    return True


def _walk(
    store: ObjectStore, tree: str, prefix: bytes, *, depth: int, count: Iterator[int]
) -> Iterator[TreeEntry]:
    if depth > DEPTH_MAX:
        raise InvalidProof("proof.path", f"a folder lies deeper than {DEPTH_MAX} folders")
    for mode, name, identifier in _entries(store, tree):
        if next(count) > ENTRIES_MAX:
            raise InvalidProof("proof.tree", f"its trees have more than {ENTRIES_MAX} entries")
        path = prefix + name
        if mode == _TREE:
            yield from _walk(store, identifier, path + b"/", depth=depth + 1, count=count)
        elif mode == _SUBMODULE:
            yield TreeEntry(mode, "commit", identifier, 0, path)
        elif identifier not in store.blobs:
            shown = path.decode("utf-8", "backslashreplace")[:120]
            raise InvalidProof("proof.incomplete", f"the file {shown!r} is missing")
        else:
            yield TreeEntry(mode, "blob", identifier, len(store.blobs[identifier]), path)


def _entries(store: ObjectStore, tree: str) -> Iterator[tuple[str, bytes, str]]:
    """Yield mode, name and id of each entry of a tree."""
    raw = store.trees.get(tree)
    if raw is None:
        raise InvalidProof("proof.incomplete", f"the tree {tree} is missing")
    at = 0
    while at < len(raw):
        space = raw.find(b" ", at, at + 7)
        end = raw.find(b"\0", space)
        mode, name = raw[at:space], raw[space + 1 : end]
        identifier = raw[end + 1 : end + 1 + store.id_bytes]
        is_whole = space > at and end > space + 1 and len(identifier) == store.id_bytes
        if not is_whole or not _MODE.fullmatch(mode) or b"/" in name:
            raise InvalidProof("proof.object", f"the tree {tree} is malformed")
        yield mode.decode().zfill(6), name, identifier.hex()
        at = end + 1 + store.id_bytes


def _frames(data: bytes) -> Iterator[tuple[str, str, memoryview]]:
    at, view = 0, memoryview(data)
    while at < len(data):
        head = _HEAD.match(data, at, at + _HEAD_MAX)
        if head is None:
            raise InvalidProof("proof.form", f"byte {at} begins no object")
        end = head.end() + int(head[3])
        if data[end : end + 1] != b"\n":
            raise InvalidProof("proof.form", f"the object at byte {at} is cut off")
        yield head[1].decode(), head[2].decode(), view[head.end() : end]
        at = end + 1
