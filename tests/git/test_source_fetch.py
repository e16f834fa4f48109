"""What happens to repositories, and what a source then serves: real repositories, real git."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.git.tree_checks import FILES_MAX
from controller.fetch.export import KEPT
from controller.fetch.git_command import GitLimits
from controller.fetch.memory import CommitApproval
from controller.model.errors import SourceError
from tests.disk import small_disk
from tests.git.repository import (
    DOCUMENT,
    GOOD,
    Followed,
    Repository,
    World,
    git,
    replace_repository,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.served(tmp_path)


def test_a_commit_is_exported_and_served(world: World) -> None:
    source = world.source
    assert source.current == world.first
    assert source.files() == {
        "configs/web/Chart.yaml": "name: web\n",
        "deploy/web.yaml": DOCUMENT,
    }
    status = source.memory.status
    assert status.current is not None
    assert (status.current.commit, status.current.author) == (
        world.first,
        "Alice <alice@example.org>",
    )
    assert (source.exports / world.first / "deploy" / "web.yaml").stat().st_mode & 0o777 == 0o640


def test_a_newer_commit_replaces_the_served_one(world: World) -> None:
    second = world.repository.commit({"deploy/web.yaml": DOCUMENT, "deploy/db.yaml": DOCUMENT})
    assert world.source.fetch() == "Ready"
    assert world.source.current == second
    assert sorted(world.source.files()) == ["deploy/db.yaml", "deploy/web.yaml"]


def test_nothing_new_changes_nothing(world: World) -> None:
    before = world.source.memory
    assert world.source.fetch() == "Ready"
    assert world.source.memory == before


def test_an_empty_commit_is_served_without_another_file(world: World) -> None:
    served = world.source.files()
    second = world.repository.commit(GOOD)
    assert world.source.fetch() == "Ready"
    assert world.source.current == second
    assert world.source.files() == served


# What happens to a repository: the state of the source afterwards, and the reason. The first commit
# is served on in all rows.

Happening = Callable[[World], object]


def add(files: dict[str, str | bytes]) -> Happening:
    return lambda world: world.repository.commit({**GOOD, **files})


def add_entry(mode: str, name: bytes, object_id: str | None = None) -> Happening:
    """Commit an entry beside a document in the source's folder, by the raw tree."""

    def happen(world: World) -> None:
        repository = world.repository
        entry = (mode, name, object_id or repository.blob("../../etc/passwd"))
        document = ("100644", b"web.yaml", repository.blob(DOCUMENT))
        inside = repository.raw_tree(sorted([entry, document], key=lambda each: each[1]))
        repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))

    return happen


def force_push(world: World) -> None:
    second = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    world.source.fetch()
    world.first = second
    other = world.repository.tree({**GOOD, "deploy/db.yaml": "a: 1\n"})
    parent = git(world.repository.folder, "rev-parse", f"{second}^")
    world.repository.commit_tree(other, parents=(parent,))


def rebase(world: World) -> None:
    world.repository.commit_tree(
        world.repository.tree(GOOD), parents=(), variables={"GIT_AUTHOR_NAME": "Bob"}
    )


def rebase_onto(world: World) -> None:
    """Rebase the served commit onto another one of the branch."""
    base = world.first
    world.first = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    world.source.fetch()
    other = world.repository.commit_tree(world.repository.tree({"a": "1"}), parents=(base,))
    tree = world.repository.tree({**GOOD, "deploy/db.yaml": DOCUMENT})
    world.repository.commit_tree(tree, parents=(other,))


def push_unrelated(world: World) -> None:
    """Push the first commit of another project to the branch."""
    tree = world.repository.tree({"deploy/other.yaml": DOCUMENT})
    world.repository.commit_tree(tree, parents=())


def push_instead(reference: str) -> Happening:
    """Delete the branch, and push a reference with a name like it."""

    def happen(world: World) -> None:
        world.repository.delete("refs/heads/main")
        world.repository.push(world.first, reference)

    return happen


