"""The record store: journal and inventory agree, also after restarts."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

import pytest

from controller.broker.gate.state import GateState
from controller.broker.server.record_store import RecordStore
from controller.broker.server.server import UNKNOWN_ENGINE
from controller.core.encoding.json_values import canonical
from controller.core.records import inventory_json
from controller.core.records.checkpoint import content_digest, inventory_entry
from controller.core.records.inventory import fold
from controller.core.records.inventory_json import from_json, to_json
from controller.journal.store.reader import records
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.journal.writer.writer_thread import Writer
from controller.model.inventory import Inventory, TrustedImage
from controller.model.records import Entry
from tests.unit.broker.serving import STRICT, TestClock, entry, ids, run
from tests.unit.journal.builders import NOON, FixedClock, checkpointer_of, open_log, uuid7


def read_snapshot(path: Path) -> Inventory:
    return from_json(json.loads(path.read_bytes())["inventory"])


def trust(number: int) -> Entry:
    summary = {"reference": f"web:{number}", "id": f"sha256:{number}", "digest": ""}
    return entry(number, "operator", request={"route": "image.trust", "summary": summary})


def opened(root: Path, *, passed: list[str] | None = None) -> tuple[RecordStore, Writer, GateState]:
    folder = root / "journal"
    folder.mkdir(exist_ok=True, mode=0o700)
    clock, new_id = TestClock(), ids()
    journal = Writer(folder, clock=clock, new_id=new_id)
    state = GateState(STRICT, Inventory(), "test", UNKNOWN_ENGINE, clock, new_id)
    reach = passed.append if passed is not None else lambda _: None
    books = RecordStore(journal, state, root / "inventory.json", reach=reach)
    books.load()
    return books, journal, state


def check(
    root: Path, test: Callable[[RecordStore, Writer, GateState], Awaitable[None]]
) -> GateState:
    """Run *test* on a new record store, and close the store afterwards."""

    async def bounded() -> GateState:
        books, journal, state = opened(root)
        with journal:
            await test(books, journal, state)
        return state

    found: list[GateState] = []

    async def keep() -> None:
        found.append(await bounded())

    run(keep())
    return found[0]


def refolded(root: Path) -> Inventory:
    inventory = Inventory()
    for record in records(root / "journal"):
        inventory = fold(inventory, record)
    return inventory


def write(path: Path, inventory: Inventory) -> bytes:
    """Write a snapshot that no record describes; return its content."""
    content = canonical({"format": 1, "inventory": to_json(inventory)})
    path.write_bytes(content)
    return content


async def nothing(_books: RecordStore, _journal: Writer, _state: GateState) -> None:
    """Open and close a store."""


def test_a_record_is_folded_before_anybody_is_told(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, state: GateState) -> None:
        async def one(number: int) -> None:
            record = await books.write(trust(number))
            assert record is not None
            assert f"web:{number}" in state.inventory.ledger
            assert state.inventory.seq >= record.seq

        await asyncio.gather(*(one(number) for number in range(200)))

    assert check(tmp_path, test).inventory == refolded(tmp_path)


def test_what_was_submitted_is_folded_also_when_the_caller_is_gone(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, state: GateState) -> None:
        writing = asyncio.ensure_future(books.write(trust(1)))
        await asyncio.sleep(0)
        writing.cancel()
        await books.wait_until_folded()
        assert list(state.inventory.ledger) == ["web:1"]

    check(tmp_path, test)


def test_without_the_journal_nothing_is_written_and_the_state_says_why(tmp_path: Path) -> None:
    async def test(books: RecordStore, journal: Writer, state: GateState) -> None:
        await asyncio.to_thread(journal.close)
        before = state.inventory
        assert await books.write(trust(1)) is None
        assert state.inventory is before
        assert state.health.journal_error == "journal.closed: the journal is closed"

    check(tmp_path, test)


def test_the_error_is_forgotten_with_the_next_record(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, state: GateState) -> None:
        state.health.journal_error = "no space left"
        await books.write(trust(1))
        assert state.health.journal_error == ""

    check(tmp_path, test)


def test_a_journal_that_mended_itself_while_nothing_was_written_is_seen(tmp_path: Path) -> None:
    async def test(books: RecordStore, journal: Writer, state: GateState) -> None:
        state.health.journal_error = "no space left"
        books.refresh_health()
        assert state.health.journal_error == ""
        await asyncio.to_thread(journal.close)
        books.refresh_health()
        assert state.health.journal_error == "the journal is closed"

    check(tmp_path, test)


def creating(number: int) -> tuple[Entry, Entry]:
    """Return the two entries of a container create; names are c1, c2 and so on."""
    summary = {"labels": {"io.trimtab.owner": "alice"}, "settings": {"name": f"web-{number}"}}
    request: dict[str, object] = {"route": "container.create", "summary": summary}
    made: dict[str, object] = {"status": 201, "container": f"c{number}"}
    return entry(number, request=request), entry(number, "outcome", result=made)


@pytest.mark.parametrize("containers", [1, 10])
def test_no_call_of_the_encoder_grows_with_the_inventory(tmp_path: Path, containers: int) -> None:
    """One call for thousands of containers keeps the interpreter from the event loop."""
    encoded: list[int] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is json.JSONEncoder.encode.__code__:
            encoded.append(len(str(frame.f_locals["o"])))

    async def test(books: RecordStore, _journal: Writer, state: GateState) -> None:
        for number in range(containers):
            for each in creating(number):
                await books.write(each)
        item = next(iter(state.inventory.containers.values()))
        sys.setprofile(note)
        books.save()
        sys.setprofile(None)
        assert len(encoded) > containers
        assert max(encoded) < len(str(inventory_json.ITEM.to_json(item))) + 100

    check(tmp_path, test)


def test_an_entry_that_can_never_be_recorded_is_none_and_no_outage(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, state: GateState) -> None:
        assert await books.write(entry(1, request={"summary": {"x": 1.5}})) is None
        assert await books.write(entry(1, request={"summary": "x" * 2_000_000})) is None
        assert await books.write(entry(1, "outcome", result={"x": 1.5})) is None
        assert state.health.journal_error == ""

    check(tmp_path, test)


def test_a_start_with_a_snapshot_reads_what_came_after_it(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, _state: GateState) -> None:
        await books.write(trust(1))
        books.save()
        await books.write(trust(2))

    check(tmp_path, test)
    saved = read_snapshot(tmp_path / "inventory.json")
    assert (list(saved.ledger), list(refolded(tmp_path).ledger)) == (["web:1"], ["web:1", "web:2"])
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)


def test_a_snapshot_stands_for_records_that_expired(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, state: GateState) -> None:
        await books.write(trust(1))
        known = TrustedImage("old:1", "sha256:0")
        ledger = {**state.inventory.ledger, known.reference: known}
        state.inventory = Inventory(seq=state.inventory.seq, ledger=ledger)
        books.save()

    check(tmp_path, test)
    assert list(check(tmp_path, nothing).inventory.ledger) == ["web:1", "old:1"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2, "inventory": {}}',
        b'{"format": 1}',
        b'{"format": 1, "inventory": {"seq": "x"}}',
        b"\xff",
    ],
)
def test_a_snapshot_that_can_t_be_read_is_rebuilt_from_the_journal(
    tmp_path: Path, damage: bytes
) -> None:
    async def test(books: RecordStore, _journal: Writer, _state: GateState) -> None:
        await books.write(trust(1))
        books.save()

    check(tmp_path, test)
    (tmp_path / "inventory.json").write_bytes(damage)
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)


def test_a_snapshot_that_is_ahead_of_the_journal_isn_t_believed(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, _state: GateState) -> None:
        await books.write(trust(1))

    check(tmp_path, test)
    known = TrustedImage("evil:1", "sha256:0")
    write(tmp_path / "inventory.json", Inventory(seq=999, ledger={"evil:1": known}))
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)


def test_a_snapshot_is_private_whole_and_passes_its_crash_points(tmp_path: Path) -> None:
    passed: list[str] = []

    async def test() -> None:
        books, journal, _ = opened(tmp_path, passed=passed)
        with journal:
            await books.write(trust(1))
            for _ in range(2):  # the second has nothing to save
                books.save()
            assert passed == ["inventory.write.before", "inventory.write.after"]

    run(test())
    path = tmp_path / "inventory.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes())["format"] == 1
    assert not list(tmp_path.glob(".inventory*"))


def test_a_snapshot_that_can_t_be_recorded_is_not_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(books: RecordStore, journal: Writer, _state: GateState) -> None:
        await books.write(trust(1))
        await asyncio.to_thread(journal.close)
        books.save()

    check(tmp_path, test)
    assert not (tmp_path / "inventory.json").exists()
    assert "inventory.unsaved" in caplog.text


def test_a_snapshot_that_can_t_be_saved_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(books: RecordStore, _journal: Writer, _state: GateState) -> None:
        await books.write(trust(1))
        (tmp_path / "inventory.json").mkdir()
        books.save()

    check(tmp_path, test)
    assert "inventory.unsaved" in caplog.text


# A snapshot is used only if a record describes its content.

EVIL: dict[str, list[dict[str, object]]] = {
    "ledger": [{"reference": "evil:1", "id": "sha256:" + "66" * 32, "digest": ""}],
    "pins": [
        {
            "repository": "a/b",
            "revision": "v2:" + "aa" * 32,
            "id": "sha256:" + "66" * 32,
            "digest": "",
        }
    ],
    "approvals": [
        {"id": "a", "plan": "cd" * 32, "objects": ["volume:data"], "time": "", "used": []}
    ],
    "networks": [
        {"id": "n", "name": "n", "namespace": "", "owner": "eve", "origin": "client", "intent": ""}
    ],
}


async def save_one(books: RecordStore, _journal: Writer, _state: GateState) -> None:
    await books.write(trust(1))
    books.save()


def acts(root: Path) -> list[str]:
    """Return the routes of the operator-stage records, apart from the trusted images."""
    found = [
        str(r.entry.request["route"])
        for r in records(root / "journal")
        if r.entry.stage == "operator"
    ]
    return [route for route in found if route != "image.trust"]


@pytest.mark.parametrize("member", list(EVIL))
def test_a_changed_snapshot_is_not_used_and_leaves_a_trace(
    tmp_path: Path, member: str, caplog: pytest.LogCaptureFixture
) -> None:
    check(tmp_path, save_one)
    path = tmp_path / "inventory.json"
    good = json.loads(path.read_bytes())
    good["inventory"][member] += [["evil", each] for each in EVIL[member]]
    evil = canonical(good)
    path.write_bytes(evil)
    state = check(tmp_path, nothing)
    assert state.inventory == refolded(tmp_path)
    assert (list(state.inventory.ledger), state.inventory.approvals) == (["web:1"], {})
    (kept,) = tmp_path.glob("inventory.json.rejected-*")
    assert kept.read_bytes() == evil
    assert f"and kept as {kept.name}" in caplog.text
    assert not path.exists()
    assert acts(tmp_path) == ["journal.inventory-rejected"]
    assert (
        "inventory.rejected: inventory.json wasn't the file that record 3 describes" in caplog.text
    )


def test_a_second_rejected_snapshot_does_not_replace_the_first(tmp_path: Path) -> None:
    check(tmp_path, save_one)
    path = tmp_path / "inventory.json"
    contents = set()
    for number in range(2):
        known = TrustedImage(f"evil:{number}", "sha256:0")
        contents.add(write(path, Inventory(seq=1, ledger={known.reference: known})))
        check(tmp_path, nothing)
    assert {kept.read_bytes() for kept in tmp_path.glob("inventory.json.rejected-*")} == contents


@pytest.mark.parametrize("seq", [0, 1, 2, 3, 4])
def test_a_made_up_snapshot_of_any_record_is_not_used(tmp_path: Path, seq: int) -> None:
    check(tmp_path, save_one)
    known = TrustedImage("evil:1", "sha256:0")
    write(tmp_path / "inventory.json", Inventory(seq=seq, ledger={"evil:1": known}))
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)
    assert acts(tmp_path) == ["journal.inventory-rejected"]


def test_an_earlier_snapshot_in_its_place_is_used_with_the_records_since(tmp_path: Path) -> None:
    check(tmp_path, save_one)
    path = tmp_path / "inventory.json"
    before = path.read_bytes()

    async def again(books: RecordStore, _journal: Writer, _state: GateState) -> None:
        await books.write(trust(2))
        books.save()

    check(tmp_path, again)
    path.write_bytes(before)
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)
    assert acts(tmp_path) == []


def test_a_snapshot_in_a_journal_that_describes_none_is_rejected(tmp_path: Path) -> None:
    async def test(books: RecordStore, _journal: Writer, _state: GateState) -> None:
        await books.write(trust(1))

    state = check(tmp_path, test)
    path = tmp_path / "inventory.json"
    write(path, state.inventory)
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)
    assert (path.exists(), acts(tmp_path)) == (False, ["journal.inventory-rejected"])


class Died(Exception):
    """The broker was killed."""


@pytest.mark.parametrize("point", ["inventory.write.before", "inventory.write.after"])
def test_a_broker_killed_between_record_and_snapshot_raises_no_alarm(
    tmp_path: Path, point: str
) -> None:
    check(tmp_path, save_one)

    class Killed(list[str]):
        def append(self, passed: str) -> None:
            if passed == point:
                raise Died

    async def test() -> None:
        books, journal, _ = opened(tmp_path, passed=Killed())
        with journal:
            await books.write(trust(2))
            with pytest.raises(Died):
                books.save()

    run(test())
    assert check(tmp_path, nothing).inventory == refolded(tmp_path)
    assert (acts(tmp_path), list(tmp_path.glob("*.rejected*"))) == ([], [])


def test_a_record_that_no_checkpoint_covers_describes_no_snapshot(tmp_path: Path) -> None:
    """Whoever has no key can append records, and nobody signed those."""
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o700)
    log = open_log(folder, every=CheckpointInterval())
    log.append(trust(1))
    log.close()
    known = TrustedImage("evil:1", "sha256:0")
    last = list(records(folder))[-1].seq
    content = write(tmp_path / "inventory.json", Inventory(seq=last, ledger={"evil:1": known}))
    unsigned = open_log(folder)
    unsigned.append(inventory_entry(uuid7(7), until=last, digest=content_digest(content)))
    unsigned.close()
    clock, new_id = FixedClock(NOON + 3 * 86_400), ids()
    signer = checkpointer_of(folder, clock, new_id, CheckpointInterval())
    with Writer(folder, clock=clock, new_id=new_id, checkpointer=signer) as journal:
        state = GateState(STRICT, Inventory(), "test", UNKNOWN_ENGINE, clock, new_id)
        RecordStore(journal, state, tmp_path / "inventory.json").load()
    assert list(state.inventory.ledger) == ["web:1"]
    assert acts(tmp_path)[-1] == "journal.inventory-rejected"
