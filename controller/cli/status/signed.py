"""Signed sources for ``doctor``: namespaces with signed admission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

_SHORT_COMMIT = 12
Level = Literal["ok", "warning"]


def signed_rows(proofs: Mapping[str, Any]) -> Iterator[tuple[Level, str, str]]:
    """Yield level, message and remedy for each signed source in the answer of ``GET proofs``."""
    for each in proofs.get("sources") or ():
        where = f"{', '.join(each['namespaces'])} (Source {each['source']})"
        commit, rendered = str(each["commit"]), str(each["rendered"])
        if not commit:
            message = f"{where}: no commit was accepted, so the controller can change nothing"
            yield "warning", message, "'trimtab status' says why the source has no proof"
        elif rendered != commit:
            message = f"{where}: the broker has no proof of {commit[:_SHORT_COMMIT]}"
            yield "warning", message, "nothing, if the broker started just now; else see the status"
        else:
            message = (
                f"{where}: only what {commit[:_SHORT_COMMIT]} declares, signed by {each['signer']}"
            )
            yield "ok", message, ""
        if line := each.get("line"):
            other = f"{str(line['commit'])[:_SHORT_COMMIT]}, signed by {line['signer']}"
            message = f"{where}: {other}, isn't a descendant of it"
            remedy = f"after a rewritten history: trimtab source accept {each['source']} COMMIT"
            yield "warning", message, remedy
        for key, why in sorted((each.get("unsupported") or {}).items()):
            yield "warning", f"{key} can't be proven: {why}", "see docs/policy.md, signed admission"
