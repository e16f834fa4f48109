"""The feed of statuses: one open question, and errors after which everything is asked again."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.cli.status import live_view
from controller.cli.status.live_view import StatusFeed
from controller.model.errors import EngineUnavailable
from controller.system.conversation import ConversationServer


class Server:
    """Answers the first question at once, and each other once ``changed`` is set."""

    def __init__(self, path: Path) -> None:
        self.asked: list[Mapping[str, object]] = []
        self.arrived = threading.Semaphore(0)
        self.changed = threading.Event()
        self.path = path
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        self._server = ConversationServer(listener, self._answer, trusted=frozenset({os.getuid()}))
        self._server.start()

    def _answer(self, question: Mapping[str, object], _uid: int) -> dict[str, object]:
        self.asked.append(question)
        self.arrived.release()
        if len(self.asked) > 1:
            self.changed.wait(10)
        return {"resources": [len(self.asked)], "version": f"v{len(self.asked)}"}

    def await_questions(self, count: int) -> None:
        """Wait until so many more questions have arrived."""
        for _ in range(count):
            assert self.arrived.acquire(timeout=60)

    def stop(self) -> None:
        self.changed.set()
        self._server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "controller.sock")
    yield made
    made.stop()


def answered(feed: StatusFeed) -> dict[str, Any] | None:
    """Return the answer to the open question, once it is there."""
    assert feed.descriptor is not None
    select.select([feed.descriptor], [], [], 10)
    return feed.take()


def test_a_question_stays_open_until_the_status_changes(server: Server) -> None:
    feed = StatusFeed(server.path, lambda: 0.0, output=True)
    assert feed.take() is None
    assert answered(feed) == {"resources": [1]}
    assert [feed.take() for _ in range(3)] == [None] * 3
    server.changed.set()
    assert answered(feed) == {"resources": [2]}
    assert [question["unless"] for question in server.asked] == ["", "v1"]
    assert server.asked[1]["wait_s"] == live_view.FEED_WAIT_S
    assert server.asked[1]["output"] is True
    feed.close()


def test_a_controller_that_never_answers_is_asked_again_for_everything(server: Server) -> None:
    now = [0.0]
    feed = StatusFeed(server.path, lambda: now[0], output=False)
    feed.take()
    answered(feed)
    feed.take()
    server.await_questions(
        2
    )  # each connection has a thread of its own: a later question can overtake
    now[0] = live_view.FEED_WAIT_S + live_view.FEED_ANSWER_S + 1
    with pytest.raises(EngineUnavailable, match="in time"):
        feed.take()
    assert feed.descriptor is None
    server.changed.set()
    assert feed.take() is None
    assert answered(feed) is not None
    assert [question["unless"] for question in server.asked] == ["", "v1", ""]


def test_nothing_is_open_if_nobody_listens(tmp_path: Path) -> None:
    feed = StatusFeed(tmp_path / "controller.sock", lambda: 0.0, output=False)
    with pytest.raises(EngineUnavailable):
        feed.take()
    assert feed.descriptor is None
    feed.close()
