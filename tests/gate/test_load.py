"""A thousand connections that ask for what is refused, beside a controller at work (S10).

What is timed is in ``make bench ARGS=gate``; here is what must hold however slow the machine is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.app.state_folder import trimtab_gid
from controller.journal.store.reader import records
from controller.journal.verify.verify import verify
from tests.engine import FoundEngine, PrivateEngine
from tests.gate.fixtures import World
from tests.gate.load import Flood
from tests.gate.roles import ALICE, BOB

#: Two that are clients, and two of the group that are in nobody's list.
UIDS = (ALICE, BOB, 61011, 61012)
CONNECTIONS, EACH, SECONDS = 250, 1, 120
#: What the broker may grow by under a thousand connections.
GROWTH_KIB = 96 * 1024

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    with closing(World(engine, [])) as made:
        yield made


def memory_kib(world: World) -> int:
    """Return how much memory the broker has, and had at most since it began."""
    told = Path(f"/proc/{world.gate.pid}/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0])


def change_something(world: World) -> None:
    """Have the controller make and remove something, each a change of the engine."""
    name = "load-store"
    labels = {"io.trimtab.owner": "alice", "io.trimtab.namespace": "default"}
    world.must("controller", "POST", "/volumes/create", {"Name": name, "Labels": labels})
    world.must("operator", "DELETE", f"/volumes/{name}")


def counted_in_the_journal(journal: Path, *, after: int) -> Counter[str]:
    """Return how often the journal says that these uids were refused, by the leading rule."""
    found: Counter[str] = Counter()
    for record in records(journal, after=after):
        entry = record.entry
        if entry.actor.get("uid") not in UIDS:
            continue
        rules, counts = entry.verdict.get("rules"), entry.result.get("counts")
        if entry.stage == "refusal":
            assert isinstance(rules, list)
            found[str(rules[0])] += 1
        elif entry.stage == "summary":
            assert isinstance(counts, dict)
            found.update(counts)
    return found


def test_every_refusal_of_a_flood_is_counted_and_the_controller_goes_on(world: World) -> None:
    health = world.must("operator", "GET", "/trimtab/v1/health")
    before = health["journal"]["seq"]
    change_something(world)
    memory = memory_kib(world)
    flood = Flood(
        world.gate.socket,
        UIDS,
        group=trimtab_gid(),
        connections=CONNECTIONS,
        each=EACH,
        seconds=SECONDS,
    )
    with closing(flood):
        changes = 0
        while not flood.over:
            change_something(world)
            changes += 1
        told = flood.wait()
    assert changes > 0
    by_rule = Counter[str]()
    for answer, count in told.answers.items():
        by_rule[answer.partition(" ")[2]] += count
    turned_away = by_rule.pop("broker.busy", 0)
    # A connection over its uid's limit can be closed before its request arrives: no 503 then.
    turned_away += told.broken
    assert told.refused + turned_away == len(UIDS) * CONNECTIONS * EACH
    journal = world.gate.state / "broker" / "journal"
    assert counted_in_the_journal(journal, after=before) == by_rule
    verified = verify(journal)
    assert (verified.ok, verified.open_intents) == (True, ())
    assert memory_kib(world) - memory < GROWTH_KIB
    health = world.must("operator", "GET", "/trimtab/v1/health")
    assert health["journal"]["unrecordedRefusals"] == 0, json.dumps(health)
