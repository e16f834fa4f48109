"""Debian packages as layers of images: downloaded once, unpacked without installing anything.

The cache folder has three parts: `plans` (which package files a list of packages needs),
`packages` (the files, as apt named and verified them) and `layers` (tars made of them).
A file gets its final name only when it is complete, and one process at a time writes, so a
run that was killed leaves nothing that a later one trusts.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tools.dockerd import EngineError
from tools.image_archive import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Part of every plan's and layer's key: a new number makes what earlier forms cached unused.
FORM = 2
#: Folders that merged-/usr Debian has as links to /usr/NAME.
MERGED = ("bin", "lib", "lib64", "sbin")
#: Packages that others depend on for their installation, or for a login: images run without.
LEFT_OUT = re.compile(
    r"adduser|base-passwd|debconf.*|dpkg|gcc-\d+-base|init-system-helpers|libapt.*|libaudit-common"
    r"|libc-l10n|libdb5.*|libdebconf.*|libpam-.*|libsemanage.*|libsepol.*|libtext.*|liblocale.*"
    r"|locales|login.*|lsb-base|netbase|openssl.*|passwd|perl.*|libperl.*|libgdbm.*|procps"
    r"|ssl-cert|sysvinit-utils|tar|tzdata|ucf|sensible-utils|mawk|media-types"
)
NOT_IN_IMAGES = re.compile(
    r"usr/share/(doc|info|lintian|locale|man|bash-completion|icons|pixmaps)/.|usr/lib/systemd/."
    r"|etc/(init\.d|cron\.[a-z]+|logrotate\.d|default)/.|.*llvmjit.*|.*\.bc"
)
APT_OPTIONS = ("Dir::State::status=/dev/null", "Debug::NoLocking=1", "Acquire::Retries=3")
APT = ("apt-get", "-y", "-q", *(word for option in APT_OPTIONS for word in ("-o", option)))


def cache_folder() -> Path:
    """Where packages are kept: the machine's cache for root, a folder of their own for others."""
    user = os.geteuid()
    if user == 0:
        return Path("/var/cache/trimtab-images")
    return Path(f"/var/tmp/trimtab-images-{user}")  # noqa: S108 - made 0700, and refused if it isn't ours


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of one layer, with what they depend on; those of *below* are there already."""

    names: tuple[str, ...]
    without: str = ""  # more to leave out than `LEFT_OUT`; a regular expression
    below: Packages | None = None


class Cache:
    """The cache folder. Several processes may use it at once; only one of them writes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def layer(self, packages: Packages) -> Layer:
        """Return the layer with these packages, made now if it wasn't there.

        Raises:
            EngineError: apt can't say or fetch what is needed.
        """
        with self._turn():
            files = self._files(packages)
            key = hashlib.sha256(
                json.dumps([FORM, NOT_IN_IMAGES.pattern, files]).encode()
            ).hexdigest()[:24]
            path = self.folder / "layers" / f"{key}.tar"
            if not path.exists():
                with _new_file(path) as new:
                    write_layer(new, [self.folder / "packages" / name for name in files])
            return Layer(path)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if (owner := self.folder.stat().st_uid) != os.geteuid():
            raise EngineError(
                f"{self.folder} can't be used", f"it belongs to uid {owner}", "remove it"
            )
        for name in ("plans", "packages", "layers"):
            (self.folder / name).mkdir(exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _files(self, packages: Packages) -> list[str]:
        """Return the names of the package files, all of them there."""
        question = hashlib.sha256(repr((FORM, packages, LEFT_OUT.pattern)).encode()).hexdigest()[
            :24
        ]
        plan = self.folder / "plans" / f"{question}.json"
        if plan.exists():
            files: list[str] = json.loads(plan.read_text())
            if all((self.folder / "packages" / name).exists() for name in files):
                return files
        try:
            files = self._fetch(packages)
        except EngineError:
            # The package lists of a fresh machine are empty or old.
            if os.geteuid() != 0:
                raise
            _run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")
            files = self._fetch(packages)
        with _new_file(plan) as new:
            new.write_text(json.dumps(files))
        return files

    def _fetch(self, packages: Packages) -> list[str]:
        wanted = closure(packages.names, packages.without)
        if packages.below is not None:
            there = closure(packages.below.names, packages.below.without)
            wanted = {name: file for name, file in wanted.items() if name not in there}
        missing = [
            name for name, file in wanted.items() if not (self.folder / "packages" / file).exists()
        ]
        if missing:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="new-") as folder:
                # apt checks what it fetches against the signed lists.
                _run(*APT, "-o", "APT::Sandbox::User=root", "download", *missing, cwd=folder)
                for path in Path(folder).iterdir():
                    path.rename(self.folder / "packages" / path.name)
        files = sorted(wanted.values())
        if absent := [name for name in files if not (self.folder / "packages" / name).exists()]:
            raise EngineError(
                f"apt-get download didn't fetch {', '.join(absent)}",
                "the package lists changed meanwhile",
                "try again",
            )
        return files


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, renamed to *path* when all went well."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield new
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


