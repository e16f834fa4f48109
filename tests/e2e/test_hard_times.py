"""Hard times: an engine, a journal, a policy or a folder that isn't as it should be."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli.clients.status_report import broker_problems
from controller.settings import StateFolder
from tests.instance import Host, eventually, has, web


def refused(host: Host, *options: str) -> str:
    """Start ``up``, which must end by itself with exit code 1, and return what it said."""
    before = len(host.said())
    host.up(*options)
    assert host.process is not None
    assert host.process.wait(timeout=60) == 1, host.said()
    said = host.log.read_text()[before:]
    assert "Traceback" not in said, said
    return said


def codes(host: Host) -> set[str]:
    """Return the codes of the problems that ``status`` prints: the broker's, too.

    Asked for in the way of the command, but without starting one: this is polled.
    """
    status = host.status() or {"problems": []}
    found = [
        *broker_problems(host.broker_socket, StateFolder(host.state, host.state / "run")),
        *status["problems"],
    ]
    # Nobody can fetch the source of a signed host.
    return {problem["code"] for problem in found} - {"SourceFailing"}


def finding(host: Host, check: str) -> dict[str, Any]:
    """Return what ``doctor`` says of one thing."""
    found = [f for f in host.json("doctor", expect=(0, 1)) if f["check"] == check]
    assert len(found) == 1, found
    return dict(found[0])


def slots(host: Host, service: str) -> Counter[str]:
    """Count the containers of each slot of a service."""
    return Counter(c["Config"]["Labels"]["io.trimtab.slot"] for c in host.containers(service))


# The engine.


@pytest.mark.owns_engine
def test_an_engine_that_is_down_is_waited_for_and_nothing_is_made_twice_when_it_is_back(
    host: Host,
) -> None:
    host.write("web.yaml", web(replicas=2))
    host.engine.stop()
    try:
        host.up()
        is_waited_for(host)
    finally:
        host.engine.start()
    host.await_ready("web")
    assert codes(host) == set()
    host.engine.kill()
    try:
        host.write("api.yaml", web("api"))
        eventually(lambda: codes(host), what="status says that the engine is away")
    finally:
        host.engine.start()
    host.await_ready("web", "api")
    assert slots(host, "web") == {"1": 1, "2": 1}
    assert slots(host, "api") == {"1": 1}
    eventually(host.nothing_open)
    assert not host.json("journal", "verify")["open_intents"]
    assert host.stop() == 0
    assert "Traceback" not in host.said()


def is_waited_for(host: Host) -> None:
    """Check what is said while the engine was never there."""

    def said() -> bool:
        status = host.status()
        return bool(status and status["problems"]) and not has(host.resource("web"), "Ready")

    eventually(said, what="status says that the engine is away")
    status = host.json("status")
    assert [p["code"] for p in status["problems"]] == ["engine.unavailable"]
    (service,) = status["resources"]
    ready = {c["type"]: c for c in service["conditions"]}["Ready"]
    assert (ready["status"], ready["reason"]) == ("Unknown", "EngineUnavailable")
    assert finding(host, "engine")["level"] == "error"


# The policy.


def test_a_policy_that_is_missing_or_invalid_starts_no_broker(host: Host) -> None:
    """Once it is good, the same command starts; DIR may be a link."""
    good = Path(host.policy).read_text()
    policy = host.folder / "mine.yaml"
    host.policy = str(policy)
    said = refused(host)
    assert str(policy) in said
    assert "No such file" in said
    policy.write_text(f"colour: blue\n{good}")
    said = refused(host)
    assert f"{policy}:1: colour: no key of a policy" in said
    policy.write_text(f"{good}ports: {{\n")
    said = refused(host)
    assert f"{policy}:{len(good.splitlines()) + 1}: a list or mapping" in said
    assert not host.broker_socket.exists()
    policy.write_text(good)
    real = host.folder / "real" / "desired"
    real.parent.mkdir()
    host.directory.rename(real)
    host.directory.symlink_to(real)
    with host.running():
        (real / "api.yaml").write_text(web("api"))
        host.await_ready("api")


# The journal.


@contextlib.contextmanager
def mounted(folder: Path, *, size: str) -> Iterator[Path]:
    """Have a small filesystem of its own under the journal's folder."""
    folder.mkdir(parents=True)
    options = f"size={size},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill a filesystem up to the last byte."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return ballast


def goes_on_reading_only(host: Host, why: str, *, new: str) -> None:
    """Check what is promised while the journal can't be written, and a new service is declared."""
    serving = host.running_ids("web")
    host.write(f"{new}.yaml", web(new))
    eventually(lambda: "journal.unavailable" in codes(host))
    (problem,) = [p for p in host.json("status")["problems"] if p["code"] == "journal.unavailable"]
    assert why in problem["message"]
    assert problem["remedy"]
    told = finding(host, "journal")
    assert (told["level"], why in told["message"]) == ("error", True), told
    for call in (("kill", "web"), ("network", "create", "mine"), ("pull", "trimtab.local/web:1")):
        target = [serving[0] if part == "web" else part for part in call]
        done = host.docker_through_broker(*target, check=False)
        assert done.returncode != 0, call
        assert "journal.unavailable" in done.stderr, (call, done.stderr)
    assert status_of(host, "POST", f"/containers/{serving[0]}/kill") == 503
    assert status_of(host, "GET", "/containers/json") == 200
    assert serving[0][:12] in host.docker_through_broker("ps").stdout
    assert host.running_ids("web") == serving
    # A last record can fit into the rest of a page: nothing is made without one.
    recorded = {record["request"]["object"] for record in host.records("intent")}
    assert {made["Name"].removeprefix("/") for made in host.containers(new)} <= recorded


