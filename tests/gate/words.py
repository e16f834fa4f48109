"""The words of ``mutation``: what must hold on what reached the engine, or on what came back."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from controller.model.quantities import parse_size
from tests.gate.tap import Tapped
from tests.gate.wire import Answer

_IMAGE = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: Limits of strict, by the name of the field.
LIMITS = {
    "SizeBytes": 256 * 1024**2,
    "ShmSize": 256 * 1024**2,
    "Memory": 8 * 1024**3,
    "MemorySwap": 8 * 1024**3,
    "NanoCpus": 4_000_000_000,
    "PidsLimit": 512,
}
#: What /info tells of a host that isn't a client's business.
PRIVATE = ("DockerRootDir", "RegistryConfig", "Runtimes", "HttpProxy", "Plugins", "Labels")
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a case's mutation may speak of."""

    answer: Answer
    path: str  # what was asked for
    tapped: Tapped | None
    sent: object  # the client's own body
    journal: str
    owner: str
    network: str  # what the default mode implies
    others: tuple[str, ...]  # ids and names that aren't the caller's to see
    secrets: tuple[str, ...]  # values of variables


def failures(mutation: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """Return what doesn't hold."""
    return [
        f"{path}: {value!r} doesn't hold, it is {shown(found)}"
        for path, value in mutation.items()
        if not _holds(path, value, found := look_up(path, outcome), outcome)
    ]


def shown(value: Any) -> str:
    """Return a value for a report."""
    return "absent" if value is _NOTHING else repr(value)[:200]


def look_up(path: str, outcome: Outcome) -> Any:
    """Return what a mutation's path names."""
    parts = _parts(path)
    tapped = outcome.tapped
    match parts[0]:
        case "response":
            value = outcome.answer.json
            text = outcome.answer.body.decode(errors="replace")
            return _dig(value, parts[1:]) if len(parts) > 1 else text
        case "journal":
            return outcome.journal
        case "query" if tapped is not None:
            query: dict[str, Any] = dict(parse_qsl(tapped.query))
            if "filters" in query:
                query["filters"] = json.loads(query["filters"])
            return _dig(query, parts[1:])
        case "path" if tapped is not None:
            return tapped.path.split("/")[2] if parts[1:] == ["id"] else tapped.path
        case "body":
            return _dig(tapped.json, parts[1:]) if tapped is not None else _NOTHING
        case _:
            pass
    return _dig(tapped.json, parts) if tapped is not None else _NOTHING


def _parts(path: str) -> list[str]:
    if path.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    return path.split(".")


def _dig(value: Any, parts: list[str]) -> Any:
    """Go down a path; keys may have dots of their own, so the longest that fits is taken."""
    if not parts:
        return value
    if isinstance(value, list):
        fits = parts[0].isdigit() and int(parts[0]) < len(value)
        return _dig(value[int(parts[0])], parts[1:]) if fits else _NOTHING
    if isinstance(value, dict):
        for end in range(len(parts), 0, -1):
            key = ".".join(parts[:end])
            if key in value:
                return _dig(value[key], parts[end:])
    return _NOTHING


def _holds(path: str, value: Any, found: Any, outcome: Outcome) -> bool:
    if not isinstance(value, str):
        return bool(found == value) or (value in (None, 0, False) and found is _NOTHING)
    for word, holds in WORDS:
        if word.fullmatch(value):
            return bool(holds(path, value, found, outcome))
    if path.endswith(".max-size"):  # 10m, in whichever unit
        return parse_size(str(found)) == parse_size(value)
    return bool(found == value)


def _contains(found: Any, text: str) -> bool:
    """Tell whether a list, a set (as filters write it) or a text holds something.

    Of options the name is enough: ``no-new-privileges`` is in ``no-new-privileges:true``.
    """
    values = list(_texts(found))
    return any(value == text or value.startswith(f"{text}:") for value in values)


def _texts(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(found, list):
        for each in found:
            yield from _texts(each)
    elif isinstance(found, str):
        yield found


def _seen(texts: tuple[str, ...], found: Any) -> bool:
    whole = found if isinstance(found, str) else json.dumps(found, default=str)
    return any(text and text in whole for text in texts)


def _private() -> tuple[str, ...]:
    return tuple(f'"{name}"' for name in (*PRIVATE, socket.gethostname()))


def _values_of(sent: object) -> tuple[str, ...]:
    """Return the values of variables in a body; one of a few letters proves nothing."""
    env = sent.get("Env") if isinstance(sent, dict) else None
    values = (str(entry).partition("=")[2] for entry in env or ())
    return tuple(value for value in values if len(value) > 3)


def _rebuilt(found: Any, outcome: Outcome) -> bool:
    """Tell whether every key is in the engine's own case."""
    tapped = outcome.tapped.json if outcome.tapped is not None else None
    value = found if isinstance(found, dict) else tapped
    return isinstance(value, dict) and all(key[:1].isupper() for key in value)


def _bounded(path: str, found: Any) -> bool:
    return isinstance(found, int) and 0 < found <= LIMITS[_parts(path)[-1]]


def _matches(pattern: re.Pattern[str], found: Any) -> bool:
    return isinstance(found, str) and pattern.fullmatch(found) is not None


def _hidden(outcome: Outcome, found: Any) -> bool:
    # What is private to a host has the names of ordinary members elsewhere.
    private = _private() if outcome.path.endswith("/info") else ()
    return not _seen((*outcome.others, *outcome.secrets, *private), found)


Holds = Callable[[str, str, Any, Outcome], bool]
#: The words, the first that fits counts; what is none of them is the value itself.
WORDS: tuple[tuple[re.Pattern[str], Holds], ...] = tuple(
    (re.compile(pattern), holds)
    for pattern, holds in (
        ("set", lambda p, v, found, o: found not in (_NOTHING, None, "", 0, [], {})),
        ("None", lambda p, v, found, o: found in (_NOTHING, None)),
        ("<= limit", lambda p, v, found, o: _bounded(p, found)),
        (
            "digest or image ID",
            lambda p, v, found, o: _matches(_IMAGE, str(found).rpartition("@")[2]),
        ),
        ("policy default", lambda p, v, found, o: found == o.network),
        ("from peer identity", lambda p, v, found, o: found == o.owner),
        ("rebuilt", lambda p, v, found, o: _rebuilt(found, o)),
        ("64-hex", lambda p, v, found, o: _matches(_HEX64, found)),
        ("owner", lambda p, v, found, o: _contains(found, f"io.trimtab.owner={o.owner}")),
        ("filtered", lambda p, v, found, o: not _seen(o.others, found)),
        ("contains .+", lambda p, v, found, o: _contains(found, v.removeprefix("contains "))),
        ("redacted.*", lambda p, v, found, o: _hidden(o, found)),
        ("no plaintext.*", lambda p, v, found, o: not _seen(_values_of(o.sent), found)),
    )
)
