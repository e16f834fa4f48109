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
