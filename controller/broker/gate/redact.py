"""What goes into the journal of a request: names of secrets never their values, and bounded.

Of a value that may be a secret a keyed hash is kept (``hashes``): with the broker's key it can be
shown that two records, or a record and a value that somebody brings, are about the same one.

Text of strangers is escaped, so that no line that somebody later prints or ships can be broken
or made to look like another.
"""

from __future__ import annotations

import hmac
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping

from controller.core.encoding.canonical_json import canonical
from controller.core.encoding.json_members import texts_of

TEXT_MAX = 512
ITEMS_MAX = 128
DEPTH_MAX = 6
HASH_DIGITS = 32
#: Of what is withheld, that long at most stays where an error repeats it.
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


def _escape(character: str) -> str:
    if unicodedata.category(character).startswith(_PLAIN_CATEGORIES_NOT):
        return f"\\u{ord(character):04x}"
    return character


def env_names(env: object) -> list[str]:
    """Return the names of ``NAME=value`` entries, sorted; never a value."""
    if not isinstance(env, list | tuple):
        return []
    names = {str(entry).partition("=")[0] for entry in env}
    return [text(name, limit=128) for name in sorted(names)[:ITEMS_MAX]]


def hashes(key: bytes, owner: str, env: object) -> dict[str, str]:
    """Return a keyed hash of the value of each ``NAME=value`` entry, by its name.

    The owner and the name go into it: nobody learns of somebody else's value by trying values of
    his own. Without a key nothing is told.
    """
    if not key or not isinstance(env, list | tuple):
        return {}
    found: dict[str, str] = {}
    for entry in sorted(map(str, env))[:ITEMS_MAX]:
        name, equals, value = entry.partition("=")
        if not equals:
            continue  # any part of it may be the secret
        told = f"{owner}\0{name}\0{value}".encode("utf-8", "surrogatepass")
        found[text(name, limit=128)] = hmac.digest(key, told, "sha256").hex()[:HASH_DIGITS]
    return found


def withhold_secrets(message: str, config: Mapping[str, object]) -> str:
    """Return an error of the engine's without what no record tells of a container or an exec.

    *config* has it as the engine's API has: values of ``Env``, and arguments. The program is told,
    of a whole command line in its place the first word. What is as short as ``SHORT`` stays: it is
    no secret, and an error is full of it. Of an address neither who asked there is told nor its
    query: registries lead to stores by links that are signed in it.
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
    """Yield each text that isn't told, as an error may show it, and what is told instead."""
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
    """Return a text as it is, and as the engine quotes it."""
    return value, json.dumps(value, ensure_ascii=False)[1:-1]


def keyed_digest(key: bytes, value: object) -> str:
    """Return the lower-case hex HMAC-SHA-256 of a JSON value that a record doesn't tell whole.

    What isn't told could be found by trying, were there no key. What it is made of begins with
    ``{`` or ``[``, and what ``hashes`` are made of with an owner: none is ever the other.
    """
    assert key, "a digest that anybody can make"
    return hmac.digest(key, canonical(value), "sha256").hex()


def summary(value: object, depth: int = 0) -> object:
    """Return a JSON value fit for a record: escaped, cut, without floats, env as names."""
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
