"""The mounts that give a user access to paths below closed folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from controller.model.errors import StateError
from controller.process.drop_privileges import MountView, Need, plan_view

USER = {"uid": 990, "gid": 991}


def folder(mode: int, *, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def check(tree: dict[str, os.stat_result], needs: list[Need], expected: MountView) -> None:
    def look(path: Path) -> os.stat_result:
        return tree.get(str(path), folder(0o755))

    assert plan_view(needs, **USER, stat_path=look) == expected


def test_nothing_is_mounted_where_everything_can_be_reached() -> None:
    check({}, [Need(Path("/srv/desired"), "DIR")], MountView())


def test_a_closed_home_is_covered_and_only_what_is_needed_shows() -> None:
    needs = [Need(Path("/root/t/.state/controller"), "state", writable=True)]
    needs += [Need(Path("/root/t"), "package"), Need(Path("/root/t/.venv"), "environment")]
    check(
        {"/root": folder(0o700), "/root/t/.state/controller": folder(0o700, uid=990)},
        needs,
        MountView(closed=(Path("/root"),), binds=(needs[1], needs[2], needs[0])),
    )


def test_only_the_topmost_closed_folder_is_covered() -> None:
    need = Need(Path("/root/a/b/c"), "DIR")
    check(
        {"/root": folder(0o700), "/root/a/b": folder(0o700)},
        [need],
        MountView(closed=(Path("/root"),), binds=(need,)),
    )


def test_a_folder_open_to_the_users_group_is_open() -> None:
    check({"/run/t": folder(0o750, gid=991)}, [Need(Path("/run/t/s"), "sockets")], MountView())


def test_a_writable_need_wins_over_a_read_only_one_of_the_same_path() -> None:
    readonly, writable = Need(Path("/root/x"), "a"), Need(Path("/root/x"), "b", writable=True)
    check(
        {"/root": folder(0o700)},
        [readonly, writable],
        MountView(closed=(Path("/root"),), binds=(writable,)),
    )


@pytest.mark.parametrize("mode", [0o700, 0o751, 0o744])
def test_a_needed_folder_that_is_closed_itself_is_refused_with_the_chmod(mode: int) -> None:
    with pytest.raises(StateError) as caught:
        check(
            {"/srv/closed": folder(mode)}, [Need(Path("/srv/closed"), "DIR's holder")], MountView()
        )
    assert caught.value.code == "folder.closed"
    assert "chmod o+rx /srv/closed" in caught.value.remedy
