"""Admission: what the policy says of a mutation, and the body that the engine gets instead.

Pure, and used twice: as a preview by the controller, with authority by the broker. A request is
denied or completed, never silently weakened: what was asked for is either done or refused. All
that is wrong is told at once, the first rule of the table leading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from controller.core.admission.calls import (
    admit_image_remove,
    admit_kill,
    admit_pull,
    admit_reference,
    admit_remove,
    admit_rename,
    admit_restart_allowed,
    admit_start,
    admit_stop,
)
from controller.core.admission.exec import admit_exec, admit_exec_start
from controller.core.admission.networks_volumes import (
    admit_connect,
    admit_disconnect,
    admit_implied_network,
    admit_kept_volume,
    admit_network,
    admit_volume,
    named_volume,
)
from controller.core.admission.rebuild import body_of, finish, refused_summary, summary_of
from controller.core.admission.update import admit_update
from controller.core.engine_api.grammar import is_below
from controller.core.engine_api.parse import parse_create, parse_network, parse_update, parse_volume
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.engine_api.translate import network_body, update_body, volume_body
from controller.core.policy.describe import describe
from controller.core.policy.grants import GrantRequest
from controller.core.policy.refusals import verdict_in_document
from controller.core.policy.remedies import with_grants
from controller.core.rules import container, identity, image, image_volumes, mounts, networks
from controller.core.rules.context import Case, make_case, reference_text
from controller.core.rules.facts import (
    DEFAULT_VOLUMES_ROOT,
    CreateFacts,
    HostFacts,
    Needs,
    Stamp,
)
from controller.core.rules.verdict import (
    AdmissionDecision,
    denied,
    enforced,
    tolerating,
    verdict_of,
)
from controller.model.desired.plan import (
    ALLOW,
    AnyAction,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    Verdict,
    Wait,
)
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role

__all__ = [
    "CONTROLLER",
    "CREATE_RULES",
    "OPERATOR",
    "AdmissionDecision",
    "admit_connect",
    "admit_create",
    "admit_disconnect",
    "admit_exec",
    "admit_exec_start",
    "admit_image_remove",
    "admit_implied_network",
    "admit_kept_volume",
    "admit_kill",
    "admit_network",
    "admit_pull",
    "admit_reference",
    "admit_remove",
    "admit_rename",
    "admit_restart_allowed",
    "admit_start",
    "admit_stop",
    "admit_update",
    "admit_volume",
    "check",
    "check_network",
    "check_volume",
    "describe",
    "kept_volumes",
    "named_volume",
    "needs",
    "outline",
    "preview",
]

Rule = Callable[[Case], Iterable[Finding]]

#: In order; all are asked, and the first that denies leads the verdict.
CREATE_RULES: tuple[Rule, ...] = (
    # Whoever isn't known, or says to be another, learns nothing of the other rules first.
    identity.owner_known,
    identity.labels_free,
    identity.slot_labelled,
    identity.service_named,
    identity.name_valid,
    identity.host_named,
    # The image before its settings: an image that isn't admitted is the shortest answer.
    image.image_allowed,
    image.platform_known,
    image.image_trusted,
    # Rights over the host, the gravest first.
    container.namespaces_private,
    container.capabilities_listed,
    container.security_options,
    container.user_allowed,
    container.groups_allowed,
    container.root_filesystem,
    mounts.sources_allowed,
    mounts.mounts_bounded,
    image.anonymous_volumes,
    networks.mode_granted,
    networks.endpoints_implied,
    networks.networks_ours,
    networks.aliases_own,
    networks.hosts_allowed,
    networks.ports_allowed,
    # Shares of the host.
    container.limits_bounded,
    container.cpuset_allowed,
    container.ulimits_bounded,
    container.storage_bounded,
    container.restart_bounded,
    container.healthcheck_bounded,
    container.logs_kept,
    container.environment_bounded,
    container.arguments_bounded,
    # Last, so that a request that is wrong by itself isn't blamed on others.
    identity.quotas_kept,
)

_SOMEONE = Stamp(instance="", intent="00000000-0000-7000-8000-000000000000")
#: Whose word counts where nobody in particular asks.
CONTROLLER = Actor(uid=-1, gid=-1, pid=0, role=Role.CONTROLLER)
OPERATOR = Actor(uid=0, gid=0, pid=0, role=Role.OPERATOR)


def needs(
    request: CreateRequest,
    *,
    actor: Actor,
    policy: Policy,
    volumes_root: str = DEFAULT_VOLUMES_ROOT,
) -> Needs:
    """Return what to look at before this create can be judged.

    Only of use for a request that a preview doesn't deny already.
    """
    case = _preview_case(request, name="", actor=actor, policy=policy)
    binds = [mount.source for mount in request.mounts if mount.type == "bind"]
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
        paths=tuple(sorted(set(binds))),
        networks=joined,
        volumes=tuple(sorted({name for name in named if name})),
        implied=tuple(name for name in joined if name in made_here),
    )


def kept_volumes(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts,
    stamp: Stamp,
) -> tuple[str, ...]:
    """Return the volumes that the policy mounts into a create, once its image is known."""
    case = make_case(
        request, name=name, actor=actor, policy=policy, facts=facts, stamp=stamp, platform=""
    )
    return image_volumes.kept_volumes(case)


def _preview_case(request: CreateRequest, *, name: str, actor: Actor, policy: Policy) -> Case:
    return make_case(
        request, name=name, actor=actor, policy=policy, facts=None, stamp=_SOMEONE, platform=""
    )


def admit_create(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts | None,
    stamp: Stamp,
    platform: str = "",
) -> AdmissionDecision:
    """Judge a create; *facts* None is a preview, which skips the rules that need facts.

    *name* and *platform* are the query's; '' is unset: a client's container then gets a name.
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
    findings = [*request.findings]
    for rule in CREATE_RULES:
        findings += rule(case)
    modes = case.policy.modes
    if refused := enforced(findings, modes):
        asked = GrantRequest(
            request,
            reference_text(request, actor),
            owner=case.owner,
            namespace=case.namespace,
            platform=platform,
            name=name,
            by_client=actor.role is Role.CLIENT,
        )
        return denied(with_grants(refused, asked, policy), refused_summary(case))
    final = finish(case)
    admitted = AdmissionDecision(
        verdict=verdict_of((), final.changes, case.exceptions),
        body=body_of(final),
        query=(("name", final.name),),
        summary=summary_of(case, final),
        settings=final.settings,
        warnings=mounts.warnings(request.mounts),
    )
    return tolerating(admitted, findings, modes)


