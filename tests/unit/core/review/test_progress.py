"""What a controller did, in lines and counts."""

from dataclasses import replace

from controller.core.review.performed_actions import PerformedAction, down_s
from controller.core.review.progress import acts_json, summary_of_acts
from tests.worlds import WEB, container, declared, deny, engine, plan, service


def done(desired, observed, **options):
    """The acts of a plan that is performed to its end."""
    actions = (a for a in plan(desired, observed, **options).actions if a.verb != "wait")
    return [
        PerformedAction(number, 60.0 * number, action) for number, action in enumerate(actions, 1)
    ]


def texts(acts, since=0):
    return [act["text"] for act in acts_json(acts, since=since) if act["text"] is not None]


def test_a_new_service_is_told_step_by_step():
    acts = done(declared(service()), engine(networks=(), images={}))
    assert texts(acts) == [
        "web: pulled ghcr.io/platformnetwork/web:1",
        "web: created network platform-network",
        "web: created web.1-bbbbbbbb",
        "web: started web.1-bbbbbbbb",
    ]
    assert summary_of_acts(acts, declared(service())).text == (
        "1 created, 0 replaced, 0 updated in place, 0 removed; 1 image pulled, 1 network created"
    )


def test_each_replaced_replica_is_counted():
    desired = declared(service(replicas=2))
    acts = done(desired, engine(container(rev="a"), container(slot=2, rev="a")))
    assert texts(acts) == [
        "web: created web.1-bbbbbbbb",
        "web: started web.1-bbbbbbbb",
        "web: stopped web.1-aaaaaaaa",
        "web: removed web.1-aaaaaaaa, replaced replica 1 of 2",
        "web: created web.2-bbbbbbbb",
        "web: started web.2-bbbbbbbb",
        "web: stopped web.2-aaaaaaaa",
        "web: removed web.2-aaaaaaaa, replaced replica 2 of 2",
    ]
    assert summary_of_acts(acts, desired).text == (
        "0 created, 1 replaced, 0 updated in place, 0 removed"
    )
    # Whoever asks again gets what is new, with what was before in mind.
    last = acts[-1].number
    assert texts(acts, since=last - 1) == ["web: removed web.2-aaaaaaaa, replaced replica 2 of 2"]


def test_what_goes_without_a_successor_is_not_called_replaced():
    created = done(declared(service()), engine())
    gone = done(declared(), engine(container()))
    assert "web: removed web.1-bbbbbbbb" in texts([*created, *gone])


def test_what_is_put_back_says_why():
    desired = declared(service(replicas=2))
    altered = container(settings={"memory": 64 << 20})
    moved = container(slot=2, settings={"networks": ("bridge", "platform-network"), "name": "mine"})
    assert texts(done(desired, engine(altered, moved))) == [
        "web: updated web.1-bbbbbbbb (memory is 64Mi, admitted 512Mi)",
        "web: took mine off bridge",
        "web: renamed mine to web.2-bbbbbbbb",
    ]


def test_a_service_that_is_gone_from_the_files_counts_as_removed():
    acts = done(declared(), engine(container("team-web", namespace="team")))
    assert texts(acts)[:2] == [
        "team/team-web: stopped team.team-web.1-bbbbbbbb",
        "team/team-web: removed team.team-web.1-bbbbbbbb",
    ]
    assert summary_of_acts(acts, declared()).services == {"remove": 1}


def test_a_service_that_was_created_and_is_gone_again_counts_as_removed():
    acts = [*done(declared(service()), engine()), *done(declared(), engine(container()))]
    assert summary_of_acts(acts, declared()).services == {"remove": 1}


def test_a_new_service_counts_as_created_though_its_first_replica_was_made_before():
    desired = declared(service(replicas=2))
    first, *later = done(desired, engine())
    assert summary_of_acts(later, desired, earlier=[first]).services == {"create": 1}
    before = done(declared(service()), engine())
    added = done(desired, engine(container()))
    assert summary_of_acts(added, desired, earlier=before).services == {"add-replicas": 1}, (
        "it was scaled"
    )
    assert summary_of_acts([], desired, earlier=before).services == {}


def test_what_failed_is_told_and_not_counted():
    (create, *_) = done(declared(service()), engine())
    failed = replace(create, error="no space left")
    (told,) = acts_json([failed], since=0)
    assert told == {
        "number": 1,
        "time": "1970-01-01T00:01:00Z",
        "object": "Service/default/web",
        "action": "create-container",
        "target": "web.1-bbbbbbbb",
        "slot": 1,
        "cause": "slot 1 is missing",
        "text": "web: create-container web.1-bbbbbbbb failed: no space left",
        "error": "no space left",
    }
    assert summary_of_acts([failed], declared(service())).text == "nothing was done"


def test_how_long_a_slot_was_down_is_measured_from_before_its_stop_until_after_the_start():
    desired = declared(service(rollout={"order": "StopFirst"}))
    acts = done(desired, engine(container(rev="a")))
    verbs = [act.action.verb for act in acts]
    assert verbs[1:4] == ["update-container", "stop-container", "start-container"]
    # An act is noted when it is over: the stop began after the update, at 120 s.
    assert (acts[1].at, acts[3].at, down_s(acts, WEB)) == (120.0, 240.0, 120.0)
    assert down_s(acts[2:], WEB) is None, "nobody saw when the stop began"
    late = [replace(act, at=act.at * 100) for act in acts]
    assert down_s(late, WEB) is None
    started_first = done(declared(service()), engine(container(rev="a")))
    assert down_s(started_first, WEB) is None


def test_the_summary_of_a_plan_and_of_its_acts_agree():
    desired = declared(service("new"), service("stale", replicas=2), service("still"))
    observed = engine(
        container("stale", rev="a"), container("stale", slot=2, rev="a"), container("still")
    )
    found = summary_of_acts(done(desired, observed), desired).services
    assert found == {"create": 1, "replace": 1}
    refused = done(declared(service()), engine(), judge=deny("create-container"))
    assert summary_of_acts(refused, declared(service())).text == "nothing was done"
