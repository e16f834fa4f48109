"""The controller's changes against the accepted commits of signed sources.

A namespace without such a source, and every other role, passes without a look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from controller.broker.gate.call import GateRequest
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.core.proofs.decision import (
    Evidence,
    NotProven,
    RunPins,
    admit_create,
    admit_join,
    admit_object,
    admit_start,
    admit_update,
)
from controller.core.proofs.rendering import shape_of, shape_of_create
from controller.core.records.parts import ProofPart, SummaryPart
from controller.core.records.signed_revisions import former_names
from controller.core.rules.context import Placement, requested_place
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.delivery import FileSet
from controller.model.inventory import ContainerItem, PinnedImage
from controller.model.names import Key
from controller.model.policy.sections import SignedSource
from controller.model.records import Role

_T = TypeVar("_T")
_UPLOADED_SOON = (
    "let trimtab run, and try again in some minutes: the controller uploads the proof; "
    "if not, see `trimtab status`"
)


def rule_of_request(call: GateRequest) -> SignedSource | None:
    """Return the rule for the create of an object, by the namespace that admission gives to it."""
    return _rule(call, _place(call).namespace)


def key_of_request(call: GateRequest) -> str:
    """Return the key of the service or job for the create of a container."""
    place = _place(call)
    kind = "Job" if names.run_of_slot(_labels(call.body).get(names.SLOT, "")) else "Service"
    return f"{kind}/{place.namespace}/{place.service}"


def proof_of_create(call: GateRequest, state: GateState, pin: PinnedImage | None) -> ProofPart:
    """Return the proof of a create; empty in a namespace without a signed source.

    *pin* is the image to run: that of the revision, or of the service of a rollout's job.

    Raises:
        Denied: ``proof.…``.
    """
    rule = rule_of_request(call)
    if rule is None:
        return ProofPart()
    pins = RunPins(state.inventory.pins.get(_labels(call.body).get(names.REVISION, "")), pin)
    key = key_of_request(call)
    asked = shape_of_create(call.body) if call.query.keys() <= {"name"} else None
    formers = former_names(state.inventory, key)
    before = [shape_of_create(call.body, former=each) for each in formers]
    return _judged(state, rule, lambda known: admit_create(known, key, asked, pins, before))


def proof_of_adoption(call: GateRequest, state: GateState, pin: PinnedImage | None) -> ProofPart:
    """Return the proof of the create to which an adopted container is compared.

    An operator adopts what no commit declares, too: the proof is empty then, and the controller starts
    the container no more.

    Raises:
        Denied: ``proof.missing``: the broker can't tell now whether the accepted commit declares it.
    """
    try:
        return proof_of_create(call, state, pin)
    except Denied as denied:
        rule = rule_of_request(call)
        is_accepted = rule is not None and rule.source in state.inventory.accepted
        if is_accepted and denied.rule == "proof.missing":
            denied.remedy = _UPLOADED_SOON
            raise
        return ProofPart()


def proof_of_object(call: GateRequest, state: GateState, kind: str, name: str) -> ProofPart:
    """Return the proof of a network or a volume; empty in a namespace without a signed source.

    Raises:
        Denied: ``proof.…``. The name of an object can also be one of a signed namespace.
    """
    rule = rule_of_request(call) or _rule_of_name(call, name)
    return _proof_of_object(call, state, rule, f"{kind}:{name}")


def proof_of_files(call: GateRequest, state: GateState, files: str, namespace: str) -> ProofPart:
    """Return the proof of a delivery; empty in a namespace without a signed source.

    Raises:
        Denied: ``proof.…``.
    """
    return _proof_of_object(call, state, _rule(call, namespace), f"files:{files}")


def refuse_unsigned_secret(call: GateRequest, state: GateState, files: FileSet) -> None:
    """Refuse to open a source that the accepted commit doesn't declare for the Secret.

    Raises:
        Denied: ``proof.…``.
    """
    _proof_of_object(call, state, _rule(call, files.namespace), _secret(files))


def forget_outdated(call: GateRequest, state: GateState, files: FileSet, content: str) -> None:
    """Forget a rendering with another content of a declared Secret: the controller uploads again.

    A file of the host has changed, or an operator has forgotten generated values.
    """
    rule = call.policy.signed_source(files.namespace) if call.policy.sources else None
    made = None if rule is None else state.proofs.renderings.get(rule.source)
    if rule is None or made is None:
        return
    is_declared = shape_of(call.body) in made.objects.get(_secret(files), {})
    if is_declared and made.contents.get(f"Secret/{files.namespace}/{files.name}") != content:
        del state.proofs.renderings[rule.source]


def with_proof(judged: AdmissionDecision, proof: ProofPart) -> AdmissionDecision:
    """Return an admission with the proof in its record; unchanged without a proof."""
    if not proof:
        return judged
    return replace(judged, summary={**judged.summary, **SummaryPart(proof=proof).members})


def refuse_unsigned_start(call: GateRequest, state: GateState, item: ContainerItem) -> None:
    """Refuse to let a container run that no proof admitted.

    Raises:
        Denied: ``proof.…``.
    """
    rule = _rule(call, item.namespace)
    if rule is not None:
        _judged(state, rule, lambda known: admit_start(known, item))


def proof_of_update(call: GateRequest, state: GateState, item: ContainerItem) -> ProofPart:
    """Return the proof of an update; empty if the container stays of its revision.

    Raises:
        Denied: ``proof.…``: a value is neither declared nor admitted.
    """
    rule = _rule(call, item.namespace)
    if rule is None:
        return ProofPart()
    return _judged(state, rule, lambda known: admit_update(known, item, call.body))


def refuse_unsigned_join(
    call: GateRequest, state: GateState, item: ContainerItem, network: str
) -> None:
    """Refuse a connect to a network that the container's revision doesn't name.

    Raises:
        Denied: ``proof.…``.
    """
    rule = _rule(call, item.namespace)
    if rule is None:
        return

    def judge(known: Evidence) -> None:
        aliases = _aliases(call.body)
        if aliases is None:
            raise NotProven("proof.form", "the connect has more than names", "leave them out")
        admit_join(known, item, network, aliases)

    _judged(state, rule, judge)


def proof_of_move(call: GateRequest, state: GateState, target: Key) -> ProofPart:
    """Return the proof of a move; empty in a namespace without a signed source.

    Raises:
        Denied: ``proof.…``: no document of the accepted commit has this move.
    """
    return _proof_of_object(call, state, _rule(call, target.namespace), f"move:{target}")


def _proof_of_object(
    call: GateRequest, state: GateState, rule: SignedSource | None, name: str
) -> ProofPart:
    if rule is None:
        return ProofPart()
    return _judged(state, rule, lambda known: admit_object(known, name, call.body))


def _rule(call: GateRequest, namespace: str) -> SignedSource | None:
    """Return the rule for a change of the controller in a namespace; None for none."""
    if call.actor.role is not Role.CONTROLLER or not call.policy.sources:
        return None
    return call.policy.signed_source(namespace)


def _rule_of_name(call: GateRequest, name: str) -> SignedSource | None:
    """Return the rule of the namespace that a name on the engine is of."""
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    return (_rule(call, first) or _rule(call, last)) if "." in name else None


def _judged(state: GateState, rule: SignedSource, judge: Callable[[Evidence], _T]) -> _T:
    made = state.proofs.renderings.get(rule.source)
    known = Evidence(rule, made, state.inventory, state.clock.now())
    try:
        return judge(known)
    except NotProven as error:
        # A missing proof comes with the controller's next reading: the change is tried again.
        status = 409 if error.code == "proof.missing" else 403
        raise Denied(error.code, error.reason, error.remedy, status=status) from None


def _secret(files: FileSet) -> str:
    """Return the name of a declared Secret among the objects of a rendering."""
    return f"secret:{files.namespace}/{files.name}"


def _place(call: GateRequest) -> Placement:
    return requested_place(_labels(call.body), call.actor, call.policy)


def _labels(body: object) -> dict[str, str]:
    """Return the requested labels. The body may still be unjudged, with values of any type."""
    labels = body.get("Labels") if isinstance(body, dict) else None
    given = labels if isinstance(labels, dict) else {}
    return {name: str(value) for name, value in given.items()}


def _aliases(body: object) -> tuple[str, ...] | None:
    """Return the names in a connect; None if the connect asks for anything else."""
    if not isinstance(body, dict) or not body.keys() <= {"Container", "EndpointConfig"}:
        return None
    config = body.get("EndpointConfig") or {}
    if not isinstance(config, dict) or not config.keys() <= {"Aliases"}:
        return None
    aliases = config.get("Aliases") or []
    is_list = isinstance(aliases, list) and all(isinstance(each, str) for each in aliases)
    return tuple(aliases) if is_list else None