def outline(
    request: CreateRequest, *, name: str, actor: Actor, policy: Policy
) -> dict[str, object]:
    """Return the body that a create would become, also of one that is refused: never forwarded.

    For those who ask what the gate adds; what refuses it counts as it was asked for.
    """
    return body_of(finish(_preview_case(request, name=name, actor=actor, policy=policy)))


def check(
    policy: Policy, body: object, *, name: str = "", actor: Actor = OPERATOR
) -> AdmissionDecision:
    """Judge the body of a create by itself, as ``policy check`` does: nothing is looked up."""
    request = parse_create(body)
    return admit_create(request, name=name, actor=actor, policy=policy, facts=None, stamp=_SOMEONE)


def check_network(policy: Policy, action: CreateNetwork) -> AdmissionDecision:
    """Judge a planned create of a network by itself."""
    request = parse_network(network_body(action))
    return admit_network(request, actor=CONTROLLER, policy=policy, existing=None, stamp=_SOMEONE)


def check_volume(policy: Policy, action: CreateVolume) -> AdmissionDecision:
    """Judge a planned create of a volume by itself."""
    request = parse_volume(volume_body(action))
    return admit_volume(request, actor=CONTROLLER, policy=policy, existing=None, stamp=_SOMEONE)


def preview(policy: Policy, action: AnyAction, body: dict[str, object] | None) -> Verdict:
    """Return what the gate will say of a planned action; *body* is a CreateContainer's.

    Facts of the engine aren't known here: the broker may still refuse.
    """
    match action:
        case CreateContainer():
            judged = check(policy, body, name=action.target, actor=CONTROLLER)
            return verdict_in_document(judged, action.service, policy)
        case CreateNetwork():
            return check_network(policy, action).verdict
        case CreateVolume():
            return check_volume(policy, action).verdict
        case PullImage():
            return admit_reference(action.target, policy=policy).shown
        case UpdateContainer():
            request = parse_update(update_body(action))
            return admit_update(
                request, actor=CONTROLLER, policy=policy, current=None, host=HostFacts()
            ).shown
        case StopContainer():
            return admit_stop({"t": str(action.grace_s)}).verdict
        case (
            StartContainer()
            | UnpauseContainer()
            | RenameContainer()
            | ConnectNetwork()
            | DisconnectNetwork()
            | RemoveContainer()
            | RemoveNetwork()
            | Wait()
        ):
            return ALLOW
        case _:
            assert_never(action)
