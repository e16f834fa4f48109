"""What ``up`` shows: its policy, what changes, and the addresses that answer once it has started."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from controller.app.state_folder import Launch, User
from controller.cli.status import live_view
from controller.cli.status.live_view import has_settled, reachable_services, screen_of
from controller.cli.status.table import TableView
from controller.model.errors import TrimtabError
from controller.model.settings import InForce, InstanceSettings
from controller.settings import Instance, state_of
from controller.system.conversation import ConversationServer
from tests.unit.cli.reports import condition, report, resource

NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z


def port(number: int) -> dict[str, Any]:
    return {
        "container": 8080,
        "host": number,
        "address": "127.0.0.1",
        "protocol": "tcp",
        "scheme": "http",
    }


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    instance = Instance("1" * 8, "/srv/desired", run=str(tmp_path))
    user = User(os.getuid(), os.getgid(), dropped=False)
    in_force = InForce(InstanceSettings(policy=str(tmp_path / "home.yaml")))
    return Launch(state_of(tmp_path, instance), instance, in_force, user)


@pytest.mark.parametrize(
    ("words", "settled"),
    [
        ([], False),
        (["Ready"], True),
        (["Ready", "Progressing"], False),
        (["Degraded"], False),
        (["Ready", "CrashLoop", "Suspended"], True),
    ],
)
def test_the_start_has_ended_once_each_resource_is_ready_or_waits_for_a_person(
    words: list[str], settled: bool
) -> None:
    assert has_settled(report(*(resource("web", condition(word)) for word in words))) is settled


def test_addresses_are_shown_where_something_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        there, away = server.getsockname()[1], closed.getsockname()[1]
        web = resource("web", ports=[port(there), port(away)])
        shop = resource("front", namespace="shop", ports=[port(there)])
        assert reachable_services(report(web, shop, resource("db"))) == [
            f"web         http://127.0.0.1:{there}",
            f"shop/front  http://127.0.0.1:{there}",
        ]


def test_of_many_addresses_the_first_are_tried() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = port(closed.getsockname()[1])
        many = report(*(resource(f"web{number}", ports=[away]) for number in range(12)))
        assert reachable_services(many) == ["and 2 more: see PORTS"]


def test_in_a_pipe_the_policy_comes_first_and_the_addresses_once(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        lines = live_view._Lines(launch, as_json=False)
        starting = resource("web", condition("Progressing"), ready=0, ports=[port(number)])
        ready = resource("web", ports=[port(number)])
        for one in (report(starting), report(ready), report(ready)):
            lines.show(one)
    root = launch.state.root
    assert capsys.readouterr().out.splitlines() == [
        "trimtab keeps /srv/desired under the policy home; Ctrl-C stops it",
        "Service/default/web  Progressing  0/1",
        f"Service/default/web  Ready  1/1  http://127.0.0.1:{number}",
        f"web  http://127.0.0.1:{number}",
        f"next: trimtab status --state {root}, trimtab journal list --state {root}",
    ]


def test_a_screen_is_never_higher_than_the_terminal() -> None:
    heading = ["trimtab keeps /srv/desired under the policy home", "  web  http://127.0.0.1:1"]
    rows = report(*(resource(f"web{number}") for number in range(40)))
    lines = click.unstyle(screen_of(heading, rows, TableView(80, NOW), height=24)).split("\n")
    assert lines[:4] == [*heading, "", "KIND     NAME   READY  CONDITION  AGE  IMAGE"]
    assert lines[-1] == "and 22 more, all Ready"
    assert len(lines) == 23


class _Rounds:
    """Signals that end a command after so many waits. Waits for answers, and remembers the waits."""

    def __init__(self, rounds: int) -> None:
        self.waited: list[float] = []
        self._rounds = rounds

    @property
    def stopped(self) -> bool:
        return len(self.waited) == self._rounds

    def wait(self, seconds: float, *, descriptor: int | None) -> None:
        self.waited.append(seconds)
        if descriptor is not None:
            select.select([descriptor], [], [], 10)


class _Shown:
    """A view that counts what it is given."""

    def __init__(self) -> None:
        self.shown: list[object] = []
        self.refreshed = 0

    def show(self, report: object) -> None:
        self.shown.append(report)

    def refresh(self) -> None:
        self.refreshed += 1

    def wait(self, error: TrimtabError) -> None:
        raise AssertionError(error)


def test_an_unchanged_status_is_shown_once(tmp_path: Path) -> None:
    reports = [report(resource("web"))] * 12 + [report(resource("db"))]
    asked: list[str] = []

    def answer(question: Mapping[str, object], _uid: int) -> dict[str, object]:
        now = reports[len(asked)]
        asked.append(str(question["unless"]))
        version = json.dumps(now)
        return {"unchanged": True} if asked[-1] == version else {**now, "version": version}

    launch: Any = SimpleNamespace(
        instance=SimpleNamespace(dir=tmp_path),
        state=SimpleNamespace(
            root=tmp_path, controller_socket=tmp_path / "controller.sock", controller=tmp_path
        ),
    )
    assembly: Any = SimpleNamespace(restart_ended=lambda: None, end=lambda _name: None)
    signals: Any = _Rounds(2 * len(reports))
    view: Any = _Shown()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(launch.state.controller_socket))
    listener.listen()
    server = ConversationServer(listener, answer, trusted=frozenset({0, os.getuid()}))
    server.start()
    try:
        live_view._show_until(signals, assembly, launch, view)
    finally:
        server.stop()
    assert view.shown == [reports[0], reports[-1]]
    assert view.refreshed == 2 * 11 // live_view.REDRAWN_AFTER
    assert signals.waited == [live_view.CHECK_S, live_view.REFRESH_S] * len(reports)


class _Once:
    """Signals that end a command after its first question."""

    stopped = False

    def wait(self, _seconds: float, *, descriptor: int | None) -> None:
        assert descriptor is None, "nothing was asked"
        self.stopped = True


class _Told:
    """A view that remembers what the command waits for."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def show(self, report: object) -> None:
        raise AssertionError(f"nothing answers: {report}")

    def wait(self, error: TrimtabError) -> None:
        self.waited.append(error.message)


@pytest.mark.parametrize(
    ("start_s", "told"), [(30.0, "the controller is starting"), (0.0, "nothing runs behind")]
)
def test_a_controller_that_does_not_listen_yet_is_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_s: float, told: str
) -> None:
    monkeypatch.setattr(live_view, "START_S", start_s)
    launch: Any = SimpleNamespace(
        instance=SimpleNamespace(dir=tmp_path),
        state=SimpleNamespace(
            root=tmp_path, controller_socket=tmp_path / "controller.sock", controller=tmp_path
        ),
    )
    assembly: Any = SimpleNamespace(restart_ended=lambda: None, end=lambda _name: None)
    signals: Any = _Once()
    view: Any = _Told()
    live_view._show_until(signals, assembly, launch, view)
    assert len(view.waited) == 1
    assert view.waited[0].startswith(told)
