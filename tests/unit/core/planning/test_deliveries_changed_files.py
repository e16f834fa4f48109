"""Files in plans: contents come before containers, and changed contents into running ones."""

from __future__ import annotations

from dataclasses import replace

from controller.core.manifests.check_together import desired_of
from controller.core.planning.deliveries import changed_files
from controller.model.desired.desired import Desired
from controller.model.desired.plan import DeliverFiles, SignalContainer
from controller.model.observed import Image, Observed
from tests.worlds import perform
from tests.worlds import plan as plan_of

TEXT = """\
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, owner: team}
spec: {data: {page: WORD}}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec:
  image: web:1
  replicas: 2
  mounts: [{type: config, source: site, target: /srvCHANGE}]
"""
SIGNAL = ", onChange: {signal: SIGHUP}"
EMPTY = Observed("i", images={"web:1": Image("sha256:" + "1" * 64)})


def declared(word: str, change: str = "") -> Desired:
    desired = desired_of({"f.yaml": TEXT.replace("WORD", word).replace("CHANGE", change)})
    assert not [p for p in desired.problems if p.severity.value == "error"]
    return desired


def settled(desired: Desired, observed: Observed) -> Observed:
    """Perform plans until nothing is left."""
    for _ in range(6):
        plan = plan_of(desired, observed)
        if not plan.pending:
            return observed
        observed, _steps = perform(plan, observed)
    raise AssertionError(plan_of(desired, observed))


def verbs(desired: Desired, observed: Observed) -> list[str]:
    return [action.verb for action in plan_of(desired, observed).actions]


def test_a_content_is_delivered_once_before_the_first_container() -> None:
    found = verbs(declared("one"), EMPTY)
    assert found.count("deliver-files") == 1
    assert found.index("deliver-files") < found.index("create-container")


def test_what_runs_needs_nothing_and_a_changed_content_is_a_rollout() -> None:
    there = settled(declared("one"), EMPTY)
    assert verbs(declared("one"), there) == []
    changed = verbs(declared("two"), there)
    assert changed.index("deliver-files") < changed.index("create-container")
    assert "signal-container" not in changed


def test_a_content_in_place_is_delivered_and_each_container_gets_one_signal() -> None:
    there = settled(declared("one", SIGNAL), EMPTY)
    actions = plan_of(declared("two", SIGNAL), there).actions
    assert [type(each) for each in actions] == [DeliverFiles, SignalContainer, SignalContainer]
    after, _ = perform(plan_of(declared("two", SIGNAL), there), there)
    assert verbs(declared("two", SIGNAL), after) == []


def test_a_planned_delivery_of_a_secret_stands_for_no_config_of_the_same_name() -> None:
    there = settled(declared("one", SIGNAL), EMPTY)
    desired = declared("two", SIGNAL)
    (web,) = desired.services
    for kind, delivered in (("secret", True), ("config", False)):
        made = {(kind, "site")}
        actions = changed_files(web, there.of(web.key), desired, there, made=made)
        assert any(isinstance(each, DeliverFiles) for each in actions) is delivered


def test_without_a_signal_the_content_is_delivered_alone() -> None:
    there = settled(declared("one", ", onChange: None"), EMPTY)
    assert verbs(declared("two", ", onChange: None"), there) == ["deliver-files"]


def test_a_stopped_container_gets_no_signal() -> None:
    there = settled(declared("one", SIGNAL), EMPTY)
    first, *others = there.containers
    from controller.model.observed import ContainerState

    down = replace(first, state=ContainerState.PAUSED)
    found = plan_of(declared("two", SIGNAL), replace(there, containers=(down, *others))).actions
    signalled = [each.target for each in found if isinstance(each, SignalContainer)]
    assert signalled == [others[0].name]


def test_a_content_that_nobody_has_is_a_problem_and_nothing_is_created() -> None:
    desired = declared("one")
    (web,) = desired.services
    lost = replace(web.deliveries[0], content="sha256:" + "0" * 64)
    rolled_back = replace(desired, services=(replace(web, deliveries=(lost,)),))
    plan = plan_of(rolled_back, EMPTY)
    assert [problem.code for problem in plan.problems] == ["files.lost"]
    assert "create-container" not in [action.verb for action in plan.actions]
