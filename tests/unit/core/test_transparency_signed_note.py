"""Notes and keys as https://c2sp.org/signed-note has them, read by sigstore as well."""

from __future__ import annotations

from base64 import b64encode

import pytest
from sigstore.errors import VerificationError

from controller.core.transparency import (
    BadNote,
    Note,
    PrivateKey,
    parse_note,
    parse_private,
    parse_public,
    sign_note,
)
from tests.others import sigstore_reads

#: The page's own example.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
KEY = PrivateKey("trimtab/5109a1b2c3d4e5f6", bytes(range(32)))
OTHER = PrivateKey("trimtab/5109a1b2c3d4e5f6", bytes(range(1, 33)))
TEXT = "trimtab/5109a1b2c3d4e5f6\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def test_the_example_of_the_format_verifies() -> None:
    note = parse_note(EXAMPLE)
    assert note.text == "This is an example message.\n"
    assert note.is_signed_by(parse_public(VKEY))
    assert str(note) == EXAMPLE
    assert str(parse_public(VKEY)) == VKEY


def test_sigstore_reads_and_verifies_what_is_signed() -> None:
    note = str(sign_note(TEXT, [KEY, OTHER]))
    for key in (KEY, OTHER):
        read = sigstore_reads(note, key.public)
        assert (read.origin, read.log_size, read.other_content) == (KEY.name, 3, [])
    with pytest.raises(VerificationError, match="Signature not found"):
        sigstore_reads(str(sign_note(TEXT, [KEY])), OTHER.public)
    with pytest.raises(VerificationError, match="invalid signature"):
        sigstore_reads(note.replace("\n3\n", "\n4\n"), KEY.public)


def test_what_is_signed_is_what_is_verified() -> None:
    note = sign_note(TEXT, [KEY, OTHER])
    read = parse_note(str(note))
    assert read == note
    assert read.is_signed_by(KEY.public)
    assert read.is_signed_by(OTHER.public)
    assert not sign_note(TEXT, [KEY]).is_signed_by(OTHER.public)
    changed = Note(TEXT.replace("\n3\n", "\n4\n"), note.signatures)
    assert not changed.is_signed_by(KEY.public)


def test_keys_are_read_as_they_are_written_and_no_secret_shows() -> None:
    assert parse_private(f"{KEY.secret()}\n") == KEY
    assert parse_public(f"{KEY.public}\n") == KEY.public
    shown = f"{KEY!r} {KEY}"
    assert "seed" not in shown
    assert b64encode(KEY.seed).decode() not in shown


LINE = EXAMPLE.splitlines()[2]


@pytest.mark.parametrize(
    "told",
    [
        "",
        "text\n",
        "text\n\n",
        f"text\n{LINE}\n",
        f"\n\n{LINE}\n",
        f"text\n\n{LINE}",
        f"text\n\n{LINE}\n\n",
        f"te\x1bxt\n\n{LINE}\n",
        f"text\n\n{LINE}\nmore\n",
        f"text\n\n- {LINE[2:]}\n",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAAAB\n",
        "text\n\n— na+me AAAAAAAA\n",
        "text\n\n" + f"{LINE}\n" * 33,
        "x" * 70_000 + f"\n\n{LINE}\n",
    ],
)
def test_what_is_no_note_is_refused(told: str) -> None:
    with pytest.raises(BadNote):
        parse_note(told)


@pytest.mark.parametrize(
    "told",
    [
        "",
        "name",
        VKEY[:-1],
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("AekyeR", "AukyeR"),
        VKEY.replace("example.com/foo", "example.com/fo"),
        f"a b{VKEY}",
        KEY.secret(),
    ],
)
def test_what_is_no_public_key_is_refused(told: str) -> None:
    with pytest.raises(BadNote):
        parse_public(told)


@pytest.mark.parametrize("told", ["", VKEY, KEY.secret()[:-1], KEY.secret()[8:]])
def test_what_is_no_private_key_is_refused_and_not_repeated(told: str) -> None:
    with pytest.raises(BadNote) as caught:
        parse_private(told)
    assert str(caught.value) == "not the private key of a signed note"


def test_a_wrong_signature_under_a_keys_name_spoils_the_right_one() -> None:
    note = sign_note(TEXT, [KEY])
    wrong = sign_note(TEXT + "more\n", [KEY]).signatures
    assert not Note(note.text, (*note.signatures, *wrong)).is_signed_by(KEY.public)
