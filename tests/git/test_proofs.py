"""Proofs as the fetcher exports them: real git, commits signed by ssh-keygen."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.core.git.commit_objects import DetachedSignature
from controller.core.proofs.proven_commit import (
    InvalidProof,
    ProvenCommit,
    SignerFiles,
    Signers,
    prove,
)
from controller.fetch.verify import Verifier, read_keys
from controller.model.policy.sections import SignedSource
from controller.model.sources import CommitSignature
from tests.git.repository import GOOD, Followed, Repository, git

NOW = 1_790_000_000.0
VERIFY = ', "verify": {"mode": "head", "keys": "release"}'


@dataclass
class Signed:
    """A repository with keys of each kind, and a source that verifies its newest commit."""

    folder: Path
    repository: Repository = field(init=False)
    source: Followed = field(init=False)
    keys: Path = field(init=False)

    def __post_init__(self) -> None:
        self.repository = Repository(self.folder / "deploy.git")
        self.keys = self.folder / "keys"
        self.keys.mkdir()

        def verify(_name: str, signature: DetachedSignature | None) -> CommitSignature:
            keys = read_keys(self.keys, owners=(0, self.keys.stat().st_uid))
            return Verifier(keys, now=NOW, monotonic=time.monotonic).verify(signature)

        url, folder = self.repository.url, self.folder / "fetcher"
        self.source = Followed(folder, url, more=VERIFY, verify=verify)

    def key(self, kind: str, *options: str) -> Path:
        path = self.folder / kind
        words = ("ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-f", str(path))
        subprocess.run(words, check=True)
        public = path.with_suffix(".pub").read_text().split()
        with (self.keys / "allowed_signers").open("a") as allowed:
            allowed.write(f"{kind}@example.org {public[0]} {public[1]}\n")
        return path

    @property
    def proof(self) -> bytes:
        return (self.source.exports / f"{self.source.current}.proof").read_bytes()

    def prove(self, accepted: str) -> ProvenCommit:
        rule = SignedSource.model_validate(
            {
                "source": "shop",
                "namespaces": ("shop",),
                "require": "signed",
                "keys": "release",
                "path": "deploy",
                "since": accepted,
            }
        )
        signers = Signers.read(SignerFiles((self.keys / "allowed_signers").read_bytes()))
        return prove(self.proof, rule, accepted=accepted, signers=signers, now=NOW)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("ecdsa", ("-b", "384")), ("rsa", ("-b", "2048"))]
)
def test_a_commit_signed_by_ssh_keygen_is_proven(
    signed: Signed, kind: str, options: tuple[str, ...]
) -> None:
    key = signed.key(kind, *options)
    commit = signed.repository.commit(GOOD, key=key)
    assert signed.source.fetch() == "Ready", signed.source.message
    proven = signed.prove(commit)
    assert (proven.commit, proven.signer) == (commit, f"{kind}@example.org")
    assert (
        proven.key
        == subprocess.run(("ssh-keygen", "-l", "-f", f"{key}.pub"), capture_output=True, check=True)
        .stdout.split()[1]
        .decode()
    )
    assert {path: bytes(each.content).decode() for path, each in proven.files.items()} == {
        "web.yaml": GOOD["deploy/web.yaml"]
    }


def test_the_charts_beside_the_documents_are_proven(signed: Signed) -> None:
    key = signed.key("ed25519")
    charts = {"configs/web/Chart.yaml": "name: web\n", "configs/web/templates/a.yaml": "a: 1\n"}
    commit = signed.repository.commit({**GOOD, **charts, "other/x": "x"}, key=key)
    assert signed.source.fetch() == "Ready", signed.source.message
    proven = signed.prove(commit)
    assert [*proven.files] == ["web.yaml"]
    assert {
        f"configs/{path}": bytes(each.content).decode() for path, each in proven.charts.items()
    } == charts


def test_a_proof_leads_over_unserved_commits_and_merges_to_the_accepted_one(signed: Signed) -> None:
    key = signed.key("ed25519")
    repository = signed.repository
    first = repository.commit(GOOD, key=key)
    assert signed.source.fetch() == "Ready"
    side = repository.commit_tree(repository.tree(GOOD), parents=(first,), key=key)
    tree = repository.tree({**GOOD, "deploy/web.yaml": "x: 1\n"})
    other = repository.commit_tree(tree, parents=(first,), key=key)
    merge = repository.commit_tree(tree, parents=(other, side), key=key)
    assert signed.source.fetch() == "Ready", signed.source.message
    assert signed.source.current == merge
    for accepted in (first, other, side, merge):
        assert signed.prove(accepted).commit == merge
    with pytest.raises(InvalidProof, match="no line of the proof"):
        signed.prove("ab" * 20)


def test_a_source_without_verification_has_no_proof(signed: Signed) -> None:
    signed.source.more = ""
    commit = signed.repository.commit(GOOD)
    assert signed.source.fetch() == "Ready"
    assert not list(signed.source.exports.glob("*.proof"))
    # Verification that is added later exports the proof of the served commit.
    signed.source.more = VERIFY
    signed.key("ed25519")
    assert signed.source.fetch() == "Ready"
    assert signed.proof.startswith(commit.encode())


def test_a_verification_by_ssh_keygen_and_by_the_broker_agree(signed: Signed) -> None:
    key = signed.key("ed25519")
    signed.repository.commit(GOOD, key=key)
    assert signed.source.fetch() == "Ready"
    allowed = signed.keys / "allowed_signers"
    line = allowed.read_text().split(" ", 1)[1]
    for options in (
        *("", 'namespaces="git" ', 'namespaces="file" ', 'valid-after="20200101" '),
        *('valid-before="20200101Z" ', 'valid-after="20990101Z" ', 'namespaces="git",unknown '),
        *('valid-after="20200101",valid-before="20990101123456Z" ', "cert-authority "),
    ):
        allowed.write_text(f"a@example.org {options}{line}")
        raw = git(signed.repository.folder, "cat-file", "commit", "main")
        assert raw
        by_program = _is_good(signed)
        try:
            signed.prove(signed.source.current)
            by_broker = True
        except InvalidProof:
            by_broker = False
        assert by_broker == by_program, options


def _is_good(signed: Signed) -> bool:
    from controller.core.git.commit_objects import parse_commit
    from controller.model.errors import SourceError

    raw = signed.source.mirror.read("commit", signed.source.current)
    try:
        signed.source.verify("release", parse_commit(raw).signature)
    except SourceError:
        return False
    return True
