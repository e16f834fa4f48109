"""The target of a request: version, path, query and its parameters, with one reading or a refusal.

The engine's router decodes escapes before it matches, cleans ``//`` and ``..`` by a redirect, and
takes the first of two equal parameters. Other readers differ in each of these. Therefore a path
must be in its canonical form, and no parameter of a route may be repeated.

Validators of query parameters. The docstring of a validator is its text in docs/gate.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote_to_bytes

from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import NEWEST_API, OLDEST_API
from controller.core.encoding import json_values
from controller.core.records.record import timestamp

PATH_MAX = 1024
#: With those that are dropped: some clients write each item of a body's lists into the query too.
PARAMETERS_MAX = 1024
VALUE_MAX = 8192

_PATH = re.compile(r"(?:/[A-Za-z0-9_.:@-]+)+", re.ASCII)
#: Ordinary clients escape ``@`` and ``:`` in image names, and nothing else in a path.
_ESCAPES = {"%40": "@", "%3A": ":"}
_ESCAPED_IMAGE = re.compile(r"(?:/v[0-9.]+)?/(?:images/.+|distribution/.+/json)", re.ASCII)
_VERSION = re.compile(r"/v1\.([1-9][0-9])(/.*)", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
_OUTDATED_MINOR = 24

#: Values that clients send for "unset".
ZERO_VALUES = frozenset({"", "0", "false", "False", "null", "[]", "{}"})


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """A path without its version prefix."""

    path: str
    #: The path had a version prefix.
    versioned: bool


def read_path(raw: str) -> RequestTarget:
    """Return the target of a raw path.

    Raises:
        Denied: ``path.malformed`` (not canonical), ``api.version`` (an unsupported version).
    """
    path = raw
    if "%" in raw and _ESCAPED_IMAGE.fullmatch(raw):
        for escape, character in _ESCAPES.items():
            path = path.replace(escape, character)
    if len(path) > PATH_MAX:
        raise _malformed(f"the path is longer than {PATH_MAX} characters")
    if not _PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        raise _malformed("the path isn't in canonical form")
    version = _VERSION.fullmatch(path)
    if version is None:
        return RequestTarget(path, versioned=False)
    minor = int(version[1])
    if minor < _OUTDATED_MINOR:
        raise _malformed(f"no engine speaks API version 1.{minor} any more")
    if (1, minor) < OLDEST_API:
        raise _version(minor, "old", "Minimum", OLDEST_API)
    if (1, minor) > NEWEST_API:
        raise _version(minor, "new", "Maximum", NEWEST_API)
    return RequestTarget(version[2], versioned=True)


def _malformed(reason: str) -> Denied:
    return Denied(
        "path.malformed",
        reason,
        "send the path without escapes, empty or dot segments, as the API reference has it",
        status=400,
    )


def _version(minor: int, what: str, bound: str, limit: tuple[int, int]) -> Denied:
    # The engine's own message: clients search for it to negotiate the version.
    text = ".".join(map(str, limit))
    return Denied(
        "api.version",
        f"API version 1.{minor} is too {what}",
        f"use {text}, or let the client negotiate",
        status=400,
        message=f"client version 1.{minor} is too {what}. {bound} supported API version is {text}",
    )


def read_query(raw: str, listed: Collection[str], *, closed: bool = False) -> dict[str, str]:
    """Return the decoded values of the *listed* parameters of a raw query.

    Other parameters are dropped, as the engine ignores them: some clients write the members of a
    body into the query too. A *closed* route has no other parameters.

    Raises:
        Denied: ``query.malformed``, ``query.repeated``, or ``query.unknown`` for a listed name in
            another spelling.
    """
    if not raw:
        return {}
    if ";" in raw or _BAD_ESCAPE.search(raw) or not raw.isascii():
        raise _bad_query(
            "the query contains ';' or a malformed %-escape, which parsers read differently"
        )
    fields = [field for field in raw.split("&") if field]
    if len(fields) > PARAMETERS_MAX:
        raise _bad_query(f"the query has more than {PARAMETERS_MAX} parameters")
    spellings = {name.casefold(): name for name in listed}
    found: dict[str, str] = {}
    for field in fields:
        raw_name, _, raw_value = field.partition("=")
        name = _decode(raw_name)
        meant = spellings.get(name.casefold())
        if meant is None and not closed:
            continue
        if name != meant:
            remedy = f"write {meant}" if meant else "leave it out"
            raise Denied("query.unknown", f"this route has no parameter {name}", remedy, status=400)
        if name in found:
            raise Denied(
                "query.repeated",
                f"the parameter {name} is repeated",
                "send each parameter once",
                status=400,
            )
        found[name] = _decode(raw_value)
    return found


def _decode(text: str) -> str:
    try:
        value = unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad_query("a parameter isn't UTF-8") from error
    if len(value) > VALUE_MAX:
        raise _bad_query(f"a parameter is longer than {VALUE_MAX} characters")
    if not value.isprintable():
        raise _bad_query("a parameter has control characters")
    return value


def _bad_query(reason: str) -> Denied:
    return Denied("query.malformed", reason, "send plain name=value pairs joined by &", status=400)


def build_path(path: str, query: Mapping[str, str] | None = None) -> str:
    """Return a path with an encoded query; the parameters keep their order."""
    pairs = [
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in (query or {}).items()
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


#: Returns the value to forward for a decoded value. Raises ValueError with the expected form.
Parameter = Callable[[str], str]

_TRUE = frozenset({"1", "true", "True"})
_FALSE = frozenset({"", "0", "false", "False"})
_NUMBER = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_INSTANT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_WORDS = re.compile(r"[a-z0-9.-]{1,64}(?:,[a-z0-9.-]{1,64}){0,63}", re.ASCII)
WORD_MAX = 255
#: Texts of a list in a parameter.
TEXTS_MAX = 16
#: The keys that the engine knows (moby/term, ascii.go). The value is recorded with the read.
_KEY = r"(?:[a-zA-Z0-9@\[\]^_\\-]|ctrl-[a-z@\[\]^_\\]|DEL)"
_KEYS = re.compile(rf"{_KEY}(?:,{_KEY}){{0,15}}", re.ASCII)
_DURATION = re.compile(r"(?:[0-9]{1,6}(?:h|m|s|ms))+", re.ASCII)


def flag(value: str) -> str:
    """``1`` or ``0``."""
    if value in _TRUE:
        return "1"
    if value in _FALSE:
        return "0"
    raise ValueError("expected 1 or 0")


def flags(*names: str) -> dict[str, Parameter]:
    """Return a ``flag`` for each name."""
    return dict.fromkeys(names, flag)


def number(low: int, high: int) -> Parameter:
    """A whole number within bounds."""

    def check(value: str) -> str:
        if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return str(int(value))

    check.__doc__ = f"A whole number from {low} to {high}."
    return check


def one_of(*words: str) -> Parameter:
    """One of some words."""

    def check(value: str) -> str:
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return value

    check.__doc__ = f"One of {', '.join(words)}."
    return check


def instant(value: str) -> str:
    """A time: seconds since the epoch, RFC 3339, or a duration before now."""
    if not any(form.fullmatch(value) for form in (_INSTANT, _RFC3339, _DURATION)):
        raise ValueError("expected seconds since the epoch, a time in RFC 3339, or a duration")
    return value


def rfc3339_time(value: str) -> str:
    """A time in RFC 3339."""
    if not _RFC3339.fullmatch(value):
        raise ValueError("expected a time in RFC 3339")
    return timestamp(datetime.fromisoformat(value).timestamp())


def short_text(value: str) -> str:
    """Some text."""
    if len(value) > WORD_MAX:
        raise ValueError(f"expected at most {WORD_MAX} characters")
    return value


def comma_list(value: str) -> str:
    """Words with commas between them."""
    if not _WORDS.fullmatch(value):
        raise ValueError("expected words with commas between them, 64 at most")
    return value


def texts(value: str) -> str:
    """A JSON list of texts, 16 at most."""
    try:
        found = json_values.parse_strict(value.encode(), bytes_max=TEXTS_MAX * (WORD_MAX + 3) + 2)
    except json_values.InvalidJson as error:
        raise ValueError("expected a JSON list of texts") from error
    if not isinstance(found, list) or len(found) > TEXTS_MAX:
        raise ValueError(f"expected a JSON list of at most {TEXTS_MAX} texts")
    if not all(isinstance(each, str) and len(each) <= WORD_MAX for each in found):
        raise ValueError(f"expected texts of at most {WORD_MAX} characters")
    return value


def tail(value: str) -> str:
    """``all`` or a number of lines; -1 is the engine's other word for all."""
    if value in {"all", "-1"}:
        return "all"
    return number(0, 1_000_000_000)(value)


