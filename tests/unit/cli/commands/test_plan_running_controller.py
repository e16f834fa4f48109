"""``plan``, ``diff`` and ``apply`` beside a controller that runs: one request, and the same output."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.cli.commands.plan import ask_for_review, with_excerpts
from controller.cli.main import main
from controller.core.review.plan_json import differences_json, review_json
from controller.core.review.plan_text import render_review
from controller.core.review.review_form import EXCERPT_MARK, ReviewForm
from controller.loop.control_api import ControlApi
from controller.loop.worker_slots import PassLock
from controller.model.desired.desired import ServiceAct
from controller.model.errors import EngineUnavailable, Problem
from tests.unit.cli.answering import DIR, answering
from tests.unit.loop.toy import House
from tests.worlds import container, declared, deny, engine, service


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A controller whose service web has a change to come, and db is as declared."""
    made = House(tmp_path)
    made.engine.world = engine(container(), container("db"))
    made.declare(service(), service("db"))
    made.settle()
    made.files.desired = replace(made.files.desired, services=(service(replicas=2), service("db")))
    return made


@pytest.fixture
def root(house: House) -> Iterator[Path]:
    stopped = threading.Event()
    lock = PassLock(paused=False)
    api = ControlApi(house.operator, lock, house.watch, stopped, directory=DIR)
    with answering(api) as root:
        yield root


def run(*arguments: str, state: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--state", str(state)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_plan_is_the_controllers(
    root: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    made = house.operator.review(house.controller.plan_everything())
    assert run("plan", state=root) == 2
    text = render_review(made, width=None).rstrip()
    assert capsys.readouterr().out == f"{text}\ndigest {made.plan.digest}\n"
    assert "+ Service/default/web  create 1 of 2 replicas" in text
    assert run("plan", "--json", state=root) == 2
    assert json.loads(capsys.readouterr().out) == review_json(made)


def test_the_exit_code_says_whether_something_is_refused_or_pending(
    root: Path, house: House
) -> None:
    house.judge = deny("create-container")
    house.policy = "stricter"
    assert run("plan", state=root) == 4
    house.files.desired = replace(house.files.desired, problems=(Problem("yaml.invalid", "no"),))
    assert run("plan", state=root) == 3


def test_a_document_that_an_override_keeps_from_its_service_is_no_success(
    root: Path, house: House
) -> None:
    house.declare(service(), service("db"))
    house.let_pass(120)
    house.operator.act(ServiceAct("suspend", service().key, "uid:0"))
    assert run("plan", state=root) == 0
    house.files.desired = declared(service(rev="c", env={"A": "b"}), service("db"))
    assert run("plan", state=root) == 5


def test_differences_are_of_the_named_resources(
    root: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    made = house.operator.review(house.controller.plan_everything())
    assert run("diff", "--json", state=root) == 2
    assert json.loads(capsys.readouterr().out) == differences_json(made)
    assert run("diff", "default/web", state=root) == 2
    assert "spec.replicas: 1 -> 2" in capsys.readouterr().out
    assert run("diff", "db", state=root) == 0
    assert capsys.readouterr().out == "no differences\n"
    assert run("diff", "dbb", state=root) == 1
    assert "did you mean db?" in capsys.readouterr().err


def test_an_apply_is_a_pass_of_the_controller(
    root: Path, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.declare(service(), service("db"))
    house.let_pass(20)
    assert run("apply", state=root) == 0
    assert capsys.readouterr().out == "Nothing to do.\n"


def test_another_directory_is_planned_by_the_command_itself(root: Path, house: House) -> None:
    form = ReviewForm("plan")
    assert ask_for_review(root, form, directory=Path("/srv/other")) is None
    assert ask_for_review(root, form, directory=Path(DIR)) is not None
    house.engine.away = EngineUnavailable("broker.unavailable", "nobody there")
    assert ask_for_review(root, form, directory=Path(DIR)) is None


def test_without_a_controller_the_command_looks_itself(tmp_path: Path) -> None:
    assert ask_for_review(tmp_path, ReviewForm("plan"), directory=Path(DIR)) is None


def test_lines_of_files_take_the_place_of_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.yaml").write_text("kind: Service\nspec: {imag: nginx}\n")
    monkeypatch.setattr("controller.cli.output.terminal.terminal_width", lambda: 80)
    place = {"code": "field.unknown", "message": "x", "file": "web.yaml", "line": 2, "column": 8}
    gone = {**place, "file": "gone.yaml"}
    text = f"first\n{EXCERPT_MARK}0\nbetween\n{EXCERPT_MARK}1\nlast"
    lines = with_excerpts(text, [place, gone], tmp_path).split("\n")
    assert "spec: {imag: " in lines[1]
    assert (lines[0], lines[3:]) == ("first", ["between", "last"])
