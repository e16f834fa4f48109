"""Backups of a state folder: made while it runs, verified, and restored.

The broker's only part in a backup is one record, which it signs in the same write: the checkpoint
after this record is the end of the backup. The command copies the journal up to it. Contents of files
and generated values are copied before that record, and once more what came in between, so that
nothing is missing that the journal knows.

A restore makes everything in a folder of its own, and moves it to its place, ``instance.json`` last.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Final

from controller.app import backup_file, process
from controller.app.backup_file import (
    CHECKPOINT,
    FILES,
    JOURNAL,
    KEYS,
    MANIFEST,
    POLICY,
    PUBLIC,
    SETTINGS,
    STATE,
    VOLUMES,
    BackupManifest,
    Readable,
    ReadBackup,
)
from controller.app.policy import policy_file
from controller.app.state_folder import await_free, read_file
from controller.broker.engine.client import EngineClient
from controller.core.records.checkpoint import CheckpointRecord, origin_of, read_checkpoint
from controller.core.records.parts import ActorPart, RequestPart, RestorePart
from controller.core.records.record import parse
from controller.core.settings_file import with_values
from controller.core.transparency import BadNote, PublicKey, parse_private
from controller.journal.store.chain import pruned_seq
from controller.journal.store.segments import MARK_NAME, list_segments, read_lines
from controller.journal.verify.checks import Cut, CutFile, changed, open_cut
from controller.journal.verify.verify import TrustAnchors, Verification, verify
from controller.journal.writer.checkpointer import (
    Checkpointer,
    KeyFiles,
    SigningKeys,
    ends_of,
    read_published_keys,
)
from controller.journal.writer.writer_thread import Writer
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import StateError, error_reason
from controller.model.mutations import STATE_RESTORED
from controller.model.records import Entry, Role
from controller.model.settings import InstanceSettings
from controller.settings import (
    RESTORING,
    Instance,
    StateFolder,
    read_in_force,
    read_instance,
    run_folder,
    settings_file,
    state_of,
    write_instance,
)
from controller.system.durable_files import fsync_folder, write_atomic
from controller.system.sockets import engine_socket_path

#: The folder with the journal of the instance before, in a state folder of another engine.
FORMER: Final = "former"
_SIGNING: Final = "broker/journal.key"
#: The files of a state folder that a backup has encrypted.
_SECRETS: Final = (_SIGNING, "broker/secrets.key", "broker/generated")
#: Folders that containers mount, and the folder in which a state folder is made.
_STAY: Final = ("files", "run")
_INSTANCE: Final = "instance.json"
#: A file that is there while a restore moves files to their places.
_PLACING: Final = "placing"
#: How often a backup begins again because records were pruned meanwhile.
_ATTEMPTS: Final = 3
_BLOCK: Final = 1024 * 1024
#: Has the broker write the record of the backup. Returns the record's id.
AskForCut = Callable[[], str]


@dataclass(frozen=True, slots=True)
class DumpedVolume:
    """A volume for a backup."""

    archive: Path
    #: The body of its create by documents; empty for a volume that they didn't make.
    body: Mapping[str, object]


def make(
    state: StateFolder,
    instance: Instance,
    file: Path,
    *,
    recipient: str,
    ask_for_cut: AskForCut,
    volumes: Mapping[str, DumpedVolume],
    left_out: tuple[str, ...],
    reach: Reach = pass_by,
) -> BackupManifest:
    """Make a backup of a running instance, and return what it is of.

    Args:
        state: The state folder.
        instance: Its instance.
        file: The backup, which doesn't exist yet.
        recipient: The age recipient of keys and generated values; '' leaves them out.
        ask_for_cut: Has the broker write the record of the backup.
        volumes: The dumped volumes, by name.
        left_out: The names of the instance's other volumes.
        reach: Reports the crash points of the command.

    Raises:
        StateError: the file exists or can't be written, or the state folder can't be read.
        EngineError: no broker answers.
    """
    with backup_file.written(file, reach=reach) as backup, _readable(state.root):
        for name, volume in volumes.items():
            with volume.archive.open("rb") as dump:
                backup.add(f"{VOLUMES}{name}.tar", dump, volume.archive.stat().st_size)
        _add_files(backup, state.root, FILES)
        generated = _read_files(state.root, _SECRETS) if recipient else {}
        with _cut(state.journal, ask_for_cut) as (record, cut, files):
            for each in files:
                backup.add(f"{STATE}{JOURNAL}/{each.name}", each.file, each.size)
        backup.add_bytes(f"{STATE}{JOURNAL}/{MARK_NAME}", cut.mark.to_bytes())
        backup.add_bytes(f"{STATE}{CHECKPOINT}", str(cut.sealed.note).encode())
        backup.add_bytes(f"{STATE}{PUBLIC}", _public_keys(state, cut))
        _add_files(backup, state.root, FILES)
        policy = read_in_force(state.root).settings.policy
        with suppress(FileNotFoundError):  # a running broker doesn't need these files
            backup.add_bytes(SETTINGS, settings_file(state.root).read_bytes())
        with suppress(FileNotFoundError):
            backup.add_bytes(POLICY, policy_file(policy).read_bytes())
        manifest = BackupManifest(
            instance=instance.id,
            engine_id=instance.engine_id,
            epoch=instance.epoch,
            record=record,
            records=cut.mark.seq,
            head=cut.mark.hash,
            time=cut.time,
            recipient=recipient,
            volumes=tuple(volumes),
            left_out=left_out,
            bodies={name: each.body for name, each in volumes.items() if each.body},
            identity=asdict(instance),
        )
        backup.add_bytes(MANIFEST, manifest.to_bytes())
        if recipient:
            kept = {**generated, **_read_files(state.root, _SECRETS)}
            _check_key(kept.get(_SIGNING, b""), cut.sealed.key)
            backup.seal(kept, recipient)
    return manifest


def _public_keys(state: StateFolder, cut: Cut) -> bytes:
    """Return the list of public keys; the first one signed the end of the backup."""
    content = state.journal_public.read_bytes()
    published = read_published_keys(state.journal_public)
    if not published or published[0].key != cut.sealed.key:
        raise changed()
    return content


def _check_key(text: bytes, key: PublicKey) -> None:
    if parse_private(text.decode()).public != key:
        raise changed()


@contextmanager
def scratch(file: Path) -> Iterator[Path]:
    """Yield a folder for dumps of volumes beside a backup. One that a killed backup left is removed."""
    folder = file.with_name(f".{file.name}.volumes")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise StateError(
            "backup.unwritable",
            f"{folder}: {error.strerror}",
            remedy="name a file in a folder with room that you can write",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _readable(root: Path) -> Iterator[None]:
    """Raise StateError for files that the caller can't read."""
    try:
        yield
    except PermissionError as error:
        raise StateError(
            "backup.denied",
            f"{error.filename or root}: {error.strerror}",
            remedy="run as root, or as the broker's user",
        ) from error


