"""The verdict of the gate on a request by its text alone, for ``policy explain``.

The request is read as the gate reads it (target, route, role, parameters, body) and judged by the
same rules, but to the end: an explanation lists every finding and the outcome of every field. The
checks that need the engine or the host are named (``Explanation.later``). Nothing is changed or
recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.broker.gate import routes
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import (
    read_path,
    read_query,
    validate_query,
    without_repeats,
)
from controller.broker.gate.routes import CONTEXT_BODY, Route
from controller.core.admission import calls, engine_body, preview
from controller.core.admission.builds import read_build
from controller.core.admission.calls import admit_exec, admit_exec_of_client
from controller.core.effective import is_reserved
from controller.core.encoding import json_values
from controller.core.engine_api import parse
from controller.core.engine_api.field_reader import is_unset
from controller.core.engine_api.requests import ConnectRequest, Finding
from controller.core.rules.identity import judge_name
from controller.core.rules.verdict import AdmissionDecision, mode_of, verdict_of
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role, Verdict

_SHOWN_MAX = 120
#: The checks that only the broker can make, by route.
_LATER = {
    Mutation.CONTAINER_CREATE: (
        "the image's identity, declarations and user",
        "mount sources on the host; owners of volumes and networks",
        "whether the name is free, and quotas",
    ),
    Mutation.NETWORK_CREATE: ("whether the name is free",),
    Mutation.VOLUME_CREATE: ("whether the name is free",),
    Mutation.NETWORK_CONNECT: ("whether container and network belong together",),
    Mutation.CONTAINER_START: ("image and mount sources, compared with the admitted ones",),
    Mutation.IMAGE_PULL: ("the registry's entry for the image",),
    Mutation.IMAGE_BUILD: ("the context, the Dockerfile and its bases",),
    Mutation.CONTAINER_UPDATE: ("the current limits",),
}


@dataclass(frozen=True, slots=True)
class FieldOutcome:
    """The outcome of one field of the body."""

    path: str
    #: The value in the request.
    asked: object
    #: kept, changed, dropped, let-through or refused.
    outcome: str
    #: The value that the gate sends instead.
    becomes: object = None
    #: The rules that judged the field.
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on a request, with every finding and the outcome of every field."""

    method: str
    path: str
    #: None: no route has this path.
    route: Route | None
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    #: The mode of each finding, in the order of ``findings``.
    modes: tuple[str, ...] = ()
    fields: tuple[FieldOutcome, ...] = ()
    #: Fields that the gate adds: path in the body, and value.
    given: tuple[tuple[str, object], ...] = ()
    #: Checks that need the engine or the host.
    later: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DryRun:
    """A request with a known route."""

    names: Mapping[str, str]
    query: Mapping[str, str]
    body: object
    actor: Actor
    policy: Policy
    #: Findings of reading the request.
    read_findings: list[Finding] = field(default_factory=list)


#: Judges a request by its text alone.
DryRunJudge = Callable[[DryRun], AdmissionDecision]


def explain(
    method: str,
    path: str,
    query: str,
    body: bytes,
    *,
    actor: Actor,
    policy: Policy,
) -> Explanation:
    """Explain the verdict on a request. *path* and *query* are raw; an empty *body* is none."""
    try:
        target = read_path(path)
        match = routes.find_route(method, target.path, versioned=target.versioned)
    except Denied as denied:
        found = _finding(denied, "path")
        return Explanation(method, path, None, verdict_of([found]), (found,), ("enforce",))
    route, read_findings = match.route, list[Finding]()
    if actor.role not in route.roles:
        roles = ", ".join(sorted(role.value for role in route.roles))
        reason = f"{route.name} isn't for the role {actor.role.value}"
        read_findings.append(Finding("role.denied", "", reason, f"it is for {roles}"))
    parameters = _parameters(query, route, read_findings)
    parsed = _body(body, route, parameters, read_findings)
    request = DryRun(match.names, parameters, parsed, actor, policy, read_findings)
    return _explain(method, path, route, request, JUDGES.get(route.name, _admit))


def _admit(_: DryRun) -> AdmissionDecision:
    """Admit a request that its route and parameters alone decide."""
    return _of_findings(())


def _finding(denied: Denied, path: str) -> Finding:
    return Finding(denied.rule, path, denied.reason, denied.remedy)


