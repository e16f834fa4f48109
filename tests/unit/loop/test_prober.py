"""The prober: whom it asks, by what, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.core.drift.probe_verdict import Probe, ProbeOutcome
from controller.core.manifests.check_together import desired_of
from controller.loop import prober
from controller.loop.prober import Prober
from controller.model.names import Key, service_key
from controller.model.observed import Container, ContainerState, Observed
from tests import worlds
from tests.unit.loop.toy import House, ToyProbes, Watch
from tests.worlds import WEB, container, declared, engine, service

HTTP: dict[str, Any] = {"http": {"path": "/healthz", "port": 8080}}
WEB1 = "id:web.1-bbbbbbbb"
PRIMARY = ("platform-network", "172.18.0.2")


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Desk:
    """A prober with a toy transport and a clock that stands."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.transport = ToyProbes()
        self.hints: list[Key] = []
        self.prober = Prober(self.transport, self.watch, self.hints.append)
        self.declare(service(healthcheck={**HTTP, "interval": "10s"}))

    def declare(self, *services: Any) -> None:
        self.prober.declare(services, worlds.NAMES)

    def up(self, slot: int = 1, *, since: float | None = None, **fields: Any) -> Container:
        started = at(self.watch.time if since is None else since)
        return container(slot=slot, **{"started_at": started, "addresses": (PRIMARY,), **fields})

    def look(self, *containers: Container, only: Key | None = None) -> list[str]:
        """Return the health of each container as a look shows it."""
        seen = self.see(engine(*containers), only=only)
        return [each.health for each in seen.containers]

    def see(self, observed: Observed, *, only: Key | None = None) -> Observed:
        return self.prober.with_health(observed, only=only)

    def step(self) -> list[Probe]:
        """Return whom one step asks."""
        before = len(self.transport.asked)
        self.prober.step(longest_s=1.0)
        return self.transport.asked[before:]

    def live(self, seconds: float) -> int:
        """Let time pass; return how often anybody was asked."""
        before, end = len(self.transport.asked), self.watch.time + seconds
        while (due := self.prober.next_due()) is not None and due <= end:
            self.watch.time = max(self.watch.time, due)
            self.prober.step(longest_s=0.0)
        self.watch.time = end
        return len(self.transport.asked) - before


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_container_is_starting_until_it_answers_and_a_change_is_a_hint(desk: Desk) -> None:
    up = desk.up()
    assert desk.look(up) == ["starting"]
    assert desk.step() == [Probe(WEB1, "172.18.0.2", 8080, "/healthz", 30.0)]
    assert desk.hints == [WEB]
    assert desk.look(up) == ["healthy"]
    desk.live(100)
    assert desk.hints == [WEB], "what stays as it is is no news"


def test_it_turns_unhealthy_and_says_why_and_comes_back(desk: Desk) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    desk.transport.said[WEB1] = ProbeOutcome.BAD
    assert desk.live(25) == 2
    assert desk.look(up) == ["healthy"]
    desk.live(10)
    (shown,) = desk.see(engine(up)).containers
    assert (shown.health, shown.complaint) == ("unhealthy", "no")
    del desk.transport.said[WEB1]
    desk.live(10)
    (shown,) = desk.see(engine(up)).containers
    assert (shown.health, shown.complaint) == ("healthy", "")
    assert desk.hints == [WEB] * 3


def test_a_tcp_check_asks_for_a_connection(desk: Desk) -> None:
    desk.declare(service(healthcheck={"tcp": {"port": 5432}, "timeout": "2s"}))
    desk.look(desk.up())
    assert desk.step() == [Probe(WEB1, "172.18.0.2", 5432, None, 2.0)]


@pytest.mark.parametrize("check", [None, {"exec": ["/bin/true"]}])
def test_what_has_no_such_check_is_left_to_the_engine(check: dict[str, Any] | None) -> None:
    desk = Desk()
    desk.prober = Prober(desk.transport, desk.watch)
    desk.declare(service(healthcheck=check))
    assert desk.look(desk.up(health="healthy")) == ["healthy"]
    assert desk.step() == []


def test_each_revision_is_asked_by_its_own_check(desk: Desk) -> None:
    old, new = desk.up(1), desk.up(2, rev="c")
    desk.look(old, new)
    desk.step()
    desk.declare(service(rev="c", healthcheck={"tcp": {"port": 9}}))
    assert desk.look(old, new) == ["healthy", "starting"]
    desk.live(10)
    assert {probe.port for probe in desk.transport.asked if probe.container == WEB1} == {8080}
    assert {probe.port for probe in desk.transport.asked if probe.container == new.id} == {9}


