"""Jobs with the image of a service, and adopted volumes and networks, under signed admission."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.core.jobs.rollout_hooks import job_for, occasion_of
from controller.engine.requests import OutgoingRequest, create_request
from controller.model import names
from controller.model.desired.plan import CreateContainer
from controller.model.names import Key, run_name
from controller.model.records import Precondition, Reply
from tests.unit.broker.signed.forged_requests import body_of
from tests.unit.broker.signed.instance import (
    OPERATOR,
    Instance,
    create_of,
    desired_of,
    policy_of,
)
from tests.unit.broker.test_signed_acts import rule

WEB, API, MIGRATE = "Service/shop/web", "Service/shop/api", "Job/shop/migrate"
DOCUMENTS = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: shop, owner: team}
spec:
  image: trimtab.local/web:1
  network: {mode: declared, attach: [{name: back}]}
  mounts: [{type: volume, source: data, target: /data}]
  rollout: {after: [migrate]}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: api, namespace: shop, owner: team}
spec: {image: "trimtab.local/db:1", network: {mode: none}, rollout: {after: [migrate, plain]}}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: migrate, namespace: shop, owner: team}
spec: {image: {fromService: true}, trigger: Rollout, network: {mode: none}, command: [/bin/serve]}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: plain, namespace: shop, owner: team}
spec: {image: "trimtab.local/db:2", trigger: Rollout, network: {mode: none}}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: data, namespace: shop, owner: team}
spec: {engineName: legacy_data}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, namespace: shop, owner: team}
spec: {engineName: legacy_back}
"""


@pytest.fixture
def instance() -> Instance:
    made = Instance()
    made.commit(DOCUMENTS)
    for name, namespace in (("legacy_data", "shop"), ("spare_data", "shop")):
        body = {"Name": name, "Driver": "local"}
        made.engine.call("POST", "/volumes/create", json.dumps(body).encode())
        adopt(made, "volume", name, namespace)
    for name in ("legacy_back", "spare_back"):
        network = {"Name": name, "Driver": "bridge", "Internal": True}
        made.engine.call("POST", "/networks/create", json.dumps(network).encode())
        adopt(made, "network", name, "shop")
    return made


def adopt(instance: Instance, kind: str, name: str, namespace: str) -> None:
    body = {"act": "adopt-object", "kind": kind, "object": name}
    body |= {"namespace": namespace, "owner": "team"}
    reply = instance.ask("POST", "/trimtab/v1/records", body, actor=OPERATOR)
    assert reply.status == 200, reply.body


def run_of(
    service: str,
    *,
    image: str = "",
    job: str = MIGRATE,
    text: str = DOCUMENTS,
    number: int = 1,
) -> OutgoingRequest:
    """Return the create of a job's run for the rollout of a service."""
    desired = desired_of(text)
    of, declared = desired.workload(Key.parse(service)), desired.workload(Key.parse(job))
    assert of is not None
    assert declared is not None
    made = job_for(declared, of)
    target = run_name("shop", made.key.name, number=number, revision=made.revision)
    action = CreateContainer(
        object=made.key,
        target=target,
        cause="c",
        slot=number,
        precondition=Precondition(absent=target),
        service=made,
        image=image or made.spec.image,
        with_alias=False,
        occasion=occasion_of(of),
    )
    return create_request(action, policy_of("0" * 40).networks.names)


def pin_of(instance: Instance, identifier: str) -> str:
    revision = instance.inventory.containers[identifier].revision
    return str(instance.inventory.pins[revision].id)


@pytest.mark.parametrize("service", [WEB, API])
def test_a_job_runs_with_the_image_of_each_service_that_names_it(
    instance: Instance, service: str
) -> None:
    pin = pin_of(instance, instance.run(create_of(service, DOCUMENTS)))
    run = instance.run(run_of(service, image=pin))
    assert instance.inventory.containers[run].signed


def with_label(request: OutgoingRequest, **labels: str) -> OutgoingRequest:
    body = body_of(request)
    changed = {getattr(names, name): text for name, text in labels.items()}
    return replace(request, body={**body, "Labels": {**body["Labels"], **changed}})


