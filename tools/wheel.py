"""Builds the wheel and the source distribution of trimtab: the same files make the same bytes.

``python tools/wheel.py FOLDER`` writes both below FOLDER and prints the wheel's path, ``--time`` prints the time of every file in
them: SOURCE_DATE_EPOCH, else the commit's. Neither the modes of the checkout's files nor what lies beside them has an effect.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import manual

#: A checkout of another user's is read as well, by root too: these commands run nothing of its.
GIT = ("git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false")
#: Besides hidden ones: what set-up and builds leave in a folder that isn't a clone.
LEFT_BY_BUILDS = ("__pycache__", "build", "dist", "man", "PKG-INFO")


def sources(root: Path) -> list[str]:
    """Return the paths of all source files: those that Git tracks, else those of an unpacked source distribution."""
    if (root / ".git").exists():
        found = subprocess.check_output((*GIT, "ls-files", "-z"), cwd=root, text=True).split("\0")
    else:
        # A link to a folder is a file here, as it is for Git.
        found = [
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_symlink() or path.is_file()
        ]
        found = [path for path in found if not _is_left_by_builds(path)]
    return sorted(path for path in found if path and os.path.lexists(root / path))


def _is_left_by_builds(path: str) -> bool:
    parts = path.split("/")
    hidden = parts[0].startswith(".") and parts[0] not in {".ci", ".gitignore"}
    return hidden or parts[0].endswith(".egg-info") or bool(set(LEFT_BY_BUILDS) & set(parts))


def write_sdist(path: Path, root: Path, made: Mapping[str, bytes], time: int) -> None:
    """Write the source distribution: every source file, and the files that are *made*, by path."""
    top = path.name.removesuffix(".tar.gz")
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in made.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mtime, info.mode = len(content), time, 0o644
            tar.addfile(info, BytesIO(content))
        for name in sources(root):
            info = tar.gettarinfo(root / name, f"{top}/{name}")
            info.type = tarfile.SYMTYPE if info.issym() else tarfile.REGTYPE
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = time
            if info.issym():
                tar.addfile(info)
            else:
                tar.addfile(info, BytesIO((root / name).read_bytes()))


def build_wheel(sdist: Path, folder: Path, time: int) -> Path:
    """Build the wheel from a source distribution, without network, and return its path."""
    apart = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME")
    environ = {name: value for name, value in os.environ.items() if name not in apart}
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder))
    subprocess.run(
        (*pip, "wheel", *options, str(sdist)),
        env={**environ, "SOURCE_DATE_EPOCH": str(time)},
        umask=0o022,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def epoch(root: Path) -> int:
    """Return SOURCE_DATE_EPOCH in seconds, else the time of the commit, else that of pyproject.toml."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    if not (root / ".git").exists():
        return int((root / "pyproject.toml").stat().st_mtime)
    command = (*GIT, "log", "-1", "--format=%ct")
    return int(subprocess.check_output(command, cwd=root, text=True))


def build(root: Path, folder: Path) -> tuple[Path, Path]:
    """Write both below *folder* and return the paths of wheel and source distribution."""
    time = epoch(root)
    version = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / f"trimtab-{version}.tar.gz"
    with tempfile.TemporaryDirectory(prefix="trimtab-wheel-") as scratch:
        # Without metadata, which the wheel's build writes.
        first = Path(scratch) / sdist.name
        pages = {f"man/{name}.1": text.encode() for name, text in manual.pages(time).items()}
        write_sdist(first, root, {"PKG-INFO": b"", **pages}, time)
        built = build_wheel(first, Path(scratch), time)
        with zipfile.ZipFile(built) as archive:
            metadata = archive.read(f"trimtab-{version}.dist-info/METADATA")
        write_sdist(sdist, root, {"PKG-INFO": metadata, **pages}, time)
        wheel = folder / built.name
        wheel.write_bytes(built.read_bytes())
    return wheel, sdist


def main() -> None:
    """Build and print the wheel's path, or print the time of the files: ``--time``."""
    if sys.argv[1] == "--time":
        print(epoch(ROOT))
        return
    wheel, _ = build(ROOT, Path(sys.argv[1]))
    print(wheel)


if __name__ == "__main__":
    main()
