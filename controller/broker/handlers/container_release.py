"""Release: a service's container becomes an ordinary one, which stays when trimtab goes.

Handles ``POST /trimtab/v1/releases``, for operators only, one container a request. The inverse of an
adoption (``handlers.adoption_as_found``). Decision 123 has the reasons.

A release is the intent ``container.release``, one update of the engine (the restart policy), and the
outcome, by which the inventory lets the container go. No process is restarted. A container that mounts
files which the broker delivered would lose the files with trimtab, so an ordinary one takes its place: it
mounts copies, is created before the other is stopped, and is judged like any create of today. Should the
broker die in between, the repeated request does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import Author, Flow, GateRequest, parse_json, read_json
from controller.broker.gate.journal_entries import place_of
from controller.broker.gate.mutate import LONG_S, Change, perform
from controller.broker.gate.refusals import Denied, refuse_for
from controller.broker.gate.state import GateState
from controller.broker.guards import kernel_verify
from controller.broker.guards.lookup import OwnContainer
from controller.broker.handlers import container_create
from controller.broker.handlers import image as images
from controller.broker.handlers.container_lifecycle import (
    refuse_if_changed,
    refuse_if_volume_held,
    run_pre_stop,
)
from controller.broker.wire import json_reply
from controller.core.admission.adoption import Defaults, create_body_of, delivered_places
from controller.core.encoding.json_values import list_of, mapping_of
from controller.core.enforcement.approvals import NOTE_MAX
from controller.core.engine_api.grammar import is_clean
from controller.core.engine_api.requests import Finding
from controller.core.engine_api.translate import ZERO_TIME, settings
from controller.core.records.parts import ActPart, SettingsPart, StopPart, SummaryPart
from controller.core.rules.context import CONTROLLER
from controller.core.rules.verdict import AdmissionDecision
from controller.model.inventory import ContainerItem, Inventory, next_name
from controller.model.mutations import Mutation
from controller.model.observed import Settings
from controller.model.records import Reply, Verdict

_MEMBERS = {"container", "files", "keepRestart", "dryRun", "note"}
FILES_MAX = 100
#: The restart policy of a container that trimtab alone restarted.
_RESTART = "unless-stopped"
#: Beside the grace period of a stop.
_SPARE_S = 15.0
_DEFAULT_GRACE_S = 10
_VERDICT = Verdict("allow", ("release",), "an operator releases it")


@dataclass(frozen=True, slots=True)
class _Asked:
    container: str
    #: The path of the copy of each delivered file or folder, by its target in the container.
    files: Mapping[str, str]
    keep_restart: bool
    is_dry: bool
    note: str


@dataclass(slots=True)
class _Release:
    """A container to release, with the outcome of the release."""

    item: ContainerItem
    inspect: Mapping[str, Any]
    was: Settings
    restart: str
    #: It was released before, and still mounts delivered files.
    is_again: bool
    #: The delivered mounts: target, and path on the host.
    files: tuple[tuple[str, str], ...] = ()
    findings: list[Finding] = field(default_factory=list)
    #: The judged create of the container that takes its place.
    made: tuple[GateRequest, container_create.Lookups, AdmissionDecision] | None = None

    @property
    def should_run(self) -> bool:
        """Return True if it runs, or ran until an earlier request, which was cut off, stopped it.

        The controller takes the restart policy from a container that it stops for good.
        """
        is_up = bool(mapping_of(self.inspect.get("State")).get("Running"))
        return is_up or (self.is_again and self.was.restart != "no")

    def to_json(self) -> dict[str, object]:
        """Return the release for an operator."""
        name = self.made[0].query["name"] if self.made else self.item.admitted.name
        return {
            "id": self.item.id,
            "name": redact.text(self.item.admitted.name),
            "namespace": self.item.namespace,
            "service": self.item.service,
            "slot": self.item.slot_label,
            "becomes": redact.text(name),
            "restart": {"was": self.was.restart, "becomes": self.restart},
            "hooks": bool(self.item.hooks),
            "files": [{"target": target, "path": path} for target, path in self.files],
            "findings": [
                {
                    "rule": each.rule,
                    "path": redact.text(each.path),
                    "reason": redact.text(each.reason),
                    "remedy": redact.text(each.advice),
                }
                for each in self.findings
            ],
        }


def release(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``POST releases``."""
    asked = _read(call.body)
    found = yield from _look(call, state, asked)
    shown = found.to_json()
    if asked.is_dry:
        return json_reply(200, {"dryRun": True, "container": shown})
    refuse_for(found.findings, subject=found.item.id)
    with state.verification.holding(found.item.id):
        if not found.is_again:
            reply = yield from _let_go(call, state, found, asked)
            if reply.status >= 400:
                return reply
        identifier = found.item.id
        if found.made is not None:
            reply = yield from _take_its_place(call, state, found, found.made)
            if reply.status >= 400:
                return reply
            identifier = str(parse_json(reply)["Id"])
    result = {"dryRun": False, "container": shown, "released": identifier}
    return json_reply(200, {"id": call.id, **result})


