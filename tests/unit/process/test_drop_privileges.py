"""Dropping privileges: a real process that starts as root in a closed home reports its state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.model.errors import StateError
from controller.process.drop_privileges import (
    EXPECTED_PROGRAM,
    MountView,
    Need,
    PrivilegeDrop,
    check_program,
    expected_program,
    plan_view,
)

UID, GID = 61234, 61235
SEEN_FROM_INSIDE = """
import errno, json, os, sys
status = dict(
    line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line
)
def attempt(path, mode):
    try:
        with open(path, mode) as file:
            return file.read() if mode == "r" else "written"
    except OSError as error:
        return errno.errorcode[error.errno]
closed = sys.argv[1]
print(json.dumps({
    "uid": status["Uid"].split(), "gid": status["Gid"].split(), "groups": status["Groups"].strip(),
    "caps": {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "no_new_privileges": status["NoNewPrivs"],
    "needed": attempt(closed + "/needed/file", "r"),
    "needed_write": attempt(closed + "/needed/new", "w"),
    "own_write": attempt(closed + "/needed/own/new", "w"),
    "beside": attempt(closed + "/secret", "r"),
    "listed": sorted(os.listdir(closed)),
}))
"""


def run_dropped(drop: PrivilegeDrop) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "controller.process.drop_privileges", drop.to_json()],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def make_closed(tmp_path: Path) -> Path:
    """Return a folder of root with mode 0700, with one needed folder and one secret."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/tmp") and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    closed = tmp_path / "closed"
    (closed / "needed" / "own").mkdir(parents=True)
    (closed / "needed" / "file").write_text("read me")
    (closed / "secret").write_text("not for you")
    os.chown(closed / "needed" / "own", UID, GID)
    closed.chmod(0o700)
    return closed


@pytest.mark.needs_root
def test_a_dropped_process_sees_what_it_needs_and_can_do_nothing_else(tmp_path: Path) -> None:
    closed = make_closed(tmp_path)
    needs = [
        Need(closed / "needed", "the package"),
        Need(closed / "needed" / "own", "its state", writable=True),
    ]
    view = plan_view(needs, uid=UID, gid=GID)
    argv = ("/usr/bin/python3", "-I", "-c", SEEN_FROM_INSIDE, str(closed))
    done = run_dropped(PrivilegeDrop(UID, GID, os.getpid(), view, argv))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "uid": [str(UID)] * 4,
        "gid": [str(GID)] * 4,
        "groups": "",
        "caps": dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0),
        "no_new_privileges": "1",
        "needed": "read me",
        "needed_write": "EROFS",
        "own_write": "written",
        "beside": "ENOENT",
        "listed": ["needed"],
    }
    assert (closed / "needed" / "own" / "new").exists(), "its state is the real folder"


@pytest.mark.needs_root
def test_a_dropped_process_whose_parent_is_gone_does_not_start() -> None:
    done = run_dropped(PrivilegeDrop(UID, GID, 1, MountView(), ("/bin/echo", "started")))
    assert (done.returncode, done.stdout) == (1, "")


def test_root_is_never_what_a_process_drops_to() -> None:
    done = run_dropped(PrivilegeDrop(0, 0, os.getpid(), MountView(), ("/bin/echo", "started")))
    assert done.returncode != 0
    assert done.stdout == ""


def test_another_interpreter_or_package_than_the_one_meant_is_noticed(tmp_path: Path) -> None:
    interpreter = Path("/proc/self/exe")
    value = expected_program(interpreter, tmp_path)
    check_program(value, package=tmp_path)
    check_program(None, package=tmp_path)
    with pytest.raises(StateError, match=r"process\.not-meant"):
        check_program(value, package=tmp_path.parent)
    assert EXPECTED_PROGRAM == "TRIMTAB_MEANT"
