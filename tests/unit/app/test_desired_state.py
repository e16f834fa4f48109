"""DIR and its Git sources are one desired state, and a source without files is blind, never empty."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.app.desired_state import (
    MISSING_LOOKS,
    MISSING_S,
    DesiredFiles,
    directory_source,
)
from controller.core.git.commit_objects import TreeFile
from controller.core.git.reports import render_status
from controller.core.planning.deliveries import SecretFault, bind_secrets
from controller.fetch.export import ExportFolder
from controller.model.desired.desired import Desired
from controller.model.names import Key
from controller.model.sources import CommitInfo, SourceState, SourceStatus

COMMIT = "a" * 40
OTHER = "b" * 40


def service(
    name: str, *, namespace: str = "shop", owner: str = "team", image: str = "t/x:1"
) -> str:
    return (
        "apiVersion: trimtab/v1\nkind: Service\n"
        f"metadata: {{name: {name}, namespace: {namespace}, owner: {owner}}}\n"
        f"spec: {{image: '{image}'}}\n"
    )


def source(name: str, *, namespaces: str = "shop", path: str = "deploy", more: str = "") -> str:
    return (
        f"apiVersion: trimtab/v1\nkind: Source\nmetadata: {{name: {name}, owner: team}}\n"
        f"spec: {{git: {{url: 'https://example.org/x.git', path: {path}}},"
        f" namespaces: [{namespaces}]{more}}}\n"
    )


class World:
    """A DIR and a fetcher's folder."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "desired"
        self.directory.mkdir()
        self.fetcher = place / "fetcher"
        self.serving: dict[Key, str] = {}
        self._files = DesiredFiles(
            directory_source(self.directory), self.fetcher, lambda: self.serving
        )

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def export(
        self, name: str, files: dict[str, str], commit: str = COMMIT, *, path: str = "deploy"
    ) -> None:
        folder = self.fetcher / "sources" / name
        for file, text in files.items():
            exported = folder / commit / file
            exported.parent.mkdir(parents=True, exist_ok=True)
            exported.write_text(text)
        (folder / f"{commit}.json").write_text(json.dumps({"version": 1, "path": path}))
        link = folder / "new"
        link.symlink_to(commit)
        link.rename(folder / "current")

    def load(self) -> Desired:
        return self._files.load()

    def marks(self) -> tuple[Path, ...]:
        return self._files.marks()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def codes(desired: Desired) -> list[str]:
    return [f"{p.file}:{p.line} {p.code}" for p in desired.problems]


def test_a_source_adds_the_services_of_its_commit(world: World) -> None:
    world.write("team.yaml", source("team"))
    world.write("own.yaml", service("own", namespace="default"))
    world.export("team", {"deploy/web.yaml": service("web"), "README.yaml": "no: document\n"})
    desired = world.load()
    places = [
        (s.key.name, s.source.file, s.source.commit, s.source.origin) for s in desired.services
    ]
    assert places == [
        ("own", "own.yaml", "", ""),
        ("web", "team:web.yaml", COMMIT, "team"),
    ]
    assert (desired.problems, desired.blind, desired.whole) == ((), False, True)


def test_a_new_commit_takes_the_place_of_the_old_one(world: World) -> None:
    world.write("team.yaml", source("team", path="."))
    world.export("team", {"web.yaml": service("web")}, path=".")
    assert [s.source.commit for s in world.load().services] == [COMMIT]
    world.export("team", {"web.yaml": service("web", image="t/x:2")}, commit=OTHER, path=".")
    assert [(s.source.commit, s.spec.image) for s in world.load().services] == [(OTHER, "t/x:2")]


