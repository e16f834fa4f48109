"""Two owners on one network: what one's container answers to, the other's can't take over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from controller.model import names
from tests.gate.fixtures import IMAGE, World
from tests.gate.wire import Answer
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
SHARED = "platform-network"
BOBS = "bob-desk"


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        made.must(
            "bob",
            "POST",
            f"/containers/create?name={BOBS}",
            {
                "Image": IMAGE,
                "Hostname": "bob-host",
                "Labels": {names.SERVICE: "ledger"},
                "NetworkingConfig": {"EndpointsConfig": {SHARED: {"Aliases": ["ledger"]}}},
                "HostConfig": {"NetworkMode": SHARED},
            },
        )
        made.must("bob", "POST", f"/containers/{BOBS}/start")
        yield made
    finally:
        made.close()


def create(world: World, who: str, name: str, **more: Any) -> Answer:
    mode = {"HostConfig": {"NetworkMode": SHARED}}
    return world.ask(who, "POST", f"/containers/create?name={name}", {"Image": IMAGE} | mode | more)


def aliased(alias: str) -> dict[str, Any]:
    return {
        "Labels": {names.SERVICE: alias},
        "NetworkingConfig": {"EndpointsConfig": {SHARED: {"Aliases": [alias]}}},
    }


def resolves(world: World, name: str) -> bool:
    """Ask the engine's own name server from within bob's container."""
    asked = ("exec", BOBS, "busybox", "nslookup", "-type=a", name, "127.0.0.11")
    return world.engine.docker(*asked, check=False).returncode == 0


def bobs_id(world: World) -> str:
    return str(world.must("bob", "GET", f"/containers/{BOBS}/json")["Id"])


@pytest.mark.parametrize("name", [BOBS, "ledger", "bob-host"])
def test_name_alias_and_host_name_are_what_the_engine_resolves(world: World, name: str) -> None:
    assert resolves(world, name)
    assert not resolves(world, f"{name}-not")


@pytest.mark.parametrize("form", ["{short}", "ledger.{net}", "bob-host.{net}", "{short}.{net}"])
def test_the_engine_resolves_short_ids_and_names_with_a_network(world: World, form: str) -> None:
    assert resolves(world, form.format(short=bobs_id(world)[:12], net=SHARED))


TAKING = [*({"Hostname": name} for name in (BOBS, "bob-host", "ledger"))]
TAKING += [aliased(name) for name in ("ledger", "bob-host", BOBS)]


@pytest.mark.parametrize("more", TAKING, ids=str)
def test_no_other_owners_container_answers_to_it(world: World, more: dict[str, Any]) -> None:
    mark = world.tap.mark()
    refused = create(world, "alice", "alice-taker", **more)
    assert (refused.status, refused.rule) == (403, "network.name-taken")
    assert "bob" not in refused.json["trimtab"]["reason"].replace(BOBS, "").replace("bob-host", "")
    assert not any(request.changes for request in world.tap.since(mark))


@pytest.mark.parametrize("form", ["ledger.{net}", f"{BOBS}.{{net}}", "{short}.{net}", "new.{net}"])
def test_no_container_answers_to_a_name_with_a_shared_network(world: World, form: str) -> None:
    name = form.format(short=bobs_id(world)[:12], net=SHARED)
    composed = aliased(name) | {"Labels": {"com.docker.compose.service": name}}
    mark = world.tap.mark()
    tries = [
        create(world, "alice", name),
        create(world, "alice", "alice-taker", Hostname=name),
        create(world, "alice", "alice-taker", **composed),
    ]
    assert [(each.status, each.rule) for each in tries] == [(403, "network.name-reserved")] * 3
    assert not any(request.changes for request in world.tap.since(mark))


@pytest.mark.parametrize("length", [12, 64])
def test_no_container_answers_to_anothers_id(world: World, length: int) -> None:
    name = bobs_id(world)[:length]
    composed = aliased(name) | {"Labels": {"com.docker.compose.service": name}}
    assert create(world, "alice", "alice-taker", **composed).rule == "network.name-taken"
    if length == 12:
        assert create(world, "alice", "alice-taker", Hostname=name).rule == "network.name-taken"
        assert create(world, "alice", name).rule == "name.like-an-id"


@pytest.mark.parametrize("name", ["db.example.org", "fedcba987654", f"{SHARED}.example.org"])
def test_a_host_name_with_a_domain_or_like_an_id_is_taken_from_nobody(
    world: World, name: str
) -> None:
    made = create(world, "alice", "alice-plain", Hostname=name)
    assert made.status == 201
    world.must("alice", "DELETE", "/containers/alice-plain")


@pytest.mark.parametrize("name", ["ledger", "bob-host"])
def test_nor_is_one_called_so_at_its_create_or_later(world: World, name: str) -> None:
    assert create(world, "alice", name).rule == "network.name-taken"
    made = create(world, "alice", "alice-plain")
    assert made.status == 201
    try:
        renamed = world.ask("alice", "POST", f"/containers/alice-plain/rename?name={name}")
        assert (renamed.status, renamed.rule) == (403, "network.name-taken")
    finally:
        world.must("alice", "DELETE", "/containers/alice-plain")


def test_one_that_is_renamed_past_the_broker_is_not_started_and_ended_if_it_runs(
    world: World,
) -> None:
    made = create(world, "alice", "alice-taker").json["Id"]
    start = f"/containers/{made}/start"
    world.engine.docker("rename", made, "ledger")
    assert world.ask("alice", "POST", start).rule == "network.name-taken"
    world.engine.docker("rename", made, "alice-taker")
    world.must("alice", "POST", start)
    world.engine.docker("rename", made, "ledger")
    ended = lambda: not world.engine.inspect(made)["State"]["Running"]  # noqa: E731
    eventually(ended, what="its end")
    world.must("alice", "DELETE", f"/containers/{made}")


def test_a_free_name_is_taken_by_one_that_was_renamed_to_it_past_the_broker(world: World) -> None:
    made = create(world, "alice", "alice-mover").json["Id"]
    world.engine.docker("rename", made, "archive")
    world.must("alice", "POST", f"/containers/{made}/start")
    assert create(world, "bob", "bob-archive", **aliased("archive")).rule == "network.name-taken"
    world.must("alice", "DELETE", f"/containers/{made}?force=1")
    assert create(world, "bob", "bob-archive", **aliased("archive")).status == 201
    world.must("bob", "DELETE", "/containers/bob-archive")


def test_an_owners_own_containers_share_a_name(world: World) -> None:
    made = create(world, "bob", "bob-desk-2", **aliased("ledger"))
    assert made.status == 201
    world.must("bob", "DELETE", "/containers/bob-desk-2")
