"""The file of a backup: a compressed tar archive, with the digest of each member in the last one.

The first member, ``format.json``, tells the format, and ``backup.json`` what the file is of. Members
below ``state/`` are files of the state folder under their own names. ``keys.age`` has the keys and generated values, encrypted to
an age recipient, together with the digests of all members before it: nobody without the journal's
key can make another file that passes for this one. ``digests.json`` is the last member, so that a
file that was cut short is noticed.

A file is written under a temporary name, and appears once it is whole and durable.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Protocol, cast

from controller.core.encoding.json_values import canonical
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import StateError, UsageError, error_reason
from controller.system.durable_files import fsync_folder

FORMAT: Final = 1
FORM: Final = "format.json"
MANIFEST: Final = "backup.json"
KEYS: Final = "keys.age"
DIGESTS: Final = "digests.json"
POLICY: Final = "policy.yaml"
SETTINGS: Final = "trimtab.yaml"
STATE: Final = "state/"
VOLUMES: Final = "volumes/"
#: The files and folders of a state folder in a backup. Others are neither written nor accepted.
JOURNAL: Final = "broker/journal"
CHECKPOINT: Final = "journal.checkpoint"
PUBLIC: Final = "journal.pub"
FILES: Final = ("broker/files", "controller/state.json")
_SMALL: Final = frozenset({FORM, MANIFEST, KEYS, POLICY, SETTINGS, DIGESTS})
_BLOCK: Final = 1024 * 1024
#: Members that are read into memory, in bytes: manifest, digests, keys with generated values.
_IN_MEMORY_MAX: Final = 256 * _BLOCK
_UNREADABLE: Final = (
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    UnicodeDecodeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """What a backup is of."""

    instance: str
    engine_id: str
    #: Of the state folder.
    epoch: int
    #: The id of the record of the backup.
    record: str
    #: The seq, the hash and the time of the last record, a checkpoint.
    records: int
    head: str
    time: str
    #: The age recipient of keys and generated values; '' if they were left out.
    recipient: str
    #: The volumes in the file, and the instance's other ones.
    volumes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    #: The body of the create of each volume in the file that documents made, by its name.
    bodies: Mapping[str, Any] = field(default_factory=dict)
    #: ``instance.json`` without its format.
    identity: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the content of the member."""
        return canonical(asdict(self)) + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> BackupManifest:
        """Return the manifest in the content of its member.

        Raises:
            ValueError: the content is none.
        """
        try:
            members = json.loads(content)
            for name in ("volumes", "left_out"):
                members[name] = tuple(members[name])
            return cls(**members)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{MANIFEST} can't be read") from error


