"""A client that takes as much as it can: its quotas and its shares end it, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from controller.model import names
from tests.gate.fixtures import IMAGE, Knobs, World

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [IMAGE])
    try:
        yield made
    finally:
        made.close()


def quotas(**settings: object) -> Knobs:
    return Knobs(tuple((f"quotas.{key}", json.dumps(value)) for key, value in settings.items()))


def test_a_client_leaves_addresses_to_everybody_else(world: World) -> None:
    world.set_knobs(quotas(networksPerOwner=8))
    made = []
    for number in range(40):
        answer = world.ask("alice", "POST", "/networks/create", {"Name": f"alice-n{number}"})
        if answer.status != 201:
            break
        made.append(f"alice-n{number}")
    assert (answer.status, answer.rule) == (403, "quota.networks")
    assert len(made) == 7, "one is of the fixtures, and networks of the namespace are nobody's"
    for who, name, labels in (
        ("bob", "bob-new", {}),
        ("controller", "shop.net", {names.OWNER: "shop", names.NAMESPACE: "shop"}),
        ("operator", "hosts-own", {}),
    ):
        body = {"Name": name, "Internal": True, "Labels": labels}
        assert world.must(who, "POST", "/networks/create", body)["Id"]
        made.append(name)
    for name in made:
        world.must("operator", "DELETE", f"/networks/{name}")
    world.set_knobs(Knobs())


def test_a_client_cannot_fill_the_journal(world: World) -> None:
    world.renew_own("created")
    taken = {
        "Image": IMAGE,
        "Env": [f"{'N' * 110}{number:03}=v" for number in range(511)],  # and the image's
        "HostConfig": {"NetworkMode": "none"},
    }
    world.set_knobs(quotas(journalPerDay="1Mi"))
    try:
        statuses = []
        for _ in range(60):
            answer = world.ask("alice", "POST", "/containers/create?name=alice-web-1", taken)
            statuses.append(answer.status)
            if answer.status == 429:
                break
        assert answer.rule == "client.journal"
        assert int(answer.headers["retry-after"]) >= 1
        # A record of such a create has about 36 KB.
        assert 20 < statuses.count(409) < 40
        assert world.ask("alice", "GET", "/containers/json").status == 200
        assert world.ask("bob", "POST", "/volumes/create", {"Name": "bob-more"}).status == 201
    finally:
        world.set_knobs(Knobs())
    world.must("bob", "DELETE", "/volumes/bob-more")


def test_a_client_that_hammers_is_told_to_wait(world: World) -> None:
    world.set_knobs(quotas(mutationsPerSecond=1))
    try:
        statuses = [
            world.ask("alice", "DELETE", f"/volumes/none-{number}").status for number in range(80)
        ]
        answer = world.ask("alice", "DELETE", "/volumes/none")
        assert (answer.status, answer.rule) == (429, "client.mutations")
        assert 50 <= statuses.count(404) < 70
        assert world.ask("bob", "DELETE", "/volumes/none").status == 404
        assert world.ask("operator", "DELETE", "/volumes/none").status == 404
    finally:
        world.set_knobs(Knobs())
