"""Forged proofs of a usurped controller, each with the rule that refuses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from controller.core.proofs.proven_commit import SignerFiles
from controller.model.records import Reply
from tests.unit.broker.signed.rich import BOB, LAB, RICH, RichInstance
from tests.unit.core.proofs.repository import ALICE, MALLORY, Key, Repository, frame, signer_files

EVIL = RICH.replace("MODE: plain", "MODE: evil")
EVIL_FILES = {"deploy/all.yaml": EVIL.encode()}
Act = Callable[[RichInstance], Reply]


def evil(
    *, key: Key | None = ALICE, namespace: bytes = b"git", keys: SignerFiles | None = None
) -> Act:
    """Return the upload of a descendant with other documents."""

    def act(instance: RichInstance) -> Reply:
        if keys is not None:
            instance.folders["release"] = keys
        repository = instance.repository
        commit = repository.commit(EVIL_FILES, instance.head, key=key, namespace=namespace)
        return instance.upload(repository.proof(commit))

    return act


def _honest(instance: RichInstance) -> str:
    """Return a signed descendant that nobody has uploaded."""
    return instance.repository.commit(
        {"deploy/all.yaml": RICH.encode(), "deploy/note.txt": b"note"}, instance.head
    )


def changed_tip(change: Callable[[bytes], bytes]) -> Act:
    """Return the upload of a signed commit with other bytes, under its own hash."""

    def act(instance: RichInstance) -> Reply:
        raw = instance.repository.objects[_honest(instance)][1]
        forged = change(raw)
        assert forged != raw
        return instance.upload(instance.repository.proof(instance.repository.add("commit", forged)))

    return act


def other_tree(instance: RichInstance) -> Reply:
    """Give the signature of a good commit to a tree with other documents."""
    raw = instance.repository.objects[_honest(instance)][1]
    tree = instance.repository.tree(EVIL_FILES).encode()
    forged = instance.repository.add("commit", b"tree " + tree + raw[raw.index(b"\n") :])
    return instance.upload(instance.repository.proof(forged))


def swapped(kind: str, place: int) -> Act:
    """Return the upload with another object of the same kind under an honest id."""

    def act(instance: RichInstance) -> Reply:
        repository, tip, below = instance.repository, *_parts(instance)
        other = Repository()
        evil_tip = other.commit(EVIL_FILES)
        foreign = [n for n in _reached(other, evil_tip) if other.objects[n][0] == kind]
        name = [each for each in below if repository.objects[each][0] == kind][place]
        content = other.objects[foreign[min(place, len(foreign) - 1)]][1]
        return instance.upload(repository.proof(tip, without=[name]) + frame(name, kind, content))

    return act


def left_out(kind: str, place: int) -> Act:
    """Return the upload without one of the objects."""

    def act(instance: RichInstance) -> Reply:
        tip, below = _parts(instance)
        name = [each for each in below if instance.repository.objects[each][0] == kind][place]
        return instance.upload(instance.repository.proof(tip, without=[name]))

    return act


def _parts(instance: RichInstance) -> tuple[str, list[str]]:
    tip = _honest(instance)
    return tip, _reached(instance.repository, tip)


def _reached(repository: Repository, commit: str) -> list[str]:
    """Return the trees and blobs of a commit."""
    found, waiting = [], [repository.objects[commit][1].split()[1].decode()]
    while waiting:
        name = waiting.pop(0)
        kind, raw = repository.objects[name]
        found.append(name)
        while kind == "tree" and raw:
            end = raw.index(b"\0")
            waiting.append(raw[end + 1 : end + 21].hex())
            raw = raw[end + 21 :]
    return found


def of_entries(inner: Callable[[Repository], bytes], *, at_root: bool = False) -> Act:
    """Return the upload of a signed commit with a prepared tree."""

    def act(instance: RichInstance) -> Reply:
        repository = instance.repository
        tree = repository.add("tree", inner(repository))
        if not at_root:
            tree = repository.add("tree", b"40000 deploy\0" + bytes.fromhex(tree))
        plain = repository.objects[repository.commit({}, instance.head, key=None)][1]
        payload = b"tree " + tree.encode() + plain[plain.index(b"\n") :]
        head, _, message = payload.partition(b"\n\n")
        armored = ALICE.sign(payload).replace(b"\n", b"\n ")
        raw = head + b"\ngpgsig " + armored + b"\n\n" + message
        return instance.upload(repository.proof(repository.add("commit", raw)))

    return act


def entry(mode: str, name: bytes, content: bytes = EVIL.encode()) -> Callable[[Repository], bytes]:
    return lambda repository: (
        f"{mode} ".encode() + name + b"\0" + bytes.fromhex(repository.add("blob", content))
    )


def twice(name: bytes) -> Callable[[Repository], bytes]:
    return lambda repository: (
        entry("100644", name, RICH.encode())(repository) + entry("100644", name)(repository)
    )


def older(instance: RichInstance) -> Reply:
    repository, base = instance.repository, instance.head
    instance.prepare(RICH + "# more\n")
    return instance.upload(repository.proof(base))


def sibling(instance: RichInstance) -> Reply:
    commit = instance.repository.commit(EVIL_FILES, instance.since)
    return instance.upload(instance.repository.proof(commit))


def elsewhere(instance: RichInstance) -> Reply:
    other = Repository()
    first = other.commit({}, message="another repository")
    return instance.upload(other.proof(other.commit(EVIL_FILES, first)))


def gap(instance: RichInstance) -> Reply:
    repository = instance.repository
    middle = repository.commit({}, instance.head, message="middle")
    tip = repository.commit(EVIL_FILES, middle)
    return instance.upload(repository.proof(tip, without=[middle]))


def unsigned_first(instance: RichInstance) -> Reply:
    """Put an unsigned commit before the accepted one in the proof."""
    repository = instance.repository
    return instance.upload(repository.proof(repository.commit(EVIL_FILES, instance.head, key=None)))


def another_hash(instance: RichInstance) -> Reply:
    other = Repository("sha256")
    return instance.upload(other.proof(other.commit(EVIL_FILES)))


def in_source(source: str, documents: str, key: Key) -> Act:
    def act(instance: RichInstance) -> Reply:
        repository = instance.repository
        files = {"deploy/all.yaml": documents.encode()}
        commit = repository.commit(files, instance.head, key=key)
        return instance.upload(repository.proof(commit), source=source)

    return act


def cut(change: Callable[[bytes], bytes]) -> Act:
    return lambda instance: instance.upload(change(instance.repository.proof(_honest(instance))))


def as_one_user(instance: RichInstance) -> Reply:
    instance.actor = replace(instance.actor, separated=False)
    return evil()(instance)


#: More than a proof may have.
_TOO_LONG = (16 << 20) + 1
PROOFS: tuple[tuple[str, Act, str], ...] = (
    ("an unsigned descendant", evil(key=None), "proof.unsigned"),
    ("an unsigned commit before the accepted one", unsigned_first, "proof.unsigned"),
    ("a descendant by an unknown key", evil(key=MALLORY), "proof.key-unknown"),
    ("a descendant by a key of another folder", evil(key=BOB), "proof.key-unknown"),
    ("a signature for files", evil(namespace=b"file"), "proof.signature"),
    ("a signature for nothing", evil(namespace=b""), "proof.signature"),
    ("a revoked key", evil(keys=signer_files(ALICE, revoked=[ALICE])), "proof.key-revoked"),
    (
        "a revoked key beside a good one",
        evil(keys=signer_files(ALICE, BOB, revoked=[ALICE])),
        "proof.key-revoked",
    ),
    (
        "an expired key",
        evil(keys=signer_files(options='valid-before="19700102Z" ')),
        "proof.key-expired",
    ),
    (
        "a key of the future",
        evil(keys=signer_files(options='valid-after="20990101Z" ')),
        "proof.key-expired",
    ),
    (
        "a key for other signatures",
        evil(keys=signer_files(options='namespaces="file" ')),
        "proof.key-unknown",
    ),
    (
        "a key of an authority",
        evil(keys=signer_files(options="cert-authority ")),
        "proof.key-unknown",
    ),
    ("no keys", evil(keys=SignerFiles()), "proof.key-unknown"),
    (
        "unreadable revocations",
        evil(keys=SignerFiles(signer_files().allowed, b"SSHKRL\n\0")),
        "proof.revoked-unreadable",
    ),
    ("an older commit", older, "proof.not-newer"),
    ("a sibling", sibling, "proof.not-newer"),
    ("another repository", elsewhere, "proof.not-newer"),
    ("a gap in the line", gap, "proof.not-newer"),
    ("another kind of hash", another_hash, "proof.object"),
    ("the signature of another commit", other_tree, "proof.signature"),
    ("another message", changed_tip(lambda raw: raw + b"more\n"), "proof.signature"),
    (
        "another author",
        changed_tip(lambda raw: raw.replace(b"Alice", b"Mallo", 1)),
        "proof.signature",
    ),
    (
        "another date",
        changed_tip(lambda raw: raw.replace(b"1790000000", b"1790000001")),
        "proof.signature",
    ),
    (
        "another parent",
        changed_tip(lambda raw: raw.replace(b"author", b"parent " + b"a" * 40 + b"\nauthor", 1)),
        "proof.signature",
    ),
    (
        "a header more",
        changed_tip(lambda raw: raw.replace(b"\n\n", b"\nx y\n\n", 1)),
        "proof.signature",
    ),
    (
        "two signatures",
        changed_tip(lambda raw: raw.replace(b"\ngpgsig ", b"\ngpgsig-sha256 x\ngpgsig ", 1)),
        "proof.object",
    ),
    (
        "a signature of OpenPGP",
        changed_tip(lambda raw: raw.replace(b"SSH SIGNATURE", b"PGP SIGNATURE")),
        "proof.key-unsupported",
    ),
    ("a swapped root tree", swapped("tree", 0), "proof.object"),
    ("a swapped folder", swapped("tree", 1), "proof.object"),
    ("a swapped document", swapped("blob", 0), "proof.object"),
    ("a swapped file", swapped("blob", 1), "proof.object"),
    ("no root tree", left_out("tree", 0), "proof.incomplete"),
    ("no folder", left_out("tree", 1), "proof.incomplete"),
    ("no document", left_out("blob", 0), "proof.incomplete"),
    ("a file left out", left_out("blob", 1), "proof.incomplete"),
    ("two entries of one name", of_entries(twice(b"all.yaml")), "proof.tree"),
    ("a link", of_entries(entry("120000", b"all.yaml", b"/etc/passwd")), "proof.tree"),
    ("a submodule", of_entries(entry("160000", b"all.yaml")), "proof.tree"),
    ("a name of dots", of_entries(entry("100644", b"..")), "proof.tree"),
    ("a name with a slash", of_entries(entry("100644", b"a/all.yaml")), "proof.object"),
    ("an empty name", of_entries(entry("100644", b"")), "proof.object"),
    (
        "a file in the place of the folder",
        of_entries(entry("100644", b"deploy"), at_root=True),
        "proof.path",
    ),
    ("another folder", of_entries(entry("100644", b"all.yaml"), at_root=True), "proof.path"),
    ("half a tree", of_entries(lambda _made: b"100644 all.yaml\0abc"), "proof.object"),
    ("a source of nobody", in_source("other", EVIL, ALICE), "proof.source"),
    ("the key of shop for lab", in_source("lab", LAB, ALICE), "proof.key-unknown"),
    ("the key of lab for shop", in_source("shop", EVIL, BOB), "proof.key-unknown"),
    ("nothing", cut(lambda _proof: b""), "proof.incomplete"),
    ("bytes after it", cut(lambda proof: proof + b"more"), "proof.form"),
    ("a byte before it", cut(lambda proof: b" " + proof), "proof.form"),
    ("the last byte missing", cut(lambda proof: proof[:-1]), "proof.form"),
    ("one half", cut(lambda proof: proof[: len(proof) // 2]), "proof.form"),
    (
        "only the commit",
        cut(lambda proof: proof[: proof.index(b"\ndeploy\n\n") + 9]),
        "proof.incomplete",
    ),
    (
        "another length",
        cut(lambda proof: proof.replace(b" commit ", b" commit 0", 1)),
        "proof.form",
    ),
    ("another kind", cut(lambda proof: proof.replace(b" commit ", b" blob ", 1)), "proof.object"),
    ("too many bytes", cut(lambda proof: proof + b"x" * _TOO_LONG), "proof.too-large"),
    ("a controller with the operators' user", as_one_user, "proof.unseparated"),
)
