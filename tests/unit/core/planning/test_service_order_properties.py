"""What holds of services that depend on one another, whatever graph hypothesis thinks of."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.encoding import graph
from controller.core.manifests.check_together import desired_of
from controller.core.manifests.job_checks import dependencies_of
from controller.core.planning.service_order import KnownServices
from controller.model.desired.desired import Service
from controller.model.desired.plan import CreateContainer, StartContainer, StopContainer
from controller.model.desired.spec.service import DependencyCondition, RestartPolicy
from controller.model.names import Key, service_key
from controller.model.observed import Container, ContainerState, Observed
from tests.examples import examples
from tests.plans import flat_text
from tests.worlds import begun, declared, engine, perform, plan, service

pytestmark = pytest.mark.slow

many = settings(max_examples=examples(20))

NAMES = ("api", "cache", "db", "log", "queue", "web")
HEALTHCHECK = {"exec": ["check"]}


@st.composite
def services(draw: st.DrawFn) -> list[Service]:
    """Some services; each depends on some of those that were drawn before it."""
    made: list[Service] = []
    for name in draw(st.permutations(NAMES)):
        task = draw(st.integers(0, 3)) == 0
        spec: dict[str, object] = {"restart": {"policy": "OnFailure"}} if task else {}
        wanted = []
        for other in made:
            if not draw(st.booleans()):
                continue
            ends = other.spec.restart.policy is RestartPolicy.ON_FAILURE
            conditions = ["Started", "Completed"] if ends else ["Started", "Healthy"]
            wanted.append({"name": other.key.name, "condition": draw(st.sampled_from(conditions))})
        made.append(
            service(
                name,
                replicas=draw(st.integers(1, 2)),
                healthcheck=HEALTHCHECK,
                dependsOn=wanted,
                **spec,  # type: ignore[arg-type]
            )
        )
    return made


def lived(observed: Observed, wanted: list[Service]) -> Observed:
    """What becomes of it with time: what serves gets healthy, and tasks come to their end."""
    tasks = {one.key for one in wanted if one.spec.restart.policy is RestartPolicy.ON_FAILURE}

    def later(container: Container) -> Container:
        if container.key in tasks and container.running:
            return replace(container, state=ContainerState.EXITED, exit_code=0)
        return replace(container, health="healthy" if container.running else "")

    return replace(observed, containers=tuple(map(later, observed.containers)))


def was_met(seen: Observed, key: Key, condition: DependencyCondition) -> bool:
    """Tell whether what is waited for was so at this moment."""
    there = seen.of(key)
    match condition:
        case DependencyCondition.STARTED:
            return any(c.started_at for c in there)
        case DependencyCondition.HEALTHY:
            return any(c.health == "healthy" for c in there)
        case DependencyCondition.COMPLETED:
            return bool(there) and all(c.state is ContainerState.EXITED for c in there)


@many
@given(services())
def test_whatever_depends_on_whatever_everything_comes_up_and_in_the_order(wanted):
    desired, observed = declared(*wanted), engine()
    for _ in range(len(NAMES) + 1):
        observed, steps = perform(begun(plan(desired, observed)), observed)
        for step in steps:
            if isinstance(step.action, CreateContainer | StartContainer):
                mine = next(one for one in wanted if one.key == step.action.object)
                for key, condition in dependencies_of(mine.key, mine.spec).items():
                    assert was_met(step.before, key, condition), (step.action, key)
        observed = lived(observed, wanted)
    assert flat_text(plan(desired, observed)) == "nothing to do\n"
    assert len(observed.containers) == sum(one.spec.replicas for one in wanted)


@many
@given(services())
def test_each_key_alone_waits_for_what_is_seen_of_the_others(wanted):
    desired, observed = declared(*wanted), engine()
    for _ in range(3 * len(NAMES)):
        for one in wanted:
            mine = replace(observed, containers=observed.of(one.key))
            made = plan(desired, mine, only=one.key, known_services=KnownServices(observed))
            observed, _ = perform(begun(made), observed)
            observed = lived(observed, wanted)
    assert flat_text(plan(desired, observed)) == "nothing to do\n"


@many
@given(services(), st.sets(st.sampled_from(NAMES)))
def test_what_goes_is_stopped_after_all_that_depended_on_it(wanted, going):
    observed = engine()
    for _ in NAMES:
        observed = lived(perform(begun(plan(declared(*wanted), observed)), observed)[0], wanted)
    remembered = {one.key: frozenset(dependencies_of(one.key, one.spec)) for one in wanted}
    left = [one for one in wanted if one.key.name not in going]
    sound = [replace(one, spec=one.spec.model_copy(update={"depends_on": ()})) for one in left]
    made = plan(declared(*sound), observed, known_services=KnownServices(remembered=remembered))
    _, steps = perform(made, observed)
    for step in steps:
        if isinstance(step.action, StopContainer):
            for key, others in remembered.items():
                if step.action.object in others and key.name in going:
                    assert not any(c.running for c in step.before.of(key))
    assert {
        step.action.object.name for step in steps if step.action.verb == "remove-container"
    } == going


@many
@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES)), min_size=1))
def test_a_circle_is_always_refused_and_only_its_members_stand_back(edges):
    inside = {name: sorted(others & edges.keys()) for name, others in edges.items()}
    files = {
        f"{name}.yaml": "apiVersion: trimtab/v1\nkind: Service\n"
        f"metadata: {{name: {name}, owner: team}}\n"
        f"spec: {{image: 'a/b:1', dependsOn: [{', '.join(f'{{name: {o}}}' for o in others)}]}}\n"
        for name, others in inside.items()
    }
    found = desired_of(files)
    keys = {
        service_key("default", name): {service_key("default", o) for o in others}
        for name, others in inside.items()
    }
    members = frozenset().union(*graph.cycles(keys))
    assert found.blind_keys == members
    assert {one.key for one in found.services} == keys.keys() - members
    told = [p for p in found.problems if p.code == "dependency.cycle"]
    assert {p.key for p in told} == members
    for problem in told:
        assert problem.key is not None
        written = problem.message.split(": ")[1].partition(" (")[0].split(" -> ")
        assert written[0] == written[-1] == problem.key.name
        assert all(b in inside[a] for a, b in itertools.pairwise(written))
