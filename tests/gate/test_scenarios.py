"""Stories of several steps, each with somebody or something in between: S1 to S18.

What is in between happens while a request is kept at the engine's door (``tap.Hold``), or at a
named crash point, never after a wait for a time. ``SCENARIOS`` is the index: which tests show
each story.
"""

from __future__ import annotations

import ast
import json
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.app.state_folder import trimtab_gid
from controller.core.engine_api.engine_objects import CONTAINERD, image_store
from controller.model import names
from tests.gate import wire
from tests.gate.fixtures import CONTEXT, IMAGE, OTHER, PATIENCE_S, RUNS, Knobs, World
from tests.gate.roles import Peer
from tests.gate.wire import Answer
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
TESTS = Path(__file__).parents[1]
#: A uid of the group that no policy names.
NOBODY = 61012

#: Each story, and the tests that show it, as ``file::test`` below ``tests/``.
SCENARIOS: dict[str, tuple[str, ...]] = {
    "S1 a directory becomes a link between create and start": (
        "gate/test_effective_state.py::test_a_source_that_is_another_directory_at_its_start_is_refused",
        "gate/test_effective_state.py::test_no_race_of_swaps_gets_another_place_into_a_container",
        "gate/test_effective_state.py::test_what_slips_past_every_look_is_stopped_soon",
    ),
    "S2 a volume is made anew with options": (
        "gate/test_effective_state.py::test_a_volume_made_anew_with_options_reaches_no_container",
    ),
    "S3 a tag is moved between its resolution and the create": (
        "gate/test_scenarios.py::test_a_tag_that_moves_meanwhile_changes_nothing",
    ),
    "S4 a name is another's between authorisation and action": (
        "gate/test_scenarios.py::test_a_name_that_another_container_took_is_not_acted_on",
    ),
    "S5 two want one name": (
        "gate/test_scenarios.py::test_of_two_that_want_a_name_one_gets_it_and_neither_an_id",
    ),
    "S6 an exec is made by an operator and started by a client": (
        "gate/test_exec.py::test_an_exec_is_started_by_its_maker_alone_and_once",
        "unit/broker/handlers/test_container_exec.py::test_an_exec_counts_for_its_maker_alone",
    ),
    "S7 the broker is killed around a call": (
        "gate/test_scenarios.py::test_a_broker_killed_around_any_change_closes_each_intent_once",
        "e2e/test_crash_points.py::test_a_process_killed_at_a_point_leaves_nothing_open_and_nothing_twice",
        "unit/broker/guards/test_recovery.py::test_wherever_the_broker_dies_there_is_no_intent_or_one_that_recovery_closes",
    ),
    "S8 the journal's disk is full, read-only or failing": (
        "e2e/test_hard_times.py::test_a_full_or_read_only_journal_stops_changes_but_not_reads_until_it_is_writable",
        "unit/journal/writer/test_writer_thread_disk_faults.py::test_a_failing_call_refuses_the_batch_and_leaves_no_byte_of_it",
        "unit/broker/test_dispatch.py::test_without_a_journal_nothing_is_forwarded_and_reads_go_on",
    ),
    "S9 the engine restarts in the middle of a stream": (
        "unit/broker/server/test_connection_streams.py::test_a_stream_that_breaks_off_at_the_engine_breaks_off_at_the_client",
        "e2e/test_hard_times.py::test_an_engine_that_is_down_is_waited_for_and_nothing_is_made_twice_when_it_is_back",
    ),
    "S10 a thousand refusals side by side": (
        "gate/test_load.py::test_every_refusal_of_a_flood_is_counted_and_the_controller_goes_on",
    ),
    "S11 the client leaves after the intent": (
        "gate/test_scenarios.py::test_what_a_client_left_behind_is_done_and_recorded",
    ),
    "S12 the policy is reloaded during a create": (
        "gate/test_scenarios.py::test_a_create_is_judged_by_one_policy_from_its_beginning_to_its_end",
    ),
    "S13 the clock jumps backwards": (
        "unit/journal/writer/test_writer_thread.py::test_order_is_by_seq_though_the_clock_goes_back",
        "unit/journal/writer/test_writer_thread.py::test_a_segment_is_left_when_it_is_a_day_old_whatever_the_clock_does",
        "unit/broker/guards/test_recovery.py::test_a_wall_clock_that_jumps_does_not_hurry_or_stop_recovery",
    ),
    "S14 lines and segments are cut, edited, reordered, spliced": (
        "unit/journal/verify/test_verify.py::test_lines_that_are_removed_moved_or_repeated_are_noticed",
        "unit/journal/verify/test_verify.py::test_every_flipped_byte_is_noticed_at_its_record",
        "unit/journal/verify/test_verify.py::test_swapped_segments_are_noticed",
        "unit/journal/verify/test_verify.py::test_two_segments_spliced_into_one_are_noticed",
        "unit/journal/verify/test_verify.py::test_the_last_segment_missing_is_noticed",
        "e2e/test_journal_tamper.py::test_what_is_changed_in_a_journal_or_the_inventory_shows",
    ),
    "S15 what was there before doesn't comply": (
        "gate/test_scenarios.py::test_an_earlier_object_is_reported_and_never_adopted",
    ),
    "S16 ordinary clients": (
        "compat/test_clients.py::test_a_command_does_what_the_table_says",
        "compat/test_clients.py::test_an_expression_does_what_the_table_says",
    ),
    "S17 each reads the journal": (
        "gate/test_scenarios.py::test_each_reads_of_the_journal_what_is_theirs_to_know",
        "unit/core/records/test_query_visibility.py::test_who_may_read_a_record",
        "unit/broker/handlers/test_trimtab_reads.py::test_a_client_reads_no_identity_no_chain_and_no_record_of_others",
    ),
    "S18 a container gets by steps what its create refuses": (
        "gate/test_scenarios.py::test_a_connect_gives_no_container_what_its_create_refuses",
        "unit/core/admission/test_networks_volumes_connects.py::test_no_container_gets_by_connects_what_its_create_refuses",
    ),
}


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as made:
        yield made


