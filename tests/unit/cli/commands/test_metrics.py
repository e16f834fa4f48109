"""``metrics``: one text of broker and controller, also while one of them is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.loop.control_api import ControlApi
from controller.loop.workqueue import PassLock
from tests.unit.cli.answering import DIR, answering
from tests.unit.loop.toy import House
from tests.worlds import container, engine, service


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    house = House(tmp_path)
    house.engine.world = engine(container())
    house.declare(service())
    house.let_pass(120)
    with answering(
        ControlApi(house.controller, PassLock(), threading.Event(), directory=DIR)
    ) as root:
        yield root


def run(root: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["metrics", *arguments, "--state", str(root)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_text_says_which_process_is_away(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n") and not out.endswith("\n\n")
    lines = out.split("\n")
    assert 'trimtab_up{process="broker"} 0' in lines
    assert 'trimtab_up{process="controller"} 1' in lines
    assert 'trimtab_resource_ready{kind="Service",namespace="default",name="web"} 1' in lines


def test_the_series_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "--json") == 0
    series = json.loads(capsys.readouterr().out)["series"]
    assert {"name": "trimtab_up", "labels": {"process": "broker"}, "value": 0.0} in series


def test_without_an_instance_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == "" and "[state.missing]" in err