def test_a_revision_that_nobody_declared_since_the_start_is_not_asked(desk: Desk) -> None:
    assert desk.look(desk.up(rev="a")) == [""]
    assert desk.step() == []


def test_a_restarted_container_begins_anew_with_its_start_period(desk: Desk) -> None:
    desk.look(desk.up())
    desk.step()
    desk.transport.said[WEB1] = ProbeOutcome.BAD
    desk.live(100)
    assert desk.look(desk.up(since=1_000_000.0)) == ["unhealthy"]
    again = desk.up()
    assert desk.look(again) == ["starting"]
    desk.live(29)
    assert desk.look(again) == ["starting"], "its start period lasts 30 s"
    desk.live(31)
    assert desk.look(again) == ["unhealthy"]


def test_a_look_that_is_older_than_what_is_known_changes_nothing(desk: Desk) -> None:
    before = desk.up(since=desk.watch.time - 100)
    desk.look(desk.up())
    desk.step()
    assert desk.look(before) == ["healthy"]
    # …nor does one that doesn't show it at all, for a moment.
    assert desk.look() == []
    assert desk.live(15) == 0, "who isn't there isn't asked"
    assert desk.look(desk.up(since=1_000_000.0)) == ["healthy"]
    assert len(desk.step()) == 1, "it is asked at once: it would have been meanwhile"


def test_who_is_gone_for_long_is_forgotten(desk: Desk) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    desk.look()
    desk.watch.time += prober.FORGET_S
    desk.look()
    assert desk.look(up) == ["starting"]


def test_a_look_at_one_service_says_nothing_of_others(desk: Desk) -> None:
    api = service_key("default", "api")
    check = {**HTTP, "interval": "10s"}
    desk.declare(service(healthcheck=check), service("api", rev="c", healthcheck=check))
    web, other = desk.up(), desk.up(name="api", rev="c")
    desk.look(web, other)
    assert len(desk.step()) == 2
    desk.look(other, only=api)
    desk.look(only=Key("Volume", "default", "data"))
    assert desk.look(web, only=WEB) == ["healthy"]
    assert desk.live(10) == 2
    desk.look(only=WEB)
    assert desk.live(10) == 1


@pytest.mark.parametrize("state", ["exited", "restarting", "created", "dead", "removing"])
def test_what_does_not_run_has_no_health_and_is_not_asked(desk: Desk, state: str) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    assert desk.look(replace(up, state=ContainerState(state))) == [""]
    assert desk.live(100) == 0


def test_what_is_frozen_keeps_its_word_and_is_asked_again_once_it_goes_on(desk: Desk) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    assert desk.look(replace(up, state=ContainerState.PAUSED)) == ["healthy"]
    assert desk.live(100) == 0
    assert desk.look(up) == ["healthy"]
    assert len(desk.step()) == 1


def test_probes_during_a_pause_that_no_look_showed_count_for_nothing(desk: Desk) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    desk.transport.said[up.id] = ProbeOutcome.BAD  # nobody saw the pause yet
    desk.live(100)
    assert desk.look(up) == ["unhealthy"]
    desk.look(replace(up, state=ContainerState.PAUSED))
    assert desk.look(up) == ["healthy"]


def test_an_answer_of_an_earlier_run_counts_for_nothing(desk: Desk) -> None:
    desk.transport.silent = True
    desk.look(desk.up())
    desk.step()
    desk.watch.time += 1
    again = desk.up()
    desk.look(again)
    assert desk.step() == [], "it is being asked already"
    desk.transport.silent = False
    desk.step()
    assert desk.look(again) == ["starting"]
    assert len(desk.step()) == 1
    assert desk.look(again) == ["healthy"]


def test_a_bad_answer_of_one_that_ended_meanwhile_counts_for_nothing(desk: Desk) -> None:
    desk.declare(service(healthcheck={**HTTP, "retries": 1, "startPeriod": "0s"}))
    up = desk.up()
    desk.transport.silent, desk.transport.said[WEB1] = True, ProbeOutcome.BAD
    desk.look(up)
    desk.step()
    desk.look()
    desk.transport.silent = False
    desk.step()
    assert (desk.look(up), desk.hints) == (["starting"], [])


