"""The fetcher as a whole: workers, operators' requests on the socket, and the published status."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli.clients.socket_client import ask_controller
from controller.core.git.reports import parse_status
from controller.fetch.fetcher import DeclaredSources, Fetcher, FetcherParts, serve_requests
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import EngineFailed
from controller.model.sources import SourceState, SourceStatus
from tests.git.repository import DOCUMENT, Repository, source_spec, unverified

PATIENCE_S = 30.0


class Clock:
    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)

    def monotonic(self) -> float:
        return time.monotonic()


class Running:
    """A fetcher with a socket. ``declared`` are the Sources of DIR."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self.folder = folder
        self.repository = repository
        folder.mkdir(exist_ok=True)
        self.declared = {"shop": self.spec()}
        self.complete = True
        self.fetcher = Fetcher(
            FetcherParts(
                folder=folder,
                credentials=folder / "git",
                verify=unverified,
                load_sources=lambda: DeclaredSources(dict(self.declared), self.complete),
                clock=Clock(),
                random=lambda: 0.5,
                feedback=folder / "feedback.json",
                host="host-1",
            )
        )
        listener = socket.socket(socket.AF_UNIX)
        self.socket = folder / "fetch.sock"
        self.socket.unlink(missing_ok=True)
        listener.bind(str(self.socket))
        listener.listen(8)
        self.fetcher.start()
        self.server = serve_requests(listener, self.fetcher, operators=frozenset({os.getuid()}))

    def spec(self, more: str = "") -> SourceSpec:
        return source_spec(self.repository.url, more=more)

    def ask(self, do: str, **members: str) -> dict[str, Any]:
        return dict(ask_controller(self.socket, {"do": do, **members}, timeout_s=PATIENCE_S))

    def sync(self, name: str = "shop") -> dict[str, Any]:
        answer = self.ask("sync", name=name)
        assert answer["done"] is True
        return dict(answer["source"])

    def published(self) -> tuple[SourceStatus, ...]:
        return parse_status((self.folder / "status.json").read_bytes())

    def current(self, name: str = "shop") -> str:
        return (self.folder / "sources" / name / "current").readlink().name

    def stop(self) -> None:
        self.fetcher.stop()
        self.server.stop()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "deploy.git")
    repository.commit({"deploy/web.yaml": DOCUMENT})
    return repository


@pytest.fixture
def running(tmp_path: Path, repository: Repository) -> Iterator[Running]:
    running = Running(tmp_path / "fetcher", repository)
    yield running
    running.stop()


def code(error: pytest.ExceptionInfo[EngineFailed]) -> str:
    return error.value.code


def test_a_pushed_commit_is_served_after_a_sync(running: Running) -> None:
    assert running.sync()["state"] == "Ready"
    second = running.repository.commit({"deploy/web.yaml": DOCUMENT, "deploy/a.yaml": "a: 1\n"})
    assert running.sync()["current"]["commit"] == second
    (status,) = running.published()
    assert (status.state, status.failures) == (SourceState.READY, 0)
    assert status.next_fetch > status.last_fetch == status.last_success
    assert running.current() == second
    commits = running.ask("log", name="shop")["commits"]
    assert commits[0]["commit"] == second
    assert len(commits) == 2


def test_an_outage_changes_nothing_and_ends_by_itself(running: Running, tmp_path: Path) -> None:
    first = running.sync()
    since = first["since"]
    moved = tmp_path / "moved.git"
    running.repository.folder.rename(moved)
    failing = running.sync()
    assert (failing["state"], failing["reason"]) == ("Failing", "source.repository-missing")
    assert running.sync()["failures"] >= 2
    assert running.current() == first["current"]["commit"]
    moved.rename(running.repository.folder)
    ready = running.sync()
    assert (ready["state"], ready["failures"], ready["message"]) == ("Ready", 0, "")
    assert ready["since"] >= since


def test_a_held_commit_is_approved_by_its_id_alone(running: Running) -> None:
    first = running.sync()["current"]["commit"]
    tree = running.repository.tree({"deploy/web.yaml": "other: 1\n"})
    second = running.repository.commit_tree(tree, parents=())
    assert running.sync()["reason"] == "source.unrelated"
    for wrong in (first, second[:11], "", "f" * 40):
        with pytest.raises(EngineFailed) as refused:
            running.ask("approve", name="shop", commit=wrong)
        assert code(refused) == "source.approval"
    assert running.current() == first
    approved = running.ask("approve", name="shop", commit=second[:12], by="alice")["source"]
    assert approved["current"]["commit"] == second
    assert approved["approved_by"] == f"uid:{os.getuid()} alice"
    third = running.repository.commit_tree(tree, parents=(first,))
    held = running.sync()
    assert (held["reason"], held["candidate"]["commit"]) == ("source.unrelated", third)


