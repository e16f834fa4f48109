"""The engines that the tests run on: Docker of this Debian or of the next one, with either image store.

The next Debian's packages are unpacked into a cache folder; nothing is installed. Their version moves with
that Debian. apt takes them from the mirror of this machine's own lists, and verifies their signatures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.dockerd import EngineError

#: Names the set-up of the tests' own engines; unset: the first of `SETUPS`.
VARIABLE = "TRIMTAB_TEST_ENGINE"
NEXT_DEBIAN = "forky"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ("docker.io", "containerd", "runc")
CACHE = Path("/var/cache/trimtab-docker")


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """One engine to test on."""

    name: str
    #: True for the Docker of the next Debian.
    is_next: bool = False
    #: True for the containerd image store, where an image's id is the digest of a manifest.
    containerd: bool = False

    def options(self, folder: Path) -> list[str]:
        """Return dockerd's options; *folder* gets the file that these name."""
        if not self.containerd:
            return []
        file = folder / "daemon.json"
        file.write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
        return [f"--config-file={file}"]

    def path(self) -> str:
        """Return PATH for dockerd, with its own containerd and runc first.

        Raises:
            EngineError: the packages of the next Debian can't be had.
        """
        path = os.environ.get("PATH", os.defpath)
        if not self.is_next:
            return path
        root = next_docker()
        return f"{root}/usr/bin:{root}/usr/sbin:{path}"

    def version(self) -> str:
        """Return the version of dockerd.

        Raises:
            EngineError: the packages of the next Debian can't be had.
        """
        program = shutil.which("dockerd", path=self.path()) or "dockerd"
        said = _run(program, "--version")  # Docker version 26.1.5+dfsg1, build 411e817
        return said.removeprefix("Docker version ").partition(",")[0]


SETUPS = {
    setup.name: setup
    for setup in (
        EngineSetup("docker-26"),
        EngineSetup("docker-26-containerd", containerd=True),
        EngineSetup("docker-28", is_next=True),
        EngineSetup("docker-28-containerd", is_next=True, containerd=True),
    )
}


def chosen() -> EngineSetup:
    """Return the set-up that the environment names."""
    return SETUPS[os.environ.get(VARIABLE) or next(iter(SETUPS))]


def next_docker() -> Path:
    """Return the folder with the next Debian's Docker, unpacked now if it wasn't.

    Raises:
        EngineError: apt doesn't fetch the packages.
    """
    root = CACHE / NEXT_DEBIAN
    if root.is_dir():
        return root
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="new-") as new:
        unpacked, apt = Path(new, "root"), Path(new, "apt")
        for folder in (unpacked, apt / "lists/partial", apt / "cache/archives/partial"):
            folder.mkdir(parents=True)
        (apt / "sources.list").write_text(
            f"deb [signed-by={KEYRING}] {_mirror()} {NEXT_DEBIAN} main\n"
        )
        options = (
            f"Dir::Etc::sourcelist={apt}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::lists={apt}/lists",
            f"Dir::Cache={apt}/cache",
            "APT::Sandbox::User=root",
        )
        apt_get = ("apt-get", "-q", *(word for option in options for word in ("-o", option)))
        _run(*apt_get, "update")
        _run(*apt_get, "download", *PACKAGES, cwd=apt)
        for package in apt.glob("*.deb"):
            _run("dpkg-deb", "--extract", str(package), str(unpacked))
        # Another process may have been faster.
        if not root.is_dir():
            shutil.move(unpacked, root)
    return root


def _mirror() -> str:
    found = _run(
        *("apt-get", "indextargets", "--format", "$(REPO_URI)"),
        *("Created-By: Packages", "Label: Debian"),
    ).split()
    if not found:
        raise EngineError(
            "the next Debian's Docker can't be fetched",
            "apt has no lists of Debian's packages",
            "as root: apt-get update",
        )
    return found[0]


def _run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise EngineError(
            "the next Debian's Docker can't be fetched",
            f"{' '.join(argv)}: {said}",
            "check the network and /etc/apt, or choose another engine",
        )
    return done.stdout
