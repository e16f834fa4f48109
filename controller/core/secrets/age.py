"""age files and identities, by ``pyrage``. Decrypts only: encryption needs randomness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyrage

from controller.model.errors import SecretError

IDENTITIES_MAX = 16
_IDENTITY = "AGE-SECRET-KEY-1"


@dataclass(frozen=True, slots=True)
class Identities:
    """The private keys of a namespace."""

    _keys: tuple[pyrage.x25519.Identity, ...] = field(repr=False)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys."""
        return tuple(str(key.to_public()) for key in self._keys)

    def open(self, sealed: str | bytes, what: str) -> bytes:
        """Decrypt an age file; *what* names the file in messages.

        Raises:
            SecretError: for other recipients, or no age file.
        """
        data = sealed.encode() if isinstance(sealed, str) else sealed
        try:
            return bytes(pyrage.decrypt(data.strip(), list(self._keys)))
        except pyrage.DecryptError as error:
            if "matching keys" in str(error).lower():
                raise self.wrong_key(what) from None
            raise SecretError(
                "secret.age-invalid",
                f"{what} isn't an age file, or was changed",
                remedy="encrypt it again: age --armor --recipient RECIPIENT",
            ) from None

    def wrong_key(self, what: str, others: Sequence[str] = ()) -> SecretError:
        """Return the error of a file that is for other recipients."""
        known = f"; the file is for {_short(others)}" if others else ""
        return SecretError(
            "secret.wrong-key",
            f"{what} isn't encrypted for this namespace's key {_short(self.recipients)}{known}",
            remedy="encrypt it for the namespace's recipient (trimtab secret list shows the recipient)",
        )


def _short(recipients: Sequence[str]) -> str:
    shown = [text if len(text) <= 64 else f"{text[:20]}…" for text in recipients[:3]]
    return ", ".join(shown) + (f" and {len(recipients) - 3} more" if len(recipients) > 3 else "")


def parse_identities(text: str, place: str) -> Identities:
    """Return the identities of a key file, as ``age-keygen`` writes such files.

    Raises:
        SecretError: no identity, or a line that is none. The message repeats no line.
    """
    keys = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            keys.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError:
            other = line.startswith("AGE-SECRET-KEY-") and not line.startswith(_IDENTITY)
            raise SecretError(
                "secret.key-invalid",
                f"line {number} of {place} is "
                + ("a key of another kind" if other else "no age key"),
                remedy="make a key with `trimtab secret keygen NAMESPACE` or `age-keygen`",
            ) from None
    if not keys or len(keys) > IDENTITIES_MAX:
        raise SecretError(
            "secret.key-invalid",
            f"{place} has {len(keys) or 'no'} age keys; expected 1 to {IDENTITIES_MAX}",
            remedy="make a key with `trimtab secret keygen NAMESPACE`",
        )
    return Identities(tuple(keys))
