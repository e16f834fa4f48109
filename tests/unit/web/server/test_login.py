from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from controller.view_follower import Followed
from controller.web.server.login import (
    ADDRESSES_MAX,
    FAILURES_MAX,
    SESSION_S,
    WINDOW_S,
    FailedLogins,
    TrustedProxy,
)
from controller.web.server.tokens import TokenFile, WebToken, digest_of
from tests.page import worlds
from tests.unit.web.server.site import Answer, RunningSite, running_site

FAR = 10**12
URL = "https://trimtab.example"
HOST = "trimtab.example"


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    file = TokenFile(tmp_path / "web" / "tokens.json")
    for name, scope in (("ann", "view"), ("shop", "view+logs:platform"), ("prom", "metrics")):
        file.add(WebToken(name, digest_of(f"secret of {name}"), scope, FAR))
    file.add(WebToken("late", digest_of("secret of late"), "view", 999))
    return file


@pytest.fixture
def site(tokens: TokenFile) -> Iterator[RunningSite]:
    with running_site(url=URL, tokens=tokens) as running:
        yield running


def log_in(site: RunningSite, name: str, **headers: str) -> Answer:
    body = urlencode({"token": f"secret of {name}"})
    return site.ask("/login", "POST", body, Host=HOST, **headers)


def cookie_of(answer: Answer) -> str:
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def test_a_token_begins_a_session_that_only_its_browser_and_site_have(site: RunningSite) -> None:
    form = site.ask("/login", Host=HOST)
    assert (form.status, 'name="token"' in form.text, "harbour" in form.text) == (200, True, False)
    redirected = site.ask("/Service/shop/web", Host=HOST)
    assert (redirected.status, redirected.headers["Location"]) == (303, "/login")
    entered = log_in(site, "ann", Sec_Fetch_Site="same-origin")
    assert (entered.status, entered.headers["Location"]) == (303, "/")
    name, *flags = str(entered.headers["Set-Cookie"]).split("; ")
    assert name.startswith("__Host-trimtab-test=")
    assert flags == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=strict", "Secure"]
    assert site.ask("/", Host=HOST, Cookie=cookie_of(entered)).status == 200
    site.clock.time += SESSION_S
    assert site.ask("/", Host=HOST, Cookie=cookie_of(entered)).status == 303


def test_over_http_on_this_host_the_cookie_has_no_prefix_and_needs_no_tls(
    tokens: TokenFile,
) -> None:
    with running_site(tokens=tokens) as site:
        entered = site.ask("/login", "POST", urlencode({"token": "secret of ann"}))
        assert "Secure" not in str(entered.headers["Set-Cookie"])
        assert site.ask("/", Cookie=cookie_of(entered)).status == 200


@pytest.mark.parametrize("name", ["nobody", "late", "prom"])
def test_no_other_token_begins_a_session(site: RunningSite, name: str) -> None:
    refused = log_in(site, name)
    assert (refused.status, refused.headers["Set-Cookie"]) == (403, None)
    assert "This token opens no page" in refused.text


def test_a_revoked_token_ends_its_sessions(site: RunningSite, tokens: TokenFile) -> None:
    ann, shop = cookie_of(log_in(site, "ann")), cookie_of(log_in(site, "shop"))
    TokenFile(tokens._path).revoke("ann")
    assert site.ask("/", Host=HOST, Cookie=ann).status == 303
    assert site.ask("/events", Host=HOST, Cookie=ann).status == 403
    assert site.ask("/", Host=HOST, Cookie=shop).status == 200


def revoke(_site: RunningSite, tokens: TokenFile, _cookie: str) -> None:
    TokenFile(tokens._path).revoke("shop")


def change(tokens: TokenFile, **members: Any) -> None:
    file = TokenFile(tokens._path)
    before = next(each for each in file.tokens() if each.name == "shop")
    file.revoke("shop")
    file.add(replace(before, **members))


def narrow(_site: RunningSite, tokens: TokenFile, _cookie: str) -> None:
    change(tokens, scope="view")


def expire(site: RunningSite, tokens: TokenFile, _cookie: str) -> None:
    change(tokens, expires=int(site.clock.now()))


