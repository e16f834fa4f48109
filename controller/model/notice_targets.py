"""The form of ``notify.destinations`` in the settings: the table of members, and its reader."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import time
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from controller.model.notifications import GRAVITIES, TEMPLATES, NoticeTarget, QuietHours
from controller.model.quantities import parse_duration_ms

TARGETS_MAX: Final = 20
RECIPIENTS_MAX: Final = 20
ARGUMENTS_MAX: Final = 32
#: Seconds. A destination is reminded and gets signs of life at most this often.
SHORTEST_S: Final = 60.0
#: The default ports of the schemes of ``smtp``.
MAIL_PORTS: Final[Mapping[str, int]] = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PATH = r"^/[^\x00-\x1f]*$"
_MAIL = r"^[^\s@<>,;\x00-\x1f]{1,64}@[^\s@<>,;\x00-\x1f]{1,255}$"
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_DURATION = r"^[0-9]{1,9}(s|m|h)$"


@dataclass(frozen=True, slots=True)
class TargetFault:
    """A mistake in ``notify.destinations``, at a path of keys below it."""

    path: tuple[str, ...]
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TargetMember:
    """A member of a destination: a row of the table."""

    #: As in the file.
    name: str
    #: The field of ``NoticeTarget``.
    field: str
    #: The form of the value, for people.
    form: str
    schema: Mapping[str, Any]
    means: str
    #: Returns the value of the field for a value that ``fits``. May raise ValueError.
    read: Callable[[Any], object] = lambda value: value


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "maxLength": 2048}


def _texts(pattern: str, most: int) -> dict[str, Any]:
    return {"type": "array", "items": _text(pattern), "minItems": 1, "maxItems": most}


def _seconds(value: str) -> float:
    seconds = parse_duration_ms(value) / 1000
    if seconds < SHORTEST_S:
        raise ValueError
    return seconds


def _quiet(value: Mapping[str, str]) -> QuietHours:
    from zoneinfo import ZoneInfo  # commands that read settings start light

    try:
        ZoneInfo(value["zone"])
    except (OSError, KeyError) as error:  # a name of a folder, and an unknown name
        raise ValueError from error
    begin, end = (time.fromisoformat(value[name]) for name in ("from", "to"))
    if begin == end:
        raise ValueError
    return QuietHours(begin, end, value["zone"])


_QUIET: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["from", "to", "zone"],
    "properties": {"from": _text(_TIME), "to": _text(_TIME), "zone": _text(r"^[A-Za-z0-9_+/-]+$")},
}
_QUIET_FORM: Final = '{from: "22:00", to: "07:00", zone: Europe/Berlin}, with a known time zone'

#: The table. Nothing else says which members there are.
MEMBERS: Final = (
    TargetMember(
        "webhook",
        "webhook",
        "https://HOST/PATH; http:// with 'private: true'",
        _text(r"^https?://[!-~]+$"),
        "The URL that gets each message in a POST request",
    ),
    TargetMember(
        "webhookFile",
        "webhook_file",
        "an absolute path",
        _text(_PATH),
        "The file with the URL, if the URL is a secret",
    ),
    TargetMember(
        "template",
        "template",
        ", ".join(TEMPLATES),
        {"enum": [*TEMPLATES]},
        "The form of a webhook's message; `slack` also for Mattermost, Rocket.Chat and Discord's `/slack`",
    ),
    TargetMember(
        "smtp",
        "smtp",
        "smtps://HOST[:PORT], smtp://HOST[:PORT] (STARTTLS), smtp+plain://HOST[:PORT] with 'private: true'",
        _text(r"^smtp(s|\+plain)?://[!-~]+$"),
        "The mail server",
    ),
    TargetMember("from", "mail_from", "an address of mail", _text(_MAIL), "The sender of mail"),
    TargetMember(
        "to",
        "mail_to",
        "a list of addresses of mail",
        _texts(_MAIL, RECIPIENTS_MAX),
        "The receivers of mail",
        tuple,
    ),
    TargetMember(
        "user",
        "user",
        "a text",
        _text(r"^[^\x00-\x1f]+$"),
        "The user of the mail server; needs `secretFile`",
    ),
    TargetMember(
        "command",
        "command",
        "a list: an absolute path, and arguments",
        _texts(r"^[^\x00]*$", ARGUMENTS_MAX),
        "A program that gets the message as JSON on standard input, and has 30 s",
        tuple,
    ),
    TargetMember(
        "secretFile",
        "secret_file",
        "an absolute path",
        _text(_PATH),
        "The file with the bearer token of a webhook, or the password of `user`",
    ),
    TargetMember(
        "ca",
        "ca",
        "an absolute path",
        _text(_PATH),
        "The file of trusted certificates, in place of the system's",
    ),
    TargetMember(
        "private",
        "private",
        "true or false",
        {"type": "boolean"},
        "Permit addresses that aren't public, and connections without TLS",
    ),
    TargetMember(
        "sources",
        "sources",
        "a list of names of Git sources",
        _texts(f"^{_NAME.pattern}$", 100),
        "The Git sources with Notifications that may name the destination",
        tuple,
    ),
    TargetMember(
        "everything",
        "everything",
        f"{', '.join(GRAVITIES)}, nothing",
        {"enum": [*GRAVITIES, "nothing"]},
        "The lowest severity that is sent without a Notification; `warning`, with `sources` `nothing`",
        lambda value: "" if value == "nothing" else value,
    ),
    TargetMember(
        "repeatAfter",
        "repeat_after",
        "a duration of at least 1m, such as 4h",
        _text(_DURATION),
        "The time until an open incident is sent again; `4h`",
        _seconds,
    ),
    TargetMember(
        "quietHours",
        "quiet",
        _QUIET_FORM,
        _QUIET,
        "The hours in which only severity `page` is sent; the rest follows as one digest",
        _quiet,
    ),
    TargetMember(
        "heartbeat",
        "heartbeat",
        "a duration of at least 1m, such as 24h",
        _text(_DURATION),
        "The time between two signs of life",
        _seconds,
    ),
)
_BY_NAME: Final = {member.name: member for member in MEMBERS}
_KINDS: Final = ("webhook", "webhookFile", "smtp", "command")
#: Members that have a meaning with some kinds of destinations alone.
_ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "template": ("webhook", "webhookFile"),
    "from": ("smtp",),
    "to": ("smtp",),
    "user": ("smtp",),
    "secretFile": ("webhook", "webhookFile", "smtp"),
    "ca": ("webhook", "webhookFile", "smtp"),
    "private": ("webhook", "webhookFile", "smtp"),
}


def schema() -> dict[str, object]:
    """Return the JSON Schema of ``notify.destinations``."""
    properties = {each.name: {**each.schema, "description": each.means} for each in MEMBERS}
    one = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "type": "object",
        "maxProperties": TARGETS_MAX,
        "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
        "additionalProperties": one,
    }


def read_targets(value: object) -> tuple[tuple[NoticeTarget, ...], tuple[TargetFault, ...]]:
    """Return the destinations of a parsed value, by name, and the mistakes in it."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return (), (TargetFault((), "no names with destinations", "write 'NAME: {webhook: URL}'"),)
    if len(value) > TARGETS_MAX:
        return (), (TargetFault((), f"more than {TARGETS_MAX} destinations", "remove some"),)
    targets, faults = [], []
    for name, members in sorted(value.items()):
        target, wrong = _read_target(name, members)
        targets.append(target)
        faults += wrong
    return tuple(targets), tuple(faults)


