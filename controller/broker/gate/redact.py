"""Redaction: journal records have the names of secrets, never their values, and a bounded size.

A keyed hash of each value that may be secret is recorded (``hashes``). With the broker's key an
auditor can show that two records, or a record and a given value, concern the same secret.

Foreign text is escaped, so that no line that is printed or shipped later can be broken or forged.
"""

from __future__ import annotations

import hmac
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping

from controller.core.encoding.json_values import canonical, parse_json, texts_of

TEXT_MAX = 512
ITEMS_MAX = 128
DEPTH_MAX = 6
HASH_DIGITS = 32
#: Secrets up to this length stay in error texts: an error is full of such short strings.
SHORT = 3
WITHHELD = "[withheld]"
_ADDRESS = re.compile(
    r"""://(?P<who>(?:[^\s/?#"'@]*@)*)(?P<where>[^\s?"']*)(?P<query>(?:\?[^\s"']+)?)"""
)
_PLAIN_CATEGORIES_NOT = ("C", "Zl", "Zp")


def text(value: str, *, limit: int = TEXT_MAX) -> str:
    """Return *value* with control and invisible characters escaped, cut at *limit*."""
    cut = value[:limit]
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(map(_escape, cut))
    return cut if len(value) <= limit else f"{cut}… ({len(value)} characters)"


def lines(value: str) -> str:
    """Return a text of several lines, each line escaped and cut by ``text``."""
    return "\n".join(map(text, value.split("\n")))


def _escape(character: str) -> str:
    if unicodedata.category(character).startswith(_PLAIN_CATEGORIES_NOT):
        return f"\\u{ord(character):04x}"
    return character


def env_names(env: object) -> list[str]:
    """Return the sorted names of ``NAME=value`` entries, never a value."""
    if not isinstance(env, list | tuple):
        return []
    names = {str(entry).partition("=")[0] for entry in env}
    return [text(name, limit=128) for name in sorted(names)[:ITEMS_MAX]]


def hashes(key: bytes, owner: str, env: object) -> dict[str, str]:
    """Return a keyed hash of the value of each ``NAME=value`` entry, by name.

    The hash covers owner and name, so that nobody can find another owner's value by trying values.
    Without a key the result is empty.
    """
    if not key or not isinstance(env, list | tuple):
        return {}
    found: dict[str, str] = {}
    for entry in sorted(map(str, env))[:ITEMS_MAX]:
        name, equals, value = entry.partition("=")
        if not equals:
            continue  # any part of the entry may be the secret
        covered = f"{owner}\0{name}\0{value}".encode("utf-8", "surrogatepass")
        found[text(name, limit=128)] = hmac.digest(key, covered, "sha256").hex()[:HASH_DIGITS]
    return found


def withhold_secrets(message: str, config: Mapping[str, object]) -> str:
    """Return an error of the engine without the secrets of a container or an exec.

    *config* has the form of the engine's API. The values of ``Env`` and all arguments are withheld;
    of the program, only the first word stays. Strings up to ``SHORT`` stay: they are no secrets,
    and errors are full of them. URLs lose their user info and query: registries redirect to stores
    by signed links.
    """
    message = _ADDRESS.sub(_redact_address, message)
    found = {shown: told for shown, told in _secret_texts(config) if shown in message}
    if not found:
        return message
    longest = sorted(found, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest)), lambda match: found[match[0]], message)


def _redact_address(match: re.Match[str]) -> str:
    who, query = match["who"] and f"{WITHHELD}@", match["query"] and f"?{WITHHELD}"
    return f"://{who}{match['where']}{query}"


def _secret_texts(config: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield each secret in the forms that an error may have, with its replacement."""
    command = [*texts_of(config.get("Entrypoint")), *texts_of(config.get("Cmd"))]
    program, arguments = "".join(command[:1]), command[1:]
    told = next(iter(program.split()), "")
    if told != program.strip():
        for shown in _quoted(program.strip()):
            yield shown, f"{told} {WITHHELD}".lstrip()
    health = config.get("Healthcheck")
    test = health.get("Test") if isinstance(health, Mapping) else None
    values = [each.partition("=")[2] or each for each in texts_of(config.get("Env"))]
    for value in {*values, *arguments, *texts_of(test)[1:]} - {told}:
        if len(value) > SHORT:
            yield from ((shown, WITHHELD) for shown in _quoted(value))


def _quoted(value: str) -> tuple[str, str]:
    """Return a string as it is, and as the engine quotes it."""
    return value, json.dumps(value, ensure_ascii=False)[1:-1]


def keyed_digest(key: bytes, value: object) -> str:
    """Return the lower-case hex HMAC-SHA-256 of a JSON value that a record has only in part.

    Without a key, a reader could find the rest by trying. The input begins with ``{`` or ``[``, and
    the input of ``hashes`` with an owner, so that the two never collide.
    """
    assert key, "anybody can compute a digest without a key"
    return hmac.digest(key, canonical(value), "sha256").hex()


def summary(value: object, depth: int = 0) -> object:
    """Return a JSON value for a record: escaped, cut, without floats, the environment as names."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return text(value)
    if depth >= DEPTH_MAX:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(value.items())
        kept = {
            text(str(key), limit=128): _member(str(key), item, depth)
            for key, item in pairs[:ITEMS_MAX]
        }
        return kept if len(pairs) <= ITEMS_MAX else {**kept, "…": len(pairs)}
    if isinstance(value, list | tuple):
        kept_items = [summary(item, depth + 1) for item in value[:ITEMS_MAX]]
        return kept_items if len(value) <= ITEMS_MAX else [*kept_items, f"… ({len(value)})"]
    return text(str(value))


def _member(key: str, value: object, depth: int) -> object:
    return env_names(value) if key.casefold() == "env" else summary(value, depth + 1)


#: The engine puts the command and its arguments into the names of these events.
_EXEC_EVENT = re.compile(r"(exec_[a-z]+):.*", re.ASCII | re.DOTALL)


def event_name(name: str) -> str:
    """Return the name of an event of the engine without the arguments of a command.

    For example ``exec_create`` for ``exec_create: sh -c secret``.
    """
    match = _EXEC_EVENT.fullmatch(name)
    return match[1] if match else name


def event(line: bytes) -> bytes | None:
    """Return a line of the engine's events without arguments of commands, None if unreadable."""
    if b"exec_" not in line:
        return line
    try:
        told = parse_json(line)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    for member in ("status", "Action"):
        name = told.get(member)
        if isinstance(name, str) and (bare := event_name(name)) != name:
            told[member] = f"{bare}: {WITHHELD}"
    return json.dumps(told, separators=(",", ":")).encode()
