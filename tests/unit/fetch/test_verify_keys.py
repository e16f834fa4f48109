"""The folder of keys: only what its owner alone can change is trusted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.fetch.verify import read_keys
from controller.model.errors import SourceError

OWN = (os.getuid(),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o755)
    (keys / "allowed_signers").write_text("")
    return keys


def test_the_files_of_a_folder_are_found(folder: Path) -> None:
    (folder / "revoked_keys").write_text("")
    (folder / "bob.asc").write_text("")
    keys = read_keys(folder, owners=OWN)
    assert keys.allowed_signers == folder / "allowed_signers"
    assert keys.revoked_keys == folder / "revoked_keys"
    assert keys.certificates == (folder / "bob.asc",)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda f: (f / "allowed_signers").chmod(0o664), "others can change it"),
        (lambda f: f.chmod(0o777), "others can change it"),
        (lambda f: (f / "revoked_keys").symlink_to("/dev/null"), "is a link"),
        (lambda f: (f / "allowed_signers").unlink(), "has neither"),
        (lambda f: ((f / "allowed_signers").unlink(), f.rmdir()), "No such file"),
    ],
)
def test_a_folder_that_others_can_change_is_refused(
    folder: Path, spoil: Callable[[Path], object], why: str
) -> None:
    spoil(folder)
    with pytest.raises(SourceError, match=why):
        read_keys(folder, owners=OWN)


def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match="belongs to uid"):
        read_keys(folder, owners=(os.getuid() + 1,))
