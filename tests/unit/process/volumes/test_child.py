"""The child of a restore: the marker is there before the lease is checked, and goes with an abort."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from controller.cli.commands.volume_data import send_archive
from controller.process.volumes.archive import ArchiveWriter
from controller.process.volumes.child import EXCHANGE, MARK, VolumeChild, start_restore
from controller.process.volumes.restore import MARKER

pytestmark = pytest.mark.needs_root


def marked(folder: Path) -> VolumeChild:
    """Return the child of a restore after its marker."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "new").write_text("new")
    archive = io.BytesIO()
    ArchiveWriter(archive, lambda _report: None).write("data", str(source))
    archive.seek(0)
    volume = folder / "volume"
    volume.mkdir()
    (volume / "former").write_text("former")
    child = start_restore(str(volume))
    send_archive(child, archive, "data")
    assert not (volume / MARKER).exists()
    child.command(MARK)
    assert any(each.get("marked") for each in child.read_reports(wait=True, until="marked"))
    assert (volume / MARKER).exists()
    return child


def names(folder: Path) -> list[str]:
    return [each.name for each in (folder / "volume").iterdir()]


def test_the_exchange_follows_the_marker(tmp_path: Path) -> None:
    child = marked(tmp_path)
    child.command(EXCHANGE)
    assert any(each.get("exchanged") for each in child.read_reports(wait=True))
    assert child.end() == 0
    assert names(tmp_path) == ["new"]


def test_a_restore_whose_lease_is_lost_changes_nothing(tmp_path: Path) -> None:
    marked(tmp_path).abort()
    assert names(tmp_path) == ["former"]


def test_a_restore_whose_command_died_before_the_exchange_changes_nothing(tmp_path: Path) -> None:
    child = marked(tmp_path)
    child.end()  # closes the pipes, as the end of the command does
    assert names(tmp_path) == ["former"]
