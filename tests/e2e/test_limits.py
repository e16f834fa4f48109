"""Limits that documents change are set in the containers that run, on a real engine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.instance import Host, eventually, web

#: The program of a version with the rule ``v1:`` for revisions; its processes have it, too.
EARLIER = """
import sys
from controller.app import child_commands
CHILD = '''
from controller.core.manifests import parse, revision_hash
parse.revision_of = revision_hash.earlier_revision_of
from controller.cli.main import main
main()
'''
child_commands._python = lambda: (sys.executable, "-I", "-c", CHILD)
exec(CHILD)
"""
SERVICES = ("web0", "web1")
AT_ONCE = "rollout: {minHealthy: 0s}"
LABEL = "io.trimtab.revision"


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


def test_an_update_of_trimtab_replaces_no_container(host: Host) -> None:
    host.write("web.yaml", document("web", "64Mi"))
    arguments = ["apply", str(host.directory), "--policy", host.policy, "--state", str(host.state)]
    subprocess.run(
        host.engine.inside(sys.executable, "-c", EARLIER, *arguments),
        env=host.environment(),
        check=True,
        cwd=host.folder,
        timeout=120,
    )
    save_as_earlier(host)
    before, (first,) = lives(host), host.containers("web")
    revision, image = first["Config"]["Labels"][LABEL], first["Image"]
    assert revision.startswith("v1:")

    assert "nothing to do" in host.cli("plan", expect=0).stdout
    host.write("web.yaml", document("web", "128Mi"))
    with host.running():
        eventually(lambda: memory_of(host) == {(128, 128)})
        assert lives(host) == before
        assert {row["revision"] for row in host.history("web")} == {revision}
        # The tag names another image by now; the service keeps the one that it runs.
        host.engine.docker("tag", "trimtab.local/web:2", "trimtab.local/web:1")
        try:
            host.engine.docker("rm", "-f", first["Id"])
            eventually(lambda: host.running_ids("web") not in ([], [first["Id"]]))
        finally:
            host.engine.docker("tag", image, "trimtab.local/web:1")
        (healed,) = host.containers("web")
        assert (healed["Image"], healed["Config"]["Labels"][LABEL]) == (image, revision)
        assert memory_of(host) == {(128, 128)}


def save_as_earlier(host: Host) -> None:
    """Leave out of the saved state what the version before didn't save."""
    file = host.state / "controller" / "state.json"
    state = json.loads(file.read_text())
    for overrides in state["steerings"].values():
        for revision in overrides["revisions"]:
            assert revision.pop("limits")
            assert "canonical" not in revision
    for rollout in state.get("courses", {}).values():
        rollout.pop("limits", None)
    file.write_text(json.dumps(state))
