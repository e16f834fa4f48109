"""Versions and ranges, as semver.org orders them and as Flux and npm write ranges."""

from __future__ import annotations

import itertools

import pytest

from controller.core.git.references import Version, VersionRange

#: Section 11 of the specification, lowest first.
ORDER = (
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.9.0",
    "1.10.0",
    "2.0.0",
)


def version(text: str) -> Version:
    parsed = Version.parse(text)
    assert parsed is not None
    return parsed


def test_versions_are_ordered_by_precedence() -> None:
    for lower, higher in itertools.combinations(ORDER, 2):
        assert version(lower) < version(higher), (lower, higher)
    assert version("v1.0.0+build.7") == version("1.0.0")


@pytest.mark.parametrize("text", ["", "1", "1.2", "01.2.3", "1.2.3.4", "release-1.2.3", "1.2.3-"])
def test_other_tags_are_no_versions(text: str) -> None:
    assert Version.parse(text) is None


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.x", "1.0.0 1.99.3", "0.9.9 2.0.0 1.5.0-rc.1 2.0.0-rc.1"),
        ("1.2.*", "1.2.0 1.2.9", "1.3.0 1.1.9"),
        ("*", "0.0.1 99.0.0", "1.0.0-rc.1"),
        ("1", "1.0.0 1.9.9", "2.0.0"),
        ("1.2.3", "1.2.3", "1.2.4 1.2.2"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.1 0.9.0", "1.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        (">=1.2.0 <2.0.0", "1.2.0 1.9.9", "1.1.9 2.0.0 2.0.0-rc.1"),
        (">= 1.2.0 < 2", "1.2.0 1.9.9", "2.0.0"),
        (">1.2", "1.3.0 2.0.0", "1.2.9"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2.9 0.1.0", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("1.2 - 1.4", "1.2.0 1.4.9", "1.5.0 1.1.9"),
        ("1.2.3 - 1.4.2", "1.2.3 1.4.2", "1.4.3"),
        ("1.x || >=3", "1.1.0 3.0.0 4.1.0", "2.0.0"),
        (">=1.0.0-0", "1.0.0-rc.1 1.0.0 2.0.0-rc.1", "0.9.0"),
    ],
)
def test_ranges(text: str, inside: str, outside: str) -> None:
    wanted = VersionRange.parse(text)
    assert [each for each in inside.split() if not wanted.has(version(each))] == []
    assert [each for each in outside.split() if wanted.has(version(each))] == []


@pytest.mark.parametrize("text", ["1.2.3.4", "latest", ">=", "^^1", "1.2 -"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        VersionRange.parse(text)
