"""The labels that the broker shows for an adopted container, or for one with too many to be read.

An existing container cannot get labels. Clients find the containers of an instance by labels, so
the broker adds labels to the engine's answers. The labels come from the inventory alone, and replace
every label of the container with the same key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.core.encoding.json_members import mapping_of
from controller.model import names
from controller.model.inventory import ContainerItem


def labels_of(item: ContainerItem, instance: str) -> dict[str, str]:
    """Return the labels of a container by the inventory."""
    adopted = {names.ADOPTED: "true"} if item.adopted else {}
    return {
        names.MANAGED: "true",
        names.INSTANCE: instance,
        names.INTENT: item.intent,
        names.ORIGIN: item.origin,
        names.OWNER: item.owner,
        names.NAMESPACE: item.namespace,
        names.SERVICE: item.service,
        names.SLOT: item.slot_label,
        names.REVISION: item.revision,
        names.IMAGE: item.image,
        **adopted,
    }


def place_labels(item: ContainerItem) -> dict[str, str]:
    """Return the labels that a move changes, with the present names."""
    return {names.NAMESPACE: item.namespace, names.SERVICE: item.service}


def show_on_inspect(inspect: dict[str, Any], item: ContainerItem, instance: str) -> dict[str, Any]:
    """Return the inspect of a container, with the shown labels if it was adopted."""
    if not item.adopted:
        return inspect
    config = mapping_of(inspect.get("Config"))
    labels = {**mapping_of(config.get("Labels")), **labels_of(item, instance)}
    return {**inspect, "Config": {**config, "Labels": labels}}


def show_on_row(row: Mapping[str, Any], item: ContainerItem, instance: str) -> dict[str, Any]:
    """Return the row of an adopted container in a list, with the shown labels."""
    return {**row, "Labels": {**mapping_of(row.get("Labels")), **labels_of(item, instance)}}


def match_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Return True if labels match each ``KEY`` or ``KEY=VALUE`` of a filter, as the engine does."""
    for each in wanted:
        key, has_value, value = each.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    return True
