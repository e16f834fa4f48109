"""Jobs before and after rollouts on a real engine: a migration before, a check after."""

from __future__ import annotations

from tests.e2e.test_jobs import JOB, job, outcomes
from tests.instance import Host, eventually, has, web

FROM_SERVICE = "{fromService: true}"
BEFORE = "rollout: {minHealthy: 0s, before: [migrate]}\n"
AFTER = "rollout: {minHealthy: 0s, after: [smoke]}\n"


def migration(script: str, extra: str = "") -> str:
    """Return a migration that runs with the image of its service."""
    lines = f"trigger: Rollout\nbackoffLimit: 0\n{extra}"
    indented = "\n".join(f"  {line}" for line in lines.splitlines())
    return JOB.format(name="migrate", image=FROM_SERVICE, script=script, extra=indented)


def level(text: str, rollout: str, replicas: int = 1, name: str = "web") -> str:
    """Return the document of a service with one variable."""
    return web(name, replicas=replicas, extra=f"{rollout}env: {{LEVEL: {text}}}")


def test_a_migration_runs_once_before_a_rollout_and_its_failure_stops_nothing(host: Host) -> None:
    host.write("migrate.yaml", migration("exit 0"))
    host.write("web.yaml", level("info", BEFORE))
    host.up()
    try:
        eventually(lambda: host.is_ready("web"))
        (before,) = host.running_ids("web")
        assert outcomes(host, "migrate") == ["succeeded"]
        (run,), (serving,) = host.containers("migrate"), host.containers("web")
        assert run["Image"] == serving["Image"]
        assert run["State"]["FinishedAt"] <= serving["State"]["StartedAt"]

        # The next revision's migration fails: nothing is stopped, and the rollout is rolled back.
        host.write("migrate.yaml", migration("exit 3"))
        host.write("web.yaml", level("debug", BEFORE))
        eventually(lambda: has(host.resource("web"), "RolledBack"))
        assert host.running_ids("web") == [before]
        assert "migrate of rollout.before failed: run 2 exited with 3" in str(host.resource("web"))
        assert outcomes(host, "migrate") == ["succeeded", "failed"]

        # Corrected, and tried again.
        host.write("migrate.yaml", migration("sleep 2"))
        host.cli("resume", "web")
        eventually(lambda: host.running_ids("web") not in ([], [before]))
        eventually(lambda: host.is_ready("web"))
        done = ["succeeded", "failed", "succeeded"]
        assert outcomes(host, "migrate") == done

        # A repair, scaling, a restart and new processes ask for no run.
        (killed,) = host.running_ids("web")
        host.engine.docker("kill", killed)
        eventually(lambda: host.is_ready("web"))
        host.write("web.yaml", level("debug", BEFORE, replicas=2))
        eventually(lambda: len(host.running_ids("web")) == 2)
        host.cli("restart", "web")
        host.stop()
        host.up()
        host.await_ready("web")
        assert outcomes(host, "migrate") == done
    finally:
        host.stop()


def test_a_killed_migration_stops_nothing_and_a_failed_check_brings_the_old_revision_back(
    host: Host,
) -> None:
    """Two services of one instance: the migration of web is killed, the check of shop fails."""
    host.write("migrate.yaml", migration("sleep 300", "interrupted: Fail"))
    host.write("web.yaml", level("info", "rollout: {minHealthy: 0s}\n"))
    host.write("smoke.yaml", job("smoke", "exit 0", "trigger: Rollout\nbackoffLimit: 0"))
    host.write("shop.yaml", level("info", AFTER, name="shop"))
    host.up()
    try:
        eventually(lambda: host.is_ready("web"))
        (before,) = host.running_ids("web")
        host.write("web.yaml", level("debug", BEFORE))
        eventually(lambda: outcomes(host, "smoke") == ["succeeded"])
        eventually(lambda: host.is_ready("shop"))
        host.write("smoke.yaml", job("smoke", "exit 3", "trigger: Rollout\nbackoffLimit: 0"))
        host.write("shop.yaml", level("debug", AFTER, name="shop"))

        eventually(lambda: len(host.running_ids("migrate")) == 1)
        assert "migrate of rollout.before" in host.cli("plan", expect=2).stdout
        host.engine.docker("kill", *host.running_ids("migrate"))
        eventually(lambda: has(host.resource("web"), "RolledBack"))
        assert host.running_ids("web") == [before]
        assert outcomes(host, "migrate") == ["cut"]

        eventually(lambda: has(host.resource("shop"), "RolledBack"))
        eventually(lambda: host.is_ready("shop"))
        (container,) = [c for c in host.containers("shop") if c["State"]["Running"]]
        assert "LEVEL=info" in container["Config"]["Env"]
        assert outcomes(host, "smoke") == ["succeeded", "failed"]
    finally:
        host.stop()
