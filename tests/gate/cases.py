"""Judge a file of gate cases against a broker on a real engine: ``python -m tests.gate.cases FILE``.

Prints right/all for each expectation, by group, every wrong case, and at last
``N cases, M wrong``; ends with 1 when any is wrong. ``--against`` judges by the same table a gate
that passes everything on, or one that refuses everything: both must be found wrong.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from tests import engine as engines
from tests.gate import meant, wire, words
from tests.gate.fixtures import CONTEXT, Knobs, World
from tests.gate.refuser import Refuser
from tests.gate.tap import Tap, Tapped
from tests.gate.wire import Answer

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

Expect = Literal["allow", "mutated", "deny"]
EXPECTS: tuple[Expect, ...] = ("allow", "mutated", "deny")
Against = Literal["broker", "pass-through", "refuse-all"]
CASES = Path(__file__).parent / "cases.jsonl"
ROLES = ("controller", "operator", "viewer", "viewer-of-all")
#: The viewers, with the rule that refuses output of alice's containers to them; '' for none.
VIEWERS = {"viewer": "", "viewer-of-all": "viewer.logs"}
NETWORK = "platform-network"
#: Beyond the 30 s in which a body must have come.
BODY_S = 40.0

#: Which state the caller's container must be in, by the end of the path; else running.
STATES = {
    "start": "created",
    "unpause": "paused",
    "resize": "terminal",
    "disconnect": "joined",
    "rename": "created",
}


@dataclass(frozen=True)
class Case:
    """One line of the file."""

    id: str
    group: str
    expect: Expect
    method: str
    path: str
    query: str
    reason: str
    body: Any = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body_b64: str = ""
    raw_b64: str = ""
    mutation: dict[str, Any] = field(default_factory=dict)
    role: str = ""
    knob: str = ""
    rule: str = ""  # that refuses it; '' for any
    #: A container of nobody that the case speaks of: options of ``docker run`` and the rest.
    looks: dict[str, Any] = field(default_factory=dict)
    served_as: str = ""  # the id of the same request by a role that is served; '' for none
    text: str = ""  # the line, with its tokens

    @classmethod
    def read(cls, line: str) -> Case:
        """Read a line; what only its author needs is left out."""
        told = json.loads(line)
        known = {key: told[key] for key in cls.__dataclass_fields__ if key in told}
        return cls(**{**known, "text": line})

    @property
    def knobs(self) -> Knobs:
        return Knobs.read(self.knob, permit=self.permitted)

    @property
    def permitted(self) -> bool:
        """Whether the policy admits it: a viewer's lacks nothing but the role."""
        return self.expect != "deny" or bool(self.served_as)

    @property
    def caller(self) -> str:
        return self.role if self.role in ROLES else "alice"

    @property
    def sent_body(self) -> bytes | None:
        if self.body_b64:
            return base64.b64decode(self.body_b64)
        if self.body is None or isinstance(self.body, str):
            return None if self.body is None else self.body.encode()
        return json.dumps(self.body, ensure_ascii=False).encode()

    @property
    def raw(self) -> bytes:
        """The request as it goes over the wire."""
        if self.raw_b64:
            return base64.b64decode(self.raw_b64)
        target = self.path + (f"?{self.query}" if self.query else "")
        headers: dict[str, str | None] = (
            {"Trimtab-Context": CONTEXT} if self.caller == "controller" else {}
        )
        return wire.request(
            self.method, target.encode(), self.sent_body, {**headers, **self.headers}
        )

    @property
    def incomplete(self) -> bool:
        """Whether more of the body is announced than is sent."""
        head, _, body = self.raw.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: ([0-9]+)(?:\r\n|$)", head)
        chunked = b"transfer-encoding" in head.lower()
        many = head.count(b"\r\nContent-Length:") > 1
        return bool(self.raw_b64 and length and not chunked and not many) and len(body) < int(
            length[1] if length else 0
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A case with what was wrong, '' for nothing."""

    case: Case
    wrong: str


def read_cases(path: Path) -> list[Case]:
    """Return the cases of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Case.read(line) for line in lines if line.strip()]


def with_viewers(cases: Iterable[Case]) -> list[Case]:
    """Return the cases, and before each one that is served the same request by every viewer.

    So a viewer is refused what is served next, to another role. Output of containers is for
    viewers too, by their ``logs``; nothing else is that others' cases ask for.
    """
    return [each for case in cases for each in (*_as_viewers(case), case)]


def _as_viewers(case: Case) -> Iterator[Case]:
    if case.expect == "deny" or case.role in VIEWERS:
        return
    for role, of_output in VIEWERS.items():
        yield _as_viewer(case, role, of_output if case.path.endswith("/logs") else "role.denied")


