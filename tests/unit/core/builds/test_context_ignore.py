""".dockerignore: patterns match as Docker's do."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.builds import context
from controller.core.builds.context import Ignore
from tests.examples import examples

# Facts of github.com/moby/patternmatcher (its tests), as patterns with a path that they match or don't.
MATCHES = [
    ("**", "dir/file"),
    ("**/", "file"),
    ("dir/**", "dir/dir2/file"),
    ("**/dir", "dir/file"),
    ("**/dir2/*", "dir/dir2/file"),
    ("**/dir2/**", "dir/dir2/dir3/file"),
    ("**file", "dir/file"),
    ("**/file*.txt", "dir/dir/file.txt"),
    ("**/**/*.txt", "file.txt"),
    ("a**/*.txt", "a/dir/dir/file.txt"),
    ("a/*.txt**", "a/file.txt"),
    ("a[b-d]e", "ace"),
    ("a[^b-d]e", "aze"),
    ("abc?def", "abcZdef"),
    ("**/foo/bar", "dir/dir2/foo/bar"),
    ("a(b)c/def", "a(b)c/def"),
    ("a.|)$(}+{bc", "a.|)$(}+{bc"),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"),
    ("a\\*b", "a*b"),
    ("a*", "ab/c"),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f"),
    ("a*b?c*x", "abxbbxdbxebxczzx"),
    ("a?b", "a☺b"),
    ("[\\]a]", "]"),
    ("[\\-x]", "-"),
    ("/docs/", "docs/README.md"),
    ("./docs", "docs/README.md"),
    ("  docs  ", "docs"),
]
OTHERS = [
    ("**/**/*.txt2", "dir/dir/file.txt"),
    ("a/*.txt", "a/dir/file.txt"),
    ("a[b-d]e", "aae"),
    (".*", "foo"),
    ("abc.def", "abcZdef"),
    ("abc?def", "abcdef"),
    ("abc/**", "abc"),
    ("**/.foo", "bar.foo"),
    ("a*/b", "a/c/b"),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff"),
    ("a?b", "a/b"),
    ("a*b", "a/b"),
    ("#docs", "#docs"),
]


def excludes(text: str, path: str) -> bool:
    """Return True if a file of the text leaves *path* out."""
    read = context.read_ignore(text)
    assert isinstance(read, Ignore), read
    return read.excludes(path)


@pytest.mark.parametrize(("pattern", "path"), MATCHES)
def test_a_pattern_matches(pattern: str, path: str) -> None:
    assert excludes(pattern, path)


@pytest.mark.parametrize(("pattern", "path"), OTHERS)
def test_a_pattern_does_not_match(pattern: str, path: str) -> None:
    assert not excludes(pattern, path)


@pytest.mark.parametrize(
    ("text", "path", "left_out"),
    [
        ("**\n!util/docker/web", "util/docker/web/foo", False),
        ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", True),
        ("docs\n!docs/README.md", "docs/README.md", False),
        ("docs\n  !docs/README.md  ", "docs/other.md", True),
        ("!fileutils.go\n*.go", "fileutils.go", True),
        ("*\n!*.py", "a/b.py", True),
        ("*\n!**/*.py", "a/b.py", False),
    ],
)
def test_the_last_pattern_decides(text: str, path: str, left_out: bool) -> None:
    assert excludes(text, path) is left_out


def test_folders_are_walked_for_what_is_taken_back() -> None:
    read = context.read_ignore("*\n!src/app")
    assert isinstance(read, Ignore)
    assert not read.excludes_below("src")
    assert read.excludes_below("docs")
    wild = context.read_ignore("*\n!**/*.py")
    assert isinstance(wild, Ignore)
    assert not wild.excludes_below("docs")


@pytest.mark.parametrize(
    "pattern",
    [
        "[",
        "[]a]",
        "[-]",
        "[x-]",
        "[a-b-c]",
        "a[",
        "[^bc",
        "\\",
        "!",
        "!  ",
        "x" * 257,
        "**/a/**/b/**/c/**/d",
    ],
)
def test_a_broken_pattern_is_a_problem(pattern: str) -> None:
    read = context.read_ignore(f"# a comment\n{pattern}")
    assert not isinstance(read, Ignore)
    assert (read.code, read.line) == ("build.ignore", 2)


def naive(pattern: str, path: str) -> bool:
    """Return True if a path, or a folder above it, matches by an expression that backtracks freely."""
    text = ""
    index = 0
    while index < len(pattern):
        if pattern.startswith("**/", index):
            text, index = text + "(.*/)?", index + 3
        elif pattern.startswith("**", index):
            text, index = text + (".*" if index + 2 == len(pattern) else "(.*/)?"), index + 2
        else:
            letter = pattern[index]
            text += {"*": "[^/]*", "?": "[^/]"}.get(letter) or re.escape(letter)
            index += 1
    parts = path.split("/")
    return any(re.fullmatch(text, "/".join(parts[:n])) for n in range(1, len(parts) + 1))


NAME = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip(".") != "")
PART = st.sampled_from(["*", "**", "?", "a", "ab", "*a", "a*", "*a*b", "a*b*", "?b*"])


@settings(max_examples=examples(300))
@given(st.lists(PART, min_size=1, max_size=4), st.lists(NAME, min_size=1, max_size=4))
def test_atomic_expressions_match_what_free_ones_match(parts: list[str], names: list[str]) -> None:
    pattern, path = "/".join(parts), "/".join(names)
    read = context.read_ignore(pattern)
    if isinstance(read, Ignore):
        assert read.excludes(path) is naive(pattern, path)


def test_the_work_of_a_pattern_is_bounded() -> None:
    assert not excludes("*a*a*a*a*a*a*a*a*a*a*a*a*b", "a" * 200)
    assert not excludes("**/*a*a*a/**/*a*a*b/**/*a*a*c", "/".join(["a" * 30] * 30))
