"""Plans as people and programs read them, byte for byte."""

from controller.core.review.flat_plan import (
    blocked_json,
    problem_json,
    to_json,
    verdict_json,
)
from controller.model.desired.plan import Blocked, Plan
from controller.model.errors import Problem, Severity
from controller.model.records import Verdict
from tests.plans import flat_text
from tests.worlds import WEB, container, declared, deny, engine, plan, service

BLOCKED = Blocked(WEB, "PrunePending", "would be removed, but nothing is left", "approve it")
WARNING = Problem("image.latest", "latest moves", "a.yaml", 3, 5, severity=Severity.WARNING)
ERROR = Problem(
    "key.unknown", "no key imag", "a.yaml", 4, expected="image or command", remedy="write image"
)


def test_nothing_to_do_is_said_so():
    assert flat_text(Plan()) == "nothing to do\n"


def test_actions_stand_in_columns_with_number_verb_target_cause_and_verdict():
    made = plan(
        declared(service(replicas=10), service("a-longer-name")),
        engine(*(container(slot=n) for n in range(3, 11)), images={}),
        backoff={(WEB, 2): "failed 2 times, not before 12:00:05"},
    )
    assert flat_text(made) == (
        "1 pull-image       ghcr.io/platformnetwork/web:1   "
        "ghcr.io/platformnetwork/web:1 isn't here   allow\n"
        "2 create-container a-longer-name.1-bbbbbbbb        "
        "slot 1 is missing                          allow\n"
        "3 start-container  a-longer-name.1-bbbbbbbb        "
        "slot 1 is missing                          allow\n"
        "4 pull-image       ghcr.io/platformnetwork/web:1   "
        "ghcr.io/platformnetwork/web:1 isn't here   allow\n"
        "5 create-container web.1-bbbbbbbb                  "
        "slot 1 is missing                          allow\n"
        "6 start-container  web.1-bbbbbbbb                  "
        "slot 1 is missing                          allow\n"
        "7 wait             web.2-bbbbbbbb                  "
        "failed 2 times, not before 12:00:05\n"
    )


def test_numbers_are_aligned_to_the_right():
    lines = flat_text(plan(declared(service(replicas=5)), engine())).splitlines()
    assert [line[:2] for line in lines] == [f"{n:>2}" for n in range(1, 11)]


def test_a_denied_action_says_rule_reason_and_remedy():
    made = plan(declared(service()), engine(), judge=deny("create-container"))
    assert flat_text(made) == (
        "1 create-container web.1-bbbbbbbb   slot 1 is missing   deny some.rule\n"
        "    reason: it may not\n"
        "    remedy: ask somebody\n"
    )


def test_only_a_refusal_is_explained():
    mutated = Verdict("mutate", ("limits.default", "caps"), "injected", "", ("memory 2Gi",))
    assert flat_text(plan(declared(service()), engine(), judge=lambda _: mutated)) == (
        "1 create-container web.1-bbbbbbbb   slot 1 is missing   mutate limits.default caps\n"
        "2 start-container  web.1-bbbbbbbb   slot 1 is missing   mutate limits.default caps\n"
    )
    audited = Verdict("audit-deny", ("x",), "it would be refused")
    assert flat_text(plan(declared(service()), engine(), judge=lambda _: audited)) == (
        "1 create-container web.1-bbbbbbbb   slot 1 is missing   audit-deny x\n"
        "    reason: it would be refused\n"
        "2 start-container  web.1-bbbbbbbb   slot 1 is missing   audit-deny x\n"
        "    reason: it would be refused\n"
    )


def test_what_is_blocked_and_problems_and_blindness_come_below():
    bare = Blocked(WEB, "PrunePending", "wait", "")
    made = Plan(blocked=(BLOCKED, bare), problems=(WARNING, ERROR), complete=False)
    assert flat_text(made) == (
        "nothing to do\n"
        "blocked Service/default/web   PrunePending: would be removed, but nothing is left\n"
        "    remedy: approve it\n"
        "blocked Service/default/web   PrunePending: wait\n"
        "a.yaml:3:5: warning image.latest: latest moves\n"
        "a.yaml:4: error key.unknown: no key imag\n"
        "    remedy: write image\n"
        "    expected: image or command\n"
        "incomplete: part of the desired state can't be read, so nothing of it is removed\n"
    )


def test_json_has_the_shape_of_the_contract():
    made = plan(declared(service()), engine())
    assert to_json(made) == {
        "digest": made.digest,
        "complete": True,
        "actions": [
            {
                "seq": 1,
                "action": "create-container",
                "object": "Service/default/web",
                "target": "web.1-bbbbbbbb",
                "slot": 1,
                "cause": "slot 1 is missing",
                "precondition": {"absent": "web.1-bbbbbbbb"},
                "verdict": {"decision": "allow", "rules": []},
            },
            {
                "seq": 2,
                "action": "start-container",
                "object": "Service/default/web",
                "target": "web.1-bbbbbbbb",
                "slot": 1,
                "cause": "slot 1 is missing",
                "precondition": {"revision": "v2:" + "b" * 64},
                "verdict": {"decision": "allow", "rules": []},
            },
        ],
        "problems": [],
    }
    stop = to_json(plan(declared(), engine(container())))["actions"]
    assert isinstance(stop, list)
    assert stop[1]["precondition"] == {"id": "id:web.1-bbbbbbbb", "revision": "v2:" + "b" * 64}


def test_json_shows_blocked_removals_among_the_problems():
    made = Plan(blocked=(BLOCKED,), problems=(ERROR,), complete=False, digest="d")
    assert to_json(made) == {
        "digest": "d",
        "complete": False,
        "actions": [],
        "blocked": [
            {
                "object": "Service/default/web",
                "code": "PrunePending",
                "reason": "would be removed, but nothing is left",
                "remedy": "approve it",
            }
        ],
        "problems": [blocked_json(BLOCKED), problem_json(ERROR)],
    }


def test_problems_carry_their_place_and_severity():
    assert problem_json(WARNING) == {
        "code": "image.latest",
        "severity": "warning",
        "file": "a.yaml",
        "line": 3,
        "column": 5,
        "field": "",
        "message": "latest moves",
        "expected": "",
        "remedy": "",
    }
    assert problem_json(ERROR)["severity"] == "error"
    assert blocked_json(BLOCKED) == {
        "code": "PrunePending",
        "severity": "warning",
        "file": "",
        "line": 0,
        "column": 0,
        "field": "",
        "message": "Service/default/web: would be removed, but nothing is left",
        "expected": "",
        "remedy": "approve it",
    }


def test_a_verdict_says_what_it_has_to_say():
    assert verdict_json(Verdict("deny", ("privileged",), "why", "how", ("what",))) == {
        "decision": "deny",
        "rules": ["privileged"],
        "reason": "why",
        "remedy": "how",
        "mutations": ["what"],
    }
    assert verdict_json(Verdict("deny", problems=(ERROR,))) == {
        "decision": "deny",
        "rules": [],
        "problems": [problem_json(ERROR)],
    }


def test_no_value_of_the_environment_is_shown():
    made = plan(declared(service(env={"TOKEN": "hunter2"})), engine())
    assert "hunter2" not in flat_text(made) + str(to_json(made))