def _as_viewer(case: Case, role: str, rule: str) -> Case:
    """Return a case as a viewer's that *rule* refuses; '' is none, and the viewer is served."""
    told: dict[str, Any] = json.loads(case.text)
    told |= {"id": f"{case.id}-as-{role}", "role": role, "served_as": case.id}
    if rule:
        told |= {"expect": "deny", "rule": rule}
    return Case.read(json.dumps(told))


class Court:
    """Judges cases in a world; *path* is a gate's socket, without it the broker's; *tap* its engine."""

    def __init__(self, world: World, *, path: Path | None = None, tap: Tap | None = None) -> None:
        self._world = world
        self._path = path
        self._tap = tap or world.tap
        self._state = ""
        self._looks = ""

    def judge_all(self, cases: Sequence[Case]) -> list[Judged]:
        """Judge all, those of one policy and of one look-alike together.

        The answers come in the given order.
        """
        judged: dict[str, Judged] = {}
        with ExitStack() as open_ones:
            waiting = [
                (case, open_ones.enter_context(self._begin(case)))
                for case in cases
                if case.incomplete
            ]
            for case in sorted(cases, key=_by_surroundings):
                judged[case.id] = Judged(case, self.judge(case))
            for case, connection in waiting:
                if judged[case.id].wrong:
                    continue
                mark = self._tap.mark()
                answer = wire.read(connection, within_s=BODY_S)
                wrong = self._deny(answer, self._tap.since(mark), case)
                if wrong:
                    judged[case.id] = Judged(case, f"left open: {wrong}")
        return [judged[case.id] for case in cases]

    @contextmanager
    def _begin(self, case: Case) -> Iterator[socket.socket]:
        """Send what there is of a request, and leave it so."""
        with self._world.connect(case.caller, self._path) as connection:
            wire.send(connection, case.raw)
            yield connection

    def judge(self, case: Case) -> str:
        """Return what is wrong with a case's outcome, '' for nothing."""
        try:
            return self._judge(case)
        except (AssertionError, KeyError, OSError, ValueError) as problem:
            # One case that can't be set up must not hide what is wrong with the others.
            return f"couldn't be judged: {type(problem).__name__}: {problem}"

    def _judge(self, case: Case) -> str:
        if not self._tap.shielded:
            self._world.set_knobs(case.knobs)
        filled = self._prepare(case)
        mark = self._tap.mark()
        with self._world.connect(case.caller, self._path) as connection:
            wire.send(connection, filled.raw)
            if case.incomplete:
                connection.shutdown(socket.SHUT_WR)
            answer = wire.read(connection, to_head=case.method == "HEAD")
        tapped = self._tap.since(mark)
        match case.expect:
            case "deny":
                wrong = self._deny(answer, tapped, filled)
            case "allow":
                wrong = self._allow(answer, tapped, filled)
            case "mutated":
                wrong = self._mutated(answer, tapped, filled)
        self._clean(filled, answer, tapped)
        return wrong

    # Before and after.

    def _prepare(self, case: Case) -> Case:
        """Make what the case speaks of, and return it with its tokens replaced."""
        world = self._world
        if "{{OWN" in case.text:
            self._have_own(_state_for(case))
        self._make_look_alike(case)
        if "{{REV_PINNED}}" in case.text:
            world.pin_revision()
        if "{{CONTENT" in case.text or "{{FILES_FOLDER}}" in case.text:
            world.deliver_files()
        self._make_services(case.group)
        for token in ("OWN_EXEC", "FOREIGN_EXEC", "PRIV_EXEC_OUTSIDE"):
            if f"{{{{{token}}}}}" in case.text:
                self._have_own("running")
                world.make_exec(token)
        if case.method == "DELETE" and "/networks/" in case.path:
            world.drop_own()  # a network that is in use can't be removed
        filled = Case.read(world.fill(case.text))
        if filled.permitted:
            for source in _bind_sources(filled.body):
                world.make_folder(source)
        return filled

    def _make_services(self, group: str) -> None:
        if group in ("job", "sharing"):
            self._world.make_runs()
        if group == "sharing":
            self._world.make_mates()

    def _make_look_alike(self, case: Case) -> None:
        # A gate that is to be found wrong passes everything on, or nothing: there is no need of it.
        if case.looks and not self._tap.shielded:
            looks = self._world.fill(json.dumps(case.looks))
            # A refused adoption leaves the container as it was: the next case can have it.
            if looks != self._looks:
                self._world.make_look_alike(json.loads(looks))
            self._looks = looks if case.expect == "deny" else ""

    def _have_own(self, state: str) -> None:
        if self._tap.shielded:
            state = "running"  # what doesn't reach the engine can't fail for a container's state
        if not self._world.own or self._state != state:
            self._world.renew_own(state)
            self._state = state

    def _clean(self, case: Case, answer: Answer, tapped: Sequence[Tapped]) -> None:
        """Remove what the case made, and forget what it changed."""
        world = self._world
        changing = [each for each in tapped if each.changes]
        if not changing or self._tap.shielded:
            return
        self._looks = ""
        made = answer.json if isinstance(answer.json, dict) else {}
        kind = case.path.rsplit("/", 2)[-2] if case.path.endswith("/create") else ""
        named = made.get("Name") if kind == "volumes" else made.get("Id")
        if kind in {"containers", "networks", "volumes"} and named:
            force = "?force=1" if kind == "containers" else ""
            world.ask("operator", "DELETE", f"/{kind}/{named}{force}")
        if any(world.own.encode() in each.raw for each in changing):
            world.drop_own()
        if case.method == "DELETE":
            world.renew_belongings()

    # Verdicts.

    def _deny(self, answer: Answer, tapped: Sequence[Tapped], case: Case) -> str:
        changing = [str(each) for each in tapped if each.changes]
        if changing:
            return f"reached the engine: {', '.join(changing)} (status {answer.status})"
        # An engine without a swarm answers 503 to requests about swarms, and so does the gate.
        if not 400 <= answer.status < 500 and answer.rule != "route.denied":
            return f"status {answer.status}: {answer.body[:200]!r}"
        if case.method == "HEAD":
            return ""  # there is no body to have the rule
        if not answer.rule:
            return f"status {answer.status} without a rule id: {answer.body[:200]!r}"
        if case.rule and answer.rule != case.rule and not self._tap.shielded:
            return f"refused by {answer.rule}, and not by {case.rule}: {answer.body[:300]!r}"
        return ""

    def _allow(self, answer: Answer, tapped: Sequence[Tapped], case: Case) -> str:
        if not answer.good:
            return f"status {answer.status}: {answer.body[:300].decode(errors='replace')}"
        request = self._request_of(tapped, case)
        if request is None and self._is_there(tapped, case):
            return ""
        if request is None:
            return f"never reached the engine: {', '.join(map(str, tapped))}"
        wrong = meant.query_differences(case.query, request)
        sent = _object(case)
        if sent:  # an empty object says nothing that could be lost
            image = self._world.config_of(str((request.json or {}).get("Image") or ""))
            wrong += meant.differences(sent, request, own=self._world.own, image=image)
        extra = [str(each) for each in tapped if each.changes and each is not request]
        wrong += [f"beside it reached the engine: {each}" for each in extra]
        return "; ".join(wrong)

    def _mutated(self, answer: Answer, tapped: Sequence[Tapped], case: Case) -> str:
        if not answer.good:
            return f"status {answer.status}: {answer.body[:300].decode(errors='replace')}"
        world, owner = self._world, "operator" if case.role == "operator" else "alice"
        tokens = world.tokens
        keys = ("FOREIGN", "FOREIGN_NAME", "NET_FOREIGN", "VOL_FOREIGN", "UNMANAGED")
        others = [tokens[key] for key in keys] if owner == "alice" else [tokens["UNMANAGED"]]
        others += [tokens["VOL_UNLABELLED"], tokens["NET_HOST_ID"]]
        outcome = words.Outcome(
            answer=answer,
            path=case.path,
            tapped=self._request_of(tapped, case),
            sent=_object(case),
            journal=self._journal() if "journal" in case.mutation else "",
            owner=owner,
            network=NETWORK,
            others=tuple(others),
            secrets=("hidden-of-",),
        )
        return "; ".join(words.failures(case.mutation, outcome))

    def _is_there(self, tapped: Sequence[Tapped], case: Case) -> bool:
        """Tell whether what a create asks for was there already: it is answered, and not made."""
        body = _object(case)
        name = body.get("Name") if isinstance(body, dict) else None
        looked = {("GET", f"/volumes/{name}")}
        asked = {(each.method, each.path) for each in tapped}
        return case.path.endswith("/volumes/create") and asked == looked

    def _request_of(self, tapped: Sequence[Tapped], case: Case) -> Tapped | None:
        """Return the request that stands for the case's own."""
        wanted = unquote(re.sub(r"^/v[0-9.]+(?=/)", "", case.path))
        fits = [
            each
            for each in tapped
            if each.method == ("GET" if case.method == "HEAD" else case.method)
            and (each.path == wanted or _by_id(wanted, each.path))
        ]
        return fits[-1] if fits else None

    def _journal(self) -> str:
        """Return all records, as they are on the disk."""
        segments = (self._world.gate.state / "broker" / "journal").glob("*.jsonl")
        return "".join(path.read_text() for path in sorted(segments))