def follow_tree(world: World) -> None:
    world.source.git = ', "ref": {"name": "refs/trees/x"}'
    world.repository.push(world.repository.tree(GOOD), "refs/trees/x")


def cut_history(world: World) -> None:
    """Make the repository a shallow one, whose history begins at a new commit."""
    head = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    (world.repository.folder / "shallow").write_text(f"{head}\n")


def replace_by_sha256(world: World) -> None:
    folder = world.repository.folder
    shutil.rmtree(folder)
    folder.mkdir()
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "--object-format=sha256")
    world.repository.commit(GOOD)


def remove_object(world: World) -> None:
    commit = world.repository.commit({**GOOD, "deploy/db.yaml": "a: 3\n"})
    blob = git(world.repository.folder, "rev-parse", f"{commit}:deploy/db.yaml")
    (world.repository.folder / "objects" / blob[:2] / blob[2:]).unlink()


def go_back(world: World) -> None:
    second = world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    world.source.fetch()
    world.repository.push(world.first)
    world.first = second


def damage_object(world: World) -> None:
    commit = world.repository.commit({**GOOD, "deploy/db.yaml": "a: 2\n"})
    blob = git(world.repository.folder, "rev-parse", f"{commit}:deploy/db.yaml")
    path = world.repository.folder / "objects" / blob[:2] / blob[2:]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-4] + b"xxxx")


def nested_bomb(world: World) -> None:
    """Ten trees, each with ten times the one below: 10^10 files in a few kilobytes."""
    repository = world.repository
    inside, mode = repository.blob(DOCUMENT), "100644"
    for _ in range(10):
        entries = [(mode, f"f{number}.yaml".encode(), inside) for number in range(10)]
        inside, mode = repository.raw_tree(entries), "40000"
    repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))


def zipped_bomb(world: World) -> None:
    """256 MB of zeros, in a pack of 250 kB."""
    world.repository.commit({**GOOD, "deploy/zeros.yaml": bytes(256_000_000)})


def long_message(world: World) -> None:
    folder = world.repository.folder
    tree = world.repository.tree({**GOOD, "deploy/db.yaml": DOCUMENT})
    message = b"deploy " * 1_000_000
    words = ("commit-tree", "-p", world.first, "-F", "-", tree)
    world.repository.push(git(folder, *words, given=message))


def many_references(world: World) -> None:
    """A list of references beyond its bound, of which only one is asked for."""
    lines = "".join(f"create refs/tags/v{number} {world.first}\n" for number in range(5000))
    git(world.repository.folder, "update-ref", "--stdin", given=lines.encode())
    world.source.limits = GitLimits(output_max=100_000)
    world.source.git = ', "ref": {"semver": "1.x"}'


def many_files(world: World) -> None:
    repository = world.repository
    blob = repository.blob(DOCUMENT)
    entries = [("100644", f"{number:06}.yaml".encode(), blob) for number in range(100_000)]
    inside = repository.raw_tree(entries)
    repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))


def deep_path(world: World) -> None:
    add({"deploy/" + "a/" * 40 + "web.yaml": DOCUMENT})(world)


