"""Archives for `docker load`: what is in one, and that its id depends on nothing else."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

from tools import debian_images
from tools.image_archive import Archive, Layer, file, folder, layer_of, link

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = (folder("data", 0o1777, 999), file("data/a", "text"), link("run", "/data"))


def archive(layer: Layer) -> Archive:
    return Archive("docker.io/library/app:1", (layer,), {"Cmd": ["/a"]}, "a test")


def test_an_archive_names_its_image_and_holds_its_config_and_layers() -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive(layer_of(ENTRIES)).stream()))) as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        config = json.load(tar.extractfile(manifest["Config"]) or io.BytesIO())
        (name,) = manifest["Layers"]
        layer = (tar.extractfile(name) or io.BytesIO()).read()
    assert manifest["RepoTags"] == ["docker.io/library/app:1"]
    assert config["config"] == {"Cmd": ["/a"]}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{Layer(layer).digest}"]


def test_a_layer_keeps_owner_mode_and_links() -> None:
    source = layer_of(ENTRIES).source
    assert isinstance(source, bytes)
    with tarfile.open(fileobj=io.BytesIO(source)) as tar:
        data, text, run = tar.getmembers()
    assert (data.isdir(), data.mode, data.uid, data.gid) == (True, 0o1777, 999, 999)
    assert (text.isreg(), text.mode, text.size) == (True, 0o644, 4)
    assert (run.issym(), run.linkname) == (True, "/data")


def test_a_layer_in_a_file_makes_the_same_archive_as_one_in_memory(tmp_path: Path) -> None:
    in_memory = layer_of(ENTRIES)
    path = tmp_path / "layer.tar"
    path.write_bytes(b"".join(in_memory.chunks()))
    first, second = archive(in_memory), archive(Layer(path))
    assert first.id == second.id
    assert b"".join(first.stream()) == b"".join(second.stream())


def test_a_layouts_later_entry_replaces_the_layouts_own() -> None:
    built = debian_images.layout("debian", "app:1", link("run", "/tmp"))
    (layer,) = built.layers
    with tarfile.open(fileobj=io.BytesIO(b"".join(layer.chunks()))) as tar:
        names = tar.getnames()
        assert tar.getmember("run").linkname == "/tmp"
        assert tar.getmember("sbin").linkname == "usr/sbin"
    assert names.count("run") == 1
