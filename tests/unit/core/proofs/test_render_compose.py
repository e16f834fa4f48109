"""Compose projects of a proven commit: rendered as the controller plans them from the exported folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.core.compose.project import FileUnreadable
from controller.core.compose.translation.scope import ComposeSettings, settings_of
from controller.core.encoding.json_values import digest
from controller.core.engine_api import create_body, translate
from controller.core.manifests.combine import SourceReading, combine, source_key
from controller.core.manifests.declaration import FolderReading
from controller.core.planning.deliveries import bind_secrets
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.proofs.documents import ProvenFiles
from controller.core.proofs.proven_commit import ProvenCommit
from controller.core.proofs.render import RenderScope, render
from controller.core.proofs.rendering import Rendering, every_key, shape_of, shape_of_create
from controller.model.desired.desired import Desired, GitSource, SourceIdentity, SourceLocation
from controller.model.desired.plan import CreateNetwork, CreateVolume, DeliverFiles
from controller.model.desired.source_spec import SourceSpec
from controller.model.names import NetworkNames
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from controller.sources.compose_projects import look_up, read_file
from controller.sources.directory import DirectorySource, Export
from tests.rendering import in_process

STACKS = Path(__file__).parents[3] / "e2e" / "stacks"
NAMES = sorted(path.name for path in STACKS.iterdir())
SETTINGS = (
    ComposeSettings(),
    settings_of(Policy.from_json({"name": "d", "profile": "development"})),
)
Files = Mapping[str, bytes]


def stack(name: str, place: str = "") -> dict[str, bytes]:
    """Return the files of a stack, below the folder *place*."""
    top = STACKS / name
    paths = [path for path in top.rglob("*") if path.is_file()]
    return {f"{place}{path.relative_to(top)}": path.read_bytes() for path in paths}


def export(files: Files, folder: Path) -> Path:
    """Write files as the fetcher exports them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o640)
    return folder


def planned(folder: Path, settings: ComposeSettings, *namespaces: str) -> Desired:
    """Return the desired state as the controller reads an exported folder."""
    charts = folder.parent / "configs"
    export = Export("shop", "c" * 40)
    source = DirectorySource(
        folder, charts=charts, export=export, compose=lambda: settings, begin_reading=in_process
    )
    git = {"url": "file:///x", "ref": {"branch": "main"}}
    spec = {"git": git, "namespaces": list(namespaces)}
    declared = GitSource(
        source_key("shop"),
        "ops",
        SourceSpec.model_validate_json(json.dumps(spec)),
        SourceLocation(""),
    )
    others = FolderReading((), SourceIdentity("DIR", present=True), absent=True)
    return combine(others, [SourceReading(declared, source.read())], {})


def requests(
    desired: Desired, names: NetworkNames, without: Iterable[str] = ()
) -> tuple[dict[str, str], set[str]]:
    """Return the shapes of the controller's creates, and of its other requests."""
    made = Prerequisites(desired, Observed("shop"), names)
    creates: dict[str, str] = {}
    others: set[str] = set()
    for each in desired.workloads:
        if str(each.key) in without:
            continue
        is_job = each.key.kind == "Job"
        body = create_body.create_body(
            each,
            slot=1,
            image=each.spec.image,
            networks=names,
            with_alias=not is_job,
            occasion="change" if is_job else "",
        )
        shape = shape_of_create(json.loads(json.dumps(body)))
        assert shape is not None
        creates[str(each.key)] = shape.shape
        for action in made.missing(each, creating=True):
            match action:
                case CreateNetwork():
                    others.add(str(shape_of(translate.network_body(action))))
                case CreateVolume():
                    others.add(str(shape_of(translate.volume_body(action))))
                case DeliverFiles():
                    others.add(str(shape_of(translate.files_body(action))))
                case _:
                    pass
    return creates, others


