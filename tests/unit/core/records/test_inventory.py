from __future__ import annotations

import json
from dataclasses import replace
from functools import reduce

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.records import container_effects
from controller.core.records.inventory import fold, fold_all
from controller.core.records.inventory_json import (
    from_json,
    replica_of,
    settings_from_json,
    settings_to_json,
    to_json,
)
from controller.core.rules.confinement import confinement_to_json
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.inventory import (
    ContainerItem,
    Inventory,
    OpenIntent,
    OwnedObject,
    PinnedImage,
    TrustedImage,
)
from controller.model.observed import Settings
from controller.model.records import Entry, Record, Stage

TIME = "2026-01-01T12:00:00.000Z"
FULL = "ab" * 32
REVISION = "v2:" + "0" * 64
SETTINGS = Settings(name="web.1-00000000", memory=2**31, pids=256, networks=("a", "b"))
LABELS = {
    "io.trimtab.managed": "true",
    "io.trimtab.instance": "i1",
    "io.trimtab.intent": "c1",
    "io.trimtab.origin": "controller",
    "io.trimtab.owner": "team",
    "io.trimtab.service": "web",
    "io.trimtab.namespace": "default",
    "io.trimtab.slot": "1",
    "io.trimtab.revision": REVISION,
    "io.trimtab.image": "ghcr.io/p/web:1",
}
ITEM = ContainerItem(
    id=FULL,
    namespace="default",
    service="web",
    slot=1,
    revision=REVISION,
    owner="team",
    origin="controller",
    intent="c1",
    image="ghcr.io/p/web:1",
    admitted=SETTINGS,
    seq=1,
)
PIN = PinnedImage("sha256:1", "sha256:2", "ghcr.io/p/web")
SUMMARY: dict[str, object] = {
    "name": "web.1-00000000",
    "image": "ghcr.io/p/web:1",
    "imageId": "sha256:1",
    "digest": "sha256:2",
    "labels": LABELS,
    "settings": settings_to_json(SETTINGS),
}
ASKED: dict[str, object] = {
    "route": "container.create",
    "object": "web.1-00000000",
    "summary": SUMMARY,
}
DONE: dict[str, object] = {"status": 201, "container": FULL}


def entry(
    identifier: str,
    stage: Stage,
    request: dict[str, object] | None = None,
    result: dict[str, object] | None = None,
    role: str = "controller",
) -> Entry:
    return Entry(identifier, stage, {"role": role}, request or {}, {}, {}, result or {})


def folded(*entries: Entry, onto: Inventory | None = None) -> Inventory:
    """Fold entries as the journal would give them back: through canonical JSON."""
    before = onto or Inventory()
    saved = canonical(to_json(before))
    records = [record_of(before.seq + number, each) for number, each in enumerate(entries, 1)]
    inventory = fold_all(before, records)
    assert canonical(to_json(before)) == saved, "a fold changes nothing that others have"
    return inventory


def record_of(seq: int, each: Entry) -> Record:
    told = json.loads(canonical({name: getattr(each, name) for name in each.__dataclass_fields__}))
    return Record(seq, TIME, Entry(**told), "", "")


def change(
    route: str,
    subject: str,
    summary: dict[str, object],
    result: dict[str, object],
    *,
    role: str = "controller",
    stage: Stage = "outcome",
) -> tuple[Entry, Entry]:
    request: dict[str, object] = {"route": route, "object": subject, "summary": summary}
    return entry("m", "intent", request, role=role), entry("m", stage, {}, result, role="x")


MADE = folded(entry("c1", "intent", ASKED), entry("c1", "outcome", {}, DONE))


def test_a_create_is_ours_with_what_it_was_admitted_as_and_pins_its_revision() -> None:
    assert MADE == Inventory(
        seq=2,
        containers={FULL: ITEM},
        pins={REVISION: PIN},
        replicas={FULL: replica_of(ITEM, up=None)},
    )


def test_an_open_intent_keeps_what_it_asked_for() -> None:
    inventory = folded(entry("c1", "intent", ASKED))
    assert inventory == Inventory(seq=1, open={"c1": OpenIntent(1, TIME, "controller", ASKED)})


