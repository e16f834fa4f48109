"""Files that a Config names: read beside the document, inside the source alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.model.delivery import FILE_BYTES_MAX
from controller.sources.directory import DirectorySource

HEAD = "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: site, owner: team}\n"
BINARY = bytes(range(256)) + b"\xff\xfe\x00"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / "desired"
    (folder / "web" / "files").mkdir(parents=True)
    (folder / "web" / "files" / "nginx.conf").write_bytes(b"worker_processes 1;\n")
    (folder / "logo.bin").write_bytes(BINARY)
    (tmp_path / "secret").write_text("outside")
    return folder


def declare(top: Path, *paths: str, data: str = "") -> Path:
    files = ", ".join(f'f{number}: "{path}"' for number, path in enumerate(paths))
    document = top / "web" / "site.yaml"
    document.write_text(f"{HEAD}spec: {{files: {{{files}}}{data}}}\n")
    return document


def loaded(top: Path):
    return DirectorySource(top).load()


def test_files_lie_beside_the_document_and_may_be_any_bytes(top):
    declare(top, "files/nginx.conf", "../logo.bin", data=", data: {text: hello}")
    (config,) = loaded(top).configs
    assert dict(config.files) == {
        "f0": b"worker_processes 1;\n",
        "f1": BINARY,
        "text": b"hello",
    }


def test_a_changed_file_is_another_content_though_its_document_is_the_same(top):
    declare(top, "files/nginx.conf")
    source = DirectorySource(top)
    (before,) = source.load().configs
    (top / "web" / "files" / "nginx.conf").write_bytes(b"worker_processes 2;\n")
    (after,) = source.load().configs
    assert before.content != after.content


def test_the_named_files_in_hidden_folders_are_known_for_the_watch(top):
    """A walk of the directory skips them; a file is known before it exists, too."""
    (top / "web" / ".files").mkdir()
    (top / "web" / ".files" / "one").write_text("1")
    declare(top, ".files/one", "files/nginx.conf", "../.absent", "../../.out/two", ".git/three")
    (top / "db.yaml").write_text(
        f"{HEAD}spec: {{}}\n".replace("Config", "Secret").replace("{}", "{sops: .sops/db.yaml}")
    )
    (top / "shop").mkdir()
    (top / "shop" / "compose.yaml").write_text(
        "services: {web: {image: 'example.org/web:1', volumes: ['./.conf/absent:/etc/web.conf:ro'],"
        " env_file: [{path: .env.d/web.env, required: false}]}}\n"
    )
    source = DirectorySource(top)
    assert source.hidden_files == frozenset()
    source.load()
    assert source.hidden_files == {
        top / "web" / ".files" / "one",
        top / ".sops" / "db.yaml",
        top / "shop" / ".env.d" / "web.env",
        top / "shop" / ".conf" / "absent",
    }


def test_the_files_in_hidden_folders_are_those_of_the_last_complete_reading(top):
    """The watch asks in another thread, and a change of the answer begins a new watch."""
    (top / ".files").mkdir()
    for name in ("a", "b"):
        (top / ".files" / name).write_text(name)
        (top / f"{name}.yaml").write_text(
            f"{HEAD}spec: {{files: {{file: .files/{name}}}}}\n".replace("site", name)
        )
    seen = []

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        seen.append(source.hidden_files)
        return os.pread(descriptor, count, offset)

    source = DirectorySource(top, pread=pread)
    source.load()
    assert set(seen) == {frozenset()}
    both = source.hidden_files
    assert both == {top / ".files" / "a", top / ".files" / "b"}
    seen.clear()
    source.load()
    assert set(seen) == {both}


def test_no_file_outside_the_source_is_watched(top):
    (top / "shop").mkdir()
    (top / "shop" / "compose.yaml").write_text(
        "services: {web: {image: 'example.org/web:1', env_file: [../../secret, ../../.x/web.env]}}\n"
    )
    declare(top, "../../.x/one")
    source = DirectorySource(top)
    source.load()
    assert source.hidden_files == frozenset()


def test_a_link_inside_the_source_is_followed(top):
    (top / "web" / "current").symlink_to("files")
    declare(top, "current/nginx.conf")
    assert len(loaded(top).configs) == 1


BAD = {
    "/etc/passwd": "config.outside",
    "../../secret": "config.outside",
    "link": "config.outside",
    "through/secret": "config.outside",
    "absent": "config.unreadable",
    "pipe": "config.unreadable",
    "files": "config.unreadable",
    "big": "config.too-large",
    "../.git/config": "config.outside",
    "repository": "config.outside",
}


@pytest.mark.parametrize(("path", "code"), BAD.items())
def test_what_is_no_ordinary_file_of_the_source_is_a_problem_of_the_config_alone(top, path, code):
    (top / "web" / "link").symlink_to(top.parent / "secret")
    if path.startswith("through"):  # a problem of the walk, too
        (top / "web" / "through").symlink_to(top.parent)
    os.mkfifo(top / "web" / "pipe")
    (top / "web" / "big").write_bytes(bytes(10 * FILE_BYTES_MAX))
    (top / ".git").mkdir()
    (top / ".git" / "config").write_text("[core]\n")
    (top / "web" / "repository").symlink_to(top / ".git" / "config")
    declare(top, path)
    desired = loaded(top)
    (problem,) = (each for each in desired.problems if each.key is not None)
    assert (problem.code, problem.file, problem.line) == (code, "web/site.yaml", 4)
    assert problem.remedy
    if code == "config.too-large":
        assert problem.remedy == "mount a volume for large data"
    assert "outside" not in problem.message.replace(code, "")
    assert {str(key) for key in desired.blind_keys} == {"Config/default/site"}
    assert desired.blind == path.startswith("through")


def test_a_chart_has_files_of_its_own(top):
    chart = top.parent / "configs" / "app"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: trimtab/v1\nname: app\nversion: 1.0.0\n")
    (chart / "app.conf").write_text("from the chart")
    (chart / "templates" / "site.yaml").write_text(
        "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: site}\n"
        "spec: {files: {app.conf: ../app.conf}}\n"
    )
    (top / "release.yaml").write_text(
        "apiVersion: trimtab/v1\nkind: Release\nmetadata: {name: app, owner: team}\n"
        "spec: {chart: app}\n"
    )
    desired = DirectorySource(top, charts=top.parent / "configs").load()
    assert desired.problems == ()
    (config,) = desired.configs
    assert config.files == (("app.conf", b"from the chart"),)
    (chart / "templates" / "site.yaml").write_text(
        "apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: site}\n"
        "spec: {files: {app.conf: ../../../secret}}\n"
    )
    (problem,) = DirectorySource(top, charts=top.parent / "configs").load().problems
    assert problem.code == "config.outside"
