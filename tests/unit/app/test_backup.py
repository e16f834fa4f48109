"""A backup of a folder that is being written, and every way in which its file can't be used."""

from __future__ import annotations

import gzip
import io
import json
import os
import pwd
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from controller.app import backup
from controller.app.backup_file import DIGESTS, FORM, BackupManifest, written
from controller.core.records.checkpoint import origin_of, prune_entry
from controller.core.records.parts import ActorPart, RequestPart
from controller.journal.store.chain import pruned_seq
from controller.journal.store.segments import list_segments
from controller.journal.verify.verify import verify
from controller.journal.writer.append_log import DEFAULT_LIMITS, SegmentLimits
from controller.journal.writer.checkpointer import Checkpointer, KeyFiles, SigningKeys
from controller.journal.writer.retention import Retention, RetentionLimits, compress
from controller.journal.writer.writer_thread import Writer
from controller.model.errors import SecretError, StateError
from controller.model.mutations import STATE_BACKED_UP
from controller.model.records import Entry
from controller.settings import Instance, StateFolder, state_of, write_instance
from tests.unit.journal.builders import FixedClock, Ids, entry

INSTANCE = Instance(id="0123456789abcdef", dir="/srv/desired", engine_id="E1")
FILES = {
    "broker/files/config/default/site/c1": b"hello",
    "broker/generated/default/password": b"sealed",
    "broker/secrets.key": b"5e" * 32,
    "controller/state.json": b"{}",
    "trimtab.yaml": b"quarantine: 24h\n",
}
SMALL = SegmentLimits(max_segment_bytes=4096)
IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())


@dataclass
class Running:
    """A state folder, and the writer of its journal."""

    state: StateFolder
    writer: Writer
    new_id: Ids
    clock: FixedClock

    def ask(self) -> str:
        identifier = self.new_id()
        request = RequestPart(route=STATE_BACKED_UP, object=INSTANCE.id)
        actor = ActorPart(role="operator", uid=0)
        made = Entry(identifier, "operator", actor=actor.members, request=request.members)
        self.writer.append(made)
        return identifier

    def fill(self) -> None:
        """Append records until closed segments can be pruned."""
        while len(list_segments(self.state.journal)) < 5:
            self.writer.append(replace(entry(0), id=self.new_id()))

    def prune(self) -> None:
        """Prune all that can go."""

        def tell(until: int, reason: str, digest: str) -> None:
            self.writer.append(
                prune_entry(self.new_id(), until=until, reason=reason, digest=digest)
            )

        limits = RetentionLimits(size_bytes=0)
        Retention(self.state.journal, limits=limits, record_pruning=tell).apply(
            now=self.clock.now()
        )

    def back_up(
        self, file: Path, *, recipient: str = RECIPIENT, ask: backup.AskForCut | None = None
    ) -> BackupManifest:
        return backup.make(
            self.state,
            INSTANCE,
            file,
            recipient=recipient,
            ask_for_cut=ask or self.ask,
            volumes={},
            left_out=("data",),
        )


def keys_of(state: StateFolder) -> SigningKeys:
    files = KeyFiles(state.journal_key, state.journal_public, state.journal_checkpoint)
    return SigningKeys(files, name=origin_of(INSTANCE.id), new_seed=lambda: os.urandom(32))


