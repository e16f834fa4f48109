"""The usage of ``plan``."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli.main import main


def test_a_commit_and_a_snapshot_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = tmp_path / "host.json"
    snapshot.write_text("{}")
    argv = ["plan", "--against", "3fa2c81b90de", "--source", "shop", "--snapshot", str(snapshot)]
    with pytest.raises(SystemExit) as done:
        main([*argv, "--state", str(tmp_path / "state")])
    assert done.value.code == 64
    assert "needs a folder: check the commit out" in capsys.readouterr().err
