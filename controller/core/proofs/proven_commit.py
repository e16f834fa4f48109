"""The verification of a proof: signer, line of history, and files of the commit.

The order of the checks: the hashes, the signature, the line of history, the tree. Nothing of a file is
parsed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.core.git.signed_object import CommitObject, parse_commit
from controller.core.git.tree_checks import Refusal, folders_of, select_files
from controller.core.proofs.git_objects import (
    InvalidProof,
    NotNewer,
    ObjectStore,
    OtherLine,
    entries_below,
    has_folder,
    read_objects,
)
from controller.core.proofs.signers import Signers
from controller.core.proofs.ssh_signature import signer_of
from controller.model.policy.sources import SignedSource

_FORMATS = {"openpgp": "OpenPGP", "x509": "X.509"}


@dataclass(frozen=True, slots=True)
class ProvenFile:
    """A file of the documents' folder: blob and bytes."""

    blob: str
    #: A part of the proof's bytes. Empty after the rendering.
    content: memoryview = field(default=memoryview(b""), repr=False)


@dataclass(frozen=True, slots=True)
class ProvenCommit:
    """A verified commit of a source."""

    source: str
    commit: str
    #: The name in ``allowed_signers``, and the fingerprint of the key.
    signer: str
    key: str
    #: The files below the documents' folder, by their paths in that folder.
    files: dict[str, ProvenFile] = field(default_factory=dict)
    #: The files of the charts, by their paths in the folder of the charts beside the documents' folder.
    charts: dict[str, ProvenFile] = field(default_factory=dict)
    #: The fingerprints of the keys that were revoked at the verification.
    revoked: frozenset[str] = frozenset()


def prove(
    data: bytes, rule: SignedSource, *, accepted: str, signers: Signers, now: float
) -> ProvenCommit:
    """Verify the proof of a commit. Its first object is the commit.

    Args:
        rule: the source's rule in the policy.
        accepted: the newest accepted commit; the proven one must be a descendant, or the same.
        signers: the keys that may sign.
        now: seconds since the epoch.

    Raises:
        InvalidProof: any check failed.
    """
    hash_name = "sha256" if len(rule.since) == 64 else "sha1"
    store = read_objects(data, hash_name=hash_name)
    if not store.commits:
        raise InvalidProof("proof.incomplete", "it has no commit")
    commit = next(iter(store.commits))
    try:
        commits = {name: parse_commit(raw) for name, raw in store.commits.items()}
    except ValueError as error:
        raise InvalidProof("proof.object", f"a commit can't be read: {error}") from error
    signature = commits[commit].signature
    if signature is None:
        raise InvalidProof("proof.unsigned", f"the commit {commit[:12]} has no signature")
    if signature.format != "ssh":
        raise InvalidProof(
            "proof.key-unsupported",
            f"the commit is signed with {_FORMATS[signature.format]}, and the broker verifies "
            "signatures by SSH alone (git config gpg.format ssh)",
        )
    key = signer_of(signature.armored, signature.payload)
    signer = signers.name_of(key, now=now)
    if not _descends(commits, commit, accepted):
        tip = commits[commit]
        line = OtherLine(commit, signer, key.fingerprint, tip.committed, tip.subject)
        reason = f"no line of the proof leads from {commit[:12]} to {accepted[:12]}"
        raise NotNewer(reason, line)
    tree = commits[commit].tree
    return ProvenCommit(
        rule.source,
        commit,
        signer,
        key.fingerprint,
        _files(store, tree, rule.path),
        _charts(store, tree, rule.path),
        signers.revoked_fingerprints,
    )


def _descends(commits: dict[str, CommitObject], commit: str, ancestor: str) -> bool:
    """Return True if *ancestor* is *commit*, or is reached over the parents."""
    waiting, seen = [commit], {commit}
    while waiting:
        name = waiting.pop()
        if name == ancestor:
            return True
        parents = commits[name].parents if name in commits else ()
        waiting += [parent for parent in dict.fromkeys(parents) if parent not in seen]
        seen |= set(parents)
    return False


def _charts(store: ObjectStore, tree: str, path: str) -> dict[str, ProvenFile]:
    """Return the files of the charts; none for a commit without charts."""
    for folder in folders_of(path)[1:]:
        if has_folder(store, tree, folder):
            return _files(store, tree, folder)
    return {}


def _files(store: ObjectStore, tree: str, path: str) -> dict[str, ProvenFile]:
    listed = select_files(entries_below(store, tree, path), path=path)
    if isinstance(listed, Refusal):
        raise InvalidProof("proof.tree", listed.message)
    prefix = "" if path == "." else f"{path}/"
    return {
        file.path.removeprefix(prefix): ProvenFile(file.object_id, store.blobs[file.object_id])
        for file in listed.files
    }
