"""Crash boundaries: wherever the gate is left, recovery closes what is open, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import CommandResult, Forward, ReadEngine, WriteRecord
from controller.broker.gate.state import GateState
from controller.broker.guards.recovery import (
    forget_gone,
    intents_to_settle,
    remove_stale,
    settle,
    stale_containers,
)
from controller.core.enforcement.settlement import SettlementEvidence
from controller.model.records import Entry, Reply
from tests.unit.broker.dialogue import (
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    RECORDED,
    UNRECORDED,
    Clock,
    Step,
    Told,
    at,
    converse,
    lost,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    ALL_CONTAINERS,
    ALL_NETWORKS,
    ALL_VOLUMES,
    NETWORK,
    REFERENCE,
    SERVICE,
    SLOT,
    WEB,
    actor,
    image,
    inspect,
    inventory,
    item,
    labels,
)

NEW = "99" * 32
FIND = ReadEngine(
    "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22io.trimtab.intent%3Did-1%22%5D%7D"
)
CREATED = reply([{"Id": NEW, "Names": ["/job"], "Labels": labels("alice", intent="id-1")}])
LOOK = ReadEngine(f"/containers/{WEB}/json")


def played(
    asked: Any, answers: dict[str, CommandResult], knows: GateState, *, until: int
) -> list[Entry]:
    """Play a request until its command number *until* is given, and drop it there: a crash.

    What a command does is done by its answer, so the last command given isn't done: whether a
    Forward reached the engine is for recovery's look to find out.
    """
    steps = handle(asked, knows)
    answer: CommandResult = None
    entries: list[Entry] = []
    for number in range(until + 1):
        try:
            command = steps.send(answer)
        except StopIteration:
            return entries
        if number == until:
            break
        if isinstance(command, WriteRecord):
            answer = record(knows, command.entry)
            entries.append(command.entry)
        else:
            answer = answers[type(command).__name__ + " " + command.path.partition("?")[0]]  # type: ignore[union-attr]
    steps.close()
    return entries


@dataclass(frozen=True)
class Mutation:
    """A request, the answers on its way, and what recovery sees before and after it happened."""

    asked: Any
    answers: dict[str, Any]
    look: ReadEngine | None
    before: Reply | None
    after: Reply | None


def on_web(
    method: str, verb: str, before: dict[str, Any], after: dict[str, Any] | None
) -> Mutation:
    path = f"/containers/{WEB}{verb}"
    return Mutation(
        request(method, path),
        {
            f"ReadEngine /containers/{WEB}/json": reply(
                inspect(WEB, "alice-web", "alice", State=before)
            ),
            f"Forward {path.partition('?')[0]}": NO_CONTENT,
        },
        LOOK,
        reply(inspect(WEB, "alice-web", "alice", State=before)),
        NOT_FOUND if after is None else reply(inspect(WEB, "alice-web", "alice", State=after)),
    )


EARLIER, LATER = "2026-01-01T11:00:00Z", "2026-01-01T12:00:01Z"
MUTATIONS = {
    "create": Mutation(
        request(
            "POST",
            "/containers/create?name=job",
            body={"Image": REFERENCE, "HostConfig": {"NetworkMode": "none"}},
        ),
        {
            f"ReadEngine /images/{REFERENCE}/json": reply(image()),
            "ReadEngine /containers/job/json": NOT_FOUND,
            "Forward /containers/create": reply({"Id": NEW}, 201),
            f"ReadEngine /containers/{NEW}/json": NOT_FOUND,
        },
        FIND,
        reply([]),
        CREATED,
    ),
    "start": on_web("POST", "/start", {"StartedAt": EARLIER}, {"StartedAt": LATER}),
    "stop": on_web(
        "POST",
        "/stop?t=5",
        {"Running": True, "FinishedAt": EARLIER},
        {"Running": False, "FinishedAt": LATER},
    ),
    "pause": on_web("POST", "/pause", {"Paused": False}, {"Paused": True}),
    "remove": on_web("DELETE", "", {"Status": "exited"}, None),
    "restart": replace(on_web("POST", "/restart", {}, {}), look=None, before=None, after=None),
}


def commands_of(mutation: Mutation) -> int:
    knows, count = state(inventory()), 0
    while len(played(mutation.asked, mutation.answers, knows, until=count)) < 2:
        knows, count = state(inventory()), count + 1
        assert count < 20, "the mutation doesn't end"
    return count


@pytest.mark.parametrize("happened", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_wherever_the_broker_dies_there_is_no_intent_or_one_that_recovery_closes(
    name: str, happened: bool
) -> None:
    mutation = MUTATIONS[name]
    opened = 0
    for until in range(commands_of(mutation)):
        knows = state(inventory())
        entries = played(mutation.asked, mutation.answers, knows, until=until)
        # Another process starts, with the journal alone.
        reborn = state(knows.inventory, start_seq=knows.inventory.seq)
        assert intents_to_settle(reborn) == tuple(entry.id for entry in entries)
        for identifier in intents_to_settle(reborn):
            opened += 1
            closed = settled_at_last(mutation, reborn, identifier, happened=happened)
            assert [entry.stage for entry in closed] == ["recovered"]
            expected = "applied" if happened else "not-applied"
            assert closed[0].result["settled"] == (expected if mutation.look else "unknown")
            assert (closed[0].id, closed[0].actor["role"]) == (identifier, "broker")
            assert reborn.inventory.open == {}
    # Before and after the forward, and after the look at what the engine kept.
    assert opened == (3 if name == "create" else 2)


def settled_at_last(
    mutation: Mutation, knows: GateState, identifier: str, *, happened: bool
) -> list[Entry]:
    entries: list[Entry] = []
    earlier: SettlementEvidence | None = None
    for _ in range(10):
        shown = mutation.after if happened else mutation.before
        dialogue: list[Step] = [(mutation.look, shown)] if mutation.look else []
        steps = settle(knows, identifier, earlier=earlier)
        answer: CommandResult = None
        while True:
            try:
                command = steps.send(answer)
            except StopIteration as stop:
                earlier = stop.value
                break
            if isinstance(command, WriteRecord):
                entries.append(command.entry)
                answer = record(knows, command.entry)
            else:
                assert command == dialogue[0][0]
                answer = dialogue[0][1]  # type: ignore[assignment]
        if earlier is None:
            return entries
        at(knows, 15)
    raise AssertionError("it is never settled")


def opened(mutation: Mutation, **more: Any) -> GateState:
    """Return a state with the mutation's intent open, of this process."""
    knows = state(inventory(**more))
    count = commands_of(mutation)
    played(mutation.asked, mutation.answers, knows, until=count - 1)
    assert intents_to_settle(knows) == ("id-1",)
    return knows


