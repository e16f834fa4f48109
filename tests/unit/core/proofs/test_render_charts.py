"""Releases of a proven commit: rendered as the controller plans them, by the charts of the commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.proofs.render import RenderScope, render
from controller.model.names import NetworkNames
from tests.unit.core.proofs.test_render_compose import export, planned, requests

ROOT = Path(__file__).parents[4]
NAMES = NetworkNames()
Files = Mapping[str, bytes]


def validator() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the release of the project's own example, and its chart."""
    files = {"validator.yaml": (ROOT / "desired-state" / "validator.yaml").read_bytes()}
    top = ROOT / "configs"
    paths = [path for path in (top / "validator").rglob("*") if path.is_file()]
    return files, {str(path.relative_to(top)): path.read_bytes() for path in paths}


def rendered(files: Files, charts: Files, namespace: str) -> dict[str, Any]:
    return render(files, RenderScope("shop", (namespace,), NAMES, "deploy"), charts)


def shapes(made: Mapping[str, Any]) -> dict[str, str]:
    return {key: entry["shapes"][0][0] for key, entry in made["entries"].items()}


def plan_of(files: Files, charts: Files, folder: Path, namespace: str) -> dict[str, str]:
    """Return the shapes of the controller's creates for an exported commit."""
    export(charts, folder / "configs")
    desired = planned(export(files, folder / "deploy"), ComposeSettings(), namespace)
    made = rendered(files, charts, namespace)
    assert made["broken"] == sorted(str(key) for key in desired.blind_keys)
    assert made["blind"] == any(scope.blind for scope in desired.scopes if scope.name == "shop")
    creates, others = requests(desired, NAMES)
    assert others <= {shape for shapes in made["objects"].values() for shape in shapes}
    return creates


def test_a_release_is_rendered_as_the_controller_plans_it(tmp_path: Path) -> None:
    files, charts = validator()
    made = rendered(files, charts, "validators")
    assert shapes(made) == plan_of(files, charts, tmp_path, "validators")
    assert len(made["entries"]) == 3
    places = {entry["file"] for entry in made["entries"].values()}
    assert places <= {f"shop:../configs/{path}" for path in charts}


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("validator.yaml", b"cpus: 0.5", b"cpus: 0.75"),
        ("validator/values.yaml", b"hostPort: 19090", b"hostPort: 19091"),
        ("validator/templates/node.yaml", b"spec:", b"spec:\n  workingDir: /evil"),
    ],
)
def test_a_change_of_the_controllers_copy_is_another_request(
    tmp_path: Path, path: str, old: bytes, new: bytes
) -> None:
    files, charts = validator()
    made = rendered(files, charts, "validators")
    for copy in (files, charts):
        if path in copy:
            assert old in copy[path], copy[path].decode()
            copy[path] = copy[path].replace(old, new)
    export(charts, tmp_path / "configs")
    desired = planned(export(files, tmp_path / "deploy"), ComposeSettings(), "validators")
    creates, _ = requests(desired, NAMES)
    assert creates != shapes(made)


CHART = {
    "web/Chart.yaml": b"{apiVersion: trimtab/v1, name: web, version: '1'}",
    "web/values.yaml": b"tag: '1'",
    "web/values.schema.json": b'{"properties": {"tag": {"type": "string"}}}',
    "web/templates/all.yaml": b"""apiVersion: trimtab/v1
kind: Service
metadata: {name: {{ release.name | quote }}}
spec:
  image: {{ ("a:" ~ values.tag) | quote }}
  mounts: [{type: config, source: site, target: /etc/site}]
---
apiVersion: trimtab/v1
kind: Config
metadata: {name: site}
spec: {files: {conf: ../conf/site.conf}}
""",
    "web/templates/.hidden.yaml": b"nothing",
    "web/conf/site.conf": b"listen 80;",
}
RELEASE = b"""apiVersion: trimtab/v1
kind: Release
metadata: {name: front, namespace: shop, owner: ops}
spec: {chart: web, values: %s}
"""


@pytest.mark.parametrize(
    ("change", "values", "works"),
    [
        ({}, b"{tag: '2'}", True),
        ({}, b"{tag: 2}", False),
        ({"web/Chart.yaml": b"x: 1"}, b"{}", False),
        ({"web/Chart.yaml": None}, b"{}", False),
        ({"web/values.yaml": b"x" * (1 << 21)}, b"{}", False),
        ({"web/templates/broken.yaml": b"{% if %}"}, b"{}", False),
        ({"web/templates/empty.yaml": b"{{ values.gone }}"}, b"{}", False),
        ({"web/conf/site.conf": None}, b"{}", False),
        (dict.fromkeys(CHART), b"{}", False),
    ],
)
def test_charts_and_their_mistakes_are_those_of_the_exported_folder(
    tmp_path: Path, change: dict[str, bytes | None], values: bytes, works: bool
) -> None:
    charts = {path: data for path, data in {**CHART, **change}.items() if data is not None}
    files = {"release.yaml": RELEASE % values}
    made = rendered(files, charts, "shop")
    assert shapes(made) == plan_of(files, charts, tmp_path, "shop")
    assert bool(made["entries"]) == works
    assert bool(made["blind"] or made["broken"]) != works
