"""All states that what happens to repositories leads to, at once, of an instance beside a real engine.

Each row has a Source, a repository, a namespace and a service of its own.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from controller.cli.clients.socket_client import ask_controller
from tests.disk import MIB, small_disk
from tests.git.happenings import MESSAGES, beside_engine
from tests.git.places import COMMON, Happening, Place, open_place, surroundings_beside
from tests.git.servers import FaultyServer, NginxServer
from tests.instance import LABEL, Host, eventually

pytestmark = pytest.mark.needs_root

#: Git commands that prepare repositories side by side.
HANDS = 4
SYNC_S = 60.0
#: How often a server that is down is asked.
OUTAGE_FETCHES = 6
#: The code of the problem of a source's state.
CODES = {"Ready": "", "Degraded": "", "Held": "SourceHeld", "Failing": "SourceFailing"}


@dataclass
class Watched:
    """A source of the table, with what is expected of it."""

    row: str
    name: str
    namespace: str
    place: Place
    #: The state and the reason that are to be reached, and the commit to be served; '' for any.
    outcome: str = "Ready"
    commit: str = ""
    #: The container that ran before the happening.
    container: str = ""

    @property
    def happening(self) -> Happening:
        return self.place.happening

    def happen(self) -> None:
        newest = self.happening.happen(self.place)
        self.outcome = self.happening.shown
        self.commit = str(newest) if self.happening.moves else self.place.served

    def recover(self) -> None:
        """End what ails the server; its newest commit is to be served then."""
        match self.place.server:
            case FaultyServer() as faulty:
                faulty.fail(None)
            case NginxServer() as nginx if self.row == "the server is down":
                nginx.start()
            case _:
                return
        self.outcome, self.commit = "Ready", self.place.head


class Instance:
    """The host with its sources, and looks at both."""

    def __init__(self, host: Host, sources: list[Watched]) -> None:
        self.host = host
        self.sources = sources

    def sync(self, name: str) -> dict[str, Any]:
        """Fetch a source now, as ``trimtab source sync`` does."""
        socket = self.host.state / "run" / "fetch.sock"
        return dict(ask_controller(socket, {"do": "sync", "name": name}, timeout_s=SYNC_S))

    def sync_all(self) -> None:
        with ThreadPoolExecutor(HANDS) as hands:
            list(hands.map(self.sync, (each.name for each in self.sources)))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the sources of ``status --json``, by name."""
        status = self.host.status() or {}
        return {row["name"]: row for row in status.get("sources", [])}

    def await_outcomes(self) -> None:
        """Wait until the status shows each source as it is to be."""
        try:
            eventually(lambda: not self._others(), what="each source reached its outcome")
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self._others())) from error

    def _others(self) -> list[str]:
        rows = self.rows()
        found = []
        for each in self.sources:
            row = rows.get(each.name, {"state": "", "reason": "", "commit": "", "message": ""})
            outcome = f"{row['state']} {row['reason']}".strip()
            if outcome != each.outcome or each.commit not in ("", row["commit"]):
                found.append(f"{each.row}: {outcome} {row['commit']}: {row['message']}")
        return found

    def containers(self) -> dict[str, list[dict[str, Any]]]:
        """Return the containers, by namespace."""
        found: dict[str, list[dict[str, Any]]] = {}
        for each in self.host.containers():
            found.setdefault(each["Config"]["Labels"][f"{LABEL}.namespace"], []).append(each)
        return found

    def row_of(self, name: str) -> str:
        """Return the row of the table that a source is for."""
        return next(each.row for each in self.sources if each.name == name)

    def problems(self, name: str) -> dict[str, str]:
        """Return the messages of the problems of a Source and its documents, by code."""
        status = self.host.status() or {"problems": []}
        return {
            each["code"]: each["message"]
            for each in status["problems"]
            if each["file"] == f"{name}.yaml" or each["file"].startswith(f"{name}:")
        }


@contextmanager
def opened(host: Host, table: dict[str, Happening]) -> Iterator[Instance]:
    """Make a repository and a Source for each row."""
    mark = secrets.token_hex(3)
    with ExitStack() as stack, ThreadPoolExecutor(HANDS) as hands:

        def make(number: int, row: str) -> Watched:
            name, namespace = f"h{number:02}-{mark}", f"h{number:02}"
            around = stack.enter_context(surroundings_beside(host, name, namespace=namespace))
            place = stack.enter_context(open_place(table[row], around))
            return Watched(row, name, namespace, place)

        sources = list(hands.map(make, range(len(table)), table))
        for each in sources:
            host.write(f"{each.name}.yaml", each.place.source_document(each.name))
        yield Instance(host, sources)


