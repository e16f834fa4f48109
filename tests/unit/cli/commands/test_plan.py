"""The usage of ``plan``."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli.main import main

COMMIT = "3fa2c81b90de"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            ["--against", COMMIT, "--source", "shop", "--snapshot", "host.json"],
            "needs a folder: check the commit out",
        ),
        (["--against", COMMIT], "--source NAME"),
        (["--against", "nowhere"], "neither a file, a folder nor a commit id"),
        (["--against", "own.yaml", "--source", "shop"], "--against needs a folder"),
    ],
)
def test_what_can_not_be_compared_is_refused_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("host.json", "own.yaml"):
        Path(name).write_text("{}")
    with pytest.raises(SystemExit) as done:
        main(["plan", *options, "--state", "state"])
    assert done.value.code == 64
    assert why in capsys.readouterr().err