def test_a_chart_of_a_source_is_that_beside_its_folder(world: World) -> None:
    world.write("team.yaml", source("team", path="prod/docs"))
    release = (
        "apiVersion: trimtab/v1\nkind: Release\n"
        "metadata: {name: r, namespace: shop, owner: team}\nspec: {chart: web}\n"
    )
    chart = {
        "Chart.yaml": "apiVersion: trimtab/v1\nname: web\nversion: '1'\n",
        "values.yaml": "{}\n",
        "templates/web.yaml": service("web"),
    }
    files = {f"prod/configs/web/{name}": text for name, text in chart.items()}
    world.export("team", {**files, "prod/docs/r.yaml": release}, path="prod/docs")
    desired = world.load()
    assert desired.problems == ()
    (web,) = desired.services
    assert (web.source.file, web.source.commit, web.source.origin) == (
        *("team:configs/web/templates/web.yaml", COMMIT, "team"),
    )


def test_an_export_of_another_folder_is_not_read(world: World) -> None:
    world.write("team.yaml", source("team", path="."))
    world.export("team", {"deploy/web.yaml": service("web")})
    about = world.fetcher / "sources" / "team" / f"{COMMIT}.json"
    about.write_text('{"version": 1, "path": "deploy"}')
    desired = world.load()
    assert [p.code for p in desired.problems] == ["source.pending"]
    assert desired.is_blind_for(Key("Service", "shop", "web"))
    about.write_text('{"version": 1, "path": "."}')
    assert [s.key.name for s in world.load().services] == ["web"]


def _no_link(folder: Path) -> None:
    (folder / "current").unlink()


def _foreign_link(folder: Path) -> None:
    (folder / "current").unlink()
    (folder / "current").symlink_to("../../..")


def _no_folder(folder: Path) -> None:
    (folder / COMMIT).rename(folder / "away")


def _linked_folder(folder: Path) -> None:
    (folder / COMMIT).rename(folder / "away")
    (folder / COMMIT).symlink_to("away")


def _linked_path(folder: Path) -> None:
    (folder / COMMIT / "deploy" / "web.yaml").unlink()
    (folder / COMMIT / "deploy").rmdir()
    (folder / COMMIT / "deploy").symlink_to("/")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_no_link, "source.pending"),
        (_foreign_link, "source.unreadable"),
        (_no_folder, "source.missing"),
        (_linked_folder, "source.unreadable"),
        (_linked_path, "source.unreadable"),
    ],
)
def test_a_source_without_a_usable_commit_is_blind_for_its_namespaces_alone(
    world: World, damage, code: str
) -> None:
    world.write("team.yaml", source("team"))
    world.write("own.yaml", service("own", namespace="default"))
    world.export("team", {"deploy/web.yaml": service("web")})
    damage(world.fetcher / "sources" / "team")
    desired = world.load()
    assert [p.code for p in desired.problems] == [code]
    assert desired.valid == (code == "source.pending")
    assert [s.key.name for s in desired.services] == ["own"]
    assert desired.is_blind_for(Key("Service", "shop", "web"))
    assert not desired.is_blind_for(Key("Service", "default", "gone"))
    assert (desired.blind, desired.whole) == (True, False)