def settling(
    knows: GateState, dialogue: list[Step], earlier: SettlementEvidence | None = None
) -> SettlementEvidence | None:
    told: Told = converse(settle(knows, "id-1", earlier=earlier), dialogue, knows)
    assert told.value is None or isinstance(told.value, SettlementEvidence)
    return told.value


def test_what_was_created_is_ours_by_its_label_although_nobody_was_told() -> None:
    knows = opened(MUTATIONS["create"])
    told = converse(
        settle(knows, "id-1", earlier=None), [(FIND, CREATED), ("recovered", RECORDED)], knows
    )
    assert told.entries == [
        Entry(
            "id-1",
            "recovered",
            actor=actor(0, 0, "broker"),
            result={
                "settled": "applied",
                "evidence": "the label of the intent",
                "container": NEW,
            },
        )
    ]
    made = knows.inventory.containers[NEW]
    assert (made.owner, made.recovered, made.started) == ("alice", True, False)


def test_that_it_did_not_happen_takes_the_deadline_and_two_equal_looks() -> None:
    knows = opened(MUTATIONS["create"])
    nothing: list[Step] = [(FIND, reply([]))]
    seen = settling(knows, nothing)
    assert settling(knows, nothing, seen) == seen  # equal, but the engine may be at it
    at(knows, 21)
    assert settling(knows, nothing, None) == seen  # late, but only one look
    assert (
        settling(knows, nothing, replace(seen or SettlementEvidence(False, ""), state="other"))
        == seen
    )
    assert settling(knows, [*nothing, ("recovered", RECORDED)], seen) is None
    assert knows.inventory.open == {}


