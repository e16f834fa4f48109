"""Handle the act ``secret.forget`` of ``POST /trimtab/v1/records``: forget generated values of a Secret."""

from __future__ import annotations

from collections.abc import Mapping

from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.commands import ForgetSecret
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.wire.responses import json_reply
from controller.core.records.operator_records import read_forget_request
from controller.model.files.delivery import FileSet
from controller.model.mutations import SECRET_FORGET
from controller.model.records import Reply


def forget(call: GateRequest, state: GateState, body: Mapping[str, object]) -> Flow[Reply]:
    """Record an operator's act, then forget the values. The next reading makes new ones.

    Raises:
        Denied: a malformed act, or values that can't be removed.
    """
    del state
    asked = read_forget_request(body)
    if isinstance(asked, str):
        form = f'{{"act": "{SECRET_FORGET}", "object": "Secret/NAMESPACE/NAME", "note": …}}'
        raise Denied("body.invalid", asked, f"write {form}", status=400)
    files = FileSet("secret", asked.key.namespace, asked.key.name)
    request = request_of("POST", SECRET_FORGET, str(asked.key), asked.summary)
    yield from require_record("operator", call.by, request)
    found = yield ForgetSecret(files)
    if isinstance(found, str):
        reason = f"the generated values of {asked.key} can't be removed: {found}"
        raise Denied("secret.unforgotten", reason, "look at the state folder", subject=str(files))
    return json_reply(200, {"id": call.id, "forgotten": found})


#: The acts of ``POST records`` in this module.
ACTS = {SECRET_FORGET: forget}
