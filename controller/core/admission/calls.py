"""Admission of requests without a body: the query parameters of pull, start, stop, kill and others.

The query arrives decoded, with each name once. The forwarded query is rebuilt. An unknown parameter
is refused unless its value is empty or false.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from controller.core.encoding.image_reference import Reference, is_image_id, parse_reference
from controller.core.engine_api.grammar import is_signal
from controller.core.engine_api.requests import Finding
from controller.core.policy.remedies import with_grants
from controller.core.records.parts import ImagePart, SummaryPart
from controller.core.rules.identity import judge_name, judge_reserved_name
from controller.core.rules.images.image import judge_platform, judge_reference
from controller.core.rules.verdict import (
    AdmissionDecision,
    deny,
    enforced_findings,
    verdict_of,
    with_tolerated,
)
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role

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
