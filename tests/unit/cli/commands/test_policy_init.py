"""``policy init``: questions, flags, and the file that it writes."""

from __future__ import annotations

import json
import os
import pty
import pwd
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from controller.app.policy import read_policy
from tests.instance import TRIMTAB
from tests.unit.cli.test_main import run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "trimtab" / "policy.yaml"


def initiate(file: Path, *flags: str) -> int:
    return run(
        "policy", "init", "--output", str(file), "--state", str(file.parent / "none"), *flags
    )


def test_without_questions_what_is_not_given_is_as_in_home(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert initiate(file) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {file}",
        f"next: trimtab up desired-state --policy {file}",
    ]
    written = read_policy(file)
    home = read_policy(Path(__file__).parents[4] / "configs/policies/home.yaml")
    assert (*written.images.allow, "trimtab.local/") == home.images.allow
    assert written.images.anonymous_volumes == "slot"
    assert oct(file.stat().st_mode & 0o777) == "0o644"
    assert not [path for path in file.parent.iterdir() if path != file], "nothing is left beside it"


def test_all_addresses_are_said_to_be_asked_for_by_documents(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A document means the same under every policy."""
    assert initiate(file, "--publish", "all") == 0
    _, note, _ = capsys.readouterr().out.splitlines()
    assert "publishes on 127.0.0.1 unless it says hostIP: 0.0.0.0" in note
    assert read_policy(file).networks.ports.host_ips[0] == "0.0.0.0"


def test_no_link_that_somebody_laid_beside_the_file_is_followed(file: Path, tmp_path: Path) -> None:
    # Root writes into a folder that others may write to, such as /tmp.
    other = tmp_path / "other"
    other.write_text("theirs")
    file.parent.mkdir(parents=True)
    (file.parent / f".{file.name}.new").symlink_to(other)
    file.symlink_to(other)
    assert initiate(file, "--force") == 0
    assert other.read_text() == "theirs"
    assert not file.is_symlink()
    assert read_policy(file).name


def test_flags_are_answers(file: Path) -> None:
    flags = ["--allow", "quay.io/team/", "--publish", "loopback", "--low-port", "443"]
    flags += ["--owner", "shop:shop,default", "--client", "1000=shop", "--volumes", "refuse"]
    flags += ["--viewer", "daemon", "--viewer", "998=shop"]
    assert initiate(file, *flags, "--name", "shop") == 0
    written = read_policy(file)
    assert (written.name, written.images.allow) == ("shop", ("quay.io/team/",))
    assert written.networks.ports.host_ips == ("127.0.0.1", "::1")
    assert written.networks.ports.granted == (443,)
    assert written.owners is not None
    assert written.owners[0].namespaces == ("shop", "default")
    assert written.clients[0].uid == 1000
    assert [(each.uid, each.owners) for each in written.viewers] == [
        (pwd.getpwnam("daemon").pw_uid, "all"),
        (998, ("shop",)),
    ]
    assert written.images.anonymous_volumes == "refuse"


def test_a_file_that_is_there_is_replaced_only_if_asked(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("precious\n")
    assert initiate(file) == 64
    assert "[policy.exists]" in capsys.readouterr().err
    assert file.read_text() == "precious\n"
    assert initiate(file, "--force") == 0
    assert read_policy(file).name == "own"


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--client", "me=shop"), "policy.client"),
        (("--allow", "Docker.IO/"), "policy.invalid"),
        (("--viewer", "no-such-user"), "policy.viewer"),
        (("--viewer", "998="), "policy.viewer"),
        (("--client", "1000=me", "--owner", "you"), "policy.invalid"),
    ],
)
def test_a_flag_that_means_nothing_writes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], code: str
) -> None:
    assert initiate(file, *flags) != 0
    assert f"[{code}]" in capsys.readouterr().err
    assert not file.exists()


def test_questions_are_asked_on_a_terminal(file: Path) -> None:
    answers = ["docker.io/ quay.io/", "all", "80 x", "80", "none", "1000=me", "root=", "998=me", ""]
    here, there = pty.openpty()
    command = [TRIMTAB, "policy", "init", "--output", str(file), "--state", str(file.parent)]
    with subprocess.Popen(command, stdin=there, stdout=there, stderr=there) as asking:
        os.close(there)
        os.write(here, "".join(f"{answer}\n" for answer in answers).encode())
        shown = b""
        with suppress(OSError):  # the other end was closed
            while part := os.read(here, 4096):
                shown += part
        os.close(here)
    assert asking.returncode == 0, shown
    assert b"expected numbers from 1 to 1023" in shown
    written = read_policy(file)
    assert written.images.allow == ("docker.io/", "quay.io/")
    assert written.networks.ports.host_ips[0] == "0.0.0.0"
    assert written.networks.ports.granted == (80,)
    assert written.owners is None
    assert [(client.uid, client.owner) for client in written.clients] == [(1000, "me")]
    assert [(viewer.uid, viewer.owners) for viewer in written.viewers] == [(998, ("me",))]
    assert written.images.anonymous_volumes == "slot"


def test_it_goes_to_stdout_and_to_programs(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("policy", "init", "--output", "-", "--state", str(tmp_path / "none")) == 0
    assert capsys.readouterr().out.startswith("# The policy of this machine")
    assert initiate(file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(file), "next": f"trimtab up desired-state --policy {file}"}


def test_a_folder_that_cannot_be_made_is_an_error(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").write_text("a file\n")
    assert initiate(file) == 1
    assert "[policy.unwritable]" in capsys.readouterr().err
