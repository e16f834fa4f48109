"""Acts of operators on volumes and networks, by their names in ``POST records``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.state import GateState
from controller.broker.handlers.volumes import holds, object_adoption
from controller.model.records import Reply

VolumeAct = Callable[[GateRequest, GateState, Mapping[str, object]], Flow[Reply]]

ACTS: dict[str, VolumeAct] = {
    object_adoption.ACT: object_adoption.adopt,
    holds.BEGIN: holds.begin,
    holds.RENEW: holds.renew,
    holds.END: holds.end,
}
