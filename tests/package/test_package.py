"""A release: the same bytes in any folder, and all that a host needs in each of its files.

One file, since the process that runs it builds the release once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from controller.cli.main import cli
from controller.settings import FORMAT
from tests.memory import MEMORY, session_folder
from tests.package import debian_root
from tests.package.debian_root import Layer
from tests.package.releases import COMMIT_TIME_S, ROOT, Release, build
from tools import manual, release_pins, wheel

# A build takes half a minute of processor time, beside other tests.
pytestmark = pytest.mark.timeout(600)

Recorder = Callable[[str, object], None]

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
    needs = {each["ref"]: each.get("dependsOn", ()) for each in listed["dependencies"]}
    assert len(needs) == len(listed["components"]) + 1
    assert {ref for refs in needs.values() for ref in refs} == needs.keys() - {
        listed["metadata"]["component"]["bom-ref"]
    }
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


def test_wheel_package_and_sources_have_the_manual_pages(release: Release) -> None:
    pages = {f"{name}.1": text for name, text in manual.pages(COMMIT_TIME_S).items()}
    with zipfile.ZipFile(release.path(".whl")) as archive:
        in_wheel = {
            name.rpartition("/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if "/man1/" in name
        }
    with tarfile.open(release.path(".tar.gz")) as archive:
        in_sources = {name.rpartition("/")[2] for name in archive.getnames() if "/man/" in name}
    command = ("dpkg-deb", "--contents", str(release.path(".deb")))
    listed = subprocess.check_output(command, text=True)
    in_package = set(re.findall(r"/man1/(.+)\.gz$", listed, re.MULTILINE))
    assert (in_wheel, in_sources, in_package) == (pages, set(pages), set(pages))


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


# The Debian package.

#: Where the package has files, besides the folder of the program itself.
PLACES = (
    "/usr/bin/trimtab",
    "/usr/lib/systemd/system/trimtab",
    "/usr/lib/sysusers.d/trimtab.conf",
    "/usr/lib/tmpfiles.d/trimtab.conf",
    "/usr/lib/trimtab/",
    "/usr/share/bash-completion/completions/trimtab",
    "/usr/share/doc/trimtab/",
    "/usr/share/fish/vendor_completions.d/trimtab.fish",
    "/usr/share/lintian/overrides/trimtab",
    "/usr/share/man/man1/trimtab",
    "/usr/share/trimtab/",
    "/usr/share/zsh/vendor-completions/_trimtab",
)
#: What an installation writes besides: links of units that are enabled, users, and the notes of dpkg and debconf.
NOTES = (
    *("/etc/.pwd.lock", "/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow"),
    *("/etc/systemd/system/", "/run/systemd/", "/var/lib/systemd/"),
    *("/var/cache/debconf/", "/var/lib/dpkg/", "/var/log/dpkg.log"),
)
STATE = "/var/lib/trimtab"
#: What a host has besides the package.
MINE = {
    "/etc/trimtab/desired-state/web.yaml",
    "/etc/trimtab/policy.yaml",
    f"{STATE}/files/a",
    f"{STATE}/instance.json",
}
#: Above every version of today.
NEWER = "99:1"


def test_the_package_has_files_of_root_in_its_places_alone(
    release: Release, record_property: Recorder
) -> None:
    if release.is_borrowed:
        lines = ["no package index was reached: it has the packages of the tests' own environment"]
        record_property("the package", lines)
    packed = subprocess.run(
        ("dpkg-deb", "--fsys-tarfile", str(release.path(".deb"))), capture_output=True, check=True
    )
    listing = release.folder.parent / "listing.tar"
    listing.write_bytes(packed.stdout)
    with tarfile.open(listing) as tar:
        members = tar.getmembers()
    files = [member for member in members if not member.isdir()]
    assert [one.name for one in files if not one.name.removeprefix(".").startswith(PLACES)] == []
    assert {(one.uid, one.gid) for one in members} == {(0, 0)}
    programs = {one.name for one in files if one.isfile() and one.mode == 0o755}
    assert programs == {"./usr/lib/trimtab/bin/trimtab"}
    others = {one.mode for one in files if one.isfile() and one.name not in programs}
    assert (others, {one.mode for one in members if one.isdir()}) == ({0o644}, {0o755})


def test_lintian_finds_nothing(release: Release, record_property: Recorder) -> None:
    if shutil.which("lintian") is None:
        record_property(
            "the package", ["lintian left out: it isn't installed (apt-get install lintian)"]
        )
        return
    command = ("lintian", "--fail-on", "error,warning", str(release.path(".deb")))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_manual_pages_have_every_command_and_option() -> None:
    pages = manual.pages(COMMIT_TIME_S)
    root = click.Context(cli, info_name="trimtab")
    assert [*pages] == ["trimtab", *(f"trimtab-{one.info_name}" for one in manual.children(root))]
    overview = _shown(pages["trimtab"])
    for top in manual.children(root):
        assert f"trimtab-{top.info_name}(1)" in overview
        text = _shown(pages[f"trimtab-{top.info_name}"])
        for one in (top, *manual.below(top)):
            assert one.command_path in text
            for parameter in one.command.get_params(one):
                if isinstance(parameter, click.Option) and not parameter.hidden:
                    assert parameter.opts[-1] in text, one.command_path


def _shown(page: str) -> str:
    """Return a page as a terminal shows it, in one line; groff complains of nothing."""
    groff = ("groff", "-man", "-Tutf8", "-k", "-ww", "-rCHECKSTYLE=3", "-P-c")
    done = subprocess.run(
        groff, input=page, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert done.stderr == ""
    return re.sub(r"\s+", " ", re.sub(".\b", "", done.stdout))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory: a container's disk can be an overlay, which takes no overlay above it."""
    with session_folder() as found:
        if MEMORY is not None:
            yield found
            return
        subprocess.run(("mount", "-t", "tmpfs", "-o", "mode=755", "tests", str(found)), check=True)
        yield found
        subprocess.run(("umount", str(found)), check=True)


