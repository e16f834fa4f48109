"""A start: networks, volumes, names and host ports are the admitted ones, by their identities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, InspectPaths, ReadEngine
from controller.broker.gate.state import GateState
from controller.broker.guards import conflicts, kernel_verify
from controller.core.records.inventory_json import from_json, to_json
from controller.core.rules.networks import is_admitted
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.host_paths import PathFacts
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.observed import Settings
from tests.unit.broker.dialogue import (
    BOB,
    NO_CONTENT,
    NOT_FOUND,
    POLICY,
    RECORDED,
    Step,
    Told,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.handlers.test_container_create import MADE, NEW, Forwarded
from tests.unit.broker.world import (
    DB,
    NETWORK,
    REFERENCE,
    WEB,
    image,
    inspect,
    inventory,
    item,
    labels,
    network,
)

LATER = "f6" * 32
NET, SHARED = "alice-net", "platform-network"
SHARED_ID = "f7" * 32


def on(name: str = NET, identifier: str = NETWORK, **more: Any) -> ContainerItem:
    """A container of alice's that was admitted to a network, and never ran."""
    ids = ((name, identifier),) if identifier else ()
    told = {"admitted": Settings("alice-web", networks=(name,)), "network_ids": ids, **more}
    return replace(item(WEB, "alice-web", "alice"), **told)


def made(
    owner: str, *, name: str = NET, namespace: str = "", origin: str = "client"
) -> OwnedObject:
    """A network that was made later under the name."""
    return OwnedObject(LATER, name, namespace, owner, origin, "i0")


def gate(container: ContainerItem, *networks: OwnedObject, **more: Any) -> GateState:
    containers = {WEB: container, **more.pop("containers", {})}
    known = {each.id: each for each in networks}
    return state(inventory(containers=containers, networks=known, **more))


def start(knows: GateState, *steps: Step, verb: str = "start", **shown: Any) -> Told:
    looked = reply(inspect(WEB, "alice-web", "alice", **shown))
    dialogue = [(ReadEngine(f"/containers/{WEB}/json"), looked), *steps]
    return converse(handle(request("POST", f"/containers/{WEB}/{verb}"), knows), dialogue, knows)


def found(later: OwnedObject) -> Step:
    shown = network(later.id, later.name, later.owner)
    return ReadEngine(f"/networks/{later.name}"), reply(shown)


REFUSED: Step = ("refusal", RECORDED)
STARTED: list[Step] = [
    ("intent", RECORDED),
    (Forward("POST", f"/containers/{WEB}/start"), NO_CONTENT),
    ("outcome", RECORDED),
]
VERIFIED: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice")))


# Networks


def test_a_create_records_what_it_was_judged_by() -> None:
    store = OwnedObject("store", "store", "", "alice", "client", "i0")
    knows = gate(on(), made("alice"), volumes={"store": store})
    shown = {"Name": "store", "Driver": "local", "Labels": labels("alice"), "Options": None}
    folder = "/var/lib/docker/volumes/store/_data"
    facts = (PathFacts(folder, "dir", device=8, inode=7, protected="engine-data"),)
    dialogue: list[Step] = [
        (ReadEngine(f"/images/{REFERENCE}/json"), reply(image())),
        found(made("alice")),
        (ReadEngine("/volumes/store"), reply(shown)),
        (ReadEngine("/containers/job/json"), NOT_FOUND),
        (InspectPaths((folder,)), facts),
        ("intent", RECORDED),
        (Forwarded("/containers/create?name=job"), MADE),
        ("outcome", RECORDED),
    ]
    host = {"NetworkMode": NET, "Binds": ["store:/store"]}
    body = {"Image": REFERENCE, "HostConfig": host}
    asked = request("POST", "/containers/create?name=job", body=body)
    assert converse(handle(asked, knows), dialogue, knows).status == 201
    new = from_json(to_json(knows.inventory)).containers[NEW]
    assert (new.network_ids, new.volume_ids) == (((NET, LATER),), (("store", "i0"),))


@pytest.mark.parametrize("verb", ["start", "restart"])
@pytest.mark.parametrize(
    "later",
    [
        made("bob"),
        made("team", namespace="shop", origin="controller"),
        made("alice"),  # perhaps with a way out, which the create wasn't judged by
    ],
)
@pytest.mark.parametrize("recorded", [NETWORK, ""])
def test_a_network_that_was_made_later_under_the_name_is_not_joined(
    verb: str, later: OwnedObject, recorded: str
) -> None:
    """The client removed its own network, and another owner took the name."""
    if later.owner == "alice" and not recorded:
        return  # of a container without recorded ids each network of the owner counts
    knows = gate(on(identifier=recorded), later)
    told = start(knows, found(later), REFUSED, verb=verb)
    assert (told.status, told.rule) == (403, "network.changed")
    assert told.json["trimtab"]["reason"] == (
        "the network alice-net isn't the one of the container's create"
    )


