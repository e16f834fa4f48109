"""The routes of trimtab itself, /trimtab/v1: caller, health, policy, inventory, records, moves, settings.

Handle the act ``source.line``: an operator approves a signed commit outside the accepted history.

A history was rewritten, or the accepted commit has its signature in another spelling. The approval
names both commits by a digest of the whole output. The accepted commit stays in force until the
approved commit, or a descendant, is proven. No other commit of the old line is accepted any more.

The record is durable before they are in force. One mistake refuses the whole file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from controller.broker import deliveries, signed_acts, wire
from controller.broker.gate import redact
from controller.broker.gate.call import BROKER, Flow, GateRequest
from controller.broker.gate.commands import (
    GiveWay,
    ReadEngine,
    ReadSettings,
    SettingsFound,
    SettingsRefused,
    UseSettings,
    WriteRecord,
)
from controller.broker.gate.journal_entries import actor_of, request_of, require_record
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares, conflicts, disruption_budget, recovery
from controller.broker.guards.lookup import can_see
from controller.broker.handlers import adoption_labelled, volumes
from controller.broker.wire import json_reply
from controller.core.admission.service_move import FORM, PASSING, judge_move, read_move, subject_of
from controller.core.encoding.json_values import digest
from controller.core.encoding.text import quote
from controller.core.enforcement import approvals as approval_requests
from controller.core.enforcement import approvals as approval_views
from controller.core.enforcement.approvals import ApprovalView, read_digest, read_objects
from controller.core.enforcement.limits import all_counted, quota_use
from controller.core.engine_api.engine_objects import untested
from controller.core.records.inventory_json import ITEM, TAGGED, addresses_to_json, shared_to_json
from controller.core.records.parts import (
    ActPart,
    ApprovalPart,
    LoadedSettingsPart,
    ProofPart,
    RequestPart,
    read_hold,
    read_run_request,
    read_service_act,
)
from controller.model.inventory import Inventory
from controller.model.mutations import (
    APPROVE,
    JOB_RUN,
    ROTATE_KEY,
    SERVICE_MOVED,
    SETTINGS_RELOADED,
    SHOW_VALUES,
    SOURCE_ACTS,
    SOURCE_HELD,
    SOURCE_LINE,
    STATE_BACKED_UP,
    STATE_CONFIRMED,
    VALUES_SHOW,
)
from controller.model.policy.document import Policy
from controller.model.policy.sections import SignedSource
from controller.model.records import ALLOW, Actor, Entry, Reply, Role

if TYPE_CHECKING:
    from controller.core.proofs.proven_commit import OtherLine


def move_service(call: GateRequest, state: GateState, body: dict[str, object]) -> Flow[Reply]:
    """Record that a service's containers go on under another name. No request reaches the engine.

    Raises:
        Denied: a fact of the inventory or the policy is against the move.
    """
    asked = read_move(body)
    if isinstance(asked, str):
        raise Denied(
            "body.invalid", f"the move can't be recorded: {asked}", f"send {FORM}", status=400
        )
    proof = signed_acts.proof_of_move(call, state, asked.target)
    # Mutations are judged one at a time, so two requests can't use up one approval.
    approval = disruption_budget.approval_of(call, state, subject_of(asked, state.inventory))
    findings = judge_move(
        asked,
        state.inventory,
        role=call.actor.role,
        policy=call.policy,
        names_in_use=conflicts.names_in_use(state),
        approved=approval is not None,
    )
    for finding in findings:
        status = 409 if finding.rule in PASSING else 403
        raise Denied(
            finding.rule, finding.reason, finding.remedy, status=status, subject=str(asked.target)
        )
    summary = asked.summary(proof)
    request = request_of("POST", SERVICE_MOVED, str(asked.target), summary)
    used = None if approval is None else disruption_budget.with_approval(ALLOW, approval)
    yield from require_record("operator", call.by, request, verdict=used)
    return json_reply(200, {"id": call.id})


_MEMBERS = frozenset({"act", "object", "digest", "note"})
_NOTE_MAX = 512


def shown_line(state: GateState, rule: SignedSource) -> dict[str, object]:
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
LINE_ACTS = {SOURCE_LINE: approve_line}


STRANGERS_TOLD, QUOTAS_TOLD = 32, 8
SERVICE_PREFIX = "service."
ACT_MAX = 64
ROTATE_ACT = "rotate-key"
#: Acts with a route of their own in the journal.
_ROUTES = {ROTATE_ACT: ROTATE_KEY, SHOW_VALUES: VALUES_SHOW} | {
    act: act for act in (*SOURCE_ACTS, STATE_BACKED_UP, STATE_CONFIRMED)
}
_ACTS = {"adopt": adoption_labelled.adopt_labelled, SERVICE_MOVED: move_service}
_ACTS |= {**volumes.ACTS, **deliveries.ACTS, **LINE_ACTS}
TEXT_MAX = 512
#: Containers of an inventory until the flow gives way: they take some milliseconds.
INVENTORY_STEP = 100


def whoami(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET whoami``."""
    yield from ()
    actor = call.actor
    return json_reply(
        200,
        {
            "uid": actor.uid,
            "gid": actor.gid,
            "role": actor.role.value,
            "owner": actor.owner,
            "separated": actor.separated,
            "instance": state.instance,
            **_scope_json(actor),
        },
    )


