"""YAML text is read with places and within limits, and no content raises."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.core.yaml.documents import MAX_DOCUMENTS, MAX_NODES, compose, decode
from controller.model.errors import SourcePosition


def check(text: str, *, values: list[object], problems: list[str]) -> None:
    """Compare the values of the documents, and the problems as ``LINE:COLUMN code message``."""
    documents, found = compose(text, "f.yaml")
    assert [document.value for document in documents] == values
    assert [f"{p.line}:{p.column} {p.code} {p.message}" for p in found] == problems


def refused(text: str) -> str:
    """Return the code of the only problem of a text without a readable document."""
    documents, found = compose(text, "f.yaml")
    assert documents == []
    (problem,) = found
    return problem.code


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("010", "010"),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.4.2", "1.4.2"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("2024-05-01", "2024-05-01"),
        ("12345678901234567890", "12345678901234567890"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("512Mi", "512Mi"),
        ("-", [None]),
        (".", "."),
    ],
)
def test_a_scalar_means_what_a_person_expects(written: str, meant: object) -> None:
    check(f"a: {written}\n" if written != "-" else "a:\n-\n", values=[{"a": meant}], problems=[])


def test_a_broken_document_does_not_lose_its_neighbours() -> None:
    check(
        "a: 1\n---\nb: [1,\n---\nc: 'x\n--- # comment\nd: 4\n...\ne: 5\n",
        values=[{"a": 1}, {"d": 4}, {"e": 5}],
        problems=[
            "3:7 yaml.syntax a list or mapping that begins before and is never closed",
            "5:4 yaml.syntax a quote that is opened here and never closed",
        ],
    )


def test_empty_documents_are_none() -> None:
    check(
        "# only words\n---\n---\n\n--- null\n---\na: 1\n...\n# end\n",
        values=[{"a": 1}],
        problems=[],
    )


def test_a_duplicate_key_is_refused_at_its_second_place() -> None:
    check(
        "a:\n  b: 1\n  c: 2\n  b: 3\n",
        values=[{"a": {"b": 1, "c": 2}}],
        problems=['4:3 yaml.duplicate-key key "b" is repeated; it is first on line 2'],
    )


def test_a_tag_is_refused_and_nothing_is_constructed() -> None:
    check(
        "a: !!python/object/apply:os.system [reboot]\nb: !!str 1\n",
        values=[{"a": ["reboot"], "b": 1}],
        problems=[
            "1:4 yaml.tag the tag !!python/object/apply:os.system is not allowed",
            "2:4 yaml.tag the tag !!str is not allowed",
        ],
    )


def test_keys_are_texts() -> None:
    check(
        "8080: a\non: b\n? [x]\n: c\n'': d\n",
        values=[{"8080": "a", "on": "b"}],
        problems=[
            "3:3 yaml.key a key must be a string that isn't empty",
            "5:1 yaml.key a key must be a string that isn't empty",
        ],
    )


def test_merge_keys_bring_what_is_not_written() -> None:
    check(
        "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 3\nw: {<<: 5}\n",
        values=[
            {"x": {"a": 1, "b": 1}, "y": {"b": 2, "c": 2}, "z": {"a": 3, "b": 1, "c": 2}, "w": {}}
        ],
        problems=["6:5 yaml.merge a merge key (<<) takes a mapping or a list of mappings"],
    )


def test_bad_utf8_and_control_characters_are_told_with_their_place() -> None:
    text = decode(b"a: 1\r\n---\nb: x\xff\n---\nc: \x07\n---\nd: \xc3\xa9\n")
    check(
        text,
        values=[{"a": 1}, {"d": "é"}],
        problems=[
            "3:5 yaml.character byte 0xff is not valid UTF-8",
            "5:4 yaml.character character U+0007 is not allowed",
        ],
    )


def test_a_tab_in_the_indentation_names_the_remedy() -> None:
    _, problems = compose("a:\n\tb: 1\n", "f.yaml")
    assert problems[0].render() == (
        "f.yaml:2:1: error yaml.syntax: a tab in the indentation\n"
        "    remedy: indent with spaces, not with tabs"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: {MODE: ${MODE:-fast}}\n", "1:12"),
        ("a: {MODE: x${MODE}, B: 1}\n", "1:13"),
        ("a: {MODE: ${MODE:?needed}}\n", "1:12"),
        ("a: [\n  '${A}',\n  80:${PORT:-80}]\n", "3:7"),
    ],
)
def test_a_variable_between_brackets_is_to_be_quoted(text: str, place: str) -> None:
    _, (problem,) = compose(text, "f.yaml")
    assert problem.render() == (
        f"f.yaml:{place}: error yaml.syntax: a variable without quotes between [ and ], or {{ and }}\n"
        "    remedy: put quotes around the value"
    )


def test_a_colon_between_brackets_is_not_a_missing_one() -> None:
    _, (problem,) = compose("a: [b:?c]\n", "f.yaml")
    assert problem.remedy is not None
    assert "quote texts" in problem.remedy


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: \x85b", "yaml.character"),
        ("a: 'x\u2028---\u2028b'", "yaml.character"),
        ('a: "\\ud800"', "yaml.syntax"),
        ("%YAML 1.1\n", "yaml.directive"),
        ("%TAG !a! x\n" * 80_000, "yaml.directive"),
        ("a: *nowhere\n", "yaml.syntax"),
        ("a: &a [*a]\n", "yaml.limit"),
        ("a: &a {<<: *a}\n", "yaml.limit"),
        ("[" * 500 + "]" * 500, "yaml.limit"),
        ("[" * 500_000, "yaml.syntax"),
        ("{a: " * 200_000, "yaml.limit"),
        ("- " * 500_000, "yaml.limit"),
        ("- a\n" * 250_000, "yaml.limit"),
        ("a" * 10_000_000, "file.too-big"),
        ("é" * 600_000, "file.too-big"),
        (":" * 1_000_000, "yaml.syntax"),
        ("a" * 900_000 + ": 1", "yaml.syntax"),
    ],
)
def test_what_is_too_much_or_too_odd_is_a_problem(text: str, code: str) -> None:
    assert refused(text) == code


def test_an_alias_bomb_is_refused_in_little_memory() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefghijkl", "bcdefghijklm", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    tracemalloc.start()
    try:
        assert refused("\n".join(lines)) == "yaml.limit"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


def test_a_document_of_very_many_values_is_left_while_it_is_parsed() -> None:
    _, (problem,) = compose("- a\n" * 250_000, "f.yaml")
    # The parser stops by itself. The reader would stop only after a tree of all nodes is built.
    assert problem.message == f"more than {MAX_NODES} values in one text"


def test_a_file_of_very_many_documents_is_bounded() -> None:
    documents, problems = compose("---\na\n" * (MAX_DOCUMENTS + 1), "f.yaml")
    assert len(documents) == MAX_DOCUMENTS
    assert [problem.code for problem in problems] == ["yaml.limit"]


def test_nodes_are_counted_over_all_documents_of_a_file() -> None:
    document = "---\n" + "- a\n" * (MAX_NODES // 2)
    documents, problems = compose(document * 3, "f.yaml")
    assert len(documents) == 1
    assert [problem.code for problem in problems] == ["yaml.limit", "yaml.limit"]


def test_places_are_those_in_the_file() -> None:
    (_, document), _ = compose(
        "first: 1\n--- # second\nspec:\n  ports:\n    - {container: 80}\n  <<: {image: x}\n",
        "f.yaml",
    )
    assert document.place == SourcePosition(3, 1)
    assert document.locate(("spec",)) == SourcePosition(4, 3)
    assert document.locate_key(("spec",)) == SourcePosition(3, 1)
    assert document.locate(("spec", "ports", 0, "container")) == SourcePosition(5, 19)
    assert document.locate_key(("spec", "ports", 0, "container")) == SourcePosition(5, 8)
    # A name that is not in the document (a union's member) is skipped.
    assert document.locate(("spec", "ports", 0, "tcp", "container")) == SourcePosition(5, 19)
    assert document.lines[("spec", "ports")] == 4
    # A missing value has the place of its parent.
    assert document.locate(("spec", "nothing")) == SourcePosition(4, 3)
    assert document.locate(("spec", "image")) == SourcePosition(6, 15)


def test_a_byte_order_mark_at_the_start_is_passed_over() -> None:
    check("\ufeffa: 1\n", values=[{"a": 1}], problems=[])


# YAML has no escapes for halves of surrogate pairs, and NUL is refused.
_TEXTS = st.text(
    st.characters(min_codepoint=1, max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8
)
_SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | _TEXTS
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_TEXTS.filter(bool), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=_VALUES)
def test_json_is_read_as_it_is(value: object) -> None:
    documents, problems = compose(json.dumps({"v": value}), "f.json")
    assert (problems, [document.value for document in documents]) == ([], [{"v": value}])


_WORDS = ["b:", ": ", "  ", "- ", "---", "...", "\n---\n", "&a ", "*a", "!!x ", "<<: "]
_PIECES = st.sampled_from([*_WORDS, *"ab1é\n\t\0\ud800\udcff[]{},'\"|>#!%?"])


@given(pieces=st.lists(_PIECES, max_size=40))
@example(pieces=["&a ", "*a"])
@example(pieces=["<<: ", "\n", "<<: "])
def test_no_text_makes_it_raise_or_gives_a_place_outside(pieces: list[str]) -> None:
    text = "".join(pieces)
    documents, problems = compose(text, "f.yaml")
    lines = text.count("\n") + 1
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in problems)
    assert all(1 <= document.place.line <= lines for document in documents)
    again, again_problems = compose(text, "f.yaml")
    assert (again, again_problems) == (documents, problems)
