"""The admission of a delivery: the bytes of a content, for a namespace and an owner."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from controller.core.encoding.quoting import quote
from controller.core.engine_api.requests import Finding
from controller.core.files import blob, content, retention
from controller.core.files.retention import NamedContent, Stored
from controller.core.records.parts import DeliveryPart
from controller.core.rules.identity import judge_owner
from controller.core.rules.verdict import AdmissionDecision, deny
from controller.model.files.delivery import FileSet, StoredContent
from controller.model.names import NAMESPACE_MAX, SERVICE_NAME_MAX, is_dns_label
from controller.model.policy.document import Policy
from controller.model.records import ALLOW, Actor

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
        blob=blob.encode(decoded),
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