def test_concurrent_probes_are_limited(desk: Desk) -> None:
    desk.declare(service(replicas=100, healthcheck=HTTP))
    desk.transport.silent = True
    everybody = [desk.up(slot) for slot in range(1, 101)]
    desk.look(*everybody)
    assert len(desk.step()) == prober.AT_ONCE
    assert desk.step() == []
    assert desk.transport.waits[-1] == 1.0, "it waits for answers, and doesn't spin"
    desk.transport.silent = False
    desk.step()
    assert len(desk.step()) == 100 - prober.AT_ONCE
    assert desk.look(*everybody) == ["healthy"] * 100


def test_a_step_waits_until_somebody_is_due_and_no_longer_than_it_may(desk: Desk) -> None:
    desk.step()
    desk.look(desk.up())
    desk.step()
    desk.watch.time += 9.5
    desk.step()
    assert desk.transport.waits == [1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("addresses", "address"),
    [
        ((("another", "172.20.0.9"), PRIMARY), "172.18.0.2"),
        ((("another", "172.20.0.9"),), "172.20.0.9"),
        ((), ""),
    ],
)
def test_it_is_asked_on_its_first_network_where_it_has_an_address(
    desk: Desk, addresses: tuple[tuple[str, str], ...], address: str
) -> None:
    desk.look(desk.up(addresses=addresses))
    assert [probe.address for probe in desk.step()] == [address]


def test_a_new_address_is_the_one_that_is_asked(desk: Desk) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    desk.look(replace(up, addresses=(("platform-network", "172.18.0.7"),)))
    desk.watch.time += 10
    assert [probe.address for probe in desk.step()] == ["172.18.0.7"]


def test_what_nobody_answered_at_an_old_address_says_nothing_of_who_has_a_new_one(
    desk: Desk,
) -> None:
    other, up = desk.up(2), desk.up()
    desk.look(up, other)
    desk.step()
    desk.transport.said = {up.id: ProbeOutcome.UNREACHED}
    desk.live(60)
    assert desk.look(up, other) == ["unhealthy", "healthy"]
    elsewhere = replace(up, addresses=(("platform-network", "172.18.0.7"),))
    assert desk.look(elsewhere, other) == ["healthy", "healthy"]
    desk.live(60)
    assert desk.look(elsewhere, other) == ["unhealthy", "healthy"], "it isn't there either"
    assert desk.look(replace(up, addresses=()), other) == ["unhealthy", "healthy"]


def codes(desk: Desk) -> list[str]:
    return [problem.code for problem in desk.prober.problems()]


def test_an_engine_whose_containers_cannot_be_reached_makes_nothing_unhealthy_and_is_told(
    desk: Desk,
) -> None:
    both = [desk.up(1), desk.up(2)]
    desk.transport.said = {each.id: ProbeOutcome.UNREACHED for each in both}
    desk.look(*both)
    desk.step()
    assert codes(desk) == []
    desk.live(200)
    assert desk.look(*both) == ["starting", "starting"]
    (problem,) = desk.prober.problems()
    assert (problem.code, problem.severity) == ("healthcheck.unreachable", "warning")
    assert problem.message.startswith("none of 2 containers ")
    assert "exec" in problem.remedy
    desk.look()
    assert codes(desk) == [], "there is nobody to reach"


def test_once_anybody_was_reached_nobody_there_is_as_bad_as_no_answer(desk: Desk) -> None:
    ill, well = desk.up(1), desk.up(2)
    desk.transport.said[ill.id] = ProbeOutcome.UNREACHED
    desk.look(ill, well)
    desk.live(100)
    assert desk.look(ill, well) == ["unhealthy", "healthy"]
    assert codes(desk) == []


def test_a_way_that_is_lost_makes_nothing_unhealthy_and_is_told_until_it_is_back(
    desk: Desk,
) -> None:
    both = [desk.up(1), desk.up(2)]
    desk.look(*both)
    desk.live(100)
    desk.transport.said = {each.id: ProbeOutcome.UNREACHED for each in both}
    desk.live(10)
    assert codes(desk) == [], "each was asked once: it may pass"
    desk.live(200)
    assert desk.look(*both) == ["healthy", "healthy"]
    (problem,) = desk.prober.problems()
    assert (problem.code, problem.severity) == ("healthcheck.unreachable", "warning")
    assert problem.message.startswith("none of 2 containers ")
    assert "routes" in problem.remedy
    del desk.transport.said[both[0].id]
    desk.live(10)
    assert codes(desk) == []
    desk.live(50)
    assert desk.look(*both) == ["healthy", "unhealthy"], "the other one is reached again"


