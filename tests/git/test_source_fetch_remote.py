"""Fetches over HTTP and SSH from servers on loopback, with recoveries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.git.places import PASSWORD
from tests.git.repository import DOCUMENT, Followed, Repository
from tests.git.servers import FaultyServer, NginxServer, SshServer

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


def test_credentials_over_http_are_used_and_renewed(tmp_path: Path, repository: Repository) -> None:
    server = NginxServer(tmp_path / "nginx", tmp_path / "served", password=PASSWORD)
    with server.running():
        url = f"{server.address}/deploy.git"
        source = Followed(tmp_path / "fetcher", url, git=LOOPBACK)
        assert source.fetch() == "Failing source.credentials"
        source.git = LOOPBACK + CREDENTIALS
        put(source, "password", f"{PASSWORD}\n")
        assert source.fetch() == "Ready"
        server.change_password("another token")
        second = repository.commit({"deploy/web.yaml": "a: 2\n"})
        assert source.fetch() == "Failing source.credentials"
        put(source, "password", "another token\n")
        assert source.fetch() == "Ready"
        assert source.current == second
        server.stop()
        assert source.fetch() == "Failing source.unreachable"
        server.start()
        assert source.fetch() == "Ready"


def test_an_interrupted_fetch_is_made_again(tmp_path: Path, repository: Repository) -> None:
    server = FaultyServer(tmp_path / "served")
    with server.running():
        source = Followed(tmp_path / "fetcher", f"{server.address}/deploy.git", git=LOOPBACK)
        assert source.fetch() == "Ready"
        first = source.current
        second = repository.commit({"deploy/web.yaml": "a: 2\n"})
        server.fail("cut")
        assert source.fetch() == "Failing source.unreachable"
        assert source.current == first
        assert not source.mirror.has(second)
        server.fail(None)
        assert source.fetch() == "Ready"
        assert source.current == second


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, "source.unreachable"),
        (403, "source.credentials"),
        (404, "source.repository-missing"),
        (302, "source.redirected"),
    ],
)
def test_a_first_fetch_that_fails_serves_nothing(
    tmp_path: Path, repository: Repository, status: int, expected: str
) -> None:
    server = FaultyServer(repository.folder.parent)
    with server.running():
        server.fail(status)
        source = Followed(tmp_path / "fetcher", f"{server.address}/deploy.git", git=LOOPBACK)
        assert source.fetch() == f"Failing {expected}"
        assert not (source.exports / "current").exists()


def test_a_password_that_a_server_repeats_is_withheld(
    tmp_path: Path, repository: Repository
) -> None:
    server = FaultyServer(repository.folder.parent)
    with server.running():
        server.fail("repeat")
        url = f"{server.address}/deploy.git"
        source = Followed(tmp_path / "fetcher", url, git=LOOPBACK + CREDENTIALS)
        put(source, "password", f"{PASSWORD}\n")
        assert source.fetch() == "Failing source.git"
        assert source.message.endswith("remote error: Basic (withheld) is git:(withheld)")


def test_what_is_no_git_server_is_an_error(tmp_path: Path, repository: Repository) -> None:
    (repository.folder.parent / "page").mkdir()
    server = FaultyServer(repository.folder.parent)
    with server.running():
        source = Followed(tmp_path / "fetcher", f"{server.address}/page", git=LOOPBACK)
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
