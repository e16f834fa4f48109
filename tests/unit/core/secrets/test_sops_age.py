"""Key files as age-keygen writes them, and files that are none."""

from __future__ import annotations

import pyrage
import pytest

from controller.core.secrets.sops import parse_identities
from controller.model.errors import SecretError
from tests.unit.core.secrets.oracle import Keys

KEYS = Keys()


def test_a_key_file_with_comments_and_several_keys_is_read() -> None:
    other = Keys()
    text = f"# created: x\n# public key: y\n{KEYS.private}\n\n{other.private}\n"
    identities = parse_identities(text, "the file")
    assert identities.recipients == (KEYS.recipient, other.recipient)
    assert identities.open(other.sealed(b"hello"), "x") == b"hello"


@pytest.mark.parametrize(
    "text", ["", "# only a comment", "AGE-SECRET-KEY-PQ-1XYZ", "hunter2", "AGE-SECRET-KEY-1BROKEN"]
)
def test_a_file_without_a_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_identities(text, "/etc/trimtab/keys/shop.age")
    assert caught.value.code == "secret.key-invalid"
    assert "/etc/trimtab/keys/shop.age" in caught.value.message
    assert not text or text.lstrip("# ") not in caught.value.message


def test_the_private_key_is_not_shown() -> None:
    assert KEYS.private not in repr(KEYS.identities)


@pytest.mark.parametrize("sealed", [b"", b"junk", b"-----BEGIN AGE ENCRYPTED FILE-----\n"])
def test_junk_is_no_age_file(sealed: bytes) -> None:
    with pytest.raises(SecretError) as caught:
        KEYS.identities.open(sealed, "spec.age.pw")
    assert caught.value.code == "secret.age-invalid"


def test_a_file_for_another_key_names_our_recipient() -> None:
    with pytest.raises(SecretError) as caught:
        KEYS.identities.open(Keys().sealed(b"x"), "spec.age.pw")
    assert caught.value.code == "secret.wrong-key"
    assert KEYS.recipient in caught.value.message


def test_a_binary_file_is_read_whatever_byte_it_ends_in() -> None:
    recipients = [pyrage.x25519.Recipient.from_str(KEYS.recipient)]
    sealed = [pyrage.encrypt(b"hello", recipients) for _ in range(500)]
    assert {each[-1:].isspace() for each in sealed} == {True, False}
    assert {KEYS.identities.open(each, "x") for each in sealed} == {b"hello"}
