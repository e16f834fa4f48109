"""Released volumes: the documents said ``retain: false``, and are gone now.

A volume is removed only after a dump, by an approved plan, and once no container has it. The controller
remembers which documents said so; a lost memory costs no data. Nothing is concluded while an unread
document possibly declares the volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.core.service.prune_memory import PruneMemory
from controller.model.desired.desired import Desired
from controller.model.desired.plan import Blocked
from controller.model.names import Key, qualified
from controller.model.observed import Observed, ObservedVolume

CODE = "PrunePending"


@dataclass(frozen=True, slots=True)
class ReleasedVolumes:
    """The released volumes to remove now, and the waiting ones."""

    going: frozenset[Key]
    blocked: tuple[Blocked, ...]
    memory: PruneMemory


def decide(
    desired: Desired, observed: Observed, memory: PruneMemory, *, approved: bool
) -> ReleasedVolumes:
    """Return the volumes to remove, the blocked volumes, and the new memory."""
    volumes = _volumes_by_key(desired, observed, memory)
    kept = {one.key for one in desired.volumes if one.spec.retain}
    declared = {one.key for one in desired.volumes}
    unread = {key for key in memory.released if desired.is_blind_for(key)}
    remembered = declared - kept | (memory.released - declared) & (volumes.keys() | unread)
    leaving = sorted(remembered - declared - unread)
    dumped = {key for key in leaving if volumes[key].dumped and not _users(observed, volumes[key])}
    going = frozenset(dumped if approved else dumped & memory.removing)
    blocked = tuple(_blocked(key, volumes[key], observed) for key in leaving if key not in going)
    memory = replace(memory, released=frozenset(remembered), removing=going)
    return ReleasedVolumes(going, blocked, memory)


def _volumes_by_key(
    desired: Desired, observed: Observed, memory: PruneMemory
) -> dict[Key, ObservedVolume]:
    named = {qualified(key.namespace, key.name): key for key in memory.released}
    bound = {one.engine_name for one in desired.volumes}
    return {
        named[volume.name]: volume
        for volume in observed.volumes
        if volume.name in named.keys() - bound
        # What an operator adopted, what a client made, or what moved away isn't the documents'.
        and volume.ours
        and volume.origin == "controller"
        and not volume.belongs_to
    }


def _users(observed: Observed, volume: ObservedVolume) -> list[str]:
    return sorted(each.name for each in observed.containers if volume.name in each.writes)


def _blocked(key: Key, volume: ObservedVolume, observed: Observed) -> Blocked:
    users = _users(observed, volume)
    if users:
        reason, remedy = f"{users[0]} has it", "wait until its containers are removed"
    elif not volume.dumped:
        reason = "it was never dumped"
        remedy = f"run `trimtab volume dump {volume.name} -o FILE`"
    else:
        reason = f"its data was dumped at {volume.dumped} and needs an approval to go"
        remedy = "look at `trimtab plan`, then approve it with `trimtab approve`"
    message = f"the volume {volume.name} would be removed with its data, but {reason}"
    return Blocked(key, CODE, message, f"{remedy}; to keep it, put its document back")
