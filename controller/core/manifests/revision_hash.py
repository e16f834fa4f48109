"""The revision of a slot: what a replica was made from, as one word.

A revision is ``v1:`` and the SHA-256 of the canonical slot spec *as written*: no injected default,
no resolved digest, and nothing that may change while a replica lives on. So neither a new default
of ours nor a field that is added later makes anything stale; golden vectors in the tests hold
that, for another revision would replace every container of every host.
"""

from __future__ import annotations

from controller.core.encoding.canonical_json import digest
from controller.model.desired.desired import Network, Service, Volume
from controller.model.desired.fields import AS_WRITTEN
from controller.model.desired.spec import ServiceSpec
from controller.model.names import Key

VERSION = "v1"

#: What says how many replicas run, when, or how they are replaced or fetched, and not what they are.
NOT_OF_THE_SLOT = frozenset(
    {"state", "suspend", "replicas", "pull_policy", "rollout", "depends_on"}
)


def slot_spec(spec: ServiceSpec) -> dict[str, object]:
    """Return what of a spec makes a replica: only what was set to something else than its default.

    JSON without floats: CPUs are whole thousandths.
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
    """Return what makes a replica as JSON that reads as a ServiceSpec again, with its revision."""
    return spec.model_dump_json(
        by_alias=True,
        exclude_defaults=True,
        exclude=set(NOT_OF_THE_SLOT),
        context=AS_WRITTEN,
    )


def service_text(spec: ServiceSpec) -> str:
    """Return what belongs to a service as a whole as JSON that reads as a ServiceSpec, given an image."""
    return spec.model_dump_json(
        by_alias=True, exclude_defaults=True, include=set(NOT_OF_THE_SLOT), context=AS_WRITTEN
    )


def spec_digest(resource: Service | Network | Volume) -> str:
    """Return a digest of all that a resource asks for, wherever in the files it stands.

    Defaults aren't in it, so that a field that is added later is no change.
    """
    text = resource.spec.model_dump_json(by_alias=True, exclude_defaults=True)
    labels = resource.labels if isinstance(resource, Service) else ()
    return digest([resource.owner, text, [list(label) for label in labels]])


def revision_of(owner: str, key: Key, spec: ServiceSpec) -> str:
    """Return the revision of a service's slots, ``v1:`` and 64 hex digits."""
    slot = {
        "namespace": key.namespace,
        "name": key.name,
        "owner": owner,
        "spec": slot_spec(spec),
    }
    return f"{VERSION}:{digest(slot)}"
