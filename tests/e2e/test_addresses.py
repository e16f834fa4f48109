"""A slot keeps its address: who resolves a name once goes on being answered, on a real engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.client import NETWORK, Client, pressing
from tests.instance import Host, eventually, web
from tools import debian_images

HANGING = {"hung", "late"}
#: While a replica is down on purpose, both tries of nginx can end in its timeout of 1.5 s.
MAY = {"stop first": {"late"}}
NGINX = "trimtab.local/nginx-unprivileged:1.26"
#: No resolver, no upstream block: the name is resolved once, when nginx starts.
PROXY = f"""\
apiVersion: trimtab/v1
kind: Config
metadata: {{name: proxy, owner: team}}
spec:
  data:
    default.conf: |
      server {{
        listen 8080;
        location / {{ proxy_pass http://web:8080; proxy_connect_timeout 1500ms; }}
      }}
---
apiVersion: trimtab/v1
kind: Service
metadata: {{name: proxy, owner: team}}
spec:
  image: {NGINX}
  mounts: [{{type: config, source: proxy, target: /etc/nginx/conf.d}}]
  security: {{readOnlyRootFilesystem: false}}
  rollout: {{minHealthy: 1s}}
"""


def served(colour: str, *, replicas: int = 2, order: str = "StartFirst") -> str:
    lines = (
        f"env: {{COLOUR: {colour}}}",
        "init: true",
        f"rollout: {{order: {order}, minHealthy: 1s}}",
    )
    return web(replicas=replicas, extra="\n".join(lines))


def places(host: Host, service: str) -> dict[str, str]:
    """Return the address of each slot that runs."""
    return {
        inspect["Config"]["Labels"]["io.trimtab.slot"]: address
        for inspect in host.containers(service)
        if inspect["State"]["Running"]
        and (address := inspect["NetworkSettings"]["Networks"].get(NETWORK, {}).get("IPAddress"))
    }


def load(host: Host, service: str) -> contextlib.AbstractContextManager[Client]:
    """Ask a service at the address that it has now, without its name."""
    (address,) = places(host, service).values()
    return pressing(host, 8080, address=address)


@pytest.mark.timeout(600)
@pytest.mark.needs_root
def test_a_proxy_without_a_resolver_is_answered_through_everything(host: Host) -> None:
    """No request hangs; where both replicas go on, none fails."""
    debian_images.provide(host.engine.host, "nginx-unprivileged", reference=NGINX)
    host.write("web.yaml", served("red"))
    host.up()
    host.await_ready("web")
    host.write("proxy.yaml", PROXY)
    host.await_ready("web", "proxy")
    two = places(host, "web")
    assert two == {"1": "10.208.0.2", "2": "10.208.0.3"}
    first = str(host.resource("web")["revision"])
    told: dict[str, list[list[str]]] = {}

    with load(host, "proxy") as client:

        def step(name: str, act: Callable[[], Any], wanted: dict[str, str]) -> None:
            ids, failed = host.running_ids("web"), len(client.failures())
            act()

            def settled() -> bool:
                changed = host.running_ids("web") != ids
                return changed and host.is_ready("web") and places(host, "web") == wanted

            eventually(settled, what=f"{name}: {wanted}")
            told[name] = client.failures()[failed:]

        step("start first", lambda: host.write("web.yaml", served("green")), two)
        step("rollback", lambda: host.cli("rollback", "web", "--to", first), two)
        step("restart", lambda: host.cli("restart", "web"), two)
        three = two | {"3": "10.208.0.5"}  # 10.208.0.4 is the proxy's
        step("up", lambda: host.write("web.yaml", served("blue", replicas=3)), three)
        (one, *_) = host.running_ids("web")
        step("heal", lambda: host.engine.docker("rm", "--force", one), three)
        step("down", lambda: host.write("web.yaml", served("blue")), two)
        stopping = served("red", order="StopFirst")
        step("stop first", lambda: host.write("web.yaml", stopping), two)
    said = host.engine.docker("logs", host.running_ids("proxy")[0]).stderr
    print("\n".join(each for each in said.splitlines() if "error" in each))
    waited = [
        (name, each)
        for name, failed in told.items()
        for each in failed
        if each[1] in HANGING - MAY.get(name, set())
    ]
    assert waited == []
    steps = ("start first", "rollback", "restart", "up")
    assert {name: told[name] for name in steps} == {name: [] for name in steps}

    host.engine.restart()
    eventually(lambda: (places(host, "web"), host.all_ready()) == (two, True), what="all is back")
    with load(host, "proxy") as client:
        address = places(host, "proxy")["1"]
        eventually(lambda: client.answers(f"{address}:8080"), what="the proxy answers")