def detach_keys(value: str) -> str:
    """A key sequence, as the engine takes it."""
    if not _KEYS.fullmatch(value):
        raise ValueError("expected a key sequence such as ctrl-p,ctrl-q")
    return value


def left_to_admission(value: str) -> str:
    """Any value: admission judges the parameter."""
    return value


def must_be_unset(value: str) -> str:
    """Only a zero value: the parameter exists, and nobody may set it."""
    if value not in ZERO_VALUES and value != "-1":
        raise ValueError("expected it to be left out")
    return ""


#: The parameters that select journal records (``core.records.query.Filter``).
RECORD_FILTER: dict[str, Parameter] = {
    "after": number(0, 9_999_999_999),
    "upto": number(0, 9_999_999_999),
    "since": rfc3339_time,
    "until": rfc3339_time,
    "service": short_text,
    "owner": short_text,
    "actor": short_text,
    "verdict": short_text,
    "stages": comma_list,
    "action": short_text,
    "routes": comma_list,
    "container": short_text,
    "ids": comma_list,
    "record": short_text,
}


def meaning(parameter: Parameter) -> str:
    """Return the text of a parameter for the documentation."""
    text = (parameter.__doc__ or "").strip().removesuffix(".").replace("``", "`")
    assert text, f"{parameter} says not what it takes"
    return text