class Laps:
    """The seconds that each part of a test took."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.lines: list[str] = []

    def note(self, part: str) -> None:
        now = time.monotonic()
        self.lines.append(f"{part:<40} {now - self._last:5.1f} s")
        self._last = now


def only_id(containers: list[dict[str, Any]]) -> str:
    """Return the id of the only container, which runs."""
    (one,) = containers
    assert one["State"]["Status"] == "running", one["State"]
    return str(one["Id"])


def as_it_was(container: dict[str, Any]) -> tuple[str, ...]:
    """Return what a stop, a start or a replacement changes of a container."""
    state = container["State"]
    return container["Id"], state["Status"], state["StartedAt"], str(container["RestartCount"])


def await_replacements(instance: Instance) -> None:
    """Wait until a new container runs alone wherever the table says so."""
    replaced = [each for each in instance.sources if each.happening.replaces]

    def are_replaced() -> bool:
        now = instance.containers()
        ids = {each.namespace: [c["Id"] for c in now[each.namespace]] for each in replaced}
        return all(
            len(ids[each.namespace]) == 1 and each.container not in ids[each.namespace]
            for each in replaced
        )

    eventually(are_replaced, what="the newer commits run")


def raise_if_disturbed(instance: Instance, before: dict[str, list[dict[str, Any]]]) -> None:
    """Compare all containers with those before the happenings.

    Raises:
        AssertionError: one isn't as the table says.
    """
    replaced = {each.namespace: each for each in instance.sources if each.happening.replaces}
    now = instance.containers()
    assert now.keys() == before.keys()
    for namespace, containers in now.items():
        if namespace in replaced:
            each = replaced[namespace]
            assert only_id(containers) != each.container, each.row
            assert "VERSION=2" in containers[0]["Config"]["Env"], each.row
        else:
            assert [as_it_was(c) for c in containers] == [
                as_it_was(c) for c in before[namespace]
            ], namespace


def raise_if_misreported(instance: Instance) -> list[str]:
    """Compare the status of each source with the table; return a line for each.

    Raises:
        AssertionError: a message or a problem isn't as the table says.
    """
    lines = []
    rows = instance.rows()
    for each in instance.sources:
        row, happening = rows[each.name], each.happening
        reason = each.outcome.partition(" ")[2]
        message = f"{each.row}: {row['message']}"
        expected_message = MESSAGES.get(reason or happening.problem, "^.*: $")
        assert re.search(expected_message, message), message
        problems = instance.problems(each.name)
        expected = {code for code in (CODES[row["state"]], happening.problem) if code}
        assert problems.keys() == expected, f"{each.row}: {problems}"
        if happening.problem:
            assert re.search(MESSAGES[happening.problem], problems[happening.problem])
        became = "replaced" if happening.replaces else "goes on"
        lines.append(f"{each.row:<48} {each.outcome:<32} {happening.problem:<16} {became}")
    return lines


@pytest.mark.timeout(300)
def test_whatever_happens_to_repositories_what_runs_goes_on(
    host: Host, record_property: Callable[[str, object], None]
) -> None:
    laps = Laps()
    with opened(host, beside_engine()) as instance:
        laps.note("repositories")
        host.up()
        instance.await_outcomes()
        host.await_ready(within_s=120)
        served, before = instance.rows(), instance.containers()
        for each in instance.sources:
            each.place.served = served[each.name]["commit"]
            each.container = only_id(before[each.namespace])
        laps.note("converged")
        with ThreadPoolExecutor(HANDS) as hands:
            list(hands.map(Watched.happen, instance.sources))
        laps.note("everything happened")
        instance.sync_all()
        instance.await_outcomes()
        await_replacements(instance)
        record_property("what happens to repositories", raise_if_misreported(instance))
        raise_if_disturbed(instance, before)
        laps.note("outcomes")
        survive_an_outage(instance)
        survive_a_kill(instance)
        raise_if_disturbed(instance, before)
        laps.note("an outage, and a killed fetcher")
        common = host.resource("common", namespace=COMMON)["source"]["name"]
        assert instance.row_of(common) == "nothing happens"
        assert host.stop() == 0
    assert "Traceback" not in host.said()
    record_property("seconds", laps.lines)


def survive_an_outage(instance: Instance) -> None:
    """Try again and again to fetch from a server that is down."""
    (down,) = (each for each in instance.sources if each.row == "the server is down")
    failures = [instance.sync(down.name)["source"]["failures"] for _ in range(OUTAGE_FETCHES)]
    assert failures == sorted(set(failures)), "each fetch fails"
    instance.await_outcomes()


def survive_a_kill(instance: Instance) -> None:
    """Kill the fetcher, and end what ails the servers; all sources are then fetched again."""
    for each in instance.sources:
        each.recover()
    fetched = {name: row["lastFetch"] for name, row in instance.rows().items()}
    os.kill(instance.host.pid_of("fetcher"), signal.SIGKILL)

    def is_fetched_again() -> bool:
        return all(row["lastFetch"] != fetched[name] for name, row in instance.rows().items())

    eventually(is_fetched_again, what="each source is fetched again")
    instance.await_outcomes()
    raise_if_misreported(instance)


def fill(place: Place) -> str:
    """Commit a change, with a file that doesn't fit."""
    big = os.urandom(7 * MIB)
    return place.commit({"deploy/web.yaml": place.document(version=2), "deploy/big.bin": big})


@pytest.mark.timeout(180)
def test_a_full_disk_keeps_what_runs(host: Host) -> None:
    row = {"the disk is full": Happening(fill, moves=True, replaces=True)}
    host.state.mkdir()
    image = host.folder / "image"
    with small_disk(host.state / "fetcher", image=image, mib=64) as disk, opened(host, row) as it:
        host.up()
        it.await_outcomes()
        host.await_ready("web")
        before = it.containers()
        (source,) = it.sources
        source.container = only_id(before[source.namespace])
        source.commit = it.rows()[source.name]["commit"]
        newest = source.happening.happen(source.place)
        source.outcome = "Failing source.disk-full"
        for free in (2 * MIB, 8 * MIB):  # too little for the fetch, then for the export alone
            disk.leave(free)
            it.sync(source.name)
            it.await_outcomes()
            assert it.containers() == before
            disk.free()
        source.outcome, source.commit = "Ready", str(newest)
        it.sync(source.name)
        it.await_outcomes()
        await_replacements(it)
        raise_if_disturbed(it, before)
        assert host.stop() == 0
