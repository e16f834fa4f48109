"""The progress of a pull, from the engine's lines."""

from __future__ import annotations

import json

import pytest

from controller.core.engine_api import streams as pull_progress
from controller.core.engine_api.streams import (
    LAYERS_MAX,
    PullProgress,
    advance_pull,
    describe_pull,
)

MIB = 1024 * 1024


def line(status: str, layer: str = "", current: int = 0, total: int = 0) -> bytes:
    detail = {"current": current, "total": total} if total else {}
    return json.dumps({"status": status, "id": layer, "progressDetail": detail}).encode()


def after(*lines: bytes) -> PullProgress:
    progress = PullProgress()
    for each in lines:
        progress = advance_pull(progress, each)
    return progress


BEGUN = (
    b'{"status":"Pulling from team/web","id":"1.2"}',
    line("Pulling fs layer", "a"),
    line("Pulling fs layer", "b"),
    line("Already exists", "c"),
)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ((), "asking its registry"),
        (BEGUN[:1], "asking its registry"),
        (BEGUN, "1 of 3 layers"),
        ((*BEGUN, line("Downloading", "a", 3 * MIB, 10 * MIB)), "1 of 3 layers, 3 of 10 MiB"),
        (
            (
                *BEGUN,
                line("Downloading", "a", 3 * MIB, 10 * MIB),
                line("Downloading", "b", MIB, 2 * MIB),
                line("Download complete", "b"),
                line("Extracting", "b", 7, 2 * MIB),
            ),
            "1 of 3 layers, 5 of 12 MiB",
        ),
        (
            (*BEGUN, line("Downloading", "a", 10, 100), line("Pull complete", "a")),
            "2 of 3 layers, 0 of 1 MiB",
        ),
        (
            (
                *BEGUN,
                line("Downloading", "a", 3 * MIB, 10 * MIB),
                line("Retrying in 5 seconds", "a"),
            ),
            "1 of 3 layers, 0 of 10 MiB, its registry failed, trying again",
        ),
    ],
)
def test_it_is_told_in_layers_and_bytes(lines: tuple[bytes, ...], shown: str) -> None:
    assert describe_pull(after(*lines)) == shown


@pytest.mark.parametrize(
    ("lines", "again"),
    [
        (BEGUN, line("Pulling fs layer", "a")),
        ((*BEGUN, line("Downloading", "a", 5, 10)), line("Downloading", "a", 5, 10)),
        # The number of retries is limited, and each begins with another line.
        ((*BEGUN, line("Retrying in 5 seconds", "a")), line("Retrying in 4 seconds", "a")),
        ((b"noise",), b"noise"),
        ((b'{"status":"Digest: x"}',), b'{"status":"Digest: x"}'),
    ],
)
def test_a_line_that_says_nothing_new_is_no_progress(
    lines: tuple[bytes, ...], again: bytes
) -> None:
    before = after(*lines)
    assert advance_pull(before, again) is before


@pytest.mark.parametrize(
    "new",
    [
        line("Downloading", "a", 6, 10),
        line("Extracting", "a", 6, 10),
        line("Waiting", "b"),
        line("Pulling fs layer", "d"),
        b'{"status":"Status: Downloaded newer image"}',
        b'{"error":"no"}',
        b"noise",
    ],
)
def test_a_line_that_says_something_new_is_progress(new: bytes) -> None:
    before = after(*BEGUN, line("Downloading", "a", 5, 10))
    assert advance_pull(before, new) != before


@pytest.mark.parametrize(
    "odd",
    [
        b"[]",
        b'{"id":"a"}',
        b'{"id":3,"status":[1]}',
        b'{"id":"a","status":"x","progressDetail":[]}',
        b'{"id":"a","status":"x","progressDetail":{"current":true,"total":-1}}',
        b'{"id":"a","status":"x","progressDetail":{"current":"9"}}',
        b"\xff",
    ],
)
def test_whatever_comes_is_taken_without_harm(odd: bytes) -> None:
    assert describe_pull(after(*BEGUN, odd)).startswith("1 of ")


def test_layers_beyond_the_bound_are_not_followed() -> None:
    lines = [line("Waiting", f"{number}") for number in range(LAYERS_MAX + 5)]
    progress = after(*lines)
    assert len(progress.layers) == LAYERS_MAX
    assert pull_progress.advance_pull(progress, line("Waiting", "more")) is progress
