from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from controller.web.pages import WebSession
from controller.web.server.login import (
    LINK_S,
    SESSION_S,
    SESSIONS_MAX,
    STREAMS_MAX,
    STREAMS_OF_A_SESSION,
    BrowserSession,
    Sessions,
)

ANN = WebSession("ann")


def sessions() -> Sessions:
    numbers: Iterator[int] = iter(range(10_000))
    return Sessions(lambda: f"secret-{next(numbers)}")


def begun(server: Sessions) -> BrowserSession:
    found = server.find(server.begin(ANN, 0.0), 0.0)
    assert found is not None
    return found


def test_a_link_begins_one_session_while_it_is_fresh() -> None:
    server = sessions()
    link, late = server.offer(ANN, 0.0), server.offer(ANN, 0.0)
    secret = server.redeem(link, LINK_S - 1)
    assert secret is not None
    found = server.find(secret, LINK_S)
    assert found is not None
    assert found.reader == ANN
    assert server.redeem(link, LINK_S - 1) is None, "it was used"
    assert server.redeem(late, LINK_S) is None, "it is too old"
    assert server.redeem("secret-unknown", 0.0) is None
    assert server.find(link, 0.0) is None, "a link is no session"


def test_a_session_ends_after_its_time_and_the_oldest_one_for_a_further_one() -> None:
    server = sessions()
    first = server.begin(ANN, 0.0)
    assert server.find(first, SESSION_S - 1) is not None
    assert server.find(first, SESSION_S) is None
    first = server.begin(ANN, 0.0)
    for _ in range(SESSIONS_MAX - 1):
        server.begin(ANN, 0.0)
    assert server.find(first, 0.0) is not None
    server.begin(ANN, 0.0)
    assert server.find(first, 0.0) is None


def test_streams_are_bounded_for_a_session_and_in_total() -> None:
    server = sessions()
    one = begun(server)
    with ExitStack() as open_streams:
        for _ in range(STREAMS_OF_A_SESSION):
            assert server.can_stream(one)
            open_streams.enter_context(server.streaming(one))
        assert not server.can_stream(one)
        while server.can_stream(other := begun(server)):
            open_streams.enter_context(server.streaming(other))
        opened = STREAMS_MAX - STREAMS_OF_A_SESSION
        assert len(open_streams._exit_callbacks) == opened + STREAMS_OF_A_SESSION  # type: ignore[attr-defined]
    assert server.can_stream(one)
