"""Keys and secret files of the host: only closed files, reached without links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.broker.secrets.key_files import read_host_file, read_key
from controller.model.errors import SecretError


def key(folder: Path, mode: int = 0o600) -> Path:
    folder.chmod(0o755)
    path = folder / "shop.age"
    path.write_text("AGE-SECRET-KEY-1X")
    path.chmod(mode)
    return path


def refusal(folder: Path, namespace: str = "shop") -> SecretError:
    with pytest.raises(SecretError) as caught:
        read_key(namespace, folder)
    assert "SECRET" not in caught.value.message
    return caught.value


def test_a_closed_key_is_read(tmp_path: Path) -> None:
    path = key(tmp_path)
    found = read_key("shop", tmp_path)
    assert (found.text, found.place) == ("AGE-SECRET-KEY-1X", str(path))
    assert "SECRET" not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = key(tmp_path, mode)
    error = refusal(tmp_path)
    assert error.code == "secret.file-open"
    assert f"mode {mode:04o}" in error.message
    assert error.remedy == f"chmod go= {path}"


def test_a_folder_that_others_can_change_is_refused(tmp_path: Path) -> None:
    key(tmp_path)
    tmp_path.chmod(0o777)
    assert refusal(tmp_path).code == "secret.file-open"


@pytest.mark.needs_root
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(key(tmp_path), 65534, 65534)
    assert "belongs to uid 65534" in refusal(tmp_path).message


def test_a_key_behind_a_link_is_refused(tmp_path: Path) -> None:
    key(tmp_path).rename(tmp_path / "other.age")
    (tmp_path / "shop.age").symlink_to(tmp_path / "other.age")
    assert "is a link" in refusal(tmp_path).message


def test_a_fifo_is_no_key_and_doesnt_hang(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.mkfifo(tmp_path / "shop.age", 0o600)
    assert "regular file" in refusal(tmp_path).message


def test_a_missing_key_names_the_command(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "default.age").write_text("x")
    error = refusal(tmp_path)
    assert error.code == "secret.key-missing"
    assert error.remedy == "sudo trimtab secret keygen shop"
    assert refusal(tmp_path / "nothing").code == "secret.key-missing"


def secret(folder: Path, name: str = "shop/tls/key.pem", mode: int = 0o600) -> Path:
    folder.chmod(0o755)
    path = folder / name
    path.parent.mkdir(parents=True, mode=0o755)
    path.write_bytes(b"pem")
    path.chmod(mode)
    return path


def test_a_file_below_the_namespaces_folder_is_read(tmp_path: Path) -> None:
    secret(tmp_path)
    assert read_host_file("shop", "tls/key.pem", tmp_path) == b"pem"


@pytest.mark.parametrize(
    "name", ["../other/x", "/etc/passwd", "tls/../../x", "", ".", "tls//key.pem"]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    secret(tmp_path)
    with pytest.raises(SecretError) as caught:
        read_host_file("shop", name, tmp_path)
    assert caught.value.code == "secret.file"


def test_a_folder_behind_a_link_is_refused(tmp_path: Path) -> None:
    secret(tmp_path, "other/key.pem")
    (tmp_path / "shop").symlink_to(tmp_path / "other")
    with pytest.raises(SecretError) as caught:
        read_host_file("shop", "key.pem", tmp_path)
    assert caught.value.code == "secret.file-open"


def test_an_open_or_large_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = secret(tmp_path, mode=0o644)
    with pytest.raises(SecretError, match="mode 0644"):
        read_host_file("shop", "tls/key.pem", tmp_path)
    path.write_bytes(b"x" * (1024 * 1024 + 1))
    path.chmod(0o600)
    with pytest.raises(SecretError, match="more than"):
        read_host_file("shop", "tls/key.pem", tmp_path)
    with pytest.raises(SecretError) as caught:
        read_host_file("shop", "tls/other.pem", tmp_path)
    assert caught.value.code == "secret.file-missing"


def test_a_folder_behind_a_link_is_a_problem_and_no_fault(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    key(tmp_path / "real")
    (tmp_path / "keys").symlink_to(tmp_path / "real")
    error = refusal(tmp_path / "keys")
    assert error.code == "secret.file-open"
    assert "is a link" in error.message
