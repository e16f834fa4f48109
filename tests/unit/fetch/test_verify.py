"""Signatures of real commits and tags, made by git, ssh-keygen and gpg, and checked against keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.core.git.commit_objects import parse_commit, parse_tag
from controller.fetch.verify import Verifier, read_keys
from controller.model.errors import SourceError
from controller.model.sources import CommitSignature

ALICE, BOB = "alice@example.org", "bob@example.org"
#: In September 2026, within the validity of the certificate below.
NOW = 1_790_000_000.0


def run(folder: Path, *argv: str, **more: str) -> bytes:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Alice",
        "GIT_AUTHOR_EMAIL": ALICE,
        "GIT_COMMITTER_NAME": "Alice",
        "GIT_COMMITTER_EMAIL": ALICE,
        "GNUPGHOME": str(folder / "gnupg"),
        **more,
    }
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


class Signer:
    """A repository, and the keys of people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.keys.mkdir()
        run(folder, "git", "init", "--quiet", "--initial-branch", "main")
        for name in ("alice", "bob", "authority"):
            run(folder, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)

    def public(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text().strip()

    def allow(self, *lines: str) -> None:
        (self.keys / "allowed_signers").write_text("".join(f"{line}\n" for line in lines))

    def commit(self, *signing: str, **more: str) -> bytes:
        options = [part for each in signing for part in ("-c", each)]
        sign = ["-S"] if signing else []
        commit = ["commit", "--quiet", "--allow-empty", "-m", "deploy\n\nMore.", *sign]
        run(self.folder, "git", *options, *commit, **more)
        return run(self.folder, "git", "cat-file", "commit", "HEAD")

    def ssh(self, name: str) -> tuple[str, str]:
        return ("gpg.format=ssh", f"user.signingkey={self.folder / name}")

    def verify(self, raw: bytes, *, now: float | None = None) -> CommitSignature:
        return self.verifier(now=now).verify(parse_commit(raw).signature)

    def verifier(self, *, now: float | None = None) -> Verifier:
        keys = read_keys(self.keys, owners=(os.getuid(),))
        return Verifier(keys, now=now or NOW, monotonic=time.monotonic)

    def refusal(self, raw: bytes, *, now: float | None = None) -> str:
        with pytest.raises(SourceError) as caught:
            self.verify(raw, now=now)
        return caught.value.code


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path)


@pytest.fixture
def gpg(signer: Signer) -> Iterator[Callable[[str, str], str]]:
    """Make an OpenPGP key that expires as given; return its fingerprint and export it to a file."""
    home = signer.folder / "gnupg"
    home.mkdir(mode=0o700)

    def make(person: str, expires: str) -> str:
        batch = ("gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback")
        run(signer.folder, *batch, "--quick-generate-key", person, "ed25519", "sign", expires)
        lines = run(signer.folder, "gpg", "--list-keys", "--with-colons", person).decode()
        fingerprint = next(line.split(":")[9] for line in lines.splitlines() if line[:3] == "fpr")
        armored = run(signer.folder, "gpg", "--armor", "--export", person)
        (signer.keys / f"{person}.asc").write_bytes(armored)
        return fingerprint

    yield make
    subprocess.run(
        ["gpgconf", "--kill", "all"],
        env={"PATH": os.environ["PATH"], "GNUPGHOME": str(home)},
        check=False,
    )


def test_a_commit_signed_by_ssh_names_its_signer(signer: Signer) -> None:
    signer.allow(f'{ALICE} namespaces="git" {signer.public("alice")}')
    signature = signer.verify(signer.commit(*signer.ssh("alice")))
    assert (signature.format, signature.signer) == ("ssh", ALICE)
    assert signature.key.startswith("SHA256:")


def test_a_line_with_several_names_is_accepted(signer: Signer) -> None:
    signer.allow(f"{BOB},{ALICE} {signer.public('alice')}")
    assert signer.verify(signer.commit(*signer.ssh("alice"))).signer == BOB


def test_a_commit_without_a_signature_is_refused(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}")
    assert signer.refusal(signer.commit()) == "source.unsigned"


def test_an_unknown_key_is_refused(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}")
    assert signer.refusal(signer.commit(*signer.ssh("bob"))) == "source.key-unknown"


def test_a_key_for_another_namespace_is_refused(signer: Signer) -> None:
    signer.allow(f'{ALICE} namespaces="file" {signer.public("alice")}')
    assert signer.refusal(signer.commit(*signer.ssh("alice"))) == "source.key-unknown"