def _scope_json(actor: Actor) -> dict[str, object]:
    if actor.role is not Role.VIEWER:
        return {}
    owners = actor.scope.owners
    return {
        "owners": "all" if owners is None else sorted(owners),
        "logs": sorted(actor.scope.logs),
    }


def health(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET health``, even if all else fails. Clients get the state without the reasons."""
    answer = yield ReadEngine("/_ping", deadline_s=2.0)
    engine, policy = state.engine, state.policy
    reachable = isinstance(answer, Reply) and answer.status == 200
    if call.actor.role is Role.CLIENT:
        shown: dict[str, object] = {
            "engine": {"reachable": reachable},
            "journal": {"writable": not state.health.journal_error},
            "policy": {"digest": policy.digest, "name": policy.name},
        }
        return json_reply(200, shown)
    return json_reply(
        200,
        {
            "engine": {
                "reachable": reachable,
                "id": engine.engine_id,
                "version": engine.version,
                "apiVersion": engine.api_version,
                "cpus": engine.cpus,
                "memoryBytes": engine.memory_bytes,
                "ignores": list(state.ignores),
                "imageStore": engine.image_store,
                "untested": untested(engine.version, engine.image_store),
            },
            "journal": {
                "writable": not state.health.journal_error,
                "seq": state.inventory.seq,
                "error": state.health.journal_error,
                "unrecordedRefusals": state.health.unrecorded_refusals,
                "index": {
                    "seq": state.health.indexed,
                    "behind": max(0, state.inventory.seq - state.health.indexed),
                    "error": state.health.index_error,
                },
                "signed": state.health.journal.signed,
                "freeBytes": state.health.journal.free_bytes,
                "reserved": state.health.journal.reserved,
                "clockDoubted": state.health.journal.clock_doubted,
            },
            "policy": {
                "digest": policy.digest,
                "name": policy.name,
                "error": state.health.policy_error,
                "reloads": state.health.policy_reloads,
            },
            "settings": {
                "digest": state.health.settings_digest,
                "error": state.health.settings_error,
                "waiting": list(state.health.settings_waiting),
            },
            "registryAuth": {
                "file": state.access.file,
                "registries": sorted(state.access.hosts),
                "error": state.health.access_error,
            },
            "connections": {
                "served": dict(state.health.connections()),
                "refused": state.health.refused_connections,
            },
            "loop": {"longestStallMs": round(state.health.longest_stall_s() * 1000)},
            "quotas": _quotas(state),
            "openIntents": len(state.inventory.open),
            "restored": state.inventory.restored,
            "strangers": _sample(state.split_brain.unknown),
            "rivals": _sample(state.split_brain.rivals),
            "long": _sample(
                {
                    identifier: name
                    for identifier, name in state.health.long_containers.items()
                    if identifier in state.inventory.containers
                }
            ),
        },
    )


def _quotas(state: GateState) -> dict[str, object]:
    """Return the fullest quotas, and the clients that must wait before they change anything."""
    counted = all_counted(state.inventory, state.reservations.objects)
    used = quota_use(counted, state.policy)[:QUOTAS_TOLD]
    return {
        "fullest": [{**asdict(use), "percent": use.percent} for use in used],
        "waiting": client_shares.waiting(state),
    }


def _sample(containers: dict[str, str]) -> dict[str, object]:
    return {"count": len(containers), "some": dict([*containers.items()][:STRANGERS_TOLD])}


def policy(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET policy``: the policy in force; a client gets its own entries about people."""
    yield from ()
    current = state.policy
    about = {"digest": current.digest, "name": current.name}
    if call.actor.role is Role.CLIENT:
        return json_reply(200, {**about, "policy": _client_policy(call.actor, current)})
    shown = {name: wire.encode_reply(value) for name, value in about.items()}
    shown["policy"] = current.json_text.encode()
    if current.origin is not None:
        # Clients, possibly in a container, have no business with paths of the host.
        origin = {"file": current.origin.file, "lines": dict(current.origin.lines)}
        shown["origin"] = wire.encode_reply(origin)
    if current.directory:
        shown["directory"] = wire.encode_reply(current.directory)
    return Reply(200, wire.object_of(shown), wire.JSON_TYPE)


def _client_policy(actor: Actor, policy: Policy) -> dict[str, object]:
    whole = policy.to_json()
    listed = [o.name == actor.owner for o in policy.owners or ()]
    excepted = [e.owner == actor.owner for e in policy.exceptions]
    return {
        **whole,
        "clients": [{"uid": actor.uid, "owner": actor.owner}],
        "operators": [],
        "containerPeers": [],
        "viewers": [],
        "owners": _select(whole["owners"], listed),
        "exceptions": _select(whole["exceptions"], excepted),
    }


def _select(rows: object, keep: list[bool]) -> object:
    if not isinstance(rows, list):
        return rows
    return [each for each, wanted in zip(rows, keep, strict=True) if wanted]


def inventory(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET inventory``; for clients, only the objects of their owner.

    The flow gives way between the containers: thousands of them take longer than any other request.

    Raises:
        Answered: to the controller: the engine doesn't answer, and an unknown container may be there.
    """
    if call.actor.role is Role.CONTROLLER:
        yield from recovery.survey_in_doubt(state)
    known, actor = state.inventory, call.actor
    shown: dict[str, object] = {
        "instance": state.instance,
        "networks": [asdict(n) for n in known.networks.values() if can_see(actor, n.owner)],
        "volumes": [asdict(v) for v in known.volumes.values() if can_see(actor, v.owner)],
    }
    if actor.role is not Role.CLIENT:
        shown |= {
            "seq": known.seq,
            "ledger": [asdict(trusted) for trusted in known.ledger.values()],
            "sessions": [asdict(session) for session in known.sessions.values()],
            "addresses": addresses_to_json(known),
            "released": [ITEM.to_json(item) for item in known.released.values()],
            **shared_items(state, known),
        }
    containers: list[bytes | None] = []
    for number, item in enumerate(known.containers.values(), 1):
        if can_see(actor, item.owner):
            containers.append(wire.encode_reply(ITEM.to_json(item)))
        if number % INVENTORY_STEP == 0:
            yield GiveWay()
    members: dict[str, bytes | None] = {
        name: wire.encode_reply(value) for name, value in shown.items()
    }
    members["containers"] = wire.list_of(containers)
    return Reply(200, wire.object_of(members), wire.JSON_TYPE)


def shared_items(
    state: GateState, known: Inventory, have: Collection[str] = ()
) -> dict[str, object]:
    """Return the shared members of an inventory, such as pins and endings.

    Members that grow with the host have tags. A member with a tag in *have* is left out.
    """
    tags = {name: state.tags.tag_of(name, getattr(known, name), state.new_id) for name in TAGGED}
    left_out = {name for name, tag in tags.items() if tag in have}
    members = shared_to_json(known, left_out=left_out)
    if holders := state.holders:
        members["foreign"] = [asdict(holder) for holder in holders]
    if warning := untested(state.engine.version, state.engine.image_store):
        members["untested"] = warning
    about = {"engineId": state.engine.engine_id, "engineVersion": state.engine.version}
    return {**about, **members, "tags": tags}


def records(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST records``: make an operator's act durable. The controller has two acts."""
    body = call.body
    act = body.get("act", "") if isinstance(body, dict) else ""
    if call.actor.role is Role.CONTROLLER and act != SERVICE_MOVED:
        return (yield from _record_hold(call, body))
    if not isinstance(body, dict):
        raise _invalid_record()
    if act == "approve":
        return (yield from _record_approval(call, state, body))
    if handler := _ACTS.get(str(act)):
        return (yield from handler(call, state, body))
    if act == JOB_RUN:
        return (yield from _record_run_request(call, body))
    record = _record_service_act if str(act).startswith(SERVICE_PREFIX) else _record_note
    return (yield from record(call, body))


def _record_note(call: GateRequest, body: dict[str, object]) -> Flow[Reply]:
    """Record an act without members of its own."""
    act = body.get("act", "")
    if not body.keys() <= {"act", "object", "note"}:
        raise _invalid_record()
    # The writer of the journal rotates the key in the same write as the record.
    route = _ROUTES.get(str(act), call.route.name)
    texts = {name: body.get(name, "") for name in ("act", "object", "note")}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > (ACT_MAX if name == "act" else TEXT_MAX):
            raise _invalid_record()
    if not texts["act"]:
        raise _invalid_record()
    request = request_of("POST", route, str(texts["object"]), texts)
    yield from require_record("read" if route == VALUES_SHOW else "operator", call.by, request)
    return json_reply(200, {"id": call.id})


def approvals(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST approvals``: show what an approval would cover, by the inventory."""
    yield from ()
    body = call.body if isinstance(call.body, dict) else {}
    plan, objects = body.get("plan"), read_objects(body.get("objects"))
    if not isinstance(plan, str) or not body.keys() <= {"plan", "objects"}:
        objects = "expected plan and objects"
    if isinstance(objects, str):
        raise _invalid_approval(objects)
    view = approval_views.view(state.inventory, str(plan), objects)
    state.approvals.remember(view)
    return json_reply(
        200,
        {
            "plan": view.plan,
            "digest": view.digest,
            "objects": [each.to_json() for each in view.objects],
            "unknown": [asdict(each) for each in view.unknown],
        },
    )


def _record_approval(call: GateRequest, state: GateState, body: dict[str, object]) -> Flow[Reply]:
    """Record an approval: objects for the controller to take down or remove once, for one plan.

    The objects must still be as the broker showed them: ``shown`` is the digest of that view.
    """
    rest = {name: member for name, member in body.items() if name != "shown"}
    asked = approval_requests.read_approval(rest)
    if isinstance(asked, str):
        raise _invalid_approval(asked)
    shown = read_digest(body)
    if shown is None:
        raise _invalid_approval("shown isn't the digest of what the broker showed")
    plan, objects, remark = asked
    view = approval_views.view(state.inventory, plan, objects)
    if view.unknown:
        first = view.unknown[0]
        raise Denied(
            "approval.unknown",
            f"{quote(first.id)} can't be approved: {first.why}",
            "look again with 'trimtab approve'",
            status=409,
        )
    if view.digest != shown:
        raise _changed_approval(state, shown, view)
    summary = ApprovalPart(act="approve", plan=plan, note=remark, shown=shown)
    request = request_of("POST", APPROVE, plan, summary.members)
    # The form of each object was checked, and the record must have them all.
    summary = RequestPart.read(request).summary | ApprovalPart(objects=tuple(objects))
    proof = digest({"summary": summary.members, "body": {}})
    request |= RequestPart(summary=summary, digest=proof).members
    yield from require_record("operator", call.by, request)
    state.remember_time(call.id)
    expires_s = int(approval_requests.APPROVAL_S)
    return json_reply(
        200, {"id": call.id, "plan": plan, "objects": len(objects), "expiresS": expires_s}
    )


def _changed_approval(state: GateState, shown: str, now: ApprovalView) -> Denied:
    before = state.approvals.shown.get(shown)
    changed = "" if before is None else approval_views.changes(before, now)
    return Denied(
        "approval.changed",
        changed or "the broker showed something else, or showed it before its start",
        "look again with 'trimtab approve'",
        status=409,
    )


def _invalid_approval(fault: str) -> Denied:
    return Denied(
        "approval.invalid",
        f"the approval can't be taken: {fault}",
        'send {"act": "approve", "plan": …, "objects": […], "shown": DIGEST, "note": …}, with '
        "the digest of 'POST approvals'",
        status=400,
    )


def _invalid_body(fault: str, form: str) -> Denied:
    return Denied(
        "body.invalid", f"the request can't be taken: {fault}", f"send {form}", status=400
    )


def _record_service_act(call: GateRequest, body: dict[str, object]) -> Flow[Reply]:
    """Record an operator's request to the controller about a service."""
    act = read_service_act(body)
    if isinstance(act, str):
        raise _invalid_body(act, '{"act": …, "object": …, "revision": …, "note": …}')
    request = request_of("POST", act.act, str(act.key), act.summary)
    yield from require_record("operator", call.by, request)
    return json_reply(200, {"id": call.id})


def _record_run_request(call: GateRequest, body: dict[str, object]) -> Flow[Reply]:
    """Record an operator's request for a run of a job; the inventory keeps it until the run."""
    asked = read_run_request(body)
    if isinstance(asked, str):
        raise _invalid_body(
            asked, f'{{"act": "{JOB_RUN}", "object": "Job/NAMESPACE/NAME", "note": …}}'
        )
    request = request_of("POST", JOB_RUN, str(asked.key), asked.summary)
    yield from require_record("operator", call.by, request)
    return json_reply(200, {"id": call.id})


def _record_hold(call: GateRequest, body: object) -> Flow[Reply]:
    """Record that a Git source doesn't serve a newer commit: a claim of the controller."""
    if not isinstance(body, dict) or body.get("act") != SOURCE_HELD:
        raise Denied(
            "role.denied",
            f"{call.route.name} isn't for the role controller, except for {SOURCE_HELD}",
            "it is for operators",
        )
    hold = read_hold(body)
    if isinstance(hold, str):
        raise Denied(
            "body.invalid",
            f"the hold can't be recorded: {hold}",
            f'send {{"act": "{SOURCE_HELD}", "object": …, "commit": …, "reason": …, "message": …}}',
            status=400,
        )
    note = redact.text(f"commit {hold.commit}: {hold.reason}: {hold.message}")
    summary: dict[str, object] = {"act": SOURCE_HELD, "object": str(hold.key), "note": note}
    request = request_of("POST", SOURCE_HELD, str(hold.key), summary)
    yield from require_record("operator", call.by, request)
    return json_reply(200, {"id": call.id})


def _invalid_record() -> Denied:
    return Denied(
        "body.invalid",
        'expected {"act": …, "object": …, "note": …}',
        f"name the act in at most {ACT_MAX} characters",
        status=400,
    )


def reload_settings(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle the request. The answer names each changed key, and the units that need a restart for it.

    Raises:
        Denied: ``settings.invalid``, ``settings.rebind`` and others: nothing changed.
    """
    found = yield ReadSettings()
    if isinstance(found, SettingsRefused):
        raise _denied(found)
    assert isinstance(found, SettingsFound), "what ReadSettings returns"
    yield from require_record("operator", call.by, _request(found))
    refused = yield UseSettings(found)
    if isinstance(refused, SettingsRefused):
        raise _denied(refused)
    keys = {
        key.name: [] if key.live else [f"{each}.service" for each in key.processes]
        for key in found.changed
    }
    digest = state.health.settings_digest
    return json_reply(200, {"id": call.id, "digest": digest, "restart": keys})


def reload_changed(state: GateState) -> Flow[None]:
    """Put changed settings in force, as SIGHUP asks for; the record is the broker's own."""
    found = yield ReadSettings()
    if not isinstance(found, SettingsFound):
        return
    if found.changed:
        entry = Entry(state.new_id(), "policy", actor=actor_of(BROKER), request=_request(found))
        if (yield WriteRecord(entry)) is None:
            return
    yield UseSettings(found)


def _request(found: SettingsFound) -> dict[str, object]:
    names = tuple(key.name for key in found.changed)
    summary = LoadedSettingsPart(keys=names, settings_digest=found.in_force.digest)
    return request_of("POST", SETTINGS_RELOADED, "settings", summary.members)


def _denied(refused: SettingsRefused) -> Denied:
    return Denied(refused.code, refused.message, refused.remedy, status=409)
