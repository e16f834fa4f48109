"""The pages as people see them in a browser: with and without the script, by keyboard, on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from controller.web.pages import Away, WebSession
from tests.page import worlds
from tests.page.server import World

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE: Final = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
Serve = Callable[[World], str]
#: "ordinary" has services that fail, are suspended, and whose removal is held back.
WORLDS: Final[dict[str, Callable[[], World]]] = {
    "ordinary": lambda: World(worlds.ordinary(), worlds.journal()),
    "large": lambda: World(worlds.large(), worlds.journal()),
    "empty": lambda: World(worlds.empty()),
    "engine-away": lambda: World(worlds.engine_away()),
    "controller-away": lambda: World(
        worlds.ordinary(), worlds.journal(), away_since=worlds.NOW - timedelta(minutes=3)
    ),
    "never-answered": lambda: World(None, Away.BROKER),
    "journal-damaged": lambda: World(worlds.ordinary(), Away.JOURNAL),
    "narrow-session": lambda: World(
        worlds.ordinary(), Away.DENIED, session=WebSession("ann", csrf="x")
    ),
    "hostile": lambda: World(
        worlds.hostile(), worlds.hostile_journal(), output=tuple(worlds.HOSTILE) * 30
    ),
}
PATHS: Final = (
    "/",
    "/journal",
    f"/journal/{worlds.REMOVAL}",
    "/problems",
    "/sources",
    "/login",
    "/Service/shop/web",
    "/Service/shop/api",
    "/Service/shop/api/logs",
    "/Service/shop/plain-2",
    "/Service/default/gateway",
    "/Service/old/legacy-1",
    "/nowhere",
)


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """Yield a page, and the faults of it so far: requests elsewhere, refused content, errors of the script."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page, faults = context.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", lambda text: faults.append(text.text) if _is_fault(text.text) else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith("http://127.0.0.1:") else faults.append(asked.url)
        ),
    )
    try:
        yield page, faults
    finally:
        context.close()


def _is_fault(text: str) -> bool:
    # Chromium writes a line about each page with the status 404, and about a stream that isn't served.
    return "Failed to load resource" not in text