HAPPENINGS: dict[str, tuple[Happening, str]] = {
    # Histories.
    "the repository is replaced by another": (replace_repository, "Held source.unrelated"),
    "a force push drops the served commit": (force_push, "Held source.rewritten"),
    "a rebase makes all commits anew": (rebase, "Held source.unrelated"),
    "a rebase moves the served commit": (rebase_onto, "Held source.rewritten"),
    "an unrelated history is pushed": (push_unrelated, "Held source.unrelated"),
    "the branch goes back to an older commit": (go_back, "Held source.older"),
    "the branch is deleted": (
        lambda world: world.repository.delete("refs/heads/main"),
        "Failing source.reference-missing",
    ),
    "the branch becomes a folder of branches": (
        push_instead("refs/heads/main/x"),
        "Failing source.reference-missing",
    ),
    "a branch's name ends like the followed one": (
        push_instead("refs/heads/refs/heads/main"),
        "Failing source.reference-missing",
    ),
    "the reference leads to a tree": (follow_tree, "Failing source.object"),
    "the repository is gone": (
        lambda world: shutil.rmtree(world.repository.folder),
        "Failing source.repository-missing",
    ),
    "the repository is emptied": (
        lambda world: (
            shutil.rmtree(world.repository.folder),
            Repository(world.repository.folder),
        ),
        "Failing source.reference-missing",
    ),
    "an object is damaged": (damage_object, "Failing source.damaged"),
    "the repository becomes a shallow one": (cut_history, "Failing source.damaged"),
    "the repository gets another hash function": (replace_by_sha256, "Failing source.protocol"),
    "an object is missing": (remove_object, "Failing source.damaged"),
    # What commits contain.
    "a commit deletes everything": (
        lambda world: world.repository.commit({"README.md": "x"}),
        "Held source.empty",
    ),
    "a commit has an empty tree": (lambda world: world.repository.commit({}), "Held source.empty"),
    "a commit empties all documents": (
        lambda world: world.repository.commit({"deploy/web.yaml": ""}),
        "Held source.empty",
    ),
    "a commit moves the folder": (
        lambda world: world.repository.commit({"other/web.yaml": DOCUMENT}),
        "Held source.empty",
    ),
    "a submodule": (add_entry("160000", b"sub", "1" * 40), "Held source.submodule"),
    "a pointer of Git LFS": (
        add({"deploy/big.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}),
        "Held source.lfs",
    ),
    "a symbolic link out of the tree": (add_entry("120000", b"link.yaml"), "Held source.link"),
    "the folder is a symbolic link": (
        lambda world: world.repository.commit_tree(
            world.repository.raw_tree([("120000", b"deploy", world.repository.blob("/etc"))])
        ),
        "Held source.empty",
    ),
    "names that differ in case": (add({"deploy/Web.yaml": DOCUMENT}), "Held source.case"),
    "folders that differ in case": (
        add({"deploy/A/a.yaml": DOCUMENT, "deploy/a/b.yaml": DOCUMENT}),
        "Held source.case",
    ),
    "names that differ in Unicode form": (
        add({"deploy/\u00e9.yaml": DOCUMENT, "deploy/e\u0301.yaml": DOCUMENT}),
        "Held source.case",
    ),
    "a folder .git": (add({"deploy/.git/config": "[core]"}), "Failing source.damaged"),
    "a folder .GIT": (add({"deploy/.GIT/config": "[core]"}), "Failing source.damaged"),
    "a folder git~1": (add({"deploy/git~1/config": "[core]"}), "Failing source.damaged"),
    "a folder .git with an ignored character": (
        add({"deploy/.g\u200cit/config": "[core]"}),
        "Failing source.damaged",
    ),
    "a name '..'": (add_entry("100644", b".."), "Failing source.damaged"),
    "a name with a slash": (add_entry("100644", b"a/b.yaml"), "Failing source.damaged"),
    "a name that isn't UTF-8": (add_entry("100644", b"\xff.yaml"), "Held source.path"),
    "a name with a line break": (add_entry("100644", b"a\nb.yaml"), "Held source.path"),
    "a name with a backslash": (add_entry("100644", b"..\\a.yaml"), "Held source.path"),
    "a name that writes from right to left": (add({"deploy/\u202e.yaml": "a"}), "Held source.path"),
    "a path of 40 folders": (deep_path, "Held source.path"),
    "a file of 10 MB": (add({"deploy/big.bin": b"\0" * 10_000_000}), "Held source.too-large"),
    "100,000 files": (many_files, "Held source.too-many-files"),
    "a bomb of zeros": (zipped_bomb, "Held source.too-large"),
    "a message of 7 MB": (long_message, "Held source.object"),
    "more references than the bound": (many_references, "Failing source.too-large"),
    "a tree of 10^10 files": (nested_bomb, "Held source.too-many-files"),
}


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_the_served_commit_stays(world: World, happening: str) -> None:
    happen, expected = HAPPENINGS[happening]
    happen(world)
    served = world.source.files()
    assert world.source.fetch() == expected
    assert world.source.current == world.first
    assert world.source.files() == served
    assert world.source.fetch() == expected  # also at the next try


def test_a_held_source_goes_on_with_a_newer_good_commit(world: World) -> None:
    world.repository.commit({})
    assert world.source.fetch() == "Held source.empty"
    third = world.repository.commit(GOOD)
    assert world.source.fetch() == "Ready"
    assert world.source.current == third
    assert world.source.memory.status.candidate is None


def approve(source: Followed, commit: str) -> str:
    source.memory = replace(source.memory, approval=CommitApproval(commit, "uid:0"))
    return source.fetch()


def test_an_approval_serves_exactly_the_held_commit(world: World) -> None:
    force_push(world)
    assert world.source.fetch() == "Held source.rewritten"
    held = world.source.memory.status.candidate
    assert held is not None
    assert approve(world.source, world.first) == "Held source.rewritten"
    assert approve(world.source, held.commit) == "Ready"
    assert world.source.current == held.commit
    assert world.source.memory.status.approved_by == "uid:0"


def test_no_approval_serves_a_tree_that_cannot_be_exported(world: World) -> None:
    add_entry("120000", b"link.yaml")(world)
    assert world.source.fetch() == "Held source.link"
    held = world.source.memory.status.candidate
    assert held is not None
    assert not world.source.memory.approvable
    assert approve(world.source, held.commit) == "Held source.link"


def test_an_unsigned_commit_is_held(world: World) -> None:
    world.source.more = ', "verify": {"mode": "head", "keys": "team"}'
    world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    assert world.source.fetch() == "Held source.unsigned"
    assert world.source.current == world.first


def test_the_clock_of_commits_has_no_say(world: World) -> None:
    date = "1000000000 +0000"
    second = world.repository.commit_tree(
        world.repository.tree({"deploy/db.yaml": DOCUMENT}),
        variables={"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date},
    )
    assert world.source.fetch() == "Ready"
    assert world.source.current == second


def test_a_first_commit_that_declares_nothing_is_not_served(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    repository.commit({"README.md": "x"})
    source = Followed(tmp_path / "fetcher", repository.url)
    assert source.fetch() == "Held source.empty"
    assert not (source.exports / "current").exists()


def test_a_repository_without_a_commit_is_no_empty_source(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    source = Followed(tmp_path / "fetcher", repository.url)
    assert source.fetch() == "Failing source.reference-missing"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ('{"tag": "v1.1.0"}', "v1.1.0"),
        ('{"semver": "1.x"}', "v1.10.0"),
        ('{"semver": ">=1.0.0 <1.5.0"}', "v1.1.0"),
        ('{"name": "refs/pull/7/head"}', "refs/pull/7/head"),
    ],
)
def test_references_are_followed(tmp_path: Path, reference: str, expected: str) -> None:
    repository = Repository(tmp_path / "deploy.git")
    for number, name in enumerate(("v1.1.0", "v1.10.0", "v2.0.0", "v1.11.0-rc.1", "other")):
        repository.commit({"deploy/web.yaml": f"a: {number}\n"})
        git(repository.folder, "tag", "-m", name, name, "main")
    repository.push(repository.commit({"deploy/web.yaml": "a: 9\n"}), "refs/pull/7/head")
    source = Followed(tmp_path / "fetcher", repository.url, git=f', "ref": {reference}')
    assert source.fetch() == "Ready"
    assert source.current == git(repository.folder, "rev-parse", f"{expected}^{{commit}}")


def test_a_fixed_commit_is_fetched_once_without_a_reference(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    source = Followed(tmp_path / "fetcher", repository.url, git=f', "ref": {{"commit": "{first}"}}')
    assert source.fetch() == "Ready"
    assert source.current == first
    shutil.rmtree(repository.folder)
    assert source.fetch() == "Ready"


def test_a_moved_tag_is_held_unless_it_moved_forward(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    second = repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    repository.push(second, "refs/tags/live")
    source = Followed(tmp_path / "fetcher", repository.url, git=', "ref": {"tag": "live"}')
    assert source.fetch() == "Ready"
    repository.push(first, "refs/tags/live")
    assert source.fetch() == "Held source.older"
    repository.push(repository.commit(GOOD), "refs/tags/live")
    assert source.fetch() == "Ready"


def test_another_folder_of_the_same_commit_is_exported_anew(world: World) -> None:
    world.repository.commit({**GOOD, "prod/db.yaml": DOCUMENT})
    world.source.fetch()
    world.source.path = "prod"
    assert world.source.fetch() == "Ready"
    assert sorted(world.source.files()) == ["configs/web/Chart.yaml", "prod/db.yaml"]
    world.source.path = "missing"
    assert world.source.fetch() == "Held source.empty"
    assert sorted(world.source.files()) == ["configs/web/Chart.yaml", "prod/db.yaml"]


def test_the_whole_tree_is_exported_for_the_folder_dot(world: World) -> None:
    world.source.path = "."
    assert world.source.fetch() == "Ready"
    assert sorted(world.source.files()) == sorted(GOOD)


def test_earlier_exports_are_removed(world: World) -> None:
    for number in range(KEPT + 4):
        world.repository.commit({"deploy/web.yaml": f"a: {number}\n"})
        assert world.source.fetch() == "Ready"
    folders = [path for path in world.source.exports.iterdir() if path.is_dir()]
    assert len({path.resolve() for path in folders}) == KEPT + 1
    assert world.source.files() == {"deploy/web.yaml": f"a: {KEPT + 3}\n"}


def test_the_bound_of_files_is_exact(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    blob = repository.blob(DOCUMENT)
    for count, expected in ((FILES_MAX, "deploy"), (FILES_MAX + 1, None)):
        entries = [("100644", f"{number:06}.yaml".encode(), blob) for number in range(count)]
        inside = repository.raw_tree(entries)
        repository.commit_tree(
            repository.raw_tree([("40000", b"deploy", inside)]),
            parents=() if not repository.has_main() else None,
        )
        source = Followed(tmp_path / f"fetcher-{count}", repository.url)
        assert source.fetch() == ("Ready" if expected else "Held source.too-many-files")


def test_an_unwritable_folder_is_an_error(world: World) -> None:
    world.repository.commit({**GOOD, "deploy/db.yaml": DOCUMENT})
    shutil.rmtree(world.source.exports)
    world.source.exports.write_text("")
    with pytest.raises(SourceError, match="source"):
        world.source.source().run(world.source.spec, world.source.memory, save=lambda _: None)


@pytest.mark.needs_root
def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "deploy.git")
    first = repository.commit(GOOD)
    with small_disk(tmp_path / "disk", image=tmp_path / "image") as disk:
        source = Followed(disk.root / "fetcher", repository.url)
        assert source.fetch() == "Ready"
        second = repository.commit({**GOOD, "deploy/db.yaml": os.urandom(500_000)})
        disk.leave(0)
        assert source.fetch() == "Failing source.disk-full"
        assert source.current == first
        assert sorted(source.files()) == ["configs/web/Chart.yaml", "deploy/web.yaml"]
        disk.free()
        disk.leave(250_000)  # and what root alone may use: enough for the fetch, not for the export
        assert source.fetch() == "Failing source.disk-full"
        assert source.current == first
        disk.free()
        assert source.fetch() == "Ready"
        assert source.current == second
