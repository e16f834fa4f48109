"""Broker and controller as two units, each started as its user, without ``trimtab up``."""

from __future__ import annotations

import pwd
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.instance import TRIMTAB, Host, eventually
from tests.unprivileged import as_user

pytestmark = pytest.mark.needs_root
WEB = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec: {image: "trimtab.local/web:1", rollout: {minHealthy: 0s}}
"""
USER = "trimtab"


@contextmanager
def started(
    host: Host, *argv: str, uid: int = 0, gid: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of trimtab beside the engine during the block, as a user."""
    whole = (TRIMTAB, *argv)
    command = as_user(whole, uid=uid, gid=gid) if uid else whole
    environment = {**host.environment(), "HOME": "/nonexistent"}
    with host.log.open("ab") as log:
        process = subprocess.Popen(
            host.engine.inside(*command),
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def test_two_units_converge_a_service_and_leave_no_socket_behind(host: Host) -> None:
    user = pwd.getpwnam(USER)
    host.write("web.yaml", WEB)
    state = ("--state", str(host.state))
    broker = ("broker", str(host.directory), "--policy", host.policy, *state)
    socket = str(host.broker_socket)
    with started(host, *broker, "--controller-uid", str(user.pw_uid)) as gate:
        eventually(host.broker_socket.exists, what="the broker serves")
        mistaken = (TRIMTAB, "run", str(host.directory), "--broker", socket)
        assert "user.unfit" in host.engine.run_inside(mistaken, check=False).stderr
        run = ("run", str(host.directory), "--broker", socket)
        with started(host, *run, uid=user.pw_uid, gid=user.pw_gid) as controller:
            eventually(lambda: host.is_ready("web"), what="the service runs")
            host.cli("restart", "web", "--timeout", "60s")
            assert {each.poll() for each in (gate, controller)} == {None}
        own = host.state / "run" / "controller" / "controller.sock"
        assert not own.exists()
        # The folder is the controller's: what it links to isn't asked.
        own.symlink_to(host.broker_socket)
        assert "controller.stranger" in host.cli("status", expect=1).stderr
        own.unlink()
    assert [*own.parent.iterdir()] == []
    with host.running():  # `up` takes over, and leaves none either
        assert not host.broker_socket.with_name("controller.sock").is_symlink()
