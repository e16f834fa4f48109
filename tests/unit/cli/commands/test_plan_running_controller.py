"""``plan``, ``diff`` and ``apply`` beside a controller that runs: one request, and the same output."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.cli.commands.plan import _text_of, ask_for_review
from controller.cli.main import main
from controller.core.review.plan_json import review_json
from controller.core.review.plan_text import differences_json
from controller.loop.control_api import ControlApi
from controller.loop.workqueue import PassLock
from controller.model.desired.desired import ServiceAct
from controller.model.errors import EngineUnavailable, Problem
from tests.plans import carried, render_review
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
    trusted = frozenset({os.getuid()})
    api = ControlApi(
        house.controller, PassLock(), threading.Event(), directory=DIR, trusted=trusted
    )
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
    made = house.controller.review(house.controller.plan_everything())
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
    made = house.controller.review(house.controller.plan_everything())
    assert run("diff", "--json", state=root) == 2
    assert json.loads(capsys.readouterr().out) == differences_json(carried(made))
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
    assert ask_for_review(root, directory=Path("/srv/other")) is None
    assert ask_for_review(root, directory=Path(DIR)) is not None
    house.engine.away = EngineUnavailable("broker.unavailable", "nobody there")
    assert ask_for_review(root, directory=Path(DIR)) is None


def test_without_a_controller_the_command_looks_itself(tmp_path: Path) -> None:
    assert ask_for_review(tmp_path, directory=Path(DIR)) is None


def test_a_terminal_gets_the_lines_of_files_that_have_problems(
    root: Path, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.yaml").write_text("kind: Service\nspec: {imag: nginx}\n")
    here = Problem("field.unknown", "x", "web.yaml", 2, 8)
    gone = replace(here, file="gone.yaml")
    house.files.desired = replace(house.files.desired, problems=(here, gone))
    monkeypatch.setattr("controller.cli.output.terminal.terminal_width", lambda: 80)
    monkeypatch.setattr("controller.cli.commands.plan.terminal_width", lambda: 80)
    made = house.controller.review(house.controller.plan_everything())
    text = _text_of(carried(made), tmp_path, verbose=False)
    before, after = text.split("web.yaml:2:8: error field.unknown: x\n")
    assert before.endswith("gone.yaml:2:8: error field.unknown: x\n") or "gone.yaml" in after
    assert "spec: {imag: " in after.split("\n")[0]
