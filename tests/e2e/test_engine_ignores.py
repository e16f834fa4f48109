"""An engine whose kernel can't keep a limit: refused, or run without by the policy's leave."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine as engines
from tests.instance import Host, eventually, web
from tools import dockerd

#: Hides the pids cgroup from the engine alone.
WITHOUT_PIDS = (
    *("unshare", "--mount", "--propagation", "slave", "sh", "-c"),
    'umount /sys/fs/cgroup/pids && exec "$@"',
    "sh",
)
MESSAGE = "the engine ignores slot 1: spec.resources.pids"


class EngineWithoutPids(engines.PrivateEngine):
    """A dockerd that drops each limit of processes, as on a kernel without the cgroup."""

    def _spawn(self) -> subprocess.Popen[bytes]:
        return dockerd.spawn(
            self.layout,
            f"--cgroup-parent=/{self.netns}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            prefix=[*self.inside(), *WITHOUT_PIDS],
        )


@pytest.fixture
def host() -> Iterator[Host]:
    if not Path("/sys/fs/cgroup/pids").is_dir():
        pytest.fail("this test needs cgroup v1")
    engine = EngineWithoutPids()
    made = Host(engine)
    try:
        yield made
    finally:
        made.close()
        engine.close()


def test_a_limit_that_the_kernel_cannot_keep_is_refused_then_admitted_and_never_repaired(
    host: Host,
) -> None:
    host.use_networks_of_its_own("ignores")
    policy = Path(host.policy)
    host.write("web.yaml", web())
    host.up()

    def refused() -> bool:
        return "engine.ignores" in json.dumps(host.resource("web"))

    eventually(refused, what="the create is refused")
    assert host.containers("web") == []
    limits = [row for row in host.json("doctor", expect=(0, 1)) if row["check"] == "limits"]
    assert [row["level"] for row in limits] == ["warning"]
    assert "PidsLimit" in limits[0]["message"]

    text = policy.read_text().replace("ignores: [swap]", "ignores: [swap, pids]")
    policy.write_text(text)
    host.cli("policy", "reload")
    host.cli("apply")
    host.await_ready("web")
    created = [each for each in host.records("outcome") if "ignored" in each["result"]]
    assert [each["result"]["ignored"] for each in created] == [["PidsLimit"]]
    conditions = {each["type"]: each for each in host.resource("web")["conditions"]}
    assert conditions["EngineIgnores"]["message"] == MESSAGE
    assert host.is_ready("web")
    # Nothing is repaired: the container is as the engine can have it.
    before = len(host.records("intent"))
    host.cli("apply")
    host.cli("apply")
    assert len(host.records("intent")) == before
