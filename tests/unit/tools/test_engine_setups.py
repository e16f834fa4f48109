"""The set-ups of the tests' engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.engine_setups import SETUPS, VARIABLE, chosen


def test_only_the_containerd_store_needs_a_file(tmp_path: Path) -> None:
    assert SETUPS["docker-26"].options(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    (option,) = SETUPS["docker-26-containerd"].options(tmp_path)
    file = Path(option.removeprefix("--config-file="))
    assert json.loads(file.read_text()) == {"features": {"containerd-snapshotter": True}}


def test_the_first_is_chosen_unless_the_environment_names_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen().name == "docker-26"
    monkeypatch.setenv(VARIABLE, "docker-28-containerd")
    assert (chosen().is_next, chosen().containerd) == (True, True)