def test_the_admitted_network_is_joined() -> None:
    told = start(gate(on(identifier=LATER), made("alice")), found(made("alice")), *STARTED)
    assert told.status == 204


def test_a_container_without_recorded_ids_is_started_in_a_network_of_its_owner() -> None:
    told = start(gate(on(identifier=""), made("alice")), found(made("alice")), *STARTED)
    assert told.status == 204


IMPLIED = made("bob", name=SHARED)
DOCUMENTS = made("team", name="back", namespace="default", origin="controller")


@pytest.mark.parametrize(
    ("container", "later", "admitted"),
    [
        (on(SHARED), IMPLIED, True),  # the namespace's, whoever came first
        (on(f"{SHARED}.shop"), made("bob", name=f"{SHARED}.shop"), False),
        (on("back", owner="team"), DOCUMENTS, False),
        (on("back", origin="controller", namespace="default"), DOCUMENTS, True),  # remade
        (on("back", origin="controller", namespace="shop"), DOCUMENTS, False),
        (on("back", origin="controller", namespace="default"), made("alice", name="back"), False),
        (on("other"), made("alice", name="back"), False),
    ],
)
def test_only_networks_of_a_namespace_are_made_again_under_their_names(
    container: ContainerItem, later: OwnedObject, admitted: bool
) -> None:
    assert is_admitted(container, later, POLICY) is admitted


@pytest.mark.parametrize(
    ("container", "later", "own"),
    [
        (on(), made("bob"), False),
        (on(identifier=""), made("bob"), False),
        (on(identifier=LATER), made("bob"), True),  # as an operator admitted it
        (on(), made("alice"), True),  # drift
        (on("back"), DOCUMENTS, False),  # of the client's namespace, and not its own
        (on("back", origin="controller", namespace="default"), DOCUMENTS, True),
        (on(SHARED), IMPLIED, True),
        (on(identifier="", owner="operator"), made("bob"), True),
    ],
)
def test_what_runs_is_in_its_own_networks_by_their_ids(
    container: ContainerItem, later: OwnedObject, own: bool
) -> None:
    knows = gate(container, later)
    ends = {"Networks": {later.name: {"NetworkID": LATER}}}
    told = kernel_verify.joined_of(knows, container, POLICY, {"NetworkSettings": ends})
    assert [each.own for each in told] == [own]


def test_a_connect_admits_a_container_to_that_network_and_a_disconnect_no_more() -> None:
    knows = gate(on(identifier=""), made("alice"))
    body: dict[str, object] = {"Container": WEB}
    looked: Step = (
        ReadEngine(f"/containers/{WEB}/json"),
        reply(inspect(WEB, "alice-web", "alice", HostConfig={"NetworkMode": NET})),
    )
    for verb, ids in (("connect", ((NET, LATER),)), ("disconnect", ())):
        forward = Forwarded(f"/networks/{LATER}/{verb}")
        steps = [looked, found(made("alice")), ("intent", RECORDED), (forward, NO_CONTENT)]
        asked = request("POST", f"/networks/{NET}/{verb}", body=body)
        told = converse(handle(asked, knows), [*steps, ("outcome", RECORDED)], knows)
        assert told.status == 204
        assert knows.inventory.containers[WEB].network_ids == ids


# Volumes


def test_a_volume_that_was_made_later_under_the_name_is_not_mounted() -> None:
    mounts = (ExpectedMount("volume", "/store", "store", device=8, inode=7),)
    container = replace(on(), confined=Confinement(mounts=mounts))
    container = replace(container, admitted=Settings("alice-web"), volume_ids=(("store", "i1"),))
    shown = {"Name": "store", "Driver": "local", "Labels": labels("alice"), "Options": None}
    looked: Step = (ReadEngine("/volumes/store"), reply(shown))
    later = OwnedObject("store", "store", "", "alice", "client", "i0")
    told = start(gate(container, volumes={"store": later}), looked, REFUSED)
    assert (told.status, told.rule) == (403, "volume.changed")
    first = replace(container, volume_ids=(("store", "i0"),))
    folder = "/var/lib/docker/volumes/store/_data"
    facts = (PathFacts(folder, "dir", device=8, inode=7, protected="engine-data"),)
    paths: Step = (InspectPaths((folder,)), facts)
    begun = [*STARTED[:2], VERIFIED, STARTED[2]]
    assert start(gate(first, volumes={"store": later}), looked, paths, *begun).status == 204


