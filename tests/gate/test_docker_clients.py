"""Ordinary clients on a broker's socket, before a real engine: the docker CLI and docker-py.

The broker's shell is what is tried here: keep-alive, streams, hijacks, half-close, its end.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from controller.app.process import new_id
from controller.core.policy.text import load_policy
from controller.journal.store.reader import records
from tests.served import served as serving

if TYPE_CHECKING:
    from docker import APIClient

    from tests.engine import FoundEngine, PrivateEngine

WORKER = "trimtab.local/worker:1"
POLICY_FILE = Path(__file__).parents[2] / "configs" / "policies" / "development.yaml"
POLICY = load_policy(POLICY_FILE.read_text(), str(POLICY_FILE))


@dataclass
class Served:
    """A broker that serves in a thread of this process, and its clients."""

    root: Path
    socket: Path

    def docker(
        self, *arguments: str, stdin: bytes = b"", timeout_s: float = 30
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the docker CLI against the broker."""
        return subprocess.run(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": f"unix://{self.socket}"},
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def out(self, *arguments: str) -> str:
        """Run the docker CLI, which must succeed, and return what it said."""
        done = self.docker(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the docker CLI, with its output to read."""
        return subprocess.Popen(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": f"unix://{self.socket}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def client(self) -> APIClient:
        """Return a docker-py client of the broker."""
        return docker.APIClient(base_url=f"unix://{self.socket}", version="1.45", timeout=60)


@pytest.fixture(scope="module")
def served(
    engine: PrivateEngine | FoundEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("b")
    with serving(engine, root, policy=POLICY) as socket:
        yield Served(root, socket)


def test_run_shows_the_output_and_the_exit_code(served: Served) -> None:
    done = served.docker("run", "--rm", WORKER, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_run_carries_input_to_its_end(served: Served) -> None:
    data = os.urandom(3_000_000)
    done = served.docker("run", "--rm", "--interactive", WORKER, "cat", stdin=data)
    assert (done.returncode, done.stdout == data) == (0, True)


def test_run_with_a_terminal_works(served: Served) -> None:
    typescript = ["script", "--quiet", "--return", "--command"]
    command = f"docker run --rm -it {WORKER} sh -c 'test -t 0 && exit 3'"
    done = subprocess.run(
        [*typescript, command, "/dev/null"],
        env={**os.environ, "DOCKER_HOST": f"unix://{served.socket}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stdout


@pytest.fixture
def worker(served: Served) -> Iterator[str]:
    """A container that prints a line a second."""
    name = f"w{new_id()[-8:]}"
    served.out("run", "--detach", "--name", name, "--env", "INTERVAL=1", WORKER)
    yield name
    served.docker("rm", "--force", name)


def test_logs_events_and_wait_come_as_they_come(served: Served, worker: str) -> None:
    logs = served.start("logs", "--follow", worker)
    wait = served.start("wait", worker)
    events = served.start("events", "--since", "5m", "--filter", f"container={worker}")
    assert logs.stdout is not None
    assert events.stdout is not None
    assert logs.stdout.readline() == b"worker did piece 1\n"
    assert b"container create" in events.stdout.readline()
    served.out("stop", "--time", "1", worker)
    assert wait.communicate(timeout=60)[0].strip().isdigit()
    logs.communicate(timeout=60)
    assert logs.returncode == 0
    events.kill()
    events.communicate()


def test_attach_shows_what_comes_and_leaves_at_the_end(served: Served, worker: str) -> None:
    attached = served.start("attach", "--no-stdin", worker)
    assert attached.stdout is not None
    assert attached.stdout.readline().startswith(b"worker did piece")
    served.out("stop", "--time", "1", worker)
    attached.communicate(timeout=60)


def test_a_refusal_reaches_the_person_with_rule_and_remedy(served: Served) -> None:
    done = served.docker("run", "--privileged", WORKER)
    assert done.returncode == 125
    assert b"privileged: HostConfig.Privileged" in done.stderr
    assert b"docker: Error response from daemon:" in done.stderr


def test_docker_py_reads_streams_and_attaches(served: Served) -> None:
    client = served.client()
    try:
        made = client.create_container(
            WORKER,
            command=["sh", "-c", "read line; echo got $line"],
            stdin_open=True,
            labels={"io.trimtab.service": "py"},
        )
        events = client.events(decode=True, filters={"container": made["Id"]})
        socket = client.attach_socket(made["Id"], {"stdin": 1, "stream": 1})
        client.start(made["Id"])
        socket._sock.sendall(b"hello\n")  # docker-py gives nothing else to write to
        socket._sock.close()
        socket._response.close()
        assert next(events)["Action"] == "attach"
        assert client.wait(made["Id"], timeout=60)["StatusCode"] == 0
        assert client.logs(made["Id"]) == b"got hello\n"
        assert b"".join(client.logs(made["Id"], stream=True, follow=True)) == b"got hello\n"
        assert [each["Id"] for each in client.containers(all=True)] == [made["Id"]]
        stats = client.stats(made["Id"], stream=False)
        assert stats["id"] == made["Id"]
        client.remove_container(made["Id"])
        events.close()
    finally:
        client.close()


def test_every_mutation_was_recorded_with_its_outcome(served: Served) -> None:
    stages: dict[str, list[str]] = {}
    for record in records(served.root / "broker" / "journal"):
        if record.entry.stage in {"intent", "outcome", "recovered"}:
            stages.setdefault(record.entry.id, []).append(record.entry.stage)
    assert len(stages) > 10
    assert {tuple(each) for each in stages.values()} == {("intent", "outcome")}
