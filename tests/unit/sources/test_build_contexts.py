"""Contexts of builds: what a folder of a source has for a build, and the archive of exactly these files."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.compose.translation.scope import ComposeSettings, ContextRequest
from controller.model.desired.desired import Desired, Service
from controller.model.desired.spec.container import OTHER_DOCKERFILE, Build
from controller.model.errors import Conflict
from controller.sources.build_contexts import ContextReader, archive
from controller.sources.directory import DirectorySource, Export
from tests.unit.sources.test_compose_projects import write

FILES = {
    "shop/compose.yaml": "services: {web: {build: ./web}}\n",
    "shop/web/Dockerfile": "FROM nginx:1.27\nCOPY . /app\n",
    "shop/web/page.txt": "one\n",
    "shop/web/run.sh": "#!/bin/sh\n",
    "shop/web/cache/big": "big",
    "shop/web/cache/kept": "kept",
    "shop/web/.git/config": "[core]\n",
    "shop/web/.dockerignore": "cache\n!cache/kept\nDockerfile\n.dockerignore\n",
}
BUILDS = ComposeSettings(builds=True)


def source(root: Path, *, export: Export | None = None) -> DirectorySource:
    return DirectorySource(root, export=export, compose=lambda: BUILDS)


def web(desired: Desired) -> tuple[Service, Build]:
    """Return the only service, and its build."""
    (service,) = desired.workloads
    assert service.spec.build is not None
    return service, service.spec.build


def faults(desired: Desired) -> list[str]:
    found = [f"{problem.code}: {problem.message}" for problem in desired.problems]
    return [each for each in found if not each.startswith("file.")]


def unpacked(root: Path, build: Build) -> dict[str, tuple[int, bytes | str]]:
    """Return the modes and the contents or targets of an archive's entries, by name."""
    data = b"".join(archive(lambda _source: os.path.realpath(root), build))
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        found: dict[str, tuple[int, bytes | str]] = {}
        for each in opened:
            file = opened.extractfile(each) if each.isfile() else None
            found[each.name] = (each.mode, each.linkname if file is None else file.read())
    return found


def test_a_build_gets_the_files_that_dockerignore_leaves(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    (tmp_path / "shop/web/run.sh").chmod(0o750)
    (tmp_path / "shop/web/link").symlink_to("page.txt")
    service, build = web(source(tmp_path).load())
    assert (build.context, build.dockerfile, build.bases) == (
        "shop/web",
        "Dockerfile",
        ("nginx:1.27",),
    )
    assert service.spec.image.startswith("shop-web:")
    found = unpacked(tmp_path, build)
    assert {name: content for name, (_, content) in found.items()} == {
        ".dockerignore": FILES["shop/web/.dockerignore"].encode(),
        "Dockerfile": FILES["shop/web/Dockerfile"].encode(),
        "cache/kept": b"kept",
        "link": "page.txt",
        "page.txt": b"one\n",
        "run.sh": b"#!/bin/sh\n",
    }
    assert found["run.sh"][0] == 0o750


def touch(root: Path) -> None:
    os.utime(root / "shop/web/page.txt", ns=(1, 1))


def ignored(root: Path) -> None:
    (root / "shop/web/cache/big").write_text("bigger")


def content(root: Path) -> None:
    (root / "shop/web/page.txt").write_text("two\n")


def mode(root: Path) -> None:
    (root / "shop/web/page.txt").chmod(0o600)


def name(root: Path) -> None:
    (root / "shop/web/page.txt").rename(root / "shop/web/other.txt")


def instruction(root: Path) -> None:
    (root / "shop/web/Dockerfile").write_text("FROM nginx:1.27\nCOPY . /srv\n")


def argument(root: Path) -> None:
    (root / "shop/compose.yaml").write_text(
        "services: {web: {build: {context: ./web, args: {A: b}}}}"
    )


@pytest.mark.parametrize("change", [content, mode, name, instruction, argument])
def test_another_build_is_another_image(tmp_path: Path, change: Callable[[Path], None]) -> None:
    files = source(write(tmp_path, FILES))
    before, _ = web(files.load())
    change(tmp_path)
    after, _ = web(files.load())
    assert after.spec.image != before.spec.image
    assert after.revision != before.revision


@pytest.mark.parametrize("change", [touch, ignored])
def test_the_same_files_are_the_same_image(tmp_path: Path, change: Callable[[Path], None]) -> None:
    files = source(write(tmp_path, FILES))
    before = web(files.load())
    change(tmp_path)
    assert web(files.load()) == before


def test_an_archive_has_the_files_of_its_digest_or_no_end(tmp_path: Path) -> None:
    files = source(write(tmp_path, FILES))
    _, build = web(files.load())
    content(tmp_path)
    with pytest.raises(Conflict) as raised:
        unpacked(tmp_path, build)
    assert raised.value.code == "build.changed"
    (tmp_path / "shop/web/page.txt").unlink()
    (tmp_path / "shop/web/page.txt").symlink_to("/etc/passwd")
    with pytest.raises(Conflict) as raised:
        unpacked(tmp_path, build)
    assert raised.value.code == "build.context"


def test_a_file_that_changes_during_the_archive_ends_it(tmp_path: Path) -> None:
    files = source(write(tmp_path, FILES))
    _, build = web(files.load())
    pieces = archive(lambda _source: os.path.realpath(tmp_path), build)
    with pytest.raises(Conflict):
        next(pieces)
        for path in (tmp_path / "shop/web").glob("*.txt"):
            path.write_text("changed meanwhile")
        list(pieces)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("/etc/passwd", "leads to an absolute path"), ("../../../x", "leads out of the context")],
)
def test_a_link_out_of_the_context_is_refused(tmp_path: Path, target: str, reason: str) -> None:
    write(tmp_path, FILES)
    (tmp_path / "shop/web/link").symlink_to(target)
    assert faults(source(tmp_path).load()) == [f"build.context: the link link {reason}"]


