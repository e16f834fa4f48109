"""The revision of a slot: an identifier of everything that makes a replica.

A revision is ``v1:`` and the SHA-256 of the canonical slot spec *as written*. Injected defaults,
resolved digests and fields with later changes during a replica's life are left out. A new default
or a new field therefore makes no replica outdated. Golden vectors in the tests hold this rule: a
changed revision would replace every container of every host.
"""

from __future__ import annotations

from controller.core.encoding.canonical_json import digest
from controller.model.desired.desired import Network, Service, Volume
from controller.model.desired.field_types import AS_WRITTEN
from controller.model.desired.spec import ServiceSpec
from controller.model.names import Key

VERSION = "v1"

#: Fields for the number of replicas, and for when and how they are replaced or pulled.
NOT_OF_THE_SLOT = frozenset(
    {"state", "suspend", "replicas", "pull_policy", "rollout", "depends_on"}
)


def slot_spec(spec: ServiceSpec) -> dict[str, object]:
    """Return the part of a spec that makes a replica: only values other than the default.

    The result is JSON without floats: CPUs are thousandths.
    """
    written: dict[str, object] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude=set(NOT_OF_THE_SLOT)
    )
    if spec.resources.cpus is not None:
        resources = written["resources"]
        assert isinstance(resources, dict), "cpus are set, so resources are written"
        written["resources"] = {**resources, "cpus": round(spec.resources.cpus * 1000)}
    return written


def slot_text(spec: ServiceSpec) -> str:
    """Return the slot spec as JSON. As a ServiceSpec, the JSON has the same revision."""
    return spec.model_dump_json(
        by_alias=True, exclude_defaults=True, exclude=set(NOT_OF_THE_SLOT), context=AS_WRITTEN
    )


def service_text(spec: ServiceSpec) -> str:
    """Return the service-wide fields as JSON; with an image, it parses to a ServiceSpec."""
    return spec.model_dump_json(
        by_alias=True, exclude_defaults=True, include=set(NOT_OF_THE_SLOT), context=AS_WRITTEN
    )


def spec_digest(resource: Service | Network | Volume) -> str:
    """Return a digest of everything requested by a resource, independent of its place.

    Defaults are left out, so a new field changes no digest.
    """
    text = resource.spec.model_dump_json(by_alias=True, exclude_defaults=True)
    labels = resource.labels if isinstance(resource, Service) else ()
    return digest([resource.owner, text, [list(label) for label in labels]])


def revision_of(owner: str, key: Key, spec: ServiceSpec) -> str:
    """Return the revision of a service's slots: ``v1:`` and 64 hex digits."""
    slot = {"namespace": key.namespace, "name": key.name, "owner": owner, "spec": slot_spec(spec)}
    return f"{VERSION}:{digest(slot)}"
