"""Which container's namespaces a create shares: of the inventory, the same owner and slot, and running."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from controller.broker.gate.commands import ReadEngine
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards.lookup import find_shared
from controller.core.engine_api.requests import SharesRequest
from controller.core.rules.context import SharedContainer
from controller.model.inventory import ContainerItem
from tests.unit.broker.dialogue import reply, state
from tests.unit.broker.world import inspect, inventory, item, labels

VPN, NEWER, APP = "11" * 32, "22" * 32, "33" * 32
ASKED = SharesRequest("vpn", network=True)
OWN = labels("team", origin="controller", namespace="shop", service="app", slot="1")


def vpn(identifier: str = VPN, **more: Any) -> ContainerItem:
    told = {"service": "vpn", "namespace": "shop", "slot": 1, "origin": "controller", **more}
    owner = told.pop("owner", "team")
    return item(identifier, "shop.vpn.1-01234567", owner, **told)


def knowing(*items: ContainerItem) -> GateState:
    return state(inventory(containers={each.id: each for each in items}))


def found(
    knows: GateState, shown: Iterable[dict[str, Any]], asked: SharesRequest = ASKED
) -> SharedContainer | None:
    """Answer each look at the engine with the next inspect."""
    flow, answers = find_shared(knows, asked, OWN), iter(shown)
    try:
        command = next(flow)
        while True:
            assert isinstance(command, ReadEngine)
            body = next(answers)
            assert command.path == f"/containers/{body.get('Asked', body['Id'])}/json"
            command = flow.send(reply(body))
    except StopIteration as end:
        assert next(answers, None) is None, "a look is missing"
        return end.value  # type: ignore[no-any-return]


def running(identifier: str = VPN, **host: Any) -> dict[str, Any]:
    return inspect(identifier, "shop.vpn.1-01234567", "team", HostConfig=host)


def test_the_engine_is_asked_by_full_id() -> None:
    shown = running(IpcMode="shareable", ShmSize=7)
    assert found(knowing(vpn()), [shown]) == SharedContainer(VPN, shareable=True, shm=7)


def test_nothing_is_looked_up_for_a_container_with_its_own_namespaces() -> None:
    assert found(knowing(vpn()), [], SharesRequest()) is None


def test_the_newest_running_container_of_the_slot_is_chosen() -> None:
    knows = knowing(vpn(seq=1), vpn(NEWER, seq=2))
    assert found(knows, [running(NEWER)]) == SharedContainer(NEWER)
    stopped = {**running(NEWER), "State": {"Status": "created"}}
    assert found(knows, [stopped, running()]) == SharedContainer(VPN)


def test_a_container_that_shares_itself_is_known_as_such() -> None:
    shared = found(knowing(vpn()), [running(NetworkMode=f"container:{APP}")])
    assert shared == SharedContainer(VPN, joined=True)


@pytest.mark.parametrize(
    "other",
    [
        vpn(namespace="team"),
        vpn(owner="bob"),
        vpn(slot=2),
        vpn(service="other"),
        vpn(origin="client", slot=0),
        vpn(is_run=True),
    ],
)
def test_a_container_of_another_place_isnt_even_looked_at(other: ContainerItem) -> None:
    with pytest.raises(Denied, match="no container of vpn runs in slot 1"):
        found(knowing(other), [])


@pytest.mark.parametrize(
    "shown",
    [
        {**running(), "State": {"Status": "exited"}},
        {**running(), "State": {"Status": "paused"}},
        {**running(), "State": {"Status": "restarting"}},
        {**running(), "Id": NEWER, "Asked": VPN},
        {**running(), "Config": {"Labels": {"io.trimtab.instance": "another"}}},
        {**running(), "Config": {"Labels": {}}},
    ],
)
def test_a_container_that_isnt_as_recorded_isnt_chosen(shown: dict[str, Any]) -> None:
    with pytest.raises(Denied) as refused:
        found(knowing(vpn()), [shown])
    assert (refused.value.rule, refused.value.status) == ("namespace.target", 409)
