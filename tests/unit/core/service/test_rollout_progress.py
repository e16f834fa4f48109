"""The course of a rollout, look by look."""

from dataclasses import replace

import pytest

from controller.core.drift.availability import Availability, AvailabilityWord
from controller.core.drift.failures import SlotHistory
from controller.core.encoding.stored_form import StoredForm
from controller.core.jobs.rollout_hooks import HookFacts, HookState, HookWord
from controller.core.service.rollout_progress import (
    FAILURES,
    NEW,
    WATCH_S,
    RolloutProgress,
    RolloutView,
    advance,
    due_in_s,
    outcome_of,
    resume,
)
from controller.model.names import job_key
from tests.worlds import container, revision, service

FORM = StoredForm(RolloutProgress)

OLD, B = revision("a"), revision("b")
SETTLING = Availability(AvailabilityWord.SETTLING)
BEGUN = RolloutProgress(revision=B, good=OLD, limits=service().limits)


def scene(*containers, wanted=None, settling=(), failures=None):
    """One look; *settling* are slots whose container of revision b isn't available yet."""
    waiting = {c.id: SETTLING for c in containers if c.revision == B and c.slot in settling}
    histories = {
        slot: SlotHistory(count=count, cause="exited with 3")
        for slot, count in (failures or {}).items()
    }
    return RolloutView(wanted or service(), containers, waiting, histories)


def walk(*looks, start=BEGUN, awaits_others=False):
    """The course after looks of (seconds since the one before, scene)."""
    course = start
    for elapsed_s, seen in looks:
        course = advance(course, seen, elapsed_s=elapsed_s, awaits_others=awaits_others)
    return course


def test_another_revision_begins_anew_and_keeps_what_was_good():
    before = RolloutProgress(revision=OLD, furthest=(1, 1, 1), idle_s=9, failed="why", good=OLD)
    assert walk((50, scene(container(rev="a"))), start=before) == BEGUN


def test_a_rollout_that_held_for_the_watch_period_is_good():
    done = scene(container())
    course = walk((1, done))
    assert (course.held_s, course.good) == (0.0, OLD)
    assert walk((WATCH_S - 1, done), start=course).good == OLD
    assert walk((WATCH_S, done), start=course).good == B


def test_it_is_complete_when_nothing_else_runs():
    both = scene(container(), container(rev="a"))
    assert walk((1, both)).held_s is None
    rest = scene(container(), container(rev="a", state="exited"))
    assert walk((1, rest)).held_s == 0.0


def test_getting_further_gives_it_more_time():
    wanted = service(replicas=2)
    one, two = container(state="created"), container()
    course = walk((500, scene(wanted=wanted)), (500, scene(one, wanted=wanted)))
    assert (course.furthest, course.idle_s) == ((1, 0, 0), 0.0)
    course = walk((500, scene(two, wanted=wanted)), start=course)
    assert (course.furthest, course.idle_s, course.failed) == ((1, 1, 1), 0.0, "")
    # To have been further before is no progress.
    course = walk((100, scene(one, wanted=wanted)), (100, scene(two, wanted=wanted)), start=course)
    assert course.idle_s == 200


def test_without_getting_further_it_fails_at_its_deadline():
    stuck = scene(container(rev="a"))
    assert walk((599, stuck)).failed == ""
    assert walk((599, stuck), (1, stuck)).failed == (
        "it got no further within 10m: of 1 replicas 0 were made, 0 started, 0 available"
    )


def test_what_hindered_it_last_is_told():
    stuck = replace(scene(container(rev="a")), last_error="its registry can't be reached")
    assert walk((600, stuck)).failed.endswith("0 available; its registry can't be reached")


def test_a_replica_that_gets_not_ready_has_a_deadline_of_its_own():
    settling = scene(container(), settling={1})
    assert walk((0, settling), (299, settling)).failed == ""
    assert "within 5m" in walk((0, settling), (300, settling)).failed


def test_what_cannot_be_cleared_away_is_no_failure():
    both = scene(container(), container(rev="a"))
    assert walk((0, both), (9999, both)).failed == ""


def test_what_its_check_was_promised_is_waited_for():
    slow = {"exec": ["/check"], "startPeriod": "10m", "interval": "30s", "retries": 3}
    settling = scene(container(), wanted=service(healthcheck=slow), settling={1})
    assert walk((0, settling), (729, settling)).failed == ""
    assert walk((0, settling), (730, settling)).failed


def test_while_a_person_must_act_no_deadline_runs():
    stuck = scene(container(rev="a"))
    assert walk((9999, stuck), (9999, stuck), awaits_others=True).failed == ""


def test_an_unhealthy_replica_fails_it_at_once():
    assert walk((1, scene(container(health="unhealthy")))).failed == "web.1-bbbbbbbb is unhealthy"
    ill = scene(container(health="unhealthy", rev="a"))
    assert walk((1, ill)).failed == "", "it is another revision's"


