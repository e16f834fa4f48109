"""Bounds of contents, and ids that show equality and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.secrets.declared import (
    CONTENT_MAX,
    FILES_MAX,
    SecretName,
    check_contents,
    content_id,
    is_file_name,
)
from controller.model.errors import SecretError

BOUND = SecretName("shop", "team-a", "db")
KEY = b"k" * 32
FILES = {"url": b"postgres://x", "pw": b"s3cret"}


def test_equal_contents_have_one_id_whatever_their_order() -> None:
    turned = dict(reversed(FILES.items()))
    assert content_id(FILES, bound=BOUND, key=KEY) == content_id(turned, bound=BOUND, key=KEY)


@pytest.mark.parametrize(
    "other",
    [
        SecretName("shop2", "team-a", "db"),
        SecretName("shop", "team-b", "db"),
        SecretName("shop", "team-a", "db2"),
        SecretName("shopt", "eam-a", "db"),
    ],
)
def test_equal_contents_of_another_secret_have_another_id(other: SecretName) -> None:
    assert content_id(FILES, bound=other, key=KEY) != content_id(FILES, bound=BOUND, key=KEY)


def test_another_broker_gives_other_ids() -> None:
    assert content_id(FILES, bound=BOUND, key=b"j" * 32) != content_id(FILES, bound=BOUND, key=KEY)


FILES_DRAWN = st.dictionaries(st.text(min_size=1, max_size=5), st.binary(max_size=5), max_size=4)


@given(one=FILES_DRAWN, two=FILES_DRAWN)
def test_different_contents_have_different_ids(
    one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    first, second = (content_id(files, bound=BOUND, key=KEY) for files in (one, two))
    assert (first == second) is (one == two)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("a/b.c", True),
        (".env", True),
        ("..data", False),
        ("../a", False),
        ("a/../b", False),
        ("/a", False),
        ("a//b", False),
        ("a/", False),
        ("", False),
        (".", False),
        ("a\nb", False),
        ("a/" * 8 + "b", False),
        ("a" * 201, False),
    ],
)
def test_a_key_names_a_file_below_the_mount(name: str, good: bool) -> None:
    assert is_file_name(name) is good


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "secret.bounds"),
        ({str(number): b"" for number in range(FILES_MAX + 1)}, "secret.bounds"),
        ({"a": b"x" * (CONTENT_MAX + 1)}, "secret.bounds"),
        ({"../a": b""}, "secret.key-name"),
        ({"a": b"", "a/b": b""}, "secret.key-name"),
    ],
)
def test_contents_beyond_the_bounds_are_refused(files: dict[str, bytes], code: str) -> None:
    with pytest.raises(SecretError) as caught:
        check_contents(files)
    assert caught.value.code == code
    assert caught.value.remedy