def validate_query(query: Mapping[str, str], known: Mapping[str, Parameter]) -> dict[str, str]:
    """Return the parameters to forward, in the order of the route; zero values are left out.

    Raises:
        Denied: ``query.invalid``.
    """
    found: dict[str, str] = {}
    for name, check in known.items():
        value = query.get(name, "")
        if value == "":
            continue
        try:
            result = check(value)
        except ValueError as error:
            raise Denied(
                "query.invalid", f"parameter {name}: {error}", "correct it", status=400
            ) from error
        if result:
            found[name] = result
    return found


def without_repeats(
    body: object, query: Mapping[str, str], known: Mapping[str, Parameter]
) -> object:
    """Return a body without the members that repeat parameters of the checked *query*.

    The engine reads a parameter in the query alone, and some clients write all options into both.

    Raises:
        Denied: ``query.repeated`` if the body says otherwise.
    """
    if not isinstance(body, dict):
        return body
    for name in [name for name in known if name in body]:
        if _as_parameter(body[name], known[name]) != query.get(name, ""):
            raise Denied(
                "query.repeated",
                f"the parameter {name} has another value in the body, where nobody reads it",
                "write it in the query alone",
                status=400,
            )
    return {name: value for name, value in body.items() if name not in known}


def _as_parameter(member: object, check: Parameter) -> str | None:
    """Return the member of a body as a checked parameter, None if it can't be one."""
    if member is None or member == "":
        return ""
    text = member if isinstance(member, str) else json.dumps(member, separators=(",", ":"))
    try:
        return check(text)
    except ValueError:
        return None