def test_an_unhealthy_replica_that_is_cut_off_is_put_back_first():
    cut_off = scene(container(health="unhealthy", settings={"networks": ()}))
    assert walk((1, cut_off)).failed == ""
    assert walk((0, cut_off), (9999, cut_off)).failed != "", "the wait is bounded"


def test_a_replica_that_dies_again_and_again_fails_it():
    dead = container(state="restarting")
    assert walk((1, scene(dead, failures={1: FAILURES - 1}))).failed == ""
    assert walk((1, scene(dead, failures={1: FAILURES}))).failed == (
        "web.1-bbbbbbbb failed 3 times in a row: it exited with 3"
    )


def dying(every_s, looks):
    """Looks at one that runs at each of them, and died before it."""
    return [(every_s, scene(container(), failures={1: n})) for n in range(1, looks + 1)]


@pytest.mark.parametrize("every_s", [12, 30, WATCH_S - 1])
def test_what_dies_again_and_again_while_it_is_watched_fails_though_it_runs_at_each_look(every_s):
    course = walk((1, scene(container())))
    twice = walk(*dying(every_s, FAILURES - 1), start=course)
    assert (twice.good, twice.failed) == (OLD, "")
    assert walk(*dying(every_s, FAILURES), start=course).failed == (
        "web.1-bbbbbbbb failed 3 times in a row: it exited with 3"
    )


def test_each_failure_makes_the_watch_longer_and_it_ends():
    watched = walk((1, scene(container())))
    once = scene(container(), failures={1: 1})
    course = walk((WATCH_S, once), start=watched)
    assert (course.good, due_in_s(course, once)) == (OLD, WATCH_S)
    assert walk((WATCH_S, once), start=course).good == B
    twice = scene(container(), failures={1: FAILURES - 1})
    assert walk((FAILURES * WATCH_S, twice), start=watched).good == B


def test_replicas_that_each_died_once_fail_no_rollout():
    wanted = service(replicas=FAILURES)
    slots = range(1, FAILURES + 1)
    done = scene(*(container(slot=n) for n in slots), wanted=wanted)
    once = replace(done, histories=dict.fromkeys(slots, SlotHistory(count=1)))
    course = walk((1, done), (WATCH_S, once))
    assert (course.good, course.failed) == (OLD, "")
    assert walk((WATCH_S, once), start=course).good == B


def test_a_task_that_ended_well_after_failures_has_not_failed():
    task = service(restart={"policy": "OnFailure"})
    restart = {"restart": "on-failure", "restart_max": 10}
    ended = container(state="exited", settings=restart, admitted=restart)
    done = scene(ended, wanted=task, failures={1: FAILURES})
    assert walk((1, done)).failed == ""


def test_what_fails_while_it_is_watched_fails_the_rollout():
    course = walk((1, scene(container())))
    assert walk((5, scene(container(health="unhealthy"))), start=course).failed


def test_what_is_good_fails_no_rollout_any_more():
    good = replace(BEGUN, good=B)
    assert walk((9999, scene(container(health="unhealthy"))), start=good) == good


@pytest.mark.parametrize("spec", [{"state": "Stopped"}, {"replicas": 0}])
def test_nothing_is_judged_while_nothing_should_run(spec):
    assert walk((9999, scene(wanted=service(**spec)))) == BEGUN


def test_a_task_that_has_ended_well_is_as_far_as_can_be():
    task = service(restart={"policy": "Never"})
    no = {"restart": "no"}
    ended = container(state="exited", settings=no, admitted=no)
    assert walk((1, scene(ended, wanted=task))).held_s == 0.0
    failed = container(state="exited", exit_code=1, settings=no, admitted=no)
    assert walk((1, scene(failed, wanted=task))).held_s is None


def test_what_comes_right_after_all_has_not_failed():
    failed = replace(BEGUN, failed="why", furthest=(1, 1, 0))
    assert walk((1, scene(container(), container(rev="a"))), start=failed).failed == "why"
    assert walk((1, scene(container())), start=failed) == walk((1, scene(container())))


def test_what_came_right_fails_by_what_fails_after_that():
    def look(count, **fields):
        return scene(container(**fields), failures={1: count})

    course = walk((1, look(FAILURES, state="restarting")))
    assert course.failed
    course = walk((10, look(FAILURES)), start=course)
    assert (course.failed, course.held_s) == ("", 0.0)
    assert FORM.from_json(FORM.to_json(course)) == course
    assert walk((WATCH_S, look(FAILURES)), start=course).good == B
    further = 2 * FAILURES - 1
    assert walk((30, look(further)), (30, look(further)), start=course).failed == ""
    assert walk((30, look(further)), (30, look(further + 1)), start=course).failed


def test_a_look_is_due_when_time_changes_something():
    stuck, done = scene(container(rev="a")), scene(container())
    assert due_in_s(walk((100, stuck)), stuck) == 500
    assert due_in_s(walk((0, done), (20, done)), done) == WATCH_S - 20
    assert due_in_s(replace(BEGUN, failed="why"), stuck) is None
    assert due_in_s(replace(BEGUN, good=B), done) is None


