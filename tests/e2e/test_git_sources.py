"""Git sources as the controller meets them: folders that a fetcher exports, on a real engine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.instance import Host, eventually, web

SOURCE = """\
apiVersion: trimtab/v1
kind: Source
metadata: {{name: team, owner: team}}
spec:
  git: {{url: 'file:///nowhere/deploy.git', path: deploy, interval: 1h}}
  namespaces: [default]
{more}
"""


def commit(number: int) -> str:
    return f"{number:040x}"


def export(host: Host, number: int, *services: tuple[str, int]) -> None:
    """Serve a commit with these services and replicas, as the fetcher does."""
    folder = host.state / "fetcher" / "sources" / "team"
    files = folder / commit(number) / "deploy"
    files.mkdir(parents=True)
    for name, replicas in services:
        (files / f"{name}.yaml").write_text(web(name, replicas=replicas))
    (folder / f"{commit(number)}.json").write_text('{"version": 1, "path": "deploy"}')
    (folder / "new").symlink_to(commit(number))
    (folder / "new").rename(folder / "current")


def source_row(host: Host) -> dict[str, Any]:
    status = host.status() or {}
    return dict(next(iter(status.get("sources", [])), {}))


def codes(host: Host) -> set[str]:
    return {problem["code"] for problem in (host.status() or {"problems": []})["problems"]}


@pytest.mark.timeout(300)
def test_a_source_is_followed_outlives_what_is_lost_and_is_never_taken_for_empty(
    host: Host,
) -> None:
    host.state.mkdir()
    export(host, 1, ("web", 1), ("api", 1))
    host.write("team.yaml", SOURCE.format(more=""))
    host.write("own.yaml", web("own"))
    host.up()
    host.await_ready("web", "api", "own")
    assert source_row(host)["commit"] == commit(1)
    assert host.resource("web")["source"] == {
        "name": "team",
        "file": "team:web.yaml",
        "line": 1,
        "commit": commit(1),
    }
    # A pull request for DIR changes nothing of what the source declares, here or elsewhere.
    host.cli("plan", "--against", str(host.directory))
    snapshot = host.folder / "host.json"
    snapshot.write_text(host.cli("snapshot").stdout)
    against = ("plan", "--against", str(host.directory), "--snapshot", str(snapshot))
    elsewhere = host.cli(*against, expect=2).stdout
    assert "Plan: 2 removals wait for an approval" in elsewhere
    # A new commit runs at once, and what it no longer declares goes.
    export(host, 2, ("web", 2), ("last", 1))
    eventually(lambda: len(host.running_ids("web")) == 2, what="the new commit runs")
    eventually(lambda: not host.names("api"), what="what the commit dropped is gone")
    host.await_ready("web", "last", "own")
    assert source_row(host)["commit"] == commit(2)
    # A source that can't be read removes nothing, and blinds nobody else.
    pointer = host.state / "fetcher" / "sources" / "team" / "current"
    pointer.unlink()
    eventually(lambda: "source.pending" in codes(host), what="the lost pointer is noticed")
    host.write("more.yaml", web("more"))
    host.remove("own.yaml")
    eventually(lambda: host.is_ready("more"), what="DIR goes on")
    eventually(lambda: not host.names("own"), what="DIR's own removal isn't held back")
    assert len(host.running_ids("web")) == 2
    assert host.running_ids("last")
    # As it was before.
    pointer.symlink_to(commit(2))
    eventually(lambda: source_row(host).get("commit") == commit(2), what="the pointer is back")
    host.await_ready("web", "last", "more")
    is_removed_and_lost_and_prunes_nothing_before_an_approval(host)


def is_removed_and_lost_and_prunes_nothing_before_an_approval(host: Host) -> None:
    host.remove("team.yaml")
    told = eventually(lambda: removals_held_back(host), what="removals are held back")
    assert all("the document of Source team was removed" in message for message in told)
    assert len(host.running_ids("web")) == 2
    host.write("team.yaml", SOURCE.format(more=""))
    eventually(lambda: not removals_held_back(host), what="the Source is back")
    # A source outlives a restart and a lost folder.
    host.stop()
    shutil.rmtree(host.state / "fetcher")
    host.up()
    eventually(lambda: "source.pending" in codes(host), what="the lost folder is noticed")
    host.cli("status")
    assert len(host.running_ids("web")) == 2
    # Also without the Source: the controller remembers whose services they are.
    host.stop()
    host.remove("team.yaml")
    host.up()
    eventually(lambda: removals_held_back(host), what="removals are held back again")
    assert len(host.running_ids("web")) == 2
    host.cli("approve", "--yes")
    eventually(lambda: not host.names("web") + host.names("last"), what="approved, and gone")
    assert host.is_ready("more")


def removals_held_back(host: Host) -> list[str]:
    problems = (host.status() or {"problems": []})["problems"]
    return [problem["message"] for problem in problems if problem["code"] == "PrunePending"]


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody with a working tree."""
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def plan_a_pull_request(host: Host, tree: Path) -> None:
    """A change of the source's files is planned here and elsewhere; DIR's service isn't part of it."""
    host.write("own.yaml", web("own"))
    host.await_ready("own")
    change = host.folder / "pull-request"
    shutil.copytree(tree / "deploy", change)
    (change / "web.yaml").write_text(web("web", replicas=1))
    (change / "new.yaml").write_text(web("new"))
    (change / "taken.yaml").write_text(web("own"))
    against = ("plan", "--against", str(change), "--source", "team")
    assert "Service/default/own is already served by DIR" in host.cli(*against, expect=3).stdout
    (change / "taken.yaml").unlink()
    here = host.cli(*against, expect=2).stdout
    assert "remove 1 replica" in here
    assert "create 1 replica" in here
    assert "Service/default/own" not in here
    file = host.folder / "host.json"
    file.write_text(host.cli("snapshot").stdout)
    nowhere = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    assert host.cli(*against, "--snapshot", str(file), expect=2, **nowhere).stdout == here
    (change / "web.yaml").unlink()
    assert "remove 2 replicas" in host.cli(*against, expect=2).stdout
    done = host.cli("plan", "--against", str(change), "--source", "other", expect=64)
    assert "declares no Source other" in done.stderr
    assert "name one of its Sources: team" in done.stderr