def log_out(site: RunningSite, _tokens: TokenFile, cookie: str) -> None:
    page = site.ask("/", Host=HOST, Cookie=cookie).text
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    site.ask("/logout", "POST", urlencode({"csrf": csrf}), Host=HOST, Cookie=cookie)


@pytest.mark.parametrize("lose", [revoke, narrow, expire, log_out])
def test_a_stream_ends_with_the_right_to_read_it(
    site: RunningSite, tokens: TokenFile, lose: Callable[[RunningSite, TokenFile, str], None]
) -> None:
    mine, other = cookie_of(log_in(site, "shop")), cookie_of(log_in(site, "ann"))
    with (
        site.stream("/events", Host=HOST, Cookie=mine) as ended,
        site.stream("/events", Host=HOST, Cookie=other) as kept,
    ):
        for stream in (ended, kept):
            assert [stream.readline(), stream.readline()] == [b": the page is followed\n", b"\n"]
        site.tell()
        assert [ended.readline(), ended.readline()] == [b"data: 1\n", b"\n"]
        lose(site, tokens, mine)
        site.tell()
        assert ended.read() == b""
        assert kept.readline() == b"data: 1\n"
    assert site.ask("/events", Host=HOST, Cookie=mine).status == 403


def test_a_session_sees_output_of_the_owners_of_its_token_alone(site: RunningSite) -> None:
    denied = "This session isn't allowed to see output"
    for name, is_denied in (("ann", True), ("shop", False)):
        mine = cookie_of(log_in(site, name))
        page = site.ask("/Service/shop/api/logs", Host=HOST, Cookie=mine).text
        assert (denied in page) == is_denied, name


def test_guesses_are_bounded_for_an_address_and_then_not_even_read(site: RunningSite) -> None:
    for _ in range(FAILURES_MAX):
        assert log_in(site, "nobody").status == 403
    assert log_in(site, "ann").status == 429, "a right token isn't read either"
    assert bearer(site, "/metrics", "prom").status == 429, "programs share the bound"
    site.clock.time += WINDOW_S
    assert log_in(site, "ann").status == 303


def test_failures_are_forgotten_after_a_minute_and_addresses_beyond_a_number() -> None:
    failed = FailedLogins()
    for second in range(FAILURES_MAX):
        assert not failed.is_blocked("a", second)
        failed.add("a", second)
    assert failed.is_blocked("a", FAILURES_MAX)
    assert not failed.is_blocked("b", FAILURES_MAX)
    assert not failed.is_blocked("a", WINDOW_S), "the first one is a minute ago"
    for number in range(ADDRESSES_MAX):
        failed.add(str(number), WINDOW_S)
    assert len(failed._times) == ADDRESSES_MAX


def test_a_session_ends_by_its_own_form_alone(site: RunningSite) -> None:
    mine = cookie_of(log_in(site, "ann"))
    page = site.ask("/", Host=HOST, Cookie=mine).text
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    assert len(csrf) == 64
    assert csrf not in mine
    for body in ("", urlencode({"csrf": "guess"})):
        site.ask("/logout", "POST", body, Host=HOST, Cookie=mine)
        assert site.ask("/", Host=HOST, Cookie=mine).status == 200
    ended = site.ask("/logout", "POST", urlencode({"csrf": csrf}), Host=HOST, Cookie=mine)
    assert (ended.status, "Max-Age=0" in str(ended.headers["Set-Cookie"])) == (303, True)
    assert site.ask("/", Host=HOST, Cookie=mine).status == 303


def test_forms_of_other_sites_and_other_names_of_the_host_are_refused(site: RunningSite) -> None:
    body = urlencode({"token": "secret of ann"})
    for origin in ("cross-site", "same-site", "none"):
        assert log_in(site, "ann", Sec_Fetch_Site=origin).status == 403, origin
    for name in (site.name, "evil.example", f"{HOST}:443", f"{HOST}."):
        assert site.ask("/login", "POST", body, Host=name).status == 421, name
    assert site.ask("/", "POST", Host=HOST).status == 405
    long = urlencode({"x": "x" * 5000, "token": "secret of ann"})
    assert site.ask("/login", "POST", long, Host=HOST).status == 403


