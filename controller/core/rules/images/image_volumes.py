"""The policy's mounts for unnamed volumes: a VOLUME of the image, or one that the request asks for.

Without them the engine would create a volume with a random name, lost to later containers.
The policy decides instead (``images.anonymousVolumes``):

- ``refuse``: the create is refused; the remedy names the mount to add.
- ``slot``: a named, permanent volume. A service's replica gets the volume of its slot
  (``shop.redis.1.data-1a2b3c``), so its successor finds the same data. A client's container gets
  a volume named after the container. With ``--rm`` it gets a tmpfs instead, since nothing would
  use the volume again.
- ``scratch``: a tmpfs of the policy's default size, empty at each start.

Names are deterministic, and no volume is ever removed here.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.engine_api.requests import MountRequest
from controller.core.rules.context import Case, name_of
from controller.core.rules.images.anonymous_volumes import uncovered, volume_name
from controller.model import names
from controller.model.names import qualified

# A create at the gate


def mounts_of(case: Case) -> tuple[MountRequest, ...]:
    """Return the mounts of a create: the requested ones with their volumes, then the policy's own.

    An existing container keeps its mounts.
    """
    if case.facts is not None and case.facts.existing:
        return case.request.mounts
    asked = tuple(
        _with_source(case, mount) if mount.type == "volume" and not mount.source else mount
        for mount in case.request.mounts
    )
    paths = uncovered(case.request.volumes, (mount.target for mount in asked))
    if case.policy.images.anonymous_volumes == "refuse":
        return asked
    return (
        *asked,
        *(_with_source(case, MountRequest("volume", "", path, path="Image")) for path in paths),
    )


def _with_source(case: Case, mount: MountRequest) -> MountRequest:
    """Return an unnamed volume mount as a named volume or a tmpfs, by the policy.

    Unchanged under ``refuse``: the rule ``image.anonymous_volumes`` reports the mount.
    """
    match case.policy.images.anonymous_volumes:
        case "slot" if not case.request.auto_remove and not _is_run(case):
            return replace(mount, source=volume_name(_holder(case), mount.target))
        case "slot" | "scratch":
            size = case.policy.resources.tmpfs.default
            return MountRequest(
                "tmpfs", "", mount.target, mount.read_only, path=mount.path, size=size
            )
        case _:
            return mount


def kept_volumes(case: Case) -> tuple[str, ...]:
    """Return the names of the volumes that the gate creates if they are absent.

    These are the policy's own volumes and, if the policy allows, a client's named volumes.
    Empty if there are too many mounts: an image can declare thousands, each a look-up.
    """
    if len(mounts_of(case)) > case.policy.mounts.max:
        return ()
    named = () if makes_named(case) else {mount.source for mount in case.request.mounts}
    # A mode of the rule may tolerate an unnamed volume: then the engine creates it.
    sources = (mount.source for mount in mounts_of(case) if mount.type == "volume")
    return tuple(source for source in sources if source and source not in named)


def makes_named(case: Case) -> bool:
    """Return True if the gate creates an absent volume that the create names."""
    return case.policy.mounts.create_volumes and not case.by_controller


def _holder(case: Case) -> str:
    if not case.by_controller:
        return name_of(case)
    slot = case.request.label(names.SLOT)
    return qualified(case.namespace, f"{case.service}.{slot}")


def _is_run(case: Case) -> bool:
    """Return True for a run of a job: no later run would find its volume, so it gets a tmpfs."""
    return names.run_of_slot(case.request.label(names.SLOT)) > 0
