"""Where Git works; what can't be looked at is nobody's folder, and no error."""

from pathlib import Path

from controller.sources.git import git_folder
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
