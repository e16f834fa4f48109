"""What people, servers and accidents do to a repository that a source follows.

An act that makes a good newer commit returns its id.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.git.places import COMMON, Place
from tests.git.repository import Repository, git
from tests.git.servers import FaultyServer, NginxServer, SshServer

Act = Callable[[Place], object]


# Histories.


def commit_twice(place: Place) -> None:
    """Serve the second of two commits."""
    place.commit()
    place.commit({"a.md": "y"})


def parent_of(place: Place) -> str:
    return git(place.repository.folder, "rev-parse", f"{place.served}^")


def tree_of(place: Place, version: int = 2) -> str:
    """Write the tree of a good commit with a changed service."""
    files = {**place.good, "deploy/web.yaml": place.document(version=version)}
    return place.repository.tree(files)


def replace_repository(place: Place) -> None:
    shutil.rmtree(place.repository.folder)
    other = Repository(place.repository.folder)
    other.commit({"deploy/other.yaml": place.document("other")})


def force_push(place: Place) -> None:
    """Push another second commit instead of the served one."""
    place.repository.commit_tree(tree_of(place), parents=(parent_of(place),))


def rebase(place: Place) -> None:
    """Make all commits again, with another author."""
    variables = {"GIT_AUTHOR_NAME": "Bob"}
    place.repository.commit_tree(tree_of(place), parents=(), variables=variables)


def rebase_onto(place: Place) -> None:
    """Rebase the served commit onto another one of the branch."""
    repository = place.repository
    other = repository.commit_tree(repository.tree({"a": "1"}), parents=(parent_of(place),))
    repository.commit_tree(tree_of(place), parents=(other,))


def push_unrelated(place: Place) -> None:
    """Push the first commit of another project to the branch."""
    tree = place.repository.tree({"deploy/other.yaml": place.document("other")})
    place.repository.commit_tree(tree, parents=())


def go_back(place: Place) -> None:
    place.repository.push(parent_of(place))


def delete_branch(place: Place) -> None:
    place.repository.delete("refs/heads/main")


def push_instead(reference: str) -> Act:
    """Delete the branch, and push a reference with a name like it."""

    def happen(place: Place) -> None:
        delete_branch(place)
        place.repository.push(place.served, reference)

    return happen


def follow(reference: str) -> Act:
    """Serve the commit of another reference than the branch."""
    return lambda place: place.repository.push(place.commit(), reference)


def lead_to_tree(place: Place) -> None:
    place.repository.push(tree_of(place), "refs/deploy/prod")


def cut_history(place: Place) -> None:
    """Make the repository a shallow one, whose history begins at a new commit."""
    (place.repository.folder / "shallow").write_text(f"{place.commit_another()}\n")


def replace_by_sha256(place: Place) -> None:
    shutil.rmtree(place.repository.folder)
    place.repository = Repository(place.repository.folder, hashed_by="sha256")
    place.commit()


def empty_repository(place: Place) -> None:
    shutil.rmtree(place.repository.folder)
    Repository(place.repository.folder)


def tag_commits(place: Place) -> None:
    """Serve the second of two commits by its tag."""
    commit_twice(place)
    git(place.repository.folder, "tag", "live", "main")


def move_tag_back(place: Place) -> None:
    place.repository.push(parent_of(place), "refs/tags/live")


def move_tag_forward(place: Place) -> str:
    commit = place.repository.commit_tree(tree_of(place))
    place.repository.push(commit, "refs/tags/live")
    return commit


# Objects.


def object_of_new_commit(place: Place) -> Path:
    """Push a commit, and return the path of a file's object."""
    commit = place.commit_another()
    blob = git(place.repository.folder, "rev-parse", f"{commit}:deploy/db.yaml")
    return place.repository.folder / "objects" / blob[:2] / blob[2:]


def remove_object(place: Place) -> None:
    object_of_new_commit(place).unlink()


def damage_object(place: Place) -> None:
    path = object_of_new_commit(place)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-4] + b"xxxx")


# Contents of commits.


def add(files: dict[str, str | bytes]) -> Act:
    return lambda place: place.commit(files)


def leave(files: dict[str, str | bytes]) -> Act:
    """Commit these files alone."""
    return lambda place: place.repository.commit(files)


def add_entry(mode: str, name: bytes, object_id: str | None = None) -> Act:
    """Commit an entry beside a document in the source's folder, by the raw tree."""

    def happen(place: Place) -> None:
        repository = place.repository
        entry = (mode, name, object_id or repository.blob("../../etc/passwd"))
        document = ("100644", b"web.yaml", repository.blob(place.document()))
        inside = repository.raw_tree(sorted([entry, document], key=lambda each: each[1]))
        repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))

    return happen


def link_folder(place: Place) -> None:
    target = place.repository.blob("/etc")
    place.repository.commit_tree(place.repository.raw_tree([("120000", b"deploy", target)]))


def two_documents(*paths: str) -> Act:
    """Commit two good documents, the paths of which differ little."""
    return lambda place: place.commit(
        {path: place.document(f"s{number}") for number, path in enumerate(paths)}
    )


