"""The fetcher's socket: who may ask for what."""

from __future__ import annotations

from typing import Any

import pytest

from controller.fetch.fetcher import answer
from controller.model.errors import SourceError

OPERATOR, STRANGER = 0, 1000


class Desk:
    """Answers with what it was asked."""

    def list_sources(self) -> dict[str, object]:
        return {"sources": []}

    def log(self, name: str) -> dict[str, object]:
        return {"log": name}

    def files(self, name: str, commit: str) -> dict[str, object]:
        return {"files": [name, commit]}

    def sync(self, name: str) -> dict[str, object]:
        return {"sync": name}

    def hold(self, name: str, by: str) -> dict[str, object]:
        return {"hold": name, "by": by}

    def resume(self, name: str) -> dict[str, object]:
        raise SourceError("source.unknown", f"no {name}", remedy="look")

    def approve(self, name: str, commit: str, by: str) -> dict[str, object]:
        return {"approve": [name, commit, by]}


def ask(question: dict[str, object], *, uid: int = OPERATOR) -> dict[str, Any]:
    return answer(question, peer_uid=uid, operators=frozenset({OPERATOR}), backend=Desk())


@pytest.mark.parametrize("uid", [OPERATOR, STRANGER])
def test_everybody_who_connects_may_look(uid: int) -> None:
    assert ask({"do": "ping"}, uid=uid) == {"pong": True}
    assert ask({"do": "list"}, uid=uid) == {"sources": []}
    assert ask({"do": "log", "name": "shop"}, uid=uid) == {"log": "shop"}


@pytest.mark.parametrize("do", ["sync", "hold", "resume", "approve", "files"])
def test_only_operators_change_anything(do: str) -> None:
    denied = ask({"do": do, "name": "shop", "commit": "1" * 40, "by": "uid:0"}, uid=STRANGER)
    assert denied["error"]["code"] == "control.denied"


def test_the_kernel_says_who_asks() -> None:
    assert ask({"do": "hold", "name": "shop", "by": "uid:7 alice"})["by"] == "uid:0 uid:7 alice"
    approved = ask({"do": "approve", "name": "shop", "commit": "abc", "by": "uid:0 bob"})
    assert approved == {"approve": ["shop", "abc", "uid:0 bob"]}


def test_operators_read_the_files_of_a_commit() -> None:
    found = ask({"do": "files", "name": "shop", "commit": "abc"})
    assert found == {"files": ["shop", "abc"]}


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"do": "explode"}, "control.unknown"),
        ({}, "control.unknown"),
        ({"do": ["sync"]}, "control.unknown"),
        ({"do": "sync", "name": 7}, "control.malformed"),
        ({"do": "sync", "name": "x" * 9000}, "control.malformed"),
        ({"do": "resume", "name": "shop"}, "source.unknown"),
    ],
)
def test_what_cannot_be_done_has_a_code(question: dict[str, object], code: str) -> None:
    assert ask(question)["error"]["code"] == code
