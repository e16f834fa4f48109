"""People hold a service: it goes back, is restarted, left alone, resumed; on a real engine."""

from __future__ import annotations

import re

from tests.instance import Host, eventually, has, web

PATIENCE_S = 20.0
AT_ONCE = "rollout: {minHealthy: 0s}"


def test_a_service_is_rolled_back_restarted_suspended_and_resumed(host: Host) -> None:
    """One life of one service, so that its seconds are spent once."""
    host.write("web.yaml", web(extra=AT_ONCE))
    with host.running():
        blue = eventually(lambda: good(host), within_s=PATIENCE_S)
        host.write("web.yaml", web(extra=f"{AT_ONCE}\nenv: {{COLOUR: green}}"))
        eventually(lambda: colours(host) == ["green"], within_s=PATIENCE_S)

        done = host.cli("rollback", "web", "--note", "green is late", "--timeout", "60s")
        assert "1 of 1 ready" in done.stdout
        assert colours(host) == [""]
        host.cli("restart", "web", "--timeout", "60s")
        assert [name.rpartition(".")[2] for name in host.names("web")] == ["2"]
        host.cli("suspend", "web")
    with host.running():
        (victim,) = host.running_ids("web")
        host.engine.docker("rm", "-f", victim)
        # A pass that would heal it comes before an apply that finds all as it should be.
        host.cli("apply", "--timeout", "60s", expect=5)
        assert host.names("web") == []
        plan = host.cli("plan", expect=5).stdout
        assert re.search(r"Service/default/web  pinned to \w+, suspended", plan), plan
        assert "nothing to do; web is pinned to" in plan
        assert has(host.resource("web"), "Suspended") and has(host.resource("web"), "RolledBack")

        host.cli("resume", "web", "--timeout", "60s")
        assert colours(host) == ["green"]
        check_journal(host, blue)
    told = host.cli("history", "web")
    assert "this is what was known last" in told.stderr
    assert blue[3:11] in told.stdout
    assert "nothing runs" in host.cli("suspend", "web", expect=1).stderr


def good(host: Host) -> str:
    """Return the newest revision once it is known to run well."""
    for newest in host.history("web")[:1]:
        return str(newest["revision"]) if newest["outcome"] == "good" else ""
    return ""


def colours(host: Host) -> list[str]:
    """Return what the replicas of web have in their environment."""
    envs = [dict(e.split("=", 1) for e in c["Config"]["Env"]) for c in host.containers("web")]
    return [env.get("COLOUR", "") for env in envs]


def check_journal(host: Host, blue: str) -> None:
    """The record says who asked for what, and what was done for it."""
    records = host.journal("--service", "web")
    acts = [r for r in records if r["stage"] == "operator"]
    assert [r["request"]["route"] for r in acts] == [
        "service.rollback",
        "service.restart",
        "service.suspend",
        "service.resume",
    ]
    assert {r["actor"]["role"] for r in acts} == {"operator"}
    asked = acts[0]["request"]["summary"]
    assert (asked["note"], asked["revision"]) == ("green is late", blue)
    causes = [r["claims"].get("cause", "") for r in records if r["stage"] == "intent"]
    assert any(cause.startswith("restart asked by uid:") for cause in causes)