def targets_of(text: str) -> tuple[NoticeTarget, ...]:
    """Return the destinations of a valid value in its JSON form; '' has none."""
    return read_targets(json.loads(text))[0] if text else ()


def _read_target(name: str, value: object) -> tuple[NoticeTarget, list[TargetFault]]:
    target, path = NoticeTarget(name), (name,)
    if not _NAME.fullmatch(name):
        return target, [
            TargetFault(path, "a destination's name has another form", "use a-z, 0-9 and -")
        ]
    if not isinstance(value, dict):
        return target, [TargetFault(path, "no members", "write 'webhook: URL'")]
    values: dict[str, Any] = {}
    faults = []
    for key, found in value.items():
        member = _BY_NAME.get(key)
        if member is None:
            known = f"the members are {', '.join(_BY_NAME)}"
            faults.append(TargetFault((*path, str(key)), f"{key} is no member", known))
            continue
        if (read := _value_of(member, found)) is None:
            message = f"{key} has another form"
            faults.append(TargetFault((*path, key), message, f"write {member.form}"))
        values[member.field] = read
    if "sources" in value and "everything" not in value:
        values["everything"] = ""
    if not faults:
        target = replace(target, **values)
        faults = [replace(each, path=path + each.path) for each in _faults_of(target, value)]
    return target, faults


