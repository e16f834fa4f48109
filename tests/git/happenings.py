"""The table of what happens to repositories and around them, and what comes of each.

In all rows what runs goes on: a container is replaced only where a healthy newer commit says so, and
nothing is removed. ``tests/git`` lets each row happen to a fetcher, ``tests/e2e`` a row of each state
at once to an instance beside a real engine. The table is also the page ``docs/operations/git.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from controller.fetch.mirror import GitLimits
from tests.git import acts
from tests.git.places import Happening, Place

HISTORIES = {
    "the repository is replaced by another": Happening(
        acts.replace_repository, "Held source.unrelated"
    ),
    "a force push drops the served commit": Happening(
        acts.force_push, "Held source.rewritten", acts.commit_twice
    ),
    "a rebase makes all commits again": Happening(acts.rebase, "Held source.unrelated"),
    "a rebase moves the served commit": Happening(
        acts.rebase_onto, "Held source.rewritten", acts.commit_twice
    ),
    "an unrelated history is pushed": Happening(acts.push_unrelated, "Held source.unrelated"),
    "the branch goes back to an older commit": Happening(
        acts.go_back, "Held source.older", acts.commit_twice
    ),
    "the branch is deleted": Happening(acts.delete_branch, "Failing source.reference-missing"),
    "the branch becomes a folder of branches": Happening(
        acts.push_instead("refs/heads/main/x"),
        "Failing source.reference-missing",
    ),
    "a branch's name ends like the followed one": Happening(
        acts.push_instead("refs/heads/refs/heads/main"),
        "Failing source.reference-missing",
    ),
    "the tag moves back": Happening(
        acts.move_tag_back, "Held source.older", acts.tag_commits, ref={"tag": "live"}
    ),
    "the tag is deleted": Happening(
        lambda place: place.repository.delete("refs/tags/live"),
        "Failing source.reference-missing",
        acts.tag_commits,
        ref={"tag": "live"},
    ),
    "the reference leads to a tree": Happening(
        acts.lead_to_tree,
        "Failing source.object",
        acts.follow("refs/deploy/prod"),
        ref={"name": "refs/deploy/prod"},
    ),
    "the repository is gone": Happening(
        lambda place: shutil.rmtree(place.repository.folder), "Failing source.repository-missing"
    ),
    "the repository is emptied": Happening(
        acts.empty_repository, "Failing source.reference-missing"
    ),
    "an object is damaged": Happening(acts.damage_object, "Failing source.damaged"),
    "an object is missing": Happening(
        acts.remove_object,
        "Failing source.damaged",
    ),
    "the repository becomes a shallow one": Happening(acts.cut_history, "Failing source.damaged"),
    "the repository gets another hash function": Happening(
        acts.replace_by_sha256, "Failing source.protocol"
    ),
    "the list of references is longer than 32 MiB": Happening(
        acts.many_references,
        "Failing source.too-large",
        acts.follow_versions,
        ref={"semver": "1.x"},
    ),
}
CONTENTS = {
    "a commit deletes everything": Happening(acts.leave({"a.md": "x"}), "Held source.empty"),
    "a commit has an empty tree": Happening(acts.leave({}), "Held source.empty"),
    "a commit empties all documents": Happening(
        acts.leave({"deploy/web.yaml": ""}),
        "Held source.empty",
    ),
    "a commit moves the folder": Happening(
        lambda place: place.repository.commit({"other/web.yaml": place.document()}),
        "Held source.empty",
    ),
    "a submodule": Happening(acts.add_entry("160000", b"sub", "1" * 40), "Held source.submodule"),
    "a pointer of Git LFS": Happening(
        acts.add({"deploy/big.yaml": acts.LFS_POINTER}), "Held source.lfs"
    ),
    "a symbolic link out of the tree": Happening(
        acts.add_entry("120000", b"link.yaml"), "Held source.link"
    ),
    "the folder is a symbolic link": Happening(
        acts.link_folder,
        "Held source.empty",
    ),
    "names that differ in case": Happening(
        acts.two_documents("deploy/Db.yaml", "deploy/db.yaml"), "Held source.case"
    ),
    "folders that differ in case": Happening(
        acts.two_documents("deploy/A/a.yaml", "deploy/a/b.yaml"),
        "Held source.case",
    ),
    "names that differ in Unicode form": Happening(
        acts.two_documents("deploy/\u00e9.yaml", "deploy/e\u0301.yaml"),
        "Held source.case",
    ),
    "a folder .git": Happening(
        acts.add({"deploy/.git/config": "[core]"}), "Failing source.damaged"
    ),
    "a folder .GIT": Happening(
        acts.add({"deploy/.GIT/config": "[core]"}),
        "Failing source.damaged",
    ),
    "a folder git~1": Happening(
        acts.add({"deploy/git~1/config": "[core]"}),
        "Failing source.damaged",
    ),
    "a folder .git with an ignored character": Happening(
        acts.add({"deploy/.g\u200cit/config": "[core]"}),
        "Failing source.damaged",
    ),
    "a name '..'": Happening(acts.add_entry("100644", b".."), "Failing source.damaged"),
    "a name with a slash": Happening(
        acts.add_entry("100644", b"a/b.yaml"),
        "Failing source.damaged",
    ),
    "a name that isn't UTF-8": Happening(
        acts.add_entry("100644", b"\xff.yaml"), "Held source.path"
    ),
    "a name with a line break": Happening(
        acts.add_entry("100644", b"a\nb.yaml"),
        "Held source.path",
    ),
    "a name with a backslash": Happening(
        acts.add_entry("100644", b"..\\a.yaml"),
        "Held source.path",
    ),
    "a name that writes from right to left": Happening(
        acts.add({"deploy/\u202e.yaml": "a"}),
        "Held source.path",
    ),
    "a path of 40 folders": Happening(
        acts.add({"deploy/" + "a/" * 40 + "web.yaml": "a"}), "Held source.path"
    ),
    "a file of 10 MB": Happening(
        acts.add({"deploy/big.bin": b"\0" * 10_000_000}), "Held source.too-large"
    ),
    "100,000 files": Happening(acts.many_files, "Held source.too-many-files"),
    "a pack of 65 kB with 64 MB of zeros": Happening(
        acts.add({"deploy/zeros.yaml": bytes(64_000_000)}), "Held source.too-large"
    ),
    "a tree of 10^10 files": Happening(acts.nested_bomb, "Held source.too-many-files"),
    "a message of 7 MB": Happening(acts.long_message, "Held source.object"),
}
SIGNATURES = {
    "an unsigned commit": Happening(
        Place.commit_another, "Held source.unsigned", acts.commit_signed, verify="head"
    ),
    "a signature of an unknown key": Happening(
        lambda place: place.commit_another(key="bob"),
        "Held source.key-unknown",
        acts.commit_signed,
        verify="head",
    ),
    "a signature of an expired key": Happening(
        acts.with_signed_commit(lambda place: place.allow(options='valid-before="20200101"')),
        "Held source.key-expired",
        acts.commit_signed,
        verify="head",
    ),
    "a signature of a key that isn't valid yet": Happening(
        acts.with_signed_commit(lambda place: place.allow(options='valid-after="20900101"')),
        "Held source.key-expired",
        acts.commit_signed,
        verify="head",
    ),
    "a signature of a revoked key": Happening(
        acts.with_signed_commit(acts.revoke),
        "Held source.key-revoked",
        acts.commit_signed,
        verify="head",
    ),
    "the signature of another commit": Happening(
        acts.signature_of_another_commit, "Held source.signature", acts.commit_signed, verify="head"
    ),
    "the trusted keys are lost": Happening(
        acts.with_signed_commit(acts.lose_keys),
        "Held source.keys",
        acts.commit_signed,
        verify="head",
    ),
    "others can change the trusted keys": Happening(
        acts.with_signed_commit(acts.open_keys),
        "Held source.keys",
        acts.commit_signed,
        verify="head",
    ),
    "an unsigned commit below a signed one": Happening(
        acts.hide_unsigned, "Held source.unsigned", acts.commit_signed, verify="all"
    ),
    "a signed tag under another name": Happening(
        acts.rename_tag, "Held source.object", acts.tag_signed, ref={"tag": "live"}, verify="tag"
    ),
}
SERVERS = {
    "a fetch is interrupted": Happening(
        acts.fail("cut"), "Failing source.unreachable", over="faulty"
    ),
    "the server is down": Happening(acts.stop_server, "Failing source.unreachable", over="http"),
    "the server answers 503": Happening(
        acts.fail(503), "Failing source.unreachable", over="faulty"
    ),
    "the server answers 404": Happening(
        acts.fail(404),
        "Failing source.repository-missing",
        over="faulty",
    ),
    "the server redirects elsewhere": Happening(
        acts.fail(302), "Failing source.redirected", over="faulty"
    ),
    "the server sends one byte a second": Happening(
        acts.fail("drip"), "Failing source.slow", over="faulty", limits=GitLimits(list_time_s=2.0)
    ),
    "the password has expired": Happening(
        acts.expire_password, "Failing source.credentials", over="http"
    ),
    "the password is lost": Happening(
        acts.lose_password, "Failing source.credentials", over="http"
    ),
    "the server no longer takes the SSH key": Happening(
        acts.refuse_key, "Failing source.credentials", over="ssh"
    ),
    "the server's host key changes": Happening(
        acts.change_host_key, "Failing source.host-key", over="ssh"
    ),
}
NEWER = {
    "a good commit changes the service": Happening(acts.change_service, moves=True, replaces=True),
    "a good commit over HTTP": Happening(
        acts.change_service, moves=True, replaces=True, over="http"
    ),
    "a good commit over SSH": Happening(acts.change_service, moves=True, replaces=True, over="ssh"),
    "an empty commit": Happening(Place.commit, moves=True),
    "a commit dated before its parent": Happening(
        acts.commit_dated("1000000000 +0000"), moves=True, replaces=True
    ),
    "a commit dated in the year 2090": Happening(
        acts.commit_dated("3800000000 +0000"), moves=True, replaces=True
    ),
    "the tag moves forward": Happening(
        acts.move_tag_forward,
        prepare=acts.tag_commits,
        moves=True,
        replaces=True,
        ref={"tag": "live"},
    ),
    "nothing happens": Happening(lambda _: None, prepare=acts.serve_common, is_shared=True),
    "two sources declare one key": Happening(
        acts.declare("deploy/common.yaml", acts.common_document),
        moves=True,
        problem="source.conflict",
        is_shared=True,
    ),
    "a source declares a foreign namespace": Happening(
        acts.declare("deploy/foreign.yaml", acts.foreign_document),
        moves=True,
        problem="source.foreign",
    ),
    "a source declares a Source": Happening(
        acts.declare("deploy/inner.yaml", acts.source_document), moves=True, problem="source.nested"
    ),
    "a document that can't be read replaces the service": Happening(
        acts.declare("deploy/web.yaml", lambda _: "kind: [\n"), moves=True, problem="yaml.syntax"
    ),
}
SECTIONS = {
    "History": HISTORIES,
    "Content of a commit": CONTENTS,
    "Signatures": SIGNATURES,
    "Servers and credentials": SERVERS,
    "Newer commits that are served": NEWER,
}
HAPPENINGS = {row: each for table in SECTIONS.values() for row, each in table.items()}

#: A part of the message of each reason.
MESSAGES = {
    "source.case": "differ only in case or in Unicode form",
    "source.conflict": "is already served by",
    "source.credentials": "password can't be read|Authentication failed|Permission denied",
    "source.damaged": "object [0-9a-f]+: \\w+: |inflate|repository corruption|is shallow",
    "source.empty": "has no document below the source's folder",
    "source.foreign": "doesn't list namespace bank",
    "source.host-key": "Host key for .* has changed",
    "source.key-expired": "isn't valid now: .*: key (has expired|is not yet valid)",
    "source.key-revoked": "is revoked by",
    "source.key-unknown": "nobody who may sign has its key",
    "source.keys": "the keys can't be used: .* (has neither|others can change it)",
    "source.lfs": "is a pointer of Git LFS",
    "source.link": "is a symbolic link",
    "source.nested": "a Git source can't declare Sources",
    "source.object": "(expected commit type|longer than 1048576 bytes|its signed name is test)",
    "source.older": "went back to the older commit",
    "source.path": "isn't UTF-8|control character|deeper than 24 folders",
    "source.protocol": "mismatched algorithms",
    "source.redirected": "302",
    "source.reference-missing": "the repository has no (branch main|tag live)",
    "source.repository-missing": "does not appear to be a git repository|not found",
    "source.rewritten": "the history was rewritten",
    "source.signature": "its signature isn't good",
    "source.slow": "git didn't finish in time|Operation too slow",
    "source.submodule": "is a submodule",
    "source.too-large": "at most 8 MiB are possible|more than its bound",
    "source.too-many-files": "more than 10000 files",
    "source.unreachable": "Failed to connect|returned error: 503|bytes missing",
    "source.unrelated": "has no common history with the served one",
    "source.unsigned": "it has no signature",
    "yaml.syntax": "is never closed",
}

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "git.md"
_INTRO = """\
# What happens to Git repositories, and what comes of it

