"""The admission of a container create: what to look up, the ordered rules, and the decision.

Pure. The controller runs the same rules as a preview (``core.admission.preview``); the broker's
decision is authoritative. A create is denied or completed, never silently weakened: the broker
does all of the request or refuses it. A refusal names every finding, the first rule's first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.core.admission.engine_body import body_of, finish, refused_summary, summary_of
from controller.core.effective.merge import named_by_image
from controller.core.enforcement import kept_settings
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.jobs import run_rules
from controller.core.policy.remedies import with_grants
from controller.core.rules import (
    devices,
    hooks,
    host_routes,
    identity,
    limits_privileges,
    logs,
    mounts,
    networks,
    sharing,
    verdict,
)
from controller.core.rules.context import Case, make_case
from controller.core.rules.facts import DEFAULT_VOLUMES_ROOT, CreateFacts, Needs, Stamp
from controller.core.rules.images import image
from controller.model.host_paths import is_below
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role

Rule = Callable[[Case], Iterable[Finding]]

#: All rules run, in this order; the first finding leads the verdict.
CREATE_RULES: tuple[Rule, ...] = (
    # First: an unknown or impersonating actor must not learn what the other rules would say.
    identity.owner_known,
    identity.labels_free,
    identity.slot_labelled,
    identity.service_named,
    identity.name_valid,
    identity.host_named,
    # A run that there was already is refused before anything about its settings.
    run_rules.runs_once,
    # The image before its settings: "image not admitted" is the shortest answer.
    image.image_allowed,
    image.platform_known,
    image.image_trusted,
    # Rights over the host, the gravest first.
    limits_privileges.namespaces_private,
    sharing.shares_allowed,
    sharing.observers_confined,
    limits_privileges.capabilities_listed,
    limits_privileges.security_options,
    limits_privileges.user_allowed,
    limits_privileges.groups_allowed,
    devices.devices_granted,
    limits_privileges.root_filesystem,
    mounts.sources_allowed,
    mounts.files_own,
    mounts.mounts_bounded,
    image.anonymous_volumes,
    networks.mode_granted,
    networks.endpoints_implied,
    networks.networks_ours,
    networks.aliases_own,
    host_routes.addresses_allowed,
    networks.hosts_allowed,
    networks.dns_allowed,
    networks.ports_allowed,
    # Shares of the host.
    limits_privileges.limits_bounded,
    kept_settings.limits_kept,
    limits_privileges.cpuset_allowed,
    limits_privileges.ulimits_bounded,
    limits_privileges.sysctls_listed,
    limits_privileges.storage_bounded,
    limits_privileges.restart_bounded,
    limits_privileges.healthcheck_bounded,
    logs.logs_kept,
    limits_privileges.environment_bounded,
    limits_privileges.arguments_bounded,
    hooks.hooks_allowed,
    # Last: a request that is wrong by itself must not be refused for the quota's sake.
    identity.quotas_kept,
)


def needs(
    request: CreateRequest,
    *,
    actor: Actor,
    policy: Policy,
    volumes_root: str = DEFAULT_VOLUMES_ROOT,
) -> Needs:
    """Return the objects and paths to look up before the rules can judge this create.

    Useful only for a request that the preview does not deny.
    """
    case = make_case(request, name="", actor=actor, policy=policy)
    binds = [mount.source for mount in request.mounts if mount.type == "bind"]
    nodes = [device.source for device in request.devices if not device.cdi]
    named = [mount.source for mount in request.mounts if mount.type == "volume"]
    named += [
        mounts.volume_below(source, volumes_root)
        for source in binds
        if is_below(source, volumes_root)
    ]
    joined = networks.wanted(case)
    made_here = set(case.networks.all()) if not case.by_controller else set()
    return Needs(
        image=case.reference.canonical if case.reference else "",
        paths=tuple(sorted({*binds, *nodes, *(m.source for m in mounts.mount_points(case))})),
        networks=joined,
        volumes=tuple(sorted({name for name in named if name})),
        implied=tuple(name for name in joined if name in made_here),
        cdi=tuple(device.source for device in request.devices if device.cdi),
    )


def _with_exceptions_told(findings: tuple[Finding, ...], case: Case) -> tuple[Finding, ...]:
    """Return findings; the first one tells of the service's exceptions that permit nothing here."""
    told = []
    if case.ended:
        told.append(f"the policy's exception for {case.service} ended on {max(case.ended)}")
    if case.exceptions_of_others:
        whose, wanted = ("clients", "documents") if case.by_controller else ("documents", "clients")
        exception = f"the policy's exception for {case.service} is for {whose} (for: {wanted})"
        told.append(exception)
    if not told:
        return findings
    first = replace(findings[0], remedy="; ".join(filter(None, (findings[0].remedy, *told))))
    return (first, *findings[1:])


def admit_create(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts | None,
    stamp: Stamp,
    platform: str = "",
) -> verdict.AdmissionDecision:
    """Judge a create by all rules, on a request that is completed by the image of *facts*.

    Args:
        request: the parsed body.
        name: the query's ``name``. If unset (''), a client's container gets a generated name.
        actor: the authenticated sender.
        policy: the policy in force.
        facts: the results of the look-ups. None for a preview, which skips the rules with facts.
        stamp: the instance and the intent, which become labels.
        platform: the query's ``platform``, '' if unset.
    """
    case = make_case(
        request,
        name=name,
        actor=actor,
        policy=policy,
        facts=facts,
        stamp=stamp,
        platform=platform,
    )
    return judge_create(case, policy)


def judge_create(case: Case, policy: Policy) -> verdict.AdmissionDecision:
    """Judge a create by all rules. *policy* is the one in force, without the service's exceptions."""
    findings = [*case.request.findings]
    for rule in CREATE_RULES:
        findings += named_by_image(rule(case), case.inherited)
    modes = case.policy.modes
    if refused := verdict.enforced_findings(findings, modes):
        advised = with_grants(refused, policy, by_client=case.actor.role is Role.CLIENT)
        advised = _with_exceptions_told(advised, case)
        return verdict.deny(advised, refused_summary(case))
    final = finish(case)
    decision = verdict.AdmissionDecision(
        verdict=verdict.verdict_of((), final.changes, case.exceptions),
        body=body_of(final),
        query=(("name", final.name),),
        summary=summary_of(case, final),
        settings=final.settings,
        warnings=mounts.warnings(case.request.mounts),
        folders=mounts.folders_to_make(case),
    )
    return verdict.with_tolerated(decision, findings, modes)
