"""Services that depend on one another, on a real engine."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.instance import Host, eventually, has, web

QUICK = "init: true\nstopGracePeriod: 1s\nrollout: {minHealthy: 0s}\n"
#: It serves after two seconds, and is healthy a moment later.
BASE = """\
entrypoint: [/bin/sh, -c, "sleep 2; exec /bin/serve"]
healthcheck: {exec: [/bin/wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, timeout: 1s, startPeriod: 20s}
"""
ENDS = 'entrypoint: [/bin/sh, -c, "exit %d"]\nrestart: {policy: Never}\n'


def instant(text: str) -> datetime:
    return datetime.fromisoformat(f"{text[:19]}+00:00")


def only(host: Host, service: str) -> dict[str, Any]:
    (found,) = host.containers(service)
    return found


def said(host: Host, name: str, condition: str) -> str:
    """Return the reason and message of a condition that is True, '' if it isn't."""
    for each in host.resource(name).get("conditions", []):
        if each["type"] == condition and each["status"] == "True":
            return f"{each['reason']}: {each['message']}"
    return ""


def stopped(host: Host, ids: dict[str, str]) -> list[str]:
    """Return which of these containers were stopped on purpose, in the order of that."""
    asked = host.journal("--stage", "intent", "--action", "container.stop")
    asked.sort(key=lambda record: record["seq"])
    return [ids[r["request"]["object"]] for r in asked if r["request"]["object"] in ids]


def run_of(container: dict[str, Any]) -> tuple[object, ...]:
    """Return what is another in each run of a container; its health is asked all the time."""
    state = container["State"]
    return container["Id"], state["StartedAt"], state["Pid"], state["Status"]


def test_services_start_after_what_they_depend_on_and_stop_before_it(host: Host) -> None:
    host.write("base.yaml", web("base", extra=QUICK + BASE))
    on_base = "dependsOn: [{name: base, condition: Healthy}]\n"
    host.write("migrate.yaml", web("migrate", extra=QUICK + ENDS % 0 + on_base))
    both = "dependsOn: [{name: base}, {name: migrate, condition: Completed}]\n"
    host.write("shop.yaml", web("shop", extra=QUICK + both))
    host.write("bad.yaml", web("bad", extra=QUICK + ENDS % 3))
    on_bad = "dependsOn: [{name: bad, condition: Completed}]\n"
    host.write("late.yaml", web("late", extra=QUICK + on_bad))
    host.up()
    try:
        waiting = "Waiting: waiting for base to be healthy"
        eventually(lambda: said(host, "migrate", "Progressing").startswith(waiting))
        eventually(lambda: host.is_ready("shop"), what="the shop runs")
        base, migrate, shop = (only(host, name) for name in ("base", "migrate", "shop"))
        served = instant(base["State"]["StartedAt"]).timestamp() + 2
        assert instant(migrate["Created"]).timestamp() >= served
        assert shop["Created"] >= migrate["State"]["FinishedAt"]

        # What can't come is told at once, with its cause.
        stalled = eventually(lambda: said(host, "late", "Stalled"))
        assert stalled.startswith("dependency.failed: bad can't complete: bad.1-")
        assert "exited with 3" in stalled
        assert host.containers("late") == []

        # What becomes of a dependency is no matter of those that run.
        host.engine.docker("rm", "-f", base["Id"])
        eventually(lambda: host.running_ids("base") not in ([], [base["Id"]]))
        eventually(lambda: host.is_ready("base"))
        assert run_of(only(host, "shop")) == run_of(shop)

        # A new document of the failed one lets its dependent go on.
        host.write("bad.yaml", web("bad", extra=QUICK + ENDS % 0))
        eventually(lambda: host.is_ready("late"))
        assert not has(host.resource("late"), "Stalled")

        ids = {only(host, name)["Id"]: name for name in ("base", "shop")}
        host.write("migrate.yaml", web("migrate", extra=QUICK + ENDS % 0))
        host.remove("base.yaml")
        host.remove("shop.yaml")
        eventually(lambda: not host.containers("base") and not host.containers("shop"))
        assert stopped(host, ids) == ["shop", "base"]
    finally:
        host.stop()
    assert "Traceback" not in host.said()