def test_a_stop_is_waited_for_as_long_as_its_grace() -> None:
    stop = replace(MUTATIONS["stop"], asked=request("POST", f"/containers/{WEB}/stop?t=60"))
    knows = opened(stop)
    running: list[Step] = [(LOOK, stop.before)]
    seen = settling(knows, running)
    at(knows, 74)
    assert settling(knows, running, seen) == seen
    at(knows, 2)
    assert settling(knows, [*running, ("recovered", RECORDED)], seen) is None


def test_a_wall_clock_that_jumps_does_not_hurry_or_stop_recovery() -> None:
    knows = opened(MUTATIONS["create"])
    assert isinstance(knows.clock, Clock)
    nothing: list[Step] = [(FIND, reply([]))]
    knows.clock.jumped = 3600.0
    seen = settling(knows, nothing)
    assert settling(knows, nothing, seen) == seen
    reborn = state(knows.inventory, start_seq=knows.inventory.seq)
    assert isinstance(reborn.clock, Clock)
    reborn.clock.jumped = -3600.0
    seen = settling(reborn, nothing)
    at(reborn, 21)
    assert settling(reborn, [*nothing, ("recovered", RECORDED)], seen) is None


def test_what_was_created_with_too_many_labels_to_read_is_found_by_the_engine() -> None:
    knows = opened(MUTATIONS["create"])
    row = {"Id": NEW, "Names": ["/job"], "State": "created"}
    told = converse(
        settle(knows, "id-1", earlier=None), [(FIND, reply([row])), ("recovered", RECORDED)], knows
    )
    assert told.entries[0].result["container"] == NEW


def test_a_look_that_failed_shows_nothing() -> None:
    knows = opened(MUTATIONS["create"])
    at(knows, 100)
    seen = SettlementEvidence(applied=False, state="0")
    for answer in (lost(), reply({"message": "busy"}, 500), Reply(200, b"garbled")):
        assert settling(knows, [(FIND, answer)], seen) == seen
    assert intents_to_settle(knows) == ("id-1",)


def test_a_closing_that_cannot_be_recorded_is_tried_again() -> None:
    knows = opened(MUTATIONS["create"])
    seen = settling(knows, [(FIND, CREATED), ("recovered", UNRECORDED)])
    assert seen is not None
    assert settling(knows, [(FIND, CREATED), ("recovered", RECORDED)], seen) is None
    assert settling(knows, []) is None  # closed: nothing more is said of it
    assert knows.intents.recorded_at == {}


def test_what_a_request_is_working_on_is_not_recoverys() -> None:
    knows = state(inventory())
    steps = handle(MUTATIONS["stop"].asked, knows)
    steps.send(None)
    intent: Any = steps.send(MUTATIONS["stop"].answers[f"ReadEngine /containers/{WEB}/json"])
    steps.send(record(knows, intent.entry))
    assert "id-1" in knows.inventory.open
    assert intents_to_settle(knows) == ()
    assert settling(knows, []) is None
    steps.close()  # the broker's task is cancelled
    assert intents_to_settle(knows) == ("id-1",)


def test_while_it_is_settled_the_object_stays_held() -> None:
    knows = opened(MUTATIONS["stop"])
    steps = settle(knows, "id-1", earlier=None)
    steps.send(None)
    dialogue: list[Step] = [
        (LOOK, reply(inspect(WEB, "alice-web", "alice"))),
        ("refusal", RECORDED),
    ]
    answer = converse(handle(request("POST", f"/containers/{WEB}/start"), knows), dialogue, knows)
    assert answer.rule == "held"
    with pytest.raises(AssertionError, match="is being settled already"):
        settle(knows, "id-1", earlier=None).send(None)
    steps.close()
    assert knows.intents.settling == set()


# What is gone, and what was left over

LISTS: dict[str, Any] = {
    "/info": {"ID": "engine-1"},
    ALL_CONTAINERS: [{"Id": SLOT, "Labels": {}}],
    ALL_NETWORKS: [],
    ALL_VOLUMES: {"Volumes": None},
}


def lists(**more: Any) -> list[Step]:
    return [(ReadEngine(path), reply(told)) for path, told in {**LISTS, **more}.items()]


