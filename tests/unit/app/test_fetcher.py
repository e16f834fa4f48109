"""The fetcher among the children of ``up``: its user, what it can't reach, when it runs."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.app.fetcher import SCAN_S, FetcherChild
from controller.app.state_folder import FETCHER, Launch, choose_settings, controller_user, prepare
from controller.cli.clients.socket_client import ask_controller
from controller.core.git.reports import parse_status
from controller.model.errors import TrimtabError
from controller.model.sources import SourceState
from controller.process.process_group import ProcessGroup
from controller.settings import write_in_force
from tests.git.repository import DOCUMENT, Repository
from tests.instance import eventually

pytestmark = pytest.mark.slow

SOURCE = """\
apiVersion: trimtab/v1
kind: Source
metadata: {{name: shop, owner: team}}
spec:
  git: {{url: "{url}", path: deploy}}
  namespaces: [shop]
"""


@pytest.fixture
def launch() -> Iterator[Launch]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "desired").mkdir()
        prepared = prepare(
            folder / "state",
            choose_settings(folder / "state", {"policy": "development"}),
            directory=folder / "desired",
            user=controller_user(None, uid=os.getuid()),
            new_instance_id="ab" * 8,
        )
        write_in_force(prepared.state.root, prepared.in_force)  # as the broker does
        yield prepared


def test_the_fetcher_runs_while_dir_declares_a_source(launch: Launch) -> None:
    state, document = launch.state, Path(launch.instance.dir) / "shop.yaml"
    repository = Repository(state.root.parent / "shop.git")
    commit = repository.commit({"deploy/web.yaml": DOCUMENT})
    group = ProcessGroup(monotonic=time.monotonic, wait=time.sleep)
    fetcher = FetcherChild(group, launch)
    try:
        assert fetcher.adjust(now=0.0) is None
        assert group.running == []
        assert not (state.fetcher / "status.json").exists()

        document.write_text(SOURCE.format(url=repository.url))
        assert fetcher.adjust(now=SCAN_S) is None
        eventually((state.fetcher / "sources" / "shop" / "current").is_symlink)
        (status,) = parse_status((state.fetcher / "status.json").read_bytes())
        assert status.current is not None
        assert status.current.commit == commit
        synced = ask_controller(state.fetch_socket, {"do": "sync", "name": "shop"}, timeout_s=60)
        assert synced["source"]["state"] == SourceState.READY
        (running,) = group.running
        if os.getuid() == 0:
            _check_confinement(running.child.process.pid, launch)

        document.unlink()
        assert fetcher.adjust(now=2 * SCAN_S) is None
        assert group.running == []
        assert running.child.exit_code == 0
        assert not state.fetch_socket.exists()
    finally:
        fetcher.stop()
        group.stop()


#: Runs a command with one socket, as systemd hands it.
WITH_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
from controller.cli.main import main
main(sys.argv[2:])
"""


def test_as_a_unit_it_ends_by_itself_when_no_source_is_declared(launch: Launch) -> None:
    state = launch.state
    state.fetcher.mkdir()
    state.declared_sources.touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state.fetch_socket))
        listener.listen()
        argv = ("fetch", launch.instance.dir, "--state", str(state.root))
        fetcher = subprocess.Popen(
            (sys.executable, "-c", WITH_SOCKET, str(listener.fileno()), *argv),
            pass_fds=(listener.fileno(),),
        )
        try:
            with pytest.raises(TrimtabError, match=r"source\.unknown"):
                ask_controller(state.fetch_socket, {"do": "sync", "name": "none"}, timeout_s=60)
            assert fetcher.poll() is None
            state.declared_sources.unlink()
            assert fetcher.wait(timeout=60) == 0
        finally:
            fetcher.kill()
            fetcher.wait()
        assert state.fetch_socket.is_socket()


def test_nothing_that_talks_to_git_is_loaded_without_a_source() -> None:
    modules = ("app.controller", "app.fetcher", "app.up", "cli.status.live_view")
    imports = "; ".join(f"import controller.{module}" for module in modules)
    loaded = 'print([n for n in sys.modules if n.startswith(("controller.fetch", "controller.core.git"))])'
    done = subprocess.run(
        (sys.executable, "-c", f"import sys; {imports}; {loaded}"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def _check_confinement(pid: int, launch: Launch) -> None:
    """Assert that the process has its own user, and reaches no socket and no other state."""
    process = Path(f"/proc/{pid}")
    assert process.stat().st_uid == pwd.getpwnam(FETCHER).pw_uid
    mounts = (process / "mountinfo").read_text()
    for hidden in (launch.state.run, launch.state.broker, launch.state.controller):
        assert f" {hidden} " in mounts
        assert list((process / "root" / hidden.relative_to("/")).iterdir()) == []
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
