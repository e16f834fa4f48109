"""The broker's limits on connections, and the descriptors that they need."""

from __future__ import annotations

from controller.broker.host.capabilities import NOFILE
from controller.broker.host.peer_credentials import PeerGroup
from controller.broker.server.connection import SlotLimits

PEERS = {*PeerGroup} - {PeerGroup.BROKER}


def test_every_group_has_connections_of_its_own() -> None:
    limits = SlotLimits()
    assert limits.connections.keys() == limits.accepted.keys() == PEERS
    assert limits.engine.keys() == PEERS - {PeerGroup.NO_ROLE} | {PeerGroup.BROKER}
    for group, share in limits.connections.items():
        accepted = limits.accepted[group]
        assert share.total < accepted.total, f"{group}: no connection could wait"
        assert share.of_a_user < accepted.of_a_user
        assert accepted.of_a_user < accepted.total or group == PeerGroup.CONTROLLER


def test_the_process_has_descriptors_for_all_connections_at_once() -> None:
    assert SlotLimits().descriptors < NOFILE


def test_a_low_limit_of_descriptors_makes_every_group_smaller() -> None:
    limits = SlotLimits()
    assert limits.within(limits.descriptors) == limits
    for descriptors in (1500, 1024, 512):
        less = limits.within(descriptors)
        assert less.descriptors <= descriptors
        for shares in (less.connections, less.accepted, less.engine):
            assert all(1 <= share.of_a_user <= share.total for share in shares.values())
    assert limits.within(64).connections[PeerGroup.OPERATOR].total == 1
