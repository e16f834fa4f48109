"""What the gate would say of a request by its text alone: for ``policy explain``.

Read as the gate reads it (target, route, role, parameters, body) and judged by the same rules, but
to the end: everything that is wrong is told, and what becomes of each field. What only a look
at the engine or the host can tell is named as left to the broker. Nothing is changed or recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.broker.gate import router
from controller.broker.gate.query_params import validate_query
from controller.broker.gate.refusals import Denied
from controller.broker.gate.request_target import read_path, read_query
from controller.broker.gate.routes import Route
from controller.core.admission import calls, create, networks_volumes, preview, update
from controller.core.admission.exec import admit_exec
from controller.core.encoding import strict_json
from controller.core.engine_api import parse
from controller.core.engine_api.field_reader import is_unset
from controller.core.engine_api.requests import Finding
from controller.core.rules.facts import HostFacts, Stamp
from controller.core.rules.identity import is_reserved, judge_name
from controller.core.rules.verdict import AdmissionDecision, mode_of, verdict_of
from controller.model.desired.plan import Verdict
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import Actor

_SHOWN_MAX = 120
_STAMP = Stamp(instance="", intent="00000000-0000-7000-8000-000000000000")
#: What is left to the broker, by route or by kind of object in the path.
_LATER = {
    Mutation.CONTAINER_CREATE: (
        "that the image is the one that was let in, what it brings with it, and its user",
        "mount sources as they are on the host; volumes and networks: whose they are",
        "whether the name is free, and quotas",
    ),
    Mutation.NETWORK_CREATE: ("whether the name is free",),
    Mutation.VOLUME_CREATE: ("whether the name is free",),
    Mutation.NETWORK_CONNECT: ("whether container and network belong together",),
    Mutation.CONTAINER_START: ("that image and mount sources are still what was admitted",),
    Mutation.IMAGE_PULL: ("what the registry has under it",),
    Mutation.CONTAINER_UPDATE: ("the limits that it has now",),
}


@dataclass(frozen=True, slots=True)
class FieldOutcome:
    """One field that was asked for. ``outcome``: kept, changed, dropped, let-through or refused."""

    path: str
    asked: object
    outcome: str
    becomes: object = None
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a request. ``findings`` has all that is wrong, ``modes`` what each leads to;
    ``given`` what the gate adds, by its place in the body. ``route`` None: there is none for it.
    """

    method: str
    path: str
    route: Route | None
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    modes: tuple[str, ...] = ()
    fields: tuple[FieldOutcome, ...] = ()
    given: tuple[tuple[str, object], ...] = ()
    later: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that found its route."""

    names: Mapping[str, str]
    query: Mapping[str, str]
    body: object
    actor: Actor
    policy: Policy
    loose: list[Finding] = field(default_factory=list)  # what reading it found


def explain(
    method: str, path: str, query: str, body: bytes, *, actor: Actor, policy: Policy
) -> Explanation:
    """Return what becomes of a request; *path* and *query* are raw, *body* b'' is none."""
    try:
        target = read_path(path)
        match = router.find_route(method, target.path, versioned=target.versioned)
    except Denied as denied:
        found = _finding(denied, "path")
        return Explanation(method, path, None, verdict_of([found]), (found,), ("enforce",))
    route, loose = match.route, list[Finding]()
    if actor.role not in route.roles:
        roles = ", ".join(sorted(role.value for role in route.roles))
        reason = f"{route.name} isn't for the role {actor.role.value}"
        loose.append(Finding("role.denied", "", reason, f"it is for {roles}"))
    parameters = _parameters(query, route, loose)
    parsed = _body(body, route, loose)
    question = _Question(match.names, parameters, parsed, actor, policy, loose)
    return _explain(method, path, route, question)


def _finding(denied: Denied, path: str) -> Finding:
    return Finding(denied.rule, path, denied.reason, denied.remedy)


def _parameters(raw: str, route: Route, loose: list[Finding]) -> dict[str, str]:
    """Return the parameters that can be used; each of the others is found wrong by itself."""
    try:
        asked = read_query(raw)
    except Denied as denied:
        loose.append(_finding(denied, "query"))
        return {}
    good: dict[str, str] = {}
    for name, value in asked.items():
        try:
            good |= validate_query({name: value}, route.query)
        except Denied as denied:
            loose.append(_finding(denied, name))
    return good


def _body(body: bytes, route: Route, loose: list[Finding]) -> object:
    if not route.body:
        if body.strip() not in {b"", b"{}", b"null"}:
            reason, remedy = f"{route.name} takes no body", "send parameters in the query"
            loose.append(Finding("body.unexpected", "body", reason, remedy))
        return None
    try:
        return strict_json.parse(body, bytes_max=route.body_max) if body else None
    except strict_json.InvalidJson as error:
        remedy = "send one JSON object that every reader reads alike"
        loose.append(Finding("body.malformed", "body", str(error), remedy))
        return None


def _explain(method: str, path: str, route: Route, question: _Question) -> Explanation:
    judge = _JUDGES.get(route.name, _route_alone)
    unreadable = any(finding.rule == "body.malformed" for finding in question.loose)
    judged = AdmissionDecision(verdict_of(())) if unreadable else judge(question, question.policy)
    # Without any mode everything that is found refuses, and is told.
    strictly = question.policy.model_copy(update={"modes": {}})
    everything = () if unreadable else judge(question, strictly).findings
    findings = (*question.loose, *everything)
    modes = tuple(mode_of(finding, question.policy.modes) for finding in findings)
    refusing = [f for f, mode in zip(findings, modes, strict=True) if mode == "enforce"]
    verdict = verdict_of(refusing) if refusing else judged.verdict
    rebuilt = {} if unreadable else _rebuilt(route, question, judged)
    told = () if unreadable else tuple(_field_outcomes(question.body, rebuilt, findings, modes))
    asked = {one.path for one in told}
    added = ((p, v) for p, v in _leaves(rebuilt) if p and p not in asked and not _is_gate_label(p))
    given = tuple((place, _shorten(place, value)) for place, value in added)
    later = _LATER.get(Mutation(route.name), ()) if route.name in set(Mutation) else ()
    if question.names and not {"image"} >= question.names.keys():
        later = (f"whose the {next(iter(question.names))} is", *later)
    return Explanation(
        method, path, route, verdict, findings, modes, told, given, later, judged.warnings
    )


def _rebuilt(route: Route, question: _Question, judged: AdmissionDecision) -> dict[str, object]:
    if route.name == Mutation.CONTAINER_CREATE and judged.body is None:
        return preview.outline_body(
            parse.parse_create(question.body),
            name=question.query.get("name", ""),
            actor=question.actor,
            policy=question.policy,
        )
    return judged.body or {}


# What becomes of each field


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of a body that hold no others, each with its place."""
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
            continue  # so clients say that they ask for nothing
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
    """Tell whether a finding at a place is about that field: it, what holds it, or part of it."""
    if not place:
        return False
    return path == place or path.startswith((f"{place}.", f"{place}["))


