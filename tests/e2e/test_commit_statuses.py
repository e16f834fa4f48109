"""A commit's outcome reaches its forge, and the token leaves the fetcher for nobody else."""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.fetch.credentials import FOLDER
from tests.git.forge import TOKEN, ForgeServer
from tests.git.repository import Repository
from tests.instance import Host, descendants, eventually, web

SOURCE = """\
apiVersion: trimtab/v1
kind: Source
metadata: {{name: shop, owner: team}}
spec:
  git:
    url: "{url}"
    path: deploy
    interval: 10s
    allowInsecureLoopback: true
    status: {{forge: gitea, credentials: {credentials}, url: "{forge}/api/v1", repository: team/deploy, context: trimtab/e2e}}
  namespaces: [default]
"""
GOOD = "rollout: {minHealthy: 2s}"
BAD = (
    "rollout: {minHealthy: 1s}\n"
    "healthcheck: {exec: [/bin/false], interval: 1s, timeout: 1s, retries: 2, startPeriod: 1s}"
)


@pytest.fixture
def credentials() -> Iterator[str]:
    """The name of a folder of credentials with a token, in the host's folder."""
    name = f"forge-{secrets.token_hex(4)}"
    folder = FOLDER / name
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    token = folder / "token"
    token.touch(mode=0o640)
    token.write_text(f"{TOKEN}\n")
    os.chown(token, 0, pwd.getpwnam("trimtab-fetch").pw_gid)
    yield name
    token.unlink()
    folder.rmdir()


@pytest.mark.needs_root
@pytest.mark.timeout(300)
def test_the_outcome_of_each_commit_is_told_once(host: Host, credentials: str) -> None:
    repository = Repository(host.folder / "shop.git")
    first = repository.commit({"deploy/web.yaml": web("web", extra=GOOD)})
    with ForgeServer(listener=host.engine.listen()) as forge:
        source = SOURCE.format(url=repository.url, credentials=credentials, forge=forge.url)
        host.write("shop.yaml", source)
        host.up()
        try:
            await_told(forge, first, "success")
            # Only a revision that was good is gone back to.
            eventually(lambda: any(each["outcome"] == "good" for each in host.history("web")))
            second = repository.commit({"deploy/web.yaml": web("web", extra=BAD)})
            host.cli("source", "sync", "shop")
            await_told(forge, second, "failure")
            assert forge.received[-1].body == {
                "state": "failure",
                "context": "trimtab/e2e/default",
                "description": "web: RolledBack (Automatic)",
            }
            before = list(forge.received)
            check_access(host)
            host.stop()
            # Another process sends nothing again.
            host.up()
            third = repository.commit({"deploy/web.yaml": web("web", replicas=2, extra=GOOD)})
            await_told(forge, third, "success")
            assert forge.received[: len(before)] == before
            assert all(each.path.endswith(third) for each in forge.received[len(before) :])
            check_a_refused_token(host, forge, repository)
            assert {each.headers["authorization"] for each in forge.received} == {f"token {TOKEN}"}
            check_the_token_is_nowhere(host)
        finally:
            host.stop()


def told(forge: ForgeServer, commit: str) -> list[str]:
    """Return the states that the forge got for a commit."""
    return [each.body["state"] for each in forge.received if each.path.endswith(commit)]


def await_told(forge: ForgeServer, commit: str, outcome: str) -> None:
    """Wait until the forge got an outcome; a busy fetcher leaves out a state that lasted shortly."""
    eventually(lambda: told(forge, commit)[-1:] == [outcome], what=f"{outcome} of {commit}")
    assert told(forge, commit)[:-1] in ([], ["pending"])


def check_access(host: Host) -> None:
    """The fetcher reads the outcomes, and nothing else of the controller's; nobody else does."""
    fetcher, controller = (pwd.getpwnam(name) for name in ("trimtab-fetch", "trimtab"))
    folder, file = (path.stat() for path in (host.state / "feedback", feedback(host)))
    assert (folder.st_uid, folder.st_gid) == (controller.pw_uid, fetcher.pw_gid)
    assert (folder.st_mode & 0o7777, file.st_mode & 0o7777) == (0o2750, 0o640)
    assert (file.st_uid, file.st_gid) == (controller.pw_uid, fetcher.pw_gid)
    assert (host.state / "controller").stat().st_mode & 0o7777 == 0o700
    for user, path, is_readable in (
        ("trimtab-fetch", feedback(host), True),
        ("trimtab-fetch", host.state / "controller" / "status.json", False),
        ("nobody", feedback(host), False),
    ):
        done = subprocess.run(["runuser", "-u", user, "--", "test", "-r", str(path)], check=False)
        assert (done.returncode == 0) == is_readable, (user, path)


def feedback(host: Host) -> Path:
    return host.state / "feedback" / "feedback.json"


def check_a_refused_token(host: Host, forge: ForgeServer, repository: Repository) -> None:
    """A refused token is shown wherever people look, and costs no container."""
    forge.answers.next = [(401, {})] * 100
    repository.commit({"deploy/web.yaml": web("web", extra=GOOD)})
    message = "the forge refuses the token (401)"
    eventually(lambda: message in str((host.status() or {"problems": ()})["problems"]))
    assert message in host.cli("source", "list").stdout
    assert message in host.cli("status").stdout
    assert message in host.cli("describe", "shop").stdout
    assert message in host.cli("doctor", expect=(0, 1)).stdout
    codes = [problem["code"] for problem in (host.status() or {})["problems"]]
    assert codes == ["SourceUnreported"]
    assert host.json("source", "list")["sources"][0]["state"] == "Ready"


def check_the_token_is_nowhere(host: Host) -> None:
    """No file of the instance and no process has the token in its environment or command line."""
    for path in (*host.state.rglob("*"), host.log):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in host.cli("status", "--json").stdout + host.cli("journal", "list").stdout
    assert host.process is not None
    for pid in (host.process.pid, *descendants(host.process.pid)):
        for name in ("environ", "cmdline"):
            assert TOKEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
