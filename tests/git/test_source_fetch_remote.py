"""Fetches over HTTP and SSH from servers on loopback, with what goes wrong there."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.fetch.git_command import GitLimits
from tests.git.repository import DOCUMENT, Followed, Repository
from tests.git.servers import SshServer, http_server

LOOPBACK = ', "allowInsecureLoopback": true'
CREDENTIALS = ', "credentials": "team"'


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "served" / "deploy.git")
    repository.commit({"deploy/web.yaml": DOCUMENT})
    return repository


def put(source: Followed, name: str, text: str) -> None:
    path = source.folder / "git" / "team" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def test_a_repository_is_fetched_over_http(tmp_path: Path, repository: Repository) -> None:
    with http_server(tmp_path / "served") as (url, handler):
        source = Followed(tmp_path / "fetcher", f"{url}/deploy.git", git=LOOPBACK)
        assert source.fetch() == "Ready"
        second = repository.commit({"deploy/web.yaml": DOCUMENT, "deploy/a.yaml": "a: 1\n"})
        assert source.fetch() == "Ready"
        assert source.current == second
        for status, expected in (
            (500, "source.unreachable"),
            (503, "source.unreachable"),
            (403, "source.credentials"),
            (404, "source.repository-missing"),
            (302, "source.redirected"),
        ):
            handler.status = status
            assert source.fetch() == f"Failing {expected}", status
    assert source.fetch() == "Failing source.unreachable"
    assert source.current == second


def test_credentials_over_http_are_used_and_expire(tmp_path: Path, repository: Repository) -> None:
    with http_server(tmp_path / "served") as (url, handler):
        handler.password = "token"
        source = Followed(tmp_path / "fetcher", f"{url}/deploy.git", git=LOOPBACK)
        assert source.fetch() == "Failing source.credentials"
        source.git = LOOPBACK + CREDENTIALS
        put(source, "password", "token\n")
        assert source.fetch() == "Ready"
        handler.password = "another"  # it expired
        second = repository.commit({"deploy/web.yaml": "a: 2\n"})
        assert source.fetch() == "Failing source.credentials"
        put(source, "password", "another\n")
        assert source.fetch() == "Ready"
        assert source.current == second


@contextlib.contextmanager
def dripping_server() -> Iterator[str]:
    """Answer every connection with one byte at a time, as long as the client stays."""
    ended = threading.Event()

    def drip(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not ended.wait(0.1):
                peer.sendall(b"0")

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = server.accept()
                threading.Thread(target=drip, args=(peer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()


def test_a_server_of_a_few_bytes_a_second_is_given_up(
    tmp_path: Path, repository: Repository
) -> None:
    source = Followed(tmp_path / "fetcher", repository.url)
    assert source.fetch() == "Ready"
    served = source.current
    with dripping_server() as url:
        source.url, source.git = f"{url}/deploy.git", LOOPBACK
        source.limits = GitLimits(list_time_s=2.0)
        assert source.fetch() == "Failing source.slow"
    assert source.current == served


def test_what_is_no_git_server_is_an_error(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "served" / "page").mkdir()
    with http_server(tmp_path / "served") as (url, _):
        source = Followed(tmp_path / "fetcher", f"{url}/page", git=LOOPBACK)
        assert source.fetch().startswith("Failing source.")
        assert not (source.exports / "current").exists()


def test_a_repository_is_fetched_over_ssh(tmp_path: Path, repository: Repository) -> None:
    server = SshServer(tmp_path / "ssh")
    source = Followed(tmp_path / "fetcher", server.url(repository.folder), git=CREDENTIALS)
    put(source, "id", (server.folder / "id").read_text())
    put(source, "known_hosts", server.known_host())
    assert source.fetch() == "Failing source.unreachable"
    with server.running():
        assert source.fetch() == "Ready"
        first = source.current
        server.new_key("stranger")
        put(source, "id", (server.folder / "stranger").read_text())
        repository.commit({"deploy/web.yaml": "a: 2\n"})
        assert source.fetch() == "Failing source.credentials"
        put(source, "id", (server.folder / "id").read_text())
        put(source, "known_hosts", "")
        assert source.fetch() == "Failing source.host-key"
        put(source, "known_hosts", server.known_host())
        source.url = server.url(tmp_path / "served" / "missing.git")
        assert source.fetch() == "Failing source.repository-missing"
    assert source.current == first
    source.url = server.url(repository.folder)
    with server.running():
        assert source.fetch() == "Ready"
    assert source.current != first


def test_a_changed_host_key_is_refused_until_known_hosts_has_it(
    tmp_path: Path, repository: Repository
) -> None:
    server = SshServer(tmp_path / "ssh")
    source = Followed(tmp_path / "fetcher", server.url(repository.folder), git=CREDENTIALS)
    put(source, "id", (server.folder / "id").read_text())
    put(source, "known_hosts", server.known_host())
    with server.running():
        assert source.fetch() == "Ready"
    first = source.current
    second = repository.commit({"deploy/web.yaml": "a: 2\n"})
    with server.running("other_host"):  # a new server, or somebody in the middle
        assert source.fetch() == "Failing source.host-key"
        assert source.current == first
        put(source, "known_hosts", server.known_host("other_host"))
        assert source.fetch() == "Ready"
    assert source.current == second