def test_a_create_that_failed_leaves_nothing() -> None:
    failed = folded(entry("c1", "intent", ASKED), entry("c1", "outcome", {}, {"status": 409}))
    assert failed == Inventory(seq=2)


def test_recovery_makes_it_ours_and_says_that_nobody_was_told() -> None:
    result: dict[str, object] = {"settled": "applied", "container": FULL}
    found = folded(entry("c1", "intent", ASKED), entry("c1", "recovered", {}, result))
    assert found.containers == {FULL: replace(ITEM, recovered=True)}
    for settled in ("not-applied", "unknown"):
        closing = entry("c1", "recovered", {}, {"settled": settled})
        assert folded(entry("c1", "intent", ASKED), closing) == Inventory(seq=2)


def test_a_pin_is_set_once() -> None:
    again = {**ASKED, "summary": {**SUMMARY, "imageId": "sha256:9"}}
    inventory = folded(
        entry("c2", "intent", again),
        entry("c2", "outcome", {}, {"status": 201, "container": "cd" * 32}),
        onto=MADE,
    )
    assert inventory.pins == MADE.pins
    assert set(inventory.containers) == {FULL, "cd" * 32}


@pytest.mark.parametrize(
    ("result", "stage", "left"),
    [
        ({"status": 204}, "outcome", False),
        ({"status": 404}, "outcome", False),
        ({"status": 409}, "outcome", True),
        ({"status": 500}, "outcome", True),
        ({"settled": "applied"}, "recovered", False),
        ({"settled": "not-applied"}, "recovered", True),
    ],
)
def test_a_removal_counts_once_it_is_gone(
    result: dict[str, object], stage: Stage, left: bool
) -> None:
    inventory = folded(*change("container.remove", FULL, {}, result, stage=stage), onto=MADE)
    assert (FULL in inventory.containers) is left


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("route", ["container.start", "container.restart"])
def test_a_start_marks_it_as_started(route: str, status: int) -> None:
    inventory = folded(*change(route, FULL, {}, {"status": status}), onto=MADE)
    assert inventory.containers[FULL].started
    failed = folded(*change(route, FULL, {}, {"status": 500}), onto=MADE)
    assert not failed.containers[FULL].started


OWN_CHANGES = [
    (
        "container.update",
        {"settings": settings_to_json(replace(SETTINGS, memory=2**62)), "fields": ["Memory"]},
        replace(SETTINGS, memory=2**62),
    ),
    ("container.rename", {"name": "other"}, replace(SETTINGS, name="other")),
]
CHANGES = [
    *OWN_CHANGES,
    ("network.connect", {"network": "aa"}, replace(SETTINGS, networks=("a", "aa", "b"))),
    ("network.disconnect", {"network": "a"}, replace(SETTINGS, networks=("b",))),
]


@pytest.mark.parametrize(("route", "summary", "after"), OWN_CHANGES)
def test_what_the_controller_changes_on_its_own_is_what_it_is_admitted_as(
    route: str, summary: dict[str, object], after: Settings
) -> None:
    inventory = folded(*change(route, FULL, summary, {"status": 200}), onto=MADE)
    assert inventory.containers[FULL] == replace(ITEM, admitted=after)
    failed = folded(*change(route, FULL, summary, {"status": 409}), onto=MADE)
    assert failed.containers == MADE.containers


def test_a_violation_that_was_put_back_leaves_it_as_it_is() -> None:
    request: dict[str, object] = {"route": "container.start", "object": FULL}
    back = entry("v", "violation", request, {"found": ["x"], "putBack": True})
    assert folded(back, onto=MADE).containers == MADE.containers
    ended = folded(entry("v", "violation", request, {"found": ["x"]}), onto=MADE)
    assert ended.containers[FULL].violation == "v"


def test_an_update_takes_over_what_it_asked_for_and_nothing_that_others_changed() -> None:
    changed = replace(SETTINGS, name="x", memory=7, pids=3, restart="always", networks=("a",))
    told: dict[str, object] = {
        "settings": settings_to_json(changed),
        "fields": ["PidsLimit", "RestartPolicy"],
    }
    inventory = folded(*change("container.update", FULL, told, {"status": 200}), onto=MADE)
    after = replace(SETTINGS, pids=3, restart="always")
    assert inventory.containers[FULL].admitted == after


