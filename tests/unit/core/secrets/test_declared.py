"""The form of a source between controller, broker and disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.secrets.declared import (
    AgeSource,
    GeneratedSource,
    HostFileSource,
    SecretSource,
    SopsSource,
    declared_from_json,
    declared_to_json,
    is_file_name,
    source_digest,
)
from controller.core.secrets.formats import form_of
from controller.model.errors import SecretError

KEYS = st.text(min_size=1, max_size=8).filter(is_file_name)
TEXTS = st.dictionaries(KEYS, st.text(max_size=20), min_size=1, max_size=3)
SOURCES: st.SearchStrategy[SecretSource] = st.one_of(
    TEXTS.map(AgeSource),
    st.dictionaries(KEYS, KEYS, min_size=1, max_size=3).map(HostFileSource),
    st.dictionaries(KEYS, st.integers(8, 1024), min_size=1).map(GeneratedSource),
    st.builds(
        lambda text, name: SopsSource(text, form_of(name), name),
        st.binary(max_size=50),
        st.sampled_from(["a.yaml", "b.env", "c.p12"]),
    ),
)


@given(source=SOURCES)
def test_a_source_survives_its_form(source: SecretSource) -> None:
    assert declared_from_json(declared_to_json(source)) == source


@given(one=SOURCES, two=SOURCES)
def test_different_sources_have_different_digests(one: SecretSource, two: SecretSource) -> None:
    assert (source_digest(one, "a") == source_digest(two, "a")) is (one == two)
    assert source_digest(one, "a") != source_digest(one, "b")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"age": {}},
        {"age": {"a": 1}},
        {"age": {"../a": "x"}},
        {"age": {"a": "x"}, "file": {"a": "x"}},
        {"env": {"a": "x"}},
        {"file": {"a": None}},
        {"generate": {"a": 7}},
        {"generate": {"a": 1025}},
        {"generate": {"a": True}},
        {"generate": {"a": "32"}},
        {"sops": {"name": "a.yaml"}},
        {"sops": {"name": "../a.yaml", "text": ""}},
        {"sops": {"name": "a.yaml", "text": "!"}},
        {"sops": {"name": "a.yaml", "text": "", "form": "json"}},
        {"sops": {"name": "a.ini", "text": ""}},
        {"age": {str(number): "" for number in range(300)}},
        {"age": {"a": "x" * (2 * 1024 * 1024 + 1)}},
    ],
)
def test_another_form_is_refused(value: object) -> None:
    with pytest.raises(SecretError) as caught:
        declared_from_json(value)
    assert caught.value.remedy