def _parameters(raw: str, route: Route, read_findings: list[Finding]) -> dict[str, str]:
    """Return the valid parameters. Each invalid parameter adds a finding to *read_findings*."""
    try:
        asked = read_query(raw, route.query, closed=route.own)
    except Denied as denied:
        read_findings.append(_finding(denied, "query"))
        return {}
    good: dict[str, str] = {}
    for name, value in asked.items():
        try:
            good |= validate_query({name: value}, {name: route.query[name]})
        except Denied as denied:
            read_findings.append(_finding(denied, name))
    return good


def _body(
    body: bytes, route: Route, parameters: Mapping[str, str], read_findings: list[Finding]
) -> object:
    if not body.strip() or route.body == CONTEXT_BODY:
        return None
    try:
        parsed = json_values.parse_strict(body, bytes_max=route.body_max)
        parsed = without_repeats(parsed, parameters, route.query)
    except json_values.InvalidJson as error:
        remedy = "send one JSON object that every reader reads alike"
        read_findings.append(Finding("body.malformed", "body", str(error), remedy))
        return None
    except Denied as denied:
        read_findings.append(_finding(denied, "body"))
        return None
    return parsed if route.body else None


def _explain(
    method: str, path: str, route: Route, request: DryRun, judge: DryRunJudge
) -> Explanation:
    unreadable = any(finding.rule == "body.malformed" for finding in request.read_findings)
    judged = _admit(request) if unreadable else judge(request)
    # Without modes, every finding refuses: the judge then reports all of them.
    strictly = replace(request, policy=request.policy.model_copy(update={"modes": {}}))
    everything = () if unreadable else judge(strictly).findings
    findings = (*request.read_findings, *everything)
    modes = tuple(mode_of(finding, request.policy.modes) for finding in findings)
    refusing = [f for f, mode in zip(findings, modes, strict=True) if mode == "enforce"]
    verdict = verdict_of(refusing) if refusing else judged.verdict
    rebuilt = {} if unreadable else _rebuilt(route, request, judged)
    outcomes = () if unreadable else tuple(_field_outcomes(request.body, rebuilt, findings, modes))
    asked = {outcome.path for outcome in outcomes}
    added = ((p, v) for p, v in _leaves(rebuilt) if p and p not in asked and not _is_gate_label(p))
    given = tuple((place, _shorten(place, value)) for place, value in added)
    later = _LATER.get(Mutation(route.name), ()) if route.name in set(Mutation) else ()
    if request.names and not {"image"} >= request.names.keys():
        later = (f"the owner of the {next(iter(request.names))} is", *later)
    return Explanation(
        method, path, route, verdict, findings, modes, outcomes, given, later, judged.warnings
    )


def _rebuilt(route: Route, request: DryRun, judged: AdmissionDecision) -> dict[str, object]:
    if route.name == Mutation.CONTAINER_CREATE and judged.body is None:
        return engine_body.outline_body(
            parse.parse_create(request.body),
            name=request.query.get("name", ""),
            actor=request.actor,
            policy=request.policy,
        )
    return judged.body or {}


# The outcome of each field


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the scalar values and empty containers of a body, each with its path."""
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from _leaves(member, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, member in enumerate(value):
            yield from _leaves(member, f"{path}[{index}]")
    else:
        yield path, value


def _field_outcomes(
    asked: object,
    rebuilt: Mapping[str, object],
    findings: tuple[Finding, ...],
    modes: tuple[str, ...],
) -> Iterator[FieldOutcome]:
    made = dict(_leaves(rebuilt))
    for path, value in _leaves(asked) if isinstance(asked, Mapping) else ():
        meant = [(f, m) for f, m in zip(findings, modes, strict=True) if _is_about(f.path, path)]
        rules = tuple(dict.fromkeys(finding.rule for finding, _ in meant))
        if any(mode == "enforce" for _, mode in meant):
            yield FieldOutcome(path, _shorten(path, value), "refused", rules=rules)
        elif is_unset(value) and (path not in made or made[path] != value):
            continue  # clients send zero values for fields that they do not set
        elif path in made and made[path] != value:
            yield FieldOutcome(
                path, _shorten(path, value), "changed", _shorten(path, made[path]), rules
            )
        elif path in made:
            yield FieldOutcome(
                path, _shorten(path, value), "let-through" if meant else "kept", rules=rules
            )
        else:
            yield FieldOutcome(path, _shorten(path, value), "dropped", rules=rules)


def _is_about(place: str, path: str) -> bool:
    """Return True if a finding at *place* concerns the field at *path*, its parent or a part of it."""
    if not place:
        return False
    return path == place or path.startswith((f"{place}.", f"{place}["))


def _shorten(path: str, value: object) -> object:
    """Return a value for display: only the name of a variable, the beginning of a long string."""
    if path.startswith("Env[") and isinstance(value, str):
        return f"{value.partition('=')[0]}=…"
    if isinstance(value, str) and len(value) > _SHOWN_MAX:
        return f"{value[: _SHOWN_MAX - 1]}…"
    return value


def _is_gate_label(path: str) -> bool:
    """Return True if a field is one of the gate's own labels, which are always written."""
    return path.startswith("Labels.") and is_reserved(path.removeprefix("Labels."))