@contextmanager
def _cut(journal: Path, ask: AskForCut) -> Iterator[tuple[str, Cut, list[CutFile]]]:
    """Yield the id of the record of a new cut, the cut, and its files."""
    # A cut has each segment open, so that none goes meanwhile.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for attempt in range(1, _ATTEMPTS + 1):
        pruned = pruned_seq(journal)
        record = ask()
        opened = open_cut(journal, record, pruned=pruned)
        try:
            cut, files = opened.__enter__()
        except StateError as error:
            if error.code != "backup.changed" or attempt == _ATTEMPTS:
                raise
            continue
        try:
            yield record, cut, files
        finally:
            opened.__exit__(None, None, None)
        return


def _add_files(backup: backup_file.BackupWriter, root: Path, paths: tuple[str, ...]) -> None:
    """Add the files below *paths* that the backup lacks. Contents never change under a name."""
    for name, path in _files(root, *paths):
        with suppress(FileNotFoundError):  # removed, or replaced, meanwhile
            if f"{STATE}{name}" not in backup.digests:
                with path.open("rb") as file:
                    backup.add(f"{STATE}{name}", file, os.fstat(file.fileno()).st_size)


def _read_files(root: Path, paths: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for name, path in _files(root, *paths):
        with suppress(FileNotFoundError):
            found[name] = path.read_bytes()
    return found


def _files(root: Path, *names: str) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the regular files below *names*; temporary files are left out.

    Raises:
        OSError: a folder can't be read. ``Path.rglob`` passes over such a folder.
    """
    for name in names:
        with suppress(FileNotFoundError):  # removed meanwhile
            path = root / name
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                below = sorted(each.name for each in path.iterdir())
                yield from _files(root, *(f"{name}/{each}" for each in below))
            elif stat.S_ISREG(mode) and not path.name.startswith("."):
                yield name, path


# Verifying


def check(
    file: Path, *, keys: frozenset[PublicKey] = frozenset()
) -> tuple[BackupManifest, Verification]:
    """Verify a backup: the digest of each member, the chain of the journal, and its signatures.

    *keys* are trusted keys from elsewhere; without them the file's own ones are used.

    Raises:
        StateError: as ``backup_file.read``; ``backup.tampered`` also for a journal that isn't whole.
    """
    folder = None if "TMPDIR" in os.environ else "/var/tmp"  # noqa: S108 - a folder of our own in it; /tmp can be memory
    with tempfile.TemporaryDirectory(prefix="trimtab-backup-", dir=folder) as name:
        root = Path(name)

        def keep(member: str, content: Readable) -> None:
            is_journal = member.startswith(f"{STATE}{JOURNAL}/")
            if is_journal or member in {STATE + CHECKPOINT, STATE + PUBLIC}:
                _extract(root / member.removeprefix(STATE), content)
            else:
                _skip(content)

        read = backup_file.read(file, keep)
        return read.manifest, _verify(file, root, read.manifest, keys)


def _verify(
    file: Path, root: Path, manifest: BackupManifest, keys: frozenset[PublicKey] = frozenset()
) -> Verification:
    """Verify the journal of a backup in an unpacked state folder."""
    try:
        published = read_published_keys(root / PUBLIC)
        ends = dict.fromkeys(keys) if keys else ends_of(published)
        anchors = TrustAnchors(
            frozenset(ends),
            until={key: until for key, until in ends.items() if until is not None},
            file="" if keys else PUBLIC,
            published=() if keys else published,
        )
        workers = len(os.sched_getaffinity(0))
        result = verify(root / JOURNAL, anchors, workers=workers)
        sealed = _last_checkpoint(root / JOURNAL)
    except (OSError, BadNote, ValueError) as error:
        raise backup_file.tampered(file, error_reason(error)) from error
    if not result.ok:
        raise backup_file.tampered(file, f"its journal: {result.reason}")
    # Pruned records aren't counted among the verified ones.
    last = result.begin - 1 + result.records
    is_end = (last, result.last_hash) == (manifest.records, manifest.head)
    origin = origin_of(manifest.instance)
    if not is_end or result.signed != manifest.records - 1 or sealed.checkpoint.origin != origin:
        raise backup_file.tampered(file, "its journal ends elsewhere than it says")
    return result


def _last_checkpoint(journal: Path) -> CheckpointRecord:
    *_, last = read_lines(list_segments(journal)[-1])
    return read_checkpoint(parse(last.data))


def _extract(path: Path, content: Readable) -> None:
    """Write a durable file of mode 0600, and its folders."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
        shutil.copyfileobj(content, out, _BLOCK)
        out.flush()
        os.fsync(out.fileno())


def _skip(content: Readable) -> None:
    while content.read(_BLOCK):
        pass


# Restoring


def engine_id(url: str) -> str:
    """Return the id of the engine that answers.

    Raises:
        EngineError: no engine answers.
    """

    async def ask() -> str:
        client = EngineClient(engine_socket_path(url))
        try:
            return (await client.identify()).facts.engine_id
        finally:
            client.close()

    return asyncio.run(ask())


def raise_unless_free(root: Path, *, replace: bool) -> None:
    """Refuse a place for a restore where a state folder is, unless that is to be replaced.

    What containers mount can be there, and what a restore that was killed left.

    Raises:
        StateError: ``state.served`` or ``restore.not-empty``.
    """
    if read_instance(root) is not None:
        await_free(root)
        entries = _names(root) - {*_STAY, RESTORING}
    elif (root / RESTORING).exists():
        return
    else:
        entries = _names(root) - {*_STAY}
    if entries and not replace:
        raise StateError(
            "restore.not-empty",
            f"{root} isn't empty: {', '.join(sorted(entries)[:4])}",
            remedy="stop what uses it, and give --replace, which moves it aside",
        )


@contextmanager
def unpacked(file: Path, root: Path, *, identity: Path | None) -> Iterator[tuple[Path, ReadBackup]]:
    """Yield a folder in *root* with the verified content of a backup, removed at the end.

    Raises:
        StateError: the backup can't be used, its keys can't be opened, or the folder can't be made.
        SecretError: *identity* is of another recipient.
    """
    staged = root / RESTORING
    is_new = not root.exists()
    try:
        if staged.exists():
            shutil.rmtree(staged)  # of a restore that was killed
        root.mkdir(parents=True, exist_ok=True)
        staged.mkdir(mode=0o700)
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{staged}: {error.strerror}",
            remedy="make the folder writable, or name another with --state",
        ) from error
    try:

        def keep(member: str, content: Readable) -> None:
            if member.startswith(STATE):
                _extract(staged / member.removeprefix(STATE), content)
            else:
                _skip(content)

        read = backup_file.read(file, keep)
        _verify(file, staged, read.manifest)
        if read.keys and identity is None:
            raise StateError(
                "restore.identity",
                f"the keys in {file} are encrypted to {read.manifest.recipient}",
                remedy="name the file with the private key: --identity FILE",
            )
        if read.keys and identity is not None:
            _extract_keys(file, staged, backup_file.open_keys(read, file, identity))
        (staged / PUBLIC).chmod(0o644)
        (staged / CHECKPOINT).chmod(0o644)
        yield staged, read
    finally:
        if not (staged / _PLACING).exists():
            shutil.rmtree(staged, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                root.rmdir()  # nothing was restored


def _extract_keys(file: Path, staged: Path, keys: Mapping[str, bytes]) -> None:
    """Write keys and generated values. The signing key must be that of the journal's end."""
    public = _last_checkpoint(staged / JOURNAL).key
    signing = keys.get(_SIGNING, b"").decode("ascii", "replace")
    is_expected = all(PurePosixPath(name).is_relative_to("broker") for name in keys)
    try:
        is_expected = is_expected and parse_private(signing).public == public
    except BadNote as error:
        raise backup_file.tampered(file, f"the member {KEYS!r}") from error
    if not is_expected:
        raise backup_file.tampered(file, f"the member {KEYS!r}")
    for name, content in keys.items():
        _extract(staged / name, io.BytesIO(content))


def restore_settings(staged: Path, root: Path, backup: ReadBackup) -> InstanceSettings:
    """Write the settings of an unpacked backup, and return the settings. The system's own file wins.

    The policy of the backup is used if its file is missing on this host.

    Raises:
        SettingsInvalid: the settings have mistakes.
    """
    present = settings_file(root)
    text = backup.settings
    if present.parent != root and present.exists():
        text = present.read_bytes()
    _extract(settings_file(staged), io.BytesIO(text))
    settings_file(staged).chmod(0o644)
    _, decoded, read = read_file(staged)
    policy = read.settings.policy
    if "/" not in policy or Path(policy).exists() or not backup.policy:
        return read.settings
    _extract(staged / POLICY, io.BytesIO(backup.policy))
    changed_text = with_values(decoded, str(present), {"policy": str(root / POLICY)})
    write_atomic(settings_file(staged), changed_text.encode(errors="surrogateescape"), mode=0o644)
    return read_file(staged)[2].settings


def prepare_same_engine(staged: Path, root: Path, backup: ReadBackup, *, uid: int) -> Instance:
    """Make an unpacked backup a state folder of the same instance, with a record of the restore.

    Return the instance.

    Raises:
        StateError: the journal can't be written.
    """
    former = Instance(**backup.manifest.identity)
    run = str(run_folder(root, former.id))
    instance = replace(former, epoch=former.epoch + 1, run=run)
    write_instance(staged, instance)
    _record_restore(staged, instance, backup.manifest, uid=uid)
    return instance


def prepare_other_engine(
    staged: Path, root: Path, backup: ReadBackup, *, engine: str, uid: int
) -> Instance:
    """Make an unpacked backup a state folder of a new instance on another engine. Return the instance.

    The former journal is kept in ``former``, in the form of a state folder. Keys and generated values come
    along, so that programs find the passwords that they know.

    Raises:
        StateError: ``restore.keys-missing``, or the journal can't be written.
    """
    if not (staged / "broker" / "secrets.key").exists():
        raise StateError(
            "restore.keys-missing",
            "the backup has neither secrets.key nor generated values: on another engine, programs would "
            "get other passwords than their data has",
            remedy="restore a backup that was made with --recipient",
        )
    former = Instance(**backup.manifest.identity)
    kept = staged / FORMER
    (kept / "broker").mkdir(parents=True)
    for name in (JOURNAL, CHECKPOINT, PUBLIC):
        (staged / name).rename(kept / name)
    write_instance(kept, former)
    for name in (_SIGNING, *FILES):  # a new key, and contents that are delivered anew
        path = staged / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in (*kept.rglob("*"), kept):
        path.chmod(0o500 if path.is_dir() else 0o400)
    identifier = process.new_instance_id()
    instance = Instance(
        id=identifier,
        dir=former.dir,
        engine_id=engine,
        run=str(run_folder(root, identifier)),
        restored_from=_origin(backup.manifest),
    )
    write_instance(staged, instance)
    _record_restore(staged, instance, backup.manifest, uid=uid)
    return instance


def _origin(manifest: BackupManifest) -> str:
    return f"{manifest.instance}@{manifest.head}"


def unfinished(root: Path, file: Path) -> tuple[Instance, BackupManifest] | None:
    """Return the instance that a restore of this backup on another engine began with; None without one.

    Raises:
        StateError: as ``backup_file.read``.
    """
    instance = read_instance(root)
    if instance is None or not instance.restored_from:
        return None
    read = backup_file.read(file, lambda _name, content: _skip(content))
    is_same = instance.restored_from == _origin(read.manifest)
    return (instance, read.manifest) if is_same else None


#: Gets the name of a volume and its archive, and reads the archive to its end.
TakeVolume = Callable[[str, Readable], None]


def read_volumes(file: Path, take: TakeVolume) -> None:
    """Give each volume's archive in a verified backup to *take*.

    Raises:
        StateError: as ``backup_file.read``.
    """

    def keep(member: str, content: Readable) -> None:
        if member.startswith(VOLUMES):
            take(member.removeprefix(VOLUMES).removesuffix(".tar"), content)
        _skip(content)

    backup_file.read(file, keep)


def _record_restore(
    staged: Path, instance: Instance, manifest: BackupManifest, *, uid: int
) -> None:
    """Write the record of the restore, and sign it."""
    state = state_of(staged, instance)
    files = KeyFiles(state.journal_key, state.journal_public, state.journal_checkpoint)
    clock, origin = process.SystemClock(), origin_of(instance.id)
    keys = SigningKeys(files, name=origin, new_seed=lambda: secrets.token_bytes(32))
    checkpointer = Checkpointer(keys, origin=origin, clock=clock, new_id=process.new_id)
    former = manifest.instance if instance.id != manifest.instance else ""
    summary = RestorePart(
        act="restore",
        before=manifest.time,
        epoch=instance.epoch,
        head=manifest.head,
        former=former,
    )
    request = RequestPart(route=STATE_RESTORED, object=instance.id, summary=summary)
    actor = ActorPart(role=Role.OPERATOR.value, uid=uid)
    entry = Entry(process.new_id(), "operator", actor=actor.members, request=request.members)
    with Writer(
        state.journal, clock=clock, new_id=process.new_id, checkpointer=checkpointer
    ) as log:
        log.append(entry)


def _names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} if folder.exists() else set()