def _axe(page: Page) -> list[str]:
    """Return the serious faults that axe finds."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def _overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert isinstance(wide, int)
    return wide


@pytest.mark.parametrize("state", WORLDS)
def test_each_page_in_each_state_asks_nobody_else_and_shows_all_of_itself(
    browser: Browser, served: Serve, state: str
) -> None:
    address = served(WORLDS[state]())
    for scripted in (True, False):
        with opened(browser, java_script_enabled=scripted) as (page, faults):
            for path in PATHS:
                answer = page.goto(address + path)
                assert answer is not None
                assert answer.status in {200, 404}, path
                assert page.locator("h1").count() == 1, path
                assert faults == [], path
                for width in (1440, 1024, 390):
                    page.set_viewport_size({"width": width, "height": 800})
                    assert _overflow(page) <= 0, (path, width)


@pytest.mark.parametrize("state", WORLDS)
def test_axe_finds_no_serious_fault_in_light_and_dark(
    browser: Browser, served: Serve, state: str
) -> None:
    address = served(WORLDS[state]())
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    with opened(browser, bypass_csp=True) as (page, _):
        for path in PATHS:
            page.goto(address + path)
            page.evaluate(f"{AXE};void 0")
            for scheme in schemes:
                page.emulate_media(color_scheme=scheme)
                assert _axe(page) == [], (path, scheme)


def test_no_script_of_others_runs(browser: Browser, served: Serve) -> None:
    address = served(WORLDS["hostile"]())
    with opened(browser) as (page, faults):
        for path in PATHS:
            page.goto(address + path)
            assert page.evaluate("window.pwned") is None, path
            assert page.locator("script:not([src='/static/page.js'])").count() == 0, path
        page.goto(f"{address}/Service/shop/plain-2")
        shown = re.findall(r" (\d+)$", page.locator("#failure").inner_text(), re.MULTILINE)
        assert set(map(int, shown)) == set(range(500)), "each hostile line is there, as text"
        assert faults == []


def test_who_removed_web_at_3_12_is_three_clicks_away(browser: Browser, served: Serve) -> None:
    with opened(browser, java_script_enabled=False) as (page, _):
        page.goto(served(WORLDS["ordinary"]()))
        page.get_by_role("link", name="Journal").click()
        page.get_by_role("link", name="Record 41713").click()
        assert "operator (uid 1000): container.remove" in page.locator("h1").inner_text()
        assert "03:12:07" in page.locator("main").inner_text()


def test_why_api_is_not_ready_and_what_follows_is_on_the_start_and_its_page(
    browser: Browser, served: Serve
) -> None:
    with opened(browser, java_script_enabled=False) as (page, _):
        page.goto(served(WORLDS["ordinary"]()))
        entry = page.locator("article", has_text="shop/api").first
        assert "port 8080 answered with status 503" in entry.inner_text()
        assert "nothing until its document is corrected" in entry.inner_text()
        entry.get_by_role("link", name="shop/api").click()
        assert 'relation "invoice" does not exist' in page.locator("#failure").inner_text()


def test_what_the_last_commit_changed_and_which_line_gave_the_limit_are_one_click_away(
    browser: Browser, served: Serve
) -> None:
    with opened(browser, java_script_enabled=False) as (page, _):
        page.goto(served(WORLDS["ordinary"]()))
        page.locator("#table").get_by_role("link", name="shop/web").click()
        newest = page.locator("#revisions tbody tr").first.inner_text()
        assert "shop-web:4.2.0" in newest
        assert "7c1f0e2b9d" in newest
        memory = page.locator("#fields tr", has_text="spec.resources.memory").inner_text()
        assert "shop/web.yaml:9@7c1f0e2b9d" in memory


def test_the_keyboard_reaches_every_link_and_shows_where_it_is(
    browser: Browser, served: Serve
) -> None:
    with opened(browser) as (page, _):
        page.goto(served(WORLDS["ordinary"]()))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        seen = set()
        for _ in range(20):
            page.keyboard.press("Tab")
            seen.add(
                page.evaluate(
                    "(e => e.getAttribute('href') || e.dataset.copy)(document.activeElement)"
                )
            )
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) == "solid"
        assert {"/?state=page#resources", "/Service/shop/api", "trimtab resume shop/api"} <= seen


@pytest.mark.parametrize("has_events", [True, False])
def test_a_change_appears_by_itself_and_keeps_the_readers_place(
    browser: Browser, served: Serve, has_events: bool
) -> None:
    world = World(worlds.ordinary(), worlds.journal(), has_events=has_events)
    with opened(browser) as (page, faults):
        page.goto(served(world))
        page.locator("#live").get_by_text("live" if has_events else "every 5 s").wait_for()
        page.locator("input[name=q]").fill("half a wo")
        page.locator("#people").get_by_role("link", name="shop/mailer").focus()
        rows = [each for each in worlds.ordinary()["resources"] if each["name"] != "api"]
        world.tell(worlds.view_of(rows))
        page.locator("#people", has_text="shop/api").wait_for(state="detached")
        assert page.locator("input[name=q]").input_value() == "half a wo"
        assert page.evaluate("document.activeElement.closest('#people') !== null")
        assert faults == []


def test_tabs_share_one_stream(browser: Browser, served: Serve) -> None:
    world = World(worlds.ordinary())
    address = served(world)
    context = browser.new_context()
    pages = [context.new_page() for _ in range(8)]
    try:
        for page in pages:
            page.goto(address)
            page.locator("#live").get_by_text("live").wait_for()
        world.tell(worlds.empty())
        for page in pages:
            page.get_by_text("Nothing is declared yet").wait_for()
        assert world.streams == 1
    finally:
        context.close()


def test_a_command_is_copied_as_it_stands(browser: Browser, served: Serve) -> None:
    with opened(browser, permissions=["clipboard-read", "clipboard-write"]) as (page, _):
        page.goto(served(WORLDS["ordinary"]()))
        # The button says "copied" for 1.5 s alone, which a busy machine misses: it never ends here.
        page.evaluate("window.setTimeout = () => 0")
        page.get_by_role("button", name="Copy trimtab resume shop/api").click()
        page.get_by_text("copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "trimtab resume shop/api"


def test_what_is_printed_has_the_answers_without_the_controls(
    browser: Browser, served: Serve
) -> None:
    with opened(browser) as (page, _):
        page.goto(served(WORLDS["ordinary"]()))
        page.emulate_media(media="print")
        assert page.locator("#state").is_visible()
        assert not page.locator(".filter").is_visible()
