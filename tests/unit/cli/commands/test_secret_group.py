"""``secret``: keys, and files that sops reads too. Plain text is printed on request only."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.instance import TRIMTAB
from tests.unit.cli.test_main import run
from tests.unit.core.secrets.oracle import Keys, decrypt
from tests.unit.core.secrets.oracle import encrypt as sops_encrypt

PLAIN = "# who\nuser: app\npassword: hunter2hunter2\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "keys"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "db.yaml"
    path.write_text(PLAIN)
    path.chmod(0o640)
    return path


def made(keys: Path, namespace: str = "shop") -> Keys:
    """Make a namespace's key, and return it for sops."""
    assert run("secret", "keygen", namespace, "--keys", str(keys)) == 0
    return Keys((keys / f"{namespace}.age").read_text().splitlines()[-1])


def test_a_key_is_made_once_and_closed(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("secret", "keygen", "shop", "--keys", str(keys), "--json") == 0
    recipient = json.loads(capsys.readouterr().out)["recipient"]
    path = keys / "shop.age"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert f"# public key: {recipient}" in text
    assert run("secret", "keygen", "shop", "--keys", str(keys)) == 64
    shown = capsys.readouterr()
    assert "[secret.key-exists]" in shown.err
    assert path.read_text() == text
    assert "AGE-SECRET-KEY" not in shown.out + shown.err


@pytest.mark.parametrize("namespace", ["../shop", "Shop", "", "a/b"])
def test_a_key_of_no_valid_namespace_is_refused(
    keys: Path, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("secret", "keygen", namespace, "--keys", str(keys)) == 64
    assert "[secret.namespace]" in capsys.readouterr().err
    assert not keys.exists()


def test_keys_are_listed_with_recipients_and_problems(
    keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("secret", "list", "--keys", str(keys)) == 0
    assert "sudo trimtab secret keygen NAMESPACE" in capsys.readouterr().out
    made(keys)
    made(keys, "open")
    (keys / "open.age").chmod(0o644)
    capsys.readouterr()
    assert run("secret", "list", "--keys", str(keys), "--json") == 0
    opened, shop = json.loads(capsys.readouterr().out)["keys"]
    assert shop["recipients"][0].startswith("age1")
    assert (opened["recipients"], "mode 0644" in opened["problem"]) == ([], True)


def test_an_encrypted_file_is_read_by_sops(
    keys: Path, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = made(keys)
    assert run("secret", "encrypt", str(file), "-n", "shop", "--in-place", "--keys", str(keys)) == 0
    sealed = file.read_bytes()
    assert b"hunter2" not in sealed
    assert file.stat().st_mode & 0o777 == 0o640
    assert yaml.safe_load(decrypt("db.yaml", sealed, key))["password"] == "hunter2hunter2"
    other = Keys()
    file.write_text(PLAIN)
    capfd.readouterr()
    assert (
        run("secret", "encrypt", str(file), "-r", other.recipient, "--encrypted-regex", "pass") == 0
    )
    printed = capfd.readouterr().out
    assert yaml.safe_load(decrypt("db.yaml", printed.encode(), other))["user"] == "app"
    assert "user: app" in printed
    assert file.read_text() == PLAIN


def test_an_edited_file_has_the_new_value_and_leaves_no_plain_text(
    keys: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made(keys)
    file.write_bytes(sops_encrypt("db.yaml", PLAIN.encode(), key))
    monkeypatch.delenv("VISUAL", raising=False)
    noted = tmp_path / "noted"
    script = f'ls -ld "$0" "${{0%/*}}" >{noted}; sed -i s/hunter2hunter2/changed9changed9/ "$0"'
    monkeypatch.setenv("EDITOR", f"sh -c '{script}'")
    arguments = ("secret", "edit", str(file), "-n", "shop", "--keys", str(keys))
    assert run(*arguments) == 0
    lines = noted.read_text().splitlines()
    assert sorted(line[:10] for line in lines) == ["-rw-------", "drwx------"]
    assert all("/dev/shm/trimtab-secret-" in line for line in lines)
    assert not list(Path("/dev/shm").glob("trimtab-secret-*"))
    assert (
        yaml.safe_load(decrypt("db.yaml", file.read_bytes(), key))["password"] == "changed9changed9"
    )
    sealed = file.read_bytes()
    monkeypatch.setenv("EDITOR", "true")
    assert run(*arguments) == 0
    monkeypatch.setenv("EDITOR", "false")
    assert run(*arguments) == 1
    assert file.read_bytes() == sealed


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_leaves_no_plain_text(
    keys: Path, file: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    sealed = sops_encrypt("db.yaml", PLAIN.encode(), made(keys))
    file.write_bytes(sealed)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"sh -c 'kill -{int(number)} $PPID; exec sleep 60'")
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert run("secret", "edit", str(file), "-n", "shop", "--keys", str(keys)) == 128 + number
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert not list(Path("/dev/shm").glob("trimtab-secret-*"))
    assert file.read_bytes() == sealed


def test_a_file_that_changes_under_the_editor_isnt_overwritten(
    keys: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(sops_encrypt("db.yaml", PLAIN.encode(), made(keys)))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"sh -c 'echo changed >>{file}; echo more: words >>\"$0\"'")
    assert run("secret", "edit", str(file), "-n", "shop", "--keys", str(keys)) == 1
    assert "was changed by somebody else meanwhile" in capsys.readouterr().err
    assert file.read_text().endswith("changed\n")


def test_a_rotated_file_has_a_new_data_key_and_other_recipients(
    keys: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other = made(keys), Keys()
    common = ("-n", "shop", "--keys", str(keys))
    assert run("secret", "encrypt", str(file), "--in-place", *common) == 0
    before = file.read_bytes()
    assert run("secret", "rotate", str(file), "--recipient", other.recipient, *common) == 0
    assert set(before.splitlines()) & set(file.read_bytes().splitlines()) <= {
        line for line in file.read_bytes().splitlines() if b"ENC[" not in line and len(line) != 72
    }
    for each in (key, other):
        assert yaml.safe_load(decrypt("db.yaml", file.read_bytes(), each))["user"] == "app"
    (keys / "shop.age").write_text(other.private)
    capsys.readouterr()
    assert run("secret", "list", str(file), *common, "--json") == 0
    assert json.loads(capsys.readouterr().out)["keys"][1] == {
        "key": "password",
        "type": "str",
        "bytes": 14,
        "encrypted": True,
    }
    for recipient in (Keys().recipient, "age1junk"):
        code = run("secret", "rotate", str(file), "--recipient", recipient, *common)
        assert code == (0 if recipient != "age1junk" else 1)
    assert "[secret.recipient]" in capsys.readouterr().err
    assert run("secret", "rotate", str(file), "--remove", other.recipient, *common) == 0


def test_a_file_with_other_keys_or_encrypted_comments_is_rotated_by_sops(
    keys: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = made(keys)
    file.write_bytes(sops_encrypt("db.yaml", PLAIN.encode(), key))
    assert run("secret", "rotate", str(file), "-n", "shop", "--keys", str(keys)) == 1
    assert "sops rotate" in capsys.readouterr().err


def test_values_are_not_printed_without_a_terminal(
    keys: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(keys)
    common = ("-n", "shop", "--keys", str(keys))
    assert run("secret", "encrypt", str(file), "--in-place", *common) == 0
    assert run("secret", "list", str(file), *common) == 0
    assert run("secret", "list", str(file), "--show", *common) == 64
    shown = capsys.readouterr()
    assert "[values.no-terminal]" in shown.err
    assert "hunter2" not in shown.out + shown.err


def test_values_are_not_printed_if_no_broker_records_it(
    keys: Path, file: Path, tmp_path: Path
) -> None:
    made(keys)
    common = ("-n", "shop", "--keys", str(keys))
    assert run("secret", "encrypt", str(file), "--in-place", *common) == 0
    here, there = pty.openpty()
    state = ("--state", str(tmp_path / "none"))
    command = [TRIMTAB, "secret", "list", str(file), "--show", *common, *state]
    with subprocess.Popen(command, stdin=there, stdout=there, stderr=there) as showing:
        os.close(there)
        shown = b""
        with suppress(OSError):  # the other end was closed
            while part := os.read(here, 4096):
                shown += part
        os.close(here)
    assert showing.returncode == 1
    assert b"[state.missing]" in shown
    assert b"hunter2" not in shown