def plan_a_commit(host: Host, earlier: str) -> None:
    """A commit that the fetcher has is planned without a checkout; what runs goes on."""
    against = ("plan", "--against", earlier[:12], "--source", "team")
    shown = host.json(*against, expect=2)
    assert "Service/default/api" in {each["object"] for each in shown["objects"]}
    assert not host.names("api")
    missing = host.cli("plan", "--against", "f" * 40, "--source", "team", expect=1)
    assert "the mirror of source team has no commit" in missing.stderr
    assert "trimtab source sync team" in missing.stderr
    # One file of DIR, with all else as it is.
    file = host.folder / "own.yaml"
    file.write_text(web("own", replicas=2))
    shown = host.cli("plan", "--against", str(file), expect=2).stdout
    assert "Service/default/own  create 1 of 2 replicas" in shown
    assert "Service/default/web" not in shown
    assert " 0 to remove" in shown


@pytest.mark.timeout(300)
def test_a_commit_becomes_a_container_and_an_empty_one_does_not(host: Host) -> None:
    bare, tree = host.folder / "deploy.git", host.folder / "tree"
    git(host.folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(host.folder, "clone", "--quiet", str(bare), str(tree))
    (tree / "deploy").mkdir()

    def push(subject: str, **services: int) -> str:
        for path in (tree / "deploy").iterdir():
            path.unlink()
        for name, replicas in services.items():
            (tree / "deploy" / f"{name}.yaml").write_text(web(name, replicas=replicas))
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message", subject)
        git(tree, "push", "--quiet", "origin", "HEAD:main")
        return git(tree, "rev-parse", "HEAD")

    first = push("one", web=1, api=1)
    text = SOURCE.format(more="").replace("/nowhere/deploy.git", str(bare))
    host.write("team.yaml", text.replace("interval: 1h", "interval: 10s"))
    host.up()
    host.await_ready("web", "api")
    assert source_row(host)["commit"] == first
    second = push("two", web=2)
    eventually(lambda: source_row(host).get("commit") == second, what="the commit is served")
    eventually(lambda: len(host.running_ids("web")) == 2, what="and runs")
    eventually(lambda: not host.names("api"), what="what it dropped is gone")
    eventually(lambda: source_row(host)["state"] == "Ready", what="the fetcher's report is shown")
    blamed = host.cli("journal", "blame", "web").stdout
    # Each replica was made by the commit that asked for it.
    assert all(f" of {each[:12]}" in blamed for each in (first, second))
    assert "team:web.yaml:" in blamed
    assert "by Ann" in blamed
    plan_a_pull_request(host, tree)
    plan_a_commit(host, first)
    # A commit that declares nothing isn't served.
    third = push("three")
    eventually(lambda: source_row(host)["state"] == "Held", what="the empty commit is held")
    assert source_row(host)["commit"] == second
    assert "SourceHeld" in codes(host)
    assert len(host.running_ids("web")) == 2
    assert "Held" in host.cli("status").stdout
    assert second in host.cli("describe", "team").stdout
    check_the_record_of_a_hold(host, third)


def check_the_record_of_a_hold(host: Host, commit: str) -> None:
    """The journal has one record of a hold, also after a restart."""

    def records() -> list[dict[str, Any]]:
        acts = [record for record in host.records("operator") if "request" in record]
        return [record for record in acts if record["request"]["route"] == "source.held"]

    (record,) = eventually(records, what="the hold is recorded")
    assert record["request"]["object"] == "Source/default/team"
    assert record["actor"]["role"] == "controller"
    assert record["request"]["summary"]["note"].startswith(f"commit {commit}: source.empty: ")
    assert commit in host.cli("journal", "list", "--action", "source.held", "--json").stdout
    log = host.cli("source", "log", "team").stdout
    assert ["held", commit[:12]] in [line.split()[:2] for line in log.splitlines()]
    assert "held since" in log
    host.stop()
    host.up()
    eventually(lambda: source_row(host).get("state") == "Held", what="it is held still")
    host.cli("source", "sync", "team")
    assert records() == [record]
