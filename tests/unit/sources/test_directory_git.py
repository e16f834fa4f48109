"""The Git state of a folder. A folder without access counts as no repository, without an error."""

import os
import subprocess
from pathlib import Path

from controller.sources.directory import DirectorySource, commit_of, git_folder
from controller.sources.watch import scope_of

#: No system call takes it: a stand-in for what may not be looked at, which is nothing to root.
CLOSED = Path("/" + "x" * 300)


def test_the_git_folder_is_found_above_and_behind_a_pointer(tmp_path: Path):
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    assert git_folder(inner) is None
    (tmp_path / ".git").mkdir()
    assert git_folder(inner) == tmp_path / ".git"
    (tmp_path / "tree" / ".git").write_text("gitdir: ../.git\n")
    assert git_folder(inner) == tmp_path / "tree" / "../.git"


def test_a_directory_that_may_not_be_looked_at_is_no_error():
    assert git_folder(CLOSED / "desired") is None
    assert scope_of([CLOSED / "desired"]) == scope_of([CLOSED / "desired"])


def git(folder: Path, *argv: str) -> str:
    """Run Git in a folder, with a user name set, and return the output."""
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", *who, *argv], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


WEB = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec: {image: trimtab.local/web:1}
"""


def test_a_declaration_is_told_with_the_commit_that_is_checked_out(tmp_path: Path):
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "desired").mkdir(parents=True)
    (root / "desired" / "web.yaml").write_text(WEB)

    def told(place: Path = root) -> str:
        desired = DirectorySource(place / "desired").load()
        (service,) = desired.services
        assert desired.identity.commit == service.source.commit
        return service.source.commit

    assert told() == ""
    git(root, "init", "--quiet", "--initial-branch=main")
    assert told() == "", "nothing is committed"
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "web")
    first = git(root, "rev-parse", "HEAD")
    assert told() == first
    git(root, "commit", "--quiet", "--allow-empty", "--message", "more")
    second = git(root, "rev-parse", "HEAD")
    assert told() == second != first
    git(root, "pack-refs", "--all")
    assert told() == second
    git(root, "worktree", "add", "--quiet", "-b", "side", str(other))
    assert told(other) == second
    git(other, "checkout", "--quiet", "--detach", first)
    assert (told(other), told()) == (first, second)


def test_no_commit_is_told_where_git_s_files_say_something_else(tmp_path: Path):
    (tmp_path / "secret").write_text("a" * 40)
    repository = tmp_path / "repository"
    repository.mkdir()
    for head in (
        "",
        "main",
        "a" * 39,
        "ref: refs/heads/main",
        "ref: ../secret",
        "ref: refs/../../secret",
    ):
        (repository / "HEAD").write_text(head)
        assert commit_of(repository) == "", head
    (repository / "HEAD").unlink()
    os.mkfifo(repository / "HEAD")
    assert commit_of(repository) == ""
