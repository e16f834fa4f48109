"""Updates under signed admission: declared limits in place, rollbacks of limits, and what is forged."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.engine_api.translate import limits_body
from controller.core.records.inventory_json import from_json, to_json
from controller.model.desired.desired import DeclaredLimits
from controller.model.names import Key
from controller.model.records import Reply
from tests.unit.broker.signed.instance import DOCUMENTS, Instance, create_of, desired_of
from tests.unit.broker.test_signed_acts import WEB, rule

LARGER = DOCUMENTS.replace("memory: 64Mi", "memory: 128Mi")
FASTER = DOCUMENTS.replace("memory: 64Mi, cpus: 0.5", "memory: 96Mi, cpus: 0.75")
STOPPED = DOCUMENTS.replace(
    "  image: trimtab.local/web:1", "  image: trimtab.local/web:1\n  state: Stopped"
)
OTHER = LARGER.replace("MODE: plain", "MODE: other")
GONE = DOCUMENTS.partition("---\n")[2]


@pytest.fixture
def instance() -> Instance:
    made = Instance()
    made.prepare()
    return made


def limits(text: str) -> dict[str, Any]:
    """Return the body by which the controller brings a container to the limits of a document."""
    service = desired_of(text).workload(Key.parse(WEB))
    assert service is not None
    return limits_body(DeclaredLimits.of(service.spec).engine_limits)


def update(instance: Instance, identifier: str, **body: Any) -> Reply:
    return instance.ask("POST", f"/containers/{identifier}/update", body)


def test_declared_limits_are_changed_in_place_and_back(instance: Instance) -> None:
    web = instance.run(create_of(WEB))
    for text in (LARGER, FASTER):
        instance.prepare(text)
        assert rule(update(instance, web, **limits(text))) == ""
    # Back to what ran: the newest commit doesn't declare these limits any more.
    assert rule(update(instance, web, **limits(LARGER))) == ""
    # A container that is lost then is created anew with the same limits, also by another broker.
    item = instance.inventory.containers[web]
    instance.restart()
    assert instance.upload(instance.repository.proof(instance.head)).status == 200
    instance.take_down(web)
    assert from_json(to_json(instance.inventory)) == instance.inventory
    pin = instance.inventory.pins[item.revision]
    instance.run(create_of(WEB, LARGER, attempt=2, image=pin.id))


def test_values_of_two_revisions_are_of_none(instance: Instance) -> None:
    web = instance.run(create_of(WEB))
    for text in (LARGER, FASTER, DOCUMENTS):
        instance.prepare(text)
        assert rule(update(instance, web, **limits(text))) == ""
    mixed = {**limits(LARGER), "NanoCpus": limits(FASTER)["NanoCpus"]}
    assert rule(update(instance, web, **mixed)) == "proof.update"


def test_limits_alone_make_no_other_revision_known(instance: Instance) -> None:
    """A superseded commit whose containers never ran isn't known by a container that got its limits."""
    web = instance.run(create_of(WEB))
    instance.prepare(OTHER)
    assert rule(update(instance, web, **limits(OTHER))) == ""
    instance.prepare()
    assert rule(instance.send(create_of(WEB, OTHER, attempt=2))) == "proof.unproven"


@pytest.mark.parametrize("text", [STOPPED, GONE, OTHER], ids=["stopped", "gone", "replaced"])
def test_the_restarts_are_taken_from_a_container_that_is_stopped(
    instance: Instance, text: str
) -> None:
    web = instance.run(create_of(WEB))
    instance.prepare(text)
    assert rule(update(instance, web, RestartPolicy={"Name": "no"})) == ""
    assert instance.ask("POST", f"/containers/{web}/stop").status == 204


def test_restarts_are_given_back_to_what_goes_on(instance: Instance) -> None:
    web = instance.run(create_of(WEB))
    instance.prepare(OTHER)
    assert rule(update(instance, web, RestartPolicy={"Name": "no"})) == ""
    assert rule(update(instance, web, RestartPolicy={"Name": "always"})) == ""
    assert rule(update(instance, web, RestartPolicy={"Name": "unless-stopped"})) != ""