@pytest.mark.parametrize("validity", ['valid-before="20200101"', 'valid-after="20990101"'])
def test_a_key_must_be_valid_when_the_commit_arrives(signer: Signer, validity: str) -> None:
    signer.allow(f"{ALICE} {validity} {signer.public('alice')}")
    date = "2019-06-01T00:00:00Z"
    raw = signer.commit(*signer.ssh("alice"), GIT_COMMITTER_DATE=date, GIT_AUTHOR_DATE=date)
    assert signer.refusal(raw) == "source.key-expired"


def test_a_revoked_key_is_refused(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}", f"{BOB} {signer.public('bob')}")
    shutil.copy(signer.folder / "alice.pub", signer.keys / "revoked_keys")
    assert signer.refusal(signer.commit(*signer.ssh("alice"))) == "source.key-revoked"
    assert signer.verify(signer.commit(*signer.ssh("bob"))).signer == BOB


def test_damaged_revocations_refuse_everybody(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}")
    (signer.keys / "revoked_keys").write_bytes(b"SSHKRL\n\0damaged")
    assert signer.refusal(signer.commit(*signer.ssh("alice"))) == "source.key-revoked"


def test_a_certificate_of_the_authority_is_accepted_until_it_expires(signer: Signer) -> None:
    signer.allow(f"*@example.org cert-authority {signer.public('authority')}")
    sign = (
        "-q",
        "-s",
        "authority",
        "-I",
        "laptop",
        "-n",
        ALICE,
        "-V",
        "20260901:20261001",
        "alice.pub",
    )
    run(signer.folder, "ssh-keygen", *sign)
    raw = signer.commit("gpg.format=ssh", f"user.signingkey={signer.folder}/alice-cert.pub")
    assert signer.verify(raw).signer == ALICE
    assert signer.refusal(raw, now=NOW + 60 * 86_400) == "source.key-expired"
    assert signer.refusal(signer.commit(*signer.ssh("alice"))) == "source.key-unknown"


def test_a_signature_over_another_commit_is_refused(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}")
    raw = signer.commit(*signer.ssh("alice"))
    for changed in (
        raw.replace(b"deploy", b"depl0y"),
        raw.replace(b"author Alice", b"author Mallory"),
        raw.replace(b"tree ", b"encoding UTF-8\ntree "),
        raw.replace(b"\ngpgsig ", b"\nx-header 1\ngpgsig "),
    ):
        assert changed != raw
        assert signer.refusal(changed) == "source.signature"


def test_an_openpgp_signature_names_its_fingerprint(
    signer: Signer, gpg: Callable[[str, str], str]
) -> None:
    fingerprint = gpg(ALICE, "1d")
    raw = signer.commit(f"user.signingkey={fingerprint}")
    assert signer.verify(raw) == CommitSignature("openpgp", fingerprint, fingerprint)
    assert signer.refusal(raw.replace(b"deploy", b"depl0y")) == "source.signature"


def test_an_unknown_openpgp_key_is_refused(signer: Signer, gpg: Callable[[str, str], str]) -> None:
    gpg(ALICE, "1d")
    unknown = gpg(BOB, "1d")
    (signer.keys / f"{BOB}.asc").unlink()
    assert signer.refusal(signer.commit(f"user.signingkey={unknown}")) == "source.key-unknown"


def signed_anew(signer: Signer, raw: bytes, *options: str) -> bytes:
    """Return a commit with another OpenPGP signature of its bytes, made with these options."""
    payload = signer.folder / "payload"
    signature = parse_commit(raw).signature
    assert signature is not None
    payload.write_bytes(signature.payload)
    batch = ("gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback")
    made = run(signer.folder, *batch, "--armor", "--output", "-", *options, str(payload))
    head, _, rest = raw.partition(b"gpgsig ")
    message = rest[rest.index(b"\n\n") :]
    return head + b"gpgsig " + made.rstrip(b"\n").replace(b"\n", b"\n ") + message


def test_openpgp_signatures_of_other_kinds_are_refused(
    signer: Signer, gpg: Callable[[str, str], str]
) -> None:
    gpg(BOB, "1d")
    (signer.keys / f"{BOB}.asc").unlink()
    fingerprint = gpg(ALICE, "1d")
    good = signer.commit(f"user.signingkey={fingerprint}")
    sign = ("--local-user", ALICE, "--detach-sign")
    assert signer.verify(signed_anew(signer, good, *sign)).key == fingerprint
    both = signed_anew(signer, good, "--local-user", BOB, *sign)
    assert signer.verify(both).key == fingerprint, "the key of a stranger beside it changes nothing"
    weak = signed_anew(signer, good, "--digest-algo", "SHA1", "--allow-weak-digest-algos", *sign)
    assert signer.refusal(weak) == "source.signature"
    # A message has the signed text in itself: another text than the commit's.
    message = signed_anew(signer, good, "--local-user", ALICE, "--sign")
    assert signer.refusal(message) == "source.signature"


