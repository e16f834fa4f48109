"""The destinations of the settings: what is read, and which mistakes are found."""

from __future__ import annotations

from datetime import time
from typing import Any

import jsonschema
import pytest

from controller.model.notice_targets import MEMBERS, read_targets, schema, targets_of
from controller.model.notifications import NoticeTarget, QuietHours
from controller.model.settings import InstanceSettings, read_settings, to_json

QUIET = {"from": "22:00", "to": "07:00", "zone": "Europe/Berlin"}
HOOK = {"webhook": "https://example.org/x"}
MAIL = {"smtp": "smtp://mail.example.org", "from": "t@example.org", "to": ["a@example.org"]}


def test_each_kind_is_read_with_its_defaults() -> None:
    declared = {
        "chat": {**HOOK, "template": "slack", "secretFile": "/etc/trimtab/notify/chat"},
        "mail": {**MAIL, "quietHours": QUIET, "repeatAfter": "1h", "heartbeat": "24h"},
        "pager": {"command": ["/usr/local/bin/page", "-x"], "everything": "page"},
        "team": {**HOOK, "sources": ["shop"]},
    }
    targets, faults = read_targets(declared)
    assert faults == ()
    assert targets == (
        NoticeTarget(
            "chat",
            webhook="https://example.org/x",
            template="slack",
            secret_file="/etc/trimtab/notify/chat",
        ),
        NoticeTarget(
            "mail",
            smtp="smtp://mail.example.org",
            mail_from="t@example.org",
            mail_to=("a@example.org",),
            quiet=QuietHours(time(22), time(7), "Europe/Berlin"),
            repeat_after=3600.0,
            heartbeat=86400.0,
        ),
        NoticeTarget("pager", command=("/usr/local/bin/page", "-x"), everything="page"),
        NoticeTarget("team", webhook="https://example.org/x", sources=("shop",), everything=""),
    )
    jsonschema.validate(declared, schema())


def test_settings_have_destinations_and_show_them_as_they_are_written() -> None:
    value = {"notify": {"destinations": {"chat": {**HOOK, "quietHours": QUIET}}}}
    read = read_settings(value)
    assert not read.faults
    assert to_json(read.settings) == {**to_json(InstanceSettings()), **value}
    (target,) = targets_of(read.settings.notify_destinations)
    assert target.webhook == "https://example.org/x"


@pytest.mark.parametrize(
    ("declared", "path", "message"),
    [
        ({}, (), "nothing to send to"),
        ({**HOOK, **MAIL}, (), "webhook and smtp in one destination"),
        ({"webhook": "http://example.org/x"}, ("webhook",), "http:// can be read"),
        ({"webhook": "https://u:p@example.org/x"}, ("webhook",), "the webhook isn't a URL"),
        ({"webhook": "https:///x"}, ("webhook",), "the webhook isn't a URL"),
        ({**HOOK, "template": "teams"}, ("template",), "template has another form"),
        ({**HOOK, "colour": "red"}, ("colour",), "colour is no member"),
        ({**HOOK, "private": "yes"}, ("private",), "private has another form"),
        ({**HOOK, "repeatAfter": "10s"}, ("repeatAfter",), "repeatAfter has another form"),
        ({**HOOK, "to": ["a@b.example"]}, ("to",), "to has no meaning with webhook"),
        ({"smtp": "smtp://m.example"}, (), "no from"),
        ({**MAIL, "smtp": "smtp+plain://m.example"}, ("smtp",), "mail without TLS"),
        ({**MAIL, "user": "u"}, (), "user and secretFile need each other"),
        ({**MAIL, "from": "a@b\r\nBcc: c@d"}, ("from",), "from has another form"),
        ({"command": ["page"]}, ("command",), "the program has no absolute path"),
        ({"command": "/bin/page"}, ("command",), "command has another form"),
        ({**HOOK, "quietHours": {**QUIET, "zone": "Mars"}}, ("quietHours",), "quietHours has"),
        ({**HOOK, "quietHours": {"from": "22:00", "to": "07:00"}}, ("quietHours",), "quietHours"),
        ({**HOOK, "quietHours": {**QUIET, "to": "22:00"}}, ("quietHours",), "quietHours has"),
    ],
)
def test_a_mistake_has_its_place(declared: Any, path: tuple[str, ...], message: str) -> None:
    (fault, *_) = read_targets({"one": declared})[1]
    assert fault.path == ("one", *path)
    assert fault.message.startswith(message)
    assert fault.remedy


def test_a_name_that_can_be_no_part_of_a_command_is_refused() -> None:
    for name in ("A", "a b", "-a", ""):
        (fault,) = read_targets({name: HOOK})[1]
        assert fault.message == "a destination's name has another form"


def test_each_member_is_a_field() -> None:
    fields = set(NoticeTarget.__dataclass_fields__) - {"name"}
    assert {member.field for member in MEMBERS} == fields
