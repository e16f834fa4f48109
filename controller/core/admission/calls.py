"""Admission of requests other than creates: query parameters, updates, execs and deliveries.

Admission of requests without a body: the query parameters of pull, start, stop, kill and others.

The query arrives decoded, with each name once. The forwarded query is rebuilt. An unknown parameter
is refused unless its value is empty or false.

Admission of execs: a command that a person runs in a running container.

An exec shares the container's cgroup, mounts and networks. These rules judge the rights that an
exec could have beyond the container: privileges, another user, a working folder from which the
runtime's files are reachable, and variables that choose code. The gate judges an exec twice: when
the client creates it, and when the client starts it.

Admission of updates: new limits or another restart policy for an existing container.

The admission of a delivery: the bytes of a content, for a namespace and an owner.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.core.encoding.identifiers import Reference, is_image_id, parse_reference
from controller.core.encoding.text import quote
from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.engine_api.field_reader import members_of
from controller.core.engine_api.field_tables import EXEC, RESOURCES, RESTART_POLICY, TERMINAL
from controller.core.engine_api.grammar import is_signal
from controller.core.engine_api.requests import (
    ExecRequest,
    ExecStart,
    Finding,
    Findings,
    Grant,
    HookRequest,
    RequestBody,
    ResourceLimits,
    UpdateRequest,
)
from controller.core.files import content
from controller.core.files import content as blob
from controller.core.files import content as retention
from controller.core.files.content import NamedContent, Stored
from controller.core.policy.grants import with_grants
from controller.core.records.parts import (
    DeliveryPart,
    ExecPart,
    ImagePart,
    SettingsPart,
    SummaryPart,
)
from controller.core.rules import container
from controller.core.rules.container import (
    judge_command_user,
    judge_cpuset,
    judge_hook,
    judge_limits,
    judge_restart,
)
from controller.core.rules.context import ContainerFacts, CreateFacts, HostFacts, case_of
from controller.core.rules.identity import judge_name, judge_owner, judge_reserved_name
from controller.core.rules.images import judge_platform, judge_reference
from controller.core.rules.verdict import (
    AdmissionDecision,
    AdmissionPatch,
    deny,
    enforced_findings,
    verdict_of,
    with_tolerated,
)
from controller.model.delivery import FileSet, StoredContent
from controller.model.names import NAMESPACE_MAX, SERVICE_NAME_MAX, is_dns_label
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.quantities import format_bytes
from controller.model.records import ALLOW, Actor, Role

STOP_MAX_S = 300

_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_TRUE = ("1", "true", "True")
_FALSE = ("", "0", "false", "False")

Query = Mapping[str, str]


def _unknown(query: Query, known: Iterable[str]) -> list[Finding]:
    return [
        Finding("query.unknown", name, "a parameter that this call hasn't", "leave it out")
        for name, value in query.items()
        if name not in known and value not in _FALSE
    ]


def import_refused(path: str) -> Finding:
    """Return the refusal of an import: its result could take the name of an admitted image."""
    return Finding(
        "image.import",
        path,
        "importing an image isn't served: the origin of its files is unknown",
        "pull it from a registry, or import it on the engine as root and run `trimtab image trust`",
    )


def admit_pull(
    query: Query,
    *,
    actor: Actor,
    policy: Policy,
    host: str = "",
) -> AdmissionDecision:
    """Judge ``images/create`` by its query, and rebuild ``fromImage``, ``tag`` and ``platform``.

    *host* is the engine's platform, '' if unknown. ``summary`` has the canonical ``reference``. An
    import (``fromSrc``) is refused, because an import can forge an image.
    """
    findings = [import_refused("fromSrc")] if query.get("fromSrc") else []
    findings += _unknown(query, ("fromImage", "tag", "platform", "fromSrc"))
    name, tag = query.get("fromImage", ""), query.get("tag", "")
    text = name
    if tag:
        # Clients send the part after REPOSITORY: or REPOSITORY@ as the tag.
        text = f"{name}@{tag}" if is_image_id(tag) else f"{name}:{tag}"
    findings += judge_reference(text, policy, path="fromImage")
    platform = query.get("platform", "")
    findings += judge_platform(platform, host, policy)
    if refused := enforced_findings(findings, policy.modes):
        return deny(with_grants(refused, policy, by_client=actor.role is Role.CLIENT))
    reference = parse_reference(text)
    pairs = [
        ("fromImage", reference.repository),
        ("tag", reference.digest or reference.tag),
        ("platform", platform),
    ]
    decision = AdmissionDecision(
        verdict_of(()),
        query=tuple((key, value) for key, value in pairs if value),
        summary=_summary_of(reference),
    )
    return with_tolerated(decision, findings, policy.modes)


def admit_reference(
    reference: str, *, policy: Policy, by_client: bool = False
) -> AdmissionDecision:
    """Judge a registry look-up of an image (``distribution``), or the trust in a local image."""
    findings = list(judge_reference(reference, policy, path="image"))
    if refused := enforced_findings(findings, policy.modes):
        return deny(with_grants(refused, policy, by_client=by_client))
    decision = AdmissionDecision(verdict_of(()), summary=_summary_of(parse_reference(reference)))
    return with_tolerated(decision, findings, policy.modes)


def _summary_of(reference: Reference) -> dict[str, object]:
    return ImagePart(reference=reference.canonical).members


def admit_start(query: Query) -> AdmissionDecision:
    """Judge a start. A checkpoint is refused, because it is a folder of the host."""
    findings = [
        Finding("start.checkpoint", name, "a checkpoint is a folder of the host", "leave it out")
        for name in ("checkpoint", "checkpoint-dir")
        if query.get(name)
    ]
    known = ("checkpoint", "checkpoint-dir", "detachKeys")
    findings += _unknown(query, known)
    return deny(findings) if findings else AdmissionDecision(verdict_of(()))


def admit_restart_allowed(image: str, *, policy: Policy) -> AdmissionDecision:
    """Judge the start of a container of an older policy: its image must still be admitted."""
    findings = list(judge_reference(image, policy, path="Image"))
    if enforced_findings(findings, policy.modes):
        return deny(enforced_findings(findings, policy.modes))
    return with_tolerated(AdmissionDecision(verdict_of(())), findings, policy.modes)


def admit_stop(query: Query) -> AdmissionDecision:
    """Judge a stop or restart: ``t`` is 0 to 300, ``signal`` an existing name or number."""
    findings = _unknown(query, ("t", "signal"))
    findings += _signal(query)
    seconds = query.get("t", "")
    if seconds and not (_NUMBER.fullmatch(seconds) and int(seconds) <= STOP_MAX_S):
        reason = f"{seconds!r} seconds: 0 to {STOP_MAX_S}"
        findings.append(Finding("stop.timeout", "t", reason, "ask for less"))
    return _with_query(query, ("t", "signal"), findings)


def admit_kill(query: Query) -> AdmissionDecision:
    """Judge a kill by its ``signal``."""
    return _with_query(query, ("signal",), [*_unknown(query, ("signal",)), *_signal(query)])


def _signal(query: Query) -> list[Finding]:
    signal = query.get("signal", "")
    if not signal or is_signal(signal):
        return []
    return [Finding("signal.invalid", "signal", f"{signal!r} is no signal", "write SIGTERM")]


def admit_remove(query: Query) -> AdmissionDecision:
    """Judge a container's removal: ``force`` passes, ``v`` is dropped, ``link`` is refused.

    ``v`` is never forwarded, because volumes outlive containers.
    """
    findings = _flags(query, ("force", "v", "link"))
    if query.get("link") in _TRUE:
        reason = "it removes a link, not a container"
        findings.append(Finding("remove.link", "link", reason, "leave it out"))
    if findings:
        return deny(findings)
    force = query.get("force", "") in _TRUE
    return AdmissionDecision(verdict_of(()), query=(("force", "1"),) if force else ())


def admit_image_remove(query: Query) -> AdmissionDecision:
    """Judge an image's removal: ``force`` and ``noprune`` pass, since the image is unused."""
    flags = ("force", "noprune")
    if findings := _flags(query, flags):
        return deny(findings)
    given = tuple((name, "1") for name in flags if query.get(name, "") in _TRUE)
    return AdmissionDecision(verdict_of(()), query=given)


