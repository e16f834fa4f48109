"""The form of an armored age file, without decrypting it."""

from __future__ import annotations

from controller.model.errors import SecretError

ARMOR = "-----BEGIN AGE ENCRYPTED FILE-----"


def check_armored(text: str, key: str) -> str:
    """Return an armored age file.

    Raises:
        SecretError: another text; the message doesn't repeat it.
    """
    if not text.strip().startswith(ARMOR):
        raise SecretError(
            "secret.age-invalid",
            f"spec.age.{key} isn't an armored age file",
            remedy=f"write the output of age --armor, which begins with {ARMOR}",
        )
    return text
