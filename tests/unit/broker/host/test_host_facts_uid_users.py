"""Who has a uid: accounts, ranges of other namespaces, and processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.broker.host.host_facts import find_user

UID = 64001


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n+\n")
    (folder / "group").write_text("root:x:0:\n")
    return folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    return folder


def add_process(proc: Path, pid: int, ids: str, cgroup: str = "0::/init.scope") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "status").write_text(f"Name:\tx\nUid:\t{ids}\nGid:\t0 0 0 0\n")
    (folder / "cgroup").write_text(f"{cgroup}\n")


def test_a_uid_of_nobody_is_free(etc: Path, proc: Path) -> None:
    add_process(proc, 1, "0 0 0 0")
    assert find_user(UID, (), etc=etc, proc=proc) == ""


@pytest.mark.parametrize(
    ("file", "line", "whose"),
    [
        ("passwd", f"metrics:x:{UID}:100::/:/bin/false", "the account metrics"),
        ("passwd", f"metrics:x:500:{UID}::/:/bin/false", "the account metrics"),
        ("group", f"metrics:x:{UID}:ann", "the account metrics"),
        ("subuid", "ann:60000:65536", "the range of ann"),
        ("subgid", f"ann:{UID}:1", "the range of ann"),
    ],
)
def test_an_account_or_a_range_has_it(
    etc: Path, proc: Path, file: str, line: str, whose: str
) -> None:
    with (etc / file).open("a") as opened:
        opened.write(f"{line}\n")
    assert find_user(UID, (), etc=etc, proc=proc) == f"{whose} in {etc / file}"


def test_a_process_has_it_unless_it_is_an_observers(etc: Path, proc: Path) -> None:
    add_process(proc, 7, f"0 {UID} 0 0", "12:pids:/docker/abc")
    assert find_user(UID, ("abc",), etc=etc, proc=proc) == ""
    assert find_user(UID, ("abd",), etc=etc, proc=proc) == "the process 7"


def test_what_cannot_be_read_counts_as_taken(etc: Path, tmp_path: Path, proc: Path) -> None:
    assert find_user(UID, (), etc=etc, proc=tmp_path / "none").startswith("somebody, perhaps")
    (etc / "subuid").write_text("ann:x:1\n")
    assert find_user(UID, (), etc=etc, proc=proc).startswith("somebody, perhaps")


def test_the_own_uid_is_taken() -> None:
    assert find_user(os.getuid(), ()) != ""
