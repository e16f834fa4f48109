"""Who can change a policy file: such a file is refused before it is read."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from controller.app.policy import access_error, policy_file, read_policy
from controller.model.errors import PolicyInvalid

MINE = os.geteuid()
CONTROLLER = 61990
#: A group that is nobody's own.
GROUP = 61991
TEXT = "name: test\n"

check = partial(access_error, broker_uid=MINE, controller_uid=CONTROLLER)


def facts(mode: int, *, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((0o100000 | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "words", "remedy"),
    [
        (0o644, CONTROLLER, GROUP, "belongs to the controller's user (uid 61990)", "chown root P"),
        (0o400, CONTROLLER, 0, "belongs to the controller's user", "chown root P"),
        (0o646, 0, 0, "can be written by every user (mode 0646)", "chmod go-w P"),
        (0o666, 1000, 0, "can be written by every user (mode 0666)", "chmod go-w P"),
        (0o664, 0, GROUP, "can be written by the group 61991 (mode 0664)", "chmod g-w P"),
    ],
)
def test_a_policy_that_others_can_change_is_refused(
    mode: int, uid: int, gid: int, words: str, remedy: str
) -> None:
    error = access_error(
        Path("P"), facts(mode, uid=uid, gid=gid), broker_uid=0, controller_uid=CONTROLLER
    )
    assert error is not None
    assert error.code == "policy.exposed"
    assert words in error.message
    assert error.remedy == remedy


@pytest.mark.parametrize(
    ("mode", "uid", "gid"),
    [(0o644, 0, 0), (0o664, 0, 0), (0o600, 1000, 1000), (0o644, 1000, GROUP)],
)
def test_a_policy_of_root_or_of_an_administrator_is_taken(mode: int, uid: int, gid: int) -> None:
    status = facts(mode, uid=uid, gid=gid)
    assert access_error(Path("P"), status, broker_uid=0, controller_uid=CONTROLLER) is None


def test_where_all_processes_share_a_uid_its_own_file_is_taken() -> None:
    status = facts(0o644, uid=1000, gid=1000)
    assert access_error(Path("P"), status, broker_uid=1000, controller_uid=1000) is None
    status = facts(0o666, uid=1000, gid=1000)
    assert access_error(Path("P"), status, broker_uid=1000, controller_uid=1000) is not None


def test_the_file_that_is_read_is_the_one_that_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(TEXT)
    path.chmod(0o644)
    assert read_policy(path, check_access=check).name == "test"
    path.chmod(0o646)
    with pytest.raises(PolicyInvalid, match="can be written by every user"):
        read_policy(path, check_access=check)
    # Offline commands only look.
    assert read_policy(path).name == "test"


@pytest.mark.parametrize("name", ["strict", "production", "development", "home"])
def test_a_shipped_policy_is_taken(name: str) -> None:
    assert read_policy(policy_file(name), check_access=check).name == name
