"""Files of credentials become an access; no secret leaves its file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from controller.fetch.credentials import ASKPASS, AccessFiles, access_of
from controller.fetch.mirror import RemoteAccess
from controller.model.errors import SourceError
from tests.git.repository import source_spec

SECRET = "s3cr3t"


@pytest.fixture
def files(tmp_path: Path) -> AccessFiles:
    askpass = tmp_path / "askpass"
    askpass.write_text(ASKPASS)
    askpass.chmod(0o700)
    (tmp_path / "git" / "team").mkdir(parents=True)
    return AccessFiles(tmp_path / "git", askpass, tmp_path)


def put(files: AccessFiles, name: str, text: str, *, mode: int = 0o640) -> Path:
    path = files.credentials / "team" / name
    path.write_text(text)
    path.chmod(mode)
    return path


def access(files: AccessFiles, url: str, more: str = ', "credentials": "team"') -> RemoteAccess:
    return access_of("shop", source_spec(url, git=more).git, files)


def refusal(files: AccessFiles, url: str, more: str = ', "credentials": "team"') -> SourceError:
    with pytest.raises(SourceError) as caught:
        access(files, url, more)
    assert SECRET not in str(caught.value)
    return caught.value


def asked(files: AccessFiles, found: RemoteAccess, question: str) -> str:
    done = subprocess.run(
        (found.environment["GIT_ASKPASS"], question),
        env={"PATH": "/usr/bin:/bin", **found.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_git_asks_for_user_and_password_and_gets_them_from_the_files(files: AccessFiles) -> None:
    put(files, "password", f"{SECRET}\n")
    found = access(files, "https://example.org/x.git")
    assert found.protocol == "https"
    assert found.settings == ("credential.username=git",), "git needn't ask"
    assert asked(files, found, "Password for 'https://git@example.org': ") == f"{SECRET}\n"
    put(files, "username", "alice\n")
    found = access(files, "https://example.org/x.git")
    assert asked(files, found, "Username for 'https://example.org': ") == "alice\n"
    assert found.settings == ()
    put(files, "password", f"{SECRET} \\n$(id)")  # of a line without an end, as it is
    assert asked(files, found, "Password for 'https://a@x': ") == f"{SECRET} \\n$(id)\n"
    put(files, "password", "")
    with pytest.raises(subprocess.CalledProcessError):
        asked(files, found, "Password for 'https://a@x': ")
    assert SECRET not in repr(found)


def test_an_authority_of_its_own_is_trusted_for_its_source(files: AccessFiles) -> None:
    put(files, "password", SECRET)
    path = put(files, "ca.pem", "x", mode=0o644)
    settings = access(files, "https://example.org/x.git").settings
    assert settings == (f"http.sslCAInfo={path}", "credential.username=git")
    assert access(files, "https://example.org/x.git", more="") == RemoteAccess("https")


@pytest.mark.parametrize(
    ("url", "name"),
    [("https://example.org/x.git", "password"), ("ssh://git@example.org/x.git", "id")],
)
def test_a_secret_that_everybody_reads_is_refused(files: AccessFiles, url: str, name: str) -> None:
    put(files, "known_hosts", "x", mode=0o644)
    assert refusal(files, url).code == "source.credentials"  # missing
    put(files, name, SECRET, mode=0o644)
    assert "0644" in refusal(files, url).message
    put(files, name, SECRET, mode=0o640)
    access(files, url)


def test_ssh_has_strict_host_keys_and_no_configuration(files: AccessFiles) -> None:
    put(files, "id", SECRET, mode=0o600)
    assert "known_hosts" in refusal(files, "git@example.org:x.git").message
    hosts = put(files, "known_hosts", "x", mode=0o644)
    command = access(files, "git@example.org:x.git").environment["GIT_SSH_COMMAND"]
    assert command.startswith("ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes ")
    assert f"'UserKnownHostsFile=\"{hosts}\"'" in command
    assert SECRET not in command
    assert "spec.git.credentials" in refusal(files, "git@example.org:x.git", more="").remedy


@pytest.mark.parametrize(
    ("url", "more", "is_permitted"),
    [
        ("http://example.org/x.git", ', "allowInsecureLoopback": true', False),
        ("http://127.0.0.1.example.org/x.git", ', "allowInsecureLoopback": true', False),
        ("http://127.0.0.1:8080/x.git", "", False),
        ("http://127.0.0.1:8080/x.git", ', "allowInsecureLoopback": true', True),
        ("http://[::1]/x.git", ', "allowInsecureLoopback": true', True),
        ("http://localhost/x.git", ', "allowInsecureLoopback": true', True),
    ],
)
def test_plain_http_is_for_this_host_alone(
    files: AccessFiles, url: str, more: str, is_permitted: bool
) -> None:
    if is_permitted:
        assert access(files, url, more).protocol == "http"
    else:
        assert refusal(files, url, more).code == "source.insecure"
