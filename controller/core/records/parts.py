"""Typed payloads of a record: its parts, written and read through one definition.

The parts of an ``Entry`` are JSON objects. A payload declares each member once, so that the type
checker finds a misspelt member. Example: ``RequestPart.read(entry.request).summary.name``, or
``VerdictPart(decision="deny", rules=("name.taken",), policy=digest).members``.

A missing member, or a value of another type, reads as empty.
Golden files (``tests/golden/records``) hold every form of a record.

The journal's records of operators' acts on services, and of held Git sources, in closed forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from controller.core.encoding.json_values import (
    Payload,
    flag,
    items,
    mapping,
    mapping_of,
    member,
    nested,
    number,
    text,
    texts,
)
from controller.model import mutations, names
from controller.model.names import (
    COMMIT_ID,
    JOB_NAME_MAX,
    NAMESPACE_MAX,
    SERVICE_NAME_MAX,
    Key,
    is_dns_label,
    is_revision,
)
from controller.model.records import Record

if TYPE_CHECKING:
    from controller.model.confinement import Confinement
    from controller.model.inventory import OpenIntent
    from controller.model.observed import Settings


S = TypeVar("S", bound="SummaryPart")


SWITCHING_PROTOCOLS = 101  # the engine handed over an exec's connection
#: The engine's answer to the start of a running container, or the stop of a stopped one.
NOT_MODIFIED = 304
NOT_FOUND = 404


class ActorPart(Payload):
    """The member ``actor``: the peer of the request."""

    role: str = text("role")
    uid: int | None = number("uid")
    gid: int | None = number("gid")
    pid: int | None = number("pid")
    #: False if the uid does not prove the role.
    separated: bool = flag("separated", default=True)


class VerdictPart(Payload):
    """The member ``verdict``: the decision of admission."""

    decision: str = text("decision")  # allow, mutate, deny or audit-deny
    rules: tuple[str, ...] = texts("rules")  # the deciding rule first
    #: The reason of a denial that a mode let through.
    reason: str = text("reason", optional=True)
    #: The changes that the policy made to the request.
    mutations: tuple[str, ...] = texts("mutations")
    policy: str = text("policy")  # its digest


class SourcePart(Payload):
    """The member ``claims.source``: the document behind a change."""

    file: str = text("file")
    first_line: int | None = number("line")
    commit: str = text("commit")
    #: The line of each field, by its path under ``spec``.
    lines: Mapping[str, Any] = mapping("lines", optional=True)

    def line(self, path: str = "") -> int:
        """Return the line of a field (path under ``spec``), else the document's first line."""
        line = self.lines.get(path, self.first_line)
        return line if isinstance(line, int) else 0


class ClaimsPart(Payload):
    """The member ``claims``: the controller's reasons, which prove nothing else."""

    cause: str = text("cause")
    source: SourcePart = nested("source", SourcePart)
    plan: str = text("plan")
    on_behalf_of: str = text("onBehalfOf")


class MountPart(Payload):
    """An item of ``mounts`` in the summary of a create."""

    type: str = text("type")  # bind, volume, tmpfs, config or secret
    #: The host path, or the name of the volume, Config or Secret; '' for tmpfs.
    source: str = text("source")
    target: str = text("target")
    read_only: bool = flag("readOnly")
    #: The policy rule that added the mount; '' if the request named it.
    rule: str = text("rule", optional=True)


class DevicePart(Payload):
    """An item of ``devices`` in the summary of a create."""

    source: str = text("source")  # a path of the host, or a CDI name
    target: str = text("target", optional=True)  # the path in the container; '' for a CDI name
    permissions: str = text("permissions", optional=True)
    numbers: tuple[str, ...] = texts("numbers")  # of its device nodes, as MAJOR:MINOR
    specification: str = text("specification", optional=True)  # the digest of the CDI file


class TrustedImagePart(Payload):
    """A trusted image: in the summary of a trust record, and in the result of a pull."""

    reference: str = text("reference")
    id: str = text("id")
    digest: str = text("digest")  # '' if local
    builder: str = text("builder", optional=True)  # the owner whose documents built the image


