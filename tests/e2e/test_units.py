"""The units of configs/systemd: valid, hardened as the docs say, and the broker's view is the engine's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.units import BROKER, MARKS, PAGE, UNITS, exposure, missed, services, with_table

#: Directives that give a unit other mounts, processes, devices or users than the engine's.
OTHER_VIEW = re.compile(
    r"^(?:Private(?:Tmp|Devices|PIDs|Users|Mounts|IPC)|Protect(?:System|Home|Proc|KernelTunables|KernelLogs"
    r"|KernelModules|ControlGroups|Hostname)|ProcSubset|Root\w*|TemporaryFileSystem|Bind\w*"
    r"|Inaccessible\w*|ReadOnly\w*|ReadWritePaths|NoExecPaths|ExecPaths|MountAPIVFS|DynamicUser"
    r"|PAMName|NetworkNamespacePath)=",
    re.MULTILINE,
)


def test_systemd_finds_no_fault_in_a_unit(tmp_path: Path) -> None:
    for path in UNITS.glob("trimtab*"):
        text = path.read_text().replace("/usr/bin/trimtab", sys.executable)
        (tmp_path / path.name).write_text(text)
    units = [f"./{path.name}" for path in UNITS.glob("trimtab*") if path.suffix != ".conf"]
    argv = ("systemd-analyze", "verify", "--recursive-errors=no", *units)
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_users_and_folders_are_those_of_the_units() -> None:
    users = set(
        re.findall(r"^u (\S+)", (UNITS / "trimtab.sysusers.conf").read_text(), re.MULTILINE)
    )
    named = set()
    for path in UNITS.glob("*.service"):
        named |= set(re.findall(r"^User=(\S+)", path.read_text(), re.MULTILINE))
    assert users == named
    for program, file in (
        (("systemd-sysusers", "--dry-run"), "trimtab.sysusers.conf"),
        (("systemd-tmpfiles", "--dry-run", "--create"), "trimtab.tmpfiles.conf"),
    ):
        assert shutil.which(program[0])
        subprocess.run((*program, str(UNITS / file)), check=True, capture_output=True)


@pytest.mark.parametrize("unit", [each for each in services() if each != BROKER])
def test_a_unit_is_hardened(unit: str) -> None:
    assert exposure(unit) <= 1.5


def test_the_broker_judges_the_tree_that_the_engine_mounts() -> None:
    assert OTHER_VIEW.findall((UNITS / BROKER).read_text()) == []


@pytest.mark.parametrize("line", ["PrivateTmp=yes", "ProtectHome=tmpfs", "RootDirectory=/srv"])
def test_a_directive_with_another_view_is_seen(line: str) -> None:
    assert OTHER_VIEW.findall(f"[Service]\n{line}\n") == [f"{line.partition('=')[0]}="]


def test_no_unit_takes_the_runtime_folder_with_it() -> None:
    for path in UNITS.iterdir():
        settings = [each for each in path.read_text().splitlines() if not each.startswith("#")]
        assert not [each for each in settings if each.startswith("RuntimeDirectory")], path.name


def test_the_page_has_the_figures_and_a_reason_for_each_of_the_brokers() -> None:
    text = PAGE.read_text("utf-8")
    assert text == with_table(text), "run python -m tests.e2e.units"
    reasons = text.partition(MARKS[1])[2]
    told = set(
        re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| (.+?) \|", reasons, re.MULTILINE)))
    )
    assert missed(BROKER) == {each.replace("\\|", "|") for each in told}
