"""A differential fuzz of the gate: ``python -m tests.gate.fuzz [--inputs N | --minutes N]``.

Requests are drawn from a seed, spelled in one of many ways, and sent through the broker to a real
engine. What is admitted must leave the engine exactly as predicted from the meaning; what says
something wrong must be refused and reach nobody. An input that fails is told with the arguments
that replay it alone: ``--seed S --input K``.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPResponse
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from controller.model import names
from controller.model.mutations import Mutation
from tests import engine as engines
from tests.gate import meanings, predictions, wire
from tests.gate.fixtures import CONTEXT, IMAGE, World, controller_labels
from tests.gate.meanings import Asked, Stage
from tests.gate.tap import Tapped
from tests.gate.wire import Answer

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

WORKERS = 4
SOURCE = "/tmp/policy-x"
REVISION = "v2:" + "5a" * 32
ANSWER_S = 60.0
SETTLE_S = 3.0
T = TypeVar("T")
TROUBLE = "the engine's own: "
#: What an engine answers when the machine is too slow for it, and to nothing that a request says.
TROUBLES = (b"unable to freeze",)
FAILURES_MAX = 20
#: A line is printed each time that so many were drawn.
PROGRESS = 5000


class Line:
    """A caller's connection that is kept, and made anew when the other side ends it."""

    def __init__(self, connect: Callable[[], socket]) -> None:
        self._connect = connect
        self._socket: socket | None = None

    def ask(self, raw: bytes, method: str) -> Answer:
        """Send a request and read its whole answer."""
        if self._socket is None:
            self._socket = self._connect()
            self._socket.settimeout(ANSWER_S)
        with suppress(OSError):  # refused while it was sent: the answer is there all the same
            self._socket.sendall(raw)
        response = HTTPResponse(self._socket, method=method)
        response.begin()
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            self.close()
        return Answer(response.status, body, headers)

    def close(self) -> None:
        """End it; the next request gets another one."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


@dataclass(slots=True)
class Tally:
    """What came of the inputs, by route."""

    admitted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    #: Admitted, and the engine couldn't: its own trouble, so that nothing was to be seen.
    troubles: list[tuple[int, str]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    prepared: int = 0  # mutations that prepared for inputs, through the broker
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def inputs(self) -> int:
        """All of them."""
        return (
            self.admitted.total() + self.refused.total() + len(self.failures) + len(self.troubles)
        )

    def note(self, asked: Asked, wrong: str, took_s: float) -> None:
        """Count an input."""
        with self.lock:
            self.seconds[asked.route] += took_s
            if wrong.startswith(TROUBLE):
                self.troubles.append((asked.number, wrong))
            elif wrong:
                self.failures.append((asked.number, f"{asked.route}: {wrong}"))
            else:
                (self.refused if asked.wrong else self.admitted)[asked.route] += 1


class Worker:
    """One of several that send inputs at the same time, each about objects of its own."""

    def __init__(self, world: World, tally: Tally) -> None:
        self._world = world
        self._tally = tally
        self._engine = Line(self._to_engine)
        self._lines = {who: self._line(who) for who in ("alice", "operator", "controller")}
        self.tag = f"fz{next(SERIAL)}-"  # nobody else's in this process, whatever the world
        self._made = ""  # the id of what was made for an input
        self._stage = self._make_stage()
        self._plain = self._plain_things()

    def _to_engine(self) -> socket:
        made = socket(AF_UNIX, SOCK_STREAM)
        made.connect(str(self._world.engine.socket))
        return made

    def _line(self, who: str) -> Line:
        return Line(partial(self._world.connect, who))

    def close(self) -> None:
        """End its connections."""
        for line in (self._engine, *self._lines.values()):
            line.close()

    # Asking.

    def _look(self, path: str) -> Any:
        """Return what the engine shows, None where there is nothing."""
        answer = self._engine.ask(wire.request("GET", f"/v1.45{path}".encode()), "GET")
        assert answer.status in {200, 404}, f"{path}: {answer}"
        return answer.json if answer.status == 200 else None

    def _meddle(self, method: str, path: str, body: object = None) -> None:
        """Change something at the engine, past the broker."""
        raw = None if body is None else json.dumps(body).encode()
        answer = self._engine.ask(wire.request(method, f"/v1.45{path}".encode(), raw), method)
        assert answer.good or answer.status == 304, f"{method} {path}: {answer}"

    def _must(self, who: str, method: str, path: str, body: object = None) -> Any:
        """Change something through the broker, for an input to come."""
        raw = None if body is None else json.dumps(body).encode()
        headers: dict[str, str | None] = {"Trimtab-Context": CONTEXT} if who == "controller" else {}
        request = wire.request(method, f"/v1.45{path}".encode(), raw, headers)
        answer = self._lines[who].ask(request, method)
        assert answer.good, f"{who}: {method} {path}: {answer}"
        with self._tally.lock:
            self._tally.prepared += 1
        return answer.json

    def _container(self, name: str, **host: object) -> str:
        body = {"Image": IMAGE, "Labels": {names.SERVICE: "web"}, "HostConfig": host}
        return str(self._must("alice", "POST", f"/containers/create?name={name}", body)["Id"])

    def _slot(self, service: str) -> str:
        """Have the controller make a service's container."""
        labels = controller_labels(service, slot=1, revision=REVISION, image=IMAGE)
        name = names.container_name("pins", service, slot=1, revision=REVISION)
        body = {"Image": IMAGE, "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
        return str(self._must("controller", "POST", f"/containers/create?name={name}", body)["Id"])

    def _make_stage(self) -> Stage:
        networks = (f"{self.tag}left", f"{self.tag}right")
        for name in networks:
            self._must("alice", "POST", "/networks/create", {"Name": name})
        runners = {
            verb: self._container(f"{self.tag}to-{verb}", NetworkMode="none")
            for verb in ("start", "stop", "restart", "kill", "pause")
        }
        return Stage(
            tag=self.tag,
            loose=self._container(f"{self.tag}loose", NetworkMode="alice-isle"),
            runners={verb: runners[verb.removeprefix("un")] for verb in (*runners, "unpause")},
            networks=networks,
            source=SOURCE,
            volume=self._world.tokens["VOL_OWN"],
            cpus=len(os.sched_getaffinity(0)),
        )

    def _plain_things(self) -> dict[str, Any]:
        """Return how the engine shows what asks for nothing."""
        found: dict[str, Any] = {}
        made = self._container(f"{self.tag}plain", NetworkMode="none")
        found["container"] = predictions.container(self._look(f"/containers/{made}/json"))
        self._must("alice", "DELETE", f"/containers/{made}")
        found["image"] = self._look(f"/images/{IMAGE}/json")["Config"]
        found["network"] = predictions.network(self._look(f"/networks/{self.tag}left"))
        self._must("alice", "POST", "/volumes/create", {"Name": f"{self.tag}plain"})
        found["volume"] = predictions.volume(self._look(f"/volumes/{self.tag}plain"))
        self._must("alice", "DELETE", f"/volumes/{self.tag}plain")
        return found

    # Judging.

    def run(self, seed: int, number: int) -> None:
        """Send input *number* and count what came of it."""
        asked = meanings.draw(seed, number, self._stage)
        began = time.monotonic()
        try:
            wrong = self._judge(asked)
        except (
            AssertionError,
            LookupError,
            OSError,
            TypeError,
            ValueError,
            http.client.HTTPException,
        ) as problem:
            self._lines[asked.who].close()
            wrong = f"{type(problem).__name__}: {problem}"
        if wrong:
            wrong += f"\n    meant to be {'refused: ' + asked.wrong if asked.wrong else 'admitted'}: {asked.raw!r}"
        self._tally.note(asked, wrong, time.monotonic() - began)

    def _judge(self, asked: Asked) -> str:
        self._prepare(asked)
        if asked.route == Mutation.CONTAINER_RELEASE:
            asked = meanings.of_container(asked, self._made)
        before = self._before(asked)
        # A pull names nothing of a worker's own: one at a time, so that it is told whose it was.
        with PULLING if _is_pull_route(asked) else nullcontext():
            mark = self._world.tap.mark()
            answer = self._lines[asked.who].ask(asked.raw, asked.method)
            mine = [each for each in self._world.tap.since(mark) if self._is_mine(each)]
        try:
            if asked.wrong:
                return _refused(answer, mine)
            if answer.status == 500 and (words := _trouble(answer.body)):
                return self._sent(asked, mine) or f"{TROUBLE}{words}"
            if not (answer.good or answer.status == 304):
                return f"refused: {answer.status} {answer.body!r}"
            return self._sent(asked, mine) or self._as_predicted(asked, before, answer)
        finally:
            self._clean(asked)

    def _is_mine(self, tapped: Tapped) -> bool:
        mine = (self.tag, self._stage.loose, *self._runners, *filter(None, [self._made]))
        pulls = tapped.path == "/images/create"
        return tapped.changes and (pulls or any(each.encode() in tapped.raw for each in mine))

    @property
    def _runners(self) -> Sequence[str]:
        return tuple(self._stage.runners.values())

    def _prepare(self, asked: Asked) -> None:
        match asked.route:
            case Mutation.CONTAINER_REMOVE:
                self._made = self._container(asked.about, NetworkMode="none")
            case Mutation.CONTAINER_RELEASE:
                self._made = self._slot(asked.about)
                self._put_into(self._made, asked.state)
                return
            case Mutation.NETWORK_REMOVE:
                made = self._must("alice", "POST", "/networks/create", {"Name": asked.about})
                self._made = str(made["Id"])
            case Mutation.VOLUME_REMOVE:
                self._must("alice", "POST", "/volumes/create", {"Name": asked.about})
            case _:
                pass
        if asked.state in {"apart", "joined"}:
            self._connect(asked.about, joined=asked.state == "joined")
        elif asked.state:
            self._put_into(asked.about, asked.state)

    def _connect(self, network: str, *, joined: bool) -> None:
        told = self._look(f"/containers/{self._stage.loose}/json")
        if (network in told["NetworkSettings"]["Networks"]) != joined:
            verb = "connect" if joined else "disconnect"
            self._meddle("POST", f"/networks/{network}/{verb}", {"Container": self._stage.loose})

    def _put_into(self, container: str, state: str) -> None:
        path = f"/containers/{container}"
        now = self._look(f"{path}/json")["State"]
        if now["Paused"] and state != "paused":
            self._meddle("POST", f"{path}/unpause")
        if now["Running"] and state == "stopped":
            self._meddle("POST", f"{path}/kill")
            self._meddle("POST", f"{path}/wait")
        elif not now["Running"] and state != "stopped":
            self._meddle("POST", f"{path}/start")
        if state == "paused" and not now["Paused"]:
            self._meddle("POST", f"{path}/pause")
        # The engine hears of it from below, a moment later.
        wanted = {"Running": state != "stopped", "Paused": state == "paused"}
        _settled(wanted, lambda: predictions.container(self._look(f"{path}/json"))["State"])

    def _before(self, asked: Asked) -> Any:
        container = {
            Mutation.CONTAINER_RELEASE: self._made,
            Mutation.NETWORK_CONNECT: self._stage.loose,
            Mutation.NETWORK_DISCONNECT: self._stage.loose,
        }.get(Mutation(asked.route), asked.about)
        mine = container in {self._stage.loose, *self._runners}
        if mine or asked.route == Mutation.CONTAINER_RELEASE:
            return predictions.container(self._look(f"/containers/{container}/json"))
        return None

    def _sent(self, asked: Asked, mine: Sequence[Tapped]) -> str:
        """Tell whether other than the one request reached the engine's side, or with another query."""
        own = [each for each in mine if each.method == asked.method and not _is_pull(each, asked)]
        if _is_pull_route(asked):
            own = [each for each in mine if each.path == "/images/create"]
        if len(own) != 1:
            return f"{len(own)} mutations reached the engine: {', '.join(map(str, own))}"
        expected = predictions.sent_query(asked)
        got = dict(parse_qsl(own[0].query, keep_blank_values=True))
        return "" if got == expected else f"the query was {got}, not {expected}"

    def _as_predicted(self, asked: Asked, before: Any, answer: Answer) -> str:
        def wrong() -> str:
            return difference(*self._expected_and_shown(asked, before, answer))

        return _settled("", wrong) if asked.about in self._runners else wrong()

    def _expected_and_shown(self, asked: Asked, before: Any, answer: Answer) -> tuple[Any, Any]:
        match asked.route:
            case Mutation.CONTAINER_CREATE:
                identifier = str(answer.json["Id"])
                expected = predictions.created(
                    asked,
                    self._plain["container"],
                    identifier=identifier,
                    image=self._plain["image"],
                    cpus=self._stage.cpus,
                )
                return expected, predictions.container(self._look(f"/containers/{identifier}/json"))
            case Mutation.NETWORK_CREATE:
                shown = predictions.network(self._look(f"/networks/{asked.about}"))
                return predictions.network_made(asked, self._plain["network"]), shown
            case Mutation.VOLUME_CREATE:
                shown = predictions.volume(self._look(f"/volumes/{asked.about}"))
                return predictions.volume_made(asked, self._plain["volume"]), shown
            case Mutation.CONTAINER_REMOVE:
                return None, self._look(f"/containers/{asked.about}/json")
            case Mutation.NETWORK_REMOVE:
                return None, self._look(f"/networks/{asked.about}")
            case Mutation.VOLUME_REMOVE:
                return None, self._look(f"/volumes/{asked.about}")
            case Mutation.IMAGE_PULL:
                return None, None
            case _:
                pass
        expect = AFTER[asked.route]
        container = asked.about if asked.about in self._runners else self._stage.loose
        if asked.route == Mutation.CONTAINER_RELEASE:
            container = self._made
        shown = predictions.container(self._look(f"/containers/{container}/json"))
        return expect(asked, before), shown

    def _clean(self, asked: Asked) -> None:
        """Remove what is left of an input's own object."""
        if asked.about in {"", self._stage.loose, *self._runners, *self._stage.networks}:
            return
        if asked.route == Mutation.CONTAINER_RELEASE:  # the engine's alone, if it was released
            self._meddle("DELETE", f"/containers/{self._made}?force=1")
            return
        kind = asked.route.partition(".")[0] + "s"
        suffix = "/json" if kind == "containers" else ""
        if self._look(f"/{kind}/{asked.about}{suffix}") is not None:
            self._must("alice", "DELETE", f"/{kind}/{asked.about}")


def _settled(wanted: T, look: Callable[[], T]) -> T:
    """Return what is seen once it is as wanted, or at last."""
    end = time.monotonic() + SETTLE_S
    while (seen := look()) != wanted and time.monotonic() < end:
        pass  # each look takes a while
    return seen


def _trouble(body: bytes) -> str:
    return next((each.decode() for each in TROUBLES if each in body), "")


def _is_pull_route(asked: Asked) -> bool:
    return asked.route == Mutation.IMAGE_PULL


def _is_pull(tapped: Tapped, asked: Asked) -> bool:
    return tapped.path == "/images/create" and not _is_pull_route(asked)


def _refused(answer: Answer, mine: Sequence[Tapped]) -> str:
    reached = [each for each in mine if each.path != "/images/create"]
    if reached:
        return f"reached the engine: {', '.join(map(str, reached))}"
    if not 400 <= answer.status < 500:
        return f"not refused: {answer.status} {answer.body[:300]!r}"
    if not answer.headers.get("trimtab-rule"):
        return f"refused without a rule: {answer.status} {answer.body[:300]!r}"
    return ""


#: What containers that live on look like after an input.
AFTER: dict[str, Callable[[Asked, Any], Any]] = {
    Mutation.CONTAINER_START: predictions.after_signal,
    Mutation.CONTAINER_STOP: predictions.after_signal,
    Mutation.CONTAINER_RESTART: predictions.after_signal,
    Mutation.CONTAINER_KILL: predictions.after_signal,
    Mutation.CONTAINER_PAUSE: predictions.after_signal,
    Mutation.CONTAINER_UNPAUSE: predictions.after_signal,
    Mutation.CONTAINER_RENAME: predictions.renamed,
    Mutation.CONTAINER_UPDATE: predictions.updated,
    Mutation.CONTAINER_RELEASE: predictions.released,
    Mutation.NETWORK_CONNECT: predictions.connected,
    Mutation.NETWORK_DISCONNECT: predictions.disconnected,
}
SERIAL = itertools.count()
PULLING = threading.Lock()


def difference(expected: Any, shown: Any, path: str = "") -> str:
    """Return where two values differ, '' for nowhere."""
    if isinstance(expected, dict) and isinstance(shown, dict):
        parts = [
            difference(expected.get(key), shown.get(key), f"{path}.{key}")
            for key in sorted({*expected, *shown})
        ]
        return "; ".join(part for part in parts if part)
    return "" if expected == shown else f"{path or 'it'} is {shown!r}, not {expected!r}"


def run(
    world: World,
    *,
    seed: int,
    numbers: Iterator[int],
    enough: Callable[[Tally], bool] = lambda _tally: False,
    workers: int = WORKERS,
) -> Tally:
    """Send inputs until it is enough or there are no more, and tell what came of them."""
    tally = Tally()
    mark = world.tap.mark()
    staff = [Worker(world, tally) for _ in range(workers)]
    taking = threading.Lock()

    def work(worker: Worker) -> None:
        while True:
            with taking:
                number = next(numbers, None)
                if number and number % PROGRESS == 0:
                    print(f"{tally.inputs} inputs, {len(tally.failures)} wrong", flush=True)
            if number is None or enough(tally) or len(tally.failures) > FAILURES_MAX:
                return
            worker.run(seed, number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in staff]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in staff:
        worker.close()
    changing = sum(each.changes for each in world.tap.since(mark))
    expected = tally.admitted.total() + tally.prepared + len(tally.troubles)
    if not tally.failures and changing != expected:
        tally.failures.append((-1, f"{changing} mutations reached the engine, not {expected}"))
    return tally


@contextmanager
def opened(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    """Have a world for the fuzz."""
    world = World(engine, [])
    try:
        yield world
    finally:
        world.close()


def enough_of(inputs: int, minutes: float | None) -> Callable[[Tally], bool]:
    """Return what tells that so many inputs were admitted, or that the time is up."""
    end = time.monotonic() + (minutes or 0) * 60

    def enough(tally: Tally) -> bool:
        if minutes is not None:
            return time.monotonic() >= end
        return tally.admitted.total() >= inputs

    return enough


def report(tally: Tally, *, seed: int, took_s: float) -> list[str]:
    """Return the lines to print."""
    lines = [f"{'route':<20} {'admitted':>8} {'refused':>8} {'ms each':>8}"]
    for route in meanings.MAKERS:
        counts = tally.admitted[route], tally.refused[route]
        each_ms = 1000 * tally.seconds[route] / max(1, sum(counts))
        lines.append(f"{route:<20} {counts[0]:>8} {counts[1]:>8} {each_ms:>8.0f}")
    lines += [f"trouble: input {number}: {why}" for number, why in tally.troubles]
    lines += [f"wrong: --seed {seed} --input {number}: {why}" for number, why in tally.failures]
    lines.append(
        f"seed {seed}: {tally.admitted.total()} admitted, {tally.refused.total()} refused, "
        f"{len(tally.failures)} wrong, {took_s:.0f} s"
    )
    return lines


def main(argv: Sequence[str]) -> int:
    """Fuzz on an engine that is started for it."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=1500, help="until so many were admitted (default 1500)"
    )
    parser.add_argument("--minutes", type=float, help="send for so long instead")
    parser.add_argument("--seed", type=int, help="the seed (default: another one each time)")
    parser.add_argument(
        "--input", type=int, metavar="K", help="replay this input of the seed alone"
    )
    chosen = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("the fuzz needs root: callers of other uids, and an engine of its own")
        return 1
    seed = chosen.seed if chosen.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    alone = chosen.input is not None
    numbers = iter([chosen.input]) if alone else itertools.count()
    engine = engines.open_engine()
    try:
        with opened(engine) as world:
            started = time.monotonic()
            tally = run(
                world,
                seed=seed,
                numbers=numbers,
                enough=enough_of(chosen.inputs, chosen.minutes),
                workers=1 if alone else WORKERS,
            )
            took_s = time.monotonic() - started
    finally:
        engine.close()
    print("\n".join(report(tally, seed=seed, took_s=took_s)))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