def _check_format(content: bytes, file: Path) -> None:
    try:
        form = json.loads(content)["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise invalid(file) from error
    if form != FORMAT:
        raise StateError(
            "backup.newer",
            f"{file} is a backup of format {form!r:.20}, and this trimtab reads format {FORMAT}",
            remedy="install the trimtab that made it, or a later one",
        )


def invalid(file: Path) -> StateError:
    """Return the error about a file that is no backup."""
    return StateError(
        "backup.invalid",
        f"{file} isn't a backup of trimtab's",
        remedy="name a file that 'trimtab backup' made",
    )


def cut_short(file: Path) -> StateError:
    """Return the error about a file without its end."""
    return StateError(
        "backup.cut-short", f"{file} ends too early", remedy="copy it again, or take another one"
    )


def tampered(file: Path, what: str) -> StateError:
    """Return the error about a file whose content was changed."""
    return StateError(
        "backup.tampered",
        f"{file} was changed or is damaged: {what}",
        remedy="take another one, and find out who changed it",
    )


class Readable(Protocol):
    """The content of a member."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; b'' at the end."""


class _Counted:
    """A content that is hashed while its bytes are read."""

    def __init__(self, content: Readable) -> None:
        self._file = content
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


class BackupWriter:
    """Writes the members of a backup, in order."""

    def __init__(self, tar: tarfile.TarFile, reach: Reach) -> None:
        self._tar = tar
        self._reach = reach
        #: SHA-256 in hex, by the name of the member.
        self.digests: dict[str, str] = {}

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Add the first *size* bytes of a file.

        Raises:
            OSError: the file has fewer bytes, or the backup can't be written.
        """
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        counted = _Counted(file)
        self._tar.addfile(info, cast("BinaryIO", counted))  # it is read alone
        self.digests[name] = counted.digest.hexdigest()
        self._reach("backup.member.after")

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a member with a content."""
        self.add(name, io.BytesIO(content), len(content))

    def seal(self, files: Mapping[str, bytes], recipient: str) -> None:
        """Add keys and generated values, encrypted, with the digests of the members so far."""
        import pyrage

        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as inner:
            for name, content in {**files, DIGESTS: canonical(self.digests)}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                inner.addfile(info, io.BytesIO(content))
        recipients = [pyrage.x25519.Recipient.from_str(recipient)]
        self.add_bytes(KEYS, bytes(pyrage.encrypt(plain.getvalue(), recipients)))


def check_recipient(recipient: str) -> None:
    """Check a public key of age.

    Raises:
        UsageError: the text is none.
    """
    import pyrage

    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise UsageError(
            "backup.bad-recipient",
            f"{recipient[:80]!r} is not an age recipient",
            remedy="write a public key, which begins with age1: 'age-keygen' makes a pair",
        ) from None


@contextmanager
def written(file: Path, *, reach: Reach = pass_by) -> Iterator[BackupWriter]:
    """Yield the writer of a new backup. The file appears at the end of the block, mode 0600.

    Raises:
        StateError: the file exists, or can't be written.
    """
    if os.path.lexists(file):
        raise StateError(
            "backup.exists",
            f"{file} exists already",
            remedy="name another file, or remove it first",
        )
    temporary = file.with_name(f".{file.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as out:
            with (
                gzip.GzipFile("", "wb", 6, out, 0) as packed,
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                writer = BackupWriter(tar, reach)
                writer.add_bytes(FORM, canonical({"format": FORMAT}))
                yield writer
                writer.add_bytes(DIGESTS, canonical(writer.digests))
            out.flush()
            reach("backup.fsync.before")
            os.fsync(out.fileno())
        temporary.rename(file)
        fsync_folder(file.parent)
    except OSError as error:
        if error.filename not in {None, str(temporary), str(file.parent)}:
            raise
        raise StateError(
            "backup.unwritable",
            f"{file}: {error_reason(error)}",
            remedy="name a file in a folder with room that you can write",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


#: Gets the name and the content of a member, and reads the content to its end.
TakeMember = Callable[[str, Readable], None]


@dataclass(frozen=True, slots=True)
class ReadBackup:
    """What was read of a backup, besides the members that went to the sink."""

    manifest: BackupManifest
    #: Encrypted; b'' if the backup has no keys.
    keys: bytes = field(repr=False)
    #: The text of the policy, if it is a file of its own, and of the settings; b'' without one.
    policy: bytes
    settings: bytes
    #: SHA-256 in hex, by the name of the member.
    digests: Mapping[str, str]


def read(file: Path, sink: TakeMember) -> ReadBackup:
    """Read a whole backup. Members below ``state/`` and ``volumes/`` go to *sink*.

    The sink gets contents before their digests are known to be right: what it made of them is worth
    nothing if this raises.

    Raises:
        StateError: the file is no backup, was cut short or changed, is of a newer format, or can't be
            read.
    """
    try:
        with file.open("rb") as opened, gzip.GzipFile(fileobj=opened, mode="rb") as packed:
            return _read(file, packed, sink)
    except EOFError:
        raise cut_short(file) from None
    except _UNREADABLE as error:
        raise tampered(file, error_reason(error)) from error
    except OSError as error:
        if error.filename not in {None, str(file)}:
            raise
        raise StateError(
            "backup.unreadable", f"{file}: {error_reason(error)}", remedy="name a file you can read"
        ) from error


def _read(file: Path, packed: gzip.GzipFile, sink: TakeMember) -> ReadBackup:
    try:
        tar = tarfile.open(fileobj=packed, mode="r|")  # noqa: SIM115 - nothing to close
        first = tar.next()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise invalid(file) from error
    if first is None or first.name != FORM or not first.isreg() or first.size > _BLOCK:
        raise invalid(file)
    kept: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    info: tarfile.TarInfo | None = first
    while info is not None:
        content = tar.extractfile(info) if info.isreg() else None
        is_small = info.name in _SMALL and info.size <= _IN_MEMORY_MAX
        is_expected = is_small or is_in_folder(info.name)
        if content is None or not is_expected or info.name in digests or DIGESTS in digests:
            raise tampered(file, f"the member {info.name!r}")
        counted = _Counted(content)
        if is_small:
            kept[info.name] = counted.read()
        else:
            sink(info.name, counted)
        digests[info.name] = counted.digest.hexdigest()
        if info is first:
            _check_format(kept[FORM], file)
        info = tar.next()
    if DIGESTS not in digests:
        raise cut_short(file)
    while packed.read(_BLOCK):  # to the checksum at the end
        pass
    found = {name: digest for name, digest in digests.items() if name != DIGESTS}
    _compare(file, found, json.loads(kept[DIGESTS]))
    manifest = BackupManifest.parse(kept.get(MANIFEST, b""))
    return ReadBackup(
        manifest,
        keys=kept.get(KEYS, b""),
        policy=kept.get(POLICY, b""),
        settings=kept.get(SETTINGS, b""),
        digests=found,
    )


def _compare(file: Path, found: Mapping[str, str], written: Mapping[str, str]) -> None:
    for name in {**written, **found}:
        if found.get(name) != written.get(name):
            raise tampered(file, f"the member {name!r}")


def is_in_folder(name: str) -> bool:
    """Return True for a member that is a file of the state folder or a volume, under a safe name."""
    path = PurePosixPath(name)
    if ".." in path.parts or "\0" in name or str(path) != name:
        return False
    if name.startswith(VOLUMES):
        return True
    below = path.relative_to(STATE) if path.is_relative_to(STATE) else None
    places = (JOURNAL, CHECKPOINT, PUBLIC, *FILES)
    return below is not None and any(below.is_relative_to(each) for each in places)


def open_keys(backup: ReadBackup, file: Path, identity: Path) -> dict[str, bytes]:
    """Return keys and generated values by their names in the folder ``broker``.

    Raises:
        StateError: the file of the identity can't be read, or the backup was changed.
        SecretError: the identity is of another recipient.
    """
    from controller.core.secrets.sops import parse_identities

    try:
        text = identity.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            "restore.identity",
            f"{identity} can't be read as an age identity: {error_reason(error)}",
            remedy="name the file with the private key of the backup's recipient",
        ) from error
    plain = parse_identities(text, str(identity)).open(backup.keys, f"{KEYS} of {file}")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as inner:
            for info in inner:
                content = inner.extractfile(info)
                if content is None or ".." in PurePosixPath(info.name).parts:
                    raise tampered(file, f"the member {KEYS!r}")
                files[info.name] = content.read()
        sealed = json.loads(files.pop(DIGESTS))
    except (tarfile.TarError, ValueError, KeyError) as error:
        raise tampered(file, f"the member {KEYS!r}") from error
    others = {name: digest for name, digest in backup.digests.items() if name != KEYS}
    _compare(file, others, sealed)
    return files