def _read(body: object) -> _Asked:
    """Return a request to release a container.

    Raises:
        Denied: ``release.invalid``.
    """
    members = mapping_of(body)
    files = members.get("files", {})
    asked = _Asked(
        str(members.get("container", "")),
        mapping_of(files),
        keep_restart=members.get("keepRestart") is True,
        is_dry=members.get("dryRun") is True,
        note=str(members.get("note", "")),
    )
    fits = (
        members.keys() <= _MEMBERS
        and isinstance(files, dict)
        and len(files) <= FILES_MAX
        and all(isinstance(each, str) and is_clean(each) for each in files.values())
        and len(asked.note) <= NOTE_MAX
    )
    if not fits:
        form = '{"container": ID, "files": {TARGET: PATH}, "keepRestart", "dryRun", "note"}'
        reason = "the container to release can't be read"
        raise Denied("release.invalid", reason, f"send {form}", status=400)
    return asked


# What would become of it


def _look(call: GateRequest, state: GateState, asked: _Asked) -> Flow[_Release]:
    """Return the release of a container, judged. Changes nothing.

    Raises:
        Denied: ``release.unknown``: no container of this instance has the id.
    """
    known = state.inventory
    item = known.containers.get(asked.container) or known.released.get(asked.container)
    inspect = (yield from read_json(f"/containers/{item.id}/json")) if item is not None else None
    if item is None or inspect is None:
        reason = "no container of this instance has this id"
        remedy = "name a service that 'trimtab status' lists"
        raise Denied("release.unknown", reason, remedy, status=404, subject="container")
    now = settings(inspect)
    is_up = bool(mapping_of(inspect.get("State")).get("Running"))
    is_trimtabs = now.restart == "no" and is_up and not asked.keep_restart
    is_again = item.id in known.released
    restart = _RESTART if is_trimtabs else now.restart
    found = _Release(item, inspect, now, restart, is_again, _delivered(inspect, state))
    found.findings += _judge(found, asked)
    if found.files and asked.files and not found.findings:
        try:
            found.made = yield from _judge_successor(call, state, found, asked)
        except Denied as denied:
            found.findings.append(Finding(denied.rules[0], "files", denied.reason, denied.remedy))
    return found


def _delivered(inspect: Mapping[str, Any], state: GateState) -> tuple[tuple[str, str], ...]:
    places = delivered_places(inspect, state.file_roots)
    mounts = map(mapping_of, list_of(mapping_of(inspect.get("HostConfig")).get("Mounts")))
    pairs = ((str(mount.get("Target")), str(mount.get("Source"))) for mount in mounts)
    return tuple((target, path) for target, path in pairs if target in places)


