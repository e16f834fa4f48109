"""Admission of updates: new limits or another restart policy for an existing container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.engine_api.field_reader import members_of
from controller.core.engine_api.field_tables import RESOURCES, RESTART_POLICY
from controller.core.engine_api.requests import (
    Finding,
    Findings,
    RequestBody,
    ResourceLimits,
    UpdateRequest,
)
from controller.core.policy.remedies import with_grants
from controller.core.records.parts import SettingsPart
from controller.core.rules.context import case_of
from controller.core.rules.facts import ContainerFacts, CreateFacts, HostFacts
from controller.core.rules.limits_privileges import judge_cpuset, judge_limits, judge_restart
from controller.core.rules.verdict import (
    AdmissionDecision,
    AdmissionPatch,
    deny,
    enforced_findings,
    verdict_of,
    with_tolerated,
)
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.quantities import format_bytes
from controller.model.records import Actor, Role

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