class Stage:
    """The world, with requests that are under way."""

    def __init__(self, world: World, pool: ThreadPoolExecutor) -> None:
        self.world = world
        self._pool = pool
        self._made: list[str] = []

    def raw(self, who: str, method: str, path: str, body: object = None) -> bytes:
        sent = None if body is None else json.dumps(body).encode()
        headers: dict[str, str | None] = {"Trimtab-Context": CONTEXT} if who == "controller" else {}
        return wire.request(method, f"/v1.45{path}".encode(), sent, headers)

    def begin(self, who: str, method: str, path: str, body: object = None) -> Future[Answer]:
        """Ask, without waiting for the answer."""
        connection = self.world.connect(who)
        return self._pool.submit(wire.ask, connection, self.raw(who, method, path, body))

    def container(self, owner: str, name: str, *, running: bool = False, **more: object) -> str:
        """Make a container, and remember to remove it."""
        body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}, **more}
        made = self.world.must(owner, "POST", f"/containers/create?name={name}", body)["Id"]
        self._made.append(str(made))
        if running:
            self.world.must(owner, "POST", f"/containers/{made}/start")
        return str(made)

    def engine_inspect(self, what: str) -> dict[str, Any] | None:
        """Return the engine's own word on a container."""
        try:
            return self.world.engine.inspect(what)
        except LookupError:
            return None

    def journal(self) -> list[dict[str, Any]]:
        """Return all records."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["seq"] if found else 0
            answer = self.world.ask("operator", "GET", f"/trimtab/v1/journal?after={after}")
            lines = answer.body.splitlines()
            if not lines:
                return found
            found += [json.loads(line) for line in lines]

    def records_of(self, subject: str, route: str) -> list[dict[str, Any]]:
        """Return an intent for an object with its closing record, or refusals."""
        return records_of(self.journal(), subject, route)

    def clear(self) -> None:
        for made in self._made:
            self.world.ask("operator", "DELETE", f"/containers/{made}?force=1")


def records_of(records: list[dict[str, Any]], subject: str, route: str) -> list[dict[str, Any]]:
    ids = {
        r["id"]
        for r in records
        if r.get("request", {}).get("object") == subject and r["request"]["route"] == route
    }
    return [r for r in records if r["id"] in ids]


@pytest.fixture
def stage(world: World, pool: ThreadPoolExecutor) -> Iterator[Stage]:
    made = Stage(world, pool)
    try:
        yield made
    finally:
        made.clear()


# S3


@pytest.mark.parametrize("kept", ["GET", "POST"], ids=["while judged", "while created"])
def test_a_tag_that_moves_meanwhile_changes_nothing(stage: Stage, kept: str) -> None:
    world, name = stage.world, f"alice-s3-{kept.lower()}"
    docker = world.engine.docker
    door = rf"/containers/{name}/json" if kept == "GET" else "/containers/create"
    body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
    before = len(world.tap.answered)

    def is_resolved() -> bool:
        return any("/images/" in asked.path for asked in world.tap.answered[before:])

    try:
        with world.tap.holding(kept, door) as hold:
            answer = stage.begin("alice", "POST", f"/containers/create?name={name}", body)
            hold.await_kept()
            eventually(is_resolved)  # the broker reads the image and the name side by side
            docker("tag", OTHER, IMAGE)
        told = answer.result(PATIENCE_S)
    finally:
        docker("tag", RUNS, IMAGE)
    assert told.status == 201
    made = stage.engine_inspect(told.json["Id"])
    assert made is not None
    assert made["Image"] == world.tap.trusted_id != world.engine_id("image", OTHER)
    world.must("alice", "DELETE", f"/containers/{told.json['Id']}")


# S4


@pytest.mark.parametrize(
    ("verb", "door"),
    [("stop", "stop?t=0"), ("kill", "kill"), ("rename", "rename?name=taken-over"), ("", "")],
    ids=["stop", "kill", "rename", "remove"],
)
def test_a_name_that_another_container_took_is_not_acted_on(
    stage: Stage, verb: str, door: str
) -> None:
    world, name = stage.world, f"s4-{verb or 'remove'}"
    alices = stage.container("alice", name, running=True)
    method = "POST" if verb else "DELETE"
    path = f"/containers/{name}/{door}" if verb else f"/containers/{name}?force=1"
    with world.tap.holding(method, rf"/containers/{alices}(/{verb})?") as hold:
        answer = stage.begin("alice", method, path)
        hold.await_kept()
        world.engine.docker("rm", "--force", alices)
        bobs = stage.container("bob", name, running=True)
    assert answer.result(PATIENCE_S).status in (204, 404)  # that it is gone is what removal wants
    left = stage.engine_inspect(bobs)
    assert left is not None
    assert (left["Name"], left["State"]["Running"]) == (f"/{name}", True)
    intent, outcome = stage.records_of(alices, f"container.{verb or 'remove'}")
    assert (intent["stage"], outcome["stage"]) == ("intent", "outcome")
    assert stage.records_of(bobs, f"container.{verb or 'remove'}") == []


# S5


def test_of_two_that_want_a_name_one_gets_it_and_neither_an_id(stage: Stage) -> None:
    world = stage.world
    alices, bobs = stage.container("alice", "s5-alice"), stage.container("bob", "s5-bob")
    with world.tap.holding("POST", r"/containers/[0-9a-f]{64}/rename") as hold:
        answers = [
            stage.begin(who, "POST", f"/containers/{mine}/rename?name=s5-both")
            for who, mine in (("alice", alices), ("bob", bobs))
        ]
        hold.await_kept(2)
    told = [answer.result(PATIENCE_S) for answer in answers]
    assert sorted(each.status for each in told) == [204, 409]
    (lost,) = [each for each in told if each.status == 409]
    assert not any(each in lost.body.decode() for each in (alices, bobs))
    held = [(stage.engine_inspect(each) or {}).get("Name") for each in (alices, bobs)]
    assert held.count("/s5-both") == 1
    # Who comes later is refused before the engine is asked.
    mark = world.tap.mark()
    loser, mine = ("alice", alices) if held[1] == "/s5-both" else ("bob", bobs)
    late = world.ask(loser, "POST", f"/containers/{mine}/rename?name=s5-both")
    assert (late.status, late.rule) == (409, "name.taken")
    assert not any(request.changes for request in world.tap.since(mark))


# S7


#: Every change that shows on the engine whether it was made, and how recovery then finds it.
#: Those of which nothing can be seen stay unknown, and are closed all the same.
SEEN_LATER = {"restart": "unknown", "kill": "unknown"}
NEVER = "0001-01-01T00:00:00Z"
VERBS = ("start", "stop", "restart", "kill", "pause", "unpause", "rename", "update", "remove")


class Changes:
    """One change of every kind, each of an object of its own."""

    def __init__(self, stage: Stage, tag: str) -> None:
        self._stage, self._tag = stage, tag
        #: What was asked for: its route, and the object that its intent names.
        self.asked: dict[str, str] = {}
        self._prepared: list[tuple[str, str, object]] = []
        for verb in VERBS:
            self._container(verb)
        self._network()
        self._objects()

    def _name(self, what: str) -> str:
        return f"s7-{self._tag}-{what}"

    def _container(self, verb: str) -> None:
        stage, name = self._stage, self._name(verb)
        made = stage.container("alice", name, running=verb not in ("start", "rename", "remove"))
        if verb == "unpause":
            stage.world.must("alice", "POST", f"/containers/{made}/pause")
        query = {"rename": f"?name={name}-now", "stop": "?t=0", "restart": "?t=0"}.get(verb, "")
        body = {"RestartPolicy": {"Name": "always"}} if verb == "update" else None
        if verb == "remove":
            self._add(f"container.{verb}", made, "DELETE", f"/containers/{made}", body)
        else:
            self._add(f"container.{verb}", made, "POST", f"/containers/{made}/{verb}{query}", body)

    def _network(self) -> None:
        stage, isle = self._stage, self._stage.world.tokens["NET_OWN"]
        joined = {"HostConfig": {"NetworkMode": isle}}
        for verb, more in (("connect", {"HostConfig": {}}), ("disconnect", joined)):
            made = stage.container("alice", self._name(verb), running=True, **more)
            body = {"Container": made}
            self._add(f"network.{verb}", made, "POST", f"/networks/{isle}/{verb}", body)

    def _objects(self) -> None:
        made, gone = self._name("made"), self._name("gone")
        body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
        self._add("container.create", made, "POST", f"/containers/create?name={made}", body)
        self._add("network.create", made, "POST", "/networks/create", {"Name": made})
        self._add("volume.create", made, "POST", "/volumes/create", {"Name": made})
        told = self._stage.world.must("alice", "POST", "/networks/create", {"Name": gone})
        self._add("network.remove", str(told["Id"]), "DELETE", f"/networks/{gone}", None)

    def _add(self, route: str, subject: str, method: str, path: str, body: object) -> None:
        self.asked[route] = subject
        self._prepared.append((method, path, body))

    def begin(self) -> list[Future[Answer]]:
        """Ask for all of them at once."""
        return [self._stage.begin("alice", *each) for each in self._prepared]

    def clear(self) -> None:
        """Remove what is there of it besides containers of the stage."""
        made, gone = self._name("made"), self._name("gone")
        ask = self._stage.world.ask
        ask("operator", "DELETE", f"/containers/{made}?force=1")
        for network in (made, gone):
            ask("operator", "DELETE", f"/networks/{network}")
        self._stage.world.engine.docker("volume", "rm", made, check=False)


@pytest.mark.timeout(300)
def test_a_broker_killed_around_any_change_closes_each_intent_once(stage: Stage) -> None:
    """Killed while the engine is at some changes, and before the engine has heard of others.

    These are all the states there are: killed before the intent is on disk there is nothing to
    close, killed after the engine's answer it is as if killed while the engine was at it. Recovery
    waits until the engine can't be at a change any more, for all of them at once.
    """
    world, door = stage.world, r"/(?!trimtab/).*"
    reached, lost = Changes(stage, "in"), Changes(stage, "out")
    try:
        with world.tap.holding("*", door, most=len(reached.asked)) as goes_on:
            answers = reached.begin()
            goes_on.await_kept(len(reached.asked))
            with world.tap.holding("*", door) as hold:
                answers += lost.begin()
                hold.await_kept(len(lost.asked))
                world.gate.kill()
                hold.drop()
        assert {answer.result(PATIENCE_S).status for answer in answers} == {0}
        world.gate.start()
        eventually(world.gate.serves, within_s=PATIENCE_S, what="the broker's socket")
        eventually(
            lambda: world.must("operator", "GET", "/trimtab/v1/health")["openIntents"] == 0,
            within_s=120,
            what="no open intent",
        )
        for changes, otherwise in ((reached, "applied"), (lost, "not-applied")):
            expected = {
                route: SEEN_LATER.get(route.partition(".")[2], otherwise) for route in changes.asked
            }
            # The engine cancels some requests whose client has gone, or doesn't: recovery says which.
            started = (stage.engine_inspect(changes.asked["container.start"]) or {})["State"]
            if started["StartedAt"] == NEVER:
                expected["container.start"] = "not-applied"
            volume = changes.asked["volume.create"]
            if world.engine.docker("volume", "inspect", volume, check=False).returncode != 0:
                expected["volume.create"] = "not-applied"
            found = settled(stage, changes)
            if image_store(world.engine.must("GET", "/info")) == CONTAINERD:
                # Creates too; recovery removes a container whose client never got the id.
                expected["container.create"] = found["container.create"]
            assert found == expected
    finally:
        for changes in (reached, lost):
            changes.clear()


def settled(stage: Stage, changes: Changes) -> dict[str, str]:
    """Return how recovery closed the one intent of each change."""
    found, journal = {}, stage.journal()
    for route, subject in changes.asked.items():
        *before, intent, closing = records_of(journal, subject, route)
        assert (intent["stage"], closing["stage"]) == ("intent", "recovered"), route
        assert closing["id"] == intent["id"]
        assert [r["id"] for r in before].count(intent["id"]) == 0
        found[route] = str(closing["result"]["settled"])
    return found


# S11


def test_what_a_client_left_behind_is_done_and_recorded(stage: Stage) -> None:
    world = stage.world
    mine = stage.container("alice", "s11", running=True)
    with world.tap.holding("POST", rf"/containers/{mine}/kill") as hold:
        with world.connect("alice") as connection:
            wire.send(connection, stage.raw("alice", "POST", f"/containers/{mine}/kill"))
            hold.await_kept()
        # The client is gone; the intent is on disk, the engine knows nothing yet.
        assert [r["stage"] for r in stage.records_of(mine, "container.kill")] == ["intent"]
    eventually(lambda: len(stage.records_of(mine, "container.kill")) == 2, what="an outcome")
    _, outcome = stage.records_of(mine, "container.kill")
    assert (outcome["stage"], outcome["result"]["status"]) == ("outcome", 204)
    eventually(lambda: not (stage.engine_inspect(mine) or {})["State"]["Running"])


# S12


def test_a_create_is_judged_by_one_policy_from_its_beginning_to_its_end(stage: Stage) -> None:
    world = stage.world
    first = world.policy_digest()
    narrower = yaml.safe_load(Knobs().policy())
    narrower["images"]["allow"] = ["ghcr.io/somebody-else/"]
    body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
    try:
        with world.tap.holding("GET", "/containers/s12/json") as hold:
            answer = stage.begin("alice", "POST", "/containers/create?name=s12", body)
            hold.await_kept()
            world.gate.reload(yaml.safe_dump(narrower))
            eventually(lambda: world.policy_digest() != first, what="the new policy")
            second = world.policy_digest()
        told = answer.result(PATIENCE_S)
        assert told.status == 201
        (intent, _) = stage.records_of("s12", "container.create")
        assert intent["verdict"]["policy"] == first
        # The next one is judged by the new one.
        late = world.ask("alice", "POST", "/containers/create?name=s12-late", body)
        assert late.status == 403
        (refusal,) = (
            stage.records_of("s12-late", "container.create")
            or [r for r in stage.journal() if r["stage"] == "refusal"][-1:]
        )
        assert refusal["verdict"]["policy"] == second
        world.must("alice", "DELETE", f"/containers/{told.json['Id']}")
    finally:
        world.gate.reload(Knobs().policy())
        eventually(lambda: world.policy_digest() == first, what="the old policy")


# S15


def test_an_earlier_object_is_reported_and_never_adopted(stage: Stage) -> None:
    world = stage.world
    mine = stage.container("alice", "s15-mine")
    labels = (stage.engine_inspect(mine) or {})["Config"]["Labels"]
    copied = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    docker = world.engine.docker
    name = "s15-copy"
    copy = docker("create", "--privileged", *copied, "--name", name, RUNS).stdout.strip()
    try:
        before = world.must("operator", "GET", "/trimtab/v1/inventory")["containers"]
        world.gate.kill()
        world.gate.start()
        eventually(world.gate.serves, within_s=PATIENCE_S, what="the broker's socket")
        told = eventually(
            lambda: (
                world.must("operator", "GET", "/trimtab/v1/health")["strangers"]["count"]
                and world.must("operator", "GET", "/trimtab/v1/health")["strangers"]
            )
        )
        assert told == {"count": 1, "some": {copy: name}}
        after = world.must("operator", "GET", "/trimtab/v1/inventory")["containers"]
        assert {each["id"] for each in after} == {each["id"] for each in before}
        for who in ("alice", "operator", "controller"):
            shown = world.must(who, "GET", "/containers/json?all=1")
            assert copy not in {each["Id"] for each in shown}
            for method, path in (
                ("POST", f"/containers/{copy}/start"),
                ("POST", f"/containers/{name}/start"),
                ("DELETE", f"/containers/{copy}?force=1"),
                ("GET", f"/containers/{name}/logs?stdout=1"),
            ):
                assert world.ask(who, method, path).status == 404, (who, method, path)
        state = (stage.engine_inspect(copy) or {})["State"]["Status"]
        assert state == "created"
    finally:
        docker("rm", "--force", copy)


# S17

#: What happens, in order: the record, and who reads it. Stage, role, action, and what it is about.
READ_BY = {
    "intent client container.create s17-alice": "operator controller alice",
    "outcome client container.create s17-alice": "operator controller alice",
    "intent client container.create s17-bob": "operator controller bob",
    "outcome client container.create s17-bob": "operator controller bob",
    "refusal client container.remove s17-bob": "operator alice",
    "read operator container.inspect s17-alice": "operator alice",
    "intent controller volume.create s17-store": "operator controller alice",
    "outcome controller volume.create s17-store": "operator controller alice",
    "intent operator volume.remove s17-store": "operator controller alice",
    "outcome operator volume.remove s17-store": "operator controller alice",
}


def test_each_reads_of_the_journal_what_is_theirs_to_know(stage: Stage) -> None:
    world, ask = stage.world, stage.world.ask
    before = world.must("operator", "GET", "/trimtab/v1/health")["journal"]["seq"]
    for owner in ("alice", "bob"):
        stage.container(owner, f"s17-{owner}")
    assert ask("alice", "DELETE", "/containers/s17-bob").status == 404
    world.must("operator", "GET", "/containers/s17-alice/json")
    labels = {names.OWNER: "alice", names.NAMESPACE: "default"}
    world.must("controller", "POST", "/volumes/create", {"Name": "s17-store", "Labels": labels})
    world.must("operator", "DELETE", "/volumes/s17-store")
    query = f"?about=1&after={before}"
    for who in ("operator", "controller", "alice", "bob"):
        expected = [record for record, readers in READ_BY.items() if who in readers.split()]
        told = ask(who, "GET", f"/trimtab/v1/journal{query}").body.splitlines()
        assert labels_of(told) == expected, who
        with world.connect(who) as connection:
            followed = followed_lines(connection, who, query)
            assert labels_of(islice(followed, len(expected))) == expected, who
        if who in ("alice", "bob"):
            persons = [json.loads(line)["record"]["actor"] for line in told]
            own = {json.dumps(actor) for actor in persons if "uid" in actor}
            assert len(own) == 1, "of others only the role"
    with Peer(NOBODY, [trimtab_gid()]) as stranger:
        for path in (b"/trimtab/v1/journal", b"/trimtab/v1/journal/follow"):
            refused = wire.ask(stranger.connect(world.gate.socket), wire.request("GET", path))
            assert (refused.status, refused.rule) == (403, "role.denied")
    # The controller's uid alone isn't the controller.
    refused = wire.ask(world.connect("controller"), wire.request("GET", b"/trimtab/v1/journal"))
    assert refused.status == 403


def labels_of(lines: Iterable[bytes]) -> list[str]:
    """Return what lines of the journal tell, of what this story is about."""
    told = [json.loads(line) for line in lines]
    return [
        f"{each['record']['stage']} {each['record']['actor']['role']}"
        f" {each['about']['action']} {each['about']['name']}"
        for each in told
        if each["about"]["name"].startswith("s17-")
    ]


def followed_lines(connection: socket.socket, who: str, query: str) -> Iterator[bytes]:
    """Yield the lines of this story that somebody is told who follows the journal."""
    headers: dict[str, str | None] = {"Trimtab-Context": CONTEXT} if who == "controller" else {}
    target = f"/trimtab/v1/journal/follow{query}".encode()
    wire.send(connection, wire.request("GET", target, None, headers))
    with connection.makefile("rb") as answer:
        assert answer.readline().startswith(b"HTTP/1.1 200"), who
        for line in answer:
            if line.startswith(b"{") and labels_of([line]):
                yield line


# The index


# S18


def test_a_connect_gives_no_container_what_its_create_refuses(stage: Stage) -> None:
    """A container with a way out on the isolated network would be a router for all of its namespace."""
    world, isolated = stage.world, "platform-network"
    both: dict[str, Any] = {isolated: {}}
    stage.container("alice", "s18-inside", HostConfig={"NetworkMode": isolated})
    for mode in ("bridge", world.tokens["NET_OWN"]):
        host = {"NetworkMode": mode}
        body = {"Image": IMAGE, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": both}}
        at_once = world.ask("alice", "POST", "/containers/create?name=s18-once", body)
        assert (at_once.status, at_once.rule) == (403, "network.endpoints")
        made = stage.container("alice", f"s18-{mode}", HostConfig=host)
        path = f"/networks/{isolated}/connect"
        later = world.ask("operator", "POST", path, {"Container": made})
        assert (later.status, later.rule) == (403, "network.mode")
        # The network can be another owner's, of which alice doesn't learn.
        later = world.ask("alice", "POST", path, {"Container": made})
        assert (later.status, later.rule) in {(403, "network.mode"), (404, "foreign")}
        joined = (stage.engine_inspect(made) or {})["NetworkSettings"]["Networks"]
        assert isolated not in joined


def test_every_story_has_tests_that_exist() -> None:
    assert [story.split()[0] for story in SCENARIOS] == [f"S{n}" for n in range(1, 19)]
    for story, shown_by in SCENARIOS.items():
        assert shown_by, story
        for each in shown_by:
            file, _, test = each.partition("::")
            tree = ast.parse((TESTS / file).read_text())
            there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in there, (story, each)