# Names and host ports


BOBS = replace(
    item(DB, "bob-db", "bob"),
    admitted=Settings("bob-db", networks=(SHARED,)),
    aliases=("db",),
    ports=("127.0.0.1:18555:80/tcp",),
    seq=4,
)
JOINED = {"Networks": {SHARED: {"Aliases": ["db"]}}}
TO_CACHE = f"/containers/{DB}/rename?name=cache"
RENAMED_NOW: list[Step] = [
    ("intent", RECORDED),
    (Forward("POST", TO_CACHE), NO_CONTENT),
    ("outcome", RECORDED),
]


def rename_to_cache(knows: GateState, *then: Step) -> Any:
    """Rename the container of Bob."""
    steps: list[Step] = [
        (ReadEngine(f"/containers/{DB}/json"), reply(inspect(DB, "bob-db", "bob"))),
        (ReadEngine("/containers/cache/json"), NOT_FOUND),
        *then,
    ]
    return converse(handle(request("POST", TO_CACHE, actor=BOB), knows), steps, knows)


@pytest.mark.parametrize(
    "shown",
    [
        {"Name": "/db"},  # renamed past the broker
        {"NetworkSettings": JOINED},
        {"Config": {"Labels": labels("alice"), "Hostname": "DB"}},
    ],
)
def test_a_container_that_would_answer_to_anothers_name_is_not_started(shown: Any) -> None:
    knows = gate(on(SHARED, SHARED_ID), IMPLIED, containers={DB: BOBS})
    told = start(knows, found(IMPLIED), REFUSED, **shown)
    assert (told.status, told.rule) == (403, "network.name-taken")


RENAMED = inspect(
    WEB, "db", "alice", NetworkSettings={"Networks": {SHARED: {"Aliases": ["x", WEB[:12]]}}}
)


@pytest.mark.parametrize(("origin", "found"), [("client", ("db",)), ("controller", ())])
def test_what_runs_under_anothers_name_is_a_breach_of_clients_only(
    origin: str, found: tuple[str, ...]
) -> None:
    """The controller puts back the names of its own. Names that were free are taken."""
    container = on(SHARED, SHARED_ID, origin=origin, namespace="default")
    knows = gate(container, IMPLIED, containers={DB: BOBS})
    assert conflicts.find_names(knows, container, POLICY, RENAMED) == found
    assert knows.verification.found_names == {WEB: {"x"}}


@pytest.mark.parametrize(
    "shown",
    [
        {"Name": "/cache"},
        {"NetworkSettings": {"Networks": {SHARED: {"Aliases": ["cache"]}}}},
    ],
)
def test_a_name_that_was_free_is_taken_once_a_container_starts_under_it(shown: Any) -> None:
    knows = gate(on(SHARED, SHARED_ID), IMPLIED, containers={DB: BOBS})
    assert start(knows, found(IMPLIED), *STARTED, **shown).status == 204
    assert rename_to_cache(knows, REFUSED).rule == "network.name-taken"


def test_it_is_free_again_once_the_container_shows_it_no_more_or_is_gone() -> None:
    container = on(SHARED, SHARED_ID)
    knows = gate(container, IMPLIED, containers={DB: BOBS})
    held = {WEB: frozenset({"cache"}), NEW: frozenset({"db"})}
    knows.verification.found_names = held
    conflicts.find_names(knows, container, POLICY, inspect(WEB, "alice-web", "alice"))
    assert knows.verification.found_names == {}
    assert rename_to_cache(knows, *RENAMED_NOW).status == 204


def test_a_container_holds_no_name_in_a_later_network_of_the_name_of_its_own() -> None:
    bobs = replace(BOBS, admitted=Settings("bob-db", networks=(NET,)))
    knows = gate(on(aliases=("cache",)), made("bob"), containers={DB: bobs})
    assert rename_to_cache(knows, *RENAMED_NOW).status == 204


@pytest.mark.parametrize(("seq", "status"), [(5, 409), (3, 204)])
def test_the_container_that_was_created_first_has_a_host_port(seq: int, status: int) -> None:
    """Of two that one owner had, until a service went to another owner."""
    mine = on(SHARED, SHARED_ID, ports=BOBS.ports, seq=seq)
    knows = gate(mine, IMPLIED, containers={DB: BOBS})
    told = start(knows, found(IMPLIED), *(STARTED if status == 204 else [REFUSED]))
    assert told.status == status
