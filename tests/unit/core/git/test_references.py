"""The reference that a source follows, out of those that a repository lists."""

from __future__ import annotations

import pytest

from controller.core.git.references import parse_listing, pattern_of, select_reference
from controller.model.desired.source_spec import GitRef

LISTED = {
    f"refs/{name}": "1" * 40
    for name in ("heads/main", "heads/1.0.0", "tags/1.0.0", "tags/v1.4.2", "tags/v2.0.0", "tags/x")
}


@pytest.mark.parametrize(
    ("ref", "pattern", "selected"),
    [
        (GitRef(branch="main"), "refs/heads/main", "refs/heads/main"),
        (GitRef(branch="gone"), "refs/heads/gone", None),
        (GitRef(tag="1.0.0"), "refs/tags/1.0.0", "refs/tags/1.0.0"),
        (GitRef(name="refs/heads/1.0.0"), "refs/heads/1.0.0", "refs/heads/1.0.0"),
        (GitRef(semver="1.x"), "refs/tags/*", "refs/tags/v1.4.2"),
        (GitRef(semver=">=3"), "refs/tags/*", None),
        (GitRef(commit="1" * 40), None, None),
    ],
)
def test_a_source_follows_one_reference(
    ref: GitRef, pattern: str | None, selected: str | None
) -> None:
    assert pattern_of(ref) == pattern
    if pattern is not None:
        assert select_reference(ref, LISTED) == selected


def test_lines_of_another_form_are_left_out() -> None:
    lines = (
        b"1" * 40 + b"\trefs/heads/main",
        b"2" * 64 + b"\trefs/tags/v1",
        b"3" * 40 + b"\tHEAD",
        b"4" * 39 + b"\trefs/heads/short",
        b"5" * 40 + b"\trefs/heads/\xff",
        b"remote: hello",
    )
    assert parse_listing(b"\n".join(lines)) == {
        "refs/heads/main": "1" * 40,
        "refs/tags/v1": "2" * 64,
    }
