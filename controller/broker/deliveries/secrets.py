"""Secrets at the gate: content ids of sources, values of variables, and forgotten values.

``POST /trimtab/v1/secrets/{namespace}/{name}`` answers with the content id of a Secret's source.
The reply has the id and the names of the files. A content id that was not seen before is recorded:
each answers one guess of the values. In a namespace with a signed source, the controller can ask
only for the sources that the accepted commit declares.

The values of variables are read for an admitted create. The values are added to the body that the engine receives, and are in no record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.broker import signed_acts
from controller.broker.deliveries.mounts import undelivered
from controller.broker.gate.call import Flow, GateRequest
from controller.broker.gate.commands import (
    ForgetSecret,
    OpenSecret,
    ReadSecret,
    SecretNotOpened,
    SecretOpened,
    SecretValue,
)
from controller.broker.gate.journal_entries import request_of, require_record
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.state import GateState
from controller.broker.wire import json_reply
from controller.core.admission.calls import admit_secret
from controller.core.engine_api.requests import CreateRequest
from controller.core.records.parts import read_forget_request
from controller.core.secrets.declared import SecretName, SecretSource, declared_from_json
from controller.model.delivery import FileSet, contents_of
from controller.model.errors import SecretError
from controller.model.mutations import SECRET_FORGET
from controller.model.quantities import format_bytes
from controller.model.records import Reply


@dataclass(frozen=True, slots=True)
class _SecretRequest:
    owner: str
    source: SecretSource


def look(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Open a Secret, and answer its content id."""
    files = FileSet("secret", call.names["namespace"], call.names["name"])
    signed_acts.refuse_unsigned_secret(call, state, files)
    owner, opened = yield from open_requested(call, state, files)
    bound = SecretName(files.namespace, owner, files.name)
    yield from record_new(call, state, ((bound, opened),) if opened.is_new else ())
    return json_reply(200, {"Content": opened.content, "Keys": list(opened.names)})


def record_new(
    call: GateRequest, state: GateState, opened: Iterable[tuple[SecretName, SecretOpened]]
) -> Flow[None]:
    """Record that Secrets were opened to contents that were not seen before.

    A content is new only once. Contents whose record can't be written wait for the next request.

    Raises:
        Answered: a record can't be written.
    """
    waiting = state.secrets.unrecorded
    waiting.update(((bound, each.content), each) for bound, each in opened)
    for (bound, content), each in [*waiting.items()]:
        if (bound, content) not in waiting:
            continue  # another request recorded it meanwhile
        summary = {"owner": bound.owner, "content": content, "names": list(each.names)}
        files = FileSet("secret", bound.namespace, bound.name)
        request = request_of("POST", "own.secret", str(files), {"secret": summary})
        yield from require_record("read", call.by, request)
        waiting.pop((bound, content), None)


def open_requested(
    call: GateRequest, state: GateState, files: FileSet
) -> Flow[tuple[str, SecretOpened]]:
    """Return the owner and the opened Secret of a request's body.

    Raises:
        Denied: a malformed body, an owner without the namespace, or a Secret that can't be opened.
    """
    request = _parsed(call.body, str(files))
    raise_if_denied(admit_secret(files, request.owner, actor=call.actor, policy=call.policy))
    known = contents_of(state.inventory.files, files)
    bound = SecretName(files.namespace, request.owner, files.name)
    doubted = files.namespace in state.doubted_namespaces
    result = yield OpenSecret(bound, request.source, known, doubted)
    if isinstance(result, SecretNotOpened):
        raise Denied(result.code, result.reason, result.remedy, subject=str(files))
    assert isinstance(result, SecretOpened), f"a Secret was opened to {type(result).__name__}"
    signed_acts.forget_outdated(call, state, files, result.content)
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


#: The longest value, in bytes. The kernel refuses longer ones at 128 KiB.
VALUE_BYTES_MAX = 64 * 1024


def values_of(state: GateState, request: CreateRequest, namespace: str) -> Flow[tuple[str, ...]]:
    """Return the entries ``NAME=value`` of an admitted create's variables with values of Secrets.

    Raises:
        Denied: ``files.undelivered``: a value can't be read. ``env.secret``: a value can't be a
            variable.
    """
    entries = []
    for variable in request.variables:
        files = FileSet("secret", namespace, variable.secret)
        result = yield ReadSecret(files, variable.content, variable.key)
        if not isinstance(result, SecretValue):
            raise (yield from undelivered(state, files, variable.content, str(result), files.name))
        fault = _fault(result.value)
        if fault:
            reason = f"the value of {variable.key} in {files} {fault}, so it can't be a variable"
            raise Denied("env.secret", reason, "mount the Secret as a file", subject=files.name)
        entries.append(f"{variable.name}={result.value.decode()}")
    return tuple(entries)


def _fault(value: bytes) -> str:
    """Return why a value can't be a variable, '' if it can."""
    if len(value) > VALUE_BYTES_MAX:
        return f"is longer than {format_bytes(VALUE_BYTES_MAX)}"
    if b"\0" in value:
        return "has a zero byte"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "is no UTF-8 text"
    return ""