Made by `make docs` from the rows of tests, with real repositories, nginx and sshd. Each row happens to one source; a row of
each state over each server happens, all at once, to one instance on a real engine. No row removes anything. A container is
replaced only where a healthy newer commit changes its service. [../git.md](../git.md) explains the states, [../errors.md](../errors/git.md#git-sources) the reasons and what to do.

A full disk under the fetcher's folder is `Failing` with `source.disk-full`, and the containers go on. A killed fetcher is
started again, and reaches the same outcomes.
"""
_HEAD = ("what happens", "state", "reason", "the container")


def beside_engine() -> dict[str, Happening]:
    """Return a row for each state, over each server and each way to verify.

    Rows that differ in the reason alone are variants: the fetcher's ring has the reason of each, and to an
    instance it is a text.
    """
    found: dict[tuple[object, ...], tuple[str, Happening]] = {}
    for row, each in HAPPENINGS.items():
        ways = (each.over, each.verify, each.moves, each.replaces, each.is_shared)
        found.setdefault((each.state, each.problem, *ways), (row, each))
    return dict(found.values())


def page() -> str:
    """Return the page."""
    return _INTRO + "".join(f"\n## {name}\n\n{_table(rows)}" for name, rows in SECTIONS.items())


def _table(rows: Mapping[str, Happening]) -> str:
    cells = [_HEAD, ("---",) * len(_HEAD), *(_cells(row, each) for row, each in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells).replace(" |  |", " | |")


def _cells(row: str, happening: Happening) -> tuple[str, ...]:
    reason = happening.reason or happening.problem
    became = "is replaced" if happening.replaces else "goes on"
    return row, happening.state, f"`{reason}`" if reason else "", became


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
