"""The file of a dump: the data of a volume gets into no file that somebody else made before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.cli.commands.volume_data import open_sink
from controller.model.errors import StateError


def test_the_file_appears_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    output = tmp_path / "data.tar"
    with open_sink(output) as sink:
        sink.write(b"data")
        assert not output.exists()
    assert output.read_bytes() == b"data"
    assert output.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["data.tar"]


def test_a_draft_that_somebody_else_holds_open_gets_no_data(tmp_path: Path) -> None:
    output, draft = tmp_path / "data.tar", tmp_path / ".data.tar.part"
    draft.touch(0o666)
    with draft.open("rb") as theirs:
        with open_sink(output) as sink:
            sink.write(b"secret")
        assert theirs.read() == b""
    assert output.read_bytes() == b"secret"
    assert output.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe", "twin"])
def test_a_prepared_draft_reaches_no_other_file(tmp_path: Path, kind: str) -> None:
    other, draft = tmp_path / "other", tmp_path / ".data.tar.part"
    other.write_text("safe")
    match kind:
        case "link":
            draft.symlink_to(other)
        case "pipe":
            os.mkfifo(draft)
        case _:
            os.link(other, draft)
    with open_sink(tmp_path / "data.tar") as sink:
        sink.write(b"data")
    assert other.read_text() == "safe"
    assert (tmp_path / "data.tar").read_bytes() == b"data"


def test_a_draft_that_cannot_be_replaced_ends_the_dump(tmp_path: Path) -> None:
    (tmp_path / ".data.tar.part").mkdir()
    with pytest.raises(StateError, match=r"data\.tar\.part"), open_sink(tmp_path / "data.tar"):
        pass
