"""Handle ``PUT /trimtab/v1/files/{kind}/{namespace}/{name}``: store a content of the controller's.

A content that is stored and current already is answered at once, without a record: the controller
asks again after each lost reply.
"""

from __future__ import annotations

from controller.broker import signed_acts
from controller.broker.deliveries.secrets import open_requested
from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.commands import StoreContent
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import raise_if_denied
from controller.broker.gate.state import GateState
from controller.broker.wire import json_reply
from controller.core.admission.calls import (
    DeliveryRequest,
    admit_delivery,
    opened_secret,
    read_delivery,
)
from controller.core.files.content import owners_shown, used_contents
from controller.model.delivery import FileSet
from controller.model.mutations import Mutation
from controller.model.records import Reply

_DEADLINE_S = 60.0


def deliver(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Store a content, and let containers with a stable folder of it see the content."""
    files = FileSet(call.names["kind"], call.names["namespace"], call.names["name"])
    proof = signed_acts.proof_of_files(call, state, str(files), files.namespace)
    request = yield from _read(call, state, files)
    stored = state.inventory.files
    judged = raise_if_denied(
        admit_delivery(
            files,
            request,
            actor=call.actor,
            policy=call.policy,
            stored=stored,
            used=used_contents(state.inventory),
            shown=owners_shown(state.inventory, files),
        )
    )
    known = stored.get(str(files))
    latest = known.contents[-1] if known is not None and known.contents else None
    if latest is not None and (latest.content, latest.owner) == (request.content, request.owner):
        reason = yield StoreContent(files, request.content)
        if reason == "":
            return json_reply(200, {"Content": request.content})
    change = Change(
        mutation=Mutation.FILES_DELIVER,
        subject=str(files),
        path=call.request.path,
        summary=signed_acts.with_proof(judged, proof).summary,
        verdict=judged.verdict,
        deadline_s=_DEADLINE_S,
        instead=StoreContent(files, request.content, request.blob),
    )
    return (yield from perform(state, call.by, change))


def _read(call: GateRequest, state: GateState, files: FileSet) -> Flow[DeliveryRequest]:
    """Return the delivery of the body. A Secret is opened to learn its content id."""
    if files.kind != "secret":
        return read_delivery(call.body)
    owner, opened = yield from open_requested(call, state, files)
    return opened_secret(owner, opened.content, opened.names, opened.stored)
