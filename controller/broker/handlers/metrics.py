"""The route ``GET metrics``: the broker's counters and health, as text for Prometheus."""

from __future__ import annotations

from controller import __version__
from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares
from controller.core.enforcement.quota_counts import all_counted, quota_use
from controller.core.metrics.broker_values import BrokerFacts, broker_values
from controller.core.metrics.exposition import CONTENT_TYPE, MetricsOwner, ProcessFacts
from controller.core.metrics.families import text_of
from controller.model.records import Reply, Role


def metrics(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET metrics``. Asks neither the engine nor the disk.

    Raises:
        Denied: ``viewer.metrics``: the viewer doesn't read about all owners, whom figures count.
    """
    yield from ()
    if call.actor.role is Role.VIEWER and call.actor.scope.owners is not None:
        raise Denied(
            "viewer.metrics",
            "metrics count the objects of all owners, and this viewer reads about some",
            "write `owners: all` for the viewer in the policy",
        )
    health = state.health
    used = quota_use(all_counted(state.inventory, state.reservations.objects), state.policy)
    facts = BrokerFacts(
        last_seq=state.inventory.seq,
        signed=health.journal.signed,
        indexed=health.indexed,
        is_writable=not health.journal_error,
        free_bytes=health.journal.free_bytes,
        is_reserved=health.journal.reserved,
        is_clock_doubted=health.journal.clock_doubted,
        unrecorded_refusals=health.unrecorded_refusals,
        open_intents=len(state.inventory.open),
        unknown_containers=len(state.split_brain.unknown),
        fullest_quota_percent=max((use.percent for use in used), default=0),
        waiting_clients=len(client_shares.waiting(state)),
        is_engine_identified=bool(state.engine.engine_id),
        longest_stall_s=health.longest_stall_s(),
        connections=health.connections(),
        refused_connections=health.refused_connections,
        reload_failed={
            "policy": bool(health.policy_error),
            "settings": bool(health.settings_error),
            "registryAuth": bool(health.access_error),
        },
    )
    cpu_s, memory_bytes = health.process_use()
    process = ProcessFacts(__version__, cpu_s, memory_bytes, began=state.start_wall)
    text = text_of(MetricsOwner.BROKER, broker_values(facts, health.counted), process)
    return Reply(200, text.encode(errors="replace"), (("content-type", CONTENT_TYPE),))
