"""The limits on connections and answers: of each group of peers, and of the broker to the engine.

Operators, the controller, clients and peers without a role have connections of their own, and so
has the broker for its own tasks. Each accepted connection costs a file descriptor, also while it
waits for a slot, so the number of accepted connections is bounded too: by group and by uid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from controller.broker.host.peer_credentials import PeerGroup
from controller.system.slots import Share

#: File descriptors kept free for the journal, its index, files, paths and processes.
KEPT_DESCRIPTORS = 256
#: Connections that get a 503 at a time (``listener``).
REFUSED_MAX = 128
#: Idle connections to the engine (``engine.client.IDLE_MAX``), and the one that identifies it.
IDLE_DESCRIPTORS = 9


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Numbers of slots of each group."""

    #: Connections served at the same time.
    connections: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(128, 64),
            PeerGroup.CONTROLLER: Share(96, 96),
            PeerGroup.CLIENT: Share(192, 64),
            PeerGroup.NO_ROLE: Share(16, 8),
        }
    )
    #: Accepted connections: those served, and those that wait for a slot.
    accepted: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(256, 128),
            PeerGroup.CONTROLLER: Share(192, 192),
            PeerGroup.CLIENT: Share(1024, 256),
            PeerGroup.NO_ROLE: Share(512, 256),
        }
    )
    #: Connections to the engine. A request that streams has one for the whole time.
    engine: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(160, 96),
            PeerGroup.CONTROLLER: Share(128, 128),
            PeerGroup.CLIENT: Share(256, 80),
            PeerGroup.BROKER: Share(64, 64),
        }
    )
    #: Reads with a large answer, from the question until the answer is sent. Few at a time bound
    #: the memory of the broker.
    answers: Mapping[str, Share] = field(
        default_factory=lambda: {
            PeerGroup.OPERATOR: Share(16, 8),
            PeerGroup.CONTROLLER: Share(16, 16),
            PeerGroup.CLIENT: Share(8, 2),
        }
    )
    #: How long a connection waits for a slot, and a request for a connection to the engine or for
    #: its turn to be answered.
    wait_s: float = 10.0

    @property
    def descriptors(self) -> int:
        """The file descriptors that the broker needs when all limits are reached."""
        shares = (*self.accepted.values(), *self.engine.values())
        mine = KEPT_DESCRIPTORS + REFUSED_MAX + IDLE_DESCRIPTORS
        return sum(share.total for share in shares) + mine

    def within(self, descriptors: int) -> Self:
        """Return these limits, or smaller ones that need at most *descriptors*.

        Every group keeps at least one slot of each kind.
        """
        mine = KEPT_DESCRIPTORS + REFUSED_MAX + IDLE_DESCRIPTORS
        part = (descriptors - mine) / (self.descriptors - mine)
        if part >= 1:
            return self
        return replace(
            self,
            connections=_part(self.connections, part),
            accepted=_part(self.accepted, part),
            engine=_part(self.engine, part),
        )


def _part(shares: Mapping[str, Share], part: float) -> dict[str, Share]:
    def of(number: int) -> int:
        return max(1, int(number * part))

    return {name: Share(of(share.total), of(share.of_a_user)) for name, share in shares.items()}
