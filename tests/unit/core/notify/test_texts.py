"""The texts for each kind of destination: bounded, escaped, and recognisable."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.notify.texts import Origin, body_of, title_of, webhook_request
from controller.model.notifications import TEMPLATES, Notice, NoticeEvent, Template
from tests.examples import examples

ORIGIN = Origin("nas", "abc123")
NOTICE = Notice(
    *("0011223344556677", 2, NoticeEvent.REPEATED, "page", "Service shop/web: CrashLoop"),
    *("slot 1 failed 5 times; next try in 2 min", 1_780_000_600.0, 1_780_000_000.0),
    names=("shop/web",),
    count=3,
)


def test_a_generic_webhook_gets_all_members() -> None:
    headers, body = webhook_request(NOTICE, "json", ORIGIN)
    assert headers == {
        "Trimtab-Incident": "0011223344556677",
        "Trimtab-Event": "repeated",
        "Trimtab-Message": "0011223344556677.2",
        "Content-Type": "application/json",
    }
    assert json.loads(body) == {
        "format": 1,
        "incident": "0011223344556677",
        "message": "0011223344556677.2",
        "event": "repeated",
        "severity": "page",
        "title": "[nas] still: Service shop/web: CrashLoop",
        "text": "slot 1 failed 5 times; next try in 2 min\n"
        "affected: shop/web and 2 more\nsince 2026-05-28T20:26:40Z",
        "host": "nas",
        "instance": "abc123",
        "at": "2026-05-28T20:36:40Z",
        "since": "2026-05-28T20:26:40Z",
        "affected": ["shop/web"],
        "affectedCount": 3,
    }


def test_slack_gets_neither_mentions_nor_links_nor_emphasis() -> None:
    hostile = replace(NOTICE, title="<!channel> <https://evil|x> *b* `c` & co", text="_i_ ~s~")
    text = json.loads(webhook_request(hostile, "slack", ORIGIN)[1])["text"]
    assert "<" not in text
    assert (
        "&lt;!channel&gt; &lt;https://evil|x&gt; *\u200bb*\u200b `\u200bc`\u200b &amp; co" in text
    )
    assert "_\u200bi_\u200b ~\u200bs~\u200b" in text


def test_ntfy_rings_for_a_page_alone() -> None:
    def priority(notice: Notice) -> str:
        return webhook_request(notice, "ntfy", ORIGIN)[0]["Priority"]

    assert priority(NOTICE) == "5"
    assert priority(replace(NOTICE, gravity="warning")) == "4"
    assert priority(replace(NOTICE, event=NoticeEvent.RESOLVED)) == "2"
    assert priority(replace(NOTICE, event=NoticeEvent.HEARTBEAT)) == "1"


HOSTILE = st.text(st.sampled_from('a\n\r\x00\x1b\u202e\u2028"\\<>&*é😀'), max_size=400)


@settings(max_examples=examples(100))
@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from(TEMPLATES))
def test_no_text_leaves_its_place(title: str, text: str, host: str, template: Template) -> None:
    notice = replace(NOTICE, title=title, text=text, names=(title,))
    origin = Origin(host, "abc123")
    headers, body = webhook_request(notice, template, origin)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert len(title_of(notice, origin)) <= 120
    assert title_of(notice, origin).isprintable()
    assert all(line.isprintable() for line in body_of(notice).split("\n"))
    assert all(len(line) <= 300 for line in body_of(notice).split("\n")[:1])
    if template != "ntfy":
        json.loads(body)


@pytest.mark.parametrize("event", list(NoticeEvent))
def test_every_event_has_a_title(event: NoticeEvent) -> None:
    assert title_of(replace(NOTICE, event=event), ORIGIN)
