"""What goes into the journal of a request: names of secrets never their values, and bounded.

Of a value that may be a secret a keyed hash is kept (``hashes``): with the broker's key it can be
shown that two records, or a record and a value that somebody brings, are about the same one.

Text of strangers is escaped, so that no line that somebody later prints or ships can be broken
or made to look like another.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Mapping

from controller.core.canonical import canonical

TEXT_MAX = 512
ITEMS_MAX = 128
DEPTH_MAX = 6
HASH_DIGITS = 32
_PLAIN_CATEGORIES_NOT = ("C", "Zl", "Zp")


def text(value: str, *, limit: int = TEXT_MAX) -> str:
    """Return *value* with control and invisible characters escaped, cut at *limit*."""
    cut = value[:limit]
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(map(_escaped, cut))
    return cut if len(value) <= limit else f"{cut}… ({len(value)} characters)"


def _escaped(character: str) -> str:
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
