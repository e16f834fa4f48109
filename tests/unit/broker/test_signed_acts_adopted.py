"""Containers that an operator adopts in a signed namespace: proven if the accepted commit declares them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.core.records.inventory_json import from_json, to_json
from controller.core.records.parts import AdoptionPart, RequestPart
from controller.model.records import Actor, Reply
from tests.unit.broker.signed.forged_requests import body_of
from tests.unit.broker.signed.instance import CONTROLLER, DOCUMENTS, OPERATOR, Instance, create_of
from tests.unit.broker.test_signed_acts import rule

API = "Service/shop/api"
#: Documents with another api.
NEWER = DOCUMENTS.replace('"trimtab.local/db:1"', '"trimtab.local/db:1", env: {A: b}')


def run_by_hand(instance: Instance, text: str = DOCUMENTS) -> str:
    """Return a container of nobody that equals what a document leads to."""
    body = {**body_of(create_of(API, text)), "Labels": {}}
    data = json.dumps(body).encode()
    made = instance.engine.call("POST", "/containers/create?name=old-api", data)
    identifier = str(json.loads(made[1])["Id"])
    assert instance.engine.call("POST", f"/containers/{identifier}/start")[0] == 204
    return identifier


def adopt(
    instance: Instance,
    container: str,
    text: str = DOCUMENTS,
    *,
    actor: Actor = OPERATOR,
    dry_run: bool = False,
    **more: Any,
) -> Reply:
    request = create_of(API, text)
    one: dict[str, object] = {
        "container": container,
        "name": request.query["name"],
        "create": {**body_of(request), **more},
        "admit": ["capabilities", "new-privileges", "logs"],
    }
    question = {"containers": [one], "dryRun": dry_run}
    return instance.ask("POST", "/trimtab/v1/adoptions", question, actor=actor)


def findings(instance: Instance, container: str) -> list[str]:
    """Return the rules that a dry run of an adoption finds."""
    (found,) = json.loads(adopt(instance, container, dry_run=True).body)["containers"]
    return [each["rule"] for each in found["findings"]]


def restart(instance: Instance) -> None:
    """An operator restarts the service, with a new resolution of its image."""
    body = {"act": "service.restart", "object": API, "note": "", "anew": True}
    body["revision"] = body_of(create_of(API))["Labels"]["io.trimtab.revision"]
    reply = instance.ask("POST", "/trimtab/v1/records", body, actor=OPERATOR)
    assert reply.status == 200, reply.body


def test_an_adoption_of_what_is_declared_is_proven_and_healed() -> None:
    instance = Instance()
    instance.commit()
    old = run_by_hand(instance)
    assert adopt(instance, old).status == 200
    summaries = ((r, RequestPart.read(r.entry.request).summary) for r in instance.records)
    (record,) = [r for r, summary in summaries if summary.part(AdoptionPart).gaps]
    proof = RequestPart.read(record.entry.request).summary.proof
    assert (proof.commit, proof.resource) == (instance.head, API)
    assert instance.ask("POST", f"/containers/{old}/restart").status == 204
    limits = {"Memory": 1 << 30, "MemorySwap": 1 << 30}
    assert rule(instance.ask("POST", f"/containers/{old}/update", limits)) == "proof.update"
    # It counts as a revision that ran: also after a restart of the broker and a newer commit.
    instance.restart()
    inventory = instance.inventory
    assert from_json(json.loads(json.dumps(to_json(inventory)))).signed == inventory.signed
    instance.commit(NEWER, parent=instance.head)
    assert instance.ask("POST", f"/containers/{old}/restart").status == 204
    (pin,) = {each.id for each in instance.inventory.pins.values()}
    instance.take_down(old)
    instance.run(create_of(API, attempt=2, image=pin))


@pytest.mark.parametrize("committed", [NEWER, ""])
def test_an_operator_adopts_what_no_commit_declares_and_the_controller_does_not_start_it(
    committed: str,
) -> None:
    instance = Instance()
    if committed:
        instance.commit(committed)
    old = run_by_hand(instance)
    assert adopt(instance, old).status == 200
    assert instance.inventory.containers[old].signed == ""
    instance.commit(DOCUMENTS, parent=instance.head)
    refused = instance.ask("POST", f"/containers/{old}/restart")
    assert rule(refused) == "proof.unproven"
    assert "trimtab restart api -n shop" in refused.body.decode()
    instance.take_down(old)
    # Its image is the operator's word for that container, until a restart of the service.
    assert rule(instance.send(create_of(API))) == "proof.image"
    restart(instance)
    new = instance.run(create_of(API))
    assert instance.inventory.containers[new].signed


@pytest.mark.parametrize("is_declared", [True, False])
def test_no_container_is_adopted_while_the_broker_lacks_the_proof_of_the_accepted_commit(
    *, is_declared: bool
) -> None:
    """The container would be unproven for good, although the commit possibly declares it."""
    instance = Instance()
    instance.commit(DOCUMENTS if is_declared else NEWER)
    old = run_by_hand(instance)
    instance.restart()
    count = len(instance.records)
    assert findings(instance, old) == ["proof.missing"]
    assert instance.records[count:] == []
    refused = adopt(instance, old)
    assert (refused.status, rule(refused)) == (409, "proof.missing")
    assert "the controller uploads the proof" in refused.body.decode()
    assert [each.entry.stage for each in instance.records[count:]] == ["refusal"]
    assert old not in instance.inventory.containers
    assert instance.upload(instance.repository.proof(instance.head)).status == 200
    assert findings(instance, old) == []
    assert adopt(instance, old).status == 200
    assert bool(instance.inventory.containers[old].signed) is is_declared
    restarted = instance.ask("POST", f"/containers/{old}/restart")
    assert rule(restarted) == ("" if is_declared else "proof.unproven")


def test_a_rollout_brings_an_adopted_service_under_proof() -> None:
    instance = Instance()
    old = run_by_hand(instance)
    assert adopt(instance, old).status == 200
    instance.commit(NEWER)
    new = instance.run(create_of(API, NEWER, slot=2))
    instance.take_down(old)
    assert instance.ask("POST", f"/containers/{new}/restart").status == 204
    # The adopted revision never ran under a proof, so nothing leads back to it.
    assert rule(instance.send(create_of(API))).startswith("proof.")


def test_no_controller_adopts_and_no_adoption_proves_another_create() -> None:
    instance = Instance()
    instance.commit()
    old = run_by_hand(instance)
    assert adopt(instance, old, actor=replace(CONTROLLER)).status == 403
    assert adopt(instance, old, Cmd=["/bin/sh"]).status == 403
    assert old not in instance.inventory.containers