def _flags(query: Query, names: Iterable[str]) -> list[Finding]:
    """Return the faults of a query of flags."""
    return _unknown(query, names) + [
        Finding("query.invalid", name, "expected 1 or 0")
        for name in names
        if query.get(name, "") not in (*_TRUE, *_FALSE)
    ]


def admit_rename(
    query: Query, *, actor: Actor, policy: Policy, admitted: str, origin: str = "client"
) -> AdmissionDecision:
    """Judge a rename.

    *admitted* is the container's name in the inventory, *origin* the creator's role. Names of the
    controller's containers are final: anybody may restore such a name, and nobody may change it.
    """
    name = query.get("name", "")
    findings = [*_unknown(query, ("name",)), *judge_name(name, "name", most=policy.names.max)]
    if "controller" in {origin, actor.role.value}:
        if name != admitted:
            reason = f"its name is {admitted}, and names are final"
            findings.append(Finding("name.final", "name", reason, "give it back its own name"))
    else:
        findings += judge_reserved_name(name)
    if findings:
        return deny(findings)
    return AdmissionDecision(
        verdict_of(()), query=(("name", name),), summary=SummaryPart(name=name).members
    )


def _with_query(query: Query, names: Iterable[str], findings: list[Finding]) -> AdmissionDecision:
    if findings:
        return deny(findings)
    given = tuple((name, query[name]) for name in names if query.get(name))
    return AdmissionDecision(verdict_of(()), query=given)


