"""A service keeps the revision under which its containers run, whatever the rule of the day."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from controller.core.manifests.check_together import desired_of
from controller.core.manifests.revision_hash import earlier_revision_of, slot_text
from controller.core.service.history import history
from controller.core.service.kept_revisions import moved, with_kept_revisions
from controller.core.service.operator_actions import ActionInputs, decide
from controller.core.service.overrides import apply_overrides, slots_of
from controller.core.service.revisions import from_json, is_pinned, record_document, to_json
from controller.model.desired.desired import Service, SourceLocation
from controller.model.desired.overrides import NO_OVERRIDES, Overrides, Pin, Revision, ServiceAct
from controller.model.observed import Container
from tests.unit.core.service.test_overrides import SINCE, written
from tests.worlds import WEB, container, declared, engine

SMALL = written("resources: {memory: 64Mi}", "env: {A: b}")
LARGE = written("resources: {memory: 128Mi}", "env: {A: b}")
OTHER = written("resources: {memory: 128Mi}", "env: {A: c}")


def earlier(service: Service) -> str:
    return earlier_revision_of(service.owner, service.key, service.spec)


def kept_before(*services: Service, outcome: str = "good") -> Overrides:
    """What a version before saved, read again."""
    revisions = [
        {
            "revision": earlier(each),
            "generation": number,
            "since": SINCE,
            "owner": each.owner,
            "image": each.spec.image,
            "spec": slot_text(each.spec),
            "source": asdict(SourceLocation("web.yaml", 1)) | {"lines": []},
            "outcome": outcome,
            "reason": "",
            "left": False,
        }
        for number, each in enumerate(services, 1)
    ]
    return from_json(json.loads(json.dumps({"revisions": revisions})))


def known(service: Service, overrides: Overrides, *running: str) -> Service:
    containers = [replace(container(), revision=revision) for revision in running]
    (found,) = with_kept_revisions(
        declared(service), {WEB: overrides}, engine(*containers)
    ).services
    return found


def after(overrides: Overrides, service: Service) -> Overrides:
    return record_document(overrides, service, generation=2, since=SINCE, containers=())


def test_a_service_goes_on_under_the_name_of_its_kept_revision() -> None:
    found = known(SMALL, kept_before(SMALL))
    assert (found.revision, found.canonical) == (earlier(SMALL), SMALL.revision)


def test_a_kept_revision_with_other_limits_is_the_same_revision() -> None:
    found = known(LARGE, kept_before(SMALL))
    assert (found.revision, found.limits) == (earlier(SMALL), LARGE.limits)


def test_another_slot_is_another_revision() -> None:
    assert known(OTHER, kept_before(SMALL)) == OTHER


def test_without_kept_revisions_a_container_of_the_document_tells_the_name() -> None:
    assert known(SMALL, NO_OVERRIDES, earlier(SMALL)).revision == earlier(SMALL)
    assert known(LARGE, NO_OVERRIDES, earlier(SMALL)) == LARGE, "nobody knows what it means"
    assert known(SMALL, NO_OVERRIDES, earlier(SMALL), SMALL.revision) == SMALL


def test_a_name_that_a_container_tells_late_takes_the_place_of_the_present_one() -> None:
    early = after(NO_OVERRIDES, SMALL)
    late = after(early, known(SMALL, early, earlier(SMALL)))
    assert [each.revision for each in late.revisions] == [earlier(SMALL)]
    assert known(LARGE, late).revision == earlier(SMALL)


def test_what_was_good_is_good_still() -> None:
    overrides = kept_before(SMALL)
    overrides = after(overrides, known(SMALL, overrides))
    assert [(e.revision, e.outcome, e.limits) for e in overrides.revisions] == [
        (earlier(SMALL), "good", SMALL.limits)
    ]
    assert from_json(json.loads(json.dumps(to_json(overrides)))) == overrides


def test_a_name_outlives_the_spec_that_is_too_large_to_keep() -> None:
    overrides = after(kept_before(SMALL), known(SMALL, kept_before(SMALL)))
    (entry,) = overrides.revisions
    lost = replace(overrides, revisions=(replace(entry, spec=""),))
    assert known(LARGE, lost).revision == earlier(SMALL)


def test_each_set_of_limits_is_a_row_of_the_history_and_can_be_restored() -> None:
    overrides = after(kept_before(SMALL), known(LARGE, kept_before(SMALL)))
    now = known(LARGE, overrides)
    rows = history(WEB, overrides, declared=now.revision, limits=now.limits, generation=2)[
        "revisions"
    ]
    assert isinstance(rows, list)
    assert [(row["limits"], row["current"], row["outcome"]) for row in rows] == [
        ("memory 128Mi, restart Always", True, ""),
        ("memory 64Mi, restart Always", False, "good"),
    ]
    for to in ("", earlier(SMALL)):
        inputs = ActionInputs(declared(now), {WEB: overrides}, (), 2)
        decision = decide(ServiceAct("rollback", WEB, "uid:0", to=to), inputs, now=SINCE)
        assert decision.text.endswith("(memory 64Mi, restart Always)")
        pinned = apply_overrides(declared(now), {WEB: decision.overrides})
        (found,) = pinned.services
        assert (found.revision, found.limits) == (earlier(SMALL), SMALL.limits)
        (hold,) = pinned.holds
        assert "with memory 64Mi, restart Always by uid:0" in hold.reason
        assert hold.reason.endswith("its document says memory 128Mi, restart Always")


def test_an_automatic_pin_ends_with_other_limits_only_where_those_are_known_to_differ() -> None:
    pin = Pin(earlier(OTHER), 1, earlier(SMALL), "trimtab", SINCE, automatic=True)
    before = replace(kept_before(OTHER, SMALL), pin=pin)
    same = after(before, known(SMALL, before))
    assert same.pin is not None and same.pin.asked_limits == SMALL.limits
    assert is_pinned(same, known(SMALL, same))
    assert after(before, known(LARGE, before)).pin is None


def test_the_oldest_limits_of_a_revision_are_dropped_first() -> None:
    overrides = NO_OVERRIDES
    for mebibytes in range(16, 28):
        each = written(f"resources: {{memory: {mebibytes}Mi}}")
        overrides = record_document(
            overrides, each, generation=1, since=SINCE, containers=(container(),)
        )
    memory = [e.limits and e.limits.memory for e in overrides.revisions]
    assert memory == [n << 20 for n in range(18, 28)]


def test_revisions_without_limits_are_read() -> None:
    (entry,) = kept_before(SMALL).revisions
    assert isinstance(entry, Revision) and (entry.limits, entry.canonical) == (None, "")


MOVED = replace(written("env: {A: b}", name="site"), moved=(WEB,))
BEFORE = written("env: {A: b}")


def found_of(service: Service, overrides: Overrides, *containers: Container) -> Service:
    (found,) = with_kept_revisions(
        declared(service), {service.key: overrides}, engine(*containers)
    ).services
    return found


def kept_now(*services: Service) -> Overrides:
    overrides = NO_OVERRIDES
    for each in services:
        overrides = after(overrides, each)
    return overrides


def test_a_moved_service_goes_on_under_the_revisions_of_its_earlier_name() -> None:
    other = replace(written("env: {A: c}", name="site"), moved=(WEB,))
    history_before = kept_now(OTHER, BEFORE)
    overrides = moved(history_before, MOVED.key)
    assert found_of(MOVED, overrides).revision == BEFORE.revision
    assert found_of(MOVED, overrides).canonical == MOVED.revision
    assert found_of(other, overrides).revision == other.revision
    # A rollback finds the slot settings of a revision that was declared under the earlier name.
    (earlier_one, _) = overrides.revisions
    slots = slots_of(earlier_one, MOVED)
    assert slots is not None
    assert (slots.key, slots.revision, slots.spec.env) == (MOVED.key, OTHER.revision, {"A": "c"})
    assert slots_of(history_before.revisions[0], MOVED) is None


def test_without_saved_state_the_containers_tell_the_revision_of_the_earlier_name() -> None:
    running = replace(container(), revision=BEFORE.revision)
    pending = found_of(MOVED, NO_OVERRIDES, running)
    assert pending.revision == BEFORE.revision
    made = replace(running, key=MOVED.key, former="web")
    without_claim = replace(MOVED, moved=())
    assert found_of(without_claim, NO_OVERRIDES, made).revision == BEFORE.revision
    changed = written("env: {A: c}", name="site")
    assert found_of(changed, NO_OVERRIDES, made).revision == changed.revision
    by_the_earlier_rule = replace(made, revision=earlier(BEFORE))
    assert found_of(without_claim, NO_OVERRIDES, by_the_earlier_rule).revision == earlier(BEFORE)


def test_a_moved_service_with_an_adopted_volume_keeps_its_revision() -> None:
    def documents(name: str) -> Service:
        texts = {
            "v.yaml": "apiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: data, owner: team}\n"
            "spec: {engineName: shop_data}\n",
            "s.yaml": "apiVersion: trimtab/v1\nkind: Service\n"
            f"metadata: {{name: {name}, owner: team}}\nspec: {{image: 'a/b:1', "
            "mounts: [{type: volume, source: data, target: /data}]}\n",
        }
        (found,) = desired_of(texts).services
        assert found.bound_names
        return found

    before, now = documents("web"), replace(documents("site"), moved=(WEB,))
    overrides = moved(kept_now(before), now.key)
    assert found_of(now, overrides).revision == before.revision
    running = replace(container(), revision=before.revision, former="web", key=now.key)
    assert found_of(now, NO_OVERRIDES, running).revision == before.revision
