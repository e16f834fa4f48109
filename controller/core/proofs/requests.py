"""The form in which a request is compared with a rendered document.

The controller's own choices are taken out of a create: the slot, the occasion of a run, and
when a container gets the names of its service. The number of a job's runs is compared with the
newest document, apart from the revision. Everything else is one digest, the *shape*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.encoding.canonical_json import digest
from controller.model import names

#: The names of a container by network.
Endpoints = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class CreateShape:
    """A create, without the controller's choices."""

    shape: str
    #: The image to run, and the reference in the document.
    image: str
    reference: str
    slot: str
    #: Why a run is made; '' for a container of a service.
    occasion: str
    #: The label of a run's completions; '' without one.
    completions: str
    endpoints: Endpoints


def shape_of_create(body: object) -> CreateShape | None:
    """Return the shape of a create's body; None for a body of another form."""
    if not isinstance(body, dict):
        return None
    labels = body.get("Labels")
    if not isinstance(labels, dict):
        return None
    free = (names.SLOT, names.OCCASION, names.COMPLETIONS)
    slot, occasion, completions, reference = (labels.get(name, "") for name in (*free, names.IMAGE))
    image = body.get("Image", "")
    kept = {name: text for name, text in labels.items() if name not in free}
    rest = {**body, "Labels": kept, "Image": None}
    endpoints = _take_endpoints(rest)
    texts = (image, reference, slot, occasion, completions)
    if endpoints is None or not all(isinstance(each, str) for each in texts):
        return None
    shape = shape_of(rest)
    return None if shape is None else CreateShape(shape, *texts, endpoints)


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
