"""The target of a request: version, path and query, with exactly one reading, or a refusal.

The engine's router decodes escapes before it matches, cleans ``//`` and ``..`` by a redirect, and
takes the first of two equal parameters. Other readers differ in each of these. Therefore a path
must be in its canonical form, and no parameter of a route may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import NEWEST_API, OLDEST_API

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