class ProofPart(Payload):
    """The member ``proof``: the verified commit behind a change (``core.proofs``)."""

    source: str = text("source")
    commit: str = text("commit")
    signer: str = text("signer")  # a name in ``allowed_signers``
    key: str = text("key")  # the fingerprint of the signer's key
    resource: str = text("resource", optional=True)  # the key of the document
    path: str = text("path", optional=True)  # of the document's file, below the documents' folder
    blob: str = text("blob", optional=True)
    #: The digest of the create without the controller's choices.
    shape: str = text("shape", optional=True)
    #: The shape of the admitting revision from before a move; absent if it is the same shape.
    former_shape: str = text("formerShape", optional=True)
    #: The same without the members that an update can change.
    base: str = text("base", optional=True)
    #: The values of the members that an update can change.
    updates: Mapping[str, Any] = mapping("updates", optional=True)
    #: The names of the container by network.
    endpoints: Mapping[str, Any] = mapping("endpoints", optional=True)
    replicas: int | None = number("replicas", optional=True)
    #: Of an accepted commit: the policy's first one. Of an approved line: the accepted commit before.
    since: str = text("since", optional=True)


# A list of records reads neither settings nor a confinement. The code for both would be half of what a
# question to the journal loads.


def _read_settings(value: object) -> Settings:
    from controller.core.records.inventory_json import settings_from_json

    return settings_from_json(mapping_of(value))


def _write_settings(settings: Settings) -> dict[str, object]:
    from controller.core.records.inventory_json import settings_to_json

    return settings_to_json(settings)


def _read_confinement(value: object) -> Confinement | None:
    from controller.core.rules.confinement import confinement_from_json

    return confinement_from_json(value)


def _write_confinement(confined: Confinement | None) -> dict[str, object] | None:
    from controller.core.rules.confinement import confinement_to_json

    return None if confined is None else confinement_to_json(confined)


class SummaryPart(Payload):
    """The member ``request.summary``: facts for recovery, the inventory and queries.

    This part has what every object can have. The routes have parts of their own below, each of which is a
    view of the same members: ``summary.part(CreatePart)``.
    """

    # Namespace, service and owner are in records without labels.
    name: str = text("name")  # the new name in a rename
    namespace: str = text("namespace")
    service: str = text("service")
    owner: str = text("owner")
    #: The labels that the broker wrote onto the object.
    labels: Mapping[str, Any] = mapping("labels")
    #: The value that the mutation changes: a timestamp, or the id of an image.
    before: str | None = member("before", lambda value: value if isinstance(value, str) else None)
    #: Of changes under signed admission.
    proof: ProofPart = nested("proof", ProofPart, optional=True)

    def label(self, name: str) -> str:
        """Return a label that the broker wrote onto the object; '' if absent."""
        value = self.labels.get(name)
        return value if isinstance(value, str) else ""

    def part(self, kind: type[S]) -> S:
        """Return the same summary as the part of a route."""
        return kind.read(self.members)


class ImagePart(SummaryPart):
    """Of pulls, tags and removals of images."""

    reference: str = text("reference")
    image_id: str = text("imageId")
    digest: str = text("digest")  # of the image in its registry; '' if local

    @property
    def trusted_image(self) -> TrustedImagePart:
        """The image that an operator trusts."""
        return TrustedImagePart.read(self.members)


class SettingsPart(SummaryPart):
    """Of updates."""

    settings: Settings = member("settings", _read_settings, _write_settings)
    #: The members of an update's body.
    updated_members: tuple[str, ...] = texts("fields")


class EndpointPart(SummaryPart):
    """Of connects and disconnects."""

    network: str = text("network")
    #: The container's DNS names; in a connect, the added ones.
    aliases: tuple[str, ...] = texts("answersTo")
    #: The address of the container's slot by the id of the network.
    slot_addresses: Mapping[str, Any] = mapping("slotAddresses", optional=True)
    #: The ids of the admitted networks by name.
    network_ids: Mapping[str, Any] = mapping("networkIds", optional=True)


class ProgramPart(SummaryPart):
    """Of creates and execs."""

    environment: tuple[str, ...] = texts("env")  # names of variables


