"""Which keys a change of the desired state touches: never fewer than a plan of everything wakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.planning.service_order import KnownServices
from controller.core.service.desired_view import DesiredView, Touched, touched
from controller.model.desired.desired import Desired, OverrideReason, Service, SourceLocation
from controller.model.desired.plan import AnyAction, Blocked, CreateNetwork, CreateVolume, Plan
from controller.model.names import Key, service_key
from controller.model.observed import Container, HostPort, Observed, ObservedNetwork
from tests import worlds
from tests.examples import examples
from tests.worlds import NAMES, container, declared, deny, engine, network, service, volume

many = settings(max_examples=examples(40))

SERVICES = ("api", "cache", "db", "web")
BACK = ObservedNetwork(
    "n9", "back", ours=True, origin="controller", namespace="default", internal=True
)


@st.composite
def services(draw: st.DrawFn, name: str) -> Service:
    spec: dict[str, Any] = {
        "replicas": draw(st.sampled_from([0, 1, 1, 1, 2])),
        "state": draw(st.sampled_from(["Running", "Running", "Running", "Stopped"])),
        "network": {
            "mode": draw(st.sampled_from(["isolated", "isolated", "bridge", "none"])),
            "attach": draw(st.sampled_from([[], [], ["back"]])),
        },
        "dependsOn": [
            {"name": other}
            for other in SERVICES[: SERVICES.index(name)]
            if draw(st.integers(0, 2)) == 0
        ],
    }
    if draw(st.integers(0, 2)) == 0:
        spec["mounts"] = [{"type": "volume", "source": "data", "target": "/d"}]
    if draw(st.integers(0, 2)) == 0:
        spec["rollout"] = {"order": "StopFirst"}
        spec["replicas"] = min(1, spec["replicas"])
        spec["ports"] = [{"container": 80, "host": draw(st.sampled_from([8080, 8081]))}]
    return service(name, draw(st.sampled_from("ab")), **spec)


@st.composite
def containers(draw: st.DrawFn, name: str) -> Container:
    port = draw(st.sampled_from([None, None, 8080, 8081]))
    return container(
        name,
        draw(st.integers(1, 2)),
        draw(st.sampled_from("ab")),
        draw(st.sampled_from(["running", "running", "exited"])),
        ports=() if port is None else (HostPort("0.0.0.0", port, "tcp"),),
        writes=draw(st.sampled_from([(), (), ("data",)])),
        settings=draw(st.sampled_from([{}, {}, {"networks": ("platform-network", "back")}])),
    )


@st.composite
def views(draw: st.DrawFn, observed: Observed, like: DesiredView | None = None) -> DesiredView:
    """A view; with *like*, most resources are those of another view."""
    resources: list[Any] = []
    old = {} if like is None else {each.key.name: each for each in like.desired.services}
    for name in SERVICES:
        if like is not None and draw(st.integers(0, 3)) > 0:
            resources += [old[name]] if name in old else []
        elif draw(st.booleans()):
            resources.append(draw(services(name)))
    resources += [network("back", internal=draw(st.booleans()))] if draw(st.booleans()) else []
    resources += [volume("data")] if draw(st.integers(0, 3)) == 0 else []
    rare = st.integers(0, 7).map(lambda n: n == 0)
    keys = [service_key("default", name) for name in SERVICES]
    desired = declared(
        *resources,
        blind=draw(rare),
        blind_keys=[draw(st.sampled_from(keys))] if draw(rare) else [],
    )
    if draw(rare):
        hold = OverrideReason(draw(st.sampled_from(keys)), "suspended", "c", "r", "r")
        desired = replace(desired, holds=(hold,))
    prunable, blocked = worlds.every_key(desired, observed), list[Blocked]()
    for key in sorted(prunable):
        if draw(rare):
            prunable -= {key}
            blocked.append(Blocked(key, "prune.pending", "why", "what to do"))
    return DesiredView(desired, prunable, tuple(blocked))


@st.composite
def changes(
    draw: st.DrawFn,
) -> tuple[DesiredView, DesiredView, Observed, dict[Key, frozenset[Key]]]:
    there = [
        each
        for name in SERVICES
        for each in draw(st.lists(containers(name), max_size=2, unique_by=lambda c: c.id))
    ]
    observed = engine(
        *there,
        networks=tuple(n for n in (worlds.ISOLATED, worlds.BRIDGE, BACK) if draw(st.booleans())),
    )
    before = draw(views(observed))
    after = draw(views(observed, before))
    remembered = {
        service_key("default", name): frozenset(
            service_key("default", other)
            for other in SERVICES[: SERVICES.index(name)]
            if draw(st.booleans())
        )
        for name in SERVICES
    }
    return before, after, observed, remembered


def touch(
    before: DesiredView,
    after: DesiredView,
    observed: Observed,
    remembered: dict[Key, frozenset[Key]] | None = None,
) -> Touched:
    return touched(before, after, observed, names=NAMES, remembered=remembered or {})


def without_creations(actions: tuple[AnyAction, ...]) -> list[AnyAction]:
    """The actions without those that any of several services can have in its plan."""
    return [each for each in actions if not isinstance(each, CreateNetwork | CreateVolume)]


@many
@given(changes(), st.sampled_from(["", "api.1-aaaaaaaa", "db.1-bbbbbbbb"]))
def test_a_key_that_is_not_touched_has_the_actions_that_it_had(change, denied):
    before, after, observed, remembered = change
    known = KnownServices(remembered=remembered)
    judge = deny("create-container", target=denied) if denied else worlds.allow

    def plan(view: DesiredView, only: frozenset[Key] | None = None) -> Plan:
        return worlds.plan(
            view.desired,
            observed,
            judge=judge,
            prunable=view.prunable,
            blocked=view.blocked,
            only=only,
            known_services=known,
        )

    found = touch(before, after, observed, remembered)
    old, new = plan(before), plan(after)
    some = plan(after, found.changed | found.neighbors)
    acting = {action.object for action in new.actions}
    for key in acting - found.changed - found.neighbors:
        assert without_creations(old.of(key)) == without_creations(new.of(key))
    assert acting & found.changed <= after.able(found.changed)
    for key in acting & found.neighbors:
        assert without_creations(some.of(key)) == without_creations(new.of(key))


def view(*resources: Any, **members: Any) -> DesiredView:
    return DesiredView(declared(*resources), **members)


def keys(*names: str) -> frozenset[Key]:
    return frozenset(service_key("default", name) for name in names)


def test_a_changed_service_alone_is_touched() -> None:
    others = [service(f"s{n}") for n in range(9)]
    before, after = view(*others, service("web", "a")), view(*others, service("web", "b"))
    assert touch(before, after, engine()) == Touched(changed=keys("web"))


def test_a_service_that_moved_within_its_file_is_not_changed() -> None:
    web = service("web")
    moved = replace(web, source=SourceLocation("web.yaml", 7, commit="abc"))
    assert touch(view(web), view(moved), engine()) == Touched(moved=keys("web"))


def test_the_dependents_of_a_changed_service_are_neighbors() -> None:
    api = service("api", dependsOn=[{"name": "db"}])
    before, after = view(api, service("db", "a")), view(api, service("db", "b"))
    assert touch(before, after, engine()) == Touched(keys("db"), neighbors=keys("api"))


def test_a_broken_file_touches_everything() -> None:
    web = service("web")
    before, after = DesiredView(declared(web)), DesiredView(declared(web, blind=True))
    assert touch(before, after, engine(container("api"))).neighbors >= keys("web")


def test_a_service_gets_a_pass_once_no_unread_document_may_declare_its_earlier_name() -> None:
    web = replace(service("web"), moved=(service_key("default", "api"),))
    before = DesiredView(declared(web, blind_keys=keys("api", "other")))
    after = DesiredView(declared(web, blind_keys=keys("other")))
    assert keys("web") <= touch(before, after, engine(container("api"))).changed


def test_a_suspended_or_blind_service_gets_no_pass() -> None:
    desired: Desired = declared(service("web"), service("api"), blind_keys=keys("api"))
    hold = OverrideReason(service_key("default", "web"), "suspended", "c", "r", "r")
    assert not DesiredView(replace(desired, holds=(hold,))).able(keys("web", "api", "gone"))