def _shorten(path: str, value: object) -> object:
    """Return a value as it is shown: of a variable the name alone, of a long text its beginning."""
    if path.startswith("Env[") and isinstance(value, str):
        return f"{value.partition('=')[0]}=…"
    if isinstance(value, str) and len(value) > _SHOWN_MAX:
        return f"{value[: _SHOWN_MAX - 1]}…"
    return value


def _is_gate_label(path: str) -> bool:
    """Tell whether it is one of the gate's own labels, which are always written."""
    return path.startswith("Labels.") and is_reserved(path.removeprefix("Labels."))


# Judges, by route


def _route_alone(_: _Question, __: Policy) -> AdmissionDecision:
    """Admit what its route and parameters alone decide."""
    return AdmissionDecision(verdict_of(()))


def _create(question: _Question, policy: Policy) -> AdmissionDecision:
    return create.admit_create(
        parse.parse_create(question.body),
        name=question.query.get("name", ""),
        actor=question.actor,
        policy=policy,
        facts=None,
        stamp=_STAMP,
        platform=question.query.get("platform", ""),
    )


def _update(question: _Question, policy: Policy) -> AdmissionDecision:
    request = parse.parse_update(question.body)
    return update.admit_update(
        request, actor=question.actor, policy=policy, current=None, host=HostFacts()
    )


def _network(question: _Question, policy: Policy) -> AdmissionDecision:
    request = parse.parse_network(question.body)
    return networks_volumes.admit_network(
        request, actor=question.actor, policy=policy, existing=None, stamp=_STAMP
    )


def _volume(question: _Question, policy: Policy) -> AdmissionDecision:
    request = parse.parse_volume(question.body)
    return networks_volumes.admit_volume(
        request, actor=question.actor, policy=policy, existing=None, stamp=_STAMP
    )


def _of_findings(findings: tuple[Finding, ...]) -> AdmissionDecision:
    """Return the admission of what is judged by its form alone."""
    return AdmissionDecision(verdict_of(findings), findings=findings)


def _connect(question: _Question, _: Policy) -> AdmissionDecision:
    network = question.names["network"]
    return _of_findings(parse.parse_connect(question.body, network=network).findings)


def _disconnect(question: _Question, _: Policy) -> AdmissionDecision:
    network = question.names["network"]
    return _of_findings(parse.parse_disconnect(question.body, network=network).findings)


def _exec(question: _Question, policy: Policy) -> AdmissionDecision:
    request = parse.parse_exec(question.body)
    # Who the container runs as isn't known: some number, so that only the request is judged.
    return admit_exec(request, policy=policy, container_user="1")


def _pull(question: _Question, policy: Policy) -> AdmissionDecision:
    # What the host is isn't known: what is asked for, so that only the rest is judged.
    host = question.query.get("platform", "")
    return calls.admit_pull(question.query, actor=question.actor, policy=policy, host=host)


def _reference(question: _Question, policy: Policy) -> AdmissionDecision:
    return calls.admit_reference(question.names["image"], policy=policy)


_JUDGES: dict[str, Callable[[_Question, Policy], AdmissionDecision]] = {
    Mutation.CONTAINER_CREATE: _create,
    Mutation.CONTAINER_UPDATE: _update,
    Mutation.CONTAINER_START: lambda question, _: calls.admit_start(question.query),
    Mutation.CONTAINER_STOP: lambda question, _: calls.admit_stop(question.query),
    Mutation.CONTAINER_RESTART: lambda question, _: calls.admit_stop(question.query),
    Mutation.CONTAINER_KILL: lambda question, _: calls.admit_kill(question.query),
    Mutation.CONTAINER_REMOVE: lambda question, _: calls.admit_remove(question.query),
    Mutation.CONTAINER_RENAME: lambda question, policy: _of_findings(
        tuple(judge_name(question.query.get("name", ""), "name", most=policy.names.max))
    ),
    Mutation.EXEC_CREATE: _exec,
    Mutation.IMAGE_PULL: _pull,
    Mutation.IMAGE_REMOVE: lambda question, _: calls.admit_image_remove(question.query),
    Mutation.NETWORK_CREATE: _network,
    Mutation.NETWORK_CONNECT: _connect,
    Mutation.NETWORK_DISCONNECT: _disconnect,
    Mutation.VOLUME_CREATE: _volume,
    "image.inspect": _reference,
    "image.history": _reference,
    "distribution.inspect": _reference,
}
