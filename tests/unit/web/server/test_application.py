from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from controller.view_follower import Followed
from controller.web.pages import Away, WebSession
from controller.web.server.application import HEADERS, News
from controller.web.server.login import SESSION_S, STREAMS_OF_A_SESSION
from tests.page import worlds
from tests.unit.web.server.site import COOKIE, RunningSite, running_site


@pytest.fixture
def site() -> Iterator[RunningSite]:
    with running_site() as running:
        yield running


def test_every_answer_has_the_headers_that_keep_other_sites_out(site: RunningSite) -> None:
    mine = site.cookie()
    for path, headers, status in (
        ("/", {"Cookie": mine}, 200),
        ("/nowhere", {"Cookie": mine}, 404),
        ("/", {}, 403),
        ("/", {"Host": "evil.example"}, 421),
        ("/static/page.css", {}, 200),
        ("/static/..%2fserver%2fserve.py", {"Cookie": mine}, 404),
    ):
        answer = site.ask(path, **headers)
        assert answer.status == status, path
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
        assert answer.headers["Server"] is None


def test_a_page_is_sent_again_once_it_changed(site: RunningSite) -> None:
    mine = site.cookie()
    first = site.ask("/Service/shop/web", Cookie=mine)
    etag = first.headers["ETag"]
    again = site.ask("/Service/shop/web", Cookie=mine, If_None_Match=etag)
    assert (again.status, again.text, again.headers["ETag"]) == (304, "", etag)
    site.followed = Followed(worlds.engine_away())
    changed = site.ask("/Service/shop/web", Cookie=mine, If_None_Match=etag)
    assert (changed.status, changed.headers["ETag"] == etag) == (200, False)
    head = site.ask("/Service/shop/web", "HEAD", Cookie=mine)
    assert (head.status, head.text) == (200, "")


def test_nothing_is_shown_without_a_session_that_lasts(site: RunningSite) -> None:
    for path in ("/", "/journal", "/events", "/login", "/Service/shop/web/logs"):
        answer = site.ask(path)
        assert (answer.status, "trimtab web" in answer.text) == (403, True), path
        assert site.ask(path, Cookie=f"{COOKIE}=guess").status == 403
    mine = site.cookie()
    assert site.ask("/", Cookie=mine).status == 200
    site.clock.time += SESSION_S
    assert site.ask("/", Cookie=mine).status == 403
    assert site.reader.asked == [], "the journal was read for nobody"


def test_a_program_that_looks_at_a_link_does_not_use_it_up(site: RunningSite) -> None:
    link = f"/open/{site.sessions.offer(WebSession('ann'), site.clock.monotonic())}"
    assert site.ask(link, "HEAD").status == 405
    entered = site.ask(link)
    assert (entered.status, entered.headers["Refresh"]) == (200, "0; url=/")
    cookie = entered.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=secret-")
    assert cookie.endswith("; HttpOnly; Max-Age=43200; Path=/; SameSite=strict")
    assert site.ask("/", Cookie=cookie.partition(";")[0]).status == 200
    assert (site.ask(link).status, site.ask(link).headers["Set-Cookie"]) == (403, None)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(site: RunningSite, method: str) -> None:
    assert site.ask("/", method, Cookie=site.cookie()).status == 405


def test_another_name_of_the_host_is_refused(site: RunningSite) -> None:
    mine, port = site.cookie(), site.address[1]
    for name in ("evil.example", f"evil.example:{port}", f"localhost:{port}", "127.0.0.1", ""):
        assert site.ask("/", Cookie=mine, Host=name).status == 421, name
    head = f"GET / HTTP/1.1\r\nHost: {site.name}\r\nHost: evil.example\r\n\r\n"
    with site.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).split(b" ")[1] in {b"400", b"421"}


def test_what_the_broker_can_t_answer_is_said_and_the_rest_is_shown(site: RunningSite) -> None:
    site.reader.found = Away.BROKER
    page = site.ask("/Service/shop/web", Cookie=site.cookie()).text
    assert "The gate doesn't answer." in page
    assert "shop" in page
    site.followed = Followed(worlds.ordinary(), away_since=site.clock.now())
    assert "The controller doesn't answer" in site.ask("/", Cookie=site.cookie()).text
    site.followed = Followed(None, away_since=site.clock.now())
    assert site.ask("/", Cookie=site.cookie()).status in {200, 503}


def test_a_stream_says_that_there_is_news_and_ends_with_the_server(site: RunningSite) -> None:
    with site.stream("/events", Cookie=site.cookie()) as stream:
        assert stream.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        assert stream.readline() == b": the page is followed\n"
        site.tell()
        assert [stream.readline(), stream.readline()] == [b"\n", b"data: 1\n"]
        site.end()
        assert stream.read() == b"\n"


def test_a_session_has_so_many_streams_and_its_tabs_ask_instead(site: RunningSite) -> None:
    mine = site.cookie()
    with ExitStack() as streams:
        for _ in range(STREAMS_OF_A_SESSION):
            opened = streams.enter_context(site.stream("/events", Cookie=mine))
            assert opened.readline(), "it is open"
        assert site.ask("/events", Cookie=mine).status == 503
        assert site.ask("/", Cookie=mine).status == 200
        with site.stream("/events", Cookie=site.cookie()) as other:
            assert other.status == 200


def test_a_silent_stream_ends_with_the_right_to_read_it() -> None:
    answers = iter([True, True, False])

    async def read() -> list[str]:
        return [line async for line in News().lines(lambda: next(answers), beat_s=0.001)]

    assert asyncio.run(read()) == [": the page is followed\n\n", *[": still here\n\n"] * 2]
