"""Builds through the gate, with the docker CLI and the engine's classic builder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import docker
import docker.errors
import pytest

from tests.gate import wire
from tests.gate.hostile_builds import BASE, archive, hostile_builds
from tests.instance import PATIENCE_S, POLICIES, Host, eventually
from tests.registry import Registry, admit
from tools import demo_images

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

ARCHIVE: dict[str, str | None] = {"Content-Type": "application/x-tar"}
REGISTRY = "127.0.0.1:5073"
#: Recovery says that nothing was built once the engine can't be at it any more.
RECOVERY_S = 180.0
SECRET = "verysecret-word-of-use"
RULES = "  build: {memory: 128Mi, cpus: 1, pids: 200, time: 15s, result: 64Mi, context: {bytes: 4Mi, files: 50}}\n"


@pytest.fixture(scope="module")
def host(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    host = Host(engine)
    try:
        host.policy = str(POLICIES / "development.yaml")
        host.use_networks_of_its_own("builds")
        copy = Path(host.policy)
        text = copy.read_text()
        old = next(line for line in text.splitlines(keepends=True) if line.startswith("  build:"))
        copy.write_text(text.replace(old, RULES))
        admit(host, REGISTRY)
        with host.running():
            yield host
    finally:
        host.close()


def build(
    host: Host,
    folder: Path,
    files: Mapping[str, str],
    *options: str,
    tag: str = "trimtab.local/built:1",
) -> subprocess.CompletedProcess[str]:
    """Run ``docker build`` of a folder with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return docker_cli(host, "build", "-t", tag, *options, str(folder))


