"""The requests of docker commands, found with the installed docker and without an engine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from controller.cli.clients.docker_command import Recording, record
from controller.model.errors import UsageError

IMAGE = "ghcr.io/a/b"
RUN = ["create", "attach", "wait", "start"]
COMPOSE = """
services:
  web: {image: a/web, networks: [front, proxy], depends_on: {db: {condition: service_healthy}}}
  db: {image: a/db, volumes: ["data:/data"]}
networks: {front: {}, proxy: {external: true}}
volumes: {data: {}}
"""


def requests_of(line: str) -> Recording:
    return record(line.split())


def bodies(line: str) -> list[Any]:
    return [json.loads(request.body) for request in requests_of(line).requests if request.body]


@pytest.mark.parametrize(
    "options", ["--rm", "-it --rm", "-i", "--name CONTAINER", "--init -v /etc:/e -p 80:80"]
)
def test_a_run_goes_on_to_its_last_request(options: str) -> None:
    recording = requests_of(f"docker run {options} {IMAGE} sh")
    assert recording.error is None
    assert [request.path.rpartition("/")[2] for request in recording.requests] == RUN
    assert recording.requests[-1].path == "/containers/CONTAINER/start"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("create --name x a", ["POST /containers/create?name=x"]),
        ("rm -fv one", ["DELETE /containers/one?force=1&v=1"]),
        ("stop -t 5 one", ["POST /containers/one/stop?t=5"]),
        ("kill -s HUP one", ["POST /containers/one/kill?signal=HUP"]),
        ("rename one two", ["POST /containers/one/rename?name=two"]),
        ("update --memory 1g one", ["POST /containers/one/update"]),
        ("pull a/b:1", ["POST /images/create?fromImage=a%2Fb&tag=1"]),
        ("rmi a/b", ["DELETE /images/a/b"]),
        ("push a/b", ["POST /images/a/b/push?tag=latest"]),
        ("network create net", ["POST /networks/create"]),
        ("network connect net one", ["POST /networks/net/connect"]),
        ("volume create vol", ["POST /volumes/create"]),
        ("volume rm vol", ["DELETE /volumes/vol"]),
        ("container prune", ["POST /containers/prune"]),
        ("ps", ["GET /containers/json"]),
        ("diff one", ["GET /containers/one/changes"]),
        ("version", ["GET /version"]),
        (
            "exec one ls",
            [
                "GET /containers/one/json",
                "POST /containers/one/exec",
                "POST /exec/one/start",
                "GET /exec/one/json",
            ],
        ),
    ],
)
def test_other_commands_are_recorded_in_order(line: str, expected: list[str]) -> None:
    recording = requests_of(line)
    urls = [f"{r.method} {r.path}{'?' if r.query else ''}{r.query}" for r in recording.requests]
    assert (urls, recording.error) == (expected, None)


def test_the_body_is_the_one_that_docker_writes() -> None:
    (body,) = bodies(f"create -v /etc:/e --cap-add SYS_ADMIN -e A=1 {IMAGE} true")
    assert (body["Image"], body["Cmd"], body["Env"]) == (IMAGE, ["true"], ["A=1"])
    assert (body["HostConfig"]["Binds"], body["HostConfig"]["CapAdd"]) == (
        ["/etc:/e"],
        ["SYS_ADMIN"],
    )


def test_compose_goes_on_to_the_start_of_its_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    monkeypatch.chdir(tmp_path)
    recording = requests_of("docker compose -p shop up -d")
    assert recording.error is None
    assert sorted(
        f"{r.path} {r.query or json.loads(r.body or b'{}').get('Name', '')}".strip()
        for r in recording.requests
        if r.method == "POST"
    ) == [
        "/containers/create name=shop-db-1",
        "/containers/create name=shop-web-1",
        "/containers/shop-db-1/start",
        "/containers/shop-web-1/start",
        "/networks/create shop_default",
        "/networks/create shop_front",
        "/volumes/create shop_data",
    ]


def test_another_engine_in_the_line_or_the_variables_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/variable.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    recording = requests_of(f"docker -H unix://{tmp_path}/option.sock --context=other ps")
    assert ([r.path for r in recording.requests], recording.error) == (["/containers/json"], None)
    inside = requests_of(f"compose -H unix://{tmp_path}/option.sock ls")
    assert (inside.requests, inside.error) == ((), "unknown shorthand flag: 'H' in -H")


def test_the_users_proxies_and_variables_count_and_the_credential_helper_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-planted"
    helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    helper.chmod(0o755)
    proxies = {"default": {"httpProxy": "http://proxy:3128"}}
    (tmp_path / "config.json").write_text(
        json.dumps({"proxies": proxies, "credsStore": "planted", "currentContext": "other"})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FROM_HERE", "x")
    (body,) = bodies(f"create -e FROM_HERE {IMAGE}")
    assert {"FROM_HERE=x", "HTTP_PROXY=http://proxy:3128"} <= set(body["Env"])
    assert requests_of(f"pull {IMAGE}").error is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("line", ["export -o out one", "save -o out a/b", "cp one:/x out"])
def test_no_file_is_written(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recording = requests_of(line)
    assert len(recording.requests) == 1
    assert recording.error == "Error response from daemon: no engine answers here"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("run --nonsense a", "unknown flag: --nonsense"),
        ("run", "requires at least 1 argument"),
        ("run --rm=perhaps a", 'invalid argument "perhaps" for "--rm" flag'),
        ("run --env-file /nonexistent a", "open /nonexistent: no such file or directory"),
        ("compose -f /nonexistent up", "open /nonexistent: no such file or directory"),
    ],
)
def test_a_line_that_docker_rejects_has_no_requests_and_its_error(line: str, error: str) -> None:
    recording = requests_of(line)
    assert recording.requests == ()
    assert error in str(recording.error)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "docker",
        "login",
        "context rm x",
        "buildx build .",
        "frobnicate x",
        "run --cidfile x a",
        "build --iidfile=x .",
        "pull --disable-content-trust=false a",
        "pull --disable-content-trust=0 a",
        "run --disable-content-trust=F a",
        "compose config -o x",
        "compose convert -o x",
        "compose --project-directory . alpha publish 127.0.0.1:1/x",
        "compose publish 127.0.0.1:1/x",
        "compose -f oci://127.0.0.1:1/x up",
        "compose --file=https://127.0.0.1:1/x up",
    ],
)
def test_a_command_that_does_more_than_ask_the_engine_is_not_run(line: str) -> None:
    with pytest.raises(UsageError) as error:
        requests_of(line)
    assert error.value.code == "line.invalid"


def test_docker_is_stopped_at_the_timeout_and_its_requests_are_kept() -> None:
    # It reads an archive from a terminal that nobody closes.
    recording = record(["import", "-"], timeout_s=0.5)
    assert recording.error == "docker was stopped after 0.5 s"
    assert [request.path for request in recording.requests] == ["/images/create"]


def test_without_docker_the_error_names_the_package_and_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shutil.which("docker"), "make test installs docker-cli"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as error:
        requests_of("run a")
    assert error.value.code == "docker.missing"
    assert "docker-cli" in error.value.remedy
    assert "policy explain METHOD PATH --body" in error.value.remedy
