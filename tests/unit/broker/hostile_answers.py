"""Answers that no engine should give, and what each reader may make of them.

``BODIES`` are whole bodies; ``altered`` are good objects with a member of another type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.unit.broker.world import NETWORK, WEB, image, inspect, labels, network

DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "a number": b"3",
    "a text": b'"x"',
    "not a number": b'{"Id":NaN,"ExitCode":Infinity}',
    "a list of numbers": b"[1,2,3]",
    "a list of lists": b"[[],[]]",
    "a list of nulls": b"[null,null]",
    "a list of empty objects": b"[{},{}]",
    "cut in a list": b'[{"Id":"a"},{"I',
    "cut in an object": b'{"Id":"a","Labels":{"x":',
    "more than one": b"{}{}",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"Labels":' * DEEP + b"{}" + b"}" * DEEP,
    "a deep row": b'[{"Id":"a","Labels":' + b"[" * DEEP + b"]" * DEEP + b"}]",
    "repeated keys": b'{"Id":"a","Id":3,"Labels":{},"Labels":[]}',
    "no UTF-8": b'{"Id":"\xff\xfe","Name":"\xc3"}',
    "rows of no UTF-8": b'[{"Id":"\xff","Names":["/\xc3"]}]',
    "half a surrogate pair": b'{"Id":"\\ud800","Name":"\\udfff","message":"\\ud800"}',
    "rows of half a surrogate pair": b'[{"Id":"\\ud800","RepoTags":["\\ud800"]}]',
    "control characters": b'{"Id":"a\\u0000\\u001b[2J\\u202e","message":"\\u001b]0;x\\u0007"}',
    "raw control characters": b'{"Id":"a\x00\x1b\n"}',
    "a huge number": b'{"ExitCode":' + b"9" * 5000 + b"}",
    "a number beyond floats": b'{"ExitCode":1e999,"Pid":-1e999}',
    "a long number": b'{"ExitCode":' + b"9" * 4000 + b',"Running":1}',
    "an endless text": b'{"Id":"' + b"x" * 3_000_000,
    "an endless row": b'[{"Id":"' + b"x" * 3_000_000,
    "a page": b"<html>502 Bad Gateway</html>",
    "volumes as text": b'{"Volumes":"x"}',
    "volumes as numbers": b'{"Volumes":[1,2]}',
    "volumes of texts": b'{"Volumes":[{"Name":3,"Labels":"x","Options":[]}]}',
    "rows of other types": b'[{"Id":3,"Names":"x","Labels":[],"State":{},"RepoTags":7,"Mounts":1}]',
    "rows of texts": b'[{"Id":"a","Labels":"x","NetworkSettings":"y","Names":{}}]',
    "an error as a list": b'{"message":["x"]}',
}
OTHER_VALUES: tuple[Any, ...] = (None, 3, "x", [], {}, [3], {"a": 3}, [{"a": []}], True, 1e300)


def good_answer(path: str) -> Any:
    """Return what an engine answers, where everything is there and belongs to alice."""
    plain = path.partition("?")[0]
    name = plain.split("/")[2] if plain.count("/") > 1 else ""
    row = {"Id": WEB, "Names": ["/alice-web"], "State": "running", "Labels": labels("alice")}
    lists: dict[str, Any] = {
        "/containers/json": [row],
        "/images/json": [image()],
        "/networks": [network(NETWORK, "platform-network", "alice")],
        "/volumes": {"Volumes": [volume("alice-data")], "Warnings": None},
    }
    if plain in lists:
        return lists[plain]
    if plain.endswith("/history"):
        return [{"Id": "x", "Tags": None}]
    if plain.startswith("/containers/"):
        return inspect(WEB, "alice-web", "alice")
    if plain.startswith(("/images/", "/distribution/")):
        return image()
    if plain.startswith("/networks/"):
        return network(NETWORK, name, "alice")
    if plain.startswith("/volumes/"):
        return volume(name)
    return {"ID": "engine-1"} if plain == "/info" else {}


def volume(name: str) -> dict[str, Any]:
    return {"Name": name, "Driver": "local", "Labels": labels("alice"), "Options": None}


def altered(answer: Any) -> Iterator[Any]:
    """Yield an answer with each member, at any depth down to labels, of each other type."""
    if isinstance(answer, list):
        for other in altered(answer[0]) if answer else ():
            yield [other, *answer[1:]]
    if isinstance(answer, dict):
        for name, value in answer.items():
            for other in OTHER_VALUES:
                yield {**answer, name: other}
            yield {key: each for key, each in answer.items() if key != name}
            if name not in {"Labels", "Env"}:
                for inner in altered(value):
                    yield {**answer, name: inner}


def altered_bodies(path: str) -> Iterator[bytes]:
    """Yield the good answer of a path with members of other types, as JSON."""
    for answer in altered(good_answer(path)):
        yield json.dumps(answer).encode()
