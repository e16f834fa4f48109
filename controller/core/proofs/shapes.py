"""The form in which a request is compared with a rendered document.

The controller's own choices are taken out of a create: the slot, the occasion of a run, and
when a container gets the names of its service. The number of a job's runs is compared with the
newest document, apart from the revision. Everything else is one digest, the *shape*. The broker
loads no parser of documents for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.encoding.canonical_json import digest
from controller.core.engine_api.comparable_fields import LIMITS
from controller.model import names

#: The names of a container by network.
Endpoints = tuple[tuple[str, tuple[str, ...]], ...]
#: The members of a create's ``HostConfig`` that an update can change.
UPDATES: Final = (*LIMITS.values(), "RestartPolicy")


@dataclass(frozen=True, slots=True)
class CreateShape:
    """A create, without the controller's choices."""

    shape: str
    #: The shape without the members that an update can change.
    base: str
    #: The values of these members.
    updates: Mapping[str, object]
    #: The image to run, and the reference in the document.
    image: str
    reference: str
    slot: str
    #: Why a run is made; '' for a container of a service.
    occasion: str
    #: The label of a run's completions; '' without one.
    completions: str
    endpoints: Endpoints


def shape_of_create(body: object, *, former: str = "") -> CreateShape | None:
    """Return the shape of a create's body; None for a body of another form.

    *former*: the shape that the create would have under an earlier name of its service.
    """
    if not isinstance(body, dict):
        return None
    labels = body.get("Labels")
    if not isinstance(labels, dict):
        return None
    if former:
        labels = {**labels, names.SERVICE: former}
    free = (names.SLOT, names.OCCASION, names.COMPLETIONS)
    slot, occasion, completions, reference = (labels.get(name, "") for name in (*free, names.IMAGE))
    image = body.get("Image", "")
    kept = {name: text for name, text in labels.items() if name not in free}
    rest = {**body, "Labels": kept, "Image": None}
    endpoints = _take_endpoints(rest)
    texts = (image, reference, slot, occasion, completions)
    if endpoints is None or not all(isinstance(each, str) for each in texts):
        return None
    host = rest.get("HostConfig", {})
    if not isinstance(host, dict):
        return None
    fixed = {name: value for name, value in host.items() if name not in UPDATES}
    shape, base = shape_of(rest), shape_of({**rest, "HostConfig": fixed})
    if shape is None or base is None:
        return None
    return CreateShape(shape, base, updates_of(host), *texts, endpoints)


def updates_of(host: Mapping[str, Any]) -> dict[str, object]:
    """Return the values that an update brings a container to, from the ``HostConfig`` of a create."""
    values = {name: host[name] for name in UPDATES if name in host}
    # Swap follows the memory (core.rules.container).
    swap = {"MemorySwap": values["Memory"]} if "Memory" in values else {}
    return values | swap


def are_same(name: str, one: object, other: object) -> bool:
    """Return True if a member of an update has the same value in both."""
    if name == "RestartPolicy" and isinstance(one, dict) and isinstance(other, dict):
        one, other = ({"MaximumRetryCount": 0, **each} for each in (one, other))
    return shape_of(one) == shape_of(other)


def shape_of(body: object) -> str | None:
    """Return the digest of a body; None for a value that no request has."""
    try:
        return digest(body)
    except TypeError:
        return None


def _take_endpoints(body: dict[str, object]) -> Endpoints | None:
    """Replace the endpoints of a body by the names of their networks, and return the endpoints."""
    config = body.get("NetworkingConfig")
    if config is None:
        return ()
    if not isinstance(config, dict) or config.keys() != {"EndpointsConfig"}:
        return None
    ends = config["EndpointsConfig"]
    if not isinstance(ends, dict):
        return None
    found = {network: _aliases(end) for network, end in ends.items()}
    body["NetworkingConfig"] = sorted(found)
    endpoints = tuple((name, each) for name, each in sorted(found.items()) if each is not None)
    return endpoints if len(endpoints) == len(found) else None


def _aliases(end: object) -> tuple[str, ...] | None:
    if not isinstance(end, dict) or not end.keys() <= {"Aliases"}:
        return None
    aliases = end.get("Aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
        return None
    return tuple(aliases)


def are_names_of(asked: Endpoints, declared: Mapping[str, tuple[str, ...]]) -> bool:
    """Return True if endpoints have the declared names, or none yet."""
    return all(
        network in declared and (not aliases or aliases == declared[network])
        for network, aliases in asked
    )
