"""What the gate knows besides the request: one mutable value that all requests share.

It is read and changed only between two commands, by one thread; the driver replaces ``policy``
(reload) and ``inventory`` (after each record), never a request's handler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.model.inventory import Inventory
from controller.model.policy import Policy
from controller.ports import Clock, EngineFacts, NewId

#: What the gate speaks upwards; the engine is spoken to in the lower of the newer one and its own.
OLDEST_API = (1, 44)
NEWEST_API = (1, 45)


@dataclass(slots=True)
class GateState:
    """The broker's knowledge.

    ``start_seq`` is the journal's last record when this process started, ``start_monotonic``
    when that was: what is older belongs to a broker before this one. ``in_flight`` has the
    intents that a request of this process is still working on: an open intent that isn't in it
    is recovery's to close (``settling`` while it is at it), and its object is held until then.
    ``begun`` has when this process recorded the intents that aren't closed, by the monotonic
    clock; ``reserved`` whose the containers are that are about to be created.
    """

    policy: Policy
    inventory: Inventory
    instance: str
    engine: EngineFacts
    clock: Clock
    new_id: NewId
    volumes_root: str = "/var/lib/docker/volumes"
    start_seq: int = 0
    start_monotonic: float = 0.0
    journal_error: str = ""  # why nothing can be recorded now, '' if it can
    policy_error: str = ""  # why the last reload kept the policy before it
    in_flight: set[str] = field(default_factory=set)
    settling: set[str] = field(default_factory=set)
    begun: dict[str, float] = field(default_factory=dict)
    reserved: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    unjournaled: int = 0  # refusals that were answered and couldn't be recorded

    @property
    def api_version(self) -> tuple[int, int]:
        """The version that the engine is spoken to in."""
        major, _, minor = self.engine.api_version.partition(".")
        known = minor.isascii() and minor.isdigit() and major == "1"
        return min(NEWEST_API, (1, int(minor))) if known else NEWEST_API