def _by_surroundings(case: Case) -> tuple[object, ...]:
    """Return a case's place in an order in which policies and look-alikes change seldom."""
    return (case.knobs.settings, json.dumps(case.looks, sort_keys=True))


def _state_for(case: Case) -> str:
    """Return the state that the verb of a case's path needs."""
    found = re.search(r"/(?:containers|networks)/[^/]+/([a-z]+)$", case.path)
    return STATES.get(found[1], "running") if found else "running"


def _by_id(wanted: str, got: str) -> bool:
    """Tell whether two paths differ in their object alone, and it is a full id in the second."""
    found = re.fullmatch(r"(/[a-z]+/)(?:sha256:)?[0-9a-f]{64}(/[a-z]+)?", got)
    if found is None:
        return False
    before, after = found[1], found[2] or ""
    return wanted.startswith(before) and wanted.endswith(after)


def _object(case: Case) -> object:
    """Return the JSON object that the client meant, None without one."""
    body = case.sent_body
    if case.raw_b64:
        body = wire.dechunked(case.raw.partition(b"\r\n\r\n")[2]) or None
    try:
        return None if body is None else json.loads(body)
    except ValueError:
        return None


def _bind_sources(body: object) -> Iterator[str]:
    host = body.get("HostConfig") if isinstance(body, dict) else None
    if not isinstance(host, dict):
        return
    for bind in host.get("Binds") or ():
        yield str(bind).partition(":")[0]
    for mount in host.get("Mounts") or ():
        if isinstance(mount, dict) and mount.get("Type") == "bind":
            yield str(mount.get("Source", ""))


