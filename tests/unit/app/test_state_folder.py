"""Whose state folder is taken, and what of an instance is kept in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.app.broker import open_launch
from controller.app.state_folder import (
    ChosenSettings,
    Launch,
    User,
    choose_settings,
    prepare,
    raise_if_lost,
    rebind_instance,
)
from controller.model.errors import SettingsInvalid, StateError, UsageError
from controller.model.settings import InstanceSettings, SettingsRead
from controller.settings import read_instance


def prepared(root: Path, **options: str) -> Launch:
    return prepare(
        root,
        choose_settings(root, options),
        directory=root.parent / "desired",
        user=User(os.getuid(), os.getgid(), dropped=False),
        new_instance_id="i1",
    )


def test_a_quarantine_is_the_instances_until_another_is_given(tmp_path: Path) -> None:
    root = tmp_path / "state"
    (tmp_path / "desired").mkdir()
    seen = []
    for given in ({}, {"quarantine": "24h"}, {}, {"quarantine": "0s"}):
        assert prepared(root, **given).instance == read_instance(root)
        seen.append(prepared(root).settings.quarantine_ms)
    assert seen == [0, 86_400_000, 86_400_000, 0]


@pytest.mark.needs_root
def test_root_takes_no_state_folder_that_another_user_made(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    os.chown(root, 61234, 61234)
    with pytest.raises(StateError) as caught:
        choose_settings(root, {"policy": "home"})
    assert caught.value.code == "state.stranger"
    with pytest.raises(StateError) as caught:
        prepare(
            root,
            ChosenSettings(
                root / "trimtab.yaml", "", SettingsRead(InstanceSettings()), is_new=False
            ),
            directory=tmp_path / "desired",
            user=User(61235, 61235, dropped=True),
            new_instance_id="i1",
        )
    assert caught.value.code == "state.stranger"
    assert list(root.iterdir()) == [], "nothing was written into it"


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_no_instance_is_bound_to_a_directory_that_is_not_there(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "desired").touch()
    with pytest.raises(UsageError, match=r"doesn't exist|isn't a directory") as caught:
        prepared(tmp_path / "state")
    assert caught.value.code == "dir.missing"
    assert not (tmp_path / "state").exists()


def test_an_instance_starts_while_its_directory_is_away(tmp_path: Path) -> None:
    (tmp_path / "desired").mkdir()
    prepared(tmp_path / "state")
    (tmp_path / "desired").rmdir()
    assert prepared(tmp_path / "state").instance.dir.endswith("/desired")


def test_a_folder_with_a_journal_gets_no_new_id(tmp_path: Path) -> None:
    root = tmp_path / "state"
    (tmp_path / "desired").mkdir()
    prepared(root)
    (root / "broker" / "journal").mkdir(exist_ok=True)
    (root / "broker" / "journal" / "000001.jsonl").touch()
    (root / "instance.json").unlink()
    with pytest.raises(StateError) as caught:
        raise_if_lost(root)
    assert caught.value.code == "state.damaged"
    prepared(root)  # with an id that an operator names
    raise_if_lost(root)


def test_settings_that_others_can_change_start_no_broker(tmp_path: Path) -> None:
    """They name the policy."""
    root = tmp_path / "state"
    (tmp_path / "desired").mkdir()
    prepared(root, policy="home")
    (root / "trimtab.yaml").chmod(0o666)
    with pytest.raises(SettingsInvalid) as caught:
        open_launch(
            root, directory=tmp_path / "desired", options={}, controller_uid=os.getuid() + 1
        )
    assert caught.value.code == "settings.exposed"


def test_settings_with_another_directory_start_nothing(tmp_path: Path) -> None:
    root = tmp_path / "state"
    (tmp_path / "desired").mkdir()
    prepared(root)
    (root / "trimtab.yaml").write_text(f"desiredState: {tmp_path}/other\n")
    with pytest.raises(StateError) as caught:
        prepared(root)
    assert caught.value.code == "settings.rebind"
    with pytest.raises(UsageError) as missing:
        rebind_instance(root)
    assert missing.value.code == "dir.missing"
    (tmp_path / "other").mkdir()
    before, after = rebind_instance(root)
    assert (before, after) == (str(tmp_path / "desired"), str(tmp_path / "other"))
    found = read_instance(root)
    assert found is not None
    assert found.dir == after
