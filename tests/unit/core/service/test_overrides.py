"""What passes work for where people want something else than the files say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.drift.classify import short_revision
from controller.core.manifests.check_together import desired_of
from controller.core.manifests.revision_hash import spec_digest
from controller.core.review.flat_plan import to_json
from controller.core.service.history import record_document, without_ended
from controller.core.service.overrides import (
    apply_overrides,
    persistent_keys,
    pin_conflict,
    shared_resource,
    slots_of,
)
from controller.core.service.prune_guard import PruneMemory, guard
from controller.model.desired.desired import (
    NO_OVERRIDES,
    Desired,
    Overrides,
    Pin,
    Restarting,
    Scaling,
    Service,
    Suspension,
)
from controller.model.desired.spec.container import Shares
from controller.model.desired.spec.service import Order
from controller.model.names import Key, service_key
from tests.plans import flat_text
from tests.worlds import HERE, WEB, container, declared, engine, plan, service

SINCE = "2026-01-01T00:00:00Z"
SUSPENDED = Overrides(suspension=Suspension("uid:0", SINCE))
RENAMED = replace(service("site"), moved=(WEB,))
API = service_key("default", "api")


def written(*specs: str, name: str = "web") -> Service:
    """The service that a document with these lines declares."""
    lines = "\n".join(f"  {line}" for line in ("image: ghcr.io/team/web:1", *specs))
    text = (
        f"apiVersion: trimtab/v1\nkind: Service\nmetadata: {{name: {name}, owner: team}}\n"
        f"spec:\n{lines}\n"
    )
    desired = desired_of({f"{name}.yaml": text})
    assert desired.valid, desired.problems
    return desired.services[0]


def course(*services: Service, pinned: Service | None = None) -> Overrides:
    """The steering of a service that was declared as these, one after the other."""
    steering = NO_OVERRIDES
    for generation, each in enumerate(services, 1):
        steering = record_document(
            steering, each, generation=generation, since=SINCE, containers=()
        )
    if pinned is None:
        return steering
    last = services[-1]
    return replace(
        steering, pin=Pin(pinned.revision, len(services), spec_digest(last), "uid:0", SINCE)
    )


def steered(desired: Desired, **steerings: Overrides) -> Desired:
    return apply_overrides(
        desired, {service_key("default", name): s for name, s in steerings.items()}
    )


def told(desired: Desired) -> list[tuple[Key, str, str, str, str]]:
    return [(h.key, h.word, h.code, h.reason, h.remedy) for h in desired.holds]


BLUE, GREEN = written("env: {C: blue}"), written("env: {C: green}", "replicas: 3")


def test_what_nobody_wants_otherwise_is_as_declared() -> None:
    desired = declared(service())
    assert steered(desired, web=course(service()), gone=course(service("gone"))) is desired


def test_a_suspended_service_is_left_out_of_plans_and_told() -> None:
    desired = steered(declared(service(replicas=2), service("api")), web=SUSPENDED)
    made = plan(desired, engine(container(rev="a"), container("api")))
    assert flat_text(made) == (
        "nothing to do\n"
        "suspended Service/default/web   suspended by uid:0 since 2026-01-01T00:00:00Z\n"
        "    remedy: trimtab resume web\n"
    )
    assert to_json(made)["held"] == [
        {
            "object": "Service/default/web",
            "word": "suspended",
            "reason": "suspended by uid:0 since 2026-01-01T00:00:00Z",
            "remedy": "trimtab resume web",
        }
    ]
    assert plan(desired, engine(container("api")), only=API).holds == ()


def test_a_suspended_service_outlives_its_document() -> None:
    desired = steered(declared(service("api")), web=SUSPENDED)
    observed = engine(container(), container("api"))
    assert plan(desired, observed).actions == ()
    guarded = guard(desired, observed, PruneMemory(), now=1000.0, approved=True)
    assert (guarded.prunable, guarded.blocked) == (frozenset(), ())


@pytest.mark.parametrize("spec", [{"replicas": 0}, {"state": "Stopped"}, {}])
def test_a_suspended_service_neither_stops_nor_scales(spec: dict[str, Any]) -> None:
    desired = steered(declared(service(**spec)), web=SUSPENDED)
    observed = engine(container(state="paused"), container(slot=2))
    guarded = guard(desired, observed, PruneMemory(), now=1000.0, approved=True)
    assert plan(desired, observed, prunable=guarded.prunable).actions == ()


def test_a_document_may_suspend_and_says_where() -> None:
    desired = steered(declared(written("suspend: true")))
    reason, remedy = "spec.suspend is true in web.yaml:1", "set spec.suspend: false"
    assert told(desired) == [(WEB, "suspended", "Declared", reason, remedy)]
    both = steered(declared(written("suspend: true")), web=SUSPENDED)
    assert told(both) == [
        (
            WEB,
            "suspended",
            "ByCommand",
            f"suspended by uid:0 since {SINCE}; {reason}",
            f"trimtab resume web, and {remedy}",
        )
    ]


def test_a_document_that_suspends_is_of_the_same_revision() -> None:
    assert written("suspend: true").revision == written().revision


def test_a_pinned_service_has_the_slots_of_then_and_all_else_of_now() -> None:
    now = written("env: {C: green}", "replicas: 3", "pullPolicy: Always", "state: Stopped")
    labelled = replace(now, labels=(("tier", "web"),))
    desired = steered(declared(labelled), web=course(BLUE, labelled, pinned=BLUE))
    (found,) = desired.services
    assert found.revision == BLUE.revision
    assert found.spec.env == {"C": "blue"}
    assert (found.spec.replicas, found.spec.pull_policy, found.spec.state) == (
        3,
        "Always",
        "Stopped",
    )
    assert found.labels == labelled.labels
    then, today = short_revision(BLUE.revision), short_revision(now.revision)
    assert told(desired) == [
        (
            WEB,
            "pinned",
            "ByCommand",
            f"pinned to {then} by uid:0 since {SINCE}; its document says {today}",
            "change its document, or trimtab resume web",
        )
    ]
    assert desired.digest != declared(labelled).digest


def test_a_pin_ends_when_its_document_asks_for_something_else() -> None:
    pinned = course(BLUE, GREEN, pinned=BLUE)
    for other in (written("env: {C: red}"), written("env: {C: green}", "replicas: 2")):
        assert steered(declared(other), web=pinned) == declared(other)
        assert (
            record_document(pinned, other, generation=3, since=SINCE, containers=None).pin is None
        )
    assert record_document(pinned, GREEN, generation=2, since=SINCE, containers=None) == pinned


def test_an_automatic_pin_ends_when_its_document_has_another_revision() -> None:
    pinned = course(BLUE, GREEN, pinned=BLUE)
    assert pinned.pin is not None
    asked = replace(pinned.pin, asked=GREEN.revision, automatic=True, asked_limits=GREEN.limits)
    automatic = replace(pinned, pin=asked)
    more = written("env: {C: green}", "replicas: 2", "rollout: {onFailure: Pause}")
    assert record_document(automatic, more, generation=3, since=SINCE, containers=None) == automatic
    desired = steered(declared(more), web=automatic)
    (found,) = desired.services
    assert (found.revision, found.spec.replicas) == (BLUE.revision, 2)
    assert [(hold.code, hold.remedy) for hold in desired.holds] == [
        (
            "Automatic",
            "change its document (image, env …; not only replicas or rollout), or trimtab resume web",
        )
    ]
    red = written("env: {C: red}")
    assert steered(declared(red), web=automatic) == declared(red)
    assert record_document(automatic, red, generation=3, since=SINCE, containers=None).pin is None


def test_a_pinned_service_that_is_suspended_is_told_as_both_and_left_as_it_is() -> None:
    both = replace(course(BLUE, GREEN, pinned=BLUE), suspension=SUSPENDED.suspension)
    desired = steered(declared(GREEN), web=both)
    assert [(word, code) for _, word, code, _, _ in told(desired)] == [
        ("pinned", "ByCommand"),
        ("suspended", "ByCommand"),
    ]
    assert plan(desired, engine()).actions == ()


@pytest.mark.parametrize("spec", ["", '{"colour": "blue"}', '{"image": "a/b:1"}'])
def test_what_is_pinned_to_a_revision_that_is_lost_is_left_as_it_is(spec: str) -> None:
    pinned = course(BLUE, GREEN, pinned=BLUE)
    first = replace(pinned.revisions[0], spec=spec)
    lost = replace(pinned, revisions=(first, *pinned.revisions[1:]))
    desired = steered(declared(GREEN), web=lost)
    assert [(hold.word, hold.code) for hold in desired.holds] == [("suspended", "PinLost")]
    assert plan(desired, engine(container())).actions == ()
    assert slots_of(first, GREEN) is None


def test_a_restart_reaches_what_is_declared() -> None:
    asked = Restarting(frozenset({container().id}), "uid:0")
    desired = steered(declared(service()), web=Overrides(restarting=asked))
    assert desired.services == (replace(service(), restarting=asked),)
    assert desired.holds == ()


PORT = "ports: [{container: 80, host: 8080}]"
DATA = "mounts: [{type: volume, source: data, target: /d}]"
SHARED = "mounts: [{type: volume, source: data, target: /d, shared: true}]"
READ = "mounts: [{type: volume, source: data, target: /d, readOnly: true}]"


@pytest.mark.parametrize(
    ("then", "other", "both"),
    [
        (PORT, PORT, "host port 8080/tcp"),
        (PORT, "ports: [{container: 80, host: 8080, hostIP: 127.0.0.2}]", ""),
        (PORT, "ports: [{container: 80, host: 8080, protocol: udp}]", ""),
        (PORT, "ports: [{container: 80}]", ""),
        (DATA, SHARED, "volume data"),
        (SHARED, DATA, "volume data"),
        (SHARED, SHARED, ""),
        (DATA, READ, ""),
    ],
)
def test_a_pinned_service_that_takes_what_another_has_stops_neither(
    then: str, other: str, both: str
) -> None:
    earlier, now, api = written(then), written(), written(other, name="api")
    assert shared_resource(earlier, api) == both
    desired = steered(declared(now, api), web=course(earlier, now, pinned=earlier))
    assert desired.suspended == (frozenset({WEB, API}) if both else frozenset())
    for hold in desired.holds:
        if hold.word == "suspended":
            assert hold.reason == (
                f"Service/default/web, as it is pinned, and Service/default/api both want {both}"
            )


def test_volumes_of_two_namespaces_are_two() -> None:
    api = written(DATA, name="api")
    elsewhere = replace(api, key=service_key("lab", "api"))
    assert (shared_resource(written(DATA), api), shared_resource(written(DATA), elsewhere)) == (
        "volume data",
        "",
    )


@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        (PORT, "replicas: 2", "host port 8080 is for one replica, and replicas is 2"),
        (DATA, "replicas: 2", "volume data is for one replica, and replicas is 2"),
        (
            DATA,
            "rollout: {order: StartFirst}",
            "volume data is for one replica, and rollout.order is StartFirst",
        ),
        (SHARED, "replicas: 2", ""),
        (PORT, "replicas: 1", ""),
    ],
)
def test_a_pinned_revision_that_cannot_be_as_its_document_wants_it_is_left_alone(
    then: str, now: str, why: str
) -> None:
    earlier, today = written(then), written(now)
    pinned = course(earlier, today, pinned=earlier)
    slots = slots_of(pinned.revisions[0], today)
    assert slots is not None and pin_conflict(slots) == why
    assert steered(declared(today), web=pinned).suspended == ({WEB} if why else set())


@pytest.mark.parametrize(
    ("desired", "steering", "lasts"),
    [
        (declared(), SUSPENDED, True),
        (declared(RENAMED), SUSPENDED, False),
        (declared(RENAMED, blind=True), SUSPENDED, True),
        (declared(), course(BLUE, GREEN, pinned=BLUE), False),
        (declared(), course(BLUE), False),
        (declared(blind=True), course(BLUE, GREEN, pinned=BLUE), True),
        (declared(blind_keys=[WEB]), course(BLUE, GREEN, pinned=BLUE), True),
        (
            declared(identity=replace(HERE, present=False)),
            course(BLUE, GREEN, pinned=BLUE),
            True,
        ),
        (
            declared(identity=replace(HERE, documents=0)),
            course(BLUE, GREEN, pinned=BLUE),
            True,
        ),
    ],
)
def test_what_people_want_lasts_though_nothing_is_to_be_seen(
    desired: Desired, steering: Overrides, lasts: bool
) -> None:
    assert (WEB in persistent_keys(desired, {WEB: steering})) is lasts


def test_a_rollback_has_a_pace_of_its_own() -> None:
    pace = "rollout: {minHealthy: 60s, rollback: {minHealthy: 1s, order: StopFirst}}"
    today = written("command: [x]", pace)
    desired = steered(declared(today), web=course(BLUE, today, pinned=BLUE))
    rollout = desired.services[0].spec.rollout
    assert (rollout.min_healthy, rollout.order) == (1000, Order.STOP_FIRST)
    assert declared(today).services[0].spec.rollout.min_healthy == 60_000


def scaled(replicas: int, of: int = 1) -> Overrides:
    return Overrides(scaling=Scaling(replicas, of, "uid:0", SINCE))


def test_a_scaled_service_has_its_number_and_goes_on_otherwise() -> None:
    desired = steered(declared(written("replicas: 2")), web=scaled(3, of=2))
    assert desired.services[0].spec.replicas == 3
    assert desired.services[0].revision == written("replicas: 2").revision
    assert (desired.suspended, desired.held) == (frozenset(), frozenset())
    reason = f"scaled to 3 by uid:0 since {SINCE}; its document says 2"
    remedy = "change replicas in its document, or trimtab resume web"
    assert told(desired) == [(WEB, "scaled", "ByCommand", reason, remedy)]
    assert desired.digest != declared(written("replicas: 2")).digest


def test_another_number_in_the_document_ends_a_scaling_and_nothing_else_does() -> None:
    blue = replace(course(BLUE), scaling=Scaling(3, 1, "uid:0", SINCE))
    documents = (written("env: {C: green}"), written("replicas: 2"))
    kept, ended = (
        record_document(blue, each, generation=2, since=SINCE, containers=()) for each in documents
    )
    assert (kept.scaling, ended.scaling) == (blue.scaling, None)
    assert steered(declared(documents[1]), web=blue).services[0].spec.replicas == 2


def test_a_scaling_ends_at_its_time() -> None:
    limited = Overrides(scaling=Scaling(3, 1, "uid:0", SINCE, until=100.0))
    assert without_ended(limited, 99.9) is limited
    assert without_ended(limited, 100.0) == NO_OVERRIDES
    assert without_ended(scaled(3), 1e12) == scaled(3)


@pytest.mark.parametrize("count", [0, 4])
def test_a_pinned_service_is_scaled_too(count: int) -> None:
    pin = replace(
        course(BLUE, written("replicas: 2"), pinned=BLUE), scaling=scaled(count, 2).scaling
    )
    desired = steered(declared(written("replicas: 2")), web=pin)
    assert (desired.services[0].revision, desired.services[0].spec.replicas) == (
        BLUE.revision,
        count,
    )
    assert [hold.word for hold in desired.holds] == ["pinned", "scaled"]


def test_a_document_that_does_not_permit_the_number_any_more_leaves_the_service_alone() -> None:
    published = written("ports: [{container: 80, host: 8080}]")
    desired = steered(declared(published), web=scaled(2))
    assert desired.suspended == {WEB}
    (clash,) = (hold for hold in desired.holds if hold.code == "Clash")
    assert clash.reason.startswith("web is scaled to a number that doesn't fit: host port 8080 can")
    assert clash.remedy.startswith("trimtab resume web, or change ")


def test_those_who_share_with_a_scaled_down_service_are_left_alone() -> None:
    shares = Shares(service="api", network=True)
    spec = written("replicas: 2").spec.model_copy(update={"shares": shares})
    sharing = replace(service(), spec=spec)
    desired = steered(declared(sharing, service("api", replicas=2)), api=scaled(1, of=2))
    assert desired.suspended == {WEB}
    assert (
        steered(declared(sharing, service("api", replicas=2)), api=scaled(0, of=2)).suspended
        == set()
    )
