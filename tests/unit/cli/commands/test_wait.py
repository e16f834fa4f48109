"""``wait``: what is met, what is waited for, and the exit code of each end."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from controller.cli.commands.wait import Goal
from controller.cli.main import main
from controller.loop.control_api import ControlApi
from controller.loop.workqueue import PassLock
from controller.system.conversation import AnswerLine
from tests.unit.cli.answering import DIR, answering
from tests.unit.loop.toy import House
from tests.worlds import container, engine, network, service


class Api(ControlApi):
    """A control API before whose answers something happens, by the number of the question."""

    happenings: dict[int, Callable[[], object]]
    asked = 0

    def answer(self, question: Mapping[str, object], peer_uid: int) -> AnswerLine:
        self.asked += 1
        self.happenings.pop(self.asked, lambda: None)()
        return super().answer(question, peer_uid)


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.engine.world = engine(container())
    made.declare(service())
    made.let_pass(120)
    return made


@pytest.fixture
def api(house: House) -> Api:
    trusted = frozenset({os.getuid()})
    made = Api(house.controller, PassLock(), threading.Event(), directory=DIR, trusted=trusted)
    made.happenings = {}
    return made


@pytest.fixture
def root(api: Api) -> Iterator[Path]:
    with answering(api) as root:
        yield root


def run(root: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["wait", *arguments, "--state", str(root)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def row(*conditions: tuple[str, str], kind: str = "Service", behind: bool = False) -> Any:
    return {
        "kind": kind,
        "generation": 2,
        "observedGeneration": 1 if behind else 2,
        "conditions": [{"type": name, "status": status} for name, status in conditions],
    }


@pytest.mark.parametrize(
    ("text", "resource", "met"),
    [
        ("Ready", row(("Ready", "True")), True),
        ("ready", row(("Ready", "True")), True),
        ("condition=Ready", row(("Ready", "True")), True),
        ("condition=Ready=true", row(("Ready", "Unknown")), False),
        ("condition=Ready=unknown", row(("Ready", "Unknown")), True),
        ("condition=CrashLoop=false", row(("Ready", "True")), True),
        ("condition=CrashLoop", row(("Ready", "True")), False),
        ("Ready", row(("Ready", "True"), behind=True), False),
        ("Ready", row(("Ready", "True"), behind=True, kind="Release"), True),
        ("delete", row(("Ready", "True")), False),
    ],
)
def test_a_condition_is_met_in_the_form_of_kubectl(text: str, resource: Any, met: bool) -> None:
    assert Goal.parse(text).is_met(resource) is met


@pytest.mark.parametrize("text", ["", "condition=", "condition=Ready=perhaps", "jsonpath={.a}"])
def test_another_form_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Goal.parse(text)


def test_what_is_met_already_ends_the_wait_at_once(
    root: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "web") == 0
    assert api.asked == 1
    assert capsys.readouterr() == ("web: met\n", "")


def test_what_is_not_there_yet_is_waited_for(
    root: Path, house: House, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    def declared() -> None:
        house.declare(service(), service("api"))
        house.let_pass(120)

    api.happenings = {2: declared}
    assert run(root, "api", "web") == 0
    out, err = capsys.readouterr()
    assert out == "api: met\nweb: met\n"
    assert err == "api: isn't there yet\n"


def test_a_deleted_service_is_waited_for_until_it_is_gone(
    root: Path, house: House, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    def deleted() -> None:
        house.declare(service("db"))
        house.let_pass(1200)

    api.happenings = {2: deleted}
    assert run(root, "--for=delete", "web", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "met": True,
        "resources": [{"name": "web", "met": True, "resource": None}],
    }


def test_all_of_a_namespace_is_waited_for(
    root: Path, house: House, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    house.declare(service(), network("other"), service("db"))
    house.step()  # the files are read, and nothing is done yet
    api.happenings = {2: lambda: house.let_pass(120)}
    assert run(root, "--all", "-n", "default") == 0
    assert capsys.readouterr().out == "other: met\ndb: met\nweb: met\n"


def test_what_is_not_met_in_time_is_told_with_what_is_missing(
    root: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.declare(service(), service("db"))
    assert run(root, "db", "web", "--timeout", "0s") == 5
    out = capsys.readouterr().out
    assert out.startswith("db: not in time: ")
    assert out.endswith("web: met\n")


def test_no_controller_until_the_end_is_an_error(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for socket in (root / "run").rglob("*.sock"):
        socket.unlink()
    assert run(root, "web", "--timeout", "0s") == 1
    assert "[nothing.running]" in capsys.readouterr().err
    assert run(tmp_path / "nothing", "web") == 1
    assert "state.missing" in capsys.readouterr().err


def test_a_name_of_several_resources_is_an_error(
    root: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.declare(service(), service("web", namespace="shop"))
    house.let_pass(120)
    assert run(root, "web") == 1
    assert "web means Service/default/web, Service/shop/web" in capsys.readouterr().err
    assert run(root, "shop/web") == 0


@pytest.mark.parametrize("arguments", [[], ["web", "--all"]])
def test_either_names_or_all_are_waited_for(root: Path, arguments: list[str]) -> None:
    assert run(root, *arguments) == 64
