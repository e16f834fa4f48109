"""Where the state is looked for, and whose it is."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from controller.model.errors import StateError
from controller.model.settings import InForce, InstanceSettings
from controller.settings import (
    FORMAT,
    SYSTEM_STATE,
    Instance,
    bind_engine,
    find_state,
    read_in_force,
    read_instance,
    run_folder,
    write_in_force,
    write_instance,
)

INSTANCE = Instance(id="i1", dir="/srv/desired")


def check(
    expected: Path,
    *,
    explicit: Path | None = None,
    environ: dict[str, str] | None = None,
    cwd: Path,
    uid: int = 1000,
) -> None:
    assert find_state(explicit, environ=environ or {}, cwd=cwd, uid=uid) == expected


def test_the_option_comes_before_all_else(tmp_path: Path) -> None:
    check(tmp_path / "s", explicit=Path("s"), environ={"TRIMTAB_STATE": "/x"}, cwd=tmp_path, uid=0)


def test_then_the_environment(tmp_path: Path) -> None:
    check(Path("/x"), environ={"TRIMTAB_STATE": "/x"}, cwd=tmp_path, uid=0)


def test_then_a_state_folder_here_or_above(tmp_path: Path) -> None:
    (tmp_path / ".state").mkdir()
    write_instance(tmp_path / ".state", INSTANCE)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    check(tmp_path / ".state", cwd=below, uid=0)


def test_then_the_systems_for_root_and_the_users_own_for_others(tmp_path: Path) -> None:
    check(SYSTEM_STATE, cwd=tmp_path, uid=0)
    check(Path("/h/.local/state/trimtab"), environ={"HOME": "/h"}, cwd=tmp_path)
    check(Path("/d/trimtab"), environ={"HOME": "/h", "XDG_STATE_HOME": "/d"}, cwd=tmp_path)


def test_sockets_move_to_run_where_their_path_would_be_too_long() -> None:
    assert run_folder(Path("/srv/s"), "i1") == Path("/srv/s/run")
    assert run_folder(Path("/" + "x" * 90), "i1") == Path("/run/trimtab/i1")


def test_a_state_folder_belongs_to_the_first_engine_that_answered(tmp_path: Path) -> None:
    write_instance(tmp_path, INSTANCE)
    bind_engine(tmp_path, "E1")
    bind_engine(tmp_path, "E1")
    with pytest.raises(StateError) as caught:
        bind_engine(tmp_path, "E2")
    assert caught.value.code == "state.other-engine"
    found = read_instance(tmp_path)
    assert found is not None
    assert found.engine_id == "E1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"id": "x"}', '{"id": 1}', '{"unknown": 1}', "\0" * 64),
        '{"format": 1, "id": "x", "dir": "/d"}',
        '{"format": {"written": 1, "readable": 1}, "id": "x"}',
        '{"format": {"written": 1, "readable": 1}, "id": "x", "dir": "/d", "more": ""}',
        '{"format": {"written": 1, "readable": 0}, "id": "x", "dir": "/d"}',
        '{"format": {"written": 1, "readable": "1"}, "id": "x", "dir": "/d"}',
        '{"format": {"readable": 1}, "id": "x", "dir": "/d"}',
    ],
)
def test_a_damaged_instance_is_an_error_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instance.json"
    path.write_text(text)
    with pytest.raises(StateError) as caught:
        read_instance(tmp_path)
    assert caught.value.code == "state.damaged"
    assert path.read_text() == text


def test_a_state_folder_from_before_the_first_format_is_refused(tmp_path: Path) -> None:
    members = {"id": INSTANCE.id, "dir": INSTANCE.dir, "engine": "unix:///e", "policy": "home"}
    (tmp_path / "instance.json").write_text(json.dumps(members))
    with pytest.raises(StateError) as caught:
        read_instance(tmp_path)
    assert caught.value.code == "state.older"
    assert (
        f"trimtab adopt {INSTANCE.dir} --instance {INSTANCE.id} --state {tmp_path} "
        in caught.value.remedy
    )


def test_a_state_folder_of_a_newer_format_is_told_as_newer_and_stays(tmp_path: Path) -> None:
    write_instance(tmp_path, INSTANCE)
    path = tmp_path / "instance.json"
    form = {"written": FORMAT + 1, "readable": FORMAT + 1}
    text = json.dumps({**json.loads(path.read_text()), "format": form, "more": "x"})
    path.write_text(text)
    with pytest.raises(StateError, match="nothing was changed") as caught:
        read_instance(tmp_path)
    assert caught.value.code == "state.newer"
    assert path.read_text() == text


def test_a_newer_folder_that_this_format_can_read_keeps_what_it_does_not_know(
    tmp_path: Path,
) -> None:
    write_instance(tmp_path, INSTANCE)
    path = tmp_path / "instance.json"
    form = {"written": FORMAT + 1, "readable": FORMAT}
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": form, "more": "x"}))
    assert read_instance(tmp_path) == INSTANCE
    bind_engine(tmp_path, "E1")
    assert read_instance(tmp_path) == replace(INSTANCE, engine_id="E1")
    kept = json.loads(path.read_text())
    assert (kept["format"], kept["more"]) == (form, "x")


def test_settings_in_force_are_those_of_the_last_start(tmp_path: Path) -> None:
    assert read_in_force(tmp_path) == InForce()
    told = InForce(
        InstanceSettings(policy="home", webhook="[::1]:1", verify_key=("/k",)), "sha256:0"
    )
    write_in_force(tmp_path, told)
    assert read_in_force(tmp_path) == told
    (tmp_path / "settings.json").write_text('{"format": 1, "settings": {"unknown": 1}}')
    with pytest.raises(StateError) as caught:
        read_in_force(tmp_path)
    assert caught.value.code == "state.damaged"


@pytest.mark.needs_root
@pytest.mark.parametrize("theirs", [".state", ".state/instance.json"])
def test_a_state_folder_of_another_user_is_not_taken_for_ours(tmp_path: Path, theirs: str) -> None:
    (tmp_path / ".state").mkdir()
    write_instance(tmp_path / ".state", INSTANCE)
    os.chown(tmp_path / theirs, 1234, -1)
    with pytest.raises(StateError, match="belongs to uid 1234"):
        check(tmp_path / ".state", cwd=tmp_path, uid=0)
    check(tmp_path / ".state", cwd=tmp_path, uid=1234)


def test_an_instance_that_is_written_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is synced too: without that a loss of power can undo the rename."""
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    write_instance(tmp_path, INSTANCE)
    assert synced == [False, True]
    assert stat.S_IMODE((tmp_path / "instance.json").stat().st_mode) == 0o644
