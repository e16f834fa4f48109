"""Which host ports containers hold, and who is refused one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.core.admission.create import (
    PortClaim,
    conflict_of,
    finding_of,
    host_ports_of_item,
    host_ports_of_summary,
    make_claim,
)
from controller.core.records.inventory_json import from_json, to_json
from controller.core.records.parts import SummaryPart
from controller.model.observed import HostPort
from tests.growth import steps
from tests.unit.broker.world import SLOT, WEB, inventory, item, labels

BOBS = make_claim("bob", "bob-front", ["127.0.0.1:18555:8080/tcp"])


def taken(*ports: str, owner: str = "alice", service: str = "") -> bool:
    return conflict_of(make_claim(owner, "x", ports, service=service), [BOBS]) is not None


def test_published_ports_are_read_as_they_are_recorded() -> None:
    texts = ["127.0.0.1:8080:80/tcp", "::1:53:53/udp", "0.0.0.0:9000-9001:1/tcp"]
    texts += ["127.0.0.1::7/tcp", "", "x", ":80:80/tcp", "localhost:80:80/tcp"]
    assert make_claim("bob", "x", texts) == PortClaim(
        "bob",
        "x",
        (HostPort("127.0.0.1", 8080), HostPort("::1", 53, "udp")),
        (HostPort("0.0.0.0", 9000), HostPort("0.0.0.0", 9001)),
    )


@pytest.mark.parametrize(
    ("port", "refused"),
    [
        ("127.0.0.1:18555:1/tcp", True),
        ("0.0.0.0:18555:1/tcp", True),
        ("127.0.0.1:18550-18560:1/tcp", True),
        ("127.0.0.1:18555:1/udp", False),
        ("127.0.0.2:18555:1/tcp", False),
        ("127.0.0.1:18556:8080/tcp", False),
        ("127.0.0.1:18556-18560:1/tcp", False),
        ("127.0.0.1::8080/tcp", False),
    ],
)
def test_another_owner_gets_no_port_that_a_container_holds(port: str, refused: bool) -> None:
    assert taken(port) is refused
    assert not taken(port, owner="bob")


def test_a_port_from_which_the_engine_chooses_is_held_by_nobody() -> None:
    ranged = make_claim("bob", "x", ["127.0.0.1:8000-8010:80/tcp"])
    assert conflict_of(make_claim("alice", "y", ["127.0.0.1:8005:80/tcp"]), [ranged]) is None


@pytest.mark.parametrize("held", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "0:0::1"])
@pytest.mark.parametrize("wanted", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_port_is_taken_where_two_sockets_overlap(wanted: str, held: str) -> None:
    mine = PortClaim("alice", "x", (HostPort("127.9.9.9", 80), HostPort(wanted, 80)))
    conflict = conflict_of(mine, [PortClaim("bob", "y", (HostPort(held, 80),))])
    expected = [port for port in mine.ports if port.overlaps(HostPort(held, 80))]
    assert (conflict is not None) is bool(expected)
    assert conflict is None or conflict.port in expected


@pytest.mark.parametrize("ranged", [False, True])
def test_the_cost_grows_with_held_ports_not_with_pairs(*, ranged: bool) -> None:
    """64 ranges of 100 ports are asked for; others hold 64 ports, or as many ranges, each."""
    places = [f"127.0.0.{place}" for place in range(1, 65)]
    mine = make_claim("alice", "x", [f"{each}:9000-9099:80/tcp" for each in places])
    texts = [f"127.0.1.{n}:{'9000-9099' if ranged else 9000 + n}:80/tcp" for n in range(64)]
    item_of_bob = replace(item(WEB, "bob-web", "bob"), ports=tuple(texts))

    def cost(containers: int) -> int:
        return steps(lambda: conflict_of(mine, map(host_ports_of_item, [item_of_bob] * containers)))

    assert cost(21) - cost(1) < 20 * 64 * 50


def test_a_service_that_changes_its_owner_keeps_its_ports() -> None:
    before = make_claim("bob", "web.1", ["127.0.0.1:80:80/tcp"], service="default/web")
    for service, conflicts in (("default/web", False), ("default/api", True), ("", True)):
        mine = make_claim("alice", "web.1-2", ["127.0.0.1:80:80/tcp"], service=service)
        assert (conflict_of(mine, [before]) is not None) is conflicts
    nameless = replace(before, service="")
    assert conflict_of(make_claim("alice", "x", ["127.0.0.1:80:80/tcp"]), [nameless])


def test_the_refusal_names_the_port_and_the_holder_only_to_whom_it_may() -> None:
    conflict = conflict_of(make_claim("alice", "x", ["0.0.0.0:18555:80/tcp"]), [BOBS])
    assert conflict is not None
    told = finding_of(conflict, names_holder=False)
    assert told.rule == "port.taken"
    assert told.reason == (
        "host port 18555/tcp on 0.0.0.0 belongs to a container of another owner, also while that "
        "container is stopped"
    )
    assert "the container bob-front of bob" in finding_of(conflict, names_holder=True).reason


def test_the_inventory_and_open_creates_hold_ports() -> None:
    summary: dict[str, object] = {
        "name": "soon",
        "labels": labels("team", origin="controller", namespace="default"),
        "ports": ["127.0.0.1:80:80/tcp"],
    }
    port = "127.0.0.1:80:80/tcp"
    expected = make_claim("team", "soon", [port], service="default/web")
    assert host_ports_of_summary(SummaryPart.read(summary)) == expected
    clients = replace(item(WEB, "alice-web", "alice"), ports=(port,))
    assert host_ports_of_item(clients) == make_claim("alice", "alice-web", [port])
    slot = replace(inventory().containers[SLOT], ports=(port,))
    assert host_ports_of_item(slot).service == "default/web"
    known = inventory(containers={WEB: clients})
    saved = json.loads(json.dumps(to_json(known)))
    assert from_json(saved).containers == known.containers