@pytest.mark.parametrize("spec", [{"state": "Stopped"}, {"replicas": 0}])
def test_no_look_is_due_while_nothing_should_run(spec):
    # Watched for as long as it is after a failure, which was forgiven when it was stopped.
    course = replace(BEGUN, held_s=WATCH_S)
    there = scene(container(), wanted=service(**spec))
    assert walk((30, there), start=course) == course
    assert due_in_s(course, there) is None


def test_no_look_is_due_for_what_cannot_be_cleared_away_after_the_deadline():
    both = scene(container(), container(rev="a"))
    course = walk((0, both), (599, both))
    assert due_in_s(course, both) == 1
    course = walk((2, both), start=course)
    assert (course.failed, due_in_s(course, both)) == ("", None)


def test_a_course_survives_a_restart():
    for course in (NEW, replace(BEGUN, idle_s=1.5, held_s=2.25, failed="why", furthest=(3, 2, 1))):
        assert FORM.from_json(FORM.to_json(course)) == course
    with pytest.raises(ValueError, match=r"^furthest"):
        FORM.from_json({**FORM.to_json(NEW), "furthest": [1, 2]})


LESS, SAME, MORE = (service(resources={"memory": size}) for size in ("256Mi", "512Mi", "1Gi"))
WELL = RolloutProgress(revision=B, good=B, furthest=(1, 1, 1), held_s=60.0, limits=SAME.limits)


def test_more_of_a_limit_leaves_a_good_revision_good():
    assert walk((5, scene(container(), wanted=MORE)), start=WELL) == replace(
        WELL, limits=MORE.limits
    )


def test_less_of_a_limit_is_watched_again_and_fails_by_its_container():
    course = walk((5, scene(container(), wanted=LESS)), start=WELL)
    assert (course.good, course.furthest, course.limits) == ("", (0, 0, 0), LESS.limits)
    less = {"memory": 256 << 20}
    ill = scene(container(admitted=less, health="unhealthy"), wanted=LESS)
    assert walk((5, ill), start=course).failed == "web.1-bbbbbbbb is unhealthy"
    well = scene(container(admitted=less), wanted=LESS)
    assert walk((5, well), (WATCH_S, well), start=course).good == B


def test_other_limits_begin_a_failed_rollout_again():
    failed = replace(BEGUN, failed="it died", limits=SAME.limits)
    course = walk((5, scene(container(), wanted=MORE)), start=failed)
    assert (course.failed, course.good) == ("", OLD)


def test_limits_are_saved():
    assert FORM.from_json(FORM.to_json(WELL)) == WELL


WAITING, FAILED = (
    HookState(job_key("default", "job"), "before", word, "run 1 exited with 3")
    for word in (HookWord.WAITING, HookWord.FAILED)
)
NOT_YET = (("job", 0),)


def around(seen, *, before=None, after=None, failures=NOT_YET):
    """A look at a service with jobs around its rollout."""
    return replace(seen, hooks=HookFacts(before, after, failures))


def test_a_job_before_a_rollout_takes_its_time_and_its_failure_fails_the_rollout():
    old = scene(container(rev="a"))
    course = walk((9999, around(old, before=WAITING)), (9999, around(old, before=WAITING)))
    assert (course.failed, course.idle_s) == ("", 0.0)
    failed = walk((1, around(old, before=FAILED)), start=course)
    assert failed.failed == "the job job of rollout.before failed: run 1 exited with 3"
    # Nothing was stopped, and no container comes right: a person tries again.
    assert walk((1, around(old, before=WAITING)), start=failed).failed


def test_a_revision_is_good_only_after_the_job_that_follows_its_rollout():
    done = scene(container())
    course = walk((1, around(done, after=WAITING)), (WATCH_S, around(done, after=WAITING)))
    assert (course.served, course.held_s, course.good) == (True, None, OLD)
    assert outcome_of(course) == ""
    course = walk((1, around(done)), (WATCH_S, around(done)), start=course)
    assert course.good == B


def test_a_failed_job_after_a_rollout_fails_it_although_all_containers_are_well():
    done = scene(container())
    assert walk((1, around(scene(container(rev="a")), after=FAILED))).failed == ""
    course = walk((1, around(done, after=FAILED)), (1, around(done, after=FAILED)))
    assert course.failed.startswith("the job job of ")
    assert outcome_of(course) == "failed"


def test_failures_of_an_earlier_try_are_excused():
    old = scene(container(rev="a"))
    again = walk((1, around(old, before=WAITING, failures=(("job", 2),))))
    assert again.excused == (("job", 2),)
    later = walk((1, around(old, before=FAILED, failures=(("job", 3),))), start=again)
    assert later.excused == (("job", 2),)
    assert FORM.from_json(FORM.to_json(later)) == later
    resumed = walk((1, around(old, before=WAITING, failures=(("job", 3),))), start=resume(later))
    assert (resumed.failed, resumed.excused) == ("", (("job", 3),))