class CreatePart(ImagePart, SettingsPart, EndpointPart, ProgramPart):
    """Of creates of containers."""

    image: str = text("image")
    #: Only the policy's ``images.trustLocal`` admitted the image.
    trusted_by_policy: bool = flag("trustedByPolicy", optional=True)
    #: The names of a service's container by network, apart from the service's own name.
    network_aliases: Mapping[str, Any] = mapping("aliasesOn", optional=True)
    #: The identities of the admitted volumes by name (``OwnedObject.identity``).
    volume_ids: Mapping[str, Any] = mapping("volumeIds", optional=True)
    #: The confinement that the kernel must show.
    confinement: Confinement | None = member("confined", _read_confinement, _write_confinement)
    mounts: tuple[MountPart, ...] = items("mounts", MountPart)
    ports: tuple[str, ...] = texts("ports")  # published, as ADDRESS:PORT:PORT/PROTOCOL
    capabilities: tuple[str, ...] = texts("caps")  # the added ones
    devices: tuple[DevicePart, ...] = items("devices", DevicePart, optional=True)
    groups: tuple[str, ...] = texts("groups", optional=True)
    extra_hosts: tuple[str, ...] = texts("extraHosts", optional=True)
    #: The shared namespaces of another container, as KIND:SERVICE:ID, such as ``pid:vpn:0123…``.
    shares: tuple[str, ...] = texts("shares", optional=True)
    hooks: str = text("hooks", optional=True)  # the keyed digest of the hooks; '' for none
    has_post_start: bool = flag("postStart", optional=True)  # there are hooks of the start
    #: The container takes the place of a released one, and is released from its creation on.
    is_released: bool = flag("released", optional=True)
    healthcheck: tuple[str, ...] = texts("healthcheck")
    #: The policy exceptions used by the container.
    exceptions: tuple[str, ...] = texts("exceptions")

    @property
    def has_read_only_root(self) -> bool | None:
        """True for a read-only root file system; None without a confinement."""
        confined = self.members.get("confined")
        return bool(confined.get("read_only_root")) if isinstance(confined, Mapping) else None


class NetworkPart(SummaryPart):
    """Of creates of networks."""

    internal: bool = flag("internal")
    subnets: tuple[str, ...] = texts("subnets", optional=True)


class StopPart(SummaryPart):
    """Of stops, kills, restarts, and other mutations of the controller that take a container down."""

    signal: str = text("signal")  # of a kill
    grace_s: int | None = number("graceS", optional=True)  # of a stop or restart
    #: What a mutation of the controller takes down: slot, service, or ''.
    takes_down: str = text("takesDown")
    #: The contents that a container has seen after this signal, as KIND/NAME=CONTENT.
    contents: tuple[str, ...] = texts("contents", optional=True)


class EndPart(SummaryPart):
    """Of the ends of runs, hooks and holds, and of the removal of a container that never started."""

    outcome: str = text("outcome", optional=True)  # succeeded, failed, cut or unstarted


class ExecPart(ProgramPart, EndPart):
    """Of execs and hooks."""

    exec: str = text("exec")  # the id of the session
    program: str = text("program")
    arguments: int | None = number("arguments")  # how many
    user: str = text("user")
    working_dir: str = text("workingDir")
    tty: bool = flag("tty")
    stdin: bool = flag("stdin")
    detach: bool = flag("detach")
    hook: str = text("hook", optional=True)  # postStart or preStop, if the exec is a hook


class SizePart(SummaryPart):
    """Of deliveries of files, builds, and the ends of dumps and restores."""

    size_bytes: int | None = number("sizeBytes", optional=True)
    file_count: int | None = number("fileCount", optional=True)


class BuildPart(ImagePart, ProgramPart, SizePart):
    """Of builds."""

    context: str = text("context", optional=True)  # the digest of the files
    dockerfile: str = text("dockerfile", optional=True)  # its digest
    bases: tuple[str, ...] = texts("bases", optional=True)  # as REFERENCE=ID


class DeliveryPart(SizePart):
    """Of deliveries of files."""

    kind: str = text("kind")  # config or secret
    content: str = text("content", optional=True)  # the id of the content
    file_names: tuple[str, ...] = texts("fileNames", optional=True)  # the first ones


class ActPart(SummaryPart):
    """Of operators' acts."""

    act: str = text("act")
    note: str = text("note")
    objects: tuple[str, ...] = texts("objects")  # of an approval; the users of a held volume
    #: What no later object of the name shares: of an adopted foreign network or volume, or of a run.
    identity: str = text("identity", optional=True)


class ApprovalPart(ActPart):
    """Of approvals."""

    plan: str = text("plan")  # the digest of the approved plan
    #: The digest of what the broker showed before the approval.
    shown: str = text("shown", optional=True)


