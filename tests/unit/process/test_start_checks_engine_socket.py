"""The check of access to the engine's socket, and its remedies."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.process import start_checks
from controller.process.start_checks import check_access
from tests.backlog import filled
from tests.unprivileged import as_user

TRIMTAB = str(Path(sys.executable).parent / "trimtab")
#: A user of Debian's base-passwd, and a group that it isn't in.
USER, GROUP = "games", "audio"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="trimtab-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def path(folder: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "docker.sock"))
        listener.listen(16)
        yield folder / "docker.sock"


def check(path: Path) -> None:
    check_access(str(path), monotonic=time.monotonic, wait=time.sleep)


def test_a_socket_that_can_be_opened_or_that_nobody_serves_is_no_reason_to_stop(
    path: Path, tmp_path: Path
) -> None:
    check(path)
    check(tmp_path / "nowhere.sock")


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("group", "remedy"),
    [
        (
            GROUP,
            f"run as root, or add yourself to the group {GROUP}: sudo usermod -aG {GROUP} {USER}, then log in again",
        ),
        ("root", "run as root"),
    ],
)
def test_up_ends_with_the_remedy_where_the_socket_is_closed_to_the_user(
    path: Path, folder: Path, group: str, remedy: str
) -> None:
    os.chown(path, 0, grp.getgrnam(group).gr_gid)
    path.chmod(0o660)
    home = folder / "home"
    (home / "desired").mkdir(parents=True)
    for each in (home, home / "desired"):
        os.chown(each, pwd.getpwnam(USER).pw_uid, -1)
    user = pwd.getpwnam(USER)
    up = [TRIMTAB, "up", "desired", "--engine", f"unix://{path}", "--state", "state"]
    done = subprocess.run(
        as_user(up, uid=user.pw_uid, gid=user.pw_gid),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {USER} is not allowed to open the engine's socket {path} [engine.denied]\n"
        f"remedy: {remedy}\n"
    )


@pytest.mark.needs_root
def test_who_joined_the_group_only_now_must_log_in_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = start_checks.user_name()
    os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
    joined = grp.struct_group((GROUP, "x", grp.getgrnam(GROUP).gr_gid, [name]))
    monkeypatch.setattr(grp, "getgrgid", lambda _gid: joined)
    assert start_checks.remedy_for(str(path)).startswith("log in again")


def test_a_socket_that_is_given_to_its_group_in_time_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, True, False])
    monkeypatch.setattr(start_checks, "_is_denied", lambda _path: next(answers))
    pauses: list[float] = []
    check_access(str(path), monotonic=lambda: len(pauses) * 0.05, wait=pauses.append)
    assert pauses == [0.05, 0.05]


def test_an_engine_with_a_full_backlog_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
        engine.bind(str(path))
        with filled(engine, path):
            check_access(str(path), monotonic=lambda: 0.0, wait=lambda _s: None)
