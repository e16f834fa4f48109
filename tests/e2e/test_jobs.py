"""Jobs on a real engine: once for each revision, whatever happens to containers and processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.instance import Host, eventually, has, web

JOB = """\
apiVersion: trimtab/v1
kind: Job
metadata: {{name: {name}, owner: team}}
spec:
  image: {image}
  entrypoint: [/bin/sh, -c, "{script}"]
  stopGracePeriod: 1s
{extra}
"""
IMAGE = "trimtab.local/web:1"


def job(name: str, script: str, extra: str = "") -> str:
    """Return a document of a job; *extra* are lines of its spec."""
    indented = "\n".join(f"  {line}" for line in extra.splitlines())
    return JOB.format(name=name, image=IMAGE, script=script, extra=indented)


def runs(host: Host, name: str) -> list[dict[str, Any]]:
    """Return the runs that the broker remembers."""
    return list(host.resource(name).get("runs", []))


def outcomes(host: Host, name: str) -> list[str]:
    return [run.get("outcome", "") for run in runs(host, name)]


def test_a_job_runs_once_for_each_revision(host: Host) -> None:
    host.write("job.yaml", job("migrate", "echo migrated"))
    host.write("fill.yaml", job("fill", "echo filled", "completions: 3\nparallelism: 2"))
    host.up()
    try:
        eventually(lambda: has(host.resource("migrate"), "Complete"))
        eventually(lambda: has(host.resource("fill"), "Complete"))
        assert outcomes(host, "fill") == ["succeeded"] * 3
        assert "3/3 completed" in host.cli("run-job", "fill").stdout
        assert outcomes(host, "fill") == ["succeeded"] * 6
        assert host.cli("history", "fill").stdout.count("3/3") == 2
        assert outcomes(host, "migrate") == ["succeeded"]
        (container,) = host.containers("migrate")
        assert container["Name"].startswith("/migrate.run-1-")
        assert container["HostConfig"]["RestartPolicy"]["Name"] == "no"
        row = host.cli("status").stdout.splitlines()[2].split()
        assert row[:3] == ["Job", "default", "migrate"]
        assert "Completed" in row
        assert "migrated" in host.cli("logs", "migrate").stdout
        described = host.cli("describe", "migrate").stdout
        assert "Completed" in described
        assert "exited with 0" in described
        host.cli("journal", "verify")

        # Without its container, and after a restart of both processes, the run stays remembered.
        host.engine.docker("rm", container["Id"])
        host.stop()
        host.up()
        eventually(lambda: has(host.resource("migrate"), "Complete"))
        assert host.containers("migrate") == []

        host.write("job.yaml", job("migrate", "echo again"))
        eventually(lambda: outcomes(host, "migrate") == ["succeeded", "succeeded"])
        assert [c["Name"][:15] for c in host.containers("migrate")] == ["/migrate.run-2-"]
        host.cli("plan")  # exits with 2 if anything were to be done
    finally:
        host.stop()


def test_a_run_fails_holds_its_dependents_is_stopped_at_its_deadline_and_cut_by_the_engines_end(
    host: Host,
) -> None:
    """Jobs of one instance, each of which ends in its own way."""
    host.write("migrate.yaml", job("migrate", "exit 3", "backoffLimit: 0"))
    on_it = "dependsOn: [{kind: Job, name: migrate, condition: Completed}]\n"
    host.write("web.yaml", web("web", extra=on_it))
    host.write("cut.yaml", job("cut", "sleep 300", "interrupted: Fail"))
    host.write("long.yaml", job("long", "sleep 300", "activeDeadline: 3s\nbackoffLimit: 0"))
    host.up()
    try:
        eventually(lambda: has(host.resource("migrate"), "Failed"))
        eventually(lambda: has(host.resource("web"), "Stalled"))
        assert host.containers("web") == []
        (failed,) = runs(host, "migrate")
        assert failed["why"] == "exited with 3"
        host.cli("run-job", "migrate", expect=5)
        assert outcomes(host, "migrate") == ["failed", "failed"]

        eventually(lambda: has(host.resource("long"), "Failed"))
        (long,) = runs(host, "long")
        assert long["outcome"] == "failed"
        assert long["why"].startswith("was stopped by trimtab")

        (container,) = host.containers("cut")
        assert container["State"]["Status"] == "running"
        host.engine.kill()
        host.engine.start()
        eventually(lambda: has(host.resource("cut"), "Failed"))
        assert outcomes(host, "cut") == ["cut"]
        assert [c["Id"] for c in host.containers("cut")] == [container["Id"]]

        # Nobody starts a run again, not even an operator.
        refused = host.docker_through_broker("start", container["Id"], check=False)
        assert "job.started" in refused.stderr + refused.stdout
    finally:
        host.stop()


@pytest.mark.also_signed
def test_a_migration_comes_before_the_replacement_of_a_service(host: Host) -> None:
    on_it = (
        "dependsOn: [{kind: Job, name: migrate, condition: Completed}]\nrollout: {minHealthy: 0s}\n"
    )
    host.write("migrate.yaml", job("migrate", "exit 0"))
    host.write("web.yaml", web("web", extra=f"{on_it}env: {{LEVEL: info}}"))
    host.up()
    try:
        eventually(lambda: host.is_ready("web"))
        (before,) = host.running_ids("web")

        # The next version's migration fails: nothing of the service is stopped.
        host.write("migrate.yaml", job("migrate", "exit 3", "backoffLimit: 0"))
        host.write("web.yaml", web("web", extra=f"{on_it}env: {{LEVEL: debug}}"))
        eventually(lambda: has(host.resource("migrate"), "Failed"))
        eventually(lambda: has(host.resource("web"), "Stalled"))
        assert host.running_ids("web") == [before]

        host.write("migrate.yaml", job("migrate", "echo works"))
        eventually(lambda: host.running_ids("web") not in ([], [before]))
        eventually(lambda: host.is_ready("web"))
        assert outcomes(host, "migrate") == ["succeeded", "failed", "succeeded"]
    finally:
        host.stop()
