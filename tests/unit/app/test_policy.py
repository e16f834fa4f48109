"""Who can change a policy file: such a file is refused before it is read."""

from __future__ import annotations

import grp
import os
import pwd
import struct
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
        Path("P"), facts(mode, uid=uid, gid=gid), b"", broker_uid=0, controller_uid=CONTROLLER
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
    assert access_error(Path("P"), status, b"", broker_uid=0, controller_uid=CONTROLLER) is None


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL with the owner, such entries, the group, a mask of rw, and the others."""
    rows = ((0x01, 6, 2**32 - 1), *entries, (0x04, 4, 2**32 - 1), (0x10, 6, 2**32 - 1))
    packed = (struct.pack("<HHI", *row) for row in (*rows, (0x20, 4, 2**32 - 1)))
    return struct.pack("<I", 2) + b"".join(packed)


@pytest.mark.parametrize(
    ("entry", "mode", "words"),
    [
        ((0x02, 6, 990), 0o664, "can be written by the user 990 (an ACL grants it)"),
        ((0x08, 2, 990), 0o664, "can be written by the group 990 (an ACL grants it)"),
        ((0x02, 4, 990), 0o664, ""),
        ((0x02, 6, 990), 0o644, ""),  # the mask, shown as the group's bits, takes the right
    ],
)
def test_a_policy_that_an_acl_lets_others_write_is_refused(
    entry: tuple[int, int, int], mode: int, words: str
) -> None:
    error = access_error(
        Path("P"), facts(mode), acl(entry), broker_uid=0, controller_uid=CONTROLLER
    )
    assert (error.message if error else "").endswith(words)
    assert (error is None) is (not words)


def test_the_acl_of_the_file_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(TEXT)
    os.setxattr(path, "system.posix_acl_access", acl((0x02, 6, 990)))
    with pytest.raises(PolicyInvalid, match="written by the user 990"):
        read_policy(path, check_access=check)


@pytest.mark.parametrize(
    ("gid", "members", "primary", "taken"),
    [
        (0, [], [], True),
        (0, ["root"], [], True),
        (0, ["mallory"], [], False),
        (0, [], ["mallory"], False),
        (1000, ["alice"], [], True),
        (1000, ["mallory"], [], False),
        (1000, [], ["mallory"], False),
    ],
)
def test_a_group_is_private_only_without_other_users(
    gid: int, members: list[str], primary: list[str], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {0: "root", 1000: "alice"}[gid]

    def user(name: str, uid: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))

    users = [user(owner, gid), *(user(name, 2000) for name in primary)]
    monkeypatch.setattr(pwd, "getpwuid", lambda _: users[0])
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group((owner, "x", gid, members)))
    error = check(Path("P"), facts(0o664, uid=gid, gid=gid), b"")
    assert (error is None) is taken


def test_where_all_processes_share_a_uid_its_own_file_is_taken() -> None:
    status = facts(0o644, uid=1000, gid=1000)
    assert access_error(Path("P"), status, b"", broker_uid=1000, controller_uid=1000) is None
    status = facts(0o666, uid=1000, gid=1000)
    assert access_error(Path("P"), status, b"", broker_uid=1000, controller_uid=1000) is not None


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
