"""``trimtab down`` and then ``up`` tries at once what failed before."""

from __future__ import annotations

from typing import Any

from tests.instance import Host, eventually, has, web

#: It serves once its data is there.
NEEDS_DATA = """\
entrypoint: [/bin/sh, -c, "test -f /srv/data/ready && exec /bin/serve"]
mounts: [{{type: bind, source: {source}, target: /srv/data, readOnly: true}}]
rollout: {{minHealthy: 0s, onFailure: Pause}}
init: true
"""


def next_try(host: Host) -> str:
    reason: str = host.resource("web").get("nextTry", {}).get("reason", "")
    return reason


def slot(host: Host) -> dict[str, Any]:
    found: list[dict[str, Any]] = host.resource("web").get("slots", [])
    return found[0] if found else {}


def test_what_failed_before_down_is_tried_at_once_after_it(host: Host) -> None:
    data = host.folder / "data"
    data.mkdir()
    host.write("web.yaml", web("web", extra=NEEDS_DATA.format(source=data)))
    host.up()
    eventually(lambda: has(host.resource("web"), "Paused"))
    assert "it exited with 1" in eventually(lambda: next_try(host))
    host.stop()
    (data / "ready").touch()
    host.cli("down")
    assert host.containers() == []
    # The state of before isn't the last known one any more.
    assert host.cli("status", expect=1).stdout == ""
    host.up()
    try:
        # Either it waits for an instant of before, or its container comes.
        eventually(lambda: next_try(host) or slot(host).get("container"))
        assert next_try(host) == ""
        host.await_ready("web")
        assert not has(host.resource("web"), "Paused")
        created = host.journal("--action", "container.create", "--stage", "intent")
        newest = max(created, key=lambda record: record["seq"])
        assert newest["claims"]["cause"] == "slot 1 is missing"
    finally:
        host.stop()
