"""Raw commits and tags: fields for people, signed bytes, and objects that could be read in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.git.commit_objects import OBJECT_MAX, parse_commit, parse_tag

TREE, PARENT = "a" * 40, "b" * 40
SIGNATURE = "-----BEGIN SSH SIGNATURE-----\n {}\n -----END SSH SIGNATURE-----"
HEAD = f"tree {TREE}\nparent {PARENT}\n"
PERSONS = (
    "author Ana <ana@example.org> 1700000000 +0100\n"
    "committer Bo <bo@example.org> 1700000060 +0000\n"
)
SIGNED = f"{HEAD}{PERSONS}gpgsig {SIGNATURE.format('AAAA')}\n\nDeploy\n\nMore.\n".encode()
TAG = (
    f"object {PARENT}\ntype commit\ntag v1\ntagger Ana <ana@example.org> 1700000000 +0000\n\nv1\n"
    f"{SIGNATURE.format('AAAA').replace(chr(10) + ' ', chr(10))}\n"
).encode()


def test_the_fields_of_a_commit_are_read() -> None:
    commit = parse_commit(SIGNED)
    assert (commit.tree, commit.parents, commit.subject) == (TREE, (PARENT,), "Deploy")
    assert commit.author == "Ana <ana@example.org>"
    assert commit.authored == "2023-11-14T22:13:20Z"
    assert commit.committed == "2023-11-14T22:14:20Z"


def test_the_signature_covers_all_but_its_own_header() -> None:
    signature = parse_commit(SIGNED).signature
    assert signature is not None
    assert signature.format == "ssh"
    assert signature.payload == f"{HEAD}{PERSONS}\nDeploy\n\nMore.\n".encode()
    assert signature.armored.decode() == SIGNATURE.format("AAAA").replace("\n ", "\n") + "\n"


def test_a_commit_without_a_signature_has_none() -> None:
    assert parse_commit(f"{HEAD}{PERSONS}\nDeploy\n".encode()).signature is None


def test_hostile_texts_are_escaped_and_bounded() -> None:
    raw = f"{HEAD}{PERSONS}\n\x1b[2J{'x' * 5000}\n".encode().replace(b"Ana", b"A\x9bna\xff")
    commit = parse_commit(raw)
    assert commit.author.isprintable()
    assert commit.subject.isprintable()
    assert len(commit.subject) == 200


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"tree ", b"tree " + b"c" * 40 + b"\ntree ", "tree occurs twice"),
        (b"gpgsig ", b"gpgsig x\ngpgsig ", "gpgsig occurs twice"),
        (b"gpgsig ", b"gpgsig-sha256 x\ngpgsig ", "two hash functions"),
        (b"gpgsig ", b"gpgsig-sha3 x\ngpgsig ", "unknown header of a signature"),
        (b" -----END", b" AAAA\n -----BEGIN SSH SIGNATURE-----\n -----END", "has no end"),
        (b"SIGNATURE-----\n\n", b"SIGNATURE-----\n more\n\n", "has no end"),
        (b"tree " + b"a" * 40, b"tree abc", "malformed"),
        (b"author", b"aut\0hor", "NUL"),
        (b"author Ana", b"author\nAna", "no value"),
    ],
)
def test_an_ambiguous_commit_is_refused(old: bytes, new: bytes, why: str) -> None:
    assert old in SIGNED
    with pytest.raises(ValueError, match=why):
        parse_commit(SIGNED.replace(old, new, 1))


def test_a_commit_of_many_lines_costs_little() -> None:
    """The broker parses commits before it knows the signer: the time limit ends a quadratic parser."""
    with pytest.raises(ValueError, match="occurs twice"):
        parse_commit(b"tree \n" * 170_000)
    signed = SIGNED.replace(b"\n AAAA", b"\n " * 500_000)
    with pytest.raises(ValueError, match="two hash functions"):
        parse_commit(signed.replace(b"gpgsig ", b"gpgsig-sha256 x\ngpgsig "))


def test_the_signature_of_a_tag_covers_what_is_before_it() -> None:
    tag = parse_tag(TAG)
    assert (tag.target, tag.kind, tag.name) == (PARENT, "commit", "v1")
    assert tag.signature is not None
    assert tag.signature.payload + tag.signature.armored == TAG


@pytest.mark.parametrize(
    "raw",
    [
        TAG + b"more\n",
        TAG + TAG[TAG.index(b"-----BEGIN") :],
        TAG.replace(b"\n\n", b"\ngpgsig x\n\n", 1),
    ],
)
def test_an_ambiguous_tag_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"signature|follows"):
        parse_tag(raw)


@given(st.binary(max_size=300), st.integers(0, len(SIGNED)), st.integers(0, 40))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int, cut: int) -> None:
    for parse, raw in ((parse_commit, SIGNED), (parse_tag, TAG)):
        try:
            parse(raw[:at] + noise + raw[at + cut :])
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("line", "message"), [(b"tree x\n", "twice"), (b" x\n", "missing"), (b"a b\n", "missing")]
)
def test_headers_of_a_megabyte_cost_one_look_at_each_line(line: bytes, message: str) -> None:
    head = b"gpgsig x\n" + line * ((OBJECT_MAX - 100) // len(line))
    with pytest.raises(ValueError, match=message):
        parse_commit(head + b"\n\n")
