"""A client's share over time: requests that change something, and bytes of the journal.

The server counts: a change when its request begins, a record when it is written. The gate refuses
a client that spent its share. Controller and operators have no such share.
"""

from __future__ import annotations

from controller.broker.gate.call import GateRequest
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.core.enforcement import limits
from controller.core.enforcement.limits import TokenRate
from controller.model.quantities import format_bytes
from controller.model.records import Actor, Role

MUTATIONS_RULE = "client.mutations"
JOURNAL_RULE = "client.journal"
TOO_MANY = 429
DAY_S = 86_400.0
#: Seconds of a client's steady rate of changes that its bucket holds: ``docker compose up`` with 50
#: services makes about 300 changes at once.
BURST_S = 50.0


def _mutations(state: GateState) -> TokenRate:
    """Return the share of changes."""
    per_s = state.policy.quotas.mutations_per_second
    return TokenRate(float(per_s), per_s * BURST_S)


def _journal(state: GateState) -> TokenRate:
    """Return the share of the journal's bytes: a day's at once, and as much again within a day."""
    per_day = float(state.policy.quotas.journal_per_day)
    return TokenRate(per_day / DAY_S, per_day)


def _mutation_wait_s(state: GateState, uid: int) -> int:
    """Return in how many seconds a uid may change something; 0 for at once."""
    now = state.clock.monotonic()
    return limits.wait_s(state.shares.mutations, uid, now, _mutations(state), amount=1.0)


def count_record(state: GateState, uid: int, size: int) -> None:
    """Count the bytes of a client's record."""
    state.shares.journal = limits.spend(
        state.shares.journal,
        uid,
        state.clock.monotonic(),
        _journal(state),
        amount=float(size),
        debt=float(state.policy.quotas.journal_per_day),
    )


def is_journal_spent(state: GateState, uid: int) -> bool:
    """Return True if a uid wrote its share of the journal: its records are counted only."""
    now = state.clock.monotonic()
    return limits.wait_s(state.shares.journal, uid, now, _journal(state)) > 0


def waiting(state: GateState) -> dict[str, int]:
    """Return in how many seconds each uid that spent a share may change something again."""
    now, found = state.clock.monotonic(), dict[str, int]()
    for uid in {*state.shares.mutations, *state.shares.journal}:
        by_journal = limits.wait_s(state.shares.journal, uid, now, _journal(state))
        if wait := max(_mutation_wait_s(state, uid), by_journal):
            found[str(uid)] = wait
    return found


def take_mutation(state: GateState, actor: Actor) -> bool:
    """Count a request that changes something; return False, and count nothing, beyond the share.

    So a client that asks too often still gets its share. A change that the policy refuses costs as
    much as any other.
    """
    if actor.role is not Role.CLIENT:
        return True
    if _mutation_wait_s(state, actor.uid):
        return False
    state.shares.mutations = limits.spend(
        state.shares.mutations, actor.uid, state.clock.monotonic(), _mutations(state)
    )
    return True


def refuse_if_spent(call: GateRequest, state: GateState) -> None:
    """Refuse a change by a client that spent its share.

    Raises:
        Denied: ``client.mutations`` or ``client.journal``, with status 429.
    """
    if call.actor.role is not Role.CLIENT or call.route.kind != "mutate":
        return
    uid, now, quotas = call.actor.uid, state.clock.monotonic(), state.policy.quotas
    if call.request.is_beyond_share:
        wait = max(1, _mutation_wait_s(state, uid))
        raise _too_many(
            MUTATIONS_RULE,
            f"you changed more than {quotas.mutations_per_second} objects a second",
            wait,
        )
    if wait := limits.wait_s(state.shares.journal, uid, now, _journal(state)):
        size = format_bytes(quotas.journal_per_day)
        raise _too_many(
            JOURNAL_RULE, f"your records take more than {size} of the journal a day", wait
        )


def _too_many(rule: str, reason: str, wait: int) -> Denied:
    return Denied(rule, reason, f"try again in {wait} s", status=TOO_MANY, retry_after_s=wait)
