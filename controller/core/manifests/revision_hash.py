"""The revision of a slot: an identifier of everything that makes a replica.

A revision is ``v2:`` and the SHA-256 of the canonical slot spec *as written*. Injected defaults,
resolved digests and limits that an engine can change on a living container are left out. A new
default or a new field therefore makes no replica outdated. Golden vectors in the tests hold this
rule: a changed revision would replace every container of every host.

Whether a limit is written is part of the revision, because no engine can unset a limit.
"""

from __future__ import annotations

from controller.core.encoding.json_values import digest
from controller.model.desired.desired import IN_PLACE_RESOURCES, Config, Network, Service, Volume
from controller.model.desired.spec.fields import AS_WRITTEN
from controller.model.desired.spec.service import JOB_FIELDS, ServiceSpec
from controller.model.names import Key

VERSION = "v2"

#: Kind, name and content of the files that are part of a revision.
Contents = tuple[tuple[str, str, str], ...]

#: Fields for the number of replicas, and for when and how they are replaced or pulled.
NOT_OF_THE_SLOT = frozenset(
    {"state", "suspend", "replicas", "pull_policy", "rollout", "depends_on"}
)
_EXCLUDED = {*NOT_OF_THE_SLOT, *JOB_FIELDS}


def slot_spec(spec: ServiceSpec) -> dict[str, object]:
    """Return the part of a spec that makes a replica: only values other than the default.

    The result is JSON without floats: CPUs are thousandths.
    """
    written: dict[str, object] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude=_EXCLUDED
    )
    if spec.resources.cpus is not None:
        resources = written["resources"]
        assert isinstance(resources, dict), "cpus are set, so resources are written"
        written["resources"] = {**resources, "cpus": round(spec.resources.cpus * 1000)}
    return written


def slot_text(spec: ServiceSpec) -> str:
    """Return the slot spec as JSON. As a ServiceSpec, the JSON has the same revision."""
    return spec.model_dump_json(
        by_alias=True, exclude_defaults=True, exclude=_EXCLUDED, context=AS_WRITTEN
    )


def service_text(spec: ServiceSpec) -> str:
    """Return the service-wide fields as JSON; with an image, it parses to a ServiceSpec."""
    return spec.model_dump_json(
        by_alias=True, exclude_defaults=True, include=set(NOT_OF_THE_SLOT), context=AS_WRITTEN
    )


def spec_digest(resource: Service | Network | Volume | Config) -> str:
    """Return a digest of everything requested by a resource, independent of its place.

    Defaults are left out, so a new field changes no digest.
    """
    text = resource.spec.model_dump_json(by_alias=True, exclude_defaults=True)
    labels = resource.labels if isinstance(resource, Service) else ()
    return digest([resource.owner, text, [list(label) for label in labels]])


def revision_of(owner: str, key: Key, spec: ServiceSpec, contents: Contents = ()) -> str:
    """Return the revision of a service's slots: ``v2:`` and 64 hex digits.

    *contents* are those of the mounted files (``core.files.mounts.revision_contents``).
    """
    written = slot_spec(spec)
    written.pop("restart", None)
    resources = written.get("resources")
    if isinstance(resources, dict):
        set_only = {name: True for name in IN_PLACE_RESOURCES if name in resources}
        written["resources"] = {**resources, **set_only}
    files = {"files": [list(each) for each in contents]} if contents else {}
    # A job and a service never share a revision, nor the image that is pinned to it.
    kind = {} if key.kind == "Service" else {"kind": key.kind}
    names = {"namespace": key.namespace, "name": key.name, "owner": owner}
    return f"{VERSION}:{digest({**kind, **names, 'spec': written, **files})}"
