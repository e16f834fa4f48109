"""``journal verify`` on a state folder: what somebody changed beside the records is noticed, too.

Each case is a change by somebody with write access to the folder, and without the broker's key.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.app.broker import open_journal
from controller.broker.gate.state import GateState
from controller.broker.server.record_store import RecordStore
from controller.broker.server.server import UNKNOWN_ENGINE
from controller.cli.main import main
from controller.core.encoding.json_values import canonical
from controller.core.records.checkpoint import origin_of, prune_entry
from controller.core.records.inventory import fold
from controller.core.transparency import PrivateKey
from controller.journal.store.chain import INVENTORY_NAME
from controller.journal.store.reader import records
from controller.journal.store.segments import list_segments
from controller.journal.writer.retention import DAY_S, Retention, RetentionLimits
from controller.journal.writer.writer_thread import Writer
from controller.model.crashpoints import pass_by
from controller.model.errors import StateError
from controller.model.inventory import Inventory
from controller.model.records import Entry
from controller.settings import Instance, StateFolder, write_instance
from tests.unit.broker.serving import STRICT
from tests.unit.journal.builders import NOON, FixedClock, Ids
from tests.unit.journal.writer.test_checkpointer import rotate

INSTANCE = "5109a1b2c3d4e5f6"
SNAPSHOT = "broker/inventory.json"
KEYS = "journal.pub"
CHECKPOINT = "journal.checkpoint"
STRANGER = PrivateKey(origin_of(INSTANCE), bytes(range(32))).public
PRUNED = f"broker/journal/{INVENTORY_NAME}"
EVIL = {
    "ledger": {"reference": "evil:1", "id": "sha256:" + "66" * 32, "digest": ""},
    "pins": {
        "revision": "v2:" + "aa" * 32,
        "id": "sha256:" + "66" * 32,
        "digest": "",
        "repository": "a/b",
    },
    "approvals": {"id": "a", "plan": "cd" * 32, "objects": ["volume:data"], "time": "", "used": []},
}


class Home:
    """A state folder whose broker ran and ended some times, without a server."""

    def __init__(self, root: Path, *, days: float = 0.0) -> None:
        self.root = root
        self.state = StateFolder(root, root / "run")
        self.clock = FixedClock(NOON + days * DAY_S)
        self.ids = Ids(1_000_000 + int(days))

    def create(self) -> None:
        self.state.broker.mkdir(parents=True, mode=0o700)
        write_instance(self.root, Instance(INSTANCE, "/srv/desired", "unix:///engine.sock"))

    @contextmanager
    def broker(self) -> Iterator[tuple[Writer, RecordStore, GateState]]:
        """A broker's journal and record store, from a start to an end."""
        self.clock.time += 2 * DAY_S  # the start opens a new segment
        with open_journal(self.state, INSTANCE, clock=self.clock, reach=pass_by) as journal:
            state = GateState(STRICT, Inventory(), INSTANCE, UNKNOWN_ENGINE, self.clock, self.ids)
            store = RecordStore(journal, state, self.state.inventory_snapshot)
            store.load()
            yield journal, store, state

    def run(self, *images: int) -> GateState:
        """Trust some images, save the inventory, and end."""
        with self.broker() as (journal, store, state):
            for image in images:
                record = journal.append(self.trust(image))
                state.inventory = fold(state.inventory, record)
            store.save()
            return state

    def trust(self, number: int) -> Entry:
        summary = {"reference": f"web:{number}", "id": f"sha256:{number:064x}"}
        request: dict[str, object] = {"route": "image.trust", "summary": summary}
        return Entry(self.ids(), "operator", request=request)

    def prune(self) -> None:
        """Remove all segments but two, as the broker does."""
        with self.broker() as (journal, _, _):

            def tell(until: int, reason: str, digest: str) -> None:
                entry = prune_entry(self.ids(), until=until, reason=reason, digest=digest)
                journal.append(entry)

            limits = RetentionLimits(size_bytes=1)
            Retention(self.state.journal, limits=limits, record_pruning=tell).apply(now=NOON)

    def edit(self, file: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the inventory in a file."""
        path = self.root / file
        value = json.loads(path.read_bytes())
        change(value.get("inventory", value))
        path.write_bytes(canonical(value))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with several segments, a pruned one and a snapshot."""
    root = tmp_path_factory.mktemp("made") / "state"
    home = Home(root)
    home.create()
    for number in range(4):
        home.run(2 * number, 2 * number + 1)
    home.prune()
    home.run(8)
    before = shutil.copytree(root, root.parent / "earlier")
    home.run(9)
    shutil.move(before, root / "earlier")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "state"))


