"""Journal records of refusals and reads: individual or counted, and never lost."""

from __future__ import annotations

import asyncio

from controller.broker.server.record_store import JournalShare, RecordLimiter
from controller.core.enforcement.limits import Limit
from controller.model.records import Entry, Record, Stage
from tests.unit.broker.dialogue import TIME, Clock
from tests.unit.broker.serving import ids, run

ALICE, BOB = 1000, 1001
#: Nothing flows in, and a summary waits for the end of the test.
LIMIT = Limit(per_s=0, burst=2, summary_s=3600)


def asked(stage: Stage, what: str, *, uid: int = ALICE, role: str = "client") -> Entry:
    """Return an entry: a refusal by a rule, or a read of a route."""
    verdict: dict[str, object] = {
        "decision": "deny",
        "rules": [what, "also"],
        "policy": "p1",
    }
    return Entry(
        "asked",
        stage,
        actor={"uid": uid, "gid": uid, "pid": 7, "role": role},
        request={"route": what} if stage == "read" else {},
        verdict=verdict if stage == "refusal" else {},
    )


class Written:
    """A journal that stores its entries. Writes fail if ``works`` is false."""

    def __init__(self) -> None:
        self.works = True
        self.entries: list[Entry] = []

    async def write(self, entry: Entry) -> Record | None:
        if not self.works:
            return None
        self.entries.append(entry)
        return Record(len(self.entries), TIME, entry, "", "")

    def meter(self, limit: Limit = LIMIT) -> RecordLimiter:
        return RecordLimiter(self.write, clock=Clock(), new_id=ids(), limit=limit)


class Shares:
    """The bytes of records by uid; beyond *most*, a uid's share is spent."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes: dict[int, int] = {}

    def share(self) -> JournalShare:
        return JournalShare(self._count, lambda uid: self.bytes.get(uid, 0) > self.most)

    def _count(self, uid: int, size: int) -> None:
        self.bytes[uid] = self.bytes.get(uid, 0) + size


def told(records: list[Record | None]) -> list[str]:
    return [record.entry.stage if record else "nothing" for record in records]


async def all_of(meter: RecordLimiter, entries: list[Entry]) -> list[Record | None]:
    """Write all entries at once, and close the limiter so that no summary waits."""
    asking = [asyncio.ensure_future(meter.write(entry)) for entry in entries]
    for _ in range(3):
        await asyncio.sleep(0)
    await meter.close()
    return await asyncio.gather(*asking)


def test_beyond_its_limit_a_peer_is_counted_by_rule_and_answered_by_the_summary() -> None:
    written = Written()

    async def test() -> None:
        refusals = [asked("refusal", rule) for rule in ("a", "b", "b", "a", "b")]
        records = await all_of(written.meter(), [*refusals, asked("read", "container.logs")])
        assert told(records) == ["refusal", "refusal", *["summary"] * 4]
        assert len({record.entry.id for record in records[2:] if record}) == 1

    run(test())
    assert written.entries[2:] == [
        Entry(
            "00000000-0000-7000-8000-000000000001",
            "summary",
            actor={"uid": ALICE, "role": "client"},
            verdict={"decision": "deny", "rules": ["a", "b"], "policy": "p1"},
            result={
                "total": 4,
                "counts": {"a": 1, "b": 2},
                "reads": {"container.logs": 1},
                "first": TIME,
                "last": TIME,
            },
        )
    ]


def test_each_peer_has_a_limit_and_a_summary_of_its_own() -> None:
    written = Written()

    async def test() -> None:
        entries = [asked("refusal", "a", uid=uid) for uid in (ALICE, ALICE, ALICE, BOB)]
        assert told(await all_of(written.meter(), entries)) == [
            *["refusal"] * 2,
            "summary",
            "refusal",
        ]

    run(test())
    assert [entry.actor["uid"] for entry in written.entries] == [ALICE, ALICE, BOB, ALICE]


def test_intents_outcomes_and_what_the_broker_notes_itself_are_never_held_back() -> None:
    written = Written()

    async def test() -> None:
        meter = written.meter(Limit(per_s=0, burst=0, summary_s=3600))
        stages: list[Stage] = ["intent", "outcome", "recovered", "operator", "policy"]
        own = asked("read", "container.gone", uid=0, role="broker")
        for entry in [*(asked(stage, "a") for stage in stages), own]:
            record = await meter.write(entry)
            assert record is not None
            assert record.entry == entry

    run(test())


def test_a_summary_comes_after_its_second_and_the_next_one_counts_anew() -> None:
    written = Written()

    async def test() -> None:
        meter = written.meter(Limit(per_s=0, burst=0, summary_s=0.01))
        for count in (3, 2):
            entries = [meter.write(asked("refusal", "a")) for _ in range(count)]
            assert told(await asyncio.gather(*entries)) == ["summary"] * count

    run(test())
    assert [entry.result["total"] for entry in written.entries] == [3, 2]


def test_who_waits_for_a_summary_that_cannot_be_written_is_told_so() -> None:
    written = Written()

    async def test() -> None:
        meter = written.meter(Limit(per_s=0, burst=0, summary_s=3600))
        written.works = False
        assert told(await all_of(meter, [asked("refusal", "a")] * 2)) == ["nothing"] * 2

    run(test())


def test_what_a_client_that_left_asked_for_is_counted_all_the_same() -> None:
    written = Written()

    async def test() -> None:
        meter = written.meter(Limit(per_s=0, burst=0, summary_s=3600))
        gone = asyncio.ensure_future(meter.write(asked("refusal", "a")))
        await asyncio.sleep(0)
        gone.cancel()
        assert told(await all_of(meter, [asked("refusal", "a")])) == ["summary"]

    run(test())
    assert [entry.result["total"] for entry in written.entries] == [2]


def test_a_clients_records_count_in_its_share_of_the_journal() -> None:
    shares, written = Shares(10_000), Written()
    limiter = RecordLimiter(
        written.write, clock=Clock(), new_id=ids(), limit=Limit(), share=shares.share()
    )
    names = {f"N{n}": "v" for n in range(100)}
    intent = Entry("i", "intent", actor={"uid": ALICE, "role": "client"}, request={"env": names})
    own = Entry("o", "outcome", actor={"uid": 0, "role": "broker"}, request={"env": names})
    controllers = Entry("c", "intent", actor={"uid": 990, "role": "controller"})

    async def test() -> None:
        for entry in (intent, own, controllers, asked("refusal", "a", uid=BOB)):
            assert await limiter.write(entry) is not None

    run(test())
    assert shares.bytes.keys() == {ALICE, BOB}
    assert 1_300 < shares.bytes[ALICE] < 2_000


def test_beyond_its_share_changes_are_written_and_refusals_are_counted() -> None:
    shares, written = Shares(0), Written()
    shares.bytes[ALICE] = 1

    async def test() -> None:
        limiter = RecordLimiter(
            written.write, clock=Clock(), new_id=ids(), limit=Limit(), share=shares.share()
        )
        # The outcome of a change under way must be written, whatever it takes.
        outcome = Entry("i", "outcome", actor={"uid": ALICE, "role": "client"})
        entries = [outcome, asked("refusal", "a"), asked("refusal", "a"), asked("read", "b")]
        records = await all_of(limiter, entries)
        assert told(records) == ["outcome", "summary", "summary", "summary"]

    run(test())
    assert [entry.stage for entry in written.entries] == ["outcome", "summary"]
