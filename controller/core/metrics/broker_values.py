"""The broker's counters: records, requests to the engine, and the health of the broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.core.metrics.families import MetricValues
from controller.core.records.parts import ResultPart, VerdictPart
from controller.model.records import Entry

#: The label of a verdict without a deciding rule.
NO_RULE = ""
_LOST = "lost"


def of_record(entry: Entry) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the increments of counters by a durable record: name and labels, and the number to add."""
    match entry.stage:
        case "intent" | "refusal":
            verdict = VerdictPart.read(entry.verdict)
            decision = "deny" if entry.stage == "refusal" else verdict.decision
            is_denial = decision in {"deny", "audit-deny"}
            rule = verdict.rules[0] if is_denial and verdict.rules else NO_RULE
            yield ("trimtab_admissions_total", decision, rule), 1
        case "summary":
            for rule, count in ResultPart.read(entry.result).counts.items():
                yield ("trimtab_admissions_total", "deny", rule), int(count)
        case "outcome" | "recovered":
            yield ("trimtab_changes_total", _outcome(entry)), 1
        case "violation":
            rules = VerdictPart.read(entry.verdict).rules
            yield ("trimtab_violations_total", rules[0] if rules else NO_RULE), 1
        case "read" | "operator" | "policy" | "checkpoint" | "segment":
            pass


def _outcome(entry: Entry) -> str:
    if entry.stage == "recovered":
        return "recovered"
    return "failed" if ResultPart.read(entry.result).error else "done"


def engine_answer(method: str, status: int | None) -> tuple[str, ...]:
    """Return the counter of a request to the engine; *status* is None without an answer."""
    answer = _LOST if status is None else f"{status // 100}xx"
    return ("trimtab_engine_requests_total", method, answer)


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The facts of a broker that are no counters."""

    last_seq: int
    signed: int
    indexed: int
    is_writable: bool
    free_bytes: int
    is_reserved: bool
    is_clock_doubted: bool
    unrecorded_refusals: int
    open_intents: int
    unknown_containers: int
    fullest_quota_percent: int
    waiting_clients: int
    is_engine_identified: bool
    longest_stall_s: float
    #: By group of peers.
    connections: Mapping[str, int]
    refused_connections: int
    #: By file: True if the last reload kept what was in force before.
    reload_failed: Mapping[str, bool]


def broker_values(facts: BrokerFacts, counted: Counter[tuple[str, ...]]) -> MetricValues:
    """Return the values of the broker's families."""
    last = facts.last_seq
    return {
        ("trimtab_open_intents",): facts.open_intents,
        ("trimtab_unknown_containers",): facts.unknown_containers,
        ("trimtab_journal_records_total",): last,
        ("trimtab_journal_unsigned_records",): max(0, last - facts.signed),
        ("trimtab_journal_writable",): facts.is_writable,
        ("trimtab_journal_free_bytes",): facts.free_bytes,
        ("trimtab_journal_reserved",): facts.is_reserved,
        ("trimtab_journal_clock_doubted",): facts.is_clock_doubted,
        ("trimtab_journal_index_behind_records",): max(0, last - facts.indexed),
        ("trimtab_unrecorded_refusals_total",): facts.unrecorded_refusals,
        ("trimtab_quota_fullest_percent",): facts.fullest_quota_percent,
        ("trimtab_clients_waiting",): facts.waiting_clients,
        ("trimtab_engine_identified",): facts.is_engine_identified,
        ("trimtab_event_loop_longest_stall_seconds",): facts.longest_stall_s,
        ("trimtab_connections_refused_total",): facts.refused_connections,
        **{("trimtab_connections", name): n for name, n in facts.connections.items()},
        **{("trimtab_reload_failed", name): bad for name, bad in facts.reload_failed.items()},
        **{key: counted[key] for key in sorted(counted)},
    }
