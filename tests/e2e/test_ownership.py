"""Whose containers are whose: instances side by side, copied state folders, a second controller."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.instance import TRIMTAB, Host, eventually, web


@pytest.fixture
def other(host: Host) -> Iterator[Host]:
    """Another instance on the same engine, with networks of its own; so has ``host``."""
    host.use_networks_of_its_own("ours")
    other = Host(host.engine)
    other.use_networks_of_its_own("theirs")
    try:
        yield other
    finally:
        other.close()


def stalled(host: Host, name: str) -> str:
    """Return why a resource is stalled, '' if it isn't."""
    for condition in host.resource(name).get("conditions", []):
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return f"{condition['reason']}: {condition['message']}"
    return ""


def ids(host: Host, service: str) -> list[str]:
    return [each["Id"] for each in host.containers(service)]


def test_two_instances_on_one_engine_never_touch_each_others_containers(
    host: Host, other: Host
) -> None:
    host.write("mine.yaml", web("mine", extra="stopGracePeriod: 0s"))
    other.write("theirs.yaml", web("theirs"))
    with host.running(), other.running():
        before = ids(other, "theirs")
        # What is declared here is another instance's there: nobody takes it over.
        host.write("theirs.yaml", web("theirs"))
        reason = eventually(lambda: stalled(host, "theirs"), what="the name is taken")
        assert reason.startswith("name.foreign: ")
        assert f"instance {other.instance}" in reason
        host.write("stays.yaml", web("stays"))
        host.remove("theirs.yaml")
        host.remove("mine.yaml")
        eventually(lambda: not ids(host, "mine"), what="what isn't declared any more is pruned")
        assert ids(other, "theirs") == before
        other.stop()
        other.cli("down")
        assert other.containers() == []
    network = host.engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert {"theirs", "theirs-in"}.isdisjoint(network)


def test_a_copy_of_a_state_folder_is_noticed_on_its_own_engine(host: Host) -> None:
    host.use_networks_of_its_own("copied")
    host.write("web.yaml", web())
    with host.running():
        second = second_controller(host)
        copy = host.second()
        copy.state = host.folder / "copy"
        shutil.copytree(host.state, copy.state, ignore=shutil.ignore_patterns("*.sock"))
        copy.up()
        assert copy.process is not None
        assert copy.process.wait(timeout=60) == 1
        said = copy.said()
        assert "[state.forked]" in said, said
        assert f"a broker on {host.state} is instance {host.instance}" in said
        assert "Traceback" not in said
        host.write("api.yaml", web("api"))
        host.await_ready("api")
        told = second.communicate(timeout=60)[1].decode()
        assert second.returncode == 1
        assert "another controller holds" in told
        assert "[state.held]" in told
    # Alone, it learns from what is there that it isn't the one that it was.
    mine = ids(host, "web") + ids(host, "api")
    copy.up()
    try:
        copy.write("api.yaml", web("api", replicas=2))
        reason = eventually(lambda: stalled(copy, "api"), what="the copy is refused")
        assert reason.startswith("state.forked: "), reason
        assert [p["code"] for p in copy.json("status")["problems"]] == ["state.forked"]
        forked = [f for f in copy.json("doctor", expect=1) if f["check"] == "forked"]
        assert forked[0]["level"] == "error"
    finally:
        copy.stop()
    assert ids(host, "web") + ids(host, "api") == mine


def second_controller(host: Host) -> subprocess.Popen[bytes]:
    """Start another controller on the same folder; it waits for a while before it gives up."""
    argv = [TRIMTAB, "run", "--state", str(host.state), "--broker", str(host.broker_socket)]
    return subprocess.Popen(
        host.engine.inside(*argv),
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
