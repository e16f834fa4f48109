"""One meaning, many spellings: requests as different clients could write them, from a seed.

``spelled`` changes nothing that a reader may take for meaning: the order of members, escapes,
white space, values that say "unset". ``misspelled`` does what must be refused, and says what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from urllib.parse import quote

from controller.core.engine_api.field_reader import Field, WrongError

ZEROES: tuple[object, ...] = (None, "", 0, False, [], {})
SPACES = ("", "", "", "", " ", "\n", "\t ", "\r\n")
#: Letters that Go's decoder takes for others: long s and the Kelvin sign.
_LOOKALIKES = {"s": "\u017f", "S": "\u017f", "k": "\u212a", "K": "\u212a"}

Pairs = list[tuple[str, str]]


class Raw(str):
    """JSON that is written as it is."""

    __slots__ = ()


def spelled(value: object, dice: Random) -> str:
    """Return JSON that means *value*; members of an object come in any order."""
    match value:
        case Raw():
            return str(value)
        case bool() | None:
            return json.dumps(value)
        case int():
            return "-0" if value == 0 and dice.random() < 0.1 else str(value)
        case str():
            return _text(value, dice)
        case Mapping():
            members = [(str(key), member) for key, member in value.items()]
            dice.shuffle(members)
            inside = [f"{_text(k, dice)}{_space(dice)}:{spelled(m, dice)}" for k, m in members]
            return "{" + ",".join(_space(dice) + each for each in inside) + _space(dice) + "}"
        case Sequence():
            inside = [_space(dice) + spelled(item, dice) for item in value]
            return "[" + ",".join(inside) + _space(dice) + "]"
        case _:
            raise AssertionError(f"no JSON: {value!r}")


def _space(dice: Random) -> str:
    return dice.choice(SPACES)


def _text(text: str, dice: Random) -> str:
    """Write a text, some of its characters escaped, beyond U+FFFF as a pair of surrogates."""
    if dice.random() < 0.7:
        return json.dumps(text, ensure_ascii=dice.random() < 0.5)
    return '"' + "".join(_character(each, dice) for each in text) + '"'


def _character(character: str, dice: Random) -> str:
    if character in '"\\' or character < " " or dice.random() < 0.3:
        units = character.encode("utf-16-be")
        pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
        return "".join(f"\\u{dice.choice((unit, unit.upper()))}" for unit in pairs)
    return "\\/" if character == "/" and dice.random() < 0.3 else character


def with_zeroes(
    body: Mapping[str, object], table: Sequence[Field], dice: Random, *, most: int = 6
) -> dict[str, object]:
    """Return *body* with members that say nothing: known ones unset, and unknown empty ones."""
    silent = [
        (entry.name, zero)
        for entry in dice.sample(table, min(most, len(table)))
        if entry.name not in body
        for zero in (dice.choice(zeroes_of(entry)),)
    ]
    if dice.random() < 0.3:
        silent.append((f"X{dice.randrange(100)}Unknown", dice.choice(ZEROES)))
    return {**body, **dict(silent[: dice.randrange(most + 1)])}


def zeroes_of(entry: Field) -> list[object]:
    """Return the values by which a client may say that a field is unset."""
    if entry.keep_zero:
        return [None]
    return [zero for zero in ZEROES if zero is None or _readable(entry, zero)]


def _readable(entry: Field, value: object) -> bool:
    try:
        entry.read(value)
    except WrongError:
        return False
    return True


# What must be refused. Each takes a body and returns JSON.


def _repeated(body: dict[str, object], dice: Random) -> str:
    key = dice.choice(list(body))
    text = spelled(body, dice)
    again = f"{_text(key, dice)}:{spelled(dice.choice((body[key], None)), dice)}"
    return text.rstrip()[:-1] + "," + again + "}"


def _other_case(body: dict[str, object], dice: Random) -> str:
    key = dice.choice(list(body))
    other = dice.choice([key.lower(), key.upper(), key.swapcase()])
    return spelled({**{k: v for k, v in body.items() if k != key}, other: body[key] or 1}, dice)


def _lookalike(body: dict[str, object], dice: Random) -> str:
    keys = [(key, letter) for key in body for letter in key if letter in _LOOKALIKES]
    if not keys:
        return _other_case(body, dice)
    key, letter = dice.choice(keys)
    other = key.replace(letter, _LOOKALIKES[letter], 1)
    return spelled({**{k: v for k, v in body.items() if k != key}, other: body[key] or 1}, dice)


def _unknown(body: dict[str, object], dice: Random) -> str:
    value = dice.choice([1, True, "x", ["x"], {"a": 1}])
    return spelled({**body, f"X{dice.randrange(100)}Unknown": value}, dice)


def _bad_number(body: dict[str, object], dice: Random) -> str:
    number = dice.choice(
        ["1.0", "1e3", "1E0", "NaN", "Infinity", "-Infinity", "9223372036854775808"]
    )
    return spelled({**body, "Memory": Raw(number)}, dice)


def _bad_text(body: dict[str, object], dice: Random) -> str:
    text = dice.choice(['"\\ud800"', '"a\\u0000b"', '"\\udc00\\ud800"', '"\n"'])
    return spelled({**body, "Domainname": Raw(text), "Name": Raw(text)}, dice)


def _trailing(body: dict[str, object], dice: Random) -> str:
    return spelled(body, dice) + dice.choice(["}", "]", "{}", " null", ",", "\x00"])


def _leading(body: dict[str, object], dice: Random) -> str:
    return dice.choice(["\ufeff", "\x00", "\u00a0", "[", "//\n"]) + spelled(body, dice)


def _deep(body: dict[str, object], dice: Random) -> str:
    return spelled({**body, "XDeep": Raw("[" * 100 + "]" * 100)}, dice)


def _no_object(_body: dict[str, object], dice: Random) -> str:
    return dice.choice(["[1]", '"x"', "true", "1", "", "{", "{]"])


def _single_quotes(body: dict[str, object], _dice: Random) -> str:
    return repr(body) if body else "{'a':1}"


MISSPELLINGS: dict[str, Callable[[dict[str, object], Random], str]] = {
    "a repeated key": _repeated,
    "a key in another case": _other_case,
    "a key that looks alike": _lookalike,
    "an unknown field": _unknown,
    "a number that is none": _bad_number,
    "a text that readers replace": _bad_text,
    "something after the body": _trailing,
    "something before the body": _leading,
    "depth": _deep,
    "no object": _no_object,
    "single quotes": _single_quotes,
}


def misspelled(body: dict[str, object], dice: Random) -> tuple[str, str]:
    """Return JSON that must be refused, and what is wrong with it."""
    what = dice.choice(list(MISSPELLINGS))
    if not body and what in {"a repeated key", "a key in another case", "a key that looks alike"}:
        what = "an unknown field"
    return MISSPELLINGS[what](body, dice), what


# Queries and paths.


def query(pairs: Pairs, dice: Random) -> str:
    """Return a query that means *pairs*, some with parameters that nobody reads."""
    ignored = [("Cmd", "sh"), ("Cmd", "\n"), (f"x{dice.randrange(100)}", ""), ("[]", "\x00")]
    pairs = [*pairs, *(each for each in ignored if dice.random() < 0.1)]
    dice.shuffle(pairs)
    written = "&".join(f"{_part(name, dice)}={_part(value, dice)}" for name, value in pairs)
    return written + dice.choice(["", "", "", "&"]) if written else ""


def _part(text: str, dice: Random) -> str:
    return "".join(
        f"%{ord(each):02{dice.choice('xX')}}"
        if each.isascii() and dice.random() < 0.1
        else quote(each, safe="")
        for each in text
    )


def bad_query(pairs: Pairs, dice: Random) -> tuple[str, str]:
    """Return a query that must be refused, and what is wrong with it."""
    written = query(pairs, dice).removesuffix("&")
    name, value = dice.choice(pairs or [("t", "1")])
    made = {
        "a semicolon": f"{written};{name}={value}",
        "half an escape": f"{written}&{name}x=%{dice.choice(['', '4', 'zz', 'u0041'])}",
        "a name that is no text": f"{written}&{dice.choice(['%ff', 'a%0ab', '%00'])}=1",
    }
    if pairs:
        made |= {
            "a repeated parameter": f"{written}&{name}={value}",
            "a repeated parameter, escaped": f"{written}&%{ord(name[0]):02x}{name[1:]}={value}",
            "a parameter in another case": f"{written}&{name.swapcase()}={value}",
        }
    what = dice.choice(list(made))
    return made[what], what


def bad_path(path: str, dice: Random) -> tuple[str, str]:
    """Return a path that must be refused, though an engine may take it."""
    at = dice.choice([i for i, each in enumerate(path) if each.isalpha()])
    parts = path.split("/")
    made = {
        "an escaped letter": f"/v1.45{path[:at]}%{ord(path[at]):02x}{path[at + 1 :]}",
        "an escape of an escape": f"/v1.45{path[:at]}%25{ord(path[at]):02x}{path[at + 1 :]}",
        "an escaped slash": "/v1.45" + path.replace("/", "%2F"),
        "an empty segment": f"/v1.45/{path}",
        "a dot segment": f"/v1.45/.{path}",
        "a way up": f"/v1.45/x/..{path}",
        "a slash at the end": f"/v1.45{path}/",
        "an odd version": f"/{dice.choice(['v01.45', 'v1.45.0', 'V1.45', 'v1.045', 'v1', '1.45'])}{path}",
        "a version that isn't spoken": f"/v1.{dice.choice([12, 23, 24, 43, 99])}{path}",
        "two versions": f"/v1.45/v1.45{path}",
        "capitals": f"/v1.45/{parts[1].upper()}/{'/'.join(parts[2:])}",
        "a semicolon": f"/v1.45{path};x=1",
        "a wrong letter": f"/v1.45{path}\u00e9",
    }
    what = dice.choice(list(made))
    return made[what], what
