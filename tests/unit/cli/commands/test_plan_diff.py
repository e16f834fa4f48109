"""``diff``: what it refuses before it asks anybody."""

from pathlib import Path

import pytest

from controller.cli.main import main


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_values_are_shown_on_a_terminal_only(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["diff", "--show-values", "--state", str(tmp_path), *more])
    assert ended.value.code == 64
    assert "are shown on a terminal only" in capsys.readouterr().err