def nested_bomb(place: Place) -> None:
    """Ten trees, each with ten times the one below: 10^10 files in a few kilobytes."""
    repository = place.repository
    inside, mode = repository.blob(place.document()), "100644"
    for _ in range(10):
        entries = [(mode, f"f{number}.yaml".encode(), inside) for number in range(10)]
        inside, mode = repository.raw_tree(entries), "40000"
    repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))


def long_message(place: Place) -> None:
    words = ("commit-tree", "-p", place.served, "-F", "-", tree_of(place))
    message = b"deploy " * 1_000_000
    place.repository.push(git(place.repository.folder, *words, given=message))


def many_references(place: Place) -> None:
    """Make the list of references longer than 32 MiB."""
    lines = (f"{place.served} refs/tags/v1.0.0-{'x' * 200}{n}\n" for n in range(140_000))
    text = "# pack-refs with: peeled fully-peeled sorted \n" + "".join(sorted(lines))
    (place.repository.folder / "packed-refs").write_text(text)


def follow_versions(place: Place) -> None:
    follow("refs/tags/v1.0.0")(place)


def many_files(place: Place) -> None:
    repository = place.repository
    blob = repository.blob(place.document())
    entries = [("100644", f"{number:06}.yaml".encode(), blob) for number in range(100_000)]
    inside = repository.raw_tree(entries)
    repository.commit_tree(repository.raw_tree([("40000", b"deploy", inside)]))


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


# Signatures.


def commit_signed(place: Place) -> None:
    place.commit(key="alice")


def with_signed_commit(after: Act) -> Act:
    """Push a commit that Alice signed, and change what is trusted."""

    def happen(place: Place) -> None:
        place.commit_another(key="alice")
        after(place)

    return happen


def revoke(place: Place) -> None:
    place.write_key("revoked_keys", place.key("alice").with_suffix(".pub").read_text())


def signature_of_another_commit(place: Place) -> None:
    """Move the signature of a good commit to a commit with another tree."""
    folder = place.repository.folder
    raw = git(folder, "cat-file", "commit", place.commit_another(key="alice"))
    forged = f"tree {tree_of(place)}\n{raw.split(chr(10), 1)[1]}\n"
    words = ("hash-object", "-t", "commit", "-w", "--stdin")
    place.repository.push(git(folder, *words, given=forged.encode()))


def lose_keys(place: Place) -> None:
    (place.around.keys / "allowed_signers").unlink()


def open_keys(place: Place) -> None:
    (place.around.keys / "allowed_signers").chmod(0o666)


def hide_unsigned(place: Place) -> None:
    """Push an unsigned commit below a signed one."""
    place.commit_another()
    place.commit({"deploy/web.yaml": place.document(version=2)}, key="alice")


def tag_signed(place: Place) -> None:
    place.tag("live", place.commit(), key="alice")


def rename_tag(place: Place) -> None:
    """Push a signed tag under the name of another one."""
    place.tag("test", place.commit_another(), key="alice")
    tag = git(place.repository.folder, "rev-parse", "refs/tags/test")
    place.repository.push(tag, "refs/tags/live")


# Servers.


def fail(fault: int | str) -> Act:
    """Push a commit of 300 kB, and let the server fail."""

    def happen(place: Place) -> None:
        assert isinstance(place.server, FaultyServer)
        place.commit({"deploy/big.bin": os.urandom(300_000)})
        place.server.fail(fault)

    return happen


def stop_server(place: Place) -> None:
    assert place.server is not None
    place.server.stop()


def expire_password(place: Place) -> None:
    assert isinstance(place.server, NginxServer)
    place.commit_another()
    place.server.change_password("another token")


def lose_password(place: Place) -> None:
    place.commit_another()
    (place.around.credentials / "password").unlink()


def refuse_key(place: Place) -> None:
    assert isinstance(place.server, SshServer)
    place.commit_another()
    (place.server.folder / "authorized_keys").write_text("")


def change_host_key(place: Place) -> None:
    """Stand up another server at the address: a new one, or somebody in the middle."""
    assert isinstance(place.server, SshServer)
    place.commit_another()
    place.server.stop()
    place.server.start("other_host")


# Newer commits.


def change_service(place: Place) -> str:
    return place.repository.commit_tree(tree_of(place))


def commit_dated(date: str) -> Act:
    """Commit a change with another clock."""
    variables = {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
    return lambda place: place.repository.commit_tree(tree_of(place), variables=variables)


def declare(path: str, write: Callable[[Place], str]) -> Act:
    return lambda place: place.commit({path: write(place)})


def common_document(place: Place) -> str:
    return place.document("common", namespace=COMMON)


def serve_common(place: Place) -> None:
    place.commit({"deploy/common.yaml": common_document(place)})


def foreign_document(place: Place) -> str:
    return place.document("foreign", namespace="bank")


def source_document(_place: Place) -> str:
    spec = '{namespaces: [bank], git: {url: "https://git.example.org/x.git"}}'
    return f"apiVersion: trimtab/v1\nkind: Source\nmetadata: {{name: inner, owner: team}}\nspec: {spec}\n"
