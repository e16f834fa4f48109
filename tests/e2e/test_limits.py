"""Limits that documents change are set in the containers that run, on a real engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.instance import Host, eventually, web

SERVICES = ("web0", "web1")
AT_ONCE = "rollout: {minHealthy: 0s}"


def document(name: str, memory: str, *more: str) -> str:
    return web(name, extra="\n".join([AT_ONCE, f"resources: {{memory: {memory}}}", *more]))


def lives(host: Host) -> dict[str, tuple[str, str]]:
    """Return the id and the start of each container, by name."""
    return {c["Name"]: (c["Id"], c["State"]["StartedAt"]) for c in host.containers()}


def memory_of(host: Host, *names: str) -> set[tuple[int, int]]:
    """Return the memory of services' containers, in MiB, without and with swap."""
    hosts = [c["HostConfig"] for name in names or (None,) for c in host.containers(name)]
    return {(h["Memory"] >> 20, h["MemorySwap"] >> 20) for h in hosts}


def rows(host: Host, name: str) -> list[dict[str, Any]]:
    return [row for row in host.history(name) if row["outcome"] == "good"]


@pytest.mark.also_signed
def test_other_limits_restart_no_container_and_memory_in_use_is_not_taken(host: Host) -> None:
    for name in SERVICES:
        host.write(f"{name}.yaml", document(name, "64Mi"))
    fills = 'entrypoint: [/bin/sh, -c, "head -c 41943040 /dev/zero > /full/x; exec /bin/serve"]'
    full = ("mounts: [{type: tmpfs, target: /full, size: 64Mi}]", fills)
    host.write("full.yaml", document("full", "96Mi", *full))
    with host.running():
        before = lives(host)
        host.write("full.yaml", document("full", "43Mi", *full))
        eventually(lambda: "resources.in-use" in json.dumps(host.resource("full")))
        assert memory_of(host, "full") == {(96, 96)}
        host.write("full.yaml", document("full", "128Mi", *full))
        for name in SERVICES:
            host.write(f"{name}.yaml", document(name, "128Mi"))
        eventually(lambda: memory_of(host) == {(128, 128)})
        eventually(host.all_ready)
        assert lives(host) == before
        assert "nothing to do" in host.cli("plan", expect=0).stdout

        eventually(lambda: len(rows(host, "web0")) == 2)
        host.write("web0.yaml", document("web0", "96Mi"))
        eventually(lambda: memory_of(host, "web0") == {(96, 96)})
        shown = host.cli("history", "web0").stdout
        assert "current, memory 96Mi" in shown and "memory 64Mi" in shown

        host.cli("rollback", "web0", "--timeout", "60s")
        assert memory_of(host, "web0") == {(128, 128)}
        assert lives(host) == before
        told = host.cli("plan", expect=5).stdout  # the document is ahead
        assert "with memory 128Mi" in host.cli("describe", "web0").stdout, told