def verified(
    capsys: pytest.CaptureFixture[str], root: Path, *options: object
) -> tuple[int, str, dict[str, Any]]:
    """Verify in words and for programs, fast and thoroughly, which all say the same."""
    said = []
    for form in ([], ["--json"], ["--thorough"]):
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in ["journal", "verify", "--state", root, *options, *form]])
        said.append((ended.value.code, capsys.readouterr().out))
    (code, words), (_, found), _ = said
    assert {code for code, _ in said} == {code}
    assert said[2][1] == words
    assert isinstance(code, int)
    return code, words, json.loads(found)


def evil(file: str, member: str) -> Callable[[Path], None]:
    """Add something that nobody admitted to an inventory file."""
    return lambda root: Home(root).edit(
        file, lambda found: found[member].append(["a", EVIL[member]])
    )


def earlier(file: str) -> Callable[[Path], None]:
    """Put an earlier version of a file in its place."""

    def change(root: Path) -> None:
        shutil.copyfile(root / "earlier" / file, root / file)

    return change


def write(file: str, content: bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / file).write_bytes(content)

    return change


def append(file: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / file).open("a") as opened:
            opened.write(text)

    return change


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


#: A change, the exit code, and what is said of it.
CASES: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "nothing": (lambda _: None, 0, " records, chain intact, 0 open intents"),
    # The inventory of the pruned records.
    "pruned-ledger": (evil(PRUNED, "ledger"), 17, f"{PRUNED} isn't the file that record "),
    "pruned-approval": (evil(PRUNED, "approvals"), 17, f"{PRUNED} isn't the file that record "),
    "pruned-pin": (evil(PRUNED, "pins"), 17, f"{PRUNED} isn't the file that record "),
    "pruned-removed": (remove(PRUNED), 17, f"{PRUNED} is missing: it had the inventory of the "),
    "pruned-emptied": (write(PRUNED, b"{}"), 17, f"{PRUNED} isn't the file that record "),
    # The snapshot.
    "snapshot-ledger": (evil(SNAPSHOT, "ledger"), 17, f"{SNAPSHOT} isn't the file that record "),
    "snapshot-approval": (evil(SNAPSHOT, "approvals"), 17, f"{SNAPSHOT} isn't the file that "),
    "snapshot-pin": (evil(SNAPSHOT, "pins"), 17, f"{SNAPSHOT} isn't the file that record "),
    "snapshot-emptied": (write(SNAPSHOT, b"{}"), 17, f"{SNAPSHOT} isn't the file that record "),
    "snapshot-removed": (remove(SNAPSHOT), 0, " records, chain intact"),
    # The published checkpoint and the mark: the journal has what they say.
    "checkpoint-earlier": (earlier(CHECKPOINT), 0, f"{CHECKPOINT} is of the first "),
    "checkpoint-removed": (remove(CHECKPOINT), 0, f"{CHECKPOINT} is missing: the broker's next "),
    "checkpoint-emptied": (write(CHECKPOINT, b""), 0, f"{CHECKPOINT} is empty: the broker's next "),
    "checkpoint-garbage": (write(CHECKPOINT, b"x\n"), 12, f"{CHECKPOINT} is no checkpoint"),
    "mark-removed": (remove("broker/journal/.head"), 0, "note: the mark .head is missing or empty"),
    # The list of keys.
    "key-added": (append(KEYS, f"{STRANGER}\n"), 12, f"{KEYS} lists the key {STRANGER}, which no "),
    "key-added-with-an-end": (
        append(KEYS, f"{STRANGER} until 900\n"),
        12,
        f"{KEYS} lists the key ",
    ),
    "key-of-pruned-records": (append(KEYS, f"{STRANGER} until 3\n"), 0, " records, chain intact"),
}


@pytest.mark.parametrize(("change", "code", "expected"), CASES.values(), ids=CASES.keys())
def test_a_change_in_the_state_folder_is_noticed(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    code: int,
    expected: str,
) -> None:
    change(root)
    found, words, told = verified(capsys, root)
    assert (found, expected in words) == (code, True), words
    assert (told["ok"], told["code"]) == (code == 0, code)
    if code == 17:
        assert (told["fault"], told["first_bad"]) == ("inventory", None)
        assert str(root / told["file"]) == told["file"]
        assert "Keep a copy" in told["reason"]


def rewritten(root: Path, elsewhere: Path) -> None:
    """Replace journal, keys and checkpoint by some that somebody made with a key of their own."""
    home = Home(elsewhere)
    home.create()
    home.run(666)
    shutil.rmtree(root)
    shutil.copytree(elsewhere, root)