@functools.cache
def closure(names: tuple[str, ...], without: str) -> dict[str, str]:
    """Return the packages that these need, and the file of each; none counts as installed.

    Raises:
        EngineError: apt knows none of that name, or has no lists.
    """
    # apt names no address for a file that its archive holds already, so it gets an empty archive.
    with tempfile.TemporaryDirectory(prefix="trimtab-apt-") as archive:
        (Path(archive) / "partial").mkdir()
        empty = ("-o", f"Dir::Cache::Archives={archive}")
        said = _run(*APT, *empty, "--no-install-recommends", "--print-uris", "install", *names)
    found = {}
    for line in said.splitlines():
        if line.startswith("'"):
            file = line.split()[1]
            name = unquote(file).partition("_")[0]
            left_out = LEFT_OUT.fullmatch(name) or (without and re.fullmatch(without, name))
            if not left_out or name in names:
                found[name] = file
    return found


def _run(*argv: str, cwd: str | None = None) -> str:
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise EngineError(
            "the images of Debian packages can't be built",
            f"{argv[0]} isn't installed",
            "use a Debian machine",
        ) from error
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise EngineError(
            f"{' '.join(argv)} failed",
            said,
            "as root: apt-get update; check the network and /etc/apt",
        )
    return done.stdout


def write_layer(path: Path, packages: Sequence[Path]) -> None:
    """Write the files of these packages as one tar, as merged-/usr Debian lays them out."""
    folders: set[str] = set()
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for name in MERGED:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, f"usr/{name}", 0o777
            out.addfile(entry)
        for package in packages:
            _copy(package, out, folders)


def _copy(package: Path, out: tarfile.TarFile, folders: set[str]) -> None:
    """Copy a package's files. Each folder is written once, whoever has it."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as unpack:
        assert unpack.stdout is not None, "it is a pipe"
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
            for entry in tar:
                _copy_entry(entry, tar, out, folders)
        # Read to its end: dpkg-deb pads, and a closed pipe would end it with an error.
        while unpack.stdout.read(65536):
            pass
    if unpack.returncode != 0:
        raise EngineError(
            f"{package} can't be unpacked",
            f"dpkg-deb ended with {unpack.returncode}",
            f"remove {package} and try again",
        )


def _copy_entry(
    entry: tarfile.TarInfo, tar: tarfile.TarFile, out: tarfile.TarFile, folders: set[str]
) -> None:
    entry.name = _merged(entry.name)
    if not entry.name or entry.name in MERGED or NOT_IN_IMAGES.match(entry.name):
        return
    if entry.isdir():
        if entry.name in folders:
            return
        folders.add(entry.name)
    if entry.islnk():
        entry.linkname = _merged(entry.linkname)
    entry.mtime, entry.uname, entry.gname = 0, "", ""
    out.addfile(entry, tar.extractfile(entry) if entry.isreg() else None)


def _merged(path: str) -> str:
    path = path.removeprefix("./").strip("/")
    first, slash, rest = path.partition("/")
    return f"usr/{first}/{rest}" if slash and first in MERGED else path
