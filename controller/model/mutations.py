"""The mutations that pass the gate, by their name in the journal (``request.route``)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Final

from controller.model.names import Key


class Mutation(StrEnum):
    """One kind of change to the engine. Recovery and the inventory are tables over these."""

    CONTAINER_CREATE = "container.create"
    CONTAINER_START = "container.start"
    CONTAINER_STOP = "container.stop"
    CONTAINER_RESTART = "container.restart"
    CONTAINER_KILL = "container.kill"
    CONTAINER_PAUSE = "container.pause"
    CONTAINER_UNPAUSE = "container.unpause"
    CONTAINER_RENAME = "container.rename"
    CONTAINER_UPDATE = "container.update"
    CONTAINER_REMOVE = "container.remove"
    CONTAINER_ADOPT = "container.adopt"
    CONTAINER_RELEASE = "container.release"
    EXEC_CREATE = "exec.create"
    EXEC_START = "exec.start"
    IMAGE_PULL = "image.pull"
    IMAGE_REMOVE = "image.remove"
    IMAGE_TAG = "image.tag"
    IMAGE_BUILD = "image.build"
    NETWORK_CREATE = "network.create"
    NETWORK_REMOVE = "network.remove"
    NETWORK_CONNECT = "network.connect"
    NETWORK_DISCONNECT = "network.disconnect"
    VOLUME_CREATE = "volume.create"
    VOLUME_REMOVE = "volume.remove"
    FILES_DELIVER = "files.deliver"


#: Records that change the inventory without a change to the engine.
TRUST = "image.trust"  # stage operator: a local image becomes trusted
ADOPT = "instance.adopt"  # stage operator: labelled objects are taken into the inventory
APPROVE = "plan.approve"  # stage operator: objects that the controller can take down or remove once
SERVICE_ROLLBACK = "service.rollback"  # stage operator: a request to the controller
SERVICE_RESTART = "service.restart"
SERVICE_SUSPEND = "service.suspend"
SERVICE_RESUME = "service.resume"
SERVICE_SCALE = "service.scale"
SOURCE_HOLD = "source.hold"
SOURCE_RESUME = "source.resume"
SOURCE_APPROVE = "source.approve"
SETTINGS_RELOADED = "settings.reloaded"  # stage operator, or policy after SIGHUP
SOURCE_HELD = "source.held"  # stage operator, by the controller: a newer commit isn't served
SOURCE_ACCEPTED = "source.accepted"  # stage operator, by the controller: a proven commit
SOURCE_LINE = "source.line"  # stage operator: the next commit of a signed source isn't a descendant
SERVICE_MOVED = (
    "service.moved"  # stage operator: containers go on under another name of the service
)
JOB_RUN = "job.run"  # stage operator: a run of a job is requested
JOB_ADOPTED = "job.adopted"  # stage operator: a job's revision ran elsewhere, or is held
SECRET_FORGET = "secret.forget"  # noqa: S105 — stage operator: generated values are forgotten
JOB_ENDED = "job.ended"  # stage operator, by the broker: the result of a job's run
VOLUME_HOLD = "volume.hold"  # stage operator: a volume is dumped or restored from here on
VOLUME_END = "volume.end"  # stage operator: the end of a dump or restore, and its result
EXEC_CUT = "exec.cut"  # stage operator, by the broker: the exec exceeded its time limit
EXEC_END = "exec.end"  # stage operator, by the broker: the result of a started exec
HOOK_END = "hook.end"  # stage operator, by the broker: the result of a container's hooks
CONTAINER_GONE = "container.gone"  # stage read, by the broker: no longer on the engine
NETWORK_GONE = "network.gone"
VOLUME_GONE = "volume.gone"
FILES_GONE = "files.gone"  # a content is no longer in the broker's store
DOWN = "down"  # the act of an operator's record: the whole instance is taken down
JOURNAL_KEY = "journal.key"  # stage operator, by the broker: the signing key from here on
ROTATE_KEY = "journal.rotate-key"  # stage operator: a new key is requested
JOURNAL_PRUNE = "journal.prune"  # stage operator, by the broker: the pruned records
STATE_BACKED_UP = "state.backed-up"  # stage operator: signed at once, and the end of a backup
STATE_RESTORED = (
    "state.restored"  # stage operator: the folder was restored; nothing is changed from here on
)
STATE_CONFIRMED = "state.confirmed"  # stage operator: what was made after the backup was looked at
JOURNAL_INVENTORY = "journal.inventory"  # stage read, by the broker: a snapshot, by its digest
INVENTORY_REJECTED = "journal.inventory-rejected"  # stage operator, by the broker: a bad snapshot
VALUES_SHOW = "values.show"  # stage read: an operator saw values of documents that may be secret
#: The act in a command's request for a VALUES_SHOW record.
SHOW_VALUES = "show-values"

#: The acts of an operator on a service.
SERVICE_ACTS = (
    SERVICE_ROLLBACK,
    SERVICE_RESTART,
    SERVICE_SUSPEND,
    SERVICE_RESUME,
    SERVICE_SCALE,
)

#: The acts of an operator on a Git source.
SOURCE_ACTS = (SOURCE_HOLD, SOURCE_RESUME, SOURCE_APPROVE)

#: The prefix of a move in an approval.
MOVE: Final = "move:"


def move_subject(source: Key, target: Key, owner: str, ids: Iterable[str]) -> str:
    """Return a move as the object of an approval: ``move:FROM>TO@OWNER#DIGEST``.

    The digest is that of the containers' ids: an approval covers no later container with its volumes.
    """
    digest = sha256("\n".join(sorted(ids)).encode()).hexdigest()
    former, present = (f"{key.namespace}/{key.name}" for key in (source, target))
    return f"{MOVE}{former}>{present}@{owner}#{digest}"


def object_kind(mutation: str) -> str:
    """Return the kind of the recorded object of a change."""
    if mutation in {Mutation.NETWORK_CONNECT, Mutation.NETWORK_DISCONNECT}:
        return "container"
    return mutation.partition(".")[0]