def bearer(site: RunningSite, path: str, name: str) -> Answer:
    return site.ask(path, Authorization=f"Bearer secret of {name}")


def test_each_scope_opens_its_own_addresses(site: RunningSite) -> None:
    assert bearer(site, "/metrics", "prom").text == "trimtab_up 1\n"
    assert bearer(site, "/metrics", "ann").status == 403
    for name in ("ann", "prom"):
        assert bearer(site, "/api/v1/health", name).status == 200
    for path in ("/metrics", "/api/v1/health"):
        assert site.ask(path).status == 401
        assert bearer(site, path, "nobody").status == 401
        mine = cookie_of(log_in(site, "ann"))
        assert site.ask(path, Cookie=mine).status == 401, "a browser sends cookies by itself"
    refused = site.ask("/", Host=HOST, Authorization="Bearer secret of ann")
    assert refused.status == 303


def test_probes_ask_for_the_process_and_its_view_and_health_for_the_host(site: RunningSite) -> None:
    taken = datetime.fromisoformat(worlds.ordinary()["at"]).timestamp()
    site.clock.time = taken + 59
    assert (site.ask("/livez").status, site.ask("/readyz").status) == (200, 200)
    answer = json.loads(bearer(site, "/api/v1/health", "ann").text)
    assert (answer["word"], answer["ageSeconds"]) == ("Attention", 59.0)
    assert bearer(site, "/api/v1/health?strict=1", "ann").status == 503
    fine = {"word": "AsDeclared", "text": "all", "counts": {}}
    site.followed = Followed({**worlds.ordinary(), "state": fine})
    assert bearer(site, "/api/v1/health?strict=1", "ann").status == 200
    site.clock.time = taken + 60
    assert bearer(site, "/api/v1/health?strict=1", "ann").status == 503, "it is old"
    assert (site.ask("/livez").status, site.ask("/readyz").status) == (200, 503)
    site.followed = Followed()
    assert site.ask("/readyz").status == 503
    assert json.loads(bearer(site, "/api/v1/health", "ann").text)["word"] == "Unknown"


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_header_names_a_user_if_the_trusted_proxy_sends_it(
    tmp_path: Path, tokens: TokenFile, is_trusted: bool
) -> None:
    proxy = TrustedProxy(os.getuid() if is_trusted else os.getuid() + 1, "remote-user")
    with running_site(path=tmp_path / "s", url=URL, tokens=tokens, proxy=proxy) as site:
        page = site.ask("/", Host=HOST, Remote_User="bob")
        assert page.status == (200 if is_trusted else 303)
        assert site.ask("/", Host=HOST).status == 303
        assert site.ask("/", Host=HOST, Remote_User="bob\x7f").status == 303
        assert log_in(site, "ann", Remote_User="").status == 303, "tokens go on"
        for _ in range(FAILURES_MAX):
            log_in(site, "nobody", X_Forwarded_For="1.1.1.1, 9.9.9.9")
        blocked = log_in(site, "ann", X_Forwarded_For="9.9.9.9")
        other = log_in(site, "ann", X_Forwarded_For="9.9.9.9, 8.8.8.8")
        assert (blocked.status, other.status) == ((429, 303) if is_trusted else (429, 429))


def test_no_header_names_a_user_at_a_port(tokens: TokenFile) -> None:
    proxy = TrustedProxy(os.getuid(), "remote-user")
    with running_site(tokens=tokens, proxy=proxy) as site:
        assert site.ask("/", Remote_User="bob").status == 303


def test_tokens_that_can_t_be_read_let_nobody_in(site: RunningSite, tokens: TokenFile) -> None:
    mine = cookie_of(log_in(site, "ann"))
    tokens._path.unlink()
    tokens._path.write_text('{"format": 2}')
    assert log_in(site, "ann").status == 503
    assert bearer(site, "/metrics", "prom").status == 503
    assert site.ask("/", Host=HOST, Cookie=mine).status == 303
