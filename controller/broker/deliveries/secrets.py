"""Handle ``POST /trimtab/v1/secrets/{namespace}/{name}``: the content id of a Secret's source.

The reply has the id and the names of the files. A content id that was not seen before is recorded:
each answers one guess of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.commands import OpenSecret, SecretNotOpened, SecretOpened
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.state import GateState
from controller.broker.wire.responses import json_reply
from controller.core.admission.files import admit_secret
from controller.core.secrets.contents import SecretName
from controller.core.secrets.declared import SecretSource, declared_from_json
from controller.model.errors import SecretError
from controller.model.files.delivery import FileSet
from controller.model.records import Reply


@dataclass(frozen=True, slots=True)
class _SecretRequest:
    owner: str
    source: SecretSource


def look(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Open a Secret, and answer its content id."""
    files = FileSet("secret", call.names["namespace"], call.names["name"])
    owner, opened = yield from open_requested(call, state, files)
    if opened.is_new:
        summary = {"owner": owner, "content": opened.content, "names": list(opened.names)}
        request = request_of("POST", call.route.name, str(files), {"secret": summary})
        yield from require_record("read", call.by, request)
    return json_reply(200, {"Content": opened.content, "Keys": list(opened.names)})


def open_requested(
    call: GateRequest, state: GateState, files: FileSet
) -> Flow[tuple[str, SecretOpened]]:
    """Return the owner and the opened Secret of a request's body.

    Raises:
        Denied: a malformed body, an owner without the namespace, or a Secret that can't be opened.
    """
    request = _parsed(call.body, str(files))
    raise_if_denied(admit_secret(files, request.owner, actor=call.actor, policy=call.policy))
    stored = state.inventory.files.get(str(files))
    known = (
        frozenset(each.content for each in stored.contents) if stored is not None else frozenset()
    )
    bound = SecretName(files.namespace, request.owner, files.name)
    result = yield OpenSecret(bound, request.source, known)
    if isinstance(result, SecretNotOpened):
        raise Denied(result.code, result.reason, result.remedy, subject=str(files))
    assert isinstance(result, SecretOpened), f"a Secret was opened to {type(result).__name__}"
    return request.owner, result


def _parsed(body: object, subject: str) -> _SecretRequest:
    if not isinstance(body, dict) or body.keys() != {"owner", "source"}:
        raise Denied("body.type", "expected an object with owner and source", "", subject=subject)
    if not isinstance(body["owner"], str):
        raise Denied("body.type", "the owner is no text", "", subject=subject)
    try:
        return _SecretRequest(body["owner"], declared_from_json(body["source"]))
    except SecretError as error:
        raise Denied(error.code, error.message, error.remedy, subject=subject) from None