def test_a_revoked_openpgp_key_is_refused(signer: Signer, gpg: Callable[[str, str], str]) -> None:
    fingerprint = gpg(ALICE, "1d")
    raw = signer.commit(f"user.signingkey={fingerprint}")
    revocation = signer.folder / "gnupg" / "openpgp-revocs.d" / f"{fingerprint}.rev"
    revocation.write_text(revocation.read_text().replace(":-----BEGIN", "-----BEGIN"))
    run(signer.folder, "gpg", "--batch", "--quiet", "--import", str(revocation))
    armored = run(signer.folder, "gpg", "--armor", "--export", ALICE)
    (signer.keys / f"{ALICE}.asc").write_bytes(armored)
    assert signer.refusal(raw) == "source.key-revoked"


def test_a_revocation_beside_the_key_counts_and_a_file_that_is_no_key_refuses_everybody(
    signer: Signer, gpg: Callable[[str, str], str]
) -> None:
    fingerprint = gpg(ALICE, "1d")
    raw = signer.commit(f"user.signingkey={fingerprint}")
    revocation = signer.folder / "gnupg" / "openpgp-revocs.d" / f"{fingerprint}.rev"
    text = revocation.read_text().replace(":-----BEGIN", "-----BEGIN")
    (signer.keys / "z.asc").write_text(text[text.index("-----BEGIN") :])
    assert signer.refusal(raw) == "source.keys", "a revocation alone is no certificate"
    revocation.write_text(text)
    run(signer.folder, "gpg", "--batch", "--quiet", "--import", str(revocation))
    (signer.keys / "z.asc").write_bytes(run(signer.folder, "gpg", "--armor", "--export", ALICE))
    assert signer.refusal(raw) == "source.key-revoked"


def test_a_key_s_names_are_not_taken_for_an_answer_of_the_verifier(
    signer: Signer, gpg: Callable[[str, str], str]
) -> None:
    good = gpg(ALICE, "1d")
    hostile = gpg(f"{good}\tno key to verify, revoked, expired", "1d")
    raw = signer.commit(f"user.signingkey={hostile}")
    assert signer.verify(raw).key == hostile
    assert signer.refusal(raw.replace(b"deploy", b"depl0y")) == "source.signature"
    for path in signer.keys.iterdir():
        if path.name != f"{ALICE}.asc":
            path.unlink()
    assert signer.refusal(raw) == "source.key-unknown"


def test_the_signature_of_a_tag_is_none_of_a_commit(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}")
    raw = signer.commit(*signer.ssh("alice"))
    options = [part for each in signer.ssh("alice") for part in ("-c", each)]
    run(signer.folder, "git", *options, "tag", "-s", "-m", "release", "v1")
    tag = parse_tag(run(signer.folder, "git", "cat-file", "tag", "v1")).signature
    assert tag is not None
    head, _, rest = raw.partition(b"gpgsig ")
    moved = tag.armored.rstrip(b"\n").replace(b"\n", b"\n ") + rest[rest.index(b"\n\n") :]
    assert signer.refusal(head + b"gpgsig " + moved) == "source.signature"


def test_a_format_without_keys_is_refused(signer: Signer, gpg: Callable[[str, str], str]) -> None:
    fingerprint = gpg(ALICE, "1d")
    assert signer.refusal(signer.commit(*signer.ssh("alice"))) == "source.signature-format"
    (signer.keys / f"{ALICE}.asc").unlink()
    signer.allow(f"{ALICE} {signer.public('alice')}")
    raw = signer.commit(f"user.signingkey={fingerprint}")
    assert signer.refusal(raw) == "source.signature-format"


def test_a_signed_tag_is_verified(signer: Signer) -> None:
    signer.allow(f"{ALICE} {signer.public('alice')}")
    signer.commit()
    options = [part for each in signer.ssh("alice") for part in ("-c", each)]
    run(signer.folder, "git", *options, "tag", "-s", "-m", "release", "v1")
    raw = run(signer.folder, "git", "cat-file", "tag", "v1")
    tag = parse_tag(raw)
    assert (tag.kind, tag.name) == ("commit", "v1")
    assert signer.verifier().verify(tag.signature).signer == ALICE
    with pytest.raises(ValueError, match="something follows"):
        parse_tag(raw + b"more\n")
