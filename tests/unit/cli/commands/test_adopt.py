"""What ``adopt`` refuses before it asks anybody; the rest is tests/e2e/test_ownership.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.test_main import run


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "adopt.instance-missing"),
        (("--instance", "lost"), "16 hex digits"),
        (("--instance", "0123456789ABCDEF"), "16 hex digits"),
    ],
)
def test_an_instance_is_named_by_its_id(
    tmp_path: Path, arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("adopt", *arguments, "--state", str(tmp_path / "state")) == 64
    assert told in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("old", "--as", "web", "--project", "shop"), "adopt.options"),
        (("old", "--as", "web", "--instance", "0123456789abcdef"), "adopt.options"),
        (("--as", "web"), "adopt.options"),
        (("--project", "shop", "--slot", "2"), "adopt.options"),
        (("--dry-run",), "adopt.options"),
        (("old", "--as", "web", "--admit", "privileged"), "is no gap"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("adopt", *arguments, "--state", str(tmp_path / "state")) == 64
    assert told in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
