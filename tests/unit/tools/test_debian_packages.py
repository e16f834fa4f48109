"""Layers of Debian packages, from a repository of our own that apt reads from a folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tools.debian_packages import Cache, Packages, closure
from tools.dockerd import EngineError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


class Repository:
    """A folder with packages, and the apt configuration that reads only them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.stanzas: list[str] = []
        for name in ("debs", "lists/partial", "archives/partial", "parts"):
            (folder / name).mkdir(parents=True)
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": folder / "parts",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache::archives": folder / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
        }
        (folder / "apt.conf").write_text(
            "".join(f'{name} "{value}";\n' for name, value in settings.items())
        )
        (folder / "sources.list").write_text(f"deb [trusted=yes] file:{folder}/debs ./\n")
        monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))

    def add(self, name: str, files: dict[str, str], *, depends: str = "") -> None:
        """Make a package with these files; `publish` tells apt of it."""
        tree = self.folder / "trees" / name
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: tests\n"
        control += f"Depends: {depends}\n" * bool(depends) + "Description: a test\n"
        (tree / "DEBIAN" / "control").write_text(control)
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        deb = self.folder / "debs" / f"{name}_1_all.deb"
        build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)]
        subprocess.run(build, check=True, capture_output=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        size = deb.stat().st_size
        self.stanzas.append(f"{control}Filename: ./{deb.name}\nSize: {size}\nSHA256: {digest}\n")

    def publish(self) -> None:
        """Tell apt of all packages."""
        (self.folder / "debs" / "Packages").write_text("\n".join(self.stanzas))
        subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)
        closure.cache_clear()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path / "repository", monkeypatch)
    made.add("lib", {"usr/lib/lib.so": "lib", "usr/share/doc/lib/copyright": "text"})
    made.add("app", {"sbin/app": "app", "etc/app.conf": "x"}, depends="lib, perl-base")
    made.add("perl-base", {"usr/bin/perl": "perl"})
    made.publish()
    return made


APP = Packages(("app",))


def contents(cache: Cache, packages: Packages = APP) -> dict[str, str]:
    source = cache.layer(packages).source
    assert isinstance(source, Path)
    with tarfile.open(source) as tar:
        return {
            each.name: tar.extractfile(each).read().decode()  # type: ignore[union-attr]
            for each in tar
            if each.isreg()
        }


EXPECTED = {"usr/sbin/app": "app", "etc/app.conf": "x", "usr/lib/lib.so": "lib"}


def test_a_package_that_apt_keeps_from_an_installation_is_in_the_layer(
    repository: Repository, tmp_path: Path
) -> None:
    """apt names no address for a file that its archive has, as on a machine made by debootstrap."""
    deb = repository.folder / "debs" / "lib_1_all.deb"
    (repository.folder / "archives" / deb.name).write_bytes(deb.read_bytes())
    assert contents(Cache(tmp_path / "cache"))["usr/lib/lib.so"] == "lib"


def test_a_layer_has_the_packages_files_on_a_merged_usr_and_no_documentation(
    repository: Repository, tmp_path: Path
) -> None:
    """What is needed only for an installation (perl) isn't in it either."""
    assert contents(Cache(tmp_path / "cache")) == EXPECTED


def test_packages_of_the_layer_below_are_not_in_it_again(
    repository: Repository, tmp_path: Path
) -> None:
    above = Packages(("app",), below=Packages(("lib",)))
    assert contents(Cache(tmp_path / "cache"), above).keys() == {"usr/sbin/app", "etc/app.conf"}


def test_what_is_in_the_cache_is_used_without_asking_apt(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    cache.layer(APP)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert contents(cache) == EXPECTED


def test_a_package_that_was_lost_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.layer(APP)
    for path in (*cache.folder.glob("packages/lib_*"), *cache.folder.glob("layers/*")):
        path.unlink()
    assert contents(cache) == EXPECTED


def test_a_run_that_was_killed_leaves_nothing_that_counts(
    repository: Repository, tmp_path: Path
) -> None:
    """Half a package and half a layer lie under other names than whole ones."""
    cache = Cache(tmp_path / "cache")
    cache.layer(APP)
    (layer,) = cache.folder.glob("layers/*.tar")
    half = layer.read_bytes()[:100]
    layer.rename(layer.with_name(f".{layer.name}.1"))
    layer.with_name(f".{layer.name}.1").write_bytes(half)
    (cache.folder / "new-killed").mkdir()
    (cache.folder / "new-killed" / "app_1_all.deb").write_bytes(b"!<arch>")
    assert contents(cache) == EXPECTED


def test_several_processes_may_ask_at_once(repository: Repository, tmp_path: Path) -> None:
    ask = (
        "import sys; from pathlib import Path;"
        "from tools.debian_packages import Cache, Packages;"
        "print(Cache(Path(sys.argv[1])).layer(Packages(('app',))).digest)"
    )
    argv = [sys.executable, "-c", ask, str(tmp_path / "cache")]
    running = [
        subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = {process.communicate()[0] for process in running}
    assert said == {f"{Cache(tmp_path / 'cache').layer(APP).digest}\n"}


def test_a_package_that_nobody_has_is_named(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Unable to locate package nosuch"):
        Cache(tmp_path / "cache").layer(Packages(("nosuch",)))


@pytest.mark.needs_root
def test_a_folder_of_somebody_else_is_not_used(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 1234, 1234)
    with pytest.raises(EngineError, match="belongs to uid 1234"):
        Cache(tmp_path / "cache").layer(APP)