def _judge(found: _Release, asked: _Asked) -> Iterator[Finding]:
    item = found.item
    if item.origin != "controller" or item.is_run:
        what = "a run of a job, which ends by itself" if item.is_run else "a client's"
        reason = f"{item.admitted.name} is {what}"
        yield Finding("release.kind", "container", reason, "release services alone")
    elif found.is_again and not found.files:
        reason = f"{item.admitted.name} was released already"
        yield Finding("release.done", "container", reason, "leave it as it is")
    elif found.files and not asked.is_dry and not asked.files:
        yield _missing([target for target, _ in found.files])
    elif asked.files and (left := [t for t, _ in found.files if t not in asked.files]):
        yield _missing(left)


def _missing(targets: list[str]) -> Finding:
    reason = f"it mounts files that trimtab delivers, at {', '.join(sorted(targets))}"
    remedy = "name a folder for copies of them: --to FOLDER"
    return Finding("release.files", "files", reason, remedy)


def _judge_successor(
    call: GateRequest, state: GateState, found: _Release, asked: _Asked
) -> Flow[tuple[GateRequest, container_create.Lookups, AdmissionDecision]]:
    """Judge the create of the same container with copies in place of the delivered files.

    Raises:
        Denied: admission denies the create.
    """
    image = yield from images.inspect_image(str(found.inspect.get("Image") or ""))
    info = (yield from read_json("/info")) or {}
    body = create_body_of(found.inspect, image or {}, actor=CONTROLLER, defaults=Defaults.of(info))
    body.pop("TrimtabHooks", None)
    body["Image"] = found.item.image
    host = dict(mapping_of(body["HostConfig"]))
    copies = dict(asked.files)
    host["Mounts"] = [
        {"Type": "bind", "Source": copies[target], "Target": target, "ReadOnly": True}
        if (target := str(mapping_of(mount).get("Target"))) in copies
        else mount
        for mount in list_of(host.get("Mounts"))
    ]
    host["RestartPolicy"] = {"Name": found.restart}
    query = {"name": next_name(state.inventory, found.item)}
    created = replace(
        call, id=state.new_id(), actor=CONTROLLER, body={**body, "HostConfig": host}, query=query
    )
    lookups, _, judged = yield from container_create.judge(created, state)
    return created, lookups, judged


# The release


def _let_go(call: GateRequest, state: GateState, found: _Release, asked: _Asked) -> Flow[Reply]:
    """Record the release, and set the restart policy with which the engine keeps the container."""
    item = found.item
    after = replace(found.was, restart=found.restart)
    policy: dict[str, object] = {"Name": after.restart}
    if after.restart_max:
        policy["MaximumRetryCount"] = after.restart_max
    body: dict[str, object] = {"RestartPolicy": policy}
    summary = (
        SummaryPart.read(place_of(item))
        | SettingsPart(settings=after, updated_members=tuple(body))
        | ActPart(act="release", note=asked.note)
    )
    judged = AdmissionDecision(_VERDICT, body)
    path = f"/containers/{item.id}/update"
    change = Change.of(Mutation.CONTAINER_RELEASE, item.id, path, judged, summary.members)
    return (yield from perform(state, call.by, change))


def _take_its_place(
    call: GateRequest,
    state: GateState,
    found: _Release,
    made: tuple[GateRequest, container_create.Lookups, AdmissionDecision],
) -> Flow[Reply]:
    """Create a container with the copies, stop the old container, start the new one, remove the old one.

    If the new one can't be started, it is removed, and the other one started again.

    Raises:
        Denied: ``held``: the journal doesn't take the outcome of the create.
    """
    created, lookups, judged = made
    for earlier in _earlier_successors(state.inventory, found):
        for mutation in (Mutation.CONTAINER_STOP, Mutation.CONTAINER_REMOVE):
            reply = yield from _step(call, state, earlier, mutation)
            if reply.status >= 400:
                return reply
    by_operator = replace(created, actor=call.actor)
    reply = yield from container_create.create_judged(
        by_operator, state, judged, lookups, released=True
    )
    if reply.status >= 400:
        return reply
    item = state.inventory.released.get(str(parse_json(reply)["Id"]))
    if item is None:
        reason = "the new container isn't recorded yet, and the old one runs on"
        raise Denied("held", reason, "repeat the command", status=409, subject=found.item.id)
    if not found.should_run:
        yield from _step(call, state, found.item, Mutation.CONTAINER_REMOVE)
        return reply
    stopped = yield from _step(call, state, found.item, Mutation.CONTAINER_STOP)
    if stopped.status >= 400:
        yield from _step(call, state, item, Mutation.CONTAINER_REMOVE)
        return stopped
    started = yield from _start(call, state, item)
    if started.status >= 400:
        yield from _step(call, state, item, Mutation.CONTAINER_REMOVE)
        yield from _step(call, state, found.item, Mutation.CONTAINER_START)
        return started
    removed = yield from _step(call, state, found.item, Mutation.CONTAINER_REMOVE)
    return removed if removed.status >= 400 else reply