@pytest.mark.parametrize("route", ["network.connect", "network.disconnect"])
def test_the_networks_of_the_controllers_containers_are_final(route: str) -> None:
    """Whatever dies between leaving a network and joining it again: it is missed, and healed."""
    inventory = folded(*change(route, FULL, {"network": "a"}, {"status": 200}), onto=MADE)
    assert inventory.containers[FULL] == ITEM


@pytest.mark.parametrize(("route", "summary", "after"), CHANGES)
@pytest.mark.parametrize("role", ["operator", "client"])
def test_what_others_change_on_it_stays_drift(
    route: str, summary: dict[str, object], after: Settings, role: str
) -> None:
    inventory = folded(*change(route, FULL, summary, {"status": 200}, role=role), onto=MADE)
    assert inventory.containers == MADE.containers


@pytest.mark.parametrize(("route", "summary", "after"), CHANGES)
def test_a_clients_container_is_what_anybody_may_make_of_it(
    route: str, summary: dict[str, object], after: Settings
) -> None:
    clients = replace(MADE, containers={FULL: replace(ITEM, origin="client")})
    told = change(route, FULL, summary, {"status": 200}, role="operator")
    assert folded(*told, onto=clients).containers[FULL].admitted == after


def test_networks_and_volumes_are_ours_as_soon_as_they_are_made_until_they_are_gone() -> None:
    summary: dict[str, object] = {"name": "data", "labels": LABELS}
    made = folded(
        *change("network.create", "data", summary, {"status": 201, "object": "n1"}),
        *change("volume.create", "data", summary, {"status": 201, "object": "data"}),
    )
    belonging = OwnedObject("n1", "data", "default", "team", "controller", "m")
    assert made == Inventory(
        seq=4, networks={"n1": belonging}, volumes={"data": replace(belonging, id="data")}
    )
    kept = folded(*change("volume.remove", "data", {}, {"status": 409}), onto=made)
    assert kept.volumes == made.volumes
    gone = folded(
        *change("network.remove", "n1", {}, {"status": 204}),
        *change("volume.remove", "data", {}, {"status": 404}),
        onto=made,
    )
    assert gone == Inventory(seq=8)


def test_the_ledger_knows_what_was_pulled_and_what_an_operator_vouched_for() -> None:
    told: dict[str, object] = {"reference": "r", "id": "sha256:1", "digest": "sha256:2"}
    pulled = folded(*change("image.pull", "r", {}, {"status": 200, **told}))
    assert pulled.ledger == {"r": TrustedImage("r", "sha256:1", "sha256:2")}
    assert folded(*change("image.pull", "r", {}, {"status": 500, **told})).ledger == {}
    assert folded(*change("image.pull", "r", {}, {"status": 200})).ledger == {}
    trust: dict[str, object] = {"route": "image.trust", "object": "r", "summary": told}
    assert folded(entry("t", "operator", trust, role="operator")).ledger == pulled.ledger


@pytest.mark.parametrize(
    ("result", "references", "pinned"),
    [
        ({"status": 200, "untagged": ["r1"]}, ["r3"], True),
        ({"status": 200, "untagged": ["r1", "r2"], "deleted": ["sha256:1"]}, ["r3"], False),
        ({"status": 200, "deleted": ["sha256:9"]}, ["r1", "r3"], True),
        ({"status": 404}, ["r1", "r3"], True),
        ({"status": 409, "untagged": ["r1"], "deleted": ["sha256:1"]}, ["r1", "r2", "r3"], True),
    ],
)
def test_an_image_that_is_removed_is_forgotten_with_its_names(
    result: dict[str, object], references: list[str], *, pinned: bool
) -> None:
    trusted = (
        TrustedImage("r1", "sha256:1", ""),
        TrustedImage("r2", "sha256:1", ""),
        TrustedImage("r3", "x", ""),
    )
    known = replace(MADE, ledger={each.reference: each for each in trusted})
    after = folded(*change("image.remove", "r2", {}, result), onto=known)
    assert (list(after.ledger), after.pins) == (references, MADE.pins if pinned else {})