class ServicePart(ActPart):
    """Of acts on services and jobs."""

    revision: str = text("revision", optional=True)
    #: True if a restart resolves the image of the revision again.
    resolves_image: bool = flag("anew", optional=True)
    moved_from: str = text("movedFrom", optional=True)  # the former key of a service
    replicas: int | None = number("replicas", optional=True)  # of a scaling
    for_s: int | None = number("seconds", optional=True)  # after which a scaling ends


class JobPart(ServicePart, EndPart):
    """Of adoptions of jobs."""


class HoldPart(ActPart, SizePart, EndPart):
    """Of dumps and restores of volumes."""

    live: bool = flag("live", optional=True)  # the containers go on running
    record: str = text("record", optional=True)  # the id of the record of the begin
    digest: str = text("digest")  # of the archive


class RestorePart(ActPart):
    """Of the restore of a backup: ``before`` is the time of the backup's last record."""

    epoch: int | None = number("epoch")  # of the state folder, from here on
    head: str = text("head")  # the hash of the backup's last record
    #: The instance of the backup, if this is another one.
    former: str = text("former", optional=True)


class AdoptionPart(CreatePart, ActPart):
    """Of adoptions of objects."""

    kind: str = text("kind")  # container, network or volume
    started: bool = flag("started")  # the container was started before
    effective: str = text("effective")  # verification result of a running container
    gaps: tuple[str, ...] = texts(
        "gaps", optional=True
    )  # the admitted ones, of a container as found
    #: The keyed digest of everything that was compared with the document.
    fingerprint: str = text("fingerprint", optional=True)


class RegistriesPart(SummaryPart):
    """Of the load of credentials."""

    registries: tuple[str, ...] = texts("registries")  # with credentials


class LoadedSettingsPart(SummaryPart):
    """Of reloads of settings."""

    keys: tuple[str, ...] = texts("keys")  # with other values than before
    settings_digest: str = text("settingsDigest")  # of the file


class RequestPart(Payload):
    """The member ``request``: the operation and its object."""

    method: str = text("method")
    route: str = text("route")  # such as ``container.create``
    object: str = text("object")  # an id; in a create the name
    summary: SummaryPart = nested("summary", SummaryPart)
    digest: str = text("digest")  # of the summary and the body
    #: Keyed hashes of the values in the environment, by name.
    secrets: Mapping[str, Any] = mapping("secrets", optional=True)


class RepairPart(Payload):
    """The member ``result.repair`` of a segment record: bytes of a torn write, moved aside."""

    bytes: int | None = number("bytes")
    reason: str = text("reason")
    #: True if an acknowledged record was lost.
    durable: bool = flag("durable")
    files: tuple[str, ...] = texts("files")  # that have the bytes now


class OutagePart(Payload):
    """The member ``result.outage`` of a segment record: a time without successful writes."""

    since: str = text("since")
    error: str = text("error")
    refused: int | None = number("refused")  # entries


class ResultPart(Payload):
    """The member ``result``: the effect of a request, or the content of a journal's own record."""

    status: int | None = number("status")  # of the engine's response; None without a response
    #: The error of the engine or the broker; '' without an error.
    error: str = text("error")
    code: str = text("code", optional=True)  # of the error
    duration_ms: int | None = number("durationMs")
    shared_with: str = text("with", optional=True)  # the intent of a shared pull

    # Of recoveries.
    settled: str = text("settled")  # applied, not-applied or unknown
    evidence: str = text("evidence")

    # Of mutations.
    container: str = text("container")  # the id of a created container
    object: str = text("object")  # the id of a created network or volume
    effective: str = text("effective")  # the verification result of a start
    #: The members of a create or an update that the engine dropped.
    ignored: tuple[str, ...] = texts("ignored", optional=True)
    untagged: tuple[str, ...] = texts("untagged")  # by the removal of an image
    deleted: tuple[str, ...] = texts("deleted")  # likewise: images

    # Of execs.
    exec: str = text("exec")  # the id of a created session
    exit_code: int | None = number("exitCode")
    was_cut: bool = flag("cut", optional=True)  # the broker ended the session

    # Of violations.
    differences: tuple[str, ...] = texts("found")
    is_put_back: bool = flag("putBack", optional=True)  # the broker undid the violation

    # Of summaries: counted records, by rule and by route.
    total: int | None = number("total")
    counts: Mapping[str, Any] = mapping("counts")
    reads: Mapping[str, Any] = mapping("reads", optional=True)
    first: str = text("first")
    last: str = text("last")

    # Of the journal's own records.
    format: int | None = number("format")
    #: The record before, and its segment.
    previous: Mapping[str, Any] = mapping("previous")
    repair: RepairPart = nested("repair", RepairPart, optional=True)
    outage: OutagePart = nested("outage", OutagePart, optional=True)
    note: str = text("note")  # a signed checkpoint
    edge: tuple[str, ...] = texts("edge")  # of the Merkle tree, in base64
    key: str = text("key")
    is_key_lost: bool = flag("lost")  # the previous key did not sign this one
    until: int | None = number("until")  # the last pruned record, or the last one of an inventory
    inventory: str = text("inventory", optional=True)  # the digest of a file with the inventory
    reason: str = text("reason")

    @property
    def trusted_image(self) -> TrustedImagePart:
        """The pulled image."""
        return TrustedImagePart.read(self.members)


