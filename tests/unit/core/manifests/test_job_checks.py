"""Documents of jobs: fields that a job doesn't have, schedules, zones and shared names."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of

JOB = """\
apiVersion: trimtab/v1
kind: Job
metadata: {{name: {name}, owner: team}}
spec:
  image: ghcr.io/platformnetwork/web:1
{extra}
"""
SERVICE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec: {image: "ghcr.io/platformnetwork/web:1"}
"""


def problems(extra: str = "", name: str = "backup", more: str = "") -> list[str]:
    text = JOB.format(name=name, extra=f"  {extra}") + (f"---\n{more}" if more else "")
    return [
        f"{problem.line}:{problem.column} {problem.code}"
        for problem in desired_of({"f.yaml": text}).problems
    ]


def test_a_job_is_declared_with_its_revision() -> None:
    desired = desired_of({"f.yaml": JOB.format(name="backup", extra="  command: [dump]")})
    (job,) = desired.jobs
    assert desired.services == ()
    assert str(job.key) == "Job/default/backup"
    (later,) = desired_of(
        {"f.yaml": JOB.format(name="backup", extra="  command: [dump]\n  backoffLimit: 0")}
    ).jobs
    assert later.revision == job.revision
    (other,) = desired_of({"f.yaml": JOB.format(name="backup", extra="  command: [x]")}).jobs
    assert other.revision != job.revision


VOLUME = "[{type: volume, source: data, target: /data}]"


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ("replicas: 2", ["6:3 job.field"]),
        ("restart: {policy: Never}", ["6:3 job.field"]),
        ("rollout: {minHealthy: 1s}", ["6:3 job.field"]),
        ("healthcheck: {tcp: {port: 80}}", ["6:3 job.field"]),
        ('schedule: "0 3 * * *"', []),
        ('schedule: "0 0 30 2 *"', ["6:13 job.schedule"]),
        ('schedule: "@daily"', ["6:13 job.schedule"]),
        ("timeZone: Europe/Berlin", ["6:3 job.schedule"]),
        ('schedule: "0 3 * * *"\n  timeZone: Europe/Nowhere', ["7:13 job.zone"]),
        ('schedule: "0 3 * * *"\n  trigger: Manual', ["7:12 job.schedule"]),
        ("completions: 3\n  parallelism: 2", []),
        ("completions: 51", ["6:16 field.value"]),
        ("completions: 50\n  parallelism: 11", ["7:16 field.value"]),
        ("parallelism: 2", ["6:16 job.completions"]),
        (
            f"completions: 2\n  parallelism: 2\n  mounts: {VOLUME}",
            ["8:12 volume.exclusive"],
        ),
        (f"completions: 2\n  mounts: {VOLUME}", []),
        ("backoffLimit: 99", ["6:17 field.value"]),
    ],
)
def test_a_field_that_cannot_hold_is_a_problem_at_its_place(extra: str, found: list[str]) -> None:
    assert problems(extra) == found


def test_a_job_and_a_service_of_one_name_are_both_left_alone() -> None:
    assert problems(name="web", more=SERVICE) == ["3:18 job.name", "10:18 job.name"]


def test_a_name_leaves_room_for_the_number_of_a_run() -> None:
    assert problems(name="a" * 21) == ["3:18 name.invalid"]
    assert problems(name="a" * 20) == []


def test_jobs_that_depend_on_one_another_in_a_circle_are_a_problem() -> None:
    def on(name: str) -> str:
        return f"dependsOn: [{{kind: Job, name: {name}, condition: Completed}}]"

    other = JOB.format(name="other", extra=f"  {on('backup')}")
    found = problems(on("other"), more=other)
    assert [each.split()[1] for each in found] == ["dependency.cycle", "dependency.cycle"]


@pytest.mark.parametrize(
    ("dependency", "code"),
    [
        ("{kind: Job, name: other}", "dependency.condition"),
        ("{kind: Job, name: nothing, condition: Completed}", "dependency.undeclared"),
        ("{name: other, condition: Completed}", "dependency.undeclared"),
    ],
)
def test_a_dependency_on_a_job_names_it_and_its_completion(dependency: str, code: str) -> None:
    other = JOB.format(name="other", extra="")
    found = problems(f"dependsOn: [{dependency}]", more=other)
    assert [each.split()[1] for each in found] == [code]
