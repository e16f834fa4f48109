"""The users of an image, read in the folders of its layers: its author wrote them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.broker.host.host_facts import LAYERS_MAX, read_accounts
from controller.core.effective import FILE_MAX, Accounts


def layer(folder: Path, name: str, **files: str) -> str:
    (folder / name / "etc").mkdir(parents=True)
    for file, text in files.items():
        (folder / name / "etc" / file).write_text(text)
    return str(folder / name)


def test_the_topmost_layer_that_has_a_file_tells_it(tmp_path: Path) -> None:
    base = layer(tmp_path, "base", passwd="root:x:0:0\n", group="root:x:0:\n")
    added = layer(tmp_path, "added", passwd="root:x:0:0\napp:x:1:1\n")
    plain = tmp_path / "plain"
    plain.mkdir()
    layers = (str(plain), added, base)
    assert read_accounts(layers) == Accounts("root:x:0:0\napp:x:1:1\n", "root:x:0:\n")
    assert read_accounts((str(plain),)) == Accounts()


@pytest.mark.needs_root
@pytest.mark.parametrize("path", ["etc", "etc/passwd"])
def test_what_a_layer_removes_is_gone(tmp_path: Path, path: str) -> None:
    base = layer(tmp_path, "base", passwd="root:x:0:0\n")
    above = tmp_path / "above"
    (above / path).parent.mkdir(parents=True)
    os.mknod(above / path, 0o20600, os.makedev(0, 0))  # a whiteout of overlayfs
    assert read_accounts((str(above), base)) == Accounts()


def linked(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def piped(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(FILE_MAX + 1)


@pytest.mark.parametrize("make", [linked, piped, endless, Path.mkdir])
def test_nothing_but_a_plain_file_is_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    base = layer(tmp_path, "base", passwd="root:x:0:0\n")
    make(Path(layer(tmp_path, "hostile")) / "etc/passwd")
    assert read_accounts((str(tmp_path / "hostile"), base)) is None


def test_no_link_is_followed_to_the_folder_either(tmp_path: Path) -> None:
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile/etc").symlink_to("/etc")
    (tmp_path / "itself").symlink_to(layer(tmp_path, "base", passwd="x"))
    assert read_accounts((str(tmp_path / "hostile"),)) is None
    assert read_accounts((str(tmp_path / "itself"),)) is None


@pytest.mark.parametrize("layers", [(), ("/does/not/exist",), ("/",) * (LAYERS_MAX + 1)])
def test_what_cannot_be_told_is_unknown(layers: tuple[str, ...]) -> None:
    assert read_accounts(layers) is None
