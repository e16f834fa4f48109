"""Whose state folder root takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.launch import User, prepare
from controller.model.errors import StateError


@pytest.mark.needs_root
def test_root_takes_no_state_folder_that_another_user_made(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    os.chown(root, 61234, 61234)
    with pytest.raises(StateError) as caught:
        prepare(
            root,
            directory=tmp_path / "desired",
            engine="unix:///nowhere.sock",
            policy="strict",
            user=User(61235, 61235, dropped=True),
            new_instance_id="i1",
        )
    assert caught.value.code == "state.stranger"
    assert list(root.iterdir()) == [], "nothing was written into it"
