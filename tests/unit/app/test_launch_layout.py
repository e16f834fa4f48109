"""What root does in the folder that belongs to the controller's user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.app.launch import User, lay_out
from controller.settings import StateFolder

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