def _value_of(member: TargetMember, value: object) -> object:
    """Return the value of a field; None if *value* has another form."""
    try:
        return member.read(value) if _fits(value, member.schema) else None
    except ValueError:
        return None


def _fits(value: object, form: Mapping[str, Any]) -> bool:
    """Return True if a value has the form of a member's schema: the keywords that the table uses."""
    if "enum" in form:
        return value in form["enum"]
    match form["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return (
                isinstance(value, list)
                and form["minItems"] <= len(value) <= form["maxItems"]
                and all(_fits(each, form["items"]) for each in value)
            )
        case "object":
            return (
                isinstance(value, dict)
                and {*value} == {*form["required"]}
                and all(_fits(each, form["properties"][name]) for name, each in value.items())
            )
        case _:
            return (
                isinstance(value, str)
                and len(value) <= form["maxLength"]
                and re.search(form["pattern"], value) is not None
            )


def _faults_of(target: NoticeTarget, value: Mapping[str, object]) -> Iterator[TargetFault]:
    """Yield the mistakes of members that don't fit together."""
    kinds = [kind for kind in _KINDS if kind in value]
    if len(kinds) != 1:
        message = f"{' and '.join(kinds)} in one destination" if kinds else "nothing to send to"
        yield TargetFault((), message, f"write one of {', '.join(_KINDS)}")
        return
    for name in value:
        if name in _ONLY and kinds[0] not in _ONLY[name]:
            message = f"{name} has no meaning with {kinds[0]}"
            yield TargetFault((name,), message, "remove the member")
    if target.webhook:
        yield from url_faults(target.webhook, private=target.private)
    if target.smtp:
        yield from _mail_faults(target)
    if target.command and not re.match(_PATH, target.command[0]):
        yield TargetFault(("command",), "the program has no absolute path", "write its path")


def url_faults(url: str, *, private: bool) -> Iterator[TargetFault]:
    """Yield the mistakes of a webhook's URL. Their texts repeat nothing of the URL, a secret in some chats."""
    parts = _split(url)
    if parts is None or parts.username is not None or parts.fragment:
        message = "the webhook isn't a URL with a host, and without user and fragment"
        yield TargetFault(("webhook",), message, "write https://HOST/PATH")
    elif parts.scheme == "http" and not private:
        message = "http:// can be read and changed on its way"
        yield TargetFault(("webhook",), message, "use https://, or 'private: true' in your network")


def _mail_faults(target: NoticeTarget) -> Iterator[TargetFault]:
    parts = _split(target.smtp)
    if parts is None or parts.username is not None or parts.path not in ("", "/") or parts.query:
        yield TargetFault(("smtp",), "the address isn't SCHEME://HOST[:PORT]", _form("smtp"))
    elif parts.scheme == "smtp+plain" and not target.private:
        message = "mail without TLS can be read and changed on its way"
        yield TargetFault(("smtp",), message, "use smtps:// or smtp://, or 'private: true'")
    for name, has in (("from", target.mail_from), ("to", target.mail_to)):
        if not has:
            yield TargetFault((), f"no {name}", f"write {name}: {_BY_NAME[name].form}")
    if bool(target.user) != bool(target.secret_file):
        message = "user and secretFile need each other"
        yield TargetFault((), message, "write both, or none for a server without a login")


def _form(name: str) -> str:
    return f"write {_BY_NAME[name].form}"


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL; None for one without a host, or with an impossible port."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if has_host else None
