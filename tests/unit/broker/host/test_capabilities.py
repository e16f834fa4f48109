"""The privileges that a broker keeps, read from /proc in a separate process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller.broker.host.capabilities import KEPT_FOR, NICE

SCRIPT = """
import json, os, resource, sys, threading
from controller.broker.host.capabilities import drop_privileges
uid = int(sys.argv[1])
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
left = drop_privileges()
found = {}
def look():
    lines = dict(line.split(":\\t", 1) for line in open(f"/proc/self/task/{threading.get_native_id()}/status"))
    found["status"] = {name: lines[name].strip() for name in sys.argv[2:]}
thread = threading.Thread(target=look)  # what is given up before a thread starts holds in it
thread.start()
thread.join()
print(json.dumps({
    **found,
    "bounded": left.bounded,
    "kept": left.kept,
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
}))
"""
PRIORITY = """
import os, sys
from pathlib import Path
from controller.broker.host.capabilities import raise_priority
uid = int(sys.argv[1])
if uid:
    os.setresuid(uid, uid, uid)
session = Path("/proc/self/autogroup")  # empty in a session as old as the machine
def nice():
    words = session.read_text().split() if session.exists() else []
    return words[-1] if words else "0"
before = nice()
raised = raise_priority()
after = nice()
print(raised, os.getpriority(os.PRIO_PROCESS, 0), int(after) - int(before))
"""
NAMES = ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Umask")
KEPT = f"{1 << 0 | 1 << 2 | 1 << 5 | 1 << 19:016x}"  # CHOWN, DAC_READ_SEARCH, KILL, SYS_PTRACE
NONE = "0" * 16


def bounded(uid: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(uid), *NAMES],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_page_on_rights_has_the_table_of_the_code() -> None:
    page = Path(__file__).parents[4] / "docs" / "security" / "who-can-do-what.md"
    rows = re.findall(r"^\| CAP_(\w+) \| (.+) \|$", page.read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == KEPT_FOR


@pytest.mark.needs_root
def test_root_keeps_four_capabilities_and_can_gain_none() -> None:
    assert bounded(0) == {
        "status": {
            "CapEff": KEPT,
            "CapPrm": KEPT,
            "CapInh": NONE,
            "CapBnd": KEPT,
            "CapAmb": NONE,
            "NoNewPrivs": "1",
            "Umask": "0077",
        },
        "bounded": True,
        "kept": ["CHOWN", "DAC_READ_SEARCH", "KILL", "SYS_PTRACE"],
        "core": [0, 0],
        "nofile": [4096, 4096],
    }


@pytest.mark.needs_root
def test_a_broker_that_isn_t_root_says_that_it_had_nothing_to_drop() -> None:
    found = bounded(1234)
    assert (found["bounded"], found["kept"]) == (False, [])
    status = found["status"]
    assert isinstance(status, dict)
    told = {name: status[name] for name in ("CapEff", "CapPrm", "CapInh", "NoNewPrivs", "Umask")}
    assert told == {
        "CapEff": NONE,
        "CapPrm": NONE,
        "CapInh": NONE,
        "NoNewPrivs": "1",
        "Umask": "0077",
    }


def priority(uid: int, *, own_session: bool) -> list[str]:
    """Return whether the priority was raised, the nice value, and the change of the session's."""
    argv = [sys.executable, "-c", PRIORITY, str(uid)]
    done = subprocess.run(
        argv,
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=own_session,
    )
    return done.stdout.split()


@pytest.mark.needs_root
def test_root_prefers_the_broker_and_its_own_session_alone() -> None:
    grouped = Path("/proc/self/autogroup").exists()
    assert priority(0, own_session=True) == ["True", str(NICE), str(NICE) if grouped else "0"]
    assert priority(0, own_session=False) == ["True", str(NICE), "0"]


@pytest.mark.needs_root
def test_without_the_right_to_a_priority_a_broker_starts_all_the_same() -> None:
    assert priority(61001, own_session=True) == ["False", str(os.nice(0)), "0"]