def test_what_was_reached_before_the_way_was_lost_proves_nothing_of_who_is_asked_after(
    desk: Desk,
) -> None:
    api = {**HTTP, "interval": "10m"}
    eager = {**HTTP, "interval": "1s", "retries": 1}
    desk.declare(service(healthcheck=eager), service("api", rev="c", healthcheck=api))
    often, seldom = desk.up(), desk.up(name="api", rev="c")
    desk.look(often, seldom)
    desk.step()
    desk.transport.said[often.id] = ProbeOutcome.UNREACHED
    desk.live(590)
    assert desk.look(often, seldom) == ["healthy", "healthy"]
    assert codes(desk) == [], "one of them wasn't asked since"
    desk.live(15)
    assert desk.look(often, seldom) == ["unhealthy", "healthy"]


def test_one_that_is_alone_is_unhealthy_once_it_is_not_reached_any_more(desk: Desk) -> None:
    up = desk.up()
    desk.look(up)
    desk.step()
    desk.transport.said[up.id] = ProbeOutcome.UNREACHED
    desk.live(100)
    assert desk.look(up) == ["unhealthy"]
    assert codes(desk) == []


def house(folder: Path, *containers: Container, services: Iterable[Any]) -> House:
    home = House(folder)
    home.engine.world = engine(*containers)
    home.files.desired = declared(*services)
    return home


def test_the_controller_sees_the_health_in_plans_and_in_the_status(tmp_path: Path) -> None:
    up = container(addresses=(PRIMARY,), started_at=at(1_000_000.0 - 100))
    wanted = service(healthcheck={**HTTP, "interval": "1s"})
    home = house(tmp_path, up, services=[wanted])
    home.settle()
    assert home.condition("web", "Degraded") == ("False", "AsDeclared")
    home.probes.said[WEB1] = ProbeOutcome.BAD
    assert home.let_pass(3.5) == []
    assert home.condition("web", "Degraded") == ("True", "Unhealthy")
    assert home.message("web", "Degraded") == "web.1-bbbbbbbb is unhealthy: no"
    assert home.controller.plan_everything().observed.containers[0].health == "unhealthy"


DOCUMENT = """
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec: {image: 'ghcr.io/platformnetwork/web:1', healthcheck: {tcp: {port: %d}}}
"""


def test_an_earlier_revision_is_asked_by_its_own_check_also_after_a_restart(tmp_path: Path) -> None:
    home = House(tmp_path)
    home.files.desired = replace(desired_of({"web.yaml": DOCUMENT % 1}), identity=worlds.HERE)
    home.let_pass(5)
    home.judge = worlds.deny("create-container")
    home.files.desired = replace(desired_of({"web.yaml": DOCUMENT % 2}), identity=worlds.HERE)
    home.restart()
    home.probes.asked.clear()
    home.let_pass(60)
    assert {probe.port for probe in home.probes.asked} == {1}
    assert [c.health for c in home.controller.plan_everything().observed.containers] == ["healthy"]


def test_services_that_were_healthy_run_on_while_the_way_to_all_of_them_is_lost(
    tmp_path: Path,
) -> None:
    check = {**HTTP, "interval": "5s", "timeout": "1s", "startPeriod": "5s"}
    names = ("a", "b", "c", "d")
    home = house(tmp_path, services=[service(n, rev=n, healthcheck=check) for n in names])
    home.let_pass(300)
    home.engine.done.clear()
    home.probes.said = {c.id: ProbeOutcome.UNREACHED for c in home.engine.world.containers}
    assert home.let_pass(600) == []
    assert home.problems() == ["healthcheck.unreachable"]


def test_that_nobody_is_reached_is_among_the_problems(tmp_path: Path) -> None:
    up = container(addresses=(PRIMARY,), started_at=at(1_000_000.0))
    home = house(tmp_path, up, services=[service(healthcheck=HTTP)])
    home.probes.said[WEB1] = ProbeOutcome.UNREACHED
    home.let_pass(60)
    assert home.problems() == ["healthcheck.unreachable"]
    assert home.engine.done == []
