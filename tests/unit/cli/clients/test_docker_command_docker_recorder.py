"""The recorder's bounds and replies, with requests as bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.clients import docker_command
from controller.cli.clients.docker_command import DockerRecorder, EngineRequest


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[DockerRecorder]:
    with DockerRecorder(tmp_path / "s") as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def send(recorder: DockerRecorder, data: bytes) -> bytes:
    """Send bytes and return the reply, read to its end."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(recorder.server_address))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        reply = b""
        while part := client.recv(4096):
            reply += part
        return reply


def head(method: str, target: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: d", *headers, "", ""]).encode()


def test_the_greeting_names_the_version_and_is_not_recorded(recorder: DockerRecorder) -> None:
    assert b"Api-Version: 1.45\r\n" in send(recorder, head("HEAD", "/_ping"))
    assert recorder.requests == []


def test_version_query_and_body_are_taken_apart(recorder: DockerRecorder) -> None:
    body = b'{"Image": "a"}'
    target = "/v1.45/containers/create?name=web"
    reply = send(recorder, head("POST", target, f"Content-Length: {len(body)}") + body)
    assert reply.startswith(b"HTTP/1.1 201 ")
    assert b'"Id": "web"' in reply
    chunked = b'5;x=y\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n'
    send(recorder, head("POST", "/volumes/create", "Transfer-Encoding: chunked") + chunked)
    assert recorder.requests == [
        EngineRequest("POST", "/containers/create", "name=web", body),
        EngineRequest("POST", "/volumes/create", "", b'{"a": 1}'),
    ]


def test_a_stream_is_empty_and_read_to_its_end(recorder: DockerRecorder) -> None:
    reply = send(recorder, head("POST", "/containers/x/attach", "Upgrade: tcp") + b"input" * 9999)
    assert reply.startswith(b"HTTP/1.1 101 ")
    assert reply.endswith(b"Upgrade: tcp\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        head("PUT", "/x", "Content-Length: 100") + b"x" * 100,
        head("PUT", "/x", "Transfer-Encoding: chunked") + b"32\r\n" + b"x" * 50 + b"\r\n" * 2,
    ],
)
def test_a_long_body_is_cut_off(
    data: bytes, recorder: DockerRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_command, "BODY_BYTES_MAX", 10)
    send(recorder, data)
    assert recorder.requests == [EngineRequest("PUT", "/x", "", b"x" * 10)]


def test_a_request_beyond_the_limit_gets_no_reply(
    recorder: DockerRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_command, "REQUESTS_MAX", 1)
    assert send(recorder, head("GET", "/containers/json", "Connection: close"))
    assert recorder.is_full
    assert send(recorder, head("GET", "/images/json")) == b""
    assert len(recorder.requests) == 1
