"""CDI specifications are read within bounds, and only as root wrote them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.broker.host.host_facts import FILE_BYTES_MAX, FILES_MAX, read_files

pytestmark = pytest.mark.needs_root


def folder(tmp_path: Path) -> Path:
    """Return a folder of root's."""
    place = tmp_path / "cdi"
    place.mkdir(mode=0o755)
    return place


def read(*places: Path) -> list[str]:
    """Return the names of the files that are read."""
    files = read_files(tuple(map(str, places)))
    return [Path(file.path).name for file in files if file.content is not None]


def left_out(*places: Path) -> list[str]:
    """Return the names of the files that aren't trusted."""
    files = read_files(tuple(map(str, places)))
    return [Path(file.path).name for file in files if file.content is None]


def test_specifications_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    place = folder(tmp_path)
    for name in ("b.json", "a.yaml", "c.yml", "d.txt", "e"):
        (place / name).write_text("x")
        (place / name).chmod(0o644)
    assert read(place, tmp_path / "absent") == ["a.yaml", "b.json", "c.yml"]
    assert read_files((str(place),))[0].content == b"x"


def test_what_another_user_could_have_written_is_left_out(tmp_path: Path) -> None:
    place = folder(tmp_path)
    for name in ("group", "others", "owner", "good"):
        (place / f"{name}.yaml").write_text("x")
        (place / f"{name}.yaml").chmod({"group": 0o664, "others": 0o646}.get(name, 0o644))
    os.chown(place / "owner.yaml", 1000, 1000)
    assert read(place) == ["good.yaml"]
    assert left_out(place) == ["group.yaml", "others.yaml", "owner.yaml"]
    os.chown(place, 1000, 1000)
    assert read(place) == []
    assert "good.yaml" in left_out(place)


def test_links_special_files_and_large_files_are_left_out(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "good.yaml").write_text("x")
    (place / "link.yaml").symlink_to(place / "good.yaml")
    os.mkfifo(place / "fifo.yaml")
    (place / "folder.yaml").mkdir()
    (place / "large.yaml").write_bytes(b"x" * (FILE_BYTES_MAX + 1))
    assert read(place) == ["good.yaml"]
    assert left_out(place) == ["fifo.yaml", "large.yaml", "link.yaml"]


def test_no_more_than_the_most_files_are_read(tmp_path: Path) -> None:
    place = folder(tmp_path)
    for number in range(FILES_MAX + 5):
        (place / f"{number:03}.yaml").write_text("x")
    assert len(read(place)) == FILES_MAX
    assert left_out(place) == [f"{FILES_MAX:03}.yaml"]