def admit_exec(
    request: ExecRequest, *, policy: Policy, container_user: str, looked_up: bool = True
) -> AdmissionDecision:
    """Judge an exec; *container_user* is the container's user, '' for root.

    Where the policy bounds groups, the user was *looked_up* in the files of the container. A preview can't.

    ``summary`` has the program and the number of arguments. Arguments and values of variables may
    be secrets, so the summary never has them.
    """
    findings = [*request.findings]
    if not policy.exec.enabled:
        remedy, permit = "look at the container's logs", Grant("set", "exec.enabled", True)
        reason = "the policy admits no exec"
        findings.insert(0, Finding("exec.disabled", "", reason, remedy, permit=permit))
    findings += _command(request)
    findings += judge_command_user(request.user, policy, container_user)
    findings += container.judge_environment(request.env, policy)
    findings += container.judge_named(request.user, policy) if looked_up else ()
    if refused := enforced_findings(findings, policy.modes):
        return deny(with_grants(refused, policy), summary_of(request))
    decision = AdmissionDecision(verdict_of(()), _body(request), summary=summary_of(request))
    return with_tolerated(decision, findings, policy.modes)


def admit_exec_of_client(
    policy: Policy, *, is_own: bool = True, has_binds: bool = False, changes_user: bool = False
) -> AdmissionDecision:
    """Judge that a client runs a command in a container, before the command is judged.

    *is_own*: the client's uid made the container, and so could have had the command run at its start. A
    document's container can have Secrets, and one of another uid of the owner that user's folders.
    *has_binds*: the container mounts folders of the host. A container with a folder of a project runs
    as the project's user alone (``mount.project``), and so does the command: *changes_user*.
    """
    findings = [*_of_client(policy, is_own=is_own, is_another_user=has_binds and changes_user)]
    if not findings:
        return AdmissionDecision(verdict_of(()))
    return deny(with_grants(findings, policy))


def _of_client(policy: Policy, *, is_own: bool, is_another_user: bool) -> Findings:
    remedy = "let an operator run it"
    if not policy.exec.clients:
        reason = "the policy lets operators alone run commands in containers"
        permit = Grant("set", "exec.clients", True)
        yield Finding("exec.client", "", reason, remedy, permit=permit)
    elif not is_own:
        yield Finding("exec.client", "", "another user, or a document, made the container", remedy)
    elif is_another_user:
        reason = (
            "the container mounts a folder of the host, and the command would run as another user"
        )
        remedy = "leave User out to use the container's user"
        yield Finding("exec.client", "User", reason, remedy)


def admit_hook(hook: HookRequest, *, policy: Policy, container_user: str) -> AdmissionDecision:
    """Judge a recorded hook again, before the gate runs the hook: the policy can be another now.

    The switch of execs doesn't count: nobody chooses the command of a hook.
    """
    request = ExecRequest(hook.command, hook.user, hook.env, hook.working_dir)
    findings = [*judge_hook(replace(hook, path=""), policy, container_user)]
    findings += container.judge_named(hook.user, policy)
    if refused := enforced_findings(findings, policy.modes):
        return deny(refused, summary_of(request))
    decision = AdmissionDecision(verdict_of(()), _body(request), summary=summary_of(request))
    return with_tolerated(decision, findings, policy.modes)


