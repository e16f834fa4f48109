"""Moves to another namespace under signed admission: by an operator alone, or by a commit of both namespaces.

A moved container has the networks and files of the namespace in which it was made.
"""

from __future__ import annotations

import pytest

from controller.engine.transport import OutgoingRequest
from controller.model.policy.document import Owner
from controller.model.records import Reply
from tests.unit.broker.signed.instance import (
    DOCUMENTS,
    OPERATOR,
    Instance,
    create_of,
    prerequisites,
)
from tests.unit.broker.signed.test_signed_acts import rule
from tests.unit.broker.signed.test_signed_acts_renamed import move

WEB, LAB = "Service/shop/web", "Service/lab/web"
#: The service ``web`` in lab, with its volume.
CLAIM, VOLUME = ", moved: [{from: shop/web}]", "engineName: shop.data"
ACROSS = (
    DOCUMENTS.replace("name: web, namespace: shop", f"name: web, namespace: lab{CLAIM}")
    .replace("name: back, namespace: shop", "name: back, namespace: lab")
    .replace("name: site, namespace: shop", "name: site, namespace: lab")
    .replace("name: data, namespace: shop", "name: data, namespace: lab")
    .replace(
        "spec: {}\n---\napiVersion: trimtab/v1\nkind: Config",
        f"spec: {{{VOLUME}}}\n---\napiVersion: trimtab/v1\nkind: Config",
    )
)


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


# By a signed commit of both namespaces.


def across(*, listed: bool = True, text: str = ACROSS) -> tuple[Instance, str]:
    """Return an instance whose commit has a service in another namespace, and the container."""
    instance = Instance(rule={"namespaces": ("shop", "lab")})
    instance.prepare()
    web = instance.run(create_of(WEB))
    if listed:
        state = instance.broker.state
        assert state is not None
        owner = Owner.model_validate({"name": "team", "namespaces": ("shop", "lab")})
        state.policy = state.policy.model_copy(update={"owners": (owner,)})
    instance.commit(text, parent=instance.head)
    return instance, web


def test_a_declared_move_takes_the_volume_along_and_the_container_is_replaced() -> None:
    instance, web = across()
    assert move(instance, WEB, LAB).status == 200
    assert instance.inventory.volumes["shop.data"].namespace == "lab"
    # Until then, the container that its commit proved is put back.
    assert instance.ask("POST", f"/containers/{web}/restart").status == 204
    instance.take_down(web)
    for request in prerequisites(ACROSS):
        if request.path != "/volumes/create":  # nobody makes a volume of another name
            assert instance.send(request).status in (200, 201, 409), request.path
    instance.run(create_of(LAB, ACROSS))
    # Nothing of the former place comes back.
    for text, key in (
        (DOCUMENTS, WEB),
        (DOCUMENTS.replace("namespace: shop", "namespace: lab"), LAB),
    ):
        refused = rule(instance.send(create_of(key, text, attempt=2)))
        assert refused.startswith(("proof.", "volume.")), refused


def test_a_signature_is_no_approval() -> None:
    instance, web = across(listed=False)
    assert rule(move(instance, WEB, LAB)) == "move.approval"
    assert instance.inventory.containers[web].namespace == "shop"


@pytest.mark.parametrize(
    ("volumes", "text"),
    [
        (["shop.data", "shop.other"], ACROSS),
        ([], ACROSS),
        (["lab.data"], ACROSS),
        (["shop.data"], ACROSS.replace(VOLUME, "engineName: shop.other")),
        (["shop.data"], ACROSS.replace(CLAIM, "")),
    ],
    ids=["one-more", "none", "another", "of-another-document", "unclaimed"],
)
def test_no_move_takes_other_volumes_than_the_document(volumes: list[str], text: str) -> None:
    instance, web = across(text=text)
    assert rule(move(instance, WEB, LAB, volumes=volumes)) == "proof.unproven"
    assert instance.inventory.containers[web].namespace == "shop"
    assert instance.inventory.volumes["shop.data"].namespace == "shop"


def test_a_move_between_two_sources_is_of_neither() -> None:
    instance, web = across()
    state = instance.broker.state
    assert state is not None
    (shop,) = state.policy.sources
    rules = [shop.model_copy(update={"namespaces": ("shop",)})]
    rules += [shop.model_copy(update={"namespaces": ("lab",), "source": "lab"})]
    state.policy = state.policy.model_copy(update={"sources": tuple(rules)})
    assert rule(move(instance, WEB, LAB)) == "proof.unsupported"
    assert instance.inventory.containers[web].namespace == "shop"