@pytest.fixture(scope="module")
def installed(release: Release, folder: Path) -> Layer:
    """A minimal Debian with the package in it."""
    package = release.path(".deb")
    depends = subprocess.check_output(("dpkg-deb", "-f", str(package), "Depends"), text=True)
    base = folder / "base"
    base.mkdir()
    debian_root.make(base, depends.strip())
    layer = Layer(str(base), folder / "installed")
    assert dpkg(layer, "--install", package) == ["preinst install", "postinst configure"]
    return layer


@pytest.fixture(scope="module")
def newer(release: Release, folder: Path) -> Path:
    """The same package with a higher version, whose policies are others."""
    tree, package = folder / "newer", folder / "newer.deb"
    subprocess.run(("dpkg-deb", "--raw-extract", str(release.path(".deb")), str(tree)), check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {NEWER}", control.read_text()))
    with (tree / "usr/share/trimtab/policies/home.yaml").open("a") as policy:
        policy.write("# newer\n")
    build = ("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(package))
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return package


@pytest.fixture
def host(installed: Layer, folder: Path) -> Iterator[Layer]:
    """The same, for one test, with a document, a changed policy and a state."""
    layer = installed.above(folder / "host")
    mine = {
        "/etc/trimtab/desired-state/web.yaml": DOCUMENT,
        "/etc/trimtab/policy.yaml": "# mine\n",
        f"{STATE}/files/a": "of a Config",
        f"{STATE}/instance.json": json.dumps({"format": FORMAT}),
    }
    assert set(mine) == MINE
    for path, text in mine.items():
        (layer.upper / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (layer.upper / path[1:]).write_text(text)
    yield layer
    shutil.rmtree(layer.folder)


def dpkg(layer: Layer, act: str, package: Path | None = None) -> list[str]:
    """Install, remove or purge, and return the scripts that dpkg ran, each with its first argument."""
    done = run_dpkg(layer, act, package)
    assert done.returncode == 0, done.stderr
    return scripts(done)


def run_dpkg(
    layer: Layer, act: str, package: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run dpkg, which tells each script that it runs."""
    if package is not None:
        (layer.upper / "root").mkdir(exist_ok=True)
        shutil.copy(package, layer.upper / "root" / "trimtab.deb")
    of = "/root/trimtab.deb" if package else "trimtab"
    done = layer.run("dpkg", "--debug=2", "--force-unsafe-io", act, of, check=False)
    (layer.upper / "root" / "trimtab.deb").unlink(missing_ok=True)
    return done


def scripts(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the scripts that dpkg ran, each with its first argument."""
    ran = re.findall(r"fork/exec \S+[./](\w+) \( ([\w-]+)", done.stderr)
    return [" ".join(script) for script in ran]


def version(layer: Layer) -> str:
    """Return the version and state that dpkg tells."""
    return layer.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "trimtab").stdout


def digests(layer: Layer) -> str:
    """Return the checksums of what is installed and what is kept of a host."""
    folders = "/usr/lib/trimtab /usr/share/trimtab /etc/trimtab " + STATE
    return layer.run("sh", "-c", f"find {folders} -type f | sort | xargs sha256sum").stdout


def enabled(layer: Layer) -> set[str]:
    """Return the links of units."""
    command = "find /etc/systemd/system -type l -printf '%P %l\\n'"
    return set(layer.run("sh", "-c", command).stdout.splitlines())


@pytest.mark.needs_root
def test_an_installation_needs_what_it_depends_on_alone(installed: Layer) -> None:
    assert installed.run("trimtab", "--version").stdout.startswith("trimtab ")
    installed.run("bash", "-n", "/usr/share/bash-completion/completions/trimtab")
    elsewhere = {
        path
        for path in installed.written()
        if not path.startswith((*PLACES, *NOTES, "/etc/trimtab/")) and "__pycache__" not in path
    }
    assert elsewhere == set()


@pytest.mark.needs_root
def test_systemd_finds_no_fault_in_an_installed_unit(installed: Layer) -> None:
    done = installed.run("sh", "-c", "systemd-analyze verify /usr/lib/systemd/system/trimtab*")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.needs_root
def test_folders_belong_to_whom_the_processes_are(installed: Layer) -> None:
    command = f"find /etc/trimtab {STATE} /run/trimtab -type d -printf '%p %m %u:%g\\n' | sort"
    assert installed.run("sh", "-c", command).stdout.splitlines() == [
        "/etc/trimtab 755 root:root",
        "/etc/trimtab/desired-state 755 root:root",
        "/run/trimtab 755 root:root",
        "/run/trimtab/metrics 755 trimtab:trimtab",
        "/run/trimtab/secrets 700 root:root",
        "/run/trimtab/web 755 trimtab-web:trimtab-web",
        f"{STATE} 755 root:root",
        f"{STATE}/feedback 2750 trimtab:trimtab-fetch",
        f"{STATE}/fetcher 2750 trimtab-fetch:trimtab",
        f"{STATE}/notify 700 trimtab-notify:trimtab-notify",
        f"{STATE}/page 700 trimtab-web:trimtab-web",
        f"{STATE}/run 750 root:trimtab",
        f"{STATE}/ship 700 trimtab-ship:trimtab-ship",
        f"{STATE}/web 2750 root:trimtab-web",
    ]


@pytest.mark.needs_root
def test_an_upgrade_replaces_the_program_and_keeps_what_is_yours(host: Layer, newer: Path) -> None:
    before, units = digests(host), enabled(host)
    ran = dpkg(host, "--install", newer)
    assert ran == ["prerm upgrade", "preinst upgrade", "postrm upgrade", "postinst configure"]
    assert version(host) == f"{NEWER} installed"
    changed = set(digests(host).splitlines()) ^ set(before.splitlines())
    assert {line.split()[1] for line in changed} == {"/usr/share/trimtab/policies/home.yaml"}
    assert enabled(host) == units


@pytest.mark.needs_root
def test_a_refused_downgrade_leaves_everything_as_it_was(
    host: Layer, newer: Path, release: Release
) -> None:
    dpkg(host, "--install", newer)
    state = {"written": FORMAT + 1, "readable": FORMAT + 1}
    (host.upper / STATE[1:] / "instance.json").write_text(json.dumps({"format": state}, indent=1))
    before, units = digests(host), enabled(host)
    done = run_dpkg(host, "--install", release.path(".deb"))
    assert done.returncode != 0
    assert "Nothing was changed" in done.stderr
    assert scripts(done) == [
        "prerm upgrade",
        "preinst upgrade",
        "postrm abort-upgrade",
        "postinst abort-upgrade",
    ]
    assert (version(host), digests(host), enabled(host)) == (f"{NEWER} installed", before, units)


@pytest.mark.needs_root
def test_a_removal_leaves_what_is_yours_and_a_return_finds_it(
    host: Layer, release: Release
) -> None:
    units = enabled(host)
    assert dpkg(host, "--remove") == ["prerm remove", "postrm remove"]
    assert version(host).endswith(" config-files")
    left = {path for path in host.written() if not path.startswith(NOTES)}
    assert left == MINE
    assert dpkg(host, "--install", release.path(".deb")) == [
        "preinst install",
        "postinst configure",
    ]
    assert enabled(host) == units
    assert (host.upper / "etc/trimtab/policy.yaml").read_text() == "# mine\n"


@pytest.mark.needs_root
def test_a_removal_names_what_does_not_start_after_a_reboot(host: Layer) -> None:
    mounts: list[object] = [{"slot": 1, "files": [{"target": "/etc/web"}]}]
    names = {"web": mounts, "plain": [{"slot": 1}], "b\x1b[2J": mounts, "api": mounts}
    rows = [
        {"kind": "Service", "namespace": "shop", "name": name, "slots": slots}
        for name, slots in names.items()
    ]
    folder = host.upper / STATE[1:] / "controller"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"resources": rows}))
    done = host.run("dpkg", "--remove", "trimtab")
    assert "these don't start after a reboot: shop/api, shop/web; to keep them" in done.stderr
    assert "trimtab release --all" in done.stderr


@pytest.mark.needs_root
def test_a_purge_leaves_documents_alone(host: Layer) -> None:
    assert dpkg(host, "--purge") == ["prerm remove", "postrm remove", "postrm purge"]
    remains = host.run(
        "sh", "-c", f"find /etc/trimtab {STATE} /run/trimtab /usr/lib/trimtab", check=False
    )
    assert remains.stdout.splitlines() == [
        "/etc/trimtab",
        "/etc/trimtab/desired-state",
        "/etc/trimtab/desired-state/web.yaml",
    ]
    assert enabled(host) == set()


@pytest.mark.needs_root
def test_a_purge_leaves_files_that_a_container_mounts(host: Layer) -> None:
    done = host.run(
        "sh", "-c", f"mkdir /mnt && mount --bind {STATE}/files /mnt && dpkg --purge trimtab"
    )
    assert f"containers mount {STATE}/files, so the folder stays" in done.stderr
    remains = host.run("find", STATE, "-type", "f").stdout.splitlines()
    assert remains == [f"{STATE}/files/a"]
