"""What holds of every plan, in any world that hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.drift.classify import ALIVE, alterations, is_finished
from controller.core.planning.context import order_of
from controller.core.review.flat_plan import to_json
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import CreateContainer, RemoveContainer, StopContainer, Wait
from controller.model.desired.spec.service import Order, RunState
from controller.model.names import Key, service_key
from controller.model.observed import Container, ContainerState, Image, Observed
from tests.examples import examples
from tests.plans import flat_text
from tests.worlds import (
    BRIDGE,
    IMAGE,
    IMAGE_ID,
    INGRESS,
    ISOLATED,
    Step,
    container,
    declared,
    deny,
    engine,
    network,
    perform,
    plan,
    service,
    settle,
    volume,
)

pytestmark = pytest.mark.slow

many = settings(max_examples=examples(25))

STATES = [state.value for state in ContainerState]
SETTINGS: list[dict[str, object]] = [
    {},
    {},
    {},
    {"memory": 64 << 20},
    {"cpu_shares": 7},
    {"networks": ("bridge",)},
    {"networks": ()},
    {"restart": "no"},
    {"name": "renamed"},
]
ADMITTED: list[dict[str, object]] = [
    {},
    {},
    {"restart": "no"},
    {"restart": "on-failure", "restart_max": 10},
]


@st.composite
def services(draw: st.DrawFn, name: str) -> Service:
    spec: dict[str, Any] = {
        "replicas": draw(st.integers(0, 3)),
        "state": draw(st.sampled_from(["Running", "Running", "Running", "Stopped"])),
        "restart": {"policy": draw(st.sampled_from(["Always", "OnFailure", "Never"]))},
        "pullPolicy": draw(st.sampled_from(["IfNotPresent", "Always"])),
    }
    if draw(st.booleans()):
        spec["network"] = {"mode": draw(st.sampled_from(["isolated", "bridge", "none"]))}
    if draw(st.integers(0, 3)) == 0:
        spec["mounts"] = [{"type": "volume", "source": "data", "target": "/d"}]
    if draw(st.integers(0, 3)) == 0:
        spec["rollout"] = {"order": draw(st.sampled_from(["StartFirst", "StopFirst"]))}
    elif draw(st.integers(0, 3)) == 0:
        spec |= {"replicas": 1, "ports": [{"container": 80, "host": 8080}]}
    return service(name, draw(st.sampled_from("ab")), **spec)


@st.composite
def containers(draw: st.DrawFn, *, origin: str = "controller") -> Container:
    state = draw(st.sampled_from(STATES))
    changed = dict(draw(st.sampled_from(SETTINGS)))
    slot, rev = draw(st.integers(1, 4)), draw(st.sampled_from("abc"))
    name, attempt = draw(st.sampled_from(["web", "api", "old"])), draw(st.integers(1, 3))
    if "name" in changed:
        changed["name"] = f"renamed-{name}-{slot}-{rev}-{attempt}"
    return container(
        name,
        slot,
        rev,
        state,
        attempt=attempt,
        origin=origin,
        settings=changed,
        admitted=draw(st.sampled_from(ADMITTED)),
        known=draw(st.integers(0, 5)) > 0,
        exit_code=draw(st.sampled_from([0, 1])) if state == "exited" else 0,
        started_at=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z" if state != "created" else "",
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Desired, Observed]:
    names = draw(st.sets(st.sampled_from(["web", "api", "new"])))
    wanted = [draw(services(name)) for name in sorted(names)]
    extra = [volume("data")] if draw(st.booleans()) else []
    back = [network("back")] if draw(st.booleans()) else []
    there = draw(
        st.lists(containers(), max_size=7, unique_by=lambda c: c.admitted and c.admitted.name)
    )
    unique = {c.id: c for c in there}
    # A pin is the image that a revision was first admitted with; one container's is enough.
    pins = {c.revision: Image(IMAGE_ID) for c in unique.values() if draw(st.booleans())}
    networks = tuple(n for n in (ISOLATED, INGRESS, BRIDGE) if draw(st.booleans()))
    images = {IMAGE: Image(IMAGE_ID) if draw(st.booleans()) else None}
    observed = engine(*unique.values(), networks=networks, images=images, pins=pins)
    return declared(*wanted, *extra, *back), observed


def stops(steps: list[Step]) -> list[tuple[Step, Container]]:
    """The steps that end a process, with the container."""
    return [
        (step, next(c for c in step.before.containers if c.id == step.action.precondition.id))
        for step in steps
        if isinstance(step.action, StopContainer)
    ]


def wanted_in(observed: Observed, wanted: Service, slot: int) -> list[Container]:
    """The containers of a slot that are of the wanted revision and as admitted."""
    return [
        c
        for c in observed.of(wanted.key)
        if c.slot == slot and c.revision == wanted.revision and not alterations(c)
    ]


@many
@given(worlds())
def test_performing_a_plan_leads_to_where_nothing_is_left_to_do(world):
    desired, observed = world
    for _ in range(3):
        made = plan(desired, observed)
        assert not made.problems
        observed = settle(perform(made, observed)[0])
        if not any(isinstance(action, Wait) for action in made.actions):
            break
    assert flat_text(plan(desired, observed)) == "nothing to do\n"
    for wanted in desired.services:
        there = observed.of(wanted.key)
        if wanted.spec.state is RunState.STOPPED:
            assert not any(c.state in ALIVE for c in there)
            continue
        assert sorted(c.slot for c in there) == list(range(1, wanted.spec.replicas + 1))
        for c in there:
            assert c.revision == wanted.revision
            assert is_finished(c, wanted) or (c.running and not alterations(c))
    left = {c.key for c in observed.containers}
    assert left <= {wanted.key for wanted in desired.services}


@many
@given(worlds())
def test_the_same_inputs_in_any_order_give_the_same_bytes(world):
    desired, observed = world
    turned = replace(desired, services=desired.services[::-1], networks=desired.networks[::-1])
    swapped = replace(
        observed,
        containers=observed.containers[::-1],
        networks=observed.networks[::-1],
        images=dict(reversed(observed.images.items())),
        pins=dict(reversed(observed.pins.items())),
    )
    one, other = plan(desired, observed), plan(turned, swapped)
    assert (flat_text(one), to_json(one), one.digest) == (
        flat_text(other),
        to_json(other),
        other.digest,
    )


@many
@given(worlds())
def test_no_container_of_an_undeclared_service_is_touched_while_blind(world):
    desired, observed = world
    names = {wanted.key for wanted in desired.services}
    made = plan(replace(desired, blind=True), observed)
    assert {a.object for a in made.actions if a.object.kind == "Service"} <= names
    assert not any(action.verb == "remove-network" for action in made.actions)


@many
@given(worlds(), st.sets(st.sampled_from(["web", "api", "old"])))
def test_nothing_happens_to_a_key_that_cannot_be_read(world, unread):
    desired, observed = world
    blind: frozenset[Key] = frozenset(service_key("default", name) for name in unread)
    made = plan(replace(desired, blind_keys=blind), observed)
    assert not blind & {action.object for action in made.actions}


@many
@given(worlds())
def test_nothing_is_taken_down_that_the_prune_guard_did_not_pass(world):
    desired, observed = world
    made = plan(desired, observed, prunable=frozenset())
    _, steps = perform(made, observed)
    up = {w.key: w for w in desired.services if w.spec.state is RunState.RUNNING}
    for step in steps:
        if isinstance(step.action, StopContainer | RemoveContainer):
            wanted = desired.service(step.action.object)
            assert wanted is not None
            assert wanted.spec.replicas > 0
            if isinstance(step.action, StopContainer) and wanted.key not in up:
                assert step.action.slot > wanted.spec.replicas


@many
@given(worlds())
def test_a_running_container_is_stopped_only_after_its_successor_exists(world):
    desired, observed = world
    _, steps = perform(plan(desired, observed), observed)
    for step, stopped in stops(steps):
        wanted = desired.service(stopped.key)
        if wanted is None or wanted.spec.state is RunState.STOPPED:
            continue
        if stopped.slot > wanted.spec.replicas:
            continue
        others = [c for c in wanted_in(step.before, wanted, stopped.slot) if c.id != stopped.id]
        ready = [c for c in others if c.running or is_finished(c, wanted)]
        startable = [
            c for c in others if c.state in (ContainerState.CREATED, ContainerState.EXITED)
        ]
        assert ready or (order_of(wanted) is Order.STOP_FIRST and startable)


@many
@given(worlds())
def test_a_service_never_has_two_slots_down_for_a_rollout(world):
    desired, observed = world
    _, steps = perform(plan(desired, observed), observed)

    def down(seen: Observed, wanted: Service) -> set[int]:
        up = {c.slot for c in seen.of(wanted.key) if c.state in ALIVE or is_finished(c, wanted)}
        return set(range(1, wanted.spec.replicas + 1)) - up

    for wanted in desired.services:
        if wanted.spec.state is RunState.STOPPED:
            continue
        before = down(observed, wanted)
        for step in steps:
            assert len(down(step.after, wanted) - before) <= 1


@many
@given(worlds())
def test_a_slot_gets_at_most_one_successor_and_only_if_nothing_fits_it(world):
    desired, observed = world
    _, steps = perform(plan(desired, observed), observed)
    created: list[tuple[Key, int]] = []
    for step in steps:
        action = step.action
        if isinstance(action, CreateContainer):
            created.append((action.object, action.slot))
            there = wanted_in(observed, action.service, action.slot)
            assert all(c.state is ContainerState.REMOVING for c in there)
    assert len(created) == len(set(created))


@many
@given(worlds(), st.sampled_from(["create-container", "start-container"]))
def test_no_running_container_is_stopped_for_a_denied_successor(world, verb):
    desired, observed = world
    _, steps = perform(plan(desired, observed, judge=deny(verb)), observed)
    for _, stopped in stops(steps):
        wanted = desired.service(stopped.key)
        if wanted is None or wanted.spec.state is RunState.STOPPED:
            continue
        if stopped.slot <= wanted.spec.replicas:
            there = wanted_in(observed, wanted, stopped.slot)
            assert any(c.running or is_finished(c, wanted) for c in there if c.id != stopped.id)
    assert not any(step.action.verb == verb for step in steps)


@many
@given(worlds(), st.sets(st.tuples(st.sampled_from(["web", "api", "new"]), st.integers(1, 3))))
def test_nothing_is_created_started_or_stopped_in_a_slot_that_is_held(world, slots):
    desired, observed = world
    held = {(service_key("default", name), slot): "later" for name, slot in slots}
    _, steps = perform(plan(desired, observed, backoff=held), observed)
    for step in steps:
        action = step.action
        wanted = desired.service(action.object)
        if (action.object, action.slot) not in held or wanted is None:
            continue
        if action.slot > wanted.spec.replicas or wanted.spec.state is RunState.STOPPED:
            continue
        assert action.verb not in ("create-container", "start-container")
        if isinstance(action, StopContainer):
            there = wanted_in(observed, wanted, action.slot)
            assert any(c.running or is_finished(c, wanted) for c in there)


@many
@given(worlds(), st.lists(containers(origin="client"), max_size=4, unique_by=lambda c: c.id))
def test_what_a_client_made_is_never_touched(world, clients):
    desired, observed = world
    mine = {c.id for c in observed.containers}
    theirs = tuple(replace(c, id=f"client:{c.id}") for c in clients)
    both = replace(observed, containers=(*observed.containers, *theirs))
    touched = {a.precondition.id for a in plan(desired, both).actions}
    assert touched - {""} <= mine | {n.id for n in observed.networks}


@many
@given(worlds())
def test_each_key_alone_does_what_the_whole_plan_does_for_it(world):
    desired, observed = world
    full = replace(
        observed,
        networks=(ISOLATED, INGRESS, BRIDGE),
        images={IMAGE: Image(IMAGE_ID)},
    )
    bare = replace(desired, networks=(), volumes=())
    unmounted = replace(
        bare,
        services=tuple(s for s in bare.services if not s.spec.mounts),
    )
    whole = plan(unmounted, full)
    for wanted in unmounted.services:
        alone = plan(unmounted, full, only=wanted.key)
        assert alone.actions == whole.of(wanted.key)