# Judges, by route


def _judge_create(request: DryRun) -> AdmissionDecision:
    """Judge a create by its body, name and platform."""
    name, platform = (request.query.get(each, "") for each in ("name", "platform"))
    return preview.check_create(
        request.policy, request.body, name=name, actor=request.actor, platform=platform
    )


def _of_findings(findings: tuple[Finding, ...]) -> AdmissionDecision:
    """Return the decision that findings alone lead to."""
    return AdmissionDecision(verdict_of(findings), findings=findings)


def _judge_joining(parse_body: Callable[..., ConnectRequest]) -> DryRunJudge:
    """Return the judge of a body that connects a container to a network, or disconnects it."""
    return lambda request: _of_findings(
        parse_body(request.body, network=request.names["network"]).findings
    )


def _judge_exec(request: DryRun) -> AdmissionDecision:
    """Judge the create of an exec."""
    command = parse.parse_exec(request.body)
    if request.actor.role is Role.CLIENT:
        refused = admit_exec_of_client(request.policy)
        if refused.verdict.decision == "deny":
            return refused
    # The user of the container isn't known. Any user id but 0 lets the request decide.
    return admit_exec(command, policy=request.policy, container_user="1", looked_up=False)


def _judge_pull(request: DryRun) -> AdmissionDecision:
    """Judge the parameters of a pull."""
    # The platform of the host isn't known: assume the requested one.
    host = request.query.get("platform", "")
    return calls.admit_pull(request.query, actor=request.actor, policy=request.policy, host=host)


def _judge_body(
    check: Callable[..., AdmissionDecision],
) -> DryRunJudge:
    """Return the judge of a request that its body decides."""
    return lambda request: check(request.policy, request.body, actor=request.actor)


def _judge_reference(request: DryRun) -> AdmissionDecision:
    """Judge the reference of an image."""
    return calls.admit_reference(request.names["image"], policy=request.policy)


def _judge_query(admit: Callable[[Mapping[str, str]], AdmissionDecision]) -> DryRunJudge:
    """Return the judge of a request that its parameters decide."""
    return lambda request: admit(request.query)


def _judge_build(request: DryRun) -> AdmissionDecision:
    """Judge the parameters of a build."""
    read = read_build(request.query, actor=request.actor, policy=request.policy, host="")
    return _of_findings(read if isinstance(read, tuple) else ())


def _judge_rename(request: DryRun) -> AdmissionDecision:
    """Judge the new name of a container."""
    name = request.query.get("name", "")
    return _of_findings(tuple(judge_name(name, "name", most=request.policy.names.max)))


#: The judge of each route, by the name of the route. For other routes, route and parameters decide.
JUDGES: dict[str, DryRunJudge] = {
    Mutation.CONTAINER_CREATE: _judge_create,
    Mutation.CONTAINER_START: _judge_query(calls.admit_start),
    Mutation.CONTAINER_STOP: _judge_query(calls.admit_stop),
    Mutation.CONTAINER_RESTART: _judge_query(calls.admit_stop),
    Mutation.CONTAINER_KILL: _judge_query(calls.admit_kill),
    Mutation.CONTAINER_RENAME: _judge_rename,
    Mutation.CONTAINER_UPDATE: _judge_body(preview.check_update),
    Mutation.CONTAINER_REMOVE: _judge_query(calls.admit_remove),
    Mutation.EXEC_CREATE: _judge_exec,
    "distribution.inspect": _judge_reference,
    Mutation.IMAGE_REMOVE: _judge_query(calls.admit_image_remove),
    "image.inspect": _judge_reference,
    "image.history": _judge_reference,
    Mutation.IMAGE_PULL: _judge_pull,
    Mutation.IMAGE_BUILD: _judge_build,
    Mutation.NETWORK_CREATE: _judge_body(preview.check_network),
    Mutation.NETWORK_CONNECT: _judge_joining(parse.parse_connect),
    Mutation.NETWORK_DISCONNECT: _judge_joining(parse.parse_disconnect),
    Mutation.VOLUME_CREATE: _judge_body(preview.check_volume),
}
