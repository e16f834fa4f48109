"""A copied state folder is detected if both brokers run on one host."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controller.model.errors import StateError
from controller.process import start_checks
from controller.process.start_checks import InstanceLock, shared_folder


def folder_of(root: Path, name: str, *, instance: str = "i1") -> InstanceLock:
    return InstanceLock(root / "shared", root / name, instance)


def test_a_copy_is_refused_and_told_where_the_other_one_is(tmp_path: Path) -> None:
    first, copy = folder_of(tmp_path, "first"), folder_of(tmp_path, "copy")
    first.claim("E1")
    first.claim("E1")
    with pytest.raises(StateError) as caught:
        copy.claim("E1")
    assert caught.value.code == "state.forked"
    assert f"a broker on {tmp_path / 'first'} is instance i1 on engine E1" in str(caught.value)
    first.release()
    copy.claim("E1")
    with pytest.raises(StateError, match="copy is instance i1"):
        first.claim("E1")
    copy.release()
    assert list((tmp_path / "shared").iterdir()) == [], "nothing is left behind"


def test_other_instances_and_other_engines_are_none_of_its_business(tmp_path: Path) -> None:
    held = [folder_of(tmp_path, "a"), folder_of(tmp_path, "b", instance="i2")]
    held.append(folder_of(tmp_path, "c"))
    for one, engine in zip(held, ("E1", "E1", "E2"), strict=True):
        one.claim(engine)
    for one in held:
        one.release()


def test_a_file_that_its_holder_removed_meanwhile_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = folder_of(tmp_path, "first"), folder_of(tmp_path, "second")
    first.claim("E1")
    opened = start_checks._open_again

    def late(path: Path):
        """The first time, the holder releases the lock between our open and our lock."""
        for handle in opened(path):
            first.release()
            yield handle

    monkeypatch.setattr(start_checks, "_open_again", late)
    second.claim("E1")
    monkeypatch.undo()
    with pytest.raises(StateError):
        first.claim("E1")
    second.release()


def test_where_there_is_no_such_place_there_is_no_lock(tmp_path: Path) -> None:
    for nowhere in (None, tmp_path / "missing" / "shared"):
        for name in ("first", "copy"):
            InstanceLock(nowhere, tmp_path / name, "i1").claim("E1")


def test_the_place_can_hold_folders_of_sockets_too(tmp_path: Path) -> None:
    folder_of(tmp_path, "first").claim("E1")
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755
    assert shared_folder(0) == Path("/run/trimtab")
    assert shared_folder(4_000_000) is None
