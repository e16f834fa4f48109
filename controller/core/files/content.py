"""Contents of Configs: files and id, as one file, in archives, on the host, and how long they are kept.

The content of a Config: its files, bounded, and its id.

The id is ``sha256:`` and the SHA-256 of the names and digests of all files, in canonical JSON. So
equal files have an equal id, in whatever order and from whatever documents they come.

A content as one file: a line of JSON with names and sizes, then the bytes of all files.

One file is written and fsynced at once, so that a content is stored whole or not at all.

The plain files in an archive that the engine makes of a path of a container. Pure: reads bytes.

The places of delivered files on the host, below the folder of their kind.

``NAMESPACE/NAME/CONTENT/VARIANT/`` never changes. ``NAMESPACE/NAME/current-VARIANT/`` has the link
``..data`` to the content of now, and a link through ``..data`` for each first name.

Which contents the broker keeps: those that containers name, and the latest of each name.

Pure, and a function of the inventory alone, so that the journal can rebuild the list.

The contents of delivered files in use by containers, from the broker's inventory.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from controller.core.encoding.json_values import digest
from controller.core.yaml.documents import YamlPath
from controller.model.delivery import (
    CONTENT_BYTES_MAX,
    CONTENTS_KEPT,
    FILE_BYTES_MAX,
    FILE_KINDS,
    FILES_MAX,
    NAMES_MAX,
    NAMESPACE_BYTES_MAX,
    TOTAL_BYTES_MAX,
    FileSet,
    StoredContent,
    StoredFiles,
    Variant,
    is_key,
)
from controller.model.errors import Problem
from controller.model.host_paths import is_below
from controller.model.inventory import Inventory
from controller.model.names import NAMESPACE_MAX, SERVICE_NAME_MAX, is_dns_label
from controller.model.quantities import format_bytes

if TYPE_CHECKING:
    from controller.model.desired.spec.mounts import ConfigSpec


_ID = re.compile(r"(?:sha256|hmac):[0-9a-f]{64}", re.ASCII)


def content_id(files: Mapping[str, bytes]) -> str:
    """Return the id of the content of a Config."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return f"sha256:{digest(digests)}"


def is_content_id(text: str) -> bool:
    """Return True if *text* has the form of a content's id."""
    return _ID.fullmatch(text) is not None


class DeclaredConfig(Protocol):
    """A declared Config, with the places of its fields."""

    @property
    def files(self) -> tuple[tuple[str, bytes], ...] | None: ...
    def problem(self, path: YamlPath, code: str, message: str, remedy: str) -> Problem: ...


def files_of(config: DeclaredConfig, spec: ConfigSpec) -> dict[str, bytes]:
    """Return the files of a Config: the texts of the document, and the files that were read."""
    return {**{name: text.encode() for name, text in spec.data.items()}, **dict(config.files or ())}


def check_config(config: DeclaredConfig, spec: ConfigSpec) -> Iterator[Problem]:
    """Yield what is wrong with the files of a Config. Each problem blinds the Config."""
    if not spec.data and not spec.files:
        message = "spec has neither data nor files"
        yield config.problem(("spec",), "config.empty", message, "add data: {name: text}")
    for name in sorted(spec.data.keys() & spec.files.keys()):
        message = f"{name} is in data and in files"
        yield config.problem(("spec", "files", name), "config.twice", message, "remove one of them")
    if spec.files and config.files is None:
        message = "the files can't be read here: the document lies in no source folder"
        remedy = "give the folder, or write the files as data"
        yield config.problem(("spec", "files"), "config.unread", message, remedy)
    for name, reason in faults(files_of(config, spec)):
        path: YamlPath = ("spec", "files" if name in spec.files else "data", name)
        whole: YamlPath = ("spec",)
        remedy = "mount a volume for large data, or split the Config"
        message = f"{name}: {reason}" if name else reason
        yield config.problem(path if name else whole, "config.too-large", message, remedy)


