"""``status.json``: lossless, and strict when read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.git.reports import REPORT_MAX_BYTES, SOURCES_MAX, parse_status, render_status
from controller.model.sources import CommitInfo, CommitSignature, SourceState, SourceStatus

SIGNED = CommitSignature("ssh", "alice@example.org", "SHA256:abc")
COMMIT = CommitInfo("a" * 40, "Alice <alice@example.org>", "2026-01-01T00:00:00Z", "", "x", SIGNED)
STATUS = SourceStatus(
    "shop",
    SourceState.HELD,
    "https://example.org/shop.git",
    "branch main",
    reason="source.rewritten",
    current=COMMIT,
    candidate=CommitInfo("b" * 64),
    failures=3,
)

printable = st.text(alphabet=st.characters(exclude_categories=("C", "Z")), max_size=40)


@given(st.sampled_from(SourceState), printable, printable, st.integers(0, 1000))
def test_a_report_is_read_as_it_was_written(
    state: SourceState, message: str, author: str, failures: int
) -> None:
    status = replace(
        STATUS,
        state=state,
        message=message,
        failures=failures,
        current=replace(COMMIT, author=author),
    )
    others = SourceStatus("a", SourceState.PENDING, "file:///x", "tag v1")
    assert parse_status(render_status([status, others])) == (others, status)


def test_unprintable_texts_are_cleaned_and_long_ones_cut() -> None:
    (status,) = parse_status(render_status([replace(STATUS, message="a\nb\x1b[31m" + "x" * 9000)]))
    assert status.message.startswith("a b [31mxxx")
    assert len(status.message) == 2048


def change(path: str, value: Any) -> bytes:
    body = json.loads(render_status([STATUS]))
    parts: list[Any] = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = body
    for part in parts[:-1]:
        target = target[part]
    target[parts[-1]] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b" " * (REPORT_MAX_BYTES + 1),
        change("version", 2),
        change("sources", {}),
        change("sources", [{}]),
        change("sources.0.name", "../x"),
        change("sources.0.name", 7),
        change("sources.0.state", "Good"),
        change("sources.0.failures", -1),
        change("sources.0.failures", True),
        change("sources.0.message", "a\nb"),
        change("sources.0.message", "x" * 9000),
        change("sources.0.extra", ""),
        change("sources.0.current", []),
        change("sources.0.current.commit", "../../etc"),
        change("sources.0.current.signature", {"format": "ssh"}),
    ],
)
def test_a_report_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_status(data)


def test_too_many_sources_and_two_of_one_name_are_refused() -> None:
    many = [replace(STATUS, name=f"s{number}") for number in range(SOURCES_MAX + 1)]
    with pytest.raises(ValueError, match="at most"):
        parse_status(render_status(many))
    with pytest.raises(ValueError, match="one name"):
        parse_status(render_status([STATUS, STATUS]))
