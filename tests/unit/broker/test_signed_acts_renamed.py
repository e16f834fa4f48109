"""Renamed services under signed admission: the accepted commit declares each move, and no other is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.core.manifests.revision_hash import revision_of
from controller.core.records.inventory_json import from_json, to_json
from controller.core.records.parts import RequestPart
from controller.engine.requests import OutgoingRequest
from controller.model import names
from controller.model.names import Key
from controller.model.records import Reply
from tests.unit.broker.signed.forged_requests import body_of
from tests.unit.broker.signed.instance import (
    DOCUMENTS,
    OPERATOR,
    Instance,
    create_of,
    desired_of,
    prerequisites,
)
from tests.unit.broker.test_signed_acts import rule
from tests.unit.core.proofs.repository import ALICE, MALLORY, signer_files

WEB, FRONT = "Service/shop/web", "Service/shop/front"
#: The service ``web`` under the name ``front``.
CLAIM = "moved: [{from: web}], "
UNCLAIMED = DOCUMENTS.replace("name: web,", "name: front,")
RENAMED = UNCLAIMED.replace("name: front,", f"name: front, {CLAIM}")


def move(instance: Instance, source: str = WEB, target: str = FRONT, **more: Any) -> Reply:
    body = {"act": "service.moved", "object": target, "from": source, "owner": "team"}
    return instance.ask("POST", "/trimtab/v1/records", {**body, **more})


def renamed() -> tuple[Instance, str]:
    """Return an instance whose commit renames a service, and the container of the service."""
    instance = Instance()
    instance.prepare()
    web = instance.run(create_of(WEB))
    instance.commit(RENAMED, parent=instance.head)
    return instance, web


def labelled(key: str, text: str, **labels: str) -> OutgoingRequest:
    """Return the create of a document with other labels of trimtab."""
    honest = create_of(key, text)
    body, of = body_of(honest), {getattr(names, name): each for name, each in labels.items()}
    name = honest.query["name"]
    if "REVISION" in labels:
        digits = labels["REVISION"].partition(":")[2]
        name = f"{name.rpartition('-')[0]}-{digits[: len(name.rpartition('-')[2])]}"
    body = {**body, "Labels": {**body["Labels"], **of}}
    return replace(honest, query={"name": name}, body=body)


def revision_as(name: str, text: str = RENAMED) -> str:
    """Return the revision that the service of a document had under another name."""
    service = desired_of(text).workload(Key.parse(FRONT if FRONT in keys(text) else WEB))
    assert service is not None
    key = service.key._replace(name=name)
    contents = tuple((d.kind, d.name, d.content) for d in service.deliveries)
    return revision_of(service.owner, key, service.spec, contents)


def keys(text: str) -> set[str]:
    return {str(each.key) for each in desired_of(text).services}


def test_a_declared_move_is_admitted_and_its_record_names_the_commit() -> None:
    instance, web = renamed()
    assert move(instance).status == 200
    assert instance.inventory.containers[web].service == "front"
    proof = RequestPart.read(instance.records[-1].entry.request).summary.proof
    assert (proof.commit, proof.resource, proof.path) == (instance.head, FRONT, "all.yaml")


FORGED: tuple[tuple[str, Callable[[Instance], Reply], str], ...] = (
    ("another new name", lambda i: move(i, target="Service/shop/evil"), "proof.unproven"),
    ("the name of another service", lambda i: move(i, target="Service/shop/api"), "proof.unproven"),
    ("another service", lambda i: move(i, "Service/shop/api"), "proof.unproven"),
    ("backwards", lambda i: move(i, FRONT, WEB), "proof.unproven"),
    ("for another owner", lambda i: move(i, owner="other"), "proof.unproven"),
    ("to an unsigned namespace", lambda i: move(i, target="Service/lab/front"), "move.namespace"),
    ("from an unsigned namespace", lambda i: move(i, "Service/lab/web"), "proof.unproven"),
    ("as a job", lambda i: move(i, target="Job/shop/front"), "body.invalid"),
)


@pytest.mark.parametrize(
    ("act", "wanted"), [each[1:] for each in FORGED], ids=[f[0] for f in FORGED]
)
def test_no_other_move_is_admitted(act: Callable[[Instance], Reply], wanted: str) -> None:
    instance, web = renamed()
    assert rule(act(instance)) == wanted
    assert instance.inventory.containers[web].service == "web"


@pytest.mark.parametrize(
    "text",
    [
        # The name is declared, so the claim is a mistake.
        RENAMED + "---\n" + DOCUMENTS.split("---")[1].replace("name: api", "name: web"),
        # Its document is possibly the broken one.
        RENAMED + "---\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {image: 7}\n",
        RENAMED + "---\n}\n",
        # Two services claim it.
        RENAMED.replace("name: api,", f"name: api, {CLAIM}"),
        # No namespace of the source.
        RENAMED.replace("from: web", "from: lab/web"),
        UNCLAIMED,
    ],
    ids=["declared", "broken", "blind", "claimed-twice", "elsewhere", "unclaimed"],
)
def test_no_move_is_made_that_the_controller_would_not_make(text: str) -> None:
    instance = Instance()
    instance.prepare()
    web = instance.run(create_of(WEB))
    commit = instance.repository.commit({"deploy/all.yaml": text.encode()}, instance.head)
    assert instance.upload(instance.repository.proof(commit)).status == 200
    assert rule(move(instance)) == "proof.unproven"
    assert instance.inventory.containers[web].service == "web"


def test_a_commit_moves_nothing_before_it_is_accepted_and_nothing_once_it_is_superseded() -> None:
    instance = Instance()
    instance.prepare()
    instance.run(create_of(WEB))
    assert rule(move(instance)) == "proof.unproven"
    first = instance.head
    instance.commit(RENAMED, parent=first)
    stale = instance.repository.proof(instance.head)
    instance.commit(DOCUMENTS, parent=instance.head)
    assert rule(instance.upload(stale)) == "proof.not-newer"
    assert rule(move(instance)) == "proof.unproven"


def test_a_move_is_made_once_and_not_back() -> None:
    """What the claim names is free after the move: no container gets the name under this commit."""
    instance, web = renamed()
    assert move(instance).status == 200
    assert rule(move(instance)) == "move.nothing"
    assert rule(move(instance, FRONT, WEB)) == "proof.unproven"
    assert rule(instance.send(create_of(WEB))) == "proof.undeclared"
    # Nor does a commit with the first name again bring the containers back without a claim.
    instance.commit(DOCUMENTS, parent=instance.head)
    assert rule(move(instance, FRONT, WEB)) == "proof.unproven"
    assert rule(instance.ask("POST", f"/containers/{web}/restart")) == "proof.undeclared"


def test_a_move_needs_an_approval_where_it_did_before() -> None:
    """A signature replaces no approval: another owner's container needs an operator, too."""
    instance = Instance()
    instance.prepare()
    api = instance.run(create_of("Service/shop/api"))
    claim = "name: db, moved: [{from: api}], namespace: shop, owner: other"
    instance.commit(
        DOCUMENTS.replace("name: api, namespace: shop, owner: team", claim), parent=instance.head
    )
    source, target = "Service/shop/api", "Service/shop/db"
    assert rule(move(instance, source, target, owner="other")) == "move.owner"
    assert instance.inventory.containers[api].service == "api"