@contextmanager
def running(root: Path, *, limits: SegmentLimits = DEFAULT_LIMITS) -> Iterator[Running]:
    root.mkdir()
    write_instance(root, INSTANCE)
    state = state_of(root, INSTANCE)
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    clock, new_id = FixedClock(), Ids()
    signer = Checkpointer(keys_of(state), origin=origin_of(INSTANCE.id), clock=clock, new_id=new_id)
    with Writer(
        state.journal, clock=clock, new_id=new_id, checkpointer=signer, limits=limits
    ) as writer:
        yield Running(state, writer, new_id, clock)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A backup with keys."""
    file = tmp_path / "made.trimtab"
    with running(tmp_path / "state") as host:
        for number in range(20):
            host.writer.append(entry(number))
        host.back_up(file)
    return file


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "backup.key"
    path.write_text(f"{IDENTITY}\n")
    return path


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {info.name: content_of(tar, info) for info in tar}


def content_of(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(info)
    assert content is not None
    return content.read()


def rewritten(file: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """Write the file anew with changed members, and with whole framing."""
    content = members(file)
    change(content)
    with tarfile.open(file, "w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def refused(act: Callable[[], object]) -> str:
    with pytest.raises((StateError, SecretError)) as error:
        act()
    return error.value.code


def test_a_backup_ends_with_its_own_signed_record_whatever_is_written_meanwhile(
    tmp_path: Path,
) -> None:
    file, ended = tmp_path / "made.trimtab", threading.Event()
    with running(tmp_path / "state", limits=SMALL) as host:

        def write() -> None:
            number = 100
            while not ended.is_set():
                host.writer.append(entry(number))
                number += 1

        writing = threading.Thread(target=write)
        writing.start()
        try:
            manifests = [host.back_up(tmp_path / f"{number}.trimtab") for number in range(5)]
        finally:
            ended.set()
            writing.join()
    for number, manifest in enumerate(manifests):
        file = tmp_path / f"{number}.trimtab"
        assert file.stat().st_mode & 0o777 == 0o600
        found, result = backup.check(file)
        assert found == manifest
        assert (result.records, result.signed) == (manifest.records, manifest.records - 1)
        assert manifest.left_out == ("data",)


@pytest.mark.parametrize("is_first", [True, False], ids=["before the record", "after the record"])
def test_a_backup_begins_again_when_records_are_pruned_just_then(
    tmp_path: Path, identity: Path, is_first: bool
) -> None:
    asked: list[str] = []
    file = tmp_path / "made.trimtab"
    with running(tmp_path / "state", limits=SMALL) as host:
        host.fill()

        def ask() -> str:
            if is_first and not asked:
                host.prune()
            asked.append(host.ask())
            if not is_first and len(asked) == 1:
                host.prune()
            return asked[-1]

        manifest = host.back_up(file, ask=ask)
        pruned = pruned_seq(host.state.journal)
    assert pruned > 0
    assert manifest.record == asked[1]
    with backup.unpacked(file, tmp_path / "new", identity=identity) as (staged, read):
        backup.prepare_same_engine(staged, tmp_path / "new", read, uid=7)
        backup.place(staged, tmp_path / "new")
    result = verify(state_of(tmp_path / "new", INSTANCE).journal)
    assert (result.ok, result.pruned) == (True, pruned)
    assert pruned + result.records > manifest.records


def test_a_backup_gives_up_when_records_are_pruned_every_time(tmp_path: Path) -> None:
    asked: list[str] = []
    file = tmp_path / "made.trimtab"
    with running(tmp_path / "state", limits=SMALL) as host:

        def ask() -> str:
            host.fill()
            asked.append(host.ask())
            host.prune()
            return asked[-1]

        assert refused(lambda: host.back_up(file, ask=ask)) == "backup.changed"
        assert len(asked) > 1
        assert [*tmp_path.iterdir()] == [host.state.root]
        host.back_up(file)
    assert backup.check(file)[1].ok


def test_a_backup_begins_again_when_a_segment_is_pruned_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    with running(tmp_path / "state", limits=SMALL) as host:
        host.fill()
        oldest = list_segments(host.state.journal)[0]

        def open_late(path: str | Path, *arguments: Any, **options: Any) -> int:
            if path == oldest:
                monkeypatch.undo()
                host.prune()
            return opened(path, *arguments, **options)

        monkeypatch.setattr(os, "open", open_late)
        host.back_up(tmp_path / "made.trimtab")
        assert pruned_seq(host.state.journal) > 0
    assert backup.check(tmp_path / "made.trimtab")[1].ok


def test_a_backup_is_refused_when_the_public_key_is_replaced_just_then(tmp_path: Path) -> None:
    file = tmp_path / "made.trimtab"
    with running(tmp_path / "other") as other, running(tmp_path / "state") as host:

        def ask() -> str:
            shutil.copy(other.state.journal_public, host.state.journal_public)
            return host.ask()

        other.ask()
        assert refused(lambda: host.back_up(file, ask=ask)) == "backup.changed"
    assert not file.exists()


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "closed",
    [
        "broker",
        "broker/files",
        "broker/files/config/default",
        "broker/generated/default",
        "broker/journal",
        "broker/secrets.key",
        "controller",
        "controller/state.json",
        "trimtab.yaml",
    ],
)
def test_a_backup_is_refused_when_the_caller_cannot_read_everything(closed: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place, root = Path(name), Path(name) / "state"
        with running(root) as host:
            for each in root.rglob("*"):
                each.chmod(0o755 if each.is_dir() else 0o644)
            (root / closed).chmod(0o700)
            place.chmod(0o777)
            with as_operator(), pytest.raises(StateError) as error:
                host.back_up(place / "made.trimtab")
        assert error.value.code == "backup.denied"
        assert str(error.value).startswith(f"backup.denied: {root / closed}")
        assert [*place.iterdir()] == [root]


def test_compressed_segments_are_kept_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "made.trimtab"
    with running(tmp_path / "state", limits=SMALL) as host:
        for number in range(50):
            host.writer.append(entry(number))
        compress(list_segments(host.state.journal)[0])
        manifest = host.back_up(file)
    assert backup.check(file)[1].last_hash == manifest.head
    assert any(name.endswith(".jsonl.gz") for name in members(file))


def test_keys_and_generated_values_are_encrypted_or_left_out(tmp_path: Path) -> None:
    sealed, bare = tmp_path / "sealed.trimtab", tmp_path / "bare.trimtab"
    with running(tmp_path / "state") as host:
        host.back_up(sealed)
        host.back_up(bare, recipient="")
        signing = host.state.journal_key.read_bytes()
    for file in (sealed, bare):
        told = b"".join(members(file).values())
        for secret in (signing, FILES["broker/secrets.key"], b"sealed"):
            assert secret not in told
    with backup.unpacked(bare, tmp_path / "new", identity=None) as (staged, _):
        assert not (staged / "broker" / "secrets.key").exists()
        assert (staged / "controller" / "state.json").read_bytes() == b"{}"


def test_a_restored_folder_goes_on_with_the_journal_and_the_same_keys(
    made: Path, identity: Path, tmp_path: Path
) -> None:
    root = tmp_path / "new"
    with backup.unpacked(made, root, identity=identity) as (staged, read):
        assert backup.restore_settings(staged, root, read).quarantine == "24h"
        instance = backup.prepare_same_engine(staged, root, read, uid=7)
        assert backup.place(staged, root) is None
    assert instance == replace(INSTANCE, epoch=1, run=str(root / "run"))
    for name, content in FILES.items():
        assert (root / name).read_bytes() == content
    state = state_of(root, instance)
    assert state.journal_key.read_bytes() == (tmp_path / "state/broker/journal.key").read_bytes()
    result = verify(state.journal)
    assert result.ok
    assert result.records > read.manifest.records
    assert sorted(each.name for each in root.iterdir()) == [
        "broker",
        "controller",
        "instance.json",
        "journal.checkpoint",
        "journal.pub",
        "trimtab.yaml",
    ]


def test_restores_of_one_second_keep_each_what_was_there(
    made: Path, identity: Path, tmp_path: Path
) -> None:
    root, kept = tmp_path / "new", set()
    for _ in range(4):
        with backup.unpacked(made, root, identity=identity) as (staged, read):
            backup.prepare_same_engine(staged, root, read, uid=7)
            kept.add(backup.place(staged, root))
    assert len(kept) == 4
    assert {each for each in kept if each and (each / "instance.json").exists()} == kept - {None}


@contextmanager
def as_operator() -> Iterator[None]:
    """Read files as a user without rights, in the block."""
    os.seteuid(pwd.getpwnam("games").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def flip(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


def test_each_changed_or_missing_member_is_noticed(made: Path) -> None:
    whole = made.read_bytes()
    for name in members(made):
        if name == DIGESTS:
            continue
        made.write_bytes(whole)
        rewritten(made, lambda content, name=name: content.update({name: flip(content[name])}))  # type: ignore[misc]
        wanted = "backup.newer" if name == FORM else "backup.tampered"
        assert refused(lambda: backup.check(made)) == wanted, name
        made.write_bytes(whole)
        rewritten(made, lambda content, name=name: content.pop(name))  # type: ignore[misc]
        wanted = "backup.invalid" if name == FORM else "backup.tampered"
        assert refused(lambda: backup.check(made)) == wanted, name


def test_a_file_with_other_digests_is_no_backup_of_the_holder_of_the_keys(
    made: Path, identity: Path, tmp_path: Path
) -> None:
    """Who changes a member can change its digest, but not the one beside the keys."""
    import hashlib

    def change(content: dict[str, bytes]) -> None:
        name = "state/broker/files/config/default/site/c1"
        content[name] = b"other"
        digests = json.loads(content[DIGESTS])
        digests[name] = hashlib.sha256(b"other").hexdigest()
        content[DIGESTS] = json.dumps(digests).encode()

    rewritten(made, change)
    backup.check(made)

    def restore() -> None:
        with backup.unpacked(made, tmp_path / "new", identity=identity):
            raise AssertionError("unpacked")

    assert refused(restore) == "backup.tampered"
    assert not (tmp_path / "new").exists()


def add(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda content: content.update({name: b"x", DIGESTS: content.pop(DIGESTS)})


@pytest.mark.parametrize(
    "name",
    ["state/../../x", "/etc/x", "state/instance.json", "state/broker/secrets.key", "other"],
)
def test_a_file_in_another_place_is_refused(made: Path, name: str) -> None:
    rewritten(made, add(name))
    assert refused(lambda: backup.check(made)) == "backup.tampered"


def test_a_file_that_is_cut_short_is_refused_wherever_it_ends(made: Path) -> None:
    whole = made.read_bytes()
    for size in range(len(whole) // 10, len(whole) - 1, len(whole) // 10):
        made.write_bytes(whole[:size])
        assert refused(lambda: backup.check(made)) in {"backup.cut-short", "backup.invalid"}
    made.write_bytes(whole)
    rewritten(made, lambda content: content.pop(DIGESTS))
    assert refused(lambda: backup.check(made)) == "backup.cut-short"


def test_each_other_file_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert refused(lambda: backup.check(other)) == "backup.unreadable"
    other.write_bytes(b"no archive")
    assert refused(lambda: backup.check(other)) == "backup.invalid"
    with gzip.open(other, "wb") as file:
        file.write(b"no tar")
    assert refused(lambda: backup.check(other)) == "backup.invalid"
    rewritten(made, lambda content: content.update({FORM: b'{"format": 2}'}))
    assert refused(lambda: backup.check(made)) == "backup.newer"


def test_keys_are_opened_by_the_right_identity_alone(
    made: Path, identity: Path, tmp_path: Path
) -> None:
    def restore(key: Path | None) -> None:
        with backup.unpacked(made, tmp_path / "new", identity=key):
            raise AssertionError("unpacked")

    assert refused(lambda: restore(None)) == "restore.identity"
    assert refused(lambda: restore(tmp_path / "missing")) == "restore.identity"
    identity.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    assert refused(lambda: restore(identity)) == "secret.wrong-key"
    assert not (tmp_path / "new").exists()


def test_a_place_with_something_in_it_is_refused_unless_it_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "state"
    backup.raise_unless_free(root, replace=False)
    (root / "files").mkdir(parents=True)
    backup.raise_unless_free(root, replace=False)
    write_instance(root, INSTANCE)
    assert refused(lambda: backup.raise_unless_free(root, replace=False)) == "restore.not-empty"
    backup.raise_unless_free(root, replace=True)


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_bytes(b"mine")

    def write() -> None:
        with written(file):
            raise AssertionError("written")

    assert refused(write) == "backup.exists"
    assert file.read_bytes() == b"mine"
