"""SSH signatures of commits: the form of OpenSSH's PROTOCOL.sshsig, checked without I/O.

Supported keys: Ed25519, ECDSA on the NIST curves, and RSA from 2048 bits with SHA-2. Certificates and
keys of hardware tokens are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from controller.core.proofs.git_objects import InvalidProof

_MAGIC = b"SSHSIG"
_VERSION = 1
#: The namespace of Git's signatures (gitformat-signature(5)).
NAMESPACE = b"git"
RSA_BITS_MIN = 2048
_ARMOR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]{1,16384})\n-----END SSH SIGNATURE-----\n*"
)
#: The hash of an ECDSA signature, by the type of the key.
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}
#: The types of keys that can be checked.
KEY_TYPES = ("ssh-ed25519", "ssh-rsa", *_CURVES)


@dataclass(frozen=True, slots=True)
class SshPublicKey:
    """A public key of OpenSSH: type, and bytes of the wire form."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint, such as ``SHA256:…``."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


def signer_of(armored: bytes, payload: bytes) -> SshPublicKey:
    """Return the key that signed *payload*.

    Raises:
        InvalidProof: the signature is malformed, unsupported or wrong.
    """
    found = _ARMOR.fullmatch(armored)
    if found is None:
        raise _malformed("it has another form")
    try:
        outer = _Reader(base64.b64decode(found[1].replace(b"\n", b""), validate=True))
    except (ValueError, binascii.Error):
        raise _malformed("it isn't base64") from None
    if outer.take(len(_MAGIC)) != _MAGIC or outer.number() != _VERSION:
        raise _malformed("it isn't of version 1")
    blob, namespace, reserved, hash_name, signature = (outer.text() for _ in range(5))
    outer.end()
    if namespace != NAMESPACE:
        raise InvalidProof("proof.signature", "the signature isn't one of Git")
    if hash_name not in {b"sha256", b"sha512"}:
        raise _malformed("it has an unknown hash function")
    message = hashlib.new(hash_name.decode(), payload).digest()
    signed = _MAGIC + b"".join(map(_packed, (namespace, reserved, hash_name, message)))
    inner = _Reader(signature)
    algorithm, value = inner.text().decode("ascii", "replace"), inner.text()
    inner.end()
    key = SshPublicKey(_Reader(blob).text().decode("ascii", "replace"), blob)
    _check(key, algorithm, value, signed)
    return key


def _check(key: SshPublicKey, algorithm: str, value: bytes, signed: bytes) -> None:
    if key.type not in KEY_TYPES:
        raise InvalidProof(
            "proof.key-unsupported", f"the signature's key has the type {key.type!r:.64}"
        )
    text = f"{key.type} {base64.b64encode(key.blob).decode()}".encode()
    try:
        public = load_ssh_public_key(text)
        if isinstance(public, Ed25519PublicKey) and algorithm == key.type:
            return public.verify(value, signed)
        if isinstance(public, EllipticCurvePublicKey) and algorithm == key.type:
            reader = _Reader(value)
            r, s = (int.from_bytes(reader.text(), "big", signed=True) for _ in range(2))
            reader.end()
            return public.verify(encode_dss_signature(r, s), signed, ECDSA(_CURVES[key.type]))
        if isinstance(public, RSAPublicKey) and algorithm in _RSA_HASHES:
            if public.key_size < RSA_BITS_MIN:
                raise InvalidProof("proof.key-unsupported", f"an RSA key of {public.key_size} bits")
            return public.verify(value, signed, padding.PKCS1v15(), _RSA_HASHES[algorithm])
    except InvalidSignature:
        raise InvalidProof("proof.signature", "the commit isn't what was signed") from None
    except (ValueError, UnsupportedAlgorithm, OverflowError) as error:
        if isinstance(error, InvalidProof):
            raise
        raise _malformed("its key or value can't be read") from None
    raise _malformed("its algorithm doesn't fit its key")


class _Reader:
    """Reads the wire form of SSH (RFC 4251, section 5)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise _malformed("it is cut off")
        self._at += count
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def text(self) -> bytes:
        return self.take(self.number())

    def end(self) -> None:
        if self._at != len(self._data):
            raise _malformed("something follows it")


def _packed(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def _malformed(why: str) -> InvalidProof:
    return InvalidProof("proof.signature", f"the signature can't be read: {why}")
