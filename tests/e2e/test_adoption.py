"""Containers that ran before trimtab came: adopted as found, without a restart."""

from __future__ import annotations

import json
from typing import Any

from tests.instance import Host, eventually, web

#: The gaps of a container of ``docker run`` without options.
GAPS = ("capabilities", "new-privileges", "logs")
ADMIT = tuple(part for gap in GAPS for part in ("--admit", gap))


def run(host: Host, name: str, *options: str) -> str:
    """Start a container as somebody without trimtab does; return its id."""
    return host.engine.docker(
        "run", "-d", "--name", name, *options, "trimtab.local/web:1"
    ).stdout.strip()


def inspect(host: Host, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.engine.docker("inspect", container).stdout)[0]
    return found


def condition(host: Host, name: str, kind: str) -> str:
    """Return the message of a condition that holds, '' otherwise."""
    for each in host.resource(name).get("conditions", []):
        if each["type"] == kind and each["status"] == "True":
            return str(each["message"])
    return ""


def plan(host: Host) -> list[Any]:
    answer = host.json("plan", expect=(0, 2))
    return list(answer["actions"])


def suspended(name: str, extra: str = "") -> str:
    return web(name, extra=f"suspend: true\n{extra}".rstrip())


def test_a_container_of_docker_run_is_adopted_as_found_and_ends_with_a_rollout(
    host: Host,
) -> None:
    container = run(host, "old-web")
    with host.running():
        host.write("web.yaml", suspended("web"))
        refused = host.cli("adopt", "old-web", "--as", "web", expect=4).stdout
        assert all(f"--admit {gap}" in refused for gap in GAPS), refused
        assert host.containers() == []
        adopted = host.json("adopt", "old-web", "--as", "web", *ADMIT)
        assert adopted["adopted"] == [container]
        assert adopted["failed"] == []
        now = inspect(host, container)
        assert now["RestartCount"] == 0
        assert [*now["NetworkSettings"]["Networks"]] == ["platform-network"]
        assert now["HostConfig"]["RestartPolicy"]["Name"] == "always"
        assert now["HostConfig"]["Memory"] > 0
        host.write("web.yaml", web("web"))
        eventually(lambda: condition(host, "web", "AdoptedAsFound"), what="the status says so")
        assert plan(host) == []
        assert "capabilities" in condition(host, "web", "AdoptedAsFound")
        assert inspect(host, container)["State"]["StartedAt"] == now["State"]["StartedAt"]
        # It is restarted like others.
        host.engine.docker("kill", "old-web")
        eventually(lambda: inspect(host, container)["State"]["Running"], what="it is healed")
        eventually(lambda: plan(host) == [], what="all is as declared again")
        host.write("web.yaml", web("web", extra='env: {CHANGED: "1"}'))
        eventually(
            lambda: [each["Id"] for each in host.containers("web")] not in ([], [container]),
            what="a rollout replaces it by an ordinary container",
        )
        eventually(lambda: not condition(host, "web", "AdoptedAsFound"), what="it has ended")
        gone = host.engine.docker("ps", "-aq", "--no-trunc", "--filter", f"id={container}")
        assert gone.stdout.strip() == ""
