"""Execs through a broker of its own process, before a real engine: by the docker CLI, as operators.

The time box is what a policy makes short here; who asks is told by the kernel, so other operators
are other processes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controller.app.process import new_id
from controller.app.state_folder import trimtab_gid
from controller.journal.store.reader import records
from controller.model.records import Entry
from tests.gate import wire
from tests.gate.fixtures import Gate, Knobs
from tests.gate.roles import ALICE, Peer
from tests.gate.wire import Answer
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
WORKER, WEB = "trimtab.local/worker:1", "trimtab.local/web:1"
OTHER_OPERATOR = 61004
PATIENCE_S = 30.0


def knobs(**exec_section: object) -> Knobs:
    """Return the policy of these tests, with a section of its own for execs."""
    settings: dict[str, object] = {
        "profile": "development",
        "images.allow": ["trimtab.local/"],
        "images.trustLocal": ["trimtab.local/"],
        "images.anonymousVolumes": "slot",
        "operators": [OTHER_OPERATOR],
        **{f"exec.{key}": value for key, value in exec_section.items()},
    }
    return Knobs(tuple((path, json.dumps(value)) for path, value in settings.items()))


@dataclass
class Served:
    """A broker, and its callers."""

    gate: Gate
    peers: dict[str, Peer]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the docker CLI as root."""
        return subprocess.Popen(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": f"unix://{self.gate.socket}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def docker(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run the docker CLI as root, to its end."""
        running = self.start(*arguments)
        out, err = running.communicate(stdin, timeout=PATIENCE_S)
        return subprocess.CompletedProcess(arguments, running.returncode, out, err)

    def out(self, *arguments: str) -> str:
        """Run the docker CLI, which must succeed, and return what it said."""
        done = self.docker(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def ask(
        self,
        who: str,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str | None] | None = None,
    ) -> Answer:
        """Ask the broker as somebody."""
        sent = None if body is None else json.dumps(body).encode()
        raw = wire.request(method, f"/v1.45{path}".encode(), sent, headers)
        return wire.ask(self.connect(who), raw)

    def connect(self, who: str) -> socket.socket:
        return self.peers[who].connect(self.gate.socket)

    def prepare(self, container: str, *command: str) -> str:
        """Create an exec as root and return its id."""
        body = {"Cmd": list(command), "AttachStdout": True}
        answer = self.ask("root", "POST", f"/containers/{container}/exec", body)
        assert answer.status == 201, answer
        return str(answer.json["Id"])

    def entries(self, route: str) -> list[Entry]:
        """Return what the journal has of a route, and what closed that."""
        folder = self.gate.state / "broker" / "journal"
        found = [record.entry for record in records(folder)]
        opened = {e.id for e in found if (e.stage, e.request.get("route")) == ("intent", route)}
        return [
            each
            for each in found
            if each.request.get("route") == route
            or (each.id in opened and each.stage in {"outcome", "recovered"})
        ]

    def set_policy(self, **exec_section: object) -> None:
        self.gate.put_in_force(knobs(**exec_section), self.digest)

    def digest(self) -> str:
        """Return the digest of the policy in force."""
        raw = wire.request("GET", b"/trimtab/v1/policy")
        return str(wire.ask(self.connect("root"), raw).json["digest"])


@pytest.fixture(scope="module")
def served(engine: PrivateEngine | FoundEngine) -> Iterator[Served]:
    with ExitStack() as stack:
        yield _serve(stack, engine)


def _serve(stack: ExitStack, engine: PrivateEngine | FoundEngine) -> Served:
    folder = Path(tempfile.mkdtemp(prefix="trimtab-exec-", dir="/var/tmp"))
    folder.chmod(0o755)  # callers of other uids come to the socket
    stack.callback(shutil.rmtree, folder)
    gate = Gate(folder, engine=Path(engine.host.removeprefix("unix://")))
    stack.callback(gate.close)
    group = trimtab_gid()
    peers = {
        "root": stack.enter_context(Peer(0, [])),
        "other": stack.enter_context(Peer(OTHER_OPERATOR, [group])),
        "alice": stack.enter_context(Peer(ALICE, [group])),
    }
    eventually(gate.serves, within_s=PATIENCE_S, what="the broker's socket")
    served = Served(gate, peers)
    served.set_policy()
    return served


@pytest.fixture(scope="module")
def worker(served: Served) -> Iterator[str]:
    """A container that runs, and does nothing of note."""
    name = run_worker(served)
    yield name
    served.docker("rm", "--force", name)


def run_worker(served: Served, name: str = "") -> str:
    named = name or f"x{new_id()[-8:]}"
    served.out("run", "--detach", "--init", "--network", "none", "--name", named, WORKER)
    return named


def processes(served: Served, container: str) -> str:
    return served.out("top", container)


# What works


def test_a_command_s_output_and_exit_code_come_back(served: Served, worker: str) -> None:
    done = served.docker("exec", worker, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_input_is_carried_to_its_end_and_all_output_comes(served: Served, worker: str) -> None:
    data = os.urandom(3_000_000)
    done = served.docker("exec", "--interactive", worker, "cat", stdin=data)
    assert (done.returncode, done.stdout == data) == (0, True)


def test_a_terminal_has_the_size_of_the_callers(served: Served, worker: str) -> None:
    command = f"stty rows 33 cols 77; docker exec -it {worker} sh -c 'test -t 0 && stty size'"
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        env={**os.environ, "DOCKER_HOST": f"unix://{served.gate.socket}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    # What script makes of the end of its input stands before or after it.
    assert (done.returncode, b"33 77\r\n" in done.stdout) == (0, True)


def test_a_detached_command_runs_and_its_exit_code_is_recorded(served: Served, worker: str) -> None:
    served.out("exec", "--detach", worker, "sh", "-c", "echo here > /tmp/x; exit 3")
    eventually(
        lambda: [e.result for e in served.entries("exec.end")][-1:] == [{"exitCode": 3}],
        what="its end in the journal",
    )
    assert served.out("exec", worker, "cat", "/tmp/x") == "here"


def test_who_has_no_way_to_take_over_the_connection_gets_the_output(
    served: Served, worker: str
) -> None:
    made = served.prepare(worker, "echo", "plain")
    target = f"/v1.45/exec/{made}/start".encode()
    with served.connect("root") as connection, connection.makefile("rb") as answer:
        connection.settimeout(PATIENCE_S)
        connection.sendall(wire.request("POST", target, b"{}", {"Connection": "close"}))
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert wire.dechunked(body)[8:] == b"plain\n"  # after the frame's own head


def test_a_session_s_whole_life_is_in_the_journal_and_no_argument_is(
    served: Served, worker: str
) -> None:
    served.docker("exec", "--env", "TOKEN=hunter2", worker, "sh", "-c", "exit 5 # hunter3")
    created, made = served.entries("exec.create")[-2:]
    started, begun = served.entries("exec.start")[-2:]
    ended = eventually(
        lambda: [e for e in served.entries("exec.end") if e.id == started.id],
        what="its end in the journal",
    )[0]
    assert created.request["summary"] == {
        "name": worker,
        "owner": "operator",
        "namespace": "",
        "service": "",
        "program": "sh",
        "arguments": 2,
        "user": "",
        "workingDir": "",
        "env": ["TOKEN"],
        "tty": False,
        "stdin": False,
    }
    exec_id = made.result["exec"]
    assert (started.request["summary"]["exec"], begun.result["status"]) == (exec_id, 101)  # type: ignore[index]
    assert (ended.request["summary"]["exec"], ended.result) == (exec_id, {"exitCode": 5})  # type: ignore[index]
    text = "".join(path.read_text() for path in (served.gate.state / "broker").rglob("*.jsonl"))
    assert "hunter" not in text


# What is refused


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--privileged"], b"exec.privileged"),
        (["--user", "0"], b"exec.root"),
        (["--user", "1000:0"], b"exec.root"),
        (["--workdir", "/proc/self/fd/7"], b"workdir.forbidden"),
        (["--env", "LD_PRELOAD=/x"], b"env.denied"),
    ],
)
def test_what_reaches_beyond_the_container_is_refused(
    served: Served, worker: str, options: list[str], rule: bytes
) -> None:
    done = served.docker("exec", *options, worker, "id")
    assert done.returncode != 0
    assert rule in done.stderr


def test_an_exec_is_started_by_its_maker_alone_and_once(served: Served, worker: str) -> None:
    made = served.prepare(worker, "echo", "x")
    start = (f"/exec/{made}/start", {"Detach": True})
    assert served.ask("other", "POST", *start).rule == "exec.unknown"
    assert served.ask("other", "GET", f"/exec/{made}/json").rule == "exec.unknown"
    assert served.ask("other", "POST", f"/exec/{made}/resize?h=2&w=2").rule == "exec.unknown"
    assert served.ask("root", "POST", *start).status == 200
    assert served.ask("root", "POST", *start).rule == "exec.started"


def test_a_client_has_no_exec_at_all(served: Served, worker: str) -> None:
    served.gate.put_in_force(
        Knobs((*knobs().settings, ("clients", json.dumps([{"uid": ALICE, "owner": "alice"}])))),
        served.digest,
    )
    made = served.prepare(worker, "echo", "x")
    body = {"Cmd": ["id"]}
    assert served.ask("alice", "POST", f"/containers/{worker}/exec", body).rule == "exec.client"
    assert served.ask("alice", "POST", f"/exec/{made}/start", {}).rule == "exec.client"


def test_a_client_runs_commands_in_its_own_containers_where_the_policy_says_so(
    served: Served, worker: str
) -> None:
    clients = ("clients", json.dumps([{"uid": ALICE, "owner": "alice"}]))
    allowed = Knobs((*knobs(clients=True).settings, clients))
    served.gate.put_in_force(allowed, served.digest)
    folder = tempfile.mkdtemp(prefix="trimtab-exec-", dir="/tmp")
    made: dict[str, str] = {}
    for name, binds in (("mine", []), ("bound", [f"{folder}:/data:ro"])):
        body = {"Image": WORKER, "HostConfig": {"Binds": binds, "NetworkMode": "none"}}
        answer = served.ask("alice", "POST", "/containers/create", body)
        assert answer.status == 201, answer
        made[name] = str(answer.json["Id"])
        assert served.ask("alice", "POST", f"/containers/{made[name]}/start").status == 204
    command = {"Cmd": ["sh", "-c", "echo $((6*7))"], "AttachStdout": True}
    prepared = served.ask("alice", "POST", f"/containers/{made['mine']}/exec", command)
    assert prepared.status == 201, prepared
    started = served.ask("alice", "POST", f"/exec/{prepared.json['Id']}/start", {})
    assert (started.status, b"42" in started.body) == (200, True)
    assert served.ask("alice", "GET", f"/exec/{prepared.json['Id']}/json").json["ExitCode"] == 0
    as_another = {**command, "User": "12:12"}
    refused = served.ask("alice", "POST", f"/containers/{made['bound']}/exec", as_another)
    assert (refused.status, refused.rule) == (403, "exec.client")
    foreign = served.ask("alice", "POST", f"/containers/{worker}/exec", command)
    assert (foreign.status, foreign.rule) == (404, "foreign")
    for name in made.values():
        assert served.ask("alice", "DELETE", f"/containers/{name}?force=1").status == 204
    shutil.rmtree(folder)
    served.set_policy()


def test_an_exec_of_a_container_that_is_not_what_it_was_is_not_started(served: Served) -> None:
    name = run_worker(served)
    stopped, anew, gone = (served.prepare(name, "echo", "x") for _ in range(3))

    def refused(made: str) -> str:
        return served.ask("root", "POST", f"/exec/{made}/start", {"Detach": True}).rule

    served.out("kill", name)
    assert refused(stopped) == "exec.not-running"
    served.out("start", name)
    assert refused(anew) == "exec.changed"
    served.out("rm", "--force", name)
    run_worker(served, name)
    assert refused(gone) == "exec.changed"
    served.out("rm", "--force", name)


def test_a_policy_that_admits_no_exec_any_more_holds_for_what_was_made_before(
    served: Served, worker: str
) -> None:
    made = served.prepare(worker, "echo", "x")
    served.set_policy(enabled=False)
    try:
        answer = served.ask("root", "POST", f"/exec/{made}/start", {"Detach": True})
        assert answer.rule == "exec.disabled"
    finally:
        served.set_policy()


# Its time


@pytest.fixture
def brief(served: Served) -> Iterator[None]:
    """Execs may take two seconds."""
    served.set_policy(maxDuration="2s")
    yield
    served.set_policy()


@pytest.mark.usefixtures("brief")
def test_when_its_time_is_over_a_session_and_its_processes_end(served: Served, worker: str) -> None:
    running = served.start("exec", "--interactive", worker, "sh", "-c", "sleep 301 & sleep 302")
    running.wait(timeout=PATIENCE_S)
    running.communicate()
    _cut_and_recorded(served, worker)


@pytest.mark.usefixtures("brief")
def test_when_its_time_is_over_a_detached_command_ends(served: Served, worker: str) -> None:
    served.out("exec", "--detach", "--user", "1234", worker, "sleep", "302")
    assert "sleep 302" in processes(served, worker)
    _cut_and_recorded(served, worker)


def _cut_and_recorded(served: Served, worker: str) -> None:
    started = served.entries("exec.start")[-2]
    ended = eventually(
        lambda: [e for e in served.entries("exec.end") if e.id == started.id],
        what="its end in the journal",
    )
    assert [each.result for each in ended] == [{"exitCode": 137, "cut": True}]
    cut = [each for each in served.entries("exec.cut") if each.id == started.id]
    assert [each.result for each in cut] == [{"reason": "it took longer than 2 s"}]
    eventually(lambda: "sleep 30" not in processes(served, worker), what="its processes' end")


def test_a_broker_that_ends_cuts_sessions_and_the_next_one_keeps_their_time(
    engine: PrivateEngine | FoundEngine,
) -> None:
    with ExitStack() as stack:
        served = _serve(stack, engine)
        name = f"x{new_id()[-8:]}"
        stack.callback(engine.docker, "rm", "--force", name, check=False)
        run_worker(served, name)
        running = served.start("exec", "--interactive", name, "sleep", "302")
        eventually(lambda: "sleep 302" in processes(served, name), what="the command")
        served.gate.close()
        running.communicate(timeout=PATIENCE_S)
        served.gate.start()
        eventually(served.gate.serves, within_s=PATIENCE_S, what="the broker's socket")
        served.set_policy(maxDuration="1s")
        ended = eventually(lambda: served.entries("exec.end"), what="its end in the journal")
        assert [each.result for each in ended] == [{"exitCode": 137, "cut": True}]
        served.out("rm", "--force", name)


def test_a_start_that_a_crash_interrupted_is_recovered_and_looked_after(
    engine: PrivateEngine | FoundEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        # create, start, exec create, exec start
        monkeypatch.setenv("TRIMTAB_CRASH_AT", "upstream.send.after:4")
        served = _serve(stack, engine)
        name = f"x{new_id()[-8:]}"
        stack.callback(engine.docker, "rm", "--force", name, check=False)
        run_worker(served, name)
        crashed = served.docker("exec", name, "sh", "-c", "exit 9")
        assert crashed.returncode != 0
        assert served.gate.crashed()
        monkeypatch.delenv("TRIMTAB_CRASH_AT")
        served.gate.start()
        eventually(served.gate.serves, within_s=PATIENCE_S, what="the broker's socket")
        closed = eventually(
            lambda: [e for e in served.entries("exec.start") if e.stage != "intent"],
            within_s=PATIENCE_S,
            what="the intent's end",
        )
        assert [(each.stage, each.result) for each in closed] == [
            ("recovered", {"settled": "unknown", "evidence": "none"})
        ]
        ended = eventually(lambda: served.entries("exec.end"), what="its end in the journal")
        assert ended[0].id == closed[0].id
        served.out("rm", "--force", name)


# Images


def test_an_operator_removes_an_image_that_was_vouched_for_and_is_not_used(
    served: Served, engine: PrivateEngine | FoundEngine, worker: str
) -> None:
    assert worker
    engine.docker("tag", WEB, "trimtab.local/spare:1")
    strange = served.docker("rmi", "trimtab.local/spare:1")
    assert (strange.returncode, b"No such image" in strange.stderr) == (1, True)
    unknown = served.docker("tag", "trimtab.local/spare:1", "trimtab.local/tagged:2")
    assert (unknown.returncode, b"image.untrusted" in unknown.stderr) == (1, True)
    _trust(served, "trimtab.local/spare:1")
    served.out("tag", "trimtab.local/spare:1", "trimtab.local/tagged:2")
    first, second = _ledger(served)
    assert (second["reference"], second["id"]) == ("trimtab.local/tagged:2", first["id"])
    for name in ("trimtab.local/spare:1", "trimtab.local/tagged:2"):
        assert f"Untagged: {name}" in served.out("rmi", name)
    assert _ledger(served) == []
    _trust(served, WORKER)
    used = served.docker("rmi", WORKER)
    assert (used.returncode, b"image.used" in used.stderr) == (1, True)


def _trust(served: Served, reference: str) -> None:
    raw = wire.request("POST", b"/trimtab/v1/trust", json.dumps({"reference": reference}).encode())
    assert wire.ask(served.connect("root"), raw).status == 200


def _ledger(served: Served) -> list[Any]:
    raw = wire.request("GET", b"/trimtab/v1/inventory")
    return list(wire.ask(served.connect("root"), raw).json["ledger"])
