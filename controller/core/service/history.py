"""The history of a service: revisions with their outcomes, and overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType

from controller.core.drift.failed_runs import run_json
from controller.core.engine_api.comparable_fields import limits_text
from controller.core.service.revisions import in_force
from controller.model.container_output import FailedRun
from controller.model.desired.limits import DeclaredLimits
from controller.model.desired.overrides import Overrides, Revision
from controller.model.names import Key
from controller.model.observed import Image


def history(
    key: Key,
    overrides: Overrides,
    *,
    declared: str,
    generation: int,
    limits: DeclaredLimits | None = None,
    pins: Mapping[str, Image] = MappingProxyType({}),
    running: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, object]:
    """Return a service's history in the shape of ``history --json``, the newest revision first.

    *declared* is the revision of the document; '' if there is none. *limits* are those of the
    document; None for the last declared ones. *pins* has the images to which
    the broker pinned revisions, and *running* the number of containers by revision, as far as known.
    """
    restarting, pin = overrides.restarting, overrides.pin
    current = in_force(overrides, declared) if declared else None
    now = overrides.find_revision(declared, limits)
    chosen = None if pin is None else overrides.find_revision(pin.revision, pin.limits)
    newest = {each.revision: each for each in overrides.revisions}

    def row(each: Revision) -> dict[str, object]:
        image = pins.get(each.revision)
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
            "limits": limits_text(each.limits),
            "current": current is not None and each is (chosen or now),
            "declared": each is now,
            "pinned": each is chosen,
            "containers": running.get(each.revision, 0) if each is newest[each.revision] else 0,
        }

    return {
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "generation": generation,
        "suspended": asdict(overrides.suspension) if overrides.suspension else None,
        "pin": asdict(pin) if pin else None,
        "restarting": {"by": restarting.by, "containers": len(restarting.ids)}
        if restarting
        else None,
        "revisions": [row(each) for each in reversed(overrides.revisions)],
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
