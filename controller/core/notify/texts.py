"""The texts of a message for each kind of destination, escaped for it.

Every text is ours, a validated name, or escaped and cut; none has the output of a container.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, assert_never

from controller.core.encoding.text import printable, shorten
from controller.core.notify.symptoms import TEXT_MAX
from controller.model.notifications import Notice, NoticeEvent, Template
from controller.model.quantities import format_instant

TITLE_MAX: Final = 120
BODY_MAX: Final = 16 * 1024
_WORDS: Final = {
    NoticeEvent.OPENED: "",
    NoticeEvent.WORSE: "worse: ",
    NoticeEvent.REPEATED: "still: ",
    NoticeEvent.RESOLVED: "resolved: ",
    NoticeEvent.WAS: "was: ",
    NoticeEvent.DIGEST: "",
    NoticeEvent.HEARTBEAT: "",
    NoticeEvent.TEST: "",
}
#: ntfy's priorities: 5 rings, 4 is high, 3 the default, 2 is silent.
_PRIORITIES: Final = {
    NoticeEvent.RESOLVED: "2",
    NoticeEvent.WAS: "2",
    NoticeEvent.HEARTBEAT: "1",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The sender of messages."""

    host: str
    instance: str


def title_of(notice: Notice, origin: Origin) -> str:
    """Return a title on one line: ``[HOST] still: Service shop/web: CrashLoop``."""
    host = f"[{printable(origin.host)}] " if origin.host else ""
    return shorten(printable(f"{host}{_WORDS[notice.event]}{notice.title}"), TITLE_MAX)


def body_of(notice: Notice) -> str:
    """Return the text of a message, in lines."""
    lines = [shorten(printable(notice.text), TEXT_MAX)] if notice.text else []
    lines += [shorten(printable(line), TEXT_MAX) for line in notice.lines]
    if notice.names and notice.event is not NoticeEvent.DIGEST:
        more = notice.count - len(notice.names)
        names = ", ".join(map(printable, notice.names))
        lines.append(f"affected: {names}{f' and {more} more' if more > 0 else ''}")
    if notice.event not in (NoticeEvent.TEST, NoticeEvent.HEARTBEAT):
        lines.append(f"since {format_instant(notice.since)}")
    return shorten("\n".join(lines), BODY_MAX)


def headers_of(notice: Notice) -> dict[str, str]:
    """Return the headers by which a receiver knows the incident and duplicates of a message."""
    return {
        "Trimtab-Incident": notice.incident,
        "Trimtab-Event": notice.event.value,
        "Trimtab-Message": f"{notice.incident}.{notice.number}",
    }


def webhook_request(
    notice: Notice, template: Template, origin: Origin
) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body for a webhook."""
    headers = headers_of(notice)
    title, body = title_of(notice, origin), body_of(notice)
    match template:
        case "json":
            headers["Content-Type"] = "application/json"
            return headers, message_json(notice, origin)
        case "slack":
            text = f"*{_slack(title)}*\n{_slack(body)}" if body else f"*{_slack(title)}*"
            headers["Content-Type"] = "application/json"
            return headers, json.dumps({"text": text}).encode()
        case "ntfy":
            # A header is ASCII; json escapes what isn't.
            headers["Title"] = json.dumps(title)[1:-1].replace('\\"', '"')
            priority = "5" if notice.gravity == "page" else "4"
            headers["Priority"] = _PRIORITIES.get(notice.event, priority)
            headers["Content-Type"] = "text/plain; charset=utf-8"
            return headers, body.encode()
        case _:
            assert_never(template)


def message_json(notice: Notice, origin: Origin) -> bytes:
    """Return a message as JSON, for programs."""
    members = {
        "format": 1,
        "incident": notice.incident,
        "message": f"{notice.incident}.{notice.number}",
        "event": notice.event.value,
        "severity": notice.gravity,
        "title": title_of(notice, origin),
        "text": body_of(notice),
        "host": printable(origin.host),
        "instance": origin.instance,
        "at": format_instant(notice.at),
        "since": format_instant(notice.since),
        "affected": [printable(name) for name in notice.names],
        "affectedCount": notice.count,
    }
    return json.dumps(members).encode()


def _slack(text: str) -> str:
    """Return text without Slack's links, mentions and emphasis."""
    for letter, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(letter, escaped)
    # A zero-width space ends what would be emphasis.
    return "".join(f"{letter}\u200b" if letter in "*_~`" else letter for letter in text)