def docker_cli(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the docker CLI with the classic builder."""
    return subprocess.run(
        host.engine.inside("docker", "-H", f"unix://{host.broker_socket}", *arguments),
        env=host.environment(DOCKER_BUILDKIT="0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def _files_of(host: Host) -> bytes:
    """Return the contents of all files of the state folder, and what the processes said."""
    paths = [path for path in (host.state.rglob("*")) if path.is_file()]
    return b"".join(path.read_bytes() for path in paths) + host.said().encode()


def _ids(host: Host, path: str) -> set[str]:
    return {each["Id"] for each in host.engine.must("GET", path)}


def _all_containers(host: Host) -> set[str]:
    return _ids(host, "/containers/json?all=1")


def _post(host: Host, packed: bytes, **query: str) -> wire.Answer:
    """Send a context, and return the whole answer: the broker ends the connection."""
    raw = wire.request("POST", _target(query), headers=ARCHIVE, body=packed)
    with _connected(host) as connection:
        wire.send(connection, raw)
        connection.settimeout(PATIENCE_S)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().splitlines()[1:])
    is_chunked = fields.get("transfer-encoding") == "chunked"
    return wire.Answer(int(head.split()[1]), wire.dechunked(body) if is_chunked else body, fields)


def _target(query: Mapping[str, str]) -> bytes:
    asked = {"t": "trimtab.local/hostile:1", **query}
    pairs = {name: value for name, value in asked.items() if value}
    return f"/v1.45/build?{urlencode(pairs)}".encode()


def _connected(host: Host) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(host.broker_socket))
    return connection


def _ended_by(host: Host, text: str) -> tuple[str, str]:
    """Build a Dockerfile. Return the last line of the log, and the code of the outcome."""
    answer = _post(host, archive(dockerfile=f"FROM {BASE}\n{text}\n"))
    assert answer.status == 200
    last = json.loads(answer.body.decode().splitlines()[-1])
    outcome = [each for each in host.records("outcome") if "code" in each["result"]][-1]
    return last["error"], outcome["result"]["code"]


def test_an_operators_build_is_recorded_and_runs_and_its_arguments_stay_secret(
    host: Host, tmp_path: Path
) -> None:
    files = {
        "Dockerfile": f"FROM {BASE}\nUSER 0\nARG WORD\nCOPY hello.txt /hello.txt\n"
        "RUN echo ${#WORD} >> /hello.txt; cat /proc/net/dev\n",
        "hello.txt": "hello\n",
    }
    done = build(host, tmp_path, files, "--build-arg", f"WORD={SECRET}")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Successfully tagged trimtab.local/built:1" in done.stdout
    assert "lo:" in done.stdout
    assert "eth0" not in done.stdout  # the policy gives no network
    run = ("run", "--rm", "--network", "none", "--entrypoint", "busybox", "trimtab.local/built:1")
    assert host.docker_through_broker(*run, "cat", "/hello.txt").stdout == "hello\n22\n"
    records = host.records()
    route = {
        each["id"] for each in records if each.get("request", {}).get("route") == "image.build"
    }
    intent, outcome = (each for each in records if each["id"] in route)
    summary = intent["request"]["summary"]
    assert summary["env"] == ["WORD"]
    assert len(summary["context"].removeprefix("sha256:")) == len(summary["dockerfile"]) == 64
    assert summary["bases"][0].startswith(f"{BASE}=sha256:")
    assert outcome["result"]["reference"] == "trimtab.local/built:1"
    failed = build(
        host,
        tmp_path,
        {"Dockerfile": f"FROM {BASE}\nARG WORD\nRUN {SECRET}\n"},
        "--build-arg",
        f"WORD={SECRET}",
    )
    assert "returned a non-zero code: 127" in failed.stderr
    build(
        host, tmp_path, {"Dockerfile": "ARG WORD\nFROM x/$WORD\n"}, "--build-arg", f"WORD={SECRET}"
    )
    assert SECRET.encode() not in _files_of(host)


def test_no_hostile_build_reaches_the_engine(host: Host) -> None:
    before = _ids(host, "/images/json?all=1"), _all_containers(host), len(host.records("intent"))
    wrong: list[str] = []
    for case in hostile_builds():
        answer = _post(host, case.archive, **case.query)
        if not (400 <= answer.status < 500 and answer.rule == case.rule):
            wrong.append(f"{case.name}: {answer.status} {answer.rule}, expected {case.rule}")
    assert not wrong, "\n".join(wrong)
    after = _ids(host, "/images/json?all=1"), _all_containers(host), len(host.records("intent"))
    assert after == before
    assert not [*(host.state / "broker" / "builds").iterdir()]


def test_a_build_beyond_a_bound_ends_with_its_commands(host: Host) -> None:
    containers, images = _all_containers(host), _ids(host, "/images/json?all=1")
    shell = "USER 0\nRUN "
    told = {
        "time": _ended_by(host, f"{shell}sleep 1000"),
        "log": _ended_by(host, f"{shell}yes {'x' * 1000}"),
        "size": _ended_by(host, f"{shell}dd if=/dev/zero of=/f bs=1M count=10000; sleep 1000"),
        "pids": _ended_by(host, f"{shell}for i in $(seq 300); do sleep 1000 & done; wait"),
        "failed": _ended_by(host, f"{shell}dd if=/dev/zero of=/dev/null bs=512M count=1"),
    }
    assert {name: code for name, (_, code) in told.items()} == {
        name: f"build.{name}" for name in told
    }
    assert "137" in told["failed"][0]  # killed: beyond its memory
    assert eventually(lambda: _all_containers(host) == containers)
    assert _ids(host, "/images/json?all=1") == images
    # Written too quickly for a look of the broker: the result is measured before it gets its name.
    quick = _ended_by(host, f"{shell}dd if=/dev/zero of=/f bs=1M count=70")
    assert quick[1] == "build.size"
    assert _ids(host, "/images/json?all=1") == images


def test_a_build_that_is_its_base_never_removes_the_base(host: Host) -> None:
    run = ("run", "--name", "large", "--user", "0", "--entrypoint", "busybox", BASE)
    host.engine.docker(*run, "dd", "if=/dev/zero", "of=/f", "bs=1M", "count=70")
    host.engine.docker("commit", "large", "trimtab.local/large:1")
    host.engine.docker("rm", "large")
    answer = _post(host, archive(dockerfile="FROM trimtab.local/large:1\n"))
    assert b"build.size" in answer.body
    assert host.engine.must("GET", "/images/trimtab.local/large:1/json")
    host.engine.docker("rmi", "trimtab.local/large:1")


def test_a_broker_that_is_killed_while_it_builds_leaves_nothing(host: Host) -> None:
    containers, images = _all_containers(host), _ids(host, "/images/json?all=1")
    text = f"FROM {BASE}\nRUN echo started; sleep 1000\n"
    with _connected(host) as connection:
        raw = wire.request("POST", _target({}), headers=ARCHIVE, body=archive(dockerfile=text))
        wire.send(connection, raw)
        log = b""
        while b"started\\n" not in log:
            log += connection.recv(65536)
        os.kill(host.pid_of("broker"), signal.SIGKILL)
        while connection.recv(65536):
            pass
    assert eventually(lambda: _all_containers(host) == containers)
    assert eventually(host.nothing_open, within_s=RECOVERY_S)
    assert _ids(host, "/images/json?all=1") == images
    assert not [*(host.state / "broker" / "builds").iterdir()]
    assert eventually(lambda: _post(host, archive()).status == 200)


def test_an_image_without_files_is_built(host: Host) -> None:
    answer = _post(host, archive(dockerfile="FROM scratch\nLABEL a=b\n"))
    assert b"Successfully tagged trimtab.local/hostile:1" in answer.body, answer.body


def test_a_build_ends_with_its_client_and_leaves_room_for_the_next(host: Host) -> None:
    containers = _all_containers(host)
    text = f"FROM {BASE}\nRUN echo started; sleep 1000\n"
    connection = _connected(host)
    with connection:
        raw = wire.request("POST", _target({}), headers=ARCHIVE, body=archive(dockerfile=text))
        wire.send(connection, raw)
        log = b""
        while b"started\\n" not in log:
            log += connection.recv(65536)
        assert _post(host, archive()).rule == "build.busy"
    assert eventually(lambda: _all_containers(host) == containers)
    assert eventually(lambda: _post(host, archive()).status == 200)


def test_a_bound_cant_be_hidden_behind_lines_like_the_engines(host: Host) -> None:
    lines = "; ".join(f"echo ' ---> Running in {n:012x}'" for n in range(5))
    forged = "RUN " + lines + "; dd if=/dev/zero of=/tmp/f bs=1M count=10000; sleep 1000"
    assert _ended_by(host, forged)[1] == "build.size"


def test_a_base_is_pulled_by_the_broker_and_judged_before_anything_is_built(host: Host) -> None:
    registry = Registry(host.folder, host.engine, host=REGISTRY)
    try:
        registry.push(f"{REGISTRY}/base:1", demo_images.web("1"))
        answer = _post(host, archive(dockerfile=f"FROM {REGISTRY}/base:1\nLABEL a=b\n"))
        log = [json.loads(line) for line in answer.body.decode().splitlines()]
        assert f"Status: Downloaded newer image for {REGISTRY}/base:1" in [
            line.get("status") for line in log
        ]
        assert log[-1] == {"stream": "Successfully tagged trimtab.local/hostile:1\n"}
        routes = [each["request"]["route"] for each in host.records("intent")]
        assert routes[-2:] == ["image.pull", "image.build"]
        missing = _post(host, archive(dockerfile=f"FROM {REGISTRY}/gone:1\n"))
        assert "image.notfound" in missing.body.decode().splitlines()[-1]
    finally:
        registry.stop()
    host.engine.docker("create", "--name", "onbuild", BASE)
    host.engine.docker(
        "commit", "--change", "ONBUILD RUN true", "onbuild", "trimtab.local/onbuild:1"
    )
    host.engine.docker("rm", "onbuild")
    assert _post(host, archive(dockerfile="FROM trimtab.local/onbuild:1\n")).rule == "build.onbuild"
    assert host.records("intent")[-1]["request"]["route"] == "image.pull"


def test_compose_builds_and_runs_its_services(host: Host, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo built > /tmp/word\n")
    service = (
        "{build: ., image: 'trimtab.local/composed:1', network_mode: none, entrypoint: [busybox]}"
    )
    (tmp_path / "compose.yaml").write_text(f"services:\n  app: {service}\n")
    compose = ("compose", "--project-directory", str(tmp_path), "--project-name", "built")
    done = docker_cli(host, *compose, "build")
    assert done.returncode == 0, done.stderr
    ran = docker_cli(host, *compose, "run", "--rm", "-T", "app", "cat", "/tmp/word")
    assert ran.stdout == "built\n", ran.stderr


def test_an_sdk_builds_and_finds_its_image(host: Host, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nLABEL a=b\n")
    with closing(docker.DockerClient(base_url=f"unix://{host.broker_socket}")) as client:
        image, log = client.images.build(path=str(tmp_path), tag="trimtab.local/sdk:1")
        assert image.tags == ["trimtab.local/sdk:1"]
        assert any("Step 2/2" in str(line) for line in log)
        with pytest.raises(docker.errors.BuildError, match="non-zero code: 3"):
            (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN exit 3\n")
            client.images.build(path=str(tmp_path), tag="trimtab.local/sdk:1")


def test_layers_of_another_build_are_never_used_again(host: Host) -> None:
    text = archive(dockerfile=f"FROM {BASE}\nRUN cat /proc/sys/kernel/random/uuid > /tmp/id\n")
    ids = set()
    first = archive(
        dockerfile=f"FROM {BASE} AS a\nRUN echo a > /tmp/a\nFROM {BASE}\nCOPY --from=a /tmp/a /tmp/b\n"
    )
    before = _ids(host, "/images/json?all=1")
    assert _post(host, first).status == 200
    made = _ids(host, "/images/json?all=1") - before
    assert len(made) == 1  # nothing stays of the first stage
    for _ in range(2):
        assert _post(host, text).status == 200
        ids.add(host.engine.must("GET", "/images/trimtab.local/hostile:1/json")["Id"])
    assert len(ids) == 2
