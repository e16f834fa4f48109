"""A minimal Debian of the machine's own packages: those that every Debian has, and what trimtab depends on.

Nothing is downloaded or configured. Each test gets what it writes in layers of its own above the root, so that
a layer lists what a package's installation changed. Needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MACHINE = Path("/var/lib/dpkg")
ALTERNATIVES = Path("/etc/alternatives")
#: Folders that Debian with merged /usr has as links.
MERGED = ("bin", "lib", "lib64", "sbin")
#: Folders that Debian's installation makes.
FOLDERS = (
    "dev",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/cache/debconf",
    "var/lib/misc",
    "var/log",
    "var/tmp",
)
#: What a root without readers leaves out.
LEFT_OUT = re.compile(
    r"/usr/share/(doc|man|locale|info|lintian)/.|/usr/lib/(firmware|modules|udev/hwdb\.d)/."
)
MOUNTED = """
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount -t tmpfs tmpfs "$2/root/dev"
for node in null zero urandom; do touch "$2/root/dev/$node"; mount --bind "/dev/$node" "$2/root/dev/$node"; done
root=$2/root
shift 2
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"
"""


@dataclass(frozen=True)
class Installed:
    """A package of the machine."""

    name: str
    stanza: str
    essential: bool
    provides: frozenset[str]
    depends: tuple[tuple[str, ...], ...]


def installed() -> Iterator[Installed]:
    """Yield the machine's packages."""
    for stanza in (MACHINE / "status").read_text("utf-8").split("\n\n"):
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+): ?(.*)$", stanza))
        if fields.get("Status", "").endswith(" installed"):
            depends = ", ".join(
                fields[name] for name in ("Pre-Depends", "Depends") if name in fields
            )
            yield Installed(
                fields["Package"],
                stanza,
                fields.get("Essential") == "yes",
                frozenset(names(fields.get("Provides", ""))),
                tuple(tuple(names(one, "|")) for one in depends.split(",") if one.strip()),
            )


def names(field: str, separator: str = ",") -> Iterator[str]:
    """Yield the names of packages in a field, without versions and architectures."""
    for part in filter(str.strip, field.split(separator)):
        yield re.split(r"[\s(:]", part.strip())[0]


def closure(depends: str) -> list[Installed]:
    """Return the essential packages, those of *depends*, and all that they depend on."""
    packages = {package.name: package for package in installed()}
    providers = {name: package for package in packages.values() for name in package.provides}
    found: dict[str, Installed] = {}
    queue = [package for package in packages.values() if package.essential]
    wanted = [tuple(names(one, "|")) for one in depends.split(",")]
    while queue or wanted:
        for alternatives in wanted:
            known = [packages.get(name) or providers.get(name) for name in alternatives]
            queue += [package for package in known if package is not None][:1]
        wanted = []
        while queue:
            package = queue.pop()
            if package.name not in found:
                found[package.name] = package
                wanted += package.depends
    return [found[name] for name in sorted(found)]


def make(folder: Path, depends: str) -> None:
    """Write the root into *folder*."""
    packages = closure(depends)
    for name in MERGED:
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    dpkg = folder / "var" / "lib" / "dpkg"
    for name in ("info", "updates", "triggers", "alternatives"):
        (dpkg / name).mkdir(parents=True)
    paths: dict[str, None] = {}
    for package in packages:
        for part in (MACHINE / "info").glob(f"{package.name}[.:]*"):
            if part.stem.partition(":")[0] == package.name:
                shutil.copy(part, dpkg / "info")
                if part.suffix == ".list":
                    paths.update(dict.fromkeys(part.read_text("utf-8").splitlines()))
    (dpkg / "status").write_text("".join(f"{package.stanza}\n\n" for package in packages))
    for name in ("diversions", "statoverride"):
        (dpkg / name).touch()
    shutil.copy(MACHINE / "info/format", dpkg / "info/format")
    # Made by scripts of packages.
    paths.update(dict.fromkeys(map(str, (ALTERNATIVES, *ALTERNATIVES.iterdir()))))
    kept = [path[1:] for path in paths if os.path.lexists(path) and not LEFT_OUT.match(path)]
    listed = "\0".join(path for path in kept if path not in {"", ".", *MERGED})
    pack = ("tar", "-C", "/", "--create", "--no-recursion", "--null", "--files-from=-")
    unpack = ("tar", "-C", str(folder), "--extract", "--keep-directory-symlink")
    with subprocess.Popen(unpack, stdin=subprocess.PIPE) as reader:
        subprocess.run(pack, input=listed.encode(), stdout=reader.stdin, check=True)
        assert reader.stdin is not None
        reader.stdin.close()
    assert reader.returncode == 0
    for name in ("passwd", "group"):
        shutil.copy(folder / f"usr/share/base-passwd/{name}.master", folder / "etc" / name)
    subprocess.run(("ldconfig", "-r", str(folder)), check=True)


@dataclass(frozen=True)
class Layer:
    """What programs write that run in a root; the root itself stays as it is."""

    below: str  # the folders below, the highest first, as `lowerdir` has them
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir()
        self.upper.chmod(0o755)

    @property
    def upper(self) -> Path:
        """The folder with what was written. A file that was removed is a character device."""
        return self.folder / "upper"

    def above(self, folder: Path) -> Layer:
        """Return a layer above this one."""
        return Layer(f"{self.upper}:{self.below}", folder)

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the root, with processes and mounts of its own."""
        apart = ("unshare", "--mount", "--pid", "--fork", "--propagation", "private")
        done = subprocess.run(
            (*apart, "sh", "-c", MOUNTED, "root", self.below, str(self.folder), *argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def written(self) -> set[str]:
        """Return the paths of all files that were written and are there, from the root."""
        return {
            f"/{path.relative_to(self.upper)}"
            for path in self.upper.rglob("*")
            if path.is_symlink() or path.is_file()
        }