def test_the_containers_go_on_under_the_new_name_and_are_made_again() -> None:
    instance, web = renamed()
    pin = instance.inventory.pins[instance.inventory.containers[web].revision].id
    assert move(instance).status == 200
    # The same container is restarted, and answers to its new name.
    assert instance.ask("POST", f"/containers/{web}/restart").status == 204
    body: dict[str, object] = {"Container": web}
    instance.ask("POST", "/networks/shop.back/disconnect", body, actor=OPERATOR)
    forged = {**body, "EndpointConfig": {"Aliases": ["api"]}}
    assert rule(instance.ask("POST", "/networks/shop.back/connect", forged)) == "network.alias"
    named = {**body, "EndpointConfig": {"Aliases": ["front"]}}
    assert instance.ask("POST", "/networks/shop.back/connect", named).status == 200
    instance.take_down(web)
    # Its successor has the revision of before, whether the claim is still there or not.
    kept = revision_as("web")
    for text in (RENAMED, UNCLAIMED):
        if text == UNCLAIMED:
            instance.commit(text, parent=instance.head)
        request = labelled(FRONT, text, REVISION=kept)
        request = replace(request, body={**body_of(request), "Image": pin})
        instance.take_down(instance.run(request))
    assert instance.inventory.signed.keys() == {FRONT}


def test_the_limits_of_a_moved_service_change_in_place_and_stay() -> None:
    instance, web = renamed()
    assert move(instance).status == 200
    larger = UNCLAIMED.replace("memory: 64Mi", "memory: 128Mi")
    instance.commit(larger, parent=instance.head)
    limits = {"Memory": 128 << 20, "MemorySwap": 128 << 20}
    assert rule(instance.ask("POST", f"/containers/{web}/update", {"Memory": 1 << 30})) == (
        "proof.update"
    )
    assert instance.ask("POST", f"/containers/{web}/update", limits).status == 200
    instance.take_down(web)
    request = labelled(FRONT, larger, REVISION=revision_as("web"))
    pin = instance.inventory.pins[revision_as("web")].id
    assert instance.send(replace(request, body={**body_of(request), "Image": pin})).status == 201