# Closing records


@dataclass(frozen=True, slots=True)
class Closing:
    """An intent with the record that closes it: an outcome, or a recovery after a crash."""

    id: str
    seq: int  # of the intent
    role: str
    object: str
    summary: SummaryPart  # of the intent's request
    result: ResultPart
    recovered: bool
    applied: bool
    time: str = ""  # of the intent
    uid: int = -1

    @classmethod
    def of(cls, intent: OpenIntent, record: Record) -> Closing:
        """Return an intent together with its closing record."""
        request = RequestPart.read(intent.request)
        return cls(
            id=record.entry.id,
            seq=intent.seq,
            role=intent.role,
            object=request.object,
            summary=request.summary,
            result=ResultPart.read(record.entry.result),
            recovered=record.entry.stage == "recovered",
            applied=is_applied(record),
            time=intent.time,
            uid=intent.uid,
        )

    @property
    def is_gone(self) -> bool:
        """Return True if a removal succeeded, or found no object: both leave none."""
        return self.applied or self.result.status == NOT_FOUND


def is_applied(record: Record) -> bool:
    """Return True if a closing record says that its intent took effect."""
    result = ResultPart.read(record.entry.result)
    if record.entry.stage == "recovered":
        return result.settled == "applied"
    status = result.status
    return status is not None and (
        200 <= status < 300 or status in {SWITCHING_PROTOCOLS, NOT_MODIFIED}
    )


def is_removed(record: Record) -> bool:
    """Return True if the closing record of a removal says that the object no longer exists."""
    return is_applied(record) or ResultPart.read(record.entry.result).status == NOT_FOUND


NOTE_MAX = 512
_REASON = re.compile(r"[a-z][a-z.-]{0,63}", re.ASCII)
_MEMBERS = frozenset({"act", "object", "revision", "anew", "note", "replicas", "seconds"})
#: The longest time of a scaling.
SCALED_MAX_S = 366 * 86_400


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """An operator's act on a service, or a request for a run of a job."""

    act: str
    key: Key
    #: The revision of a rollback or a restart.
    revision: str = ""
    #: A restart resolves the image of the revision again, and forgets its pin.
    anew: bool = False
    note: str = ""
    #: The number of replicas of a scaling, and after how many seconds the scaling ends.
    replicas: int | None = None
    for_s: int | None = None

    @property
    def summary(self) -> dict[str, object]:
        """The summary in the record; queries find the record by its labels."""
        return ServicePart(
            act=self.act,
            note=self.note,
            labels={names.NAMESPACE: self.key.namespace, names.SERVICE: self.key.name},
            revision=self.revision,
            resolves_image=self.anew,
            replicas=self.replicas,
            for_s=self.for_s,
        ).members