def test_the_files_of_a_held_commit_can_be_read_and_serve_nothing(running: Running) -> None:
    first = running.sync()["current"]["commit"]
    tree = running.repository.tree({"deploy/web.yaml": "other: 1\n", "README.md": "x"})
    second = running.repository.commit_tree(tree, parents=())
    assert running.sync()["candidate"]["commit"] == second
    found = running.ask("files", name="shop", commit=second[:12])
    assert (found["commit"], found["path"]) == (second, "deploy")
    assert {path: b64decode(text) for path, text in found["files"].items()} == {
        "deploy/web.yaml": b"other: 1\n"
    }
    assert running.current() == first
    blob = running.repository.blob("other: 1\n")
    for unknown in ("f" * 40, second[:6], "HEAD", "refs/trimtab/head", f"{second}^", blob, ""):
        with pytest.raises(EngineFailed) as refused:
            running.ask("files", name="shop", commit=unknown)
        assert code(refused) == "source.commit-missing"


def test_a_commit_that_cannot_be_exported_has_no_files(running: Running) -> None:
    repository = running.repository
    link = repository.raw_tree([("120000", b"web.yaml", repository.blob("/etc/passwd"))])
    commit = repository.commit_tree(repository.raw_tree([("40000", b"deploy", link)]))
    assert running.sync()["reason"] == "source.link"
    with pytest.raises(EngineFailed) as refused:
        running.ask("files", name="shop", commit=commit)
    assert code(refused) == "source.link"


def test_a_hold_lasts_until_it_is_resumed_also_over_a_restart(
    running: Running, tmp_path: Path, repository: Repository
) -> None:
    first = running.sync()["current"]["commit"]
    running.ask("hold", name="shop")
    second = running.repository.commit({"deploy/web.yaml": "a: 2\n"})
    held = running.sync()
    assert (held["state"], held["reason"]) == ("Suspended", "source.suspended")
    running.stop()
    again = Running(tmp_path / "fetcher", repository)
    try:
        assert again.sync()["state"] == "Suspended"
        assert again.current() == first
        resumed = again.ask("resume", name="shop")["source"]
        assert (resumed["state"], resumed["current"]["commit"]) == ("Ready", second)
    finally:
        again.stop()


def test_a_suspended_source_is_not_fetched(running: Running) -> None:
    first = running.sync()["current"]["commit"]
    running.declared["shop"] = running.spec(', "suspend": true')
    running.repository.commit({"deploy/web.yaml": "a: 2\n"})
    running.fetcher.reload()
    assert running.sync()["state"] == "Suspended"
    assert running.current() == first


def test_sources_come_and_go_with_their_documents(running: Running) -> None:
    running.sync()
    running.declared["more"] = running.spec()
    running.fetcher.reload()
    assert running.sync("more")["state"] == "Ready"
    running.declared = {}
    running.complete = False  # an unread document possibly declares them
    running.fetcher.reload()
    assert running.sync("more")["state"] == "Ready"
    running.complete = True
    running.fetcher.reload()
    with pytest.raises(EngineFailed) as unknown:
        running.sync("more")
    assert code(unknown) == "source.unknown"
    assert running.published() == ()
    assert running.current("more") == running.current("shop")  # the files stay


def test_a_source_that_hangs_delays_no_other(running: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        running.declared["slow"] = source_spec(url, git=', "allowInsecureLoopback": true')
        running.fetcher.reload()
        peer, _ = silent.accept()  # the slow source waits for an answer
        with peer:
            assert running.sync()["state"] == "Ready"
            listed = {each["name"]: each["state"] for each in running.ask("list")["sources"]}
            assert listed.get("slow", "Pending") == "Pending"
            assert listed["shop"] == "Ready"


@pytest.mark.parametrize("damage", ["{", "[" * 100_000, "[]"])
def test_a_damaged_memory_is_moved_aside_and_serves_on(
    running: Running, tmp_path: Path, repository: Repository, damage: str
) -> None:
    first = running.sync()["current"]["commit"]
    running.stop()
    (tmp_path / "fetcher" / "state.json").write_text(damage)
    shutil.rmtree(repository.folder)
    again = Running(tmp_path / "fetcher", repository)
    try:
        assert again.sync()["current"]["commit"] == first
        assert (tmp_path / "fetcher" / "state.json.damaged").exists()
    finally:
        again.stop()


def test_the_memory_is_private_and_the_status_is_for_the_group(running: Running) -> None:
    running.sync()
    modes = {path.name: path.stat().st_mode & 0o777 for path in running.folder.iterdir()}
    assert (modes["state.json"], modes["status.json"], modes["askpass"]) == (0o600, 0o640, 0o700)
    assert (running.folder / "mirror" / "shop.git").stat().st_mode & 0o777 == 0o700
    assert json.loads((running.folder / "state.json").read_text())["version"] == 1


def test_threads_end_with_the_fetcher(running: Running) -> None:
    running.sync()
    running.fetcher.stop()
    names = {thread.name for thread in threading.enumerate() if thread.is_alive()}
    assert "source-shop" not in names