def _place_settings(staged: Path, root: Path) -> None:
    """Put settings for the system's own file there, unless that exists."""
    present, made = settings_file(root), settings_file(staged)
    if present.parent == root:
        return
    if not present.exists():
        present.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(present, made.read_bytes(), mode=0o644)
    made.unlink()


def _free_name(wanted: str) -> Path:
    """Return the path, or a numbered one if a restore of the same second took the path."""
    names = (Path(f"{wanted}-{number}" if number > 1 else wanted) for number in count(1))
    return next(path for path in names if not path.exists())


def place(staged: Path, root: Path, *, reach: Reach = pass_by) -> Path | None:
    """Put a made state folder into its place. Return where the former content is; None without any.

    What containers mount stays where it is: the kernel shows a moved folder under its new path. As long as
    ``instance.json`` is missing nothing starts there (``state.restoring``); the next restore begins
    again.

    Raises:
        StateError: a file can't be moved.
    """
    former = sorted(_names(root) - {*_STAY, RESTORING}, key=lambda name: (name != _INSTANCE, name))
    aside = _free_name(f"{root}.before-{time.strftime('%Y%m%dT%H%M%S')}") if former else None
    try:
        (staged / _PLACING).touch()
        if aside is not None:
            aside.mkdir(mode=0o700)
        for name in former:
            reach("restore.move.before")
            (root / name).rename((aside or root) / name)
        fsync_folder(root)
        _place_settings(staged, root)
        made = _names(staged) - {*_STAY, _PLACING}
        for name in sorted(made, key=lambda name: (name == _INSTANCE, name)):
            fsync_folder(root)
            reach("restore.move.before")
            (staged / name).rename(root / name)
        fsync_folder(root)
        (staged / _PLACING).unlink()
        reach("restore.move.after")
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{root}: {error_reason(error)}",
            remedy="make it writable, and repeat the command",
        ) from error
    return aside
