"""The exported folders of sources: blind unless the served commit was exported for the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.core.manifests.check_together import desired_from
from controller.model.desired.desired import Desired
from controller.model.errors import Conflict
from controller.sources.build_contexts import archive
from controller.sources.directory import DirectorySource
from controller.sources.fetched import FetchedSources, exported_root

COMMIT = "a" * 40
OWN = "apiVersion: trimtab/v1\nkind: Source\nmetadata: {name: team, owner: x}\n"
SPEC = "spec: {git: {url: 'https://example.org/x.git', path: deploy}, namespaces: [shop]}\n"
VOLUME = (
    "apiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: data, namespace: shop, owner: x}\n"
    "spec: {}\n"
)


def load(folder: Path) -> Desired:
    own = folder / "dir"
    own.mkdir()
    (own / "team.yaml").write_text(OWN + SPEC)
    reading = DirectorySource(own).read()
    sources = desired_from(reading).sources
    return FetchedSources(folder / "fetcher").combine(reading, sources, {})


def export(folder: Path, *, description: str | None) -> None:
    """Export the folder ``deploy/part`` alone, described so."""
    source = folder / "fetcher" / "sources" / "team"
    (source / COMMIT / "deploy" / "part").mkdir(parents=True)
    (source / COMMIT / "deploy" / "part" / "data.yaml").write_text(VOLUME)
    (source / "current").symlink_to(COMMIT)
    if description is not None:
        (source / f"{COMMIT}.json").write_text(description)


@pytest.mark.parametrize(
    "description", [None, "", "[]", "{}", '{"path": 1}', json.dumps({"path": "deploy/part"})]
)
def test_an_export_that_is_not_known_to_be_of_the_folder_is_blind(
    tmp_path: Path, description: str | None
) -> None:
    """An export of a folder below has a part of the documents alone."""
    export(tmp_path, description=description)
    desired = load(tmp_path)
    assert [(scope.name, scope.blind) for scope in desired.scopes] == [("", False), ("team", True)]
    assert [problem.code for problem in desired.problems] == ["source.pending"]


def test_a_context_of_a_source_is_archived_from_the_served_commit(tmp_path: Path) -> None:
    export(tmp_path, description=json.dumps({"path": "deploy"}))
    sources = tmp_path / "fetcher" / "sources"
    shop = sources / "team" / COMMIT / "deploy" / "shop"
    shop.mkdir()
    (shop / "compose.yaml").write_text("services: {web: {build: .}}\nx-trimtab: {owner: x}\n")
    (shop / "Dockerfile").write_text("FROM scratch\n")
    (web,) = load(tmp_path).services
    assert web.spec.build is not None
    assert web.spec.build.context == "team:shop"
    pieces = archive(lambda name: exported_root(sources / name), web.spec.build)
    assert b"FROM scratch\n" in b"".join(pieces)
    (sources / "team" / "current").unlink()
    with pytest.raises(Conflict):
        list(archive(lambda name: exported_root(sources / name), web.spec.build))


def test_an_export_of_the_folder_is_read(tmp_path: Path) -> None:
    export(tmp_path, description=json.dumps({"path": "deploy"}))
    desired = load(tmp_path)
    assert [volume.key.name for volume in desired.volumes] == ["data"]
    assert desired.whole
