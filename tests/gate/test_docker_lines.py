"""``policy explain`` of a docker command is the broker's verdict on the same command."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.broker.handlers.dry_run import explain
from controller.cli.clients.docker_command import record
from controller.cli.commands.policy_explain import actor_of
from controller.core.policy.text import load_policy
from tests.served import served as serving

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

WORKER = "trimtab.local/worker:1"
POLICY_FILE = Path(__file__).parents[2] / "configs" / "policies" / "development.yaml"
POLICY = load_policy(POLICY_FILE.read_text(), str(POLICY_FILE))
LINES = f"""
create {WORKER}
create --init -e A=1 --tmpfs /t --read-only --health-cmd true --label a=b {WORKER} sh -c 'exit 0'
create --ulimit nofile=64:128 --memory 64m --cpus 0.5 --stop-timeout 5 --log-opt max-size=1m {WORKER}
create --privileged {WORKER}
create -v /etc:/e {WORKER}
create --mount type=bind,src=/root,dst=/r,readonly {WORKER}
create --cap-add SYS_ADMIN {WORKER}
create --net host {WORKER}
create --pid host {WORKER}
create --device /dev/mem {WORKER}
create -p 80:80 {WORKER}
create -m 6400g {WORKER}
create --security-opt seccomp=unconfined {WORKER}
create -e LD_PRELOAD=/x {WORKER}
network create --internal --label a=b lines
network create -d macvlan lines-2
volume create --label a=b lines
volume create -o type=none lines-2
pull docker.io/nobody/nothing:1
swarm init
plugin disable x
"""


@pytest.fixture(scope="module")
def broker(
    engine: PrivateEngine | FoundEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    with serving(engine, tmp_path_factory.mktemp("b"), policy=POLICY) as socket:
        yield socket


@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_the_broker_gives_the_explained_verdict(line: str, broker: Path) -> None:
    explanations = [
        explain(*request, actor=actor_of("operator"), policy=POLICY)
        for request in record(shlex.split(line)).requests
    ]
    rules = [rule for explanation in explanations for rule in explanation.verdict.rules]
    denied = any(explanation.verdict.decision == "deny" for explanation in explanations)
    real = subprocess.run(
        ["docker", *shlex.split(line)],
        env={**os.environ, "DOCKER_HOST": f"unix://{broker}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (real.returncode != 0) == denied, real.stderr
    if denied:
        assert f"{rules[0]}: " in real.stderr
