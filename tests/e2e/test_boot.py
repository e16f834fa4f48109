"""Boot in order on a real engine: after its restart, the controller alone starts services, in order."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine import PrivateEngine
from tests.instance import Host, eventually, web

ORDERED = "init: true\nstopGracePeriod: 1s\nrestart: {boot: Ordered}\nrollout: {minHealthy: 0s}\n"
#: It serves after two seconds, and is healthy a moment later.
SLOW = """\
entrypoint: [/bin/sh, -c, "sleep 2; exec /bin/serve"]
healthcheck: {exec: [/bin/wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 1s, timeout: 1s, startPeriod: 20s}
"""
PAST_THE_GATE = "was stopped on the engine's own socket: it exited"
ON_BASE = "dependsOn: [{name: base, condition: Healthy}]\n"


def policy(host: Host, service: str) -> str:
    (found,) = host.containers(service)
    return str(found["HostConfig"]["RestartPolicy"]["Name"])


def state(host: Host, service: str) -> dict[str, Any]:
    (found,) = host.containers(service)
    return dict(found["State"])


def starts(host: Host) -> list[str]:
    """Return why containers were started, oldest first."""
    intents = host.records("intent")
    return [r["claims"]["cause"] for r in intents if r["request"]["route"] == "container.start"]


@pytest.mark.owns_engine
def test_the_controller_alone_starts_services_in_order_after_a_restart_of_the_engine(
    host: Host,
) -> None:
    engine = host.engine
    assert isinstance(engine, PrivateEngine), "it owns its engine"
    host.write("base.yaml", web("base", extra=ORDERED + SLOW))
    host.write("shop.yaml", web("shop", extra=ORDERED + ON_BASE))
    host.write("plain.yaml", web("plain"))
    host.up()
    host.await_ready("base", "shop", "plain")
    ids = {name: host.running_ids(name) for name in ("base", "shop", "plain")}
    assert [policy(host, name) for name in ids] == ["no", "no", "always"]
    assert host.stop() == 0
    engine.restart()
    # Nothing starts without trimtab: that is the price.
    eventually(lambda: state(host, "plain")["Running"], what="the engine starts plain")
    assert not state(host, "base")["Running"]
    assert not state(host, "shop")["Running"]
    host.up()
    host.await_ready("base", "shop", "plain")
    assert {name: host.running_ids(name) for name in ids} == ids
    assert state(host, "shop")["StartedAt"] > state(host, "base")["Health"]["Log"][0]["Start"][:19]
    assert state(host, "shop")["StartedAt"] > state(host, "base")["StartedAt"]
    # A killed engine takes its containers along when it comes back.
    engine.kill()
    engine.start()
    eventually(
        lambda: {name: host.running_ids(name) for name in ids} == ids, what="all run once more"
    )
    host.await_ready("base", "shop", "plain")
    failed = [n for n in ids for s in host.resource(n)["slots"] if s.get("restarts")]
    assert failed == [], "an engine's end is no failure of a container"
    assert not [cause for cause in starts(host) if PAST_THE_GATE in cause]
    # The engine's events alone tell a stop past the gate from an exit.
    host.engine.docker("stop", "-t", "1", *ids["base"])
    eventually(lambda: PAST_THE_GATE in starts(host)[-1], what="the journal says who stopped base")
    host.await_ready("base", "shop", "plain")
    assert not [s for s in host.resource("base")["slots"] if s.get("restarts")], "nor is a stop"
    # The other value is set in the running containers.
    host.write("shop.yaml", web("shop", extra=ORDERED.replace("Ordered", "Engine") + ON_BASE))
    eventually(lambda: policy(host, "shop") == "always", what="the engine's policy is back")
    assert host.running_ids("shop") == ids["shop"]
