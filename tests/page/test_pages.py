"""What each page says, as HTML: no browser runs."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from controller.web.pages import Away, PageName, PageRoute, WebSession, needs_of, route_of
from tests.page import worlds
from tests.page.server import World

PATHS = ("/", "/journal", "/problems", "/sources", "/login", "/Service/shop/web", "/nowhere")


def html_of(world: World, path: str, **query: str) -> str:
    """Return the HTML of a page."""
    return world.page(path, query)[1]


def text_of(html: str) -> str:
    """Return the text of a page, with single spaces."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))


class Scripts(HTMLParser):
    """Collects elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in {"href", "src", "action"}}


def test_the_start_says_what_is_not_as_declared_since_when_what_follows_and_who_acts() -> None:
    text = text_of(html_of(World(worlds.ordinary()), "/"))
    assert "7 of 18 resources are as declared; a person must act." in text
    for sentence in (
        "port 8080 answered with status 503",
        "since 09:29:30 (12 min)",
        "nothing until its document is corrected",
        "the document's author",
        "6 resources PrunePending",
        "trimtab approve",
        "next try at 09:42:42",
    ):
        assert sentence in text


def test_a_filter_tells_how_many_resources_it_hides_and_pages_keep_it() -> None:
    world = World(worlds.large())
    html = html_of(world, "/", q="service-00", state="ok")
    assert "98 of 98" in text_of(html)
    assert "902 hidden by the filter" in text_of(html)
    second = html_of(world, "/", state="ok", page="2")
    assert "101–200 of 980" in text_of(second)
    assert "?state=ok&amp;page=3" in second


@pytest.mark.parametrize("page", ["0", "-1", "999999999999999999", "x", "²"])
def test_a_page_that_does_not_exist_is_the_nearest_one(page: str) -> None:
    assert " of 1000" in text_of(html_of(World(worlds.large()), "/", page=page))


def test_a_thousand_services_take_at_most_a_hundred_kilobytes() -> None:
    assert len(html_of(World(worlds.large()), "/").encode()) <= 100_000


def test_a_field_names_the_line_of_the_file_or_the_rule_that_gave_its_value() -> None:
    text = text_of(html_of(World(worlds.ordinary()), "/Service/shop/web"))
    assert "spec.resources.memory 256Mi 256Mi 256Mi shop/web.yaml:9 @7c1f0e2b9d" in text.replace(
        "@", " @"
    )
    assert "spec.resources.pids – 256 256 policy: resources.pids.default" in text
    assert "spec.env.DATABASE_URL set, not shown" in text


def test_a_record_names_who_did_what_and_the_verdict() -> None:
    world = World(worlds.ordinary(), worlds.journal())
    text = text_of(html_of(world, f"/journal/{worlds.REMOVAL}"))
    assert "operator (uid 1000): container.remove shop.web.3-337f68c6" in text
    assert "2026-03-02T03:12:07.412Z" in text
    assert "allow" in text


def test_an_object_without_a_page_is_no_link() -> None:
    html = html_of(World(worlds.ordinary(), worlds.journal()), "/journal")
    assert re.search(r'data-label="To">\s*miner\s*</td>', html)
    assert re.search(r'<a href="/Service/shop/web">\s*shop.web.1-162de490', html)


def test_the_journal_as_of_a_record_has_nothing_later_and_says_what_is_not_recorded() -> None:
    text = text_of(html_of(World(worlds.ordinary(), worlds.journal()), "/journal", upto="41714"))
    assert "Journal as of record 41714" in text
    assert "container.create" not in text
    assert "aren't recorded" in text


def test_each_state_of_a_host_has_its_words() -> None:
    assert "Nothing is declared yet" in html_of(World(worlds.empty()), "/")
    assert "The state is unknown" in html_of(World(None), "/")
    assert "the engine doesn&#39;t answer" in html_of(World(worlds.engine_away()), "/problems")
    away = World(worlds.ordinary(), away_since=worlds.NOW - timedelta(minutes=3))
    assert "The controller doesn't answer" in html_of(away, "/")
    damaged = World(worlds.ordinary(), Away.JOURNAL)
    assert "can't be read, or is damaged" in html_of(damaged, "/journal")
    assert "trimtab journal verify" in html_of(damaged, "/Service/shop/web")
    assert "gate doesn't answer" in html_of(World(worlds.ordinary(), Away.BROKER), "/journal")


def test_a_failed_verification_is_the_first_sentence_of_every_page() -> None:
    view = worlds.ordinary()
    view["verified"] = {
        **view["verified"],
        "result": "chain",
        "since": worlds.NOW.timestamp() - 7200,
    }
    for path in PATHS[:4]:
        text = text_of(html_of(World(view), path))
        assert "The journal's verification failed : chain, since 07:41:30 (2 h)" in text
    assert "verification failed" not in html_of(World(worlds.ordinary()), "/")


def test_samples_are_drawn_and_their_last_value_is_told() -> None:
    html = html_of(World(worlds.ordinary()), "/Service/shop/web")
    assert html.count("<polyline") == 2
    assert "0.14 cores" in text_of(html)


def test_output_is_shown_only_to_sessions_that_may_see_it() -> None:
    blind = World(worlds.ordinary(), session=WebSession("ann"))
    page = html_of(blind, "/Service/shop/api")
    assert "invoice" not in page
    assert "/logs" not in page
    route = route_of("/Service/shop/api/logs")
    assert route is not None
    assert needs_of(route, blind.view, {}, blind.session, worlds.NOW).logs is None
    seeing = World(worlds.ordinary(), session=WebSession("ann", logs=frozenset({"platform"})))
    assert "invoice" in html_of(seeing, "/Service/shop/api")
    assert needs_of(route, seeing.view, {"container": "other"}, seeing.session, worlds.NOW).logs


def test_no_text_of_others_becomes_an_element_an_attribute_or_a_link() -> None:
    plain, hostile = Scripts(), Scripts()
    for path in PATHS:
        plain.feed(html_of(World(worlds.ordinary(), worlds.journal()), path))
        hostile.feed(html_of(World(worlds.hostile(), worlds.hostile_journal()), path))
    assert hostile.tags <= plain.tags | {"pre"}
    assert hostile.attributes <= plain.attributes | {"aria-label", "tabindex"}
    assert all(re.match(r"[/?#]", link) for link in hostile.links), hostile.links


def test_characters_that_control_a_reader_are_escapes_on_every_page() -> None:
    for path in (*PATHS, "/Service/shop/plain-2"):
        html = html_of(World(worlds.hostile(), worlds.hostile_journal()), path)
        assert not {c for c in html if not c.isprintable()} - {"\n", "\t"}, path


def test_commands_have_our_words_and_validated_names_alone() -> None:
    for world in (World(worlds.ordinary()), World(worlds.hostile())):
        for path in PATHS:
            found = re.findall(r'data-copy="([^"]*)"', html_of(world, path))
            assert all(re.fullmatch(r"trimtab[a-z -]*( [a-z0-9/-]+)?", each) for each in found), (
                found
            )


@pytest.mark.parametrize(
    "path",
    [
        "/Service/..",
        "//",
        "/Service/a/b/c",
        "/service/a/b",
        "/journal/../x",
        "/Service/a%2f/b",
        "/S/a/b\n",
    ],
)
def test_an_address_of_no_page_has_no_route(path: str) -> None:
    assert route_of(path) is None


def test_the_recorded_view_is_shown() -> None:
    recorded = Path(__file__).parents[1] / "golden" / "view" / "view.json"
    view = json.loads(recorded.read_text())
    world = World(view)
    assert view["state"]["text"] in html_of(world, "/")
    for row in view["resources"]:
        status, html, _ = world.page(f"/{row['kind']}/{row['namespace']}/{row['name']}", {})
        assert status == 200
        assert row["name"] in html


def test_a_view_of_an_older_controller_without_some_members_is_shown() -> None:
    view = worlds.ordinary()
    for name in ("sources", "verified", "plan"):
        view.pop(name)
    for path in PATHS[:4]:
        assert World(view).page(path, {})[0] == 200


def test_the_etag_is_that_of_the_text() -> None:
    one, other = World(worlds.ordinary()), World(worlds.large())
    assert one.page("/", {})[2] == one.page("/", {})[2] != other.page("/", {})[2]


def test_the_query_of_the_journal_has_only_what_the_broker_takes() -> None:
    asked = {"service": "shop/web", "since": "24h", "actor": "op erator", "upto": "1e9", "x": "1"}
    needs = needs_of(PageRoute(PageName.JOURNAL), None, asked, WebSession(), worlds.NOW)
    assert needs.records is not None
    assert needs.records.query == {
        "service": "shop/web",
        "since": "2026-03-01T09:41:30.000Z",
        "stages": "intent,outcome,recovered,refusal,violation,operator,policy",
        "limit": "200",
    }


def test_the_script_is_small() -> None:
    static = Path(__file__).parents[2] / "controller" / "web" / "static"
    assert (static / "page.js").stat().st_size < 8_000