def read_service_act(body: Mapping[str, object]) -> ServiceRecord | str:
    """Return the act to record, or a text about the fault in the body."""
    if not body.keys() <= _MEMBERS:
        return f"it has no member {min(body.keys() - _MEMBERS)!r:.64}"
    act, key = body.get("act"), read_key(body.get("object"))
    revision, note, anew = body.get("revision", ""), body.get("note", ""), body.get("anew", False)
    if not isinstance(act, str) or act not in mutations.SERVICE_ACTS:
        return f"act isn't one of {', '.join(mutations.SERVICE_ACTS)}"
    if key is None:
        return "object isn't a service: Service/NAMESPACE/NAME"
    if not isinstance(revision, str) or not (revision == "" or is_revision(revision)):
        return "revision isn't one: v2: and 64 hex digits"
    if act == mutations.SERVICE_ROLLBACK and not revision:
        return f"{act} names the revision to go back to"
    if revision and act not in (mutations.SERVICE_ROLLBACK, mutations.SERVICE_RESTART):
        return f"{act} is of no revision"
    if not isinstance(anew, bool) or (anew and not (act == mutations.SERVICE_RESTART and revision)):
        return f"anew is true or false, and true for {mutations.SERVICE_RESTART} of a revision only"
    if not isinstance(note, str) or len(note) > NOTE_MAX:
        return f"note isn't a text of at most {NOTE_MAX} characters"
    scaling = _read_scaling(act, body)
    return (
        scaling
        if isinstance(scaling, str)
        else ServiceRecord(act, key, revision, anew, note, *scaling)
    )


def _read_scaling(act: str, body: Mapping[str, object]) -> tuple[int | None, int | None] | str:
    """Return the replicas and the seconds of an act, or a text about the fault in the body."""
    replicas, seconds = body.get("replicas"), body.get("seconds")
    if act != mutations.SERVICE_SCALE:
        return f"{act} is of no replicas" if body.keys() & {"replicas", "seconds"} else (None, None)
    if type(replicas) is not int or not 0 <= replicas <= names.REPLICAS_MAX:
        return f"replicas isn't a number from 0 to {names.REPLICAS_MAX}"
    if "seconds" in body and (type(seconds) is not int or not 0 < seconds <= SCALED_MAX_S):
        return f"seconds isn't a number from 1 to {SCALED_MAX_S}"
    return replicas, seconds if type(seconds) is int else None


def read_run_request(body: Mapping[str, object]) -> ServiceRecord | str:
    """Return the request for a run of a job, or a text about the fault in the body."""
    return _read_noted_act(mutations.JOB_RUN, "Job", "a job", body, name_max=JOB_NAME_MAX)


def read_forget_request(body: Mapping[str, object]) -> ServiceRecord | str:
    """Return the act to forget the values of a Secret, or a text about the fault in the body."""
    return _read_noted_act(mutations.SECRET_FORGET, "Secret", "a Secret", body)


def _read_noted_act(
    act: str,
    kind: str,
    noun: str,
    body: Mapping[str, object],
    *,
    name_max: int = SERVICE_NAME_MAX,
) -> ServiceRecord | str:
    """Return an act with an object and a note alone, or a text about the fault in the body."""
    if surplus := body.keys() - {"act", "object", "note"}:
        return f"it has no member {min(surplus)!r:.64}"
    key, note = read_key(body.get("object"), kind), body.get("note", "")
    if key is None or len(key.name) > name_max:
        return f"object isn't {noun}: {kind}/NAMESPACE/NAME"
    if not isinstance(note, str) or len(note) > NOTE_MAX:
        return f"note isn't a text of at most {NOTE_MAX} characters"
    return ServiceRecord(act, key, note=note)


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A Git source that doesn't serve a newer commit."""

    key: Key
    commit: str
    #: The code and the message of the reason.
    reason: str
    message: str


def read_hold(body: Mapping[str, object]) -> HoldRecord | str:
    """Return the hold to record, or a text about the fault in the body."""
    members = ("act", "object", "commit", "reason", "message")
    if body.keys() != {*members}:
        return f"expected the members {', '.join(members)}"
    key = read_key(body["object"], "Source")
    texts = [body[name] for name in members[2:]]
    if key is None:
        return "object isn't a source: Source/default/NAME"
    commit, reason, message = (text if isinstance(text, str) else None for text in texts)
    if commit is None or not COMMIT_ID.fullmatch(commit):
        return "commit isn't a commit id"
    if reason is None or not _REASON.fullmatch(reason):
        return "reason isn't a code"
    if message is None or len(message) > NOTE_MAX:
        return f"message isn't a text of at most {NOTE_MAX} characters"
    return HoldRecord(key, commit, reason, message)


def read_key(text: object, kind: str = "Service") -> Key | None:
    """Return the key of a resource of a kind; None for any other value."""
    try:
        key = Key.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
    fits = (
        key is not None
        and key.kind == kind
        and is_dns_label(key.namespace, length=NAMESPACE_MAX)
        and is_dns_label(key.name, length=SERVICE_NAME_MAX)
    )
    return key if fits else None
