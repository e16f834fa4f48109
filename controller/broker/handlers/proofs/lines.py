"""Handle the act ``source.line``: an operator approves a signed commit outside the accepted history.

A history was rewritten, or the accepted commit has its signature in another spelling. The approval
names both commits by a digest of the whole output. The accepted commit stays in force until the
approved commit, or a descendant, is proven. No other commit of the old line is accepted any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.wire.responses import json_reply
from controller.core.encoding.canonical_json import digest
from controller.core.records.parts import ActPart, ProofPart
from controller.model.mutations import SOURCE_LINE
from controller.model.policy.sources import SignedSource
from controller.model.records import Reply

if TYPE_CHECKING:
    from controller.core.proofs.git_objects import OtherLine

_MEMBERS = frozenset({"act", "object", "digest", "note"})
_NOTE_MAX = 512


def shown(state: GateState, rule: SignedSource) -> dict[str, object]:
    """Return the members of ``GET proofs`` about a commit of another line; none without one."""
    line = state.proofs.lines.get(rule.source)
    view = None if line is None else _view(state, rule, line)
    return {} if view is None else {"line": {**view, "digest": digest(view)}}


def approve_line(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Record the approval, which holds for exactly what was shown.

    Raises:
        Denied: ``proof.source``: nothing waits. ``approval.changed``: another commit does.
            ``proof.busy``: a commit is being accepted.
    """
    name, wanted, note = (body.get(each, "") for each in ("object", "digest", "note"))
    is_text = all(isinstance(each, str) for each in (name, wanted, note))
    if not is_text or not body.keys() <= _MEMBERS or len(str(note)) > _NOTE_MAX:
        form = f'{{"act": "{SOURCE_LINE}", "object": SOURCE, "digest": …, "note": …}}'
        raise Denied("body.invalid", "the act has another form", f"write {form}", status=400)
    rule = next((each for each in call.policy.sources if each.source == name), None)
    line = None if rule is None else state.proofs.lines.get(rule.source)
    view = None if rule is None or line is None else _view(state, rule, line)
    if rule is None or line is None or view is None:
        reason = "no signed commit of another line waits for an approval"
        raise Denied("proof.source", reason, "let the commit be fetched and served", status=404)
    if digest(view) != wanted:
        reason = "another commit waits than the one that was shown"
        raise Denied("approval.changed", reason, "look again: trimtab source accept", status=409)
    if rule.source in state.proofs.accepting:
        raise Denied("proof.busy", "another commit is being accepted", "try again", status=409)
    part = ProofPart(
        source=rule.source,
        commit=line.commit,
        signer=line.signer,
        key=line.key,
        since=str(view["accepted"]),
    )
    summary = ActPart(act=SOURCE_LINE, note=str(note), proof=part)
    request = request_of("POST", SOURCE_LINE, rule.source, summary.members)
    # A commit of the old line that is recorded after the approval would undo the approval.
    state.proofs.accepting.add(rule.source)
    try:
        yield from require_record("operator", call.by, request)
    finally:
        state.proofs.accepting.discard(rule.source)
    return json_reply(200, {"id": call.id, **view})


def _view(state: GateState, rule: SignedSource, line: OtherLine) -> dict[str, Any] | None:
    """Return what an approval is about; None if the accepted commit is of another ``since``."""
    accepted = state.inventory.accepted.get(rule.source)
    if accepted is None or accepted.since != rule.since:
        return None
    return {
        "source": rule.source,
        "accepted": accepted.commit,
        "acceptedSigner": accepted.signer,
        "commit": line.commit,
        "signer": line.signer,
        "key": line.key,
        "committed": line.committed,
        "subject": line.subject,
    }


#: The acts of ``POST records`` in this module.
ACTS = {SOURCE_LINE: approve_line}
