"""What root does in the folder that belongs to the controller's user."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from controller.app.state_folder import User, lay_out, lay_out_feedback
from controller.app.up import controller_socket
from controller.model.errors import StateError
from controller.settings import StateFolder
from tests.backlog import filled

HERS = User(uid=1234, gid=1234, dropped=True)


@pytest.mark.needs_root
def test_the_controllers_files_become_its_users_and_nothing_else_does(tmp_path: Path) -> None:
    state = StateFolder(root=tmp_path / "state", run=tmp_path / "state" / "run")
    lay_out(state, user=HERS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("root's")
    (state.controller / "state.json").write_text("{}")
    os.link(elsewhere, state.controller / "hard")
    (state.controller / "soft").symlink_to(elsewhere)
    os.mkfifo(state.controller / "pipe")
    lay_out(state, user=HERS)
    assert (state.controller / "state.json").stat().st_uid == HERS.uid
    assert elsewhere.stat().st_uid == 0


@pytest.mark.needs_root
def test_the_fetcher_reads_the_outcomes_and_nothing_else_of_the_controller(tmp_path: Path) -> None:
    state = StateFolder(root=tmp_path / "state", run=tmp_path / "state" / "run")
    fetcher = User(uid=5678, gid=5678, dropped=True)
    lay_out(state, user=HERS)
    file = state.feedback / "feedback.json"
    file.write_text("{}")  # before there was a fetcher
    lay_out_feedback(state.feedback, HERS, reader=fetcher)
    lay_out(state, user=HERS)  # another start changes nothing
    for path, uid, gid, mode in (
        (state.feedback, HERS.uid, fetcher.gid, 0o2750),
        (state.controller, HERS.uid, HERS.gid, 0o700),
    ):
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (uid, gid, mode)
    assert (file.stat().st_uid, file.stat().st_gid) == (HERS.uid, fetcher.gid)
    other = User(uid=4321, gid=4321, dropped=True)
    lay_out(state, user=other)
    assert (state.feedback.stat().st_uid, file.stat().st_uid) == (other.uid, other.uid)


def test_the_socket_of_a_controller_that_is_too_busy_to_accept_is_not_replaced(
    tmp_path: Path,
) -> None:
    state = StateFolder(root=tmp_path, run=tmp_path)
    user = User(os.getuid(), os.getgid(), dropped=False)
    path = state.controller_socket
    with closing(controller_socket(state, user=user)) as busy, filled(busy, path):
        inode = path.stat().st_ino
        with pytest.raises(StateError) as caught:
            controller_socket(state, user=user)
        assert caught.value.code == "controller.running"
        assert path.stat().st_ino == inode
    with closing(controller_socket(state, user=user)):
        assert path.exists()