def admit_exec_start(start: ExecStart, request: ExecRequest, *, hijack: bool) -> AdmissionDecision:
    """Judge the start of an exec; *hijack* is True if the client takes over the connection."""
    findings = [*start.findings]
    if request.attach_stdin and not start.detach and not hijack:
        reason = "it reads its input from the connection, which this request doesn't take over"
        remedy = "send Connection: Upgrade and Upgrade: tcp"
        findings.append(Finding("exec.upgrade", "Upgrade", reason, remedy))
    if findings:
        return deny(findings)
    body: dict[str, object] = {"Detach": start.detach, "Tty": start.tty}
    if start.tty and any(start.console_size):
        body["ConsoleSize"] = list(start.console_size)
    return AdmissionDecision(
        verdict_of(()), body, summary=ExecPart(detach=start.detach, tty=start.tty).members
    )


def summary_of(request: ExecRequest) -> dict[str, object]:
    """Return the journal's summary of an exec.

    A common mistake is a whole command line in the program's place. The summary therefore ends the
    program at its first blank.
    """
    return ExecPart(
        program=next(iter(request.command[0].split()), "") if request.command else "",
        arguments=max(0, len(request.command) - 1),
        user=request.user,
        working_dir=request.working_dir,
        environment=tuple(container.variable_names(request.env)),
        tty=request.tty,
        stdin=request.attach_stdin,
    ).members


def _command(request: ExecRequest) -> Findings:
    if not request.command or not request.command[0]:
        yield Finding("exec.command", "Cmd", "there is nothing to run", "name a program")
    yield from container.judge_arguments(request.command)


def _body(request: ExecRequest) -> dict[str, object]:
    body = {entry.name: False for entry in TERMINAL} | members_of(EXEC, request)
    if request.tty and any(request.console_size):
        body["ConsoleSize"] = list(request.console_size)
    return body


#: Room above the memory in use that a lower limit must leave, in percent.
SPARE_PERCENT = 10
_MIB = 1024 * 1024


def memory_in_use(stats: Mapping[str, Any]) -> int | None:
    """Return the memory that a container uses, in bytes, without files that the kernel can drop.

    *stats* are the engine's statistics of the container; None if they don't say.
    """
    memory = stats.get("memory_stats") or {}
    usage, parts = memory.get("usage"), memory.get("stats") or {}
    if not isinstance(usage, int) or usage <= 0:
        return None
    # Named so by cgroups of version 2 and 1.
    dropped = parts.get("inactive_file", parts.get("total_inactive_file", 0))
    return usage - dropped if isinstance(dropped, int) and 0 <= dropped < usage else usage


def judge_memory_in_use(limit: int, in_use: int | None) -> Findings:
    """Return a finding if a lower memory limit doesn't fit the memory in use.

    The kernel would end processes of the container.
    """
    if in_use is None or limit * 100 >= in_use * (100 + SPARE_PERCENT):
        return
    used = f"{-(-in_use // _MIB)}Mi"
    reason = f"{format_bytes(limit)} leaves no tenth of room above the {used} in use"
    remedy = "let the container use less first, or declare a higher limit"
    yield Finding("resources.in-use", "Memory", reason, remedy)