@contextmanager
def opened(engine: PrivateEngine | FoundEngine, cases: Iterable[Case]) -> Iterator[World]:
    """Have a world with what the cases speak of."""
    world = World(engine, [case.text for case in cases])
    try:
        yield world
    finally:
        world.close()


def judge_all(world: World, cases: Sequence[Case], against: Against) -> list[Judged]:
    """Judge the broker, or one of the gates that must be found wrong."""
    if against == "broker":
        return Court(world).judge_all(cases)
    # The gates that are found wrong know no policy, and the broker makes fixtures under this one.
    world.set_knobs(Knobs())
    with ExitStack() as stack:
        path = world.folder / f"{against}.sock"
        shielded = Tap(path, engine_host=world.engine.host, shielded=True)
        stack.callback(path.unlink)
        stack.callback(shielded.close)
        shielded.path.chmod(0o666)
        if against == "pass-through":
            return Court(world, path=path, tap=shielded).judge_all(cases)
        refuser = Refuser(world.folder / "refuser.sock")
        stack.callback(refuser.path.unlink)
        stack.callback(refuser.close)
        return Court(world, path=refuser.path, tap=shielded).judge_all(cases)


def report(judged: Sequence[Judged]) -> list[str]:
    """Return the lines to print."""
    lines = []
    for expect in EXPECTS:
        mine = [each for each in judged if each.case.expect == expect]
        right = sum(not each.wrong for each in mine)
        groups = dict.fromkeys(sorted(each.case.group for each in mine))
        parts = []
        for group in groups:
            some = [each for each in mine if each.case.group == group]
            parts.append(f"{group} {sum(not each.wrong for each in some)}/{len(some)}")
        lines.append(f"{expect:<8} {right}/{len(mine)}   {', '.join(parts)}")
    for each in judged:
        if each.wrong:
            case = each.case
            lines.append(f"wrong    {case.id} ({case.expect}: {case.reason}): {each.wrong}")
    lines.append(f"{len(judged)} cases, {sum(bool(each.wrong) for each in judged)} wrong")
    return lines


def wrong_ones(judged: Iterable[Judged]) -> list[Judged]:
    """Return those that are wrong."""
    return [each for each in judged if each.wrong]


def main(argv: Sequence[str]) -> int:
    """Judge a file's cases on an engine that is started for it."""
    parser = argparse.ArgumentParser(prog="gate-cases", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=CASES)
    parser.add_argument("--against", choices=["broker", "pass-through", "refuse-all"])
    parser.add_argument("--only", metavar="PATTERN", help="cases whose id matches")
    chosen = parser.parse_args(argv)
    cases = with_viewers(read_cases(chosen.file))
    cases = [case for case in cases if re.search(chosen.only or "", case.id)]
    if os.geteuid() != 0:
        print("gate-cases needs root: callers of other uids, and an engine of its own")
        return 1
    started = time.monotonic()
    engine = engines.open_engine()
    try:
        with opened(engine, cases) as world:
            judged = judge_all(world, cases, chosen.against or "broker")
    finally:
        engine.close()
    print(f"{time.monotonic() - started:.0f} s")
    print("\n".join(report(judged)))
    return 1 if wrong_ones(judged) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
