"""What a source fetches and serves: real repositories, real git."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.git.commit_objects import FILES_MAX
from controller.fetch.export import KEPT, CommitApproval
from controller.model.errors import SourceError
from tests.disk import small_disk
from tests.git.repository import DOCUMENT, GOOD, Followed, Repository, World, git


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.served(tmp_path)


def test_a_commit_is_exported_and_served(world: World) -> None:
    source = world.source
    assert source.current == world.first
    assert source.files() == {
        "configs/web/Chart.yaml": "name: web\n",
        "deploy/web.yaml": DOCUMENT,
    }
    status = source.memory.status
    assert status.current is not None
    assert (status.current.commit, status.current.author) == (
        world.first,
        "Alice <alice@example.org>",
    )
    assert (source.exports / world.first / "deploy" / "web.yaml").stat().st_mode & 0o777 == 0o640


def test_a_newer_commit_replaces_the_served_one(world: World) -> None:
    second = world.repository.commit({"deploy/web.yaml": DOCUMENT, "deploy/db.yaml": DOCUMENT})
    assert world.source.fetch() == "Ready"
    assert world.source.current == second
    assert sorted(world.source.files()) == ["deploy/db.yaml", "deploy/web.yaml"]


def test_nothing_new_changes_nothing(world: World) -> None:
    before = world.source.memory
    assert world.source.fetch() == "Ready"
    assert world.source.memory == before


def test_an_empty_commit_is_served_without_another_file(world: World) -> None:
    served = world.source.files()
    second = world.repository.commit(GOOD)
    assert world.source.fetch() == "Ready"
    assert world.source.current == second
    assert world.source.files() == served


def test_a_held_source_goes_on_with_a_newer_good_commit(world: World) -> None:
    world.repository.commit({})
    assert world.source.fetch() == "Held source.empty"
    third = world.repository.commit(GOOD)
    assert world.source.fetch() == "Ready"
    assert world.source.current == third
    assert world.source.memory.status.candidate is None


def approve(source: Followed, commit: str) -> str:
    source.memory = replace(source.memory, approval=CommitApproval(commit, "uid:0"))
    return source.fetch()


def test_an_approval_serves_exactly_the_held_commit(world: World) -> None:
    base = world.first
    world.first = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    assert world.source.fetch() == "Ready"
    other = world.repository.tree({**GOOD, "deploy/db.yaml": "a: 1\n"})
    world.repository.commit_tree(other, parents=(base,))
    assert world.source.fetch() == "Held source.rewritten"
    held = world.source.memory.status.candidate
    assert held is not None
    assert approve(world.source, world.first) == "Held source.rewritten"
    assert approve(world.source, held.commit) == "Ready"
    assert world.source.current == held.commit
    assert world.source.memory.status.approved_by == "uid:0"


def test_no_approval_serves_a_tree_that_cannot_be_exported(world: World) -> None:
    repository = world.repository
    link = repository.raw_tree([("120000", b"link.yaml", repository.blob("/etc/passwd"))])
    repository.commit_tree(repository.raw_tree([("40000", b"deploy", link)]))
    assert world.source.fetch() == "Held source.link"
    held = world.source.memory.status.candidate
    assert held is not None
    assert not world.source.memory.approvable
    assert approve(world.source, held.commit) == "Held source.link"


def test_a_first_commit_that_declares_nothing_is_not_served(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    repository.commit({"README.md": "x"})
    source = Followed(tmp_path / "fetcher", repository.url)
    assert source.fetch() == "Held source.empty"
    assert not (source.exports / "current").exists()


def test_a_repository_without_a_commit_is_no_empty_source(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    source = Followed(tmp_path / "fetcher", repository.url)
    assert source.fetch() == "Failing source.reference-missing"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ('{"tag": "v1.1.0"}', "v1.1.0"),
        ('{"semver": "1.x"}', "v1.10.0"),
        ('{"semver": ">=1.0.0 <1.5.0"}', "v1.1.0"),
        ('{"name": "refs/pull/7/head"}', "refs/pull/7/head"),
    ],
)
def test_references_are_followed(tmp_path: Path, reference: str, expected: str) -> None:
    repository = Repository(tmp_path / "deploy.git")
    for number, name in enumerate(("v1.1.0", "v1.10.0", "v2.0.0", "v1.11.0-rc.1", "other")):
        repository.commit({"deploy/web.yaml": f"a: {number}\n"})
        git(repository.folder, "tag", "-m", name, name, "main")
    repository.push(repository.commit({"deploy/web.yaml": "a: 9\n"}), "refs/pull/7/head")
    source = Followed(tmp_path / "fetcher", repository.url, git=f', "ref": {reference}')
    assert source.fetch() == "Ready"
    assert source.current == git(repository.folder, "rev-parse", f"{expected}^{{commit}}")


def test_a_fixed_commit_is_fetched_once_without_a_reference(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    source = Followed(tmp_path / "fetcher", repository.url, git=f', "ref": {{"commit": "{first}"}}')
    assert source.fetch() == "Ready"
    assert source.current == first
    shutil.rmtree(repository.folder)
    assert source.fetch() == "Ready"


def test_a_moved_tag_is_held_unless_it_moved_forward(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    second = repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    repository.push(second, "refs/tags/live")
    source = Followed(tmp_path / "fetcher", repository.url, git=', "ref": {"tag": "live"}')
    assert source.fetch() == "Ready"
    repository.push(first, "refs/tags/live")
    assert source.fetch() == "Held source.older"
    repository.push(repository.commit(GOOD), "refs/tags/live")
    assert source.fetch() == "Ready"


def test_another_folder_of_the_same_commit_is_exported_anew(world: World) -> None:
    world.repository.commit({**GOOD, "prod/db.yaml": DOCUMENT})
    world.source.fetch()
    world.source.path = "prod"
    assert world.source.fetch() == "Ready"
    assert sorted(world.source.files()) == ["configs/web/Chart.yaml", "prod/db.yaml"]
    world.source.path = "missing"
    assert world.source.fetch() == "Held source.empty"
    assert sorted(world.source.files()) == ["configs/web/Chart.yaml", "prod/db.yaml"]


def test_the_whole_tree_is_exported_for_the_folder_dot(world: World) -> None:
    world.source.path = "."
    assert world.source.fetch() == "Ready"
    assert sorted(world.source.files()) == sorted(GOOD)


def test_earlier_exports_are_removed(world: World) -> None:
    for number in range(KEPT + 4):
        world.repository.commit({"deploy/web.yaml": f"a: {number}\n"})
        assert world.source.fetch() == "Ready"
    folders = [path for path in world.source.exports.iterdir() if path.is_dir()]
    assert len({path.resolve() for path in folders}) == KEPT + 1
    assert world.source.files() == {"deploy/web.yaml": f"a: {KEPT + 3}\n"}


def test_the_bound_of_files_is_exact(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    blob = repository.blob(DOCUMENT)
    for count, expected in ((FILES_MAX, "deploy"), (FILES_MAX + 1, None)):
        entries = [("100644", f"{number:06}.yaml".encode(), blob) for number in range(count)]
        inside = repository.raw_tree(entries)
        repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))
        source = Followed(tmp_path / f"fetcher-{count}", repository.url)
        assert source.fetch() == ("Ready" if expected else "Held source.too-many-files")


def test_an_unwritable_folder_is_an_error(world: World) -> None:
    world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    shutil.rmtree(world.source.exports)
    world.source.exports.write_text("")
    with pytest.raises(SourceError, match="source"):
        world.source.source().run(world.source.spec, world.source.memory, save=lambda _: None)


@pytest.mark.needs_root
def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    with small_disk(tmp_path / "disk", image=tmp_path / "image") as disk:
        source = Followed(disk.root / "fetcher", repository.url)
        assert source.fetch() == "Ready"
        second = repository.commit({**GOOD, "deploy/db.yaml": os.urandom(500_000)})
        disk.leave(0)
        assert source.fetch() == "Failing source.disk-full"
        assert source.current == first
        assert sorted(source.files()) == ["configs/web/Chart.yaml", "deploy/web.yaml"]
        disk.free()
        disk.leave(250_000)  # and what root alone may use: enough for the fetch, not for the export
        assert source.fetch() == "Failing source.disk-full"
        assert source.current == first
        disk.free()
        assert source.fetch() == "Ready"
        assert source.current == second
