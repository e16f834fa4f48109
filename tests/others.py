"""Verifiers of checkpoints that aren't ours: sigstore's for notes, pymerkle's for trees."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymerkle import InmemoryTree
from sigstore._internal.rekor.checkpoint import LogCheckpoint, SignedCheckpoint
from sigstore._internal.trust import Keyring, RekorKeyring
from sigstore._utils import KeyID
from sigstore_models.common import v1 as common

from controller.core.transparency import PublicKey


def sigstore_reads(note: str, key: PublicKey) -> LogCheckpoint:
    """Return a checkpoint as sigstore reads it.

    Raises:
        sigstore.errors.VerificationError: it is malformed, or that key didn't sign it.
    """
    public = Ed25519PublicKey.from_public_bytes(key.key)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    known = common.PublicKey(
        raw_bytes=b64encode(der), key_details=common.PublicKeyDetails.PKIX_ED25519
    )
    checkpoint = SignedCheckpoint.from_text(note)
    # It looks for a signature by the first 4 bytes of the log's id, as notes have them.
    identity = KeyID(key.id + bytes(28))
    checkpoint.signed_note.verify(RekorKeyring(Keyring([known])), identity)
    return checkpoint.checkpoint


def pymerkle_root(lines: Iterable[bytes]) -> bytes:
    """Return the root of the tree whose leaves *lines* are."""
    tree = InmemoryTree(algorithm="sha256")
    for line in lines:
        tree.append_entry(line)
    root: bytes = tree.get_root()
    return root