def admit_update(
    request: UpdateRequest,
    *,
    actor: Actor,
    policy: Policy,
    current: ContainerFacts | None,
    host: HostFacts,
) -> AdmissionDecision:
    """Judge an update by the resulting state; *current* None is a preview.

    Only limits that the update touches are judged. Otherwise a limit that somebody altered past the
    gate would keep the controller from stopping the container.
    """
    before = current.settings if current else Settings(name="")
    asked, findings = request.limits, list(request.findings)
    after = _limits_after(asked, before)
    findings += _update_conflicts(asked, before)
    touched = replace(
        asked,
        memory=after.memory if _touches_memory(asked) else 0,
        memory_reservation=after.memory_reservation if _touches_memory(asked) else 0,
        memory_swappiness=None,
        cpu_quota=after.cpu_quota if asked.cpu_quota or asked.cpu_period else 0,
        cpu_period=after.cpu_period if asked.cpu_quota or asked.cpu_period else 0,
        pids=max(0, asked.pids),
    )
    case_policy = _effective_policy(current, actor, policy, host)
    findings += judge_limits(touched, case_policy, host, "")
    findings += judge_cpuset(asked.cpuset, case_policy, host, "")
    findings += judge_restart(request.restart, case_policy, "RestartPolicy")
    if request.restart.name not in {"", "no"} and current and current.is_run:
        reason = "a run of a job is started once, and never by the engine"
        findings.append(Finding("job.restart", "RestartPolicy", reason, "leave it out"))
    if request.restart.name not in {"", "no"} and current and current.auto_remove:
        reason = "a container that is removed when it exits can't restart"
        findings.append(Finding("auto-remove", "RestartPolicy", reason, "leave it out"))
    body, changes = _update_body(request, after)
    if not body and not findings:
        reason = "no field that can be changed on a running container"
        findings.append(Finding("update.empty", "body", reason, "say what to change"))
    if refused := enforced_findings(findings, policy.modes):
        return deny(with_grants(refused, policy, by_client=actor.role is Role.CLIENT))
    settings = _settings_after(request, before, after)
    summary = SettingsPart(settings=settings, updated_members=tuple(sorted(body))).members
    admitted = AdmissionDecision(verdict_of((), changes), body, summary=summary, settings=settings)
    return with_tolerated(admitted, findings, policy.modes)


def _touches_memory(asked: ResourceLimits) -> bool:
    return bool(asked.memory or asked.memory_swap or asked.memory_reservation)


def _limits_after(asked: ResourceLimits, before: Settings) -> ResourceLimits:
    limits = {name: getattr(asked, name) or getattr(before, name) for name in LIMITS}
    limits["memory_swap"] = limits["memory"]
    return ResourceLimits(**limits)


def _update_conflicts(asked: ResourceLimits, before: Settings) -> Findings:
    if asked.pids < 0:
        reason = "0 and -1 mean unlimited here"
        yield Finding("resources.pids", "PidsLimit", reason, "give a number")
    if asked.memory_swappiness is not None:
        reason = "swap isn't used here"
        yield Finding("resources.swap", "MemorySwappiness", reason, "leave it out")
    # The engine cannot switch a container between NanoCpus and CpuQuota.
    by_quota = asked.cpu_quota or asked.cpu_period
    if (asked.nano_cpus and before.cpu_quota) or (by_quota and before.nano_cpus):
        reason = "its CPUs are limited the other way (NanoCpus or CpuQuota)"
        where = "NanoCpus" if asked.nano_cpus else "CpuQuota"
        yield Finding("resources.cpus", where, reason, "use that one, or create it again")


def _update_body(
    request: UpdateRequest, after: ResourceLimits
) -> tuple[RequestBody, list[AdmissionPatch]]:
    asked = request.limits
    body = members_of(RESOURCES, asked)
    changes = []
    if asked.memory or asked.memory_swap:
        body |= {"Memory": after.memory, "MemorySwap": after.memory}
        if not asked.memory_swap:
            changes.append(AdmissionPatch("default.swap", "no swap beside the memory"))
    if request.restart.name:
        body["RestartPolicy"] = members_of(RESTART_POLICY, request.restart)
    return body, changes


def _settings_after(request: UpdateRequest, before: Settings, after: ResourceLimits) -> Settings:
    limits: dict[str, Any] = {name: getattr(after, name) for name in LIMITS}
    if not _touches_memory(request.limits):
        limits["memory_swap"] = before.memory_swap
    restart = request.restart
    return replace(
        before,
        **limits,
        restart=restart.name or before.restart,
        restart_max=restart.max_retries if restart.name else before.restart_max,
    )


def _effective_policy(
    current: ContainerFacts | None, actor: Actor, policy: Policy, host: HostFacts
) -> Policy:
    """Return the policy with the exceptions that apply to an existing container."""
    if current is None:
        return policy
    return case_of(current, actor=actor, policy=policy, facts=CreateFacts(host=host)).policy


