"""Admission without look-ups, for plans, the status and commands.

Pure. The rules are the gate's (``core.admission.create``), except the rules that need facts of the
engine. The broker can therefore still refuse a request that the preview allows.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.admission import builds
from controller.core.admission.calls import admit_reference, admit_stop, admit_update
from controller.core.admission.create import admit_create
from controller.core.admission.networks_volumes import admit_network, admit_volume
from controller.core.engine_api.parse import parse_create, parse_network, parse_update, parse_volume
from controller.core.engine_api.requests import Finding
from controller.core.engine_api.translate import build_query, network_body, update_body, volume_body
from controller.core.policy.refusals import verdict_in_document
from controller.core.rules.context import CONTROLLER, OPERATOR, PREVIEW_STAMP, HostFacts
from controller.core.rules.verdict import AdmissionDecision, deny
from controller.model.desired import plan
from controller.model.policy.document import Policy
from controller.model.records import ALLOW, Actor, Verdict

#: The place of findings about a build (``core.policy.refusals``).
_BUILD = "Build"


def preview_action(
    policy: Policy, action: plan.AnyAction, body: dict[str, object] | None
) -> Verdict:
    """Return the gate's expected verdict on a planned action.

    *body* is the create body of a ``CreateContainer``, None for every other action.
    """
    match action:
        case plan.CreateContainer():
            decision = check_create(policy, body, name=action.target, actor=CONTROLLER)
            return verdict_in_document(decision, action.service, policy)
        case plan.CreateNetwork():
            return check_network(policy, network_body(action)).verdict
        case plan.CreateVolume():
            return check_volume(policy, volume_body(action)).verdict
        case plan.BuildImage():
            found = check_build(policy, action)
            return deny(found).verdict_for_client if found else ALLOW
        case plan.PullImage():
            return admit_reference(action.target, policy=policy).verdict_for_client
        case plan.UpdateContainer():
            return check_update(policy, update_body(action)).verdict_for_client
        case plan.StopContainer():
            return admit_stop({"t": str(action.grace_s)}).verdict
        case _:
            return _always_allowed(action)


def _always_allowed(
    _action: plan.ContainerChange
    | plan.DeliverFiles
    | plan.MoveService
    | plan.RemoveNetwork
    | plan.RemoveVolume
    | plan.AnyWait,
) -> Verdict:
    """Return the verdict on an action without any bound in the policy."""
    return ALLOW


def check_create(
    policy: Policy, body: object, *, name: str = "", actor: Actor = OPERATOR, platform: str = ""
) -> AdmissionDecision:
    """Judge a create body without facts, as ``policy check`` does."""
    return admit_create(
        parse_create(body),
        name=name,
        actor=actor,
        policy=policy,
        facts=None,
        stamp=PREVIEW_STAMP,
        platform=platform,
    )


def check_build(policy: Policy, action: plan.BuildImage) -> tuple[Finding, ...]:
    """Return why a build is refused, by its parameters and the images that it starts from."""
    asked = builds.read_build(build_query(action), actor=CONTROLLER, policy=policy, host="")
    if isinstance(asked, tuple):
        return tuple(replace(finding, path=_BUILD) for finding in asked)
    return tuple(
        finding
        for image in action.build.bases
        for finding in builds.judge_base(image, _BUILD, policy)
    )


def check_network(policy: Policy, body: object, *, actor: Actor = CONTROLLER) -> AdmissionDecision:
    """Judge the create of a network without facts."""
    request = parse_network(body)
    return admit_network(request, actor=actor, policy=policy, existing=None, stamp=PREVIEW_STAMP)


def check_volume(policy: Policy, body: object, *, actor: Actor = CONTROLLER) -> AdmissionDecision:
    """Judge the create of a volume without facts."""
    request = parse_volume(body)
    return admit_volume(request, actor=actor, policy=policy, existing=None, stamp=PREVIEW_STAMP)


def check_update(policy: Policy, body: object, *, actor: Actor = CONTROLLER) -> AdmissionDecision:
    """Judge an update of a container without facts."""
    request, host = parse_update(body), HostFacts()
    return admit_update(request, actor=actor, policy=policy, current=None, host=host)