def test_what_was_removed_behind_the_brokers_back_is_forgotten_after_a_second_look() -> None:
    knows = state(inventory(containers={WEB: item(WEB, "w", "alice"), SLOT: item(SLOT, "s", "t")}))
    told = converse(
        forget_gone(knows),
        [
            *lists(),
            (LOOK, NOT_FOUND),
            ("read", RECORDED),
            # Listed no more, and yet there: it came between the two looks.
            (ReadEngine(f"/networks/{NETWORK}"), reply({"Id": NETWORK})),
            (ReadEngine("/volumes/alice-data"), NOT_FOUND),
            ("read", RECORDED),
        ],
        knows,
    )
    assert told.value == 2
    assert list(knows.inventory.containers) == [SLOT]
    assert list(knows.inventory.networks) == [NETWORK]
    assert list(knows.inventory.volumes) == []


@pytest.mark.parametrize(
    "steps",
    [
        [(ReadEngine("/info"), lost())],
        [(ReadEngine("/info"), reply({"ID": "another-engine"}))],
        [*lists()[:1], (ReadEngine(ALL_CONTAINERS), reply({"message": "x"}, 500))],
    ],
    ids=["away", "another", "failing"],
)
def test_nothing_is_forgotten_by_an_engine_that_cannot_know(steps: list[Step]) -> None:
    knows = state(inventory())
    assert converse(forget_gone(knows), steps, knows).value == 0
    assert knows.inventory == inventory()


def test_what_is_being_changed_is_not_forgotten() -> None:
    knows = opened(MUTATIONS["stop"], networks={}, volumes={})
    told = converse(
        forget_gone(knows),
        lists(**{ALL_CONTAINERS: [{"Id": i} for i in knows.inventory.containers if i != WEB]}),
        knows,
    )
    assert told.value == 0


def test_what_an_earlier_broker_created_and_nobody_started_is_left_over() -> None:
    made: dict[str, Callable[[str], Any]] = {
        "created": lambda i: item(i, i, "t", origin="controller", seq=5),
        "started": lambda i: item(i, i, "t", origin="controller", seq=5, started=True),
        "since then": lambda i: item(i, i, "t", origin="controller", seq=11),
        "docker create": lambda i: item(i, i, "alice", seq=4),
        "nobody was told": lambda i: item(i, i, "alice", seq=3, recovered=True),
    }
    knows = state(
        inventory(containers={key: make(key) for key, make in made.items()}), start_seq=10
    )
    assert stale_containers(knows) == ("nobody was told", "created")


def left_over() -> tuple[GateState, Step]:
    knows = state(inventory(), start_seq=10)
    shown = inspect(SLOT, SERVICE, "team", State={"Status": "created"})
    return knows, (ReadEngine(f"/containers/{SLOT}/json"), reply(shown))


def test_a_leftover_is_removed_as_any_container_is() -> None:
    knows, look = left_over()
    told = converse(
        remove_stale(knows, SLOT),
        [
            look,
            ("intent", RECORDED),
            (Forward("DELETE", f"/containers/{SLOT}"), NO_CONTENT),
            ("outcome", RECORDED),
        ],
        knows,
    )
    assert told.value is True
    assert told.entries[0].actor == actor(0, 0, "broker")
    assert told.entries[0].verdict["rules"] == ["stale.clean-up"]
    assert SLOT not in knows.inventory.containers


@pytest.mark.parametrize("status", ["running", "exited", "paused"])
def test_what_ran_is_no_leftover(status: str) -> None:
    knows, look = left_over()
    shown = reply(inspect(SLOT, SERVICE, "team", State={"Status": status}))
    assert converse(remove_stale(knows, SLOT), [(look[0], shown)], knows).value is False


def test_what_is_started_meanwhile_is_no_leftover() -> None:
    knows, look = left_over()
    steps = handle(request("POST", f"/containers/{SLOT}/start", actor=CONTROLLER), knows)
    steps.send(None)
    intent: Any = steps.send(look[1])  # type: ignore[arg-type]
    steps.send(record(knows, intent.entry))
    assert converse(remove_stale(knows, SLOT), [], knows).value is False


def test_a_leftover_that_is_gone_is_forgotten() -> None:
    knows, look = left_over()
    told = converse(remove_stale(knows, SLOT), [(look[0], NOT_FOUND), ("read", RECORDED)], knows)
    assert told.value is True
    assert SLOT not in knows.inventory.containers
    assert converse(remove_stale(knows, SLOT), [], knows).value is False
