"""Odd targets before a real engine: what it would route, the gate reads alike, or refuses.

The gate's reading of a target is written anew as a plain one; the engine must answer both in the
same words. Its answers tell which route it took and which name it read: ``No such container: X``.
Only what can't change anything is asked: looks, and verbs for objects that don't exist.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import TYPE_CHECKING

import pytest

from controller.broker.gate import routes
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import read_path
from controller.broker.gate.routes import OWN_PREFIX, ROUTES
from controller.broker.wire import Malformed, parse_head
from tests.gate.fuzz import Line

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

TARGETS = 6000
SEED = 20260101
#: Looks, and changes of what isn't there.
ASKED = (
    ("GET", "/_ping"),
    ("GET", "/version"),
    ("GET", "/containers/json"),
    ("GET", "/containers/nobody/json"),
    ("GET", "/containers/nobody/top"),
    ("GET", "/containers/nobody/changes"),
    ("GET", "/containers/nobody/logs?stdout=1"),
    ("POST", "/containers/nobody/start"),
    ("POST", "/containers/nobody/kill"),
    ("POST", "/containers/nobody/rename?name=other"),
    ("DELETE", "/containers/nobody"),
    ("GET", "/images/ghcr.io/nobody/web:1/json"),
    ("GET", "/images/nobody@sha256:" + "ab" * 32 + "/json"),
    ("GET", "/images/nobody/history"),
    ("GET", "/networks/nobody"),
    ("DELETE", "/networks/nobody"),
    ("GET", "/volumes/nobody"),
    ("DELETE", "/volumes/nobody"),
    ("GET", "/exec/nobody/json"),
)
PREFIXES = ("", "/v1.45", "/v1.44", "/v1.24", "/v1.46", "/v1.99", "/v01.45", "/v1.45.0", "/V1.45", "/v1", "/v", "/v1.4", "/v1.045", "/1.45", "/v1.45/v1.45", "/v1.45/", "//v1.45", "/./v1.45", "/v%31.45")  # fmt: skip
INSERTED = ("/", "//", "/.", "/..", "/./", "/../", "/x/../", ";", ";a=b", "%2f", "%2F", "%2e", "%2e%2e", "%252f", "%00", "%0a", "%20", "+", "%", "%u0061", "%c3%a9", "%ff", "\\", "\t", "#", "?", "&", "=", ":", "@", "%40", "%3a", "%3A", "%3B", "%3f", "~", "*", "|", "{", "\u00e9", "\u212a", "%e2%84%aa", "%ef%bd%8a")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """An engine's answer, as far as it tells of route and name."""

    status: int
    text: str

    @property
    def routed(self) -> bool:
        """Whether a handler gave it."""
        return "page not found" not in self.text and self.status not in {301, 308}


def odd_targets(dice: Random) -> Iterator[tuple[str, str]]:
    """Yield methods and targets: plain ones, and each with one or two things done to it."""
    yield from ASKED
    while True:
        method, target = dice.choice(ASKED)
        path, question, query = target.partition("?")
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
            path = _changed(path, dice)
        yield method, dice.choice((*PREFIXES, *("/v1.45", "") * 8)) + path + question + query


def _changed(path: str, dice: Random) -> str:
    at = dice.randrange(1, len(path) + 1)
    match dice.randrange(7):
        case 0 if at < len(path):
            return f"{path[:at]}%{ord(path[at]):02{dice.choice('xX')}}{path[at + 1 :]}"
        case 1 if at < len(path):
            return f"{path[:at]}%25{ord(path[at]):02x}{path[at + 1 :]}"
        case 2 if at < len(path):
            return path[:at] + path[at].swapcase() + path[at + 1 :]
        case 3:
            return path + dice.choice(("/", "/.", "/..", "%2f", "?", ";", "/json", "%00"))
        case 4:
            return path.replace("/", dice.choice(("//", "%2F", "/./", "\\")), dice.choice((1, 2)))
        case 5:
            return path.replace("nobody", dice.choice(("no.body", "NOBODY", "n", "a:b", "a@b", "-", "_", "a~b")))  # fmt: skip
        case _:
            return path[:at] + dice.choice(INSERTED) + path[at:]


def reading(method: str, target: str) -> tuple[str, str]:
    """Return the plain target that the gate reads, or '' and the rule that refuses it."""
    raw = f"{method} {target} HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    head = parse_head(raw)
    if isinstance(head, Malformed):
        return "", head.rule
    path, _, query = head.target.partition("?")
    try:
        read = read_path(path)
        match = routes.find_route(method, read.path, versioned=read.versioned)
        routes.read_parameters(match.route, query)
    except Denied as denied:
        return "", denied.rule
    plain = re.sub(r"\{(\w+)\}", lambda found: match.names[found[1]], match.route.template)
    version = "/v1.45" if read.versioned else ""
    return f"{version}{plain}" + (f"?{query}" if query else ""), ""


class Asker:
    """Asks an engine, and takes a connection that it ended for an answer, too."""

    def __init__(self, engine: PrivateEngine | FoundEngine) -> None:
        self._engine = engine
        self._line = Line(self._connect)

    def _connect(self) -> socket:
        made = socket(AF_UNIX, SOCK_STREAM)
        made.connect(str(self._engine.socket))
        return made

    def ask(self, method: str, target: str) -> Said:
        raw = f"{method} {target} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n".encode()
        answer = self._line.ask(raw, method)
        # What is there changes by the minute; what isn't there is told in the same words.
        told = answer.body.decode(errors="replace") if answer.status >= 300 else ""
        return Said(answer.status, told)

    def close(self) -> None:
        self._line.close()


@pytest.mark.needs_root
def test_a_path_is_routed_as_an_engine_routes_it_or_refused(
    engine: PrivateEngine | FoundEngine,
) -> None:
    asker, counts, apart = Asker(engine), Counter[str](), []
    targets = odd_targets(Random(SEED))
    for _ in range(TARGETS):
        method, target = next(targets)
        plain, rule = reading(method, target)
        said = asker.ask(method, target)
        if rule:
            counts["refused, routed by the engine" if said.routed else "refused by both"] += 1
            continue
        counts["read alike"] += 1
        if said != (meant := asker.ask(method, plain)):
            apart.append(f"{method} {target}: {said}, but {plain}: {meant}")
    asker.close()
    print(dict(counts))
    assert apart == []
    # The table would prove nothing if all were refused, or nothing were.
    assert counts["read alike"] > 500
    assert counts["refused, routed by the engine"] > 500
    assert counts["refused by both"] > 500


@pytest.mark.parametrize("template", sorted({route.template for route in ROUTES}))
def test_every_route_of_the_table_is_found_by_its_own_plain_path(template: str) -> None:
    for route in (each for each in ROUTES if each.template == template):
        names = dict.fromkeys(re.findall(r"\{(\w+)\}", template), "a-name")
        path = (OWN_PREFIX if route.own else "") + template.format(**names)
        found = routes.find_route(route.method, path, versioned=False)
        assert (found.route.name, dict(found.names)) == (route.name, names)
