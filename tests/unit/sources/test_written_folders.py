"""Folders that containers write to: nothing in them declares what runs, now or later."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from controller.core.compose.translation.scope import ComposeSettings
from controller.model.desired.desired import Desired
from controller.model.desired.spec.mounts import BindMount
from controller.model.names import Key
from controller.sources.directory import DirectorySource
from controller.sources.source_scan import SourceScan
from controller.sources.watch import scope_of
from controller.sources.written_folders import WRITTEN_FOLDERS, WrittenFolders

SHOP = "services: {web: {image: 'nginx:1.27', volumes: ['./data:/data']}}\n"
EVIL = (
    "apiVersion: trimtab/v1\nkind: Service\n"
    "metadata: {name: evil, owner: team}\nspec: {image: 'team/evil:1'}\n"
)
SOURCE = "apiVersion: trimtab/v1\nkind: Source\nmetadata: {name: evil}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "stacks"
    path.mkdir()
    write(path, {"shop/compose.yaml": SHOP, "shop/data/x": "", "other/compose.yaml": SHOP[:-29]})
    (path / "other/compose.yaml").write_text("services: {api: {image: 'nginx:1.27'}}\n")
    return path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def source(root: Path, state: Path | None = None) -> DirectorySource:
    """Return the source of a new process, which remembers in *state*."""
    written = WrittenFolders(state / WRITTEN_FOLDERS) if state else None
    settings = ComposeSettings(directory=str(root))
    return DirectorySource(root, compose=lambda: settings, written=written)


def seen(desired: Desired) -> tuple[str, list[str], bool]:
    names = " ".join(f"{each.key.namespace}/{each.key.name}" for each in desired.workloads)
    problems = [p for p in desired.problems if p.code != "mount.writable"]
    return names, [f"{p.severity.value} {p.file} {p.code}" for p in problems], desired.blind


GOOD: tuple[str, list[str], bool] = ("other/api shop/web", [], False)


def test_a_container_declares_nothing_in_a_folder_that_it_writes_to(root: Path) -> None:
    files = source(root)
    assert seen(files.load()) == GOOD
    (mount,) = files.load().services[1].spec.mounts
    assert isinstance(mount, BindMount)
    assert mount.source == f"{root}/shop/data"
    evil = {
        "shop/data/evil.yaml": EVIL,
        "shop/data/deep/compose.yaml": SHOP,
        "shop/data/source.yaml": SOURCE,
        "shop/data/broken.yaml": "a: [",
    }
    write(root, evil)
    assert seen(files.load()) == GOOD
    # A folder that trimtab can't read, as the data of a database.
    shutil.rmtree(root / "shop/data/deep")
    os.mkfifo(root / "shop/data/pipe.yaml")
    assert seen(files.load()) == GOOD


def test_a_folder_stays_closed_when_its_mount_is_gone_until_it_is_removed(
    root: Path, tmp_path: Path
) -> None:
    assert seen(source(root, tmp_path).load()) == GOOD
    write(root, {"shop/data/evil.yaml": EVIL, "shop/data/compose.yaml": SHOP})
    write(
        root,
        {"shop/compose.yaml": SHOP.replace("./data:/data", "data:/data") + "volumes: {data: {}}\n"},
    )
    warned = ["warning shop/data/compose.yaml source.written"]
    for _ in range(2):
        assert seen(source(root, tmp_path).load()) == ("other/api shop/web", warned, False)
    (root / "shop/compose.yaml").rename(root / "shop/compose.off")
    assert seen(source(root, tmp_path).load()) == ("other/api", warned, False)
    shutil.rmtree(root / "shop/data")
    assert seen(source(root, tmp_path).load()) == ("other/api", [], False)
    write(root, {"shop/data/mine.yaml": EVIL})
    assert seen(source(root, tmp_path).load()) == ("default/evil other/api", [], False)


def test_while_its_project_is_broken_a_folder_stays_closed(root: Path, tmp_path: Path) -> None:
    source(root, tmp_path).load()
    write(root, {"shop/data/evil.yaml": EVIL, "shop/compose.yaml": "services: ["})
    names, problems, _ = seen(source(root, tmp_path).load())
    assert names == "other/api"
    assert "warning shop/data/evil.yaml source.written" in problems


def test_a_folder_with_documents_is_a_problem_that_prunes_nothing(root: Path) -> None:
    files = source(root)
    mounts = SHOP.replace("./data", "../other")
    write(root, {"shop/compose.yaml": mounts})
    for _ in range(2):
        assert seen(files.load()) == (
            "shop/web",
            ["error other/compose.yaml source.written"],
            True,
        )
    write(root, {"shop/compose.yaml": SHOP})
    assert seen(files.load()) == GOOD


def test_a_document_with_a_writable_folder_of_the_directory_closes_it_too(root: Path) -> None:
    files = source(root)
    mount = f"mounts: [{{type: bind, source: {root}/drop, target: /d}}]"
    write(root, {"drop/x": "", "drop.yaml": EVIL.replace("'}", f"', {mount}}}")})
    files.load()
    write(root, {"drop/more.yaml": EVIL.replace("evil", "more")})
    assert seen(files.load()) == ("default/evil other/api shop/web", [], False)


def test_nothing_is_read_through_a_link_or_a_name_into_a_closed_folder(root: Path) -> None:
    files = source(root)
    files.load()
    write(root, {"shop/data/evil.yaml": EVIL, "shop/data/.env": "A=b\n", "shop/data/f": "x"})
    (root / "link.yaml").symlink_to(root / "shop/data/evil.yaml")
    config = "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: c, owner: team}\nspec: {files: {f: shop/data/f}}\n"
    uses = "services: {web: {image: 'nginx:1.27', env_file: ../shop/data/.env}}\n"
    write(root, {"c.yaml": config, "uses/compose.yaml": uses})
    names, problems, _ = seen(files.load())
    assert names == "other/api shop/web"
    assert sorted(problems) == [
        "error c.yaml config.outside",
        "error link.yaml file.outside",
        "error uses/compose.yaml compose.file-outside",
    ]


def test_a_folder_of_data_is_mounted_read_only_when_nothing_writes_there_any_more(
    root: Path,
) -> None:
    files = source(root)
    files.load()
    write(root, {"shop/compose.yaml": SHOP.replace("/data'", "/data:ro'")})
    desired = files.load()
    assert seen(desired) == GOOD
    (mount,) = next(
        s for s in desired.services if s.key == Key("Service", "shop", "web")
    ).spec.mounts
    assert mount.model_dump(by_alias=True) == {
        "type": "bind",
        "source": f"{root}/shop/data",
        "target": "/data",
        "readOnly": True,
    }


def test_the_watch_and_the_search_for_sources_leave_closed_folders_out(
    root: Path, tmp_path: Path
) -> None:
    files = source(root, tmp_path)
    files.load()
    write(root, {"shop/data/deep/source.yaml": SOURCE})
    assert files.closed() == frozenset({f"{root}/shop/data"})
    scope = scope_of([root], closed=files.closed())
    assert [path for path in scope.paths() if "data" in path] == []
    known = WrittenFolders(tmp_path / WRITTEN_FOLDERS, keeps=False)
    assert SourceScan(root, lambda: known.known).declares_sources() is False
    assert SourceScan(root).declares_sources() is True


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1, {}]", b"\xff"])
def test_a_damaged_file_of_closed_folders_closes_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WRITTEN_FOLDERS).write_bytes(content)
    known = WrittenFolders(tmp_path / WRITTEN_FOLDERS).known
    assert not known & {"shop", ""}


def test_a_file_of_closed_folders_that_cannot_be_written_is_a_problem(
    root: Path, tmp_path: Path
) -> None:
    names, problems, blind = seen(source(root, tmp_path / "none").load())
    assert (names, problems, blind) == ("other/api shop/web", ["error  state.unwritable"], True)