@pytest.mark.parametrize(
    ("summary", "role", "pins"),
    [
        ({"revision": REVISION, "anew": True}, "operator", {}),
        ({"revision": REVISION}, "operator", MADE.pins),
        ({"revision": "v2:" + "1" * 64, "anew": True}, "operator", MADE.pins),
        ({"anew": True}, "operator", MADE.pins),
    ],
)
def test_a_restart_that_an_operator_wants_anew_forgets_what_its_revision_is_pinned_to(
    summary: dict[str, object], role: str, pins: dict[str, PinnedImage]
) -> None:
    asked: dict[str, object] = {
        "route": "service.restart",
        "object": "Service/default/web",
        "summary": summary,
    }
    assert folded(entry("r", "operator", asked, role=role), onto=MADE).pins == pins
    again = folded(
        entry("r", "operator", asked, role=role),
        entry("c2", "intent", {**ASKED, "summary": {**SUMMARY, "imageId": "sha256:9"}}),
        entry("c2", "outcome", {}, {"status": 201, "container": "cd" * 32}),
        onto=MADE,
    )
    assert again.pins == (pins or {REVISION: replace(PIN, id="sha256:9")})


def test_only_the_brokers_own_look_takes_what_is_gone_off() -> None:
    gone: dict[str, object] = {"route": "container.gone", "object": FULL}
    assert FULL in folded(entry("g", "read", gone, role="client"), onto=MADE).containers
    assert FULL not in folded(entry("g", "read", gone, role="broker"), onto=MADE).containers


def test_a_closing_record_whose_intent_expired_changes_nothing() -> None:
    assert folded(entry("c1", "outcome", {}, DONE)) == Inventory(seq=1)


def test_refusals_and_reads_change_nothing_but_the_sequence() -> None:
    refused = folded(entry("x", "refusal", ASKED, DONE), onto=MADE)
    assert refused == replace(MADE, seq=3)


def made(number: int, *, anew: str = "") -> tuple[Entry, Entry]:
    """A container of the revision of this number, and its records."""
    labels = {**LABELS, "io.trimtab.revision": f"v2:{number:064}"}
    summary: dict[str, object] = {**SUMMARY, "labels": labels, "imageId": f"sha256:{number}{anew}"}
    result: dict[str, object] = {"status": 201, "container": f"{number}{anew or 'a'}"}
    return change("container.create", "web.1", summary, result, role="controller")


def removed(identifier: str) -> tuple[Entry, Entry]:
    return change("container.remove", identifier, {}, {"status": 204})


def test_pins_are_bounded_and_what_was_used_longest_ago_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container_effects, "PINS_MAX", 3)
    four = folded(
        *made(1),  # whose container stays
        *(each for number in (2, 3) for each in (*made(number), *removed(f"{number}a"))),
        *(*made(2, anew="b"), *removed("2b")),  # gone back to: it keeps its image
        *(*made(4), *removed("4a")),
    )
    assert [pin.id for pin in four.pins.values()] == ["sha256:1", "sha256:2", "sha256:4"]
    again = from_json(json.loads(canonical(to_json(four))))
    assert [*again.pins.items()] == [*four.pins.items()], "its file keeps the order"
    five = folded(*made(5), onto=again)
    assert [pin.id for pin in five.pins.values()] == ["sha256:1", "sha256:4", "sha256:5"]


def test_no_pin_of_a_container_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_effects, "PINS_MAX", 1)
    all_run = folded(*made(1), *made(2), *made(3))
    assert len(all_run.pins) == 3


def test_a_create_admitted_by_the_policys_trust_alone_makes_a_pin_that_says_so() -> None:
    request = {**ASKED, "summary": {**SUMMARY, "trustedByPolicy": True}}
    inventory = folded(entry("c1", "intent", request), entry("c1", "outcome", {}, DONE))
    assert inventory.pins == {REVISION: replace(PIN, by_policy=True)}
    assert from_json(json.loads(json.dumps(to_json(inventory)))) == inventory


def test_a_create_whose_record_names_no_reference_makes_no_pin() -> None:
    labels = {**LABELS, "io.trimtab.image": "sha256:" + "1" * 64}
    request = {**ASKED, "summary": {**SUMMARY, "labels": labels}}
    assert folded(entry("c1", "intent", request), entry("c1", "outcome", {}, DONE)).pins == {}


def test_records_come_in_order() -> None:
    with pytest.raises(AssertionError, match="record 2 after record 2"):
        fold(MADE, Record(2, TIME, entry("x", "read"), "", ""))


