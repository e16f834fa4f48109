"""Projects in a status: which services one change brought to two versions."""

from collections.abc import Mapping

from controller.core.service.history import record_outcome
from controller.core.status.facts import RevisionTimes, revision_times, split_projects
from controller.model.desired.desired import NO_OVERRIDES, Pin
from controller.model.names import Key, service_key
from tests.unit.core.service.test_overrides import course, written

WEB, WORKER, STORE, OTHER = (
    *(service_key("shop", name) for name in ("web", "worker", "store")),
    service_key("blog", "post"),
)
ONE, TWO = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
OLD = "v2:" + "0a1b2c3d" * 8
WENT_BACK = RevisionTimes(TWO, ONE, back_to=OLD, has_earlier=True)
WENT_ON = RevisionTimes(TWO, TWO, has_earlier=True)
UNCHANGED = RevisionTimes(ONE, ONE)


def told(
    times: Mapping[Key, RevisionTimes], failed: Mapping[Key, str] | None = None
) -> list[tuple[str, str, str]]:
    return [(p.message, p.remedy, p.severity.value) for p in split_projects(times, failed or {})]


def test_a_service_that_went_back_is_told_with_those_that_went_on() -> None:
    times = {WEB: WENT_BACK, WORKER: WENT_ON, STORE: UNCHANGED, OTHER: WENT_ON}
    message = "project shop runs two versions: web went back to 0a1b2c3d; of the same change, worker went on"
    remedy = (
        "correct what failed, or return the project to the version before: trimtab rollback -n shop"
    )
    assert told(times) == [(message, remedy, "warning")]


def test_a_paused_rollout_splits_a_project_too_but_no_first_version_does() -> None:
    failed = {WEB: "it exited with 1"}
    (one,) = told({WEB: WENT_ON, WORKER: WENT_ON}, failed)
    assert one[0] == (
        "project shop runs two versions: web failed; of the same change, worker went on"
    )
    assert told({WEB: RevisionTimes(TWO, TWO), WORKER: WENT_ON}, failed) == []


def test_a_project_of_one_version_is_none() -> None:
    assert told({WEB: WENT_BACK, STORE: UNCHANGED, OTHER: WENT_ON}) == []
    assert told({WEB: WENT_BACK, WORKER: WENT_BACK}) == []
    assert told({WEB: WENT_BACK, WORKER: RevisionTimes(TWO, ONE, has_earlier=True)}) == []


def test_the_times_are_those_of_the_declarations() -> None:
    blue, green = written("env: {C: blue}"), written("env: {C: green}")
    both = record_outcome(course(blue, green), blue.revision, "good")
    declared = both.revisions[-1].since
    assert revision_times(NO_OVERRIDES) is None
    assert revision_times(both) == RevisionTimes(declared, declared, has_earlier=True)
    assert revision_times(course(blue, green)) == RevisionTimes(declared, declared)
    pin = Pin(blue.revision, 1, green.revision, "trimtab", TWO, automatic=True)
    pinned = record_outcome(course(blue, green, pinned=blue), blue.revision, "good")
    earlier = pinned.revisions[0].since
    assert revision_times(pinned) == RevisionTimes(declared, earlier, has_earlier=True)
    assert pin.automatic
