"""A release: the same bytes in any folder, and all that a host needs in each of its files.

One file, since the process that runs it builds the release once.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.package.releases import COMMIT_TIME_S, ROOT, Release, build
from tools import release_pins, wheel

DOCUMENT = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: shop}
spec: {image: 'docker.io/library/nginx:1.27'}
"""
COMPOSE = "services: {web: {image: 'docker.io/library/nginx:1.27'}}\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build(tmp_path_factory.mktemp("release") / "checkout", umask=0o022)


def test_two_builds_in_two_folders_are_the_same_bytes(release: Release, tmp_path: Path) -> None:
    other = tmp_path / "of another" / "place"
    (other / "build" / "lib").mkdir(parents=True)
    (other / "build" / "lib" / "stale.py").touch()
    built = build(other, umask=0o077, TZ="Asia/Kathmandu", LC_ALL="C")
    assert built.files.keys() == release.files.keys()
    differing = [name for name, data in built.files.items() if data != release.files[name]]
    assert differing == []


def test_the_checksums_are_those_of_all_files(release: Release) -> None:
    rows = (line.split("  ") for line in release.path("SHA256SUMS").read_text().splitlines())
    told = {name: digest for digest, name in rows}
    made = {name: hashlib.sha256(data).hexdigest() for name, data in release.files.items()}
    assert told == {name: digest for name, digest in made.items() if name != "SHA256SUMS"}


def test_the_list_of_parts_has_each_pin_and_nothing_that_varies(release: Release) -> None:
    listed = json.loads(release.path(".cdx.json").read_bytes())
    assert listed["bomFormat"] == "CycloneDX"
    assert "serialNumber" not in listed
    assert listed["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"
    assert listed["metadata"]["component"]["name"] == "trimtab"
    parts = {part["name"]: part["version"] for part in listed["components"]}
    known = release_pins.pins((ROOT / "constraints.txt").read_text())
    names = release_pins.needed("trimtab", release_pins.EXTRAS)
    assert parts == {name: known[name].split("==")[1].split()[0] for name in names}


def test_the_wheel_has_every_file_of_the_program(release: Release) -> None:
    with zipfile.ZipFile(release.path(".whl")) as archive:
        packed = {name for name in archive.namelist() if not name.startswith("trimtab-")}
    sources = {name for name in wheel.sources(ROOT) if name.startswith("controller/")}
    policies = {
        f"controller/policies/{path.name}" for path in (ROOT / "configs/policies").iterdir()
    }
    assert packed == sources - {"controller/policies"} | policies


def test_the_source_distribution_builds_the_same_wheel(release: Release, tmp_path: Path) -> None:
    rebuilt = wheel.build_wheel(release.path(".tar.gz"), tmp_path, COMMIT_TIME_S)
    assert rebuilt.read_bytes() == release.path(".whl").read_bytes()


@pytest.fixture(scope="module")
def environment(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what the wheel needs comes from the tests' own."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run((sys.executable, "-m", "venv", "--without-pip", str(folder)), check=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", str(folder))
    install = ("install", "--no-index", "--no-deps", str(release.path(".whl")))
    subprocess.run((*pip, *install), check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (own,) = Path(sys.prefix).glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(f"{own}\n")
    return folder


@pytest.mark.parametrize(
    "argv",
    [
        "--version",
        "try project/compose.yaml --policy home",
        "validate documents --policy home",
        "policy show --policy strict",
        "schema",
        "completion bash",
    ],
)
def test_the_wheel_works_in_an_environment_of_its_own(
    environment: Path, tmp_path: Path, argv: str
) -> None:
    for name, text in (("documents/web.yaml", DOCUMENT), ("project/compose.yaml", COMPOSE)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        (str(environment / "bin" / "trimtab"), *argv.split()),
        cwd=tmp_path,
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
