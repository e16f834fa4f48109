"""The Debian package: its parts, and what its scripts refuse. `make deb` builds it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from controller.cli.main import COMMANDS
from controller.settings import FORMAT
from tools.release_pins import EXTRAS, needed, pins

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "configs" / "debian"
UNITS = ROOT / "configs" / "systemd"


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm", "config"])
def test_a_script_is_one_of_the_shell(name: str) -> None:
    subprocess.run(("sh", "-n", str(SCRIPTS / name)), check=True)


def _preinst(root: Path, instance: object, *args: str) -> subprocess.CompletedProcess[str]:
    state = root / "var" / "lib" / "trimtab"
    state.mkdir(parents=True)
    (state / "instance.json").write_text(json.dumps(instance, indent=2))
    script = (SCRIPTS / "preinst").read_text().replace("@FORMAT@", str(FORMAT))
    return subprocess.run(
        ("sh", "-c", script, "preinst", *args),
        env={"DPKG_ROOT": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "newer", [{"format": FORMAT + 1}, {"format": {"written": FORMAT + 2, "readable": FORMAT + 1}}]
)
def test_a_state_of_a_newer_format_is_refused_before_unpacking(
    tmp_path: Path, newer: dict[str, object]
) -> None:
    done = _preinst(tmp_path, newer, "upgrade", "9.9")
    assert done.returncode == 1
    assert f"reads format {FORMAT + 1}" in done.stderr
    assert "Nothing was changed" in done.stderr


@pytest.mark.parametrize(
    "known", [{"format": FORMAT}, {"format": {"written": FORMAT + 1, "readable": FORMAT}}]
)
def test_a_state_that_can_be_read_is_no_hindrance(tmp_path: Path, known: dict[str, object]) -> None:
    done = _preinst(tmp_path, known, "install")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_has_what_trimtab_needs_and_no_tool_of_developers() -> None:
    names = needed("trimtab", EXTRAS)
    assert {"docker", "pydantic", "pydantic-core", "watchfiles", "tenacity"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "pip"}
    assert names <= pins((ROOT / "constraints.txt").read_text()).keys()


def test_a_unit_runs_a_command_that_exists() -> None:
    found = set()
    for path in UNITS.glob("*.service"):
        for line in path.read_text().splitlines():
            if line.startswith("ExecStart="):
                program, command, *_ = shlex.split(line.removeprefix("ExecStart="))
                assert program == "/usr/bin/trimtab"
                found.add(command)
    assert found
    assert found <= COMMANDS.keys()


def test_what_the_package_enables_is_what_it_ships() -> None:
    shipped = {path.name for path in UNITS.iterdir()}
    for name in ("postinst", "prerm", "postrm"):
        text = (SCRIPTS / name).read_text().replace('"', " ").replace("\\", " ").split()
        named = {
            word
            for word in text
            if word.startswith("trimtab")
            and word.endswith((".service", ".socket", ".timer", ".path", ".target"))
        }
        assert named
        assert named <= shipped