def test_what_is_no_file_is_refused_unless_it_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    os.mkfifo(tmp_path / "shop/web/cache/pipe")
    assert faults(source(tmp_path).load()) == []
    os.mkfifo(tmp_path / "shop/web/pipe")
    assert faults(source(tmp_path).load()) == [
        "build.context: pipe is no regular file, folder or link"
    ]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        ("../../x", "x leads out of the source"),
        ("./nothing", "shop/nothing doesn't exist"),
        ("./out", "shop/out leads out of the source"),
        ("/srv", "the context /srv is no folder of the project"),
        ("https://example.com/x.git", "the context https://example.com/x.git is no folder"),
    ],
)
def test_a_context_lies_in_the_source(tmp_path: Path, build: str, reason: str) -> None:
    write(tmp_path / "top", {"shop/compose.yaml": f"services: {{web: {{build: '{build}'}}}}\n"})
    (tmp_path / "top/shop/out").symlink_to(tmp_path)
    (found,) = faults(source(tmp_path / "top").load())
    assert reason in found


def test_a_dockerfile_can_lie_elsewhere_in_the_source(tmp_path: Path) -> None:
    text = "services: {web: {build: {context: ./web, dockerfile: ../Dockerfile.web}}}\n"
    files = {
        **FILES,
        "shop/compose.yaml": text,
        "shop/Dockerfile.web": "FROM scratch\nCOPY page.txt /\n",
        "shop/web/.dockerignore": "*\n!page.txt\n",
    }
    _, build = web(source(write(tmp_path, files)).load())
    assert build.dockerfile == OTHER_DOCKERFILE
    found = unpacked(tmp_path, build)
    assert {*found} == {OTHER_DOCKERFILE, "page.txt", ".dockerignore"}
    assert found[OTHER_DOCKERFILE][1] == b"FROM scratch\nCOPY page.txt /\n"


def test_a_dockerfile_can_have_patterns_of_its_own(tmp_path: Path) -> None:
    files = {**FILES, "shop/web/Dockerfile.dockerignore": "*\n!page.txt\n"}
    _, build = web(source(write(tmp_path, files)).load())
    assert {*unpacked(tmp_path, build)} == {"Dockerfile", "page.txt", ".dockerignore"}


def test_the_files_of_a_commit_have_the_permissions_of_their_kind(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    for path in (tmp_path / "shop/web").rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o640)
    _, build = web(source(tmp_path, export=Export("infra", "c" * 40)).load())
    assert build.context == "infra:shop/web"
    found = unpacked(tmp_path, build)
    assert (found["page.txt"][0], found["run.sh"][0]) == (0o644, 0o755)


def test_a_broken_dockerfile_names_its_line(tmp_path: Path) -> None:
    files = {**FILES, "shop/web/Dockerfile": "FROM a\nRUN --mount=type=secret,id=x y\n"}
    assert faults(source(write(tmp_path, files)).load()) == [
        "build.mount: shop/web/Dockerfile:2: RUN --mount=type=secret needs BuildKit"
    ]
    (tmp_path / "shop/web/Dockerfile").unlink()
    assert faults(source(tmp_path).load()) == ["build.context: shop/web/Dockerfile doesn't exist"]


def test_a_broken_pattern_names_its_line(tmp_path: Path) -> None:
    files = {**FILES, "shop/web/.dockerignore": "a\n[\n"}
    (found,) = faults(source(write(tmp_path, files)).load())
    assert found.startswith("build.context: shop/web/.dockerignore:2: [")


def test_a_context_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FILES)
    top = os.path.realpath(tmp_path)
    request = ContextRequest("shop/web", "Dockerfile")
    monkeypatch.setattr("controller.sources.build_contexts.MAX_ENTRIES", 3)
    assert "more than 3 files" in str(ContextReader().read(top, request).fault)
    monkeypatch.setattr("controller.sources.build_contexts.MAX_ENTRIES", 100)
    monkeypatch.setattr("controller.sources.build_contexts.MAX_BYTES", 9)
    assert "the context has more than" in str(ContextReader().read(top, request).fault)


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FILES)
    reader, request = ContextReader(), ContextRequest("shop/web", "Dockerfile", "FROM a")
    before = reader.read(os.path.realpath(tmp_path), request)
    (tmp_path / "shop/web/.dockerignore").unlink()
    monkeypatch.setattr("controller.sources.build_contexts._pieces", _no_read)
    after = reader.read(os.path.realpath(tmp_path), request)
    assert after.fault is not None, "a file that was ignored is read now"
    assert "is read" in after.fault[0]
    assert replace(before, digest="") != after


def _no_read(place: str, _version: object) -> None:
    raise OSError(f"{place} is read")