def status_of(host: Host, method: str, path: str) -> int:
    """Return the status of a request to the broker."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(30)
        peer.connect(str(host.broker_socket))
        head = f"{method} {path} HTTP/1.1\r\nHost: broker\r\nContent-Length: 0\r\n"
        peer.sendall(f"{head}Connection: close\r\n\r\n".encode())
        with peer.makefile("rb") as answer:
            return int(answer.readline().split()[1])


@pytest.mark.needs_root
def test_a_full_or_read_only_journal_stops_changes_but_not_reads_until_it_is_writable(
    host: Host,
) -> None:
    host.write("web.yaml", web())
    with mounted(host.state / "broker" / "journal", size="512k") as folder:
        with host.running():
            ballast = fill(folder)
            goes_on_reading_only(host, "No space left", new="api")
            ballast.unlink()
            host.await_ready("web", "api")
            eventually(lambda: codes(host) == set())
            assert finding(host, "journal")["level"] == "ok"
            verified = host.json("journal", "verify")
            assert "No space left" in verified["repairs"][-1]["what"]
            serving = host.running_ids("web")
        # Only now: the kernel refuses it (EBUSY) while a segment is open for writing.
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with host.running():
            assert host.running_ids("web") == serving
            goes_on_reading_only(host, "Read-only file system", new="more")
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
            host.await_ready("web", "api", "more")
            eventually(lambda: codes(host) == set())
    assert "Traceback" not in host.said()


# The state folder and its sockets.


def test_a_state_folder_serves_one_up_on_its_engine_and_only_whole(host: Host) -> None:
    """The sockets of a dead broker are replaced."""
    host.write("web.yaml", web())
    with host.running():
        serving = host.running_ids("web")
    file = host.state / "instance.json"
    good = file.read_text()
    file.write_text(json.dumps({**json.loads(good), "engine_id": "another-engine"}))
    said = refused(host)
    assert "state.other-engine" in said
    assert "remedy:" in said
    file.write_text("\0" * 64)
    said = refused(host)
    assert "[state.damaged]" in said
    assert str(file) in said
    former = {**json.loads(good), "engine": host.engine.host}
    del former["format"]
    file.write_text(json.dumps(former))
    said = refused(host)
    assert "[state.older]" in said
    assert (
        f"trimtab adopt {host.directory} --instance {host.instance} --state {host.state} " in said
    )
    file.write_text(good)
    for path in (host.broker_socket, host.broker_socket.with_name("controller.sock")):
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with host.running():
        assert "web.1-" in host.docker_through_broker("ps").stdout
        said = refused(host.second(), "--policy", "strict")
        assert "[state.served]" in said, said
        assert file.read_text() == good
        host.await_ready("web")
        assert slots(host, "web") == {"1": 1}
        assert host.running_ids("web") == serving


# The controller's user, and what it can see.


@pytest.mark.needs_root
def test_a_closed_folder_that_holds_dir_is_refused_with_the_chmod(host: Host) -> None:
    host.write("web.yaml", web())
    holder = host.folder / "holder"
    holder.mkdir()
    host.directory = host.directory.rename(holder / "desired")
    holder.chmod(0o700)
    said = refused(host)
    assert "[folder.closed]" in said
    assert f"chmod o+rx {holder}" in said
    holder.chmod(0o755)
    with host.running():
        host.await_ready("web")


@pytest.mark.needs_root
def test_dir_and_state_in_a_closed_folder_work_as_a_clone_in_roots_home_does(host: Host) -> None:
    home = host.folder / "home"
    clone = home / "clone"
    clone.mkdir(parents=True)
    host.directory = host.directory.rename(clone / "desired")
    host.state = clone / ".state"
    home.chmod(0o700)
    host.write("web.yaml", web())
    with host.running():
        host.write("api.yaml", web("api"))
        host.await_ready("web", "api")
        fresh = clone / "fresh"
        shutil.copytree(host.directory, fresh)
        host.directory.rename(clone / "aside")
        fresh.rename(host.directory)
        host.write("more.yaml", web("more"))
        host.await_ready("web", "api", "more")


@pytest.mark.needs_root
@pytest.mark.parametrize("name", ["root", "nobody"])
def test_the_controller_never_runs_as_root_or_nobody(host: Host, name: str) -> None:
    said = refused(host, "--controller-user", name)
    assert f"never runs as {name}" in said
    assert "[user.unfit]" in said
    assert not host.state.exists()