def _earlier_successors(inventory: Inventory, found: _Release) -> list[ContainerItem]:
    """Return what an earlier request, which was cut off, created in the place of a container."""
    item = found.item
    place = (item.namespace, item.service, item.slot_label)
    # Nobody records the start of a released container: these were created as such.
    return [
        each
        for each in inventory.released.values()
        if found.is_again and each.id != item.id and not each.started
        if (each.namespace, each.service, each.slot_label) == place
    ]


def _start(call: GateRequest, state: GateState, item: ContainerItem) -> Flow[Reply]:
    """Start a released container, if its admission still holds; compare it with the kernel's view."""
    inspect = (yield from read_json(f"/containers/{item.id}/json")) or {}
    by = Author(state.new_id(), call.actor, policy=call.policy.digest)
    try:
        refuse_if_volume_held(state, item)
        container = OwnContainer(item, inspect, state.clock.monotonic())
        yield from refuse_if_changed(state, container, call.policy)
        change = _change(item, Mutation.CONTAINER_START, inspect)
        return (yield from kernel_verify.perform_verified(state, by, item, call.policy, change))
    except Denied as denied:
        return denied.reply(by.id)


def _step(
    call: GateRequest, state: GateState, item: ContainerItem, mutation: Mutation
) -> Flow[Reply]:
    inspect = (yield from read_json(f"/containers/{item.id}/json")) or {}
    by = Author(state.new_id(), call.actor, policy=call.policy.digest)
    change, prepare = _change(item, mutation, inspect), None
    if mutation is Mutation.CONTAINER_STOP and item.hooks:
        grace_s = StopPart.read(change.summary).grace_s or 0
        container = OwnContainer(item, inspect, state.clock.monotonic())
        prepare = partial(run_pre_stop, state, container, call.policy, grace_s)
    try:
        return (yield from perform(state, by, change, prepare=prepare))
    except Denied as denied:
        return denied.reply(by.id)


def _change(item: ContainerItem, mutation: Mutation, inspect: Mapping[str, Any]) -> Change:
    """Return a change of a released container. Recovery compares with the time before it."""
    times = mapping_of(inspect.get("State"))
    summary, deadline_s = SummaryPart.read(place_of(item)), LONG_S
    match mutation:
        case Mutation.CONTAINER_START:
            summary |= SummaryPart(before=str(times.get("StartedAt") or ZERO_TIME))
        case Mutation.CONTAINER_STOP:
            asked = mapping_of(inspect.get("Config")).get("StopTimeout")
            grace_s = asked if isinstance(asked, int) else _DEFAULT_GRACE_S
            deadline_s = max(LONG_S, grace_s + _SPARE_S)
            before = str(times.get("FinishedAt") or ZERO_TIME)
            summary |= StopPart(grace_s=grace_s, before=before)
        case _:
            pass
    verb = "" if mutation is Mutation.CONTAINER_REMOVE else f"/{mutation.rpartition('.')[2]}"
    path = f"/containers/{item.id}{verb}"
    change = Change.of(mutation, item.id, path, AdmissionDecision(_VERDICT), summary.members)
    return replace(change, deadline_s=deadline_s, runs=mapping_of(inspect.get("Config")) or None)
