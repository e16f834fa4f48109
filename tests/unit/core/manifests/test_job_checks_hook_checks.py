"""Jobs of rollouts in documents: declared, of the trigger Rollout, named once, and no circle."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of

WEB = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: web, owner: team}}
spec:
  image: ghcr.io/platformnetwork/web:1
  rollout: {rollout}
"""
JOB = """\
---
apiVersion: trimtab/v1
kind: Job
metadata: {{name: {name}, owner: {owner}}}
spec:
  image: {image}
  {extra}
"""
IMAGE, FROM_SERVICE = "ghcr.io/platformnetwork/web:1", "{fromService: true}"


def job(
    name: str, extra: str = "trigger: Rollout", *, owner: str = "team", image: str = IMAGE
) -> str:
    return JOB.format(name=name, extra=extra, owner=owner, image=image)


def problems(rollout: str, *others: str) -> list[str]:
    text = WEB.format(rollout=rollout) + "".join(others)
    found = desired_of({"f.yaml": text}).problems
    return [f"{p.line}:{p.column} {p.code} {p.severity.value}" for p in found]


def test_jobs_of_a_rollout_are_declared_with_its_trigger() -> None:
    others = job("migrate", image=FROM_SERVICE), job("smoke")
    assert problems("{before: [migrate], after: [smoke]}", *others) == []
    (service,) = desired_of({"f.yaml": WEB.format(rollout="{}")}).services
    text = WEB.format(rollout="{before: [migrate]}") + others[0]
    assert desired_of({"f.yaml": text}).services[0].revision == service.revision


@pytest.mark.parametrize(
    ("rollout", "others", "found"),
    [
        ("{before: [migrate]}", (), ["6:22 rollout.job error"]),
        ("{before: [migrate]}", (job("migrate", "trigger: Manual"),), ["6:22 rollout.job error"]),
        (
            "{before: [migrate]}",
            (job("migrate", owner="other"),),
            ["6:22 rollout.job error"],
        ),
        (
            "{before: [migrate], after: [migrate]}",
            (job("migrate"),),
            ["6:40 rollout.job error"],
        ),
        (
            "{after: [migrate]}",
            (job("migrate", "trigger: Rollout\n  replicas: 2"),),
            ["6:21 rollout.job warning", "14:3 job.field error"],
        ),
        (
            "{}",
            (job("migrate", "trigger: Manual", image=FROM_SERVICE),),
            ["12:10 job.image error"],
        ),
        (
            "{}",
            (job("migrate", image="{fromService: false}"),),
            ["12:10 field.value error"],
        ),
    ],
    ids=[
        "undeclared",
        "trigger",
        "owner",
        "twice",
        "broken",
        "image without a service",
        "image of something else",
    ],
)
def test_a_job_that_cannot_run_for_the_rollout_is_a_problem(
    rollout: str, others: tuple[str, ...], found: list[str]
) -> None:
    assert problems(rollout, *others) == found


def test_a_service_that_its_job_waits_for_is_a_circle() -> None:
    waits = "dependsOn: [{name: web}]\n  trigger: Rollout"
    assert problems("{before: [migrate]}", job("migrate", waits)) == [
        "6:22 dependency.cycle error",
        "13:22 dependency.cycle error",
    ]
    # A job after the rollout finds the service running.
    assert problems("{after: [migrate]}", job("migrate", waits)) == []


def test_nothing_depends_on_a_job_of_rollouts() -> None:
    text = (
        WEB.format(rollout="{}")
        + "  dependsOn: [{kind: Job, name: migrate, condition: Completed}]\n"
    )
    (problem,) = desired_of({"f.yaml": text + job("migrate")}).problems
    assert problem.code == "dependency.condition"