def test_no_job_runs_with_another_image(instance: Instance) -> None:
    web = pin_of(instance, instance.run(create_of(WEB, DOCUMENTS)))
    api = pin_of(instance, instance.run(create_of(API, DOCUMENTS)))
    occasion = body_of(run_of(API))["Labels"][names.OCCASION]
    forged = {
        "the other service's image": run_of(WEB, image=api),
        "an image by its name": run_of(WEB, image="trimtab.local/db:1"),
        "the occasion of the other service": with_label(run_of(WEB, image=web), OCCASION=occasion),
        "both of the other service": with_label(run_of(WEB, image=api), OCCASION=occasion),
        "on request": with_label(run_of(WEB, image=web), OCCASION="manual:x"),
        "the reference of another image": with_label(
            run_of(WEB, image=web), IMAGE="trimtab.local/db:1"
        ),
        "a job of another image of that repository": run_of(API, image=api, job="Job/shop/plain"),
        "another command": replace(
            run_of(WEB, image=web), body={**body_of(run_of(WEB, image=web)), "Cmd": ["/bin/sh"]}
        ),
        "without a service": create_of(MIGRATE, DOCUMENTS, image=web),
        "a revision that isn't declared": run_of(
            WEB, image=web, text=DOCUMENTS.replace("target: /data", "target: /other")
        ),
    }
    rules = {what: rule(instance.send(request)) for what, request in forged.items()}
    assert rules.pop("a job of another image of that repository") == "proof.image"
    assert all(found.startswith(("proof.", "job.", "image.")) for found in rules.values()), rules
    assert instance.send(run_of(WEB, image=web)).status == 201


def test_an_earlier_image_of_a_service_counts_for_no_rollout(instance: Instance) -> None:
    """A success of that run would let a rollout go on without the job of the image that is rolled out."""
    api = pin_of(instance, instance.run(create_of(API, DOCUMENTS)))
    ran = instance.run(run_of(API, image=api))
    newer = DOCUMENTS.replace('image: "trimtab.local/db:1"', 'image: "trimtab.local/web:1"')
    instance.commit(newer, parent=instance.head)
    assert instance.inventory.containers[ran].signed
    earlier = run_of(API, image=api, number=2)
    for service in (WEB, API):
        occasion = body_of(run_of(service, text=newer))["Labels"][names.OCCASION]
        refused = instance.send(with_label(earlier, OCCASION=occasion))
        assert rule(refused) == "proof.unproven", service


def test_adopted_objects_are_used_by_their_document_alone(instance: Instance) -> None:
    for text in (
        DOCUMENTS.replace("legacy_data", "spare_data"),
        DOCUMENTS.replace("legacy_back", "spare_back"),
    ):
        assert rule(instance.send(create_of(WEB, text))) == "proof.unproven"
    honest = create_of(WEB, DOCUMENTS)
    body = body_of(honest)
    body["HostConfig"]["Mounts"][0]["Source"] = "spare_data"
    assert rule(instance.send(replace(honest, body=body))) == "proof.unproven"
    honest_api = create_of(API, DOCUMENTS)
    body = body_of(honest_api)
    mount = {"Type": "volume", "Source": "legacy_data", "Target": "/data"}
    body["HostConfig"]["Mounts"] = [mount]
    assert rule(instance.send(replace(honest_api, body=body))) == "proof.unproven"
    web = instance.run(honest)
    for network, wanted in (("spare_back", "network.endpoints"), ("legacy_back", "")):
        names_ = {"Container": web, "EndpointConfig": {"Aliases": ["web"]}}
        instance.ask("POST", f"/networks/{network}/disconnect", {"Container": web}, actor=OPERATOR)
        reply: Reply = instance.ask("POST", f"/networks/{network}/connect", names_)
        assert rule(reply) == wanted, (network, reply)


def test_no_document_makes_an_adopted_object(instance: Instance) -> None:
    made = instance.broker.state.proofs.renderings["shop"]  # type: ignore[union-attr]
    assert made.objects.keys() == set()
    labels = {names.OWNER: "team", names.NAMESPACE: "shop"}
    for name in ("legacy_data", "shop.data"):
        body = {"Name": name, "Driver": "local", "Labels": labels}
        reply = instance.ask("POST", "/volumes/create", body)
        assert rule(reply) in {"name.mismatch", "proof.unproven"}, name
