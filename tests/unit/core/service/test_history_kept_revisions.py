"""A service keeps the revision under which its containers run, by whatever name it was declared."""

from __future__ import annotations

from dataclasses import replace

from controller.core.manifests.check_together import desired_of
from controller.core.service.history import (
    history,
    is_pinned,
    moved,
    record_document,
    record_outcome,
    with_kept_revisions,
)
from controller.core.service.operator_actions import ActionInputs, decide
from controller.core.service.overrides import apply_overrides, slots_of
from controller.model.desired.desired import NO_OVERRIDES, Overrides, Pin, Service, ServiceAct
from controller.model.observed import Container
from tests.unit.core.service.test_overrides import SINCE, written
from tests.worlds import WEB, container, declared, engine

SMALL = written("resources: {memory: 64Mi}", "env: {A: b}")
LARGE = written("resources: {memory: 128Mi}", "env: {A: b}")
OTHER = written("resources: {memory: 128Mi}", "env: {A: c}")


def after(overrides: Overrides, service: Service) -> Overrides:
    return record_document(overrides, service, generation=2, since=SINCE, containers=())


def test_each_set_of_limits_is_a_row_of_the_history_and_can_be_restored() -> None:
    overrides = record_outcome(kept_now(SMALL), SMALL.revision, "good")
    overrides, now = after(overrides, LARGE), LARGE
    rows = history(WEB, overrides, declared=now.revision, limits=now.limits, generation=2)[
        "revisions"
    ]
    assert isinstance(rows, list)
    assert [(row["limits"], row["current"], row["outcome"]) for row in rows] == [
        ("memory 128Mi, restart Always", True, ""),
        ("memory 64Mi, restart Always", False, "good"),
    ]
    for to in ("", SMALL.revision):
        inputs = ActionInputs(declared(now), {WEB: overrides}, (), 2)
        decision = decide(ServiceAct("rollback", WEB, "uid:0", to=to), inputs, now=SINCE)
        assert decision.text.endswith("(memory 64Mi, restart Always)")
        pinned = apply_overrides(declared(now), {WEB: decision.overrides})
        (found,) = pinned.services
        assert (found.revision, found.limits) == (SMALL.revision, SMALL.limits)
        (hold,) = pinned.holds
        assert "with memory 64Mi, restart Always by uid:0" in hold.reason
        assert hold.reason.endswith("its document says memory 128Mi, restart Always")


def test_an_automatic_pin_ends_with_other_limits() -> None:
    pin = Pin(
        OTHER.revision,
        1,
        SMALL.revision,
        "trimtab",
        SINCE,
        automatic=True,
        asked_limits=SMALL.limits,
    )
    before = replace(kept_now(OTHER, SMALL), pin=pin)
    assert is_pinned(after(before, SMALL), SMALL)
    assert after(before, LARGE).pin is None


def test_the_oldest_limits_of_a_revision_are_dropped_first() -> None:
    overrides = NO_OVERRIDES
    for mebibytes in range(16, 28):
        each = written(f"resources: {{memory: {mebibytes}Mi}}")
        overrides = record_document(
            overrides, each, generation=1, since=SINCE, containers=(container(),)
        )
    memory = [e.limits.memory for e in overrides.revisions]
    assert memory == [n << 20 for n in range(18, 28)]


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
