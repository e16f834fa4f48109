"""Containers that an operator moved out of a signed namespace: their networks and files are still of there."""

from __future__ import annotations

import pytest

from controller.engine.transport import OutgoingRequest
from controller.model.records import Reply
from tests.unit.broker.signed.instance import OPERATOR, Instance, create_of
from tests.unit.broker.signed.test_signed_acts import rule

WEB = "Service/shop/web"


def moved(instance: Instance) -> str:
    """Return a container of the signed namespace ``shop`` that is now one of ``lab``."""
    instance.prepare()
    web = instance.run(create_of(WEB))
    body = {"act": "service.moved", "object": "Service/lab/spy", "from": WEB, "owner": "team"}
    reply = instance.ask(
        "POST", "/trimtab/v1/records", {**body, "volumes": ["shop.data"]}, actor=OPERATOR
    )
    assert reply.status == 200, reply.body
    item = instance.inventory.containers[web]
    assert (item.namespace, item.made_in) == ("lab", "shop")
    return web


def test_it_answers_to_no_service_of_the_signed_namespace() -> None:
    instance = Instance()
    web = moved(instance)
    body: dict[str, object] = {"Container": web}
    assert instance.ask("POST", "/networks/shop.back/disconnect", body, actor=OPERATOR).status < 300
    for aliases in (["web"], []):
        asked = {**body, "EndpointConfig": {"Aliases": aliases}}
        reply = instance.ask("POST", "/networks/shop.back/connect", asked)
        assert rule(reply).startswith("proof."), aliases


@pytest.mark.parametrize("act", ["start", "restart"])
def test_it_is_started_by_no_controller(act: str) -> None:
    instance = Instance()
    web = moved(instance)
    assert instance.ask("POST", f"/containers/{web}/stop", actor=OPERATOR).status == 204
    assert rule(instance.ask("POST", f"/containers/{web}/{act}")).startswith("proof.")


def test_its_limits_stay_and_it_can_be_replaced() -> None:
    instance = Instance()
    web = moved(instance)

    def update(**body: object) -> Reply:
        return instance.send(OutgoingRequest("POST", f"/containers/{web}/update", {}, body=body))

    assert rule(update(Memory=1 << 30, MemorySwap=1 << 30)).startswith("proof.")
    assert update(RestartPolicy={"Name": "no"}).status == 200