def test_the_whole_of_it_survives_its_file() -> None:
    summary: dict[str, object] = {"name": "data", "labels": LABELS}
    told: dict[str, object] = {"reference": "r", "id": "sha256:1"}
    inventory = folded(
        *change("network.create", "data", summary, {"status": 201, "object": "n1"}),
        *change("volume.create", "data", summary, {"status": 201, "object": "data"}),
        *change("image.pull", "r", {}, {"status": 200, **told}),
        entry("o", "intent", ASKED),
        onto=MADE,
    )
    assert inventory.open and inventory.ledger and inventory.pins
    assert from_json(json.loads(json.dumps(to_json(inventory)))) == inventory
    assert settings_from_json(settings_to_json(SETTINGS)) == SETTINGS


CONFINED = Confinement(
    ("CHOWN",), mounts=(ExpectedMount("bind", "/data", "/srv/x", device=8, inode=7),)
)


def seq_of(*told: Entry) -> Inventory:
    return reduce(
        fold, [Record(seq, TIME, each, "", "") for seq, each in enumerate(told, 1)], Inventory()
    )


def test_what_the_kernel_is_compared_with_folds_from_the_journal() -> None:
    """What a start showed, and a violation, too; and all of it is in the snapshot."""
    summary = {**SUMMARY, "confined": confinement_to_json(CONFINED)}
    start: dict[str, object] = {"route": "container.start", "object": FULL, "summary": {}}
    violation = Entry("v1", "violation", request=start)
    created = [
        Entry("c1", "intent", {"role": "controller"}, {**ASKED, "summary": summary}),
        Entry("c1", "outcome", result=DONE),
    ]
    started = [
        Entry("s1", "intent", {"role": "controller"}, start),
        Entry("s1", "outcome", result={"status": 204, "effective": "unverified: no right"}),
    ]
    item = replace(ITEM, confined=CONFINED)
    assert seq_of(*created).containers == {FULL: item}
    unverified = replace(item, started=True, effective="unverified: no right")
    assert seq_of(*created, *started).containers == {FULL: unverified}
    stopped = replace(unverified, effective="violation", violation="v1")
    known = seq_of(*created, *started, violation)
    assert known.containers == {FULL: stopped}
    assert from_json(json.loads(canonical(to_json(known)))) == known
    assert seq_of(violation).containers == {}


def test_what_the_broker_changes_to_end_a_container_isn_t_what_it_is_admitted_as() -> None:
    settings = settings_to_json(replace(SETTINGS, restart="no", memory=1))
    for origin in ("controller", "client"):
        labels = {**LABELS, "io.trimtab.origin": origin}
        known = seq_of(
            Entry(
                "c1",
                "intent",
                {"role": origin},
                {**ASKED, "summary": {**SUMMARY, "labels": labels}},
            ),
            Entry("c1", "outcome", result=DONE),
            Entry(
                "u1",
                "intent",
                {"role": "broker"},
                {
                    "route": "container.update",
                    "object": FULL,
                    "summary": {"settings": settings, "fields": ["RestartPolicy"]},
                },
            ),
            Entry("u1", "outcome", result={"status": 200}),
        )
        assert known.containers[FULL].admitted == SETTINGS


def test_an_approval_of_a_volume_ends_with_the_volume() -> None:
    """Another volume of the name, made within the hour, isn't covered."""
    summary: dict[str, object] = {"name": "data", "labels": LABELS}
    create = change("volume.create", "data", summary, {"status": 201, "object": "data"})
    approval: dict[str, object] = {
        "route": "plan.approve",
        "object": "ab" * 32,
        "summary": {"act": "approve", "plan": "ab" * 32, "objects": ["volume:data", FULL]},
    }
    approved = folded(*create, entry("a1", "operator", approval, role="operator"), onto=MADE)
    assert approved.approvals["a1"].used == ()
    gone: dict[str, object] = {"route": "volume.gone", "object": "data"}
    for ending in (
        change("volume.remove", "data", {}, {"status": 204}, role="operator"),
        (entry("g", "read", gone, role="broker"),),
        create,
    ):
        assert folded(*ending, onto=approved).approvals["a1"].used == ("volume:data",)
