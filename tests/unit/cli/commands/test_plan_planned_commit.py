"""The files of a commit are written below one folder, whatever the fetcher answers."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from controller.cli.commands.plan import BYTES_MAX, FILES_MAX, write_files

CONTENT = b64encode(b"a: 1\n").decode()


def test_the_files_are_written_for_the_user_alone(tmp_path: Path) -> None:
    answer: dict[str, Any] = {
        "path": "deploy/prod",
        "files": {"deploy/prod/web.yaml": CONTENT, "deploy/configs/web/Chart.yaml": CONTENT},
    }
    folder = write_files(tmp_path / "tree", answer)
    assert folder == tmp_path / "tree" / "deploy" / "prod"
    assert (folder / "web.yaml").read_text() == "a: 1\n"
    assert (folder.parent / "configs" / "web" / "Chart.yaml").is_file()
    assert (folder / "web.yaml").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tree").stat().st_mode & 0o777 == 0o700


def test_the_whole_repository_can_be_the_folder(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "tree", {"path": ".", "files": {"web.yaml": CONTENT}})
    assert (folder / "web.yaml").is_file()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"path": "deploy", "files": []},
        {"path": "../deploy", "files": {}},
        {"path": "/etc", "files": {}},
        {"path": 7, "files": {}},
        {"path": "deploy", "files": {"../x": CONTENT}},
        {"path": "deploy", "files": {"a/../../x": CONTENT}},
        {"path": "deploy", "files": {"/etc/cron.d/x": CONTENT}},
        {"path": "deploy", "files": {"a//b": CONTENT}},
        {"path": "deploy", "files": {"a\0b": CONTENT}},
        {"path": "deploy", "files": {"": CONTENT}},
        {"path": "deploy", "files": {"a": CONTENT, "a/b": CONTENT}},
        {"path": "deploy", "files": {"a": "*"}},
        {"path": "deploy", "files": {"a": 7}},
        {"path": "deploy", "files": {"a": "A" * (BYTES_MAX + 1)}},
        {"path": "deploy", "files": {f"{n}": "" for n in range(FILES_MAX + 1)}},
    ],
)
def test_an_answer_that_leads_elsewhere_is_refused(tmp_path: Path, answer: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, OSError)):
        write_files(tmp_path / "tree", answer)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["tree"])
