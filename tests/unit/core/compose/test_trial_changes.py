"""Gains and losses of a project."""

from __future__ import annotations

from controller.core.compose.trial import changes_of, reach_of
from controller.model.policy.document import Policy
from tests.unit.core.compose.canonical import canonical, desired

SHOP = """\
services:
  web:
    image: x:1
    mem_limit: 64m
    user: "1000"
    ports: [{target: 80, published: '8080'}]
  worker:
    image: x:1
  bad:
    image: x:1
    privileged: true
volumes:
  data: {}
"""


def test_gains_and_losses_name_their_services() -> None:
    state = desired(SHOP)
    project = canonical(SHOP)
    policy = Policy.from_json({"name": "test"})
    found = changes_of(project, state, reach_of(project, state), policy)
    texts = {(each.kind, each.services, each.text.partition(":")[0]) for each in found}
    later = "a change stops a container only when its successor is available"
    assert ("gain", ("worker",), later) in texts
    assert ("gain", ("web", "worker"), "a container's successor has its address") in texts
    without = Policy.from_json({"name": "test", "networks": {"addressPools": []}})
    found = changes_of(project, state, reach_of(project, state), without)
    assert [each.services for each in found if "another address" in each.text] == [
        ("web", "worker")
    ]
    assert ("gain", ("worker",), "a memory limit of 2Gi and at most 256 processes") in texts
    assert ("loss", ("bad",), "isn't started") in texts
    assert ("loss", ("web", "worker"), "no way to the internet") in texts
    assert ("loss", ("web",), "published ports") in texts
    (dropped,) = [each for each in found if each.text.startswith("no capabilities")]
    assert dropped.services == ("worker",)
    assert "DAC_OVERRIDE" in dropped.text
    assert "CHOWN" not in dropped.text.partition(":")[0]
    (moved,) = [each for each in found if "volume" in each.text and "shop.data" in each.text]
    assert moved.services == ("data",)
