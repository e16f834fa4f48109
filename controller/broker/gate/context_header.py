"""The header Trimtab-Context: the controller's claims about its request, never facts.

The precondition is the exception: a condition that the gate checks, and nothing to believe.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from controller.broker.gate.refusals import Denied
from controller.core.encoding import strict_json
from controller.model.records import Actor, Context, Precondition, Request, Role

HEADER = "trimtab-context"
BYTES_MAX = 4096
TEXT_MAX = 2048
_MEMBERS = frozenset({"cause", "source", "plan", "onBehalfOf", "precondition"})
_SOURCE = frozenset({"file", "line", "commit", "lines"})
_PRECONDITION = frozenset({"absent", "id", "revision"})
#: The path of a field, and the number of fields that are read.
_FIELD = re.compile(r"[A-Za-z]{1,32}(\.[A-Za-z]{1,32})?")
_FIELDS_MAX = 32
#: Three of five requests for a new service are looks, with the same header.
_HEADERS_KEPT = 8


def identify(request: Request) -> tuple[Actor, Context | None]:
    """Return the caller, with the role of this very request, and the controller's claims.

    Only a request with the context header gets the controller's role. Where operator and controller
    share a uid (``separated`` is false) the header is the only difference between them.

    Raises:
        Denied: ``role.denied`` (the controller without a context), ``context.malformed``.
    """
    actor = request.actor
    values = [value for name, value in request.headers if name == HEADER]
    if len(values) > 1:
        raise _malformed("it is repeated")
    context = read(values[0]) if values else None
    shared = not actor.separated and actor.role in {Role.CONTROLLER, Role.OPERATOR}
    if shared:
        role = Role.CONTROLLER if context is not None else Role.OPERATOR
        return replace(actor, role=role), context
    if actor.role is Role.CONTROLLER and context is None:
        raise Denied(
            "role.denied",
            "the controller's user has no rights besides the controller's requests",
            "use another user, or send the request through the controller",
        )
    # A context from any other caller is ignored.
    return actor, context if actor.role is Role.CONTROLLER else None


@lru_cache(_HEADERS_KEPT)
def read(value: str) -> Context:
    """Return the claims in the value of a header: base64url of a closed JSON object.

    Raises:
        Denied: ``context.malformed``.
    """
    if len(value) > BYTES_MAX:
        raise _malformed(f"it is longer than {BYTES_MAX} bytes")
    try:
        padded = value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
        data = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        told = strict_json.parse(data, bytes_max=BYTES_MAX)
    except (UnicodeEncodeError, binascii.Error, strict_json.InvalidJson) as error:
        raise _malformed(f"it isn't base64url of JSON: {error}") from error
    members = _closed(told, _MEMBERS)
    source = _closed(members.get("source") or {}, _SOURCE)
    expected = _closed(members.get("precondition") or {}, _PRECONDITION)
    return Context(
        cause=_text(members, "cause"),
        file=_text(source, "file"),
        line=_line(source.get("line", 0)),
        commit=_text(source, "commit"),
        plan=_text(members, "plan"),
        on_behalf_of=_text(members, "onBehalfOf"),
        lines=_lines(source.get("lines") or {}),
        precondition=Precondition(
            absent=_text(expected, "absent"),
            id=_text(expected, "id"),
            revision=_text(expected, "revision"),
        ),
    )


def _closed(value: object, members: frozenset[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _malformed("an object was expected")
    unknown = value.keys() - members
    if unknown:
        raise _malformed(f"it has no member {min(unknown)!r:.64}")
    return value


def _line(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _malformed("line isn't a number of a line")
    return value


def _lines(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, dict) or len(value) > _FIELDS_MAX:
        raise _malformed(f"lines isn't an object of at most {_FIELDS_MAX} members")
    for name in value:
        if not _FIELD.fullmatch(name):
            raise _malformed(f"{name!r:.64} isn't the path of a field")
    return tuple((name, _line(line)) for name, line in sorted(value.items()))


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise _malformed(f"{name} isn't a text of at most {TEXT_MAX} characters")
    return value


def _malformed(reason: str) -> Denied:
    return Denied(
        "context.malformed",
        f"Trimtab-Context: {reason}",
        "send base64url of {cause, source, plan, onBehalfOf, precondition}, at most 4 KiB",
        status=400,
    )
