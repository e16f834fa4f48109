"""The mutations that pass the gate, by the word that the journal has for each (``request.route``)."""

from __future__ import annotations

from enum import StrEnum


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
    EXEC_CREATE = "exec.create"
    EXEC_START = "exec.start"
    IMAGE_PULL = "image.pull"
    IMAGE_REMOVE = "image.remove"
    NETWORK_CREATE = "network.create"
    NETWORK_REMOVE = "network.remove"
    NETWORK_CONNECT = "network.connect"
    NETWORK_DISCONNECT = "network.disconnect"
    VOLUME_CREATE = "volume.create"
    VOLUME_REMOVE = "volume.remove"


#: Records of what changes the inventory without a change to the engine.
TRUST = "image.trust"  # stage operator: a local image is vouched for
ADOPT = "instance.adopt"  # stage operator: what carries our label is taken into the inventory
APPROVE = "plan.approve"  # stage operator: what the controller may take down or remove once
SERVICE_ROLLBACK = "service.rollback"  # stage operator: what the controller is asked for
SERVICE_RESTART = "service.restart"
SERVICE_SUSPEND = "service.suspend"
SERVICE_RESUME = "service.resume"
EXEC_CUT = "exec.cut"  # stage operator, by the broker: its time is over
EXEC_END = "exec.end"  # stage operator, by the broker: what an exec that was started came to
CONTAINER_GONE = "container.gone"  # stage read, by the broker: it isn't on the engine any more
NETWORK_GONE = "network.gone"
VOLUME_GONE = "volume.gone"
DOWN = "down"  # the act of a record of an operator's: all of the instance is taken down
JOURNAL_KEY = "journal.key"  # stage operator, by the broker: the key that signs from here on
ROTATE_KEY = "journal.rotate-key"  # stage operator: another key is asked for
JOURNAL_PRUNE = "journal.prune"  # stage operator, by the broker: records that are gone from here on
VALUES_SHOW = (
    "values.show"  # stage read: an operator was shown values of documents that may be secret
)
#: The act by which a command asks for that record.
SHOW_VALUES = "show-values"

#: What an operator may do with a service.
SERVICE_ACTS = (SERVICE_ROLLBACK, SERVICE_RESTART, SERVICE_SUSPEND, SERVICE_RESUME)
