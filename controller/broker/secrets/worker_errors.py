"""The errors of the decryption worker, in the broker's words.

Hostile ciphertext can take a worker over. So only the code of an error leaves the worker: a text
could carry a key or a value into the status and the journal.
"""

from __future__ import annotations

from typing import Final

from controller.model.errors import SecretError

_SEE: Final = "see the place: `sudo trimtab secret list FILE -n NAMESPACE`"

#: Message and remedy by code.
WORDS: Final = {
    "secret.age-invalid": (
        "a value isn't an armored age file, or was changed",
        "encrypt again: `age --armor --recipient RECIPIENT`",
    ),
    "secret.bounds": (
        "the Secret has no key, more than 256 keys, or more than 1 MiB",
        "split the Secret",
    ),
    "secret.key-invalid": (
        "the namespace's key file has no age key, or a line that is none",
        "make a key: `trimtab secret keygen NAMESPACE`",
    ),
    "secret.key-name": (
        "a key of the Secret can't name a file",
        "name each a relative path of at most 8 steps, and no key below another",
    ),
    "secret.no-recipient": (
        "the SOPS file has no age recipient",
        "sops rotate --in-place --add-age RECIPIENT FILE",
    ),
    "secret.sops-invalid": (
        "the file isn't as SOPS writes files, or isn't encrypted",
        "encrypt it with sops or `trimtab secret encrypt`",
    ),
    "secret.sops-mac": (
        "a value was added, removed, moved or changed by hand: the MAC of the file is another",
        "change the file with `sops` or `trimtab secret edit` only",
    ),
    "secret.sops-tampered": (
        "an encrypted value was changed, or moved from another path",
        "take the file from its history, or encrypt again",
    ),
    "secret.sops-unsupported": (
        "the file uses a part of SOPS that trimtab doesn't read, such as lists or key groups",
        _SEE,
    ),
    "secret.source": ("the source has another form, or is beyond its bounds", _SEE),
    "secret.wrong-key": (
        "it is encrypted for other recipients than the namespace's key",
        "encrypt it for the namespace's recipient: `trimtab secret list` shows recipients",
    ),
}


def error_of(code: object) -> SecretError | None:
    """Return the error of a code; None for an unknown code."""
    words = WORDS.get(code) if isinstance(code, str) else None
    if words is None:
        return None
    assert isinstance(code, str), "only texts have words"
    return SecretError(code, words[0], remedy=words[1])
