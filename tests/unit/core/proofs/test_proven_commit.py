"""Proofs of commits: good ones prove their files, and each forgery is refused by its own check."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.core.git.commit_objects import OBJECT_MAX
from controller.core.proofs.proven_commit import (
    TREE_MAX,
    InvalidProof,
    ProvenCommit,
    SignerFiles,
    Signers,
    object_id,
    prove,
)
from tests.unit.core.proofs.repository import ALICE, MALLORY, Repository, frame, rule, signer_files

NOW = 1_790_000_000.0
FILES = {"deploy/web.yaml": b"web: 1\n", "deploy/conf/a.txt": b"a", "README.md": b"x"}


def check(
    repository: Repository,
    proof: bytes,
    *,
    accepted: str,
    path: str = "deploy",
    keys: SignerFiles | None = None,
) -> ProvenCommit:
    known = rule(accepted, path=path)
    signers = Signers.read(keys or signer_files())
    return prove(proof, known, accepted=accepted, signers=signers, now=NOW)


def refusal(proof: bytes, *, accepted: str, keys: SignerFiles | None = None) -> str:
    with pytest.raises(InvalidProof) as caught:
        check(Repository(), proof, accepted=accepted, keys=keys)
    return caught.value.code


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
def test_a_proof_has_the_files_of_the_documents_folder(hash_name: str) -> None:
    repository = Repository(hash_name)
    first = repository.commit(FILES)
    second = repository.commit({**FILES, "deploy/web.yaml": b"web: 2\n"}, first)
    proven = check(repository, repository.proof(second), accepted=first)
    assert (proven.commit, proven.signer) == (second, "alice@example.org")
    assert {path: file.content for path, file in proven.files.items()} == {
        "web.yaml": b"web: 2\n",
        "conf/a.txt": b"a",
    }
    assert repository.objects[proven.files["web.yaml"].blob] == ("blob", b"web: 2\n")


def test_the_contents_are_parts_of_the_proof_without_a_copy() -> None:
    repository = Repository()
    commit = repository.commit({"deploy/big": bytes(1 << 20)})
    proof = repository.proof(commit)
    assert check(repository, proof, accepted=commit).files["big"].content.obj is proof


def test_an_object_that_is_copied_is_bounded() -> None:
    repository = Repository()
    commit = repository.commit(FILES)
    for kind, most in (("commit", OBJECT_MAX), ("tree", TREE_MAX)):
        content = bytes(most + 1)
        name = object_id(kind, content, hash_name="sha1")
        proof = repository.proof(commit) + frame(name, kind, content)
        assert refusal(proof, accepted=commit) == "proof.too-large"


def test_the_same_commit_and_a_distant_descendant_are_accepted() -> None:
    repository = Repository()
    commits = [repository.commit(FILES)]
    for number in range(20):
        commits.append(repository.commit(FILES, commits[-1], message=f"{number}"))
    for accepted in (commits[0], commits[7], commits[-1]):
        proven = check(repository, repository.proof(commits[-1]), accepted=accepted)
        assert proven.commit == commits[-1]


def test_a_merge_descends_from_each_parent() -> None:
    repository = Repository()
    base = repository.commit(FILES)
    one, other = (repository.commit(FILES, base, message=name) for name in "ab")
    merge = repository.commit(FILES, one, other)
    for accepted in (one, other, base):
        assert check(repository, repository.proof(merge), accepted=accepted).commit == merge


Forge = Callable[[Repository, str], tuple[bytes, str]]


def _unsigned(repository: Repository, first: str) -> tuple[bytes, str]:
    return repository.proof(repository.commit(FILES, first, key=None)), "proof.unsigned"


def _other_key(repository: Repository, first: str) -> tuple[bytes, str]:
    return repository.proof(repository.commit(FILES, first, key=MALLORY)), "proof.key-unknown"


def _other_namespace(repository: Repository, first: str) -> tuple[bytes, str]:
    commit = repository.commit(FILES, first, namespace=b"file")
    return repository.proof(commit), "proof.signature"


def _older(repository: Repository, first: str) -> tuple[bytes, str]:
    base = repository.commit(FILES, message="before")
    return repository.proof(base), "proof.not-newer"


def _unrelated(_repository: Repository, _first: str) -> tuple[bytes, str]:
    other = Repository()
    return other.proof(other.commit(FILES, message="elsewhere")), "proof.not-newer"


def _gap(repository: Repository, first: str) -> tuple[bytes, str]:
    middle = repository.commit(FILES, first, message="middle")
    last = repository.commit(FILES, middle)
    return repository.proof(last, without=[middle]), "proof.not-newer"


def _moved_signature(repository: Repository, first: str) -> tuple[bytes, str]:
    """A commit with the signature of another one."""
    good = repository.objects[repository.commit(FILES, first)][1]
    tree = repository.tree({**FILES, "deploy/web.yaml": b"evil: 1\n"})
    forged = b"tree " + tree.encode() + good[good.index(b"\n") :]
    return repository.proof(repository.add("commit", forged)), "proof.signature"


def _changed_message(repository: Repository, first: str) -> tuple[bytes, str]:
    good = repository.objects[repository.commit(FILES, first)][1]
    return repository.proof(repository.add("commit", good + b"more\n")), "proof.signature"


def _swapped_tree(repository: Repository, first: str) -> tuple[bytes, str]:
    commit = repository.commit(FILES, first)
    tree = repository.objects[commit][1].split()[1].decode()
    evil = repository.tree({**FILES, "deploy/web.yaml": b"evil: 1\n"})
    content = repository.objects[evil][1]
    proof = repository.proof(commit, without=[tree])
    return proof + frame(tree, "tree", content), "proof.object"


def _swapped_blob(repository: Repository, first: str) -> tuple[bytes, str]:
    commit = repository.commit(FILES, first)
    blob = repository.add("blob", b"web: 1\n")
    return repository.proof(commit, without=[blob]) + frame(blob, "blob", b"evil"), "proof.object"


def _blob_as_tree(repository: Repository, first: str) -> tuple[bytes, str]:
    commit = repository.commit(FILES, first)
    tree = repository.objects[commit][1].split()[1].decode()
    content = repository.objects[tree][1]
    return repository.proof(commit, without=[tree]) + frame(tree, "blob", content), "proof.object"


def _missing_blob(repository: Repository, first: str) -> tuple[bytes, str]:
    blob = repository.add("blob", b"a")
    commit = repository.commit(FILES, first)
    return repository.proof(commit, without=[blob]), "proof.incomplete"


def _missing_tree(repository: Repository, first: str) -> tuple[bytes, str]:
    tree = repository.tree({"a.txt": b"a"})
    commit = repository.commit(FILES, first)
    return repository.proof(commit, without=[tree]), "proof.incomplete"


def _no_folder(repository: Repository, first: str) -> tuple[bytes, str]:
    return repository.proof(repository.commit({"a": b"a"}, first)), "proof.path"


def _link(repository: Repository, first: str) -> tuple[bytes, str]:
    blob = repository.add("blob", b"/etc/passwd")
    inside = repository.add("tree", b"120000 web.yaml\0" + bytes.fromhex(blob))
    tree = repository.add("tree", b"40000 deploy\0" + bytes.fromhex(inside))
    return _of_tree(repository, first, tree), "proof.tree"


def _dots(repository: Repository, first: str) -> tuple[bytes, str]:
    blob = repository.add("blob", b"a")
    inside = repository.add("tree", b"100644 ..\0" + bytes.fromhex(blob))
    tree = repository.add("tree", b"40000 deploy\0" + bytes.fromhex(inside))
    return _of_tree(repository, first, tree), "proof.tree"


def _twice(repository: Repository, first: str) -> tuple[bytes, str]:
    """Two entries of one name: another reader could take the other one."""
    one, other = (repository.add("blob", content) for content in (b"a", b"b"))
    entries = b"".join(b"100644 web.yaml\0" + bytes.fromhex(each) for each in (one, other))
    tree = repository.add(
        "tree", b"40000 deploy\0" + bytes.fromhex(repository.add("tree", entries))
    )
    return _of_tree(repository, first, tree), "proof.tree"


def _two_folders(repository: Repository, first: str) -> tuple[bytes, str]:
    one, other = (repository.tree({"web.yaml": content}) for content in (b"a", b"b"))
    entries = b"".join(b"40000 deploy\0" + bytes.fromhex(each) for each in (one, other))
    return _of_tree(repository, first, repository.add("tree", entries)), "proof.path"


def _trees_without_end(repository: Repository, first: str) -> tuple[bytes, str]:
    """Each of 20 folders lists the next one ten times, so that 10^20 folders are below the first."""
    inner = repository.add("tree", b"")
    for _ in range(20):
        entries = b"".join(b"40000 %d\0" % name + bytes.fromhex(inner) for name in range(10))
        inner = repository.add("tree", entries)
    tree = repository.add("tree", b"40000 deploy\0" + bytes.fromhex(inner))
    return _of_tree(repository, first, tree), "proof.tree"


def _of_tree(repository: Repository, first: str, tree: str) -> bytes:
    plain = repository.objects[repository.commit({}, first, key=None)][1]
    payload = b"tree " + tree.encode() + plain[plain.index(b"\n") :]
    head, _, message = payload.partition(b"\n\n")
    armored = ALICE.sign(payload).replace(b"\n", b"\n ")
    raw = head + b"\ngpgsig " + armored + b"\n\n" + message
    return repository.proof(repository.add("commit", raw))


def _two_signatures(repository: Repository, first: str) -> tuple[bytes, str]:
    good = repository.objects[repository.commit(FILES, first)][1]
    raw = good.replace(b"\ngpgsig ", b"\ngpgsig-sha256 x\ngpgsig ", 1)
    return repository.proof(repository.add("commit", raw)), "proof.object"


def _garbage(repository: Repository, first: str) -> tuple[bytes, str]:
    return repository.proof(repository.commit(FILES, first)) + b"more", "proof.form"


def _cut(repository: Repository, first: str) -> tuple[bytes, str]:
    return repository.proof(repository.commit(FILES, first))[:-3], "proof.form"


def _empty(_repository: Repository, _first: str) -> tuple[bytes, str]:
    return b"", "proof.incomplete"


def _wrong_first(repository: Repository, first: str) -> tuple[bytes, str]:
    """An unsigned commit leads, and a signed descendant follows."""
    signed = repository.commit(FILES, first)
    unsigned = repository.commit(FILES, first, key=None)
    assert signed in repository.objects
    return repository.proof(unsigned), "proof.unsigned"


FORGERIES: tuple[Forge, ...] = (
    *(_unsigned, _other_key, _other_namespace, _older, _unrelated, _gap, _moved_signature),
    *(_changed_message, _swapped_tree, _swapped_blob, _blob_as_tree, _missing_blob, _missing_tree),
    *(_no_folder, _link, _dots, _twice, _two_folders, _two_signatures, _garbage, _cut, _empty),
    *(_wrong_first, _trees_without_end),
)


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__.strip("_"))
def test_a_forged_proof_is_refused(forge: Forge) -> None:
    repository = Repository()
    repository.commit(FILES, message="before")
    first = repository.commit(FILES, repository.commit(FILES, message="before"))
    proof, code = forge(repository, first)
    assert refusal(proof, accepted=first) == code


@pytest.mark.parametrize(
    ("armor", "name"), [(b"PGP SIGNATURE", "OpenPGP"), (b"SIGNED MESSAGE", "X.509")]
)
def test_signatures_of_other_formats_are_refused_by_name(armor: bytes, name: str) -> None:
    repository = Repository()
    commit = repository.commit(FILES)
    kind, raw = repository.objects.pop(commit)
    other = repository.add(kind, raw.replace(b"SSH SIGNATURE", armor))
    with pytest.raises(InvalidProof, match=rf"signed with {name}, .* SSH alone") as refused:
        check(repository, repository.proof(other), accepted=other)
    assert refused.value.code == "proof.key-unsupported"


def test_a_revoked_or_expired_key_and_an_unreadable_list_of_revoked_keys_are_refused() -> None:
    repository = Repository()
    first = repository.commit(FILES)
    proof = repository.proof(first)
    for keys, code in (
        (signer_files(ALICE, revoked=[ALICE]), "proof.key-revoked"),
        (signer_files(ALICE, options='valid-before="20200101Z" '), "proof.key-expired"),
        (signer_files(ALICE, options='valid-after="20990101" '), "proof.key-expired"),
        (signer_files(ALICE, options='namespaces="file" '), "proof.key-unknown"),
        (signer_files(ALICE, options='namespaces="!git,*" '), "proof.key-unknown"),
        (signer_files(ALICE, options="cert-authority "), "proof.key-unknown"),
        (signer_files(ALICE, options="unknown "), "proof.key-unknown"),
        (SignerFiles(signer_files().allowed, b"SSHKRL\n\0"), "proof.revoked-unreadable"),
        (SignerFiles(), "proof.key-unknown"),
        (SignerFiles(b"# " + signer_files().allowed), "proof.key-unknown"),
        # ssh-keygen ends a line at a line feed alone.
        (SignerFiles(b"# left: \x0c" + signer_files().allowed), "proof.key-unknown"),
    ):
        assert refusal(proof, accepted=first, keys=keys) == code
    good = signer_files(ALICE, options='namespaces="git,file",valid-after="20200101" ')
    assert check(repository, proof, accepted=first, keys=good).signer == "alice@example.org"


def test_every_flipped_byte_of_the_tip_is_refused() -> None:
    repository = Repository()
    first = repository.commit(FILES)
    second = repository.commit(FILES, first)
    kind, content = repository.objects[second]
    for at in range(len(content)):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        forged = Repository(objects=dict(repository.objects))
        proof = forged.proof(forged.add(kind, changed))
        assert refusal(proof, accepted=first).startswith("proof.")
