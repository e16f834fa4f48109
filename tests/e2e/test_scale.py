"""People scale a service for a while: through a rollout and a restart of trimtab, on a real engine."""

from __future__ import annotations

from tests.instance import Host, eventually, has, web

PATIENCE_S = 30.0
AT_ONCE = "rollout: {minHealthy: 0s}"


def test_a_scaled_service_keeps_its_number_until_it_is_resumed(host: Host) -> None:
    host.write("web.yaml", web(extra=AT_ONCE))
    with host.running():
        host.await_ready("web")
        done = host.cli("scale", "web=3", "--note", "the sale", "--timeout", "60s")
        assert "scales from 1 to 3 replicas; its document says 1" in done.stdout
        assert len(host.running_ids("web")) == 3
        host.write("web.yaml", web(extra=f"{AT_ONCE}\nenv: {{COLOUR: green}}"))
    with host.running():
        eventually(lambda: is_green(host, 3), within_s=PATIENCE_S)
        assert has(host.resource("web"), "Scaled")
        assert "nothing to do; web is scaled" in host.cli("plan").stdout
        host.cli("resume", "web", "--timeout", "60s")
        eventually(lambda: is_green(host, 1), within_s=PATIENCE_S)
        host.cli("scale", "web=2", "--for", "3s", "--no-wait")
        eventually(lambda: is_green(host, 2), within_s=PATIENCE_S)
        eventually(lambda: is_green(host, 1), within_s=PATIENCE_S)
        assert not has(host.resource("web"), "Scaled")
    acts = [r["request"] for r in host.journal("--service", "web", "--stage", "operator")]
    numbers = [(each["summary"].get("replicas"), each["summary"].get("seconds")) for each in acts]
    assert [each["route"] for each in acts] == ["service.scale", "service.resume", "service.scale"]
    assert numbers == [(3, None), (None, None), (2, 3)]


def is_green(host: Host, count: int) -> bool:
    """Return True if exactly *count* replicas run, all of the new document."""
    found = host.containers("web")
    return len(found) == count and all("COLOUR=green" in each["Config"]["Env"] for each in found)
