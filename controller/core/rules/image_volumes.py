"""Volumes without a name: what a container gets at a path where its image declares a VOLUME, or
where the request asks for a volume, and nothing says which one.

The engine would make a volume with a random name there, which nobody finds again. The policy
decides instead (``images.anonymousVolumes``):

- ``refuse``: the create is refused; the remedy names the mount to add.
- ``slot``: a named volume that is kept. A service's replica gets the volume of its slot
  (``shop.redis.1.data-1a2b3c``), so its successor finds the same data. A client's container gets
  one that is named after the container; with ``--rm`` it gets a tmpfs, since nobody would ever
  look at the volume again.
- ``scratch``: a tmpfs of the policy's default size, empty at each start.

Names are deterministic, and no volume is ever removed here.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.engine_api.requests import MountRequest
from controller.core.rules.anonymous_volumes import uncovered, volume_name
from controller.core.rules.context import Case, name_of
from controller.model import names
from controller.model.names import qualified

# A create at the gate


def mounts_of(case: Case) -> tuple[MountRequest, ...]:
    """Return the mounts of a create: those asked for, each with its volume, and the policy's own.

    A container that is there already keeps what the engine made for it.
    """
    if case.facts is not None and case.facts.existing:
        return case.request.mounts
    asked = tuple(
        placed(case, mount) if mount.type == "volume" and not mount.source else mount
        for mount in case.request.mounts
    )
    image = case.image.volumes if case.image else ()
    paths = uncovered((*case.request.volumes, *image), (mount.target for mount in asked))
    if case.policy.images.anonymous_volumes == "refuse":
        return asked
    return (
        *asked,
        *(placed(case, MountRequest("volume", "", path, path="Image")) for path in paths),
    )


def placed(case: Case, mount: MountRequest) -> MountRequest:
    """Return a volume mount without a source as what the policy has there: a named volume or a tmpfs.

    Unchanged where the policy refuses: ``rules_image.anonymous_volumes`` reports it.
    """
    match case.policy.images.anonymous_volumes:
        case "slot" if not case.request.auto_remove:
            return replace(mount, source=volume_name(_holder(case), mount.target))
        case "slot" | "scratch":
            size = case.policy.resources.tmpfs.default
            return MountRequest(
                "tmpfs", "", mount.target, mount.read_only, path=mount.path, size=size
            )
        case _:
            return mount


def kept_volumes(case: Case) -> tuple[str, ...]:
    """Return the names of the volumes that the gate makes where they are absent.

    They are those that the policy mounts, and those that a client names, if it may. Of too many mounts
    there are none: an image can declare thousands, and each would be looked up.
    """
    if len(mounts_of(case)) > case.policy.mounts.max:
        return ()
    named = () if makes_named(case) else {mount.source for mount in case.request.mounts}
    # One without a name is the engine's own to make, where a mode of the rule lets it through.
    sources = (mount.source for mount in mounts_of(case) if mount.type == "volume")
    return tuple(source for source in sources if source and source not in named)


def makes_named(case: Case) -> bool:
    """Return True if a volume that the create names is made where it is absent."""
    return case.policy.mounts.create_volumes and not case.by_controller


def _holder(case: Case) -> str:
    if not case.by_controller:
        return name_of(case)
    slot = case.request.label(names.SLOT)
    return qualified(case.namespace, f"{case.service}.{slot}")