def test_an_untouched_state_folder_has_no_note_but_on_its_pruned_records(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, words, told = verified(capsys, root)
    assert (told["notes"], told["clock_jumps"], told["repairs"]) == ([], [], [])
    notes = [line for line in words.splitlines() if line.startswith("note: ")]
    assert [note.split(" ", 4)[1:4] for note in notes] == [
        ["whoever", "changes", "one"],
        ["records", "1", "to"],
    ]


def test_no_key_beside_the_journal_is_called_trusted(
    root: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.pub"
    shutil.copy(made / KEYS, kept)
    for change in (lambda: None, lambda: rewritten(root, tmp_path / "forged" / "state")):
        change()
        keys, journal = root / KEYS, root / "broker" / "journal"
        for options in ((), ("--key", keys), ("--journal", journal, "--key", keys)):
            code, words, told = verified(capsys, root, *options)
            assert (code, told["trusted"], told["keys_from"]) == (0, False, str(keys))
            assert "trusted" not in words
            assert f"by the key in {keys} beside the journal" in words
            assert "compare the key with a copy kept elsewhere (--key)" in words
    code, words, told = verified(capsys, root, "--key", kept)
    assert (code, told["fault"]) == (12, "signature")
    assert "isn't signed by one of the given keys" in words
    code, words, told = verified(capsys, made, "--key", kept)
    assert (code, told["trusted"], told["keys_from"]) == (0, True, "")
    assert "by a key that is trusted" in words


@pytest.mark.parametrize("where", ["broker/keys", "run", "broker/journal/old"])
def test_no_key_anywhere_in_the_state_folder_is_called_trusted(
    root: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / where).mkdir(exist_ok=True)
    copy = Path(shutil.copy(root / KEYS, root / where / "copy.pub"))
    _, _, told = verified(capsys, root, "--key", copy)
    assert (told["trusted"], told["keys_from"]) == (False, str(copy))


def test_verify_and_keys_say_by_which_record_each_key_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "state")
    home.create()
    home.run(1)
    with home.broker() as (journal, _, _):
        journal.append(rotate(900))
    (home.state.broker / "journal.key").rename(tmp_path / "lost.key")
    home.run(2)
    brought = [
        r for r in records(home.state.journal) if r.entry.request.get("route") == "journal.key"
    ]
    _, words, told = verified(capsys, home.root)
    origins = (
        "the first key",
        "signed by the key before",
        "not signed by the key before, which was lost",
    )
    for record, key, by in zip(brought, told["keys"], origins, strict=True):
        assert (key["record"], key["time"]) == (record.seq, record.time)
        assert (
            f"key {key['key']}: introduced by record {record.seq} at {record.time}, {by}" in words
        )
    with pytest.raises(SystemExit):
        main(["journal", "keys", "--state", str(home.root), "--json"])
    listed = {
        each["key"]: (each["record"], each["time"]) for each in json.loads(capsys.readouterr().out)
    }
    assert listed == {record.entry.result["key"]: (record.seq, record.time) for record in brought}

    # The list is compared with the records.
    keys = home.state.journal_public
    keys.write_text(keys.read_text().replace(f" from {brought[0].seq} ", " from 1 "))
    code, words, _ = verified(capsys, home.root)
    assert (code, f"{keys} says that record 1 introduced the key" in words) == (0, True), words


def test_the_snapshot_names_its_record_and_a_start_rebuilds_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = [r for r in records(root / "broker" / "journal") if "inventory" in r.entry.result]
    last = described[-1]
    evil(SNAPSHOT, "ledger")(root)
    _, words, _ = verified(capsys, root)
    until = last.entry.result["until"]
    assert f"the file that record {last.seq} describes (records 1 to {until})" in words
    state = Home(root, days=100).run()
    assert "evil:1" not in state.inventory.ledger
    assert set(state.inventory.ledger) == {f"web:{number}" for number in range(10)}
    code, words, _ = verified(capsys, root)
    assert code == 0, words
    assert f"says: inventory.json wasn't the file that record {last.seq} describes" in words


def test_a_pruned_inventory_that_was_changed_is_not_folded_on(root: Path) -> None:
    evil(PRUNED, "ledger")(root)
    remove(SNAPSHOT)(root)
    said = "differs from the file that record"
    with pytest.raises(StateError, match=said), Home(root, days=100).broker():
        pass


@pytest.mark.parametrize("options", [(), ("--scan",)])
def test_records_stay_readable_with_a_changed_inventory_of_pruned_ones(
    root: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    argv = ["journal", "list", "--all", "--limit", "0", "--json", "--state", str(root), *options]
    printed = []
    for change in (lambda _: None, evil(PRUNED, "ledger"), remove(PRUNED)):
        change(root)
        for path in (root / "broker").glob("index.sqlite*"):
            path.unlink()
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 0
        printed.append(capsys.readouterr().out)
    assert printed[0]
    assert printed[1:] == [printed[0]] * 2


def test_an_earlier_snapshot_is_as_good(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier(SNAPSHOT)(root)
    assert verified(capsys, root)[0] == 0


def test_a_copy_of_the_journal_alone_is_verified_without_the_files_beside(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, key = root / "broker" / "journal", root / "journal.pub"
    evil(SNAPSHOT, "ledger")(root)
    options = ("--journal", journal, "--key", key)
    assert verified(capsys, root, *options)[0] == 0
    (journal / INVENTORY_NAME).unlink()
    code, words, _ = verified(capsys, root, *options)
    assert (code, f"{INVENTORY_NAME} wasn't compared: it isn't in this copy" in words) == (0, True)


def test_from_a_record_on_the_files_described_before_are_not_compared(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = root / "broker" / "journal"
    begin = int(list_segments(journal)[-1].name.partition(".")[0])
    code, words, _ = verified(capsys, root, "--from", begin)
    assert (code, f"{PRUNED} wasn't compared: the record about it is before" in words) == (0, True)


def test_a_clock_that_goes_back_or_years_ahead_is_noted_and_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path / "state")
    home.create()
    home.run(1)
    for step_days in (-3 * 365, 30 * 365):
        home.clock.time += step_days * DAY_S
        home.run(2, 3)
    home.clock.time -= DAY_S  # during a run
    with home.broker() as (journal, _, _):
        journal.append(home.trust(4))
        home.clock.time -= 3600
        journal.append(home.trust(5))
    times = [(r.seq, r.time) for r in records(home.state.journal)]
    expected = [
        (seq, before, time)
        for (_, before), (seq, time) in pairwise(times)
        if time < before or int(time[:4]) - int(before[:4]) > 1
    ]
    code, words, told = verified(capsys, home.root)
    assert code == 0
    assert [tuple(jump.values()) for jump in told["clock_jumps"]] == expected
    assert len(expected) == 3
    for (seq, before, time), how in zip(
        expected, ("went back", "jumped ahead", "went back"), strict=True
    ):
        assert f"note: the clock {how} at record {seq}, from {before} to {time}" in words
        assert f"journal.clock.jumped record={seq} before={before} now={time}" in caplog.text


def test_small_corrections_and_a_long_pause_are_no_jumps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "state")
    home.create()
    with home.broker() as (journal, _, _):
        for number, step_s in enumerate((-59.0, 0.5, 300 * DAY_S, -1.0, 60.0)):
            home.clock.time += step_s
            journal.append(home.trust(number))
    _, words, told = verified(capsys, home.root)
    assert (told["clock_jumps"], "the clock" in words) == ([], False)


def test_a_clock_that_jumps_all_the_time_is_noted_some_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "state")
    home.create()
    with home.broker() as (journal, _, _):
        for number in range(300):
            home.clock.time += 3600 if number % 2 else -3600
            journal.append(home.trust(number))
    _, words, told = verified(capsys, home.root)
    assert len(told["clock_jumps"]) == 100
    assert words.count("note: the clock went back") == 10
    assert "note: the clock jumped at 90 or more further records" in words


def exit_code(argv: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return ended.value.code


def test_a_kept_result_tells_head_and_keys_and_since_when_it_is_the_same(
    made: Path, tmp_path: Path
) -> None:
    root = tmp_path / "state"
    shutil.copytree(made, root)
    verify = ["journal", "verify", "--state", str(root), "--keep"]
    assert exit_code(verify) == 0
    first = json.loads((root / "verified.json").read_bytes())
    assert first["result"] == "ok"
    assert first["since"] == first["at"]
    assert first["head"]
    assert len(first["keys"]) == 1
    assert (root / "verified.json").stat().st_mode & 0o777 == 0o644
    assert exit_code(verify) == 0
    again = json.loads((root / "verified.json").read_bytes())
    assert again["since"] == first["since"] < again["at"]

    segment = list_segments(root / "broker" / "journal")[-1]
    segment.write_bytes(segment.read_bytes().replace(b"web:9", b"evil:9"))
    assert exit_code(verify) != 0
    bad = json.loads((root / "verified.json").read_bytes())
    assert bad["result"] != "ok"
    assert bad["since"] == bad["at"]


def test_a_result_of_a_part_or_of_a_copy_is_not_kept(made: Path) -> None:
    assert exit_code(["journal", "verify", "--state", str(made), "--keep", "--from", "3"]) == 64
    assert not (made / "verified.json").exists()
