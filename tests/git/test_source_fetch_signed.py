"""Signed commits and tags, from a real repository through fetch and verification."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.core.git.commit_objects import DetachedSignature
from controller.fetch.verify import Verifier, read_keys
from controller.model.sources import CommitSignature
from tests.git.repository import DOCUMENT, Followed, Repository, git

GOOD = {"deploy/web.yaml": DOCUMENT}
OTHER = {"deploy/web.yaml": DOCUMENT, "deploy/db.yaml": DOCUMENT}


@dataclass
class Signed:
    """A source whose commits must be signed by Alice."""

    folder: Path
    repository: Repository
    source: Followed
    alice: Path
    bob: Path

    def allow(self, options: str = "") -> None:
        public = self.alice.with_suffix(".pub").read_text()
        line = f"alice@example.org {options} {public}"
        (self.folder / "keys" / "allowed_signers").write_text(line)

    def verify(self, keys: str, signature: DetachedSignature | None) -> CommitSignature:
        assert keys == "team"
        found = read_keys(self.folder / "keys", owners=(os.getuid(),))
        now = time.clock_gettime(time.CLOCK_REALTIME)
        return Verifier(found, now=now, monotonic=time.monotonic).verify(signature)

    def tag(self, name: str, commit: str, *, key: Path | None = None) -> None:
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}") if key else ()
        words = ("-s",) if key else ("-a",)
        git(self.repository.folder, *signing, "tag", "-f", *words, "-m", name, name, commit)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    (tmp_path / "keys").mkdir()
    keys = []
    for name in ("alice", "bob"):
        path = tmp_path / name
        subprocess.run(
            ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)), check=True
        )
        keys.append(path)
    repository = Repository(tmp_path / "deploy.git")
    source = Followed(tmp_path / "fetcher", repository.url)
    signed = Signed(tmp_path, repository, source, *keys)
    signed.allow()
    source.verify = signed.verify
    source.more = mode("head")
    return signed


def mode(word: str) -> str:
    return f', "verify": {{"mode": "{word}", "keys": "team"}}'


def test_a_signed_commit_is_served_with_its_signer(signed: Signed) -> None:
    signed.repository.commit(GOOD, key=signed.alice)
    assert signed.source.fetch() == "Ready"
    current = signed.source.memory.status.current
    assert current is not None
    assert current.signature is not None
    assert (current.signature.format, current.signature.signer) == ("ssh", "alice@example.org")


def test_a_held_commit_is_served_once_its_key_is_trusted(signed: Signed) -> None:
    signed.allow('valid-before="20200101"')
    signed.repository.commit(GOOD, key=signed.alice)
    assert signed.source.fetch() == "Held source.key-expired"
    signed.allow()
    assert signed.source.fetch() == "Ready"


def test_the_mode_all_checks_each_commit_since_the_served_one(signed: Signed) -> None:
    signed.source.more = mode("all")
    signed.repository.commit({})  # before the first served commit nothing is checked
    signed.repository.commit(GOOD, key=signed.alice)
    assert signed.source.fetch() == "Ready"
    between = signed.repository.commit(OTHER)
    signed.repository.commit(GOOD, key=signed.alice)
    assert signed.source.fetch() == "Held source.unsigned"
    assert between[:12] in signed.source.memory.status.message
    signed.source.more = mode("head")
    assert signed.source.fetch() == "Ready"


def test_the_mode_all_checks_the_commits_that_a_merge_brings(signed: Signed) -> None:
    signed.source.more = mode("all")
    repository = signed.repository
    first = repository.commit(GOOD, key=signed.alice)
    assert signed.source.fetch() == "Ready"
    tree = repository.tree(GOOD)
    side = repository.commit_tree(tree, parents=(first,))
    repository.commit_tree(tree, parents=(first, side), key=signed.alice)
    assert signed.source.fetch() == "Held source.unsigned"
    assert side[:12] in signed.source.memory.status.message
    assert signed.source.current == first


def test_the_mode_tag_checks_the_tag_and_its_name(signed: Signed) -> None:
    signed.source.more, signed.source.git = mode("tag"), ', "ref": {"tag": "live"}'
    first = signed.repository.commit(GOOD)
    signed.tag("live", first, key=signed.alice)
    assert signed.source.fetch() == "Ready"
    second = signed.repository.commit(OTHER, key=signed.alice)
    git(signed.repository.folder, "tag", "-f", "live", second)  # a light tag
    assert signed.source.fetch() == "Held source.unsigned"
    signed.tag("live", second)
    assert signed.source.fetch() == "Held source.unsigned"
    signed.tag("live", second, key=signed.bob)
    assert signed.source.fetch() == "Held source.key-unknown"
    signed.tag("test", second, key=signed.alice)
    tag = git(signed.repository.folder, "rev-parse", "refs/tags/test")
    signed.repository.push(tag, "refs/tags/live")  # a signed tag under another name
    assert signed.source.fetch() == "Held source.object"
    assert signed.source.current == first
    signed.tag("live", second, key=signed.alice)
    assert signed.source.fetch() == "Ready"
    assert signed.source.current == second


@pytest.mark.parametrize(
    "followed", ['{"semver": "1.x"}', '{"name": "refs/tags/v1.9.0"}', '{"name": "refs/heads/live"}']
)
def test_a_signed_tag_under_another_name_is_held(signed: Signed, followed: str) -> None:
    signed.source.more, signed.source.git = mode("tag"), f', "ref": {followed}'
    signed.tag("v2.0.0", signed.repository.commit(GOOD), key=signed.alice)
    tag = git(signed.repository.folder, "rev-parse", "refs/tags/v2.0.0")
    signed.repository.push(tag, "refs/tags/v1.9.0")
    # git refuses a tag below refs/heads; a hostile server doesn't.
    heads = signed.repository.folder / "refs" / "heads" / "live"
    heads.write_text(f"{tag}\n")
    assert signed.source.fetch() == "Held source.object"


def test_a_range_of_versions_follows_the_signed_tag_of_that_name(signed: Signed) -> None:
    signed.source.more, signed.source.git = mode("tag"), ', "ref": {"semver": "1.x"}'
    for name in ("v1.0.0", "v1.1.0"):
        commit = signed.repository.commit({"deploy/web.yaml": f"a: {name}\n"})
        signed.tag(name, commit, key=signed.alice)
        assert signed.source.fetch() == "Ready"
        assert signed.source.current == commit
