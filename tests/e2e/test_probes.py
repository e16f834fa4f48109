"""Http and tcp checks, as users see them: the controller asks, and says what it found."""

from __future__ import annotations

from typing import Any

from tests.instance import Host, eventually

#: The server may die without its container, and nobody restarts that: process 1 goes on.
SERVICE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: {name}, owner: team}}
spec:
  image: trimtab.local/web:1
  init: true
  command:
    - /bin/sh
    - -c
    - httpd -p 8080 -h /www; while true; do sleep 1; done
  restart: {{policy: Never}}
  healthcheck: {{{check}, interval: 1s, timeout: 1s, retries: 1, startPeriod: 2s}}
"""
CHECKS = {
    "http": "http: {path: /healthz, port: 8080}",
    "tcp": "tcp: {port: 8080}",
}


def health(host: Host) -> dict[str, str]:
    """Return the word for each service's one replica."""
    told = (host.status() or {"resources": []})["resources"]
    return {r["name"]: slot["health"] for r in told for slot in r["slots"]}


def degraded(host: Host, name: str) -> str:
    """Return what is said of a service that isn't as it should be."""
    conditions: list[dict[str, Any]] = host.resource(name).get("conditions", [])
    (message,) = [c["message"] for c in conditions if c["type"] == "Degraded"]
    return str(message)


def test_a_server_is_healthy_while_it_answers_and_unhealthy_while_it_does_not(host: Host) -> None:
    for name, check in CHECKS.items():
        host.write(f"{name}.yaml", SERVICE.format(name=name, check=check))
    with host.running():
        well, ill = dict.fromkeys(CHECKS, "healthy"), dict.fromkeys(CHECKS, "unhealthy")
        eventually(lambda: health(host) == well, what="asked by its check")
        for name in CHECKS:
            (container,) = host.containers(name)
            assert "Health" not in container["State"], "the engine checks nothing"
            kill = "kill -9 $(busybox pidof httpd)"
            host.engine.docker("exec", container["Id"], "sh", "-c", kill)
        eventually(lambda: health(host) == ill, what="noticed that nobody answers")
        for name in CHECKS:
            assert degraded(host, name).endswith("is unhealthy: nothing listens on port 8080")
            serve = ("httpd", "-p", "8080", "-h", "/www")
            host.engine.docker("exec", *host.running_ids(name), *serve)
        eventually(lambda: health(host) == well, what="noticed that it answers again")
