"""The labels that the broker shows for an adopted container."""

from __future__ import annotations

from controller.core.adoption.likeness import labels_of, match_labels, show_on_inspect, show_on_row
from controller.model.inventory import ContainerItem
from controller.model.observed import Settings

ITEM = ContainerItem(
    id="a" * 64,
    namespace="shop",
    service="web",
    slot=2,
    revision="v2:" + "0" * 64,
    owner="team",
    origin="controller",
    intent="i",
    image="web:1",
    admitted=Settings("old"),
    adopted=True,
)


def test_own_labels_are_shown_over_forged_ones() -> None:
    row = {"Id": ITEM.id, "Labels": {"io.trimtab.owner": "mallory", "tier": "web"}}
    shown = show_on_row(row, ITEM, "i1")["Labels"]
    assert shown["io.trimtab.owner"] == "team"
    assert shown["tier"] == "web"
    inspect = {"Config": {"Labels": None, "Env": ["A=1"]}}
    config = show_on_inspect(inspect, ITEM, "i1")["Config"]
    assert config == {"Env": ["A=1"], "Labels": labels_of(ITEM, "i1")}


def test_filters_match_the_shown_labels_as_the_engine_matches() -> None:
    labels = labels_of(ITEM, "i1")
    assert match_labels(labels, ["io.trimtab.managed=true", "io.trimtab.slot"])
    assert not match_labels(labels, ["io.trimtab.managed=true", "io.trimtab.service=db"])
    assert not match_labels(labels, ["tier"])
    assert match_labels(labels, [])
