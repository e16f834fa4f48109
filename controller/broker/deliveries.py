"""Delivered files at the gate: contents of Configs and Secrets, and the folders that containers mount.

The record of a container names contents and variants. Where those lie is decided here, at each
look: a folder that was made again is the right one.

``POST /trimtab/v1/secrets/{namespace}/{name}`` answers with the content id of a Secret's source.
The reply has the id and the names of the files. A content id that was not seen before is recorded:
each answers one guess of the values. In a namespace with a signed source, the controller can ask
only for the sources that the accepted commit declares.

The values of variables are read for an admitted create. The values are added to the body that the engine receives, and are in no record.

A content that is stored and current already is answered at once, without a record: the controller
asks again after each lost reply.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controller.broker import signed_acts
from controller.broker.gate.call import BROKER, Author, Flow, GateRequest, inspect_paths
from controller.broker.gate.commands import (
    ForgetSecret,
    MakeFiles,
    MakeFolder,
    OpenSecret,
    ReadSecret,
    SecretNotOpened,
    SecretOpened,
    SecretValue,
    StoreContent,
    is_lost,
)
from controller.broker.gate.journal_entries import record_event, request_of, require_record
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Denied, raise_if_denied
from controller.broker.gate.state import GateState
from controller.broker.wire import json_reply
from controller.core.admission.calls import (
    DeliveryRequest,
    admit_delivery,
    admit_secret,
    opened_secret,
    read_delivery,
)
from controller.core.engine_api.requests import CreateRequest, MountRequest
from controller.core.files.content import owners_shown, recorded_source, source_of, used_contents
from controller.core.records.parts import read_forget_request
from controller.core.secrets.declared import SecretName, SecretSource, declared_from_json
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.delivery import FILE_KINDS, FileSet, contents_of
from controller.model.errors import SecretError
from controller.model.inventory import ContainerItem
from controller.model.mutations import FILES_GONE, SECRET_FORGET, Mutation
from controller.model.quantities import format_bytes
from controller.model.records import Reply


def file_mounts(confined: Confinement | None) -> Iterator[ExpectedMount]:
    """Yield the admitted mounts of delivered files."""
    for mount in confined.mounts if confined is not None else ():
        if mount.type in FILE_KINDS:
            yield mount


def make_requested(state: GateState, request: CreateRequest, namespace: str) -> Flow[None]:
    """Make the folders for an admitted create.

    Raises:
        Denied: ``files.undelivered``: a folder can't be made.
    """
    for mount in request.mounts:
        if mount.files is None:
            continue
        files = FileSet(mount.type, namespace, mount.source)
        wanted = mount.files
        command = MakeFiles(files, wanted.content, wanted.variant, stable=wanted.stable)
        yield from _make(state, command, mount.source)


def make_sources(folders: tuple[tuple[str, int], ...]) -> Flow[None]:
    """Make the missing sources of an admitted create, each for a user.

    Raises:
        Denied: ``mount.missing``: a folder can't be made.
    """
    for path, uid in folders:
        failure = yield MakeFolder(path, uid)
        if failure:
            # The broker can't write into other users' folders.
            reason = f"{path} isn't there, and can't be made: {failure}"
            remedy = f"make it: install -d -o {uid} -g {uid} {shlex.quote(path)}"
            raise Denied("mount.missing", reason, remedy, subject=path)


def paths_of(state: GateState, request: CreateRequest, namespace: str) -> dict[str, str]:
    """Return the path of the host for each requested mount of files, by its target."""
    return {
        mount.target: _requested_source(state, mount, namespace)
        for mount in request.mounts
        if mount.files is not None
    }


def _requested_source(state: GateState, mount: MountRequest, namespace: str) -> str:
    files = mount.files
    assert files is not None, "only mounts of files are asked for"
    return source_of(
        state.file_roots.get(mount.type, ""),
        FileSet(mount.type, namespace, mount.source),
        files.content,
        files.variant,
        key=files.key,
        stable=files.stable,
    )


def present_contents(state: GateState, item: ContainerItem) -> tuple[str, ...]:
    """Return the contents that a container sees in folders that stay, as KIND/NAME=CONTENT."""
    names = {(m.type, m.source) for m in file_mounts(item.confined) if m.stable}
    stored = state.inventory.files
    found = ((f"{kind}/{name}", f"{kind}/{item.namespace}/{name}") for kind, name in sorted(names))
    return tuple(f"{short}={stored[key].current}" for short, key in found if key in stored)


def make_recorded(state: GateState, item: ContainerItem) -> Flow[frozenset[str]]:
    """Make the folders of a container again that are missing. Return the paths of the host.

    Raises:
        Denied: ``files.undelivered``: a folder is missing and can't be made.
    """
    paths = set()
    for mount in file_mounts(item.confined):
        files = FileSet(mount.type, item.namespace, mount.source)
        command = MakeFiles(files, mount.content, mount.variant, stable=mount.stable)
        yield from _make(state, command, item.id)
        paths.add(_recorded_path(state, item, mount))
    return frozenset(paths)


def _make(state: GateState, command: MakeFiles, subject: str) -> Flow[None]:
    """Make a folder. A content that the store has lost leaves the inventory, to be delivered again.

    Raises:
        Denied: ``files.undelivered``.
    """
    reason = yield command
    if reason != "":
        files, content = command.files, command.content
        raise (yield from undelivered(state, files, content, str(reason), subject))


def undelivered(
    state: GateState, files: FileSet, content: str, reason: str, subject: str
) -> Flow[Denied]:
    """Return the refusal of a content that can't be used. A lost content leaves the inventory."""
    stored = state.inventory.files.get(str(files))
    if is_lost(reason) and stored is not None and stored.find(content) is not None:
        gone = request_of("GET", FILES_GONE, f"{files}={content}", {})
        yield from record_event("read", Author(state.new_id(), BROKER), gone)
    return Denied(
        "files.undelivered",
        f"the files of {files} can't be used: {reason}",
        "look at the broker's log, the key, and the disk of the state folder; the controller tries again",
        subject=subject,
    )


def _recorded_path(state: GateState, item: ContainerItem, mount: ExpectedMount) -> str:
    return recorded_source(
        state.file_roots.get(mount.type, ""),
        FileSet(mount.type, item.namespace, mount.source),
        mount.content,
        mount.variant,
        key=mount.key,
        stable=mount.stable,
    )


def with_present_sources(
    state: GateState, item: ContainerItem, confined: Confinement
) -> Flow[Confinement]:
    """Return a confinement with delivered files as binds of the folders that are there now."""
    paths = {mount: _recorded_path(state, item, mount) for mount in file_mounts(confined)}
    if not paths:
        return confined
    facts = yield from inspect_paths(tuple(sorted(set(paths.values()))))
    mounts: list[ExpectedMount] = []
    for mount in confined.mounts:
        found = facts.get(paths.get(mount, ""))
        if mount not in paths:
            mounts.append(mount)
        elif found is None or found.kind not in {"dir", "file"}:
            mounts.append(replace(mount, type="bind", source=paths[mount]))
        else:
            mounts.append(
                replace(
                    mount,
                    type="bind",
                    source=paths[mount],
                    device=found.device,
                    inode=found.inode,
                    place=found.place,
                )
            )
    return replace(confined, mounts=tuple(mounts))


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
