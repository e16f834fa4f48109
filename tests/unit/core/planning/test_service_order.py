"""What one service wants for itself and another one's container has still."""

from dataclasses import replace
from typing import Any

import pytest

from controller.model.desired.desired import Service
from controller.model.desired.plan import NeedsOperator, Plan, Wait
from controller.model.names import ForeignContainer
from controller.model.observed import Container, ContainerState, HostPort
from tests.worlds import INGRESS, ISOLATED, container, declared, engine, plan, service

DATA: dict[str, Any] = {"mounts": [{"type": "volume", "source": "data", "target": "/data"}]}
PORT: dict[str, Any] = {"ports": [{"container": 80, "host": 8081}]}
BOUND = HostPort("127.0.0.1", 8081)
NEW = service("new", **DATA)


def had(name: str = "old", state: str = "running", **fields: Any) -> Container:
    return container(name, rev="a", state=state, **{"writes": ("data",), **fields})


def told(made: Plan, name: str = "new") -> list[tuple[str, str]]:
    return [(a.verb, a.cause) for a in made.actions if a.object.name == name]


def made(*services: Service, there: tuple[Container, ...], prunable: bool = True) -> Plan:
    observed = engine(*there, networks=(ISOLATED, INGRESS))
    may: dict[str, Any] = {} if prunable else {"prunable": frozenset()}
    return plan(declared(*services), observed, **may)


@pytest.mark.parametrize("state", ["running", "paused", "restarting"])
@pytest.mark.parametrize(
    ("wanted", "old", "what"),
    [
        (NEW, {}, "volume data"),
        (service("new", **PORT), {"writes": (), "ports": (BOUND,)}, "host port 8081"),
    ],
)
def test_nothing_starts_while_another_service_has_what_only_one_can_have(
    state: str, wanted: Service, old: dict[str, Any], what: str
) -> None:
    there = had(state=state, **old)
    waits = [("wait", f"waiting while {there.name} has {what}")]
    assert told(made(wanted, there=(there,), prunable=False)) == waits
    down = replace(there, state=ContainerState.EXITED)
    assert told(made(wanted, there=(down,), prunable=False))[-1][0] == "start-container"


def test_it_waits_for_whoever_has_it_and_is_woken_by_that() -> None:
    waits = [a for a in made(NEW, there=(had(),), prunable=False).actions if isinstance(a, Wait)]
    assert [key.name for wait in waits for key in wait.on] == ["old"]


def test_who_waits_for_one_another_is_told_that_a_person_must_act() -> None:
    swapped = service("old", mounts=[{"type": "volume", "source": "more", "target": "/data"}])
    there = (had(), had("new", writes=("more",)))
    waits = [a for a in made(NEW, swapped, there=there).actions if isinstance(a, Wait)]
    assert [type(wait) for wait in waits] == [NeedsOperator, NeedsOperator]
    assert {wait.object.name for wait in waits} == {"old", "new"}
    assert all(wait.cause.endswith("which waits for it in turn") for wait in waits)


def test_what_goes_with_the_same_plan_goes_first() -> None:
    verbs = [(a.verb, a.object.name) for a in made(NEW, there=(had(),)).actions]
    assert verbs.index(("stop-container", "old")) < verbs.index(("start-container", "new"))
    assert not any(verb == "wait" for verb, _ in verbs[: verbs.index(("start-container", "new"))])


def test_what_is_shared_or_somebody_elses_or_only_read_keeps_nobody_waiting() -> None:
    shared: dict[str, Any] = {"mounts": [DATA["mounts"][0] | {"shared": True}]}
    read: dict[str, Any] = {"mounts": [DATA["mounts"][0] | {"readOnly": True}]}
    for free in (service("new", **shared), service("new", **read)):
        assert told(made(free, there=(had(),), prunable=False))[-1][0] == "start-container"
    elsewhere = service("new", namespace="shop", **DATA)
    for there in (
        had(writes=()),
        had(origin="client"),
        had(writes=(), ports=(HostPort("10.0.0.1", 8081), HostPort("127.0.0.1", 8081, "udp"))),
    ):
        wanted = service("new", **DATA, **PORT)
        assert told(made(wanted, there=(there,), prunable=False))[-1][0] == "start-container"
    assert ("wait", "waiting while") not in {
        (verb, cause[:13]) for verb, cause in told(made(elsewhere, there=(had(),)))
    }


def test_what_serves_is_not_stopped_for_a_successor_that_has_to_wait() -> None:
    mine = container("new", rev="a")
    assert [verb for verb, _ in told(made(NEW, there=(had(), mine), prunable=False))] == ["wait"]


def test_what_runs_is_left_alone_whoever_has_it_too() -> None:
    mine = container("new", writes=("data",))
    assert told(made(NEW, there=(had(), mine), prunable=False)) == []


def test_what_served_before_stays_down_where_another_service_has_its_volume_by_now() -> None:
    moved = service("new", mounts=[{"type": "volume", "source": "more", "target": "/data"}])
    before = container("new", rev="a", state="exited", writes=("data",))
    held = {(moved.key, 1): "failed once, next try at noon"}
    now = replace(had("other"), revision=service("other").revision)
    observed = engine(before, now, networks=(ISOLATED, INGRESS))
    alone = plan(declared(moved), observed, backoff=held, prunable=frozenset())
    assert "start-container" in {verb for verb, _ in told(alone)}
    taken = plan(declared(moved, service("other", **DATA)), observed, backoff=held)
    assert told(taken) == [("wait", "failed once, next try at noon")]


def unknown(service: str, *, slot: str = "1", writes: tuple[str, ...] = ()) -> ForeignContainer:
    """Return a container with our labels that runs outside the inventory."""
    return ForeignContainer("f0" * 32, "stray", "default", service, slot, writes)


def beside(
    *stray: ForeignContainer, wanted: Service = NEW, there: tuple[Container, ...] = ()
) -> Plan:
    observed = replace(engine(*there, networks=(ISOLATED, INGRESS)), foreign=stray)
    return plan(declared(wanted), observed)


@pytest.mark.parametrize(
    ("stray", "what"),
    [
        (unknown("new"), "its slot"),  # whatever its revision is
        (unknown("new", slot="3"), "its slot"),
        (unknown("old", writes=("data",)), "volume data"),
    ],
)
def test_nothing_starts_next_to_a_container_with_our_label_outside_the_inventory(
    stray: ForeignContainer, what: str
) -> None:
    cause = f"stray has {what}, and isn't in this instance's inventory"
    remedy = "(take it over with 'trimtab adopt', or end it: docker stop stray && docker rm stray)"
    waits = [a for a in beside(stray).actions if a.object.name == "new"]
    assert [(a.verb, a.cause) for a in waits] == [("wait", f"{cause} {remedy}")]
    assert [a.code for a in waits if isinstance(a, NeedsOperator)] == ["container.foreign"]


def test_what_an_unknown_container_has_not_is_free() -> None:
    shared = service("new", mounts=[DATA["mounts"][0] | {"shared": True}])
    for wanted, stray in (
        (NEW, unknown("old")),
        (NEW, unknown("new", slot="run-1")),  # of a job of that name
        (shared, unknown("old", writes=("data",))),
    ):
        assert told(beside(stray, wanted=wanted))[-1][0] == "start-container"


def test_next_to_an_unknown_container_what_runs_goes_on_and_nothing_older_is_started() -> None:
    mine = container("new", writes=("data",))
    assert told(beside(unknown("new"), there=(mine,))) == []
    before = container("new", rev="a", state="exited", writes=("data",))
    assert {verb for verb, _ in told(beside(unknown("new"), there=(before,)))} == {"wait"}