def faults(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Yield the file ('' for all) and the reason of each exceeded bound."""
    if len(files) > FILES_MAX:
        yield "", f"{len(files)} files: at most {FILES_MAX}"
    for name, data in files.items():
        if not is_key(name):
            yield name, "not a relative path of at most 8 names"
        if len(data) > FILE_BYTES_MAX:
            reason = f"{format_bytes(len(data))} is more than {format_bytes(FILE_BYTES_MAX)}"
            yield name, reason
    if (total := sum(map(len, files.values()))) > CONTENT_BYTES_MAX:
        reason = f"{format_bytes(total)} in all is more than {format_bytes(CONTENT_BYTES_MAX)}"
        yield "", reason
    if clash := _clash(files):
        yield clash, f"{clash} is a file and a folder at once"


def _clash(files: Mapping[str, bytes]) -> str:
    """Return a name that is also the folder of another name, '' for none."""
    for name in files:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in files:
                return folder
    return ""


class DamagedContent(Exception):
    """The stored bytes aren't the content of their name."""


class UnopenedContent(Exception):
    """The stored bytes can't be opened now: a key is missing, or the decryption failed."""


def encode_blob(files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a stored content."""
    names = sorted(files)
    head = json.dumps([[name, len(files[name])] for name in names], ensure_ascii=False)
    return b"\n".join([head.encode(), b"".join(files[name] for name in names)])


def decode_blob(blob: bytes) -> dict[str, bytes]:
    """Return the files of a stored content.

    Raises:
        DamagedContent: the bytes don't have the form that ``encode`` writes.
    """
    head, found, data = blob.partition(b"\n")
    try:
        sizes = [(str(name), int(size)) for name, size in json.loads(head)]
    except (ValueError, TypeError) as error:
        raise DamagedContent("its list of files can't be read") from error
    if not found or sum(size for _, size in sizes) != len(data):
        raise DamagedContent("it isn't whole")
    files, start = {}, 0
    for name, size in sizes:
        files[name] = data[start : start + size]
        start += size
    return files


#: Members of an archive, folders included. A container can have any number of folders.
_MEMBERS_MAX = 4 * FILES_MAX


def files_of_archive(archive: bytes, *, file: str = "") -> dict[str, bytes] | None:
    """Return the files in an archive by their paths in the folder; with *file*, one file by that name.

    None if the archive is broken, has a link, a device or another special file, or passes the limits
    of a Config.
    """
    import tarfile  # loaded by the few brokers that adopt containers

    files: dict[str, bytes] = {}
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as opened:
            for number, member in enumerate(opened):
                if number >= _MEMBERS_MAX:
                    return None
                _, _, name = member.name.removeprefix("./").partition("/")
                if member.isdir() and not file:
                    continue
                stream = opened.extractfile(member) if member.isreg() else None
                if stream is None or member.size > FILE_BYTES_MAX or len(files) >= FILES_MAX:
                    return None
                key = file or posixpath.normpath(name)
                size += member.size
                if size > CONTENT_BYTES_MAX or key in files or not is_key(key):
                    return None
                files[key] = stream.read(FILE_BYTES_MAX + 1)
    except (tarfile.TarError, EOFError, ValueError, OSError):
        return None
    return files


_DIGITS = 16
#: Below the folder of a name: a content's folder or a stable one, with the variant and one file.
_INNER = re.compile(r"(?:(current-)|([0-9a-f]{64})/)([0-9a-f]{16})(?:/(.+))?", re.ASCII)
#: How the ids of contents begin, by kind.
_ALGORITHMS = {"config": "sha256", "secret": "hmac"}
#: The content of a stable folder, whose path doesn't name it.
UNKNOWN_CONTENT = f"sha256:{'0' * 64}"
#: The link that moves to another content at once.
DATA_LINK = "..data"


def config_root(state_folder: str) -> str:
    """Return the folder of the mounted files of Configs in a state folder."""
    return f"{state_folder}/files/config"


def variant_id(variant: Variant) -> str:
    """Return the name of a variant's folder."""
    members = [variant.uid, variant.gid, variant.mode, list(variant.keys)]
    return str(digest({"variant": members}))[:_DIGITS]


def content_folder(content: str) -> str:
    """Return the name of a content's folder: the digits of its id."""
    return content.rpartition(":")[2]


def content_of(kind: str, folder: str) -> str:
    """Return the content's id of a folder's name."""
    return f"{_ALGORITHMS[kind]}:{folder}"


def folder_of(files: FileSet, content: str, variant: Variant, *, stable: bool) -> str:
    """Return the folder of a variant, relative to the folder of the kind."""
    return recorded_source("", files, content, variant_id(variant), stable=stable)[1:]


def source_of(
    root: str,
    files: FileSet,
    content: str,
    variant: Variant,
    *,
    key: str = "",
    stable: bool = False,
) -> str:
    """Return the path of the host that is mounted."""
    return recorded_source(root, files, content, variant_id(variant), key=key, stable=stable)


def recorded_source(
    root: str, files: FileSet, content: str, variant: str, *, key: str = "", stable: bool = False
) -> str:
    """Return the path of the host that is mounted, by the id of the variant."""
    inner = f"current-{variant}" if stable else f"{content_folder(content)}/{variant}"
    folder = f"{root}/{files.namespace}/{files.name}/{inner}"
    return f"{folder}/{key}" if key else folder


@dataclass(frozen=True, slots=True)
class MountedPlace:
    """A mount of delivered files, as its path on the host says."""

    files: FileSet
    content: str  # ``UNKNOWN_CONTENT`` of a stable folder
    variant: str
    key: str = ""
    stable: bool = False


def mounted_place(roots: Mapping[str, str], source: str) -> MountedPlace | None:
    """Return the delivered files that lie at a path of the host; None for any other path.

    *roots* are the folders of the kinds. A path comes from a container that the inventory lacks.
    """
    for kind, root in roots.items():
        if not is_below(source, root):
            continue
        namespace, _, rest = source.removeprefix(f"{root}/").partition("/")
        name, _, inner = rest.partition("/")
        match = _INNER.fullmatch(inner)
        named = is_dns_label(namespace, length=NAMESPACE_MAX)
        if match is None or not named or not is_dns_label(name, length=SERVICE_NAME_MAX):
            return None
        stable, digits, variant, key = match.groups(default="")
        if key and not is_key(key):
            return None
        content = content_of(kind, digits) if digits else UNKNOWN_CONTENT
        return MountedPlace(FileSet(kind, namespace, name), content, variant, key, stable != "")
    return None


Stored = Mapping[str, StoredFiles]
#: A content by its name and its id.
NamedContent = tuple[FileSet, str]


def with_delivered(
    stored: Stored, files: FileSet, content: StoredContent, used: Iterable[NamedContent]
) -> dict[str, StoredFiles]:
    """Return the stored contents after a delivery, without those that nobody needs.

    *used* are the contents that containers name.
    """
    named = frozenset(used)
    before = stored.get(str(files), StoredFiles(files))
    others = tuple(each for each in before.contents if each.content != content.content)
    after = _trimmed(replace(before, contents=(*others, content)), named)
    kept = dict(stored)
    kept.pop(str(files), None)
    if (surplus := len(kept) + 1 - NAMES_MAX) > 0:
        unused = [key for key, each in kept.items() if not _is_used(each, named)]
        for key in unused[:surplus]:
            del kept[key]
    kept[str(files)] = after
    return kept


def _trimmed(files: StoredFiles, named: frozenset[NamedContent]) -> StoredFiles:
    latest = files.contents[-CONTENTS_KEPT:]
    kept = tuple(
        each for each in files.contents if each in latest or (files.files, each.content) in named
    )
    return replace(files, contents=kept)


def _is_used(files: StoredFiles, named: frozenset[NamedContent]) -> bool:
    return any((files.files, each.content) in named for each in files.contents)


def why_full(after: Stored, files: FileSet) -> str:
    """Return which bound the stored contents exceed, '' for none."""
    sizes = {key: sum(each.size for each in files.contents) for key, files in after.items()}
    own = sum(size for key, size in sizes.items() if after[key].files.namespace == files.namespace)
    if own > NAMESPACE_BYTES_MAX:
        most = format_bytes(NAMESPACE_BYTES_MAX)
        return f"the contents of namespace {files.namespace} would pass {most}"
    if sum(sizes.values()) > TOTAL_BYTES_MAX:
        return f"all contents would pass {format_bytes(TOTAL_BYTES_MAX)}"
    return "" if len(after) <= NAMES_MAX else f"there would be more than {NAMES_MAX} names"


def used_contents(inventory: Inventory) -> Iterator[tuple[FileSet, str]]:
    """Yield the contents of delivered files in the mounts of containers, also of released ones."""
    for item in (*inventory.containers.values(), *inventory.released.values()):
        for mount in item.confined.mounts if item.confined is not None else ():
            if mount.type in FILE_KINDS:
                yield FileSet(mount.type, item.namespace, mount.source), mount.content


def owners_shown(inventory: Inventory, files: FileSet) -> frozenset[str]:
    """Return the owners of the containers with a mount for each later content of *files*."""
    return frozenset(
        item.owner
        for item in inventory.containers.values()
        for mount in (item.confined.mounts if item.confined is not None else ())
        if mount.stable and FileSet(mount.type, item.namespace, mount.source) == files
    )
