"""The history of a service: its revisions, their outcomes, and its overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from controller.core.drift.failed_runs import run_json
from controller.core.service.revisions import in_force
from controller.model.container_output import FailedRun
from controller.model.desired.overrides import Overrides, Revision
from controller.model.names import Key
from controller.model.observed import Image


@dataclass(frozen=True, slots=True)
class HistoryInputs:
    """The inputs of a history."""

    key: Key
    overrides: Overrides
    #: The revision of the document; '' if there is none.
    declared: str
    generation: int
    #: The images to which the broker pinned revisions, as far as known.
    pins: Mapping[str, Image] = field(default_factory=dict)
    #: The number of containers by revision, as far as known.
    running: Mapping[str, int] = field(default_factory=dict)


def history(inputs: HistoryInputs) -> dict[str, object]:
    """Return a service's history in the shape of ``history --json``, the newest revision first."""
    overrides, key = inputs.overrides, inputs.key
    restarting = overrides.restarting
    return {
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "generation": inputs.generation,
        "suspended": asdict(overrides.suspension) if overrides.suspension else None,
        "pin": asdict(overrides.pin) if overrides.pin else None,
        "restarting": {"by": restarting.by, "containers": len(restarting.ids)}
        if restarting
        else None,
        "revisions": [_row(each, inputs) for each in reversed(overrides.revisions)],
    }


def _row(each: Revision, inputs: HistoryInputs) -> dict[str, object]:
    pinned = inputs.overrides.pin is not None and inputs.overrides.pin.revision == each.revision
    image = inputs.pins.get(each.revision)
    return {
        "revision": each.revision,
        "generation": each.generation,
        "since": each.since,
        "image": each.image,
        "digest": "" if image is None else image.digest or image.id,
        "file": each.source.file,
        "line": each.source.line,
        "commit": each.source.commit,
        "outcome": each.outcome,
        "reason": each.reason,
        "current": bool(inputs.declared)
        and each.revision == in_force(inputs.overrides, inputs.declared),
        "declared": each.revision == inputs.declared,
        "pinned": pinned,
        "containers": inputs.running.get(each.revision, 0),
    }


def with_failures(history: dict[str, object], runs: Iterable[FailedRun]) -> dict[str, object]:
    """Return a history with the last failed run of each failed revision, as ``failure``."""
    key = (history["kind"], history["namespace"], history["name"])
    last = {r.revision: r for r in runs if (r.key.kind, r.key.namespace, r.key.name) == key}
    rows = history["revisions"]
    assert isinstance(rows, list), "the revisions of a history are a list"
    return {
        **history,
        "revisions": [
            {**row, "failure": run_json(last[row["revision"]])}
            if row["outcome"] == "failed" and row["revision"] in last
            else row
            for row in rows
        ],
    }
