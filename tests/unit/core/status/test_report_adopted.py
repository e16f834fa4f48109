"""What is reported of containers that were adopted as found."""

from __future__ import annotations

from dataclasses import replace

from controller.model.observed import HostPort
from tests.unit.core.status.test_report import only, said, world
from tests.worlds import container, declared, engine, service


def test_an_adopted_container_is_its_services_slot_and_its_gaps_are_named() -> None:
    there = replace(container(), adopted=True, gaps=("logs", "writable-root"))
    one = world(declared(service()), engine(there))
    assert one.plan.actions == ()
    resource = only(one)
    assert said(resource)["Ready"][0] == "True"
    status, reason, message = said(resource)["AdoptedAsFound"]
    assert (status, reason) == ("True", "Gaps")
    assert message == (
        f"slot 1: {there.name} lacks the document's log bounds (logs), a read-only root "
        "(writable-root) (its next replacement is an ordinary container)"
    )
    assert resource["slots"][0]["gaps"] == ["logs", "writable-root"]


def test_without_gaps_and_without_adoption() -> None:
    one = world(declared(service()), engine(replace(container(), adopted=True)))
    assert said(only(one))["AdoptedAsFound"][1] == "NoGaps"
    ordinary = world(declared(service()), engine(container()))
    assert "AdoptedAsFound" not in said(only(ordinary))


def test_ports_that_an_adopted_container_publishes_on_every_address_are_reported_so() -> None:
    web = service(ports=[{"container": 8080, "host": 18080}])
    found = (HostPort("0.0.0.0", 18080), HostPort("::", 18080))
    there = replace(container(), revision=web.revision, adopted=True, gaps=("ports",), ports=found)
    assert only(world(declared(web), engine(there)))["ports"][0]["address"] == "0.0.0.0"
    there = replace(there, gaps=())
    assert only(world(declared(web), engine(there)))["ports"][0]["address"] == "127.0.0.1"


def test_the_image_of_a_container_is_shown_if_another_one_is_declared() -> None:
    earlier = replace(container(rev="a"), image="team/web:1.0")
    for there, image in ((earlier, "team/web:1.0"), (container(), None)):
        row = only(world(declared(service()), engine(there)))
        assert row["slots"][0].get("image") == image