#: Names of files in a record; the count is whole.
NAMES_RECORDED = 32
SUPPORTED = ("config", "secret")


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """A delivery as sent."""

    owner: str = ""
    content: str = ""
    names: tuple[str, ...] = ()
    size: int = 0
    #: The content as the broker stores it.
    blob: bytes = b""
    findings: tuple[Finding, ...] = ()


def read_delivery(body: object) -> DeliveryRequest:
    """Return the delivery of a parsed body: ``{"owner": OWNER, "files": {NAME: BASE64}}``."""
    if not isinstance(body, dict) or body.keys() != {"owner", "files"}:
        return _malformed("body", "expected an object with owner and files")
    owner, encoded = body["owner"], body["files"]
    if not isinstance(owner, str) or not isinstance(encoded, dict):
        return _malformed("body", "expected a text and an object")
    decoded: dict[str, bytes] = {}
    for name, text in encoded.items():
        try:
            decoded[name] = base64.b64decode(text, validate=True)
        except (TypeError, ValueError, binascii.Error):
            return _malformed("files", "a file isn't base64")
    findings = (
        Finding("files.bounds", f"files.{name}" if name else "files", reason, "deliver less")
        for name, reason in content.faults(decoded)
    )
    return DeliveryRequest(
        owner=owner,
        content=content.content_id(decoded),
        names=tuple(sorted(decoded)),
        size=sum(map(len, decoded.values())),
        blob=blob.encode_blob(decoded),
        findings=tuple(findings),
    )


def opened_secret(
    owner: str, content_id: str, names: tuple[str, ...], stored: bytes
) -> DeliveryRequest:
    """Return the delivery of an opened Secret, of which the source is stored."""
    return DeliveryRequest(
        owner=owner, content=content_id, names=names, size=len(stored), blob=stored
    )


def admit_secret(files: FileSet, owner: str, *, actor: Actor, policy: Policy) -> AdmissionDecision:
    """Judge a question about a Secret by its names, before anything is decrypted."""
    findings = [*_names(files), *judge_owner(policy, actor.role, owner, files.namespace)]
    return deny(findings) if findings else AdmissionDecision(ALLOW)


def _malformed(path: str, reason: str) -> DeliveryRequest:
    return DeliveryRequest(findings=(Finding("body.type", path, reason),))


def admit_delivery(
    files: FileSet,
    request: DeliveryRequest,
    *,
    actor: Actor,
    policy: Policy,
    stored: Stored,
    used: Iterable[NamedContent],
    shown: Collection[str] = (),
) -> AdmissionDecision:
    """Judge a delivery. *stored* are the contents that the broker has, and *shown* the owners of
    containers that would see the content in place of the one before.
    """
    findings = [*_names(files), *request.findings]
    findings += judge_owner(policy, actor.role, request.owner, files.namespace)
    if others := sorted({*shown} - {request.owner}):
        reason = f"containers of the owner {quote(others[0])} would see the files at once"
        remedy = "remove those containers first, or choose another name"
        findings.append(Finding("files.foreign", "owner", reason, remedy))
    delivered = StoredContent(request.content, request.owner, request.size)
    if not findings:
        after = retention.with_delivered(stored, files, delivered, used)
        if full := retention.why_full(after, files):
            remedy = "remove Configs that no service mounts, or mount volumes for large data"
            findings.append(Finding("files.full", "files", full, remedy))
    summary = DeliveryPart(
        name=files.name,
        namespace=files.namespace,
        owner=request.owner,
        kind=files.kind,
        content=request.content,
        size_bytes=request.size,
        file_count=len(request.names),
        file_names=request.names[:NAMES_RECORDED],
    ).members
    return deny(findings, summary) if findings else AdmissionDecision(ALLOW, summary=summary)


def _names(files: FileSet) -> Iterator[Finding]:
    if files.kind not in SUPPORTED:
        reason = f"{files.kind!r} is no kind of files"
        yield Finding("files.kind", "kind", reason, f"write {' or '.join(SUPPORTED)}")
    for text, place, most in (
        (files.namespace, "namespace", NAMESPACE_MAX),
        (files.name, "name", SERVICE_NAME_MAX),
    ):
        if not is_dns_label(text, length=most):
            yield Finding("files.name", place, f"{text[:64]!r} is no name", "use a DNS label")