def rendered(
    files: Files,
    settings: ComposeSettings,
    *namespaces: str,
    contents: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    scope = RenderScope("shop", namespaces, NetworkNames(), "deploy", settings)
    return render(files, scope, contents=contents)


def check(files: Files, folder: Path, settings: ComposeSettings, namespace: str) -> dict[str, Any]:
    """Compare the rendering of files with the controller's plan of the exported files."""
    declared = planned(export(files, folder / "deploy"), settings, namespace)
    contents = {each.key: f"hmac:{digest(str(each.key))}" for each in declared.secrets}
    desired = bind_secrets(declared, contents)
    opened = {str(key): content for key, content in contents.items()}
    made = rendered(files, settings, namespace, contents=opened)
    creates, others = requests(desired, NetworkNames(), made["unsupported"])
    assert {key: entry["shapes"][0][0] for key, entry in made["entries"].items()} == creates
    assert others <= {shape for shapes in made["objects"].values() for shape in shapes}
    unread = (f"*/{each}/*" for each in desired.blind_namespaces)
    assert made["broken"] == sorted([*map(str, desired.blind_keys), *unread])
    assert made["blind"] == any(scope.blind for scope in desired.scopes if scope.name == "shop")
    return made


@pytest.mark.parametrize("settings", SETTINGS, ids=("strict", "development"))
@pytest.mark.parametrize("name", NAMES)
def test_a_project_is_rendered_as_the_controller_plans_it(
    tmp_path: Path, name: str, settings: ComposeSettings
) -> None:
    made = check(stack(name, f"{name}/"), tmp_path, settings, name)
    assert made["entries"]
    assert made["unsupported"] == {}


@pytest.mark.parametrize("name", ["blog", "vault"])
def test_a_service_with_an_unopened_secret_is_refused_by_name(name: str) -> None:
    made = rendered(stack(name, f"{name}/"), ComposeSettings(), name)
    assert all(why.endswith(" can't be opened") for why in made["unsupported"].values())
    assert made["unsupported"]
    assert made["entries"]
    assert made["secrets"]


def test_a_project_in_the_folder_itself_has_the_folders_name(tmp_path: Path) -> None:
    made = check({"compose.yaml": b"services: {web: {image: a}}"}, tmp_path, SETTINGS[0], "deploy")
    assert [*made["entries"]] == ["Service/deploy/web"]


PARTS = {
    "a/compose.yaml": b"name: shop\ninclude: [{path: ../b/compose.yaml}]\n"
    b"services: {web: {image: 'a:${TAG}', volumes: ['./p.yml:/p.yml:ro', './d:/d:ro']}}\n",
    "a/.env": b"TAG=1\n",
    "a/p.yml": b"scrape: [1]\n",
    "a/d/z": b"z",
    "a/d/e/y.yaml": b"y: 1\n",
    "a/d/b/x": b"x",
    "b/compose.yaml": b"services: {db: {image: 'b:${OTHER:-2}', env_file: db.env}}\n",
    "b/db.env": b"MODE=plain\n",
    "b/compose-unused.yaml": b"services: {}\n",
    "service.yaml": b"apiVersion: trimtab/v1\nkind: Service\n"
    b"metadata: {name: own, namespace: shop, owner: ops}\nspec: {image: c}\n",
}


def test_parts_of_a_project_are_no_documents(tmp_path: Path) -> None:
    made = check(PARTS, tmp_path, SETTINGS[1], "shop")
    assert [*made["entries"]] == ["Service/shop/db", "Service/shop/own", "Service/shop/web"]
    assert not made["blind"]


@pytest.mark.parametrize("path", ["a/.env", "a/p.yml", "a/d/b/x", "b/db.env", "b/compose.yaml"])
def test_every_input_of_a_project_is_bound(tmp_path: Path, path: str) -> None:
    """A controller that reads another file plans requests that the commit doesn't declare."""
    changed = {**PARTS, path: PARTS[path].replace(b"1", b"9").replace(b"2", b"8") + b"\nX=1\n"}
    if path == "b/compose.yaml":
        changed[path] = PARTS[path].replace(b"env_file: db.env", b"command: evil")
    honest = rendered(PARTS, SETTINGS[1], "shop")
    desired = planned(export(changed, tmp_path / "deploy"), SETTINGS[1], "shop")
    creates, _ = requests(desired, NetworkNames())
    differing = [
        k for k, entry in honest["entries"].items() if creates.get(k) != entry["shapes"][0][0]
    ]
    assert differing == ["Service/shop/db" if path.startswith("b/") else "Service/shop/web"]


@pytest.mark.parametrize(
    "text",
    [
        b"services: {web: {image: 'a:${GONE:?name a tag}'}}",
        b"services: {web: {image: a, env_file: ../../etc/passwd}}",
        b"services: {web: {image: a, env_file: compose.yaml/x}}",
        b"services: {web: {image: a, env_file: {path: ., required: false}}}",
        b"services: {web: {image: a, volumes: ['../deploy/x:/x:ro', './gone:/g:ro', '../..:/r:ro']}}",
        b"include: [compose.yaml]\nservices: {}",
        b"services: {web: {image: a, unknown: true}, db: {image: b}}",
        b"services: [",
        b"",
    ],
)
def test_a_project_with_a_mistake_is_rendered_as_the_controller_reads_it(
    tmp_path: Path, text: bytes
) -> None:
    check({"p/compose.yaml": text, "x": b"x", "shared/f": b"f"}, tmp_path, SETTINGS[1], "p")


def test_proven_files_answer_as_the_exported_folder(tmp_path: Path) -> None:
    files = {
        "a/b/c.txt": b"c",
        "a/.env": b"e",
        "a/b.d/x": b"x",
        "a/b/0/y": b"y",
        "big": b"x" * (1 << 21),
    }
    top = str(export(files, tmp_path / "deploy").resolve())
    proven = ProvenFiles(files, "deploy")
    paths = ("a", "a/b", "a/b/c.txt", "./a/.env", ".", "..", "../deploy/a", "../x", "gone", "big")
    for path in (
        *paths,
        "a/b/c.txt/d",
        "a/.git/x",
        "/a/.env",
        "n" * 300,
        "a/../../deploy/a/b/c.txt",
    ):
        assert proven.look(path) == look_up(top, path), path
        assert _read(lambda p: read_file(top, p), path) == _read(proven.read, path), path


def _read(read: Any, path: str) -> object:
    try:
        return read(path)
    except FileUnreadable as error:
        return type(error)


def test_a_broken_project_possibly_declares_what_is_of_its_namespace() -> None:
    made = rendered({"p/compose.yaml": b"services: ["}, ComposeSettings(), "p", "q")
    assert (made["broken"], made["blind"]) == ([every_key("p")], False)
    proven = ProvenCommit("shop", "c" * 40, "ann", "SHA256:x")
    rendering = Rendering(proven, {}, {}, broken=frozenset(made["broken"]))
    keys = ("Service/p/web", "Job/p/j", "Service/q/web")
    assert [rendering.may_declare(key) for key in keys] == [True, True, False]