def test_a_rollback_goes_to_a_revision_of_the_earlier_name_that_ran() -> None:
    instance = Instance()
    instance.prepare()
    web = instance.run(create_of(WEB))
    other = DOCUMENTS.replace("MODE: plain", "MODE: other")
    instance.commit(other, parent=instance.head)
    instance.take_down(web)
    instance.run(create_of(WEB, other))
    instance.commit(RENAMED.replace("MODE: plain", "MODE: other"), parent=instance.head)
    assert move(instance).status == 200
    instance.restart()
    inventory = instance.inventory
    assert from_json(json.loads(json.dumps(to_json(inventory)))).signed == inventory.signed
    instance.upload(instance.repository.proof(instance.head))
    instance.take_down(next(iter(instance.inventory.containers)))
    before = revision_as("web", DOCUMENTS)
    pin = instance.inventory.pins[before].id
    request = labelled(FRONT, RENAMED, REVISION=before)
    asked = {**body_of(request), "Image": pin}
    for what, forged in {
        "of a revision that never ran": labelled(FRONT, RENAMED, REVISION=revision_as("evil")),
        "of the canonical revision": create_of(FRONT, RENAMED),
        "with another command": replace(request, body={**asked, "Cmd": ["/bin/sh"]}),
        "under another name": labelled("Service/shop/web", DOCUMENTS),
        "with another image": replace(request, body={**asked, "Image": "trimtab.local/db:1"}),
    }.items():
        assert rule(instance.send(forged)).startswith(("proof.", "image.")), what
    again = instance.run(replace(request, body=asked))
    # It is a revision of the new name now.
    assert instance.ask("POST", f"/containers/{again}/restart").status == 204
    instance.take_down(again)
    instance.run(replace(request, body=asked))


def test_a_revoked_key_leaves_the_revision_of_the_earlier_name_that_a_good_key_signed() -> None:
    instance, web = renamed()
    assert move(instance).status == 200
    instance.take_down(web)
    instance.keys = signer_files(ALICE, MALLORY)
    files = {"deploy/all.yaml": UNCLAIMED.encode()}
    by_mallory = instance.repository.commit(files, instance.head, key=MALLORY)
    assert instance.upload(instance.repository.proof(by_mallory)).status == 200
    kept = revision_as("web")
    request = labelled(FRONT, UNCLAIMED, REVISION=kept)
    request = replace(request, body={**body_of(request), "Image": instance.inventory.pins[kept].id})
    instance.take_down(instance.run(request))
    keys = {each.commit: each.key for each in instance.inventory.signed[FRONT]}
    assert len(set(keys.values())) == 2
    instance.keys = signer_files(ALICE, MALLORY, revoked=[MALLORY])
    instance.commit(UNCLAIMED.replace("MODE: plain", "MODE: other"), parent=instance.head)
    again = instance.run(request)
    signed = instance.inventory.containers[again].signed
    (revision,) = (r for r in instance.inventory.signed[FRONT] if r.shape == signed)
    assert revision.key == keys[revision.commit] != keys[by_mallory]


def test_a_service_without_a_move_has_no_revision_of_another_name() -> None:
    instance = Instance()
    instance.prepare()
    for name in ("api", "front"):
        request = labelled(WEB, DOCUMENTS, REVISION=revision_as(name, DOCUMENTS))
        assert rule(instance.send(request)) == "proof.unproven"


@pytest.mark.parametrize("name", ["web", "front"])
def test_a_revision_from_before_the_requirement_goes_on_once_an_operator_restarted_it(
    name: str,
) -> None:
    """Its container is from before the requirement, so its image is nobody's word but the controller's."""
    instance = Instance()
    assert instance.broker.state is not None
    signed = instance.broker.state.policy
    text = RENAMED if name == "front" else DOCUMENTS
    key = FRONT if name == "front" else WEB
    revision = revision_as("web", text)
    instance.broker.state.policy = signed.model_copy(update={"sources": ()})
    for request in prerequisites(text):
        assert instance.send(request).status < 300
    old = instance.run(labelled(key, text, REVISION=revision))
    instance.broker.state.policy = signed
    instance.commit(text)
    assert rule(instance.ask("POST", f"/containers/{old}/restart")) == "proof.unproven"
    instance.take_down(old)
    again = labelled(key, text, REVISION=revision)
    assert rule(instance.send(again)) == "proof.image"
    asked = {
        "act": "service.restart",
        "object": key,
        "revision": revision,
        "anew": True,
        "note": "",
    }
    reply = instance.ask("POST", "/trimtab/v1/records", asked, actor=OPERATOR)
    assert reply.status == 200, reply.body
    evil = labelled(key, text, REVISION=f"v2:{'0' * 64}")
    assert rule(instance.send(evil)) == "proof.unproven"
    new = instance.run(again)
    assert instance.ask("POST", f"/containers/{new}/restart").status == 204
    instance.take_down(new)
    pin = instance.inventory.pins[revision].id
    instance.run(replace(again, body={**body_of(again), "Image": pin}))