@pytest.mark.slow
def test_without_sources_nothing_of_them_is_imported(tmp_path: Path) -> None:
    """A controller without sources reads DIR by the code of a plain directory."""
    (tmp_path / "web.yaml").write_text(service("web"))
    code = (
        "import sys; from pathlib import Path; import controller.app.controller\n"
        "from controller.app.desired_state import *; from controller.settings import StateFolder\n"
        f"place = Path({str(tmp_path)!r})\n"
        "found = DesiredFiles(directory_source(place), place / 'fetcher', dict).load()\n"
        "assert found == directory_source(place).load() and len(found.services) == 1\n"
        "state = StateFolder(place, place)\n"
        "controller.app.controller.CommitFiles(state, print).publish(found, {'resources': []})\n"
        "names = ('source_document', 'commit_files', 'commit_outcomes', 'core.git.feedback',"
        " 'source_spec', 'combine', 'fetched', 'model.sources',"
        " 'core.git', 'controller.fetch')\n"
        "print(sorted(m for m in sys.modules for n in names if m.startswith('controller')"
        " and m.endswith(n)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout == "[]\n"


def test_the_fetchers_report_is_shown_and_a_damaged_one_is_ignored(world: World) -> None:
    world.write("team.yaml", source("team"))
    world.export("team", {"deploy/web.yaml": service("web")})
    status = SourceStatus("team", SourceState.READY, "https://example.org/x.git", "branch main")
    file = world.fetcher / "status.json"
    file.write_bytes(render_status([status]))
    assert [each.report for each in world.load().sources] == [status]
    for damaged in (b"", b"[]", b"\xff", b'{"version": 1, "sources": [{}]}', b" " * (2 << 20)):
        file.write_bytes(damaged)
        desired = world.load()
        assert [each.report for each in desired.sources] == [None]
        assert [s.key.name for s in desired.services] == ["web"]
    file.unlink()
    os.mkfifo(file)
    assert [each.report for each in world.load().sources] == [None]


def test_what_the_fetcher_exports_is_read(world: World) -> None:
    world.write("team.yaml", source("team"))
    exports = ExportFolder(world.fetcher / "sources" / "team")
    exports.prepare()
    content = service("web").encode()
    file = TreeFile("deploy/web.yaml", "0" * 40, len(content))
    for commit in (COMMIT, OTHER):
        exports.write(CommitInfo(commit), [(file, content)], path="deploy")
        exports.serve(commit)
        desired = world.load()
        assert desired.problems == ()
        assert [(s.key.name, s.source.commit) for s in desired.services] == [("web", commit)]


def test_a_missing_file_of_a_secret_is_looked_for_again_soon_for_some_time(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(
        "apiVersion: trimtab/v1\nkind: Secret\n"
        "metadata: {name: pw, namespace: shop, owner: team}\nspec: {file: {pw: pw}}\n"
    )
    answers: dict[str, str | SecretFault] = {
        "pw": SecretFault("secret.file-missing", "no file", "")
    }
    asked: list[float] = []

    def bind(desired: Desired) -> Desired:
        return bind_secrets(desired, {each.key: answers["pw"] for each in desired.secrets})

    files = DesiredFiles(
        directory_source(tmp_path), tmp_path / "fetcher", dict, bind, read_again=asked.append
    )
    for _ in range(MISSING_LOOKS + 5):
        files.load()
    assert asked == [MISSING_S] * MISSING_LOOKS
    answers["pw"] = "sha256:" + "0" * 64
    assert files.load().problems == ()
    answers["pw"] = SecretFault("secret.file-missing", "no file", "")
    files.load()
    assert len(asked) == MISSING_LOOKS + 1


def test_a_git_source_mounts_no_folder_of_the_directory(world: World) -> None:
    world.write("team.yaml", source("team"))
    mounts = f"mounts: [{{type: bind, source: {world.directory}/x, target: /x, readOnly: true}}]"
    text = service("web").replace("'}", f"', {mounts}}}")
    world.export("team", {"deploy/web.yaml": text})
    desired = world.load()
    assert [s.key.name for s in desired.services] == []
    assert [code.split()[1] for code in codes(desired)] == ["source.folder"]


def test_the_files_and_keys_of_secrets_on_the_host_are_watched(tmp_path: Path) -> None:
    world = World(tmp_path)
    head = (
        "apiVersion: trimtab/v1\nkind: Secret\nmetadata: {name: %s, namespace: shop, owner: team}\n"
    )
    for name, spec in {
        "a": "{file: {user: login/user, password: login/password}}",
        "b": "{age: {pw: '-----BEGIN AGE ENCRYPTED FILE-----'}}",
        "c": "{generate: {pw: {}}}",
    }.items():
        world.write(f"{name}.yaml", f"{head % name}spec: {spec}\n")
    world.load()
    assert world.marks() == (
        Path("/etc/trimtab/keys/shop.age"),
        Path("/etc/trimtab/secrets/shop/login/password"),
        Path("/etc/trimtab/secrets/shop/login/user"),
    )
