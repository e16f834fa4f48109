"""Gaps: what an adopted container lacks of its document, admitted by an operator, each gap by name.

The list is closed. No engine can change any of the gaps at an existing container. Hardening is judged
here, and other forms of the same thing in ``core.adoption.forms``. Nothing else can be admitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controller.core.encoding.json_members import list_of, mapping_of, texts_of
from controller.core.encoding.quoting import quote
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.rules.limits_privileges import NO_NEW_PRIVILEGES, capability
from controller.core.rules.logs import LOCAL_LOGS
from controller.model.confinement import GAPS, Gap

if TYPE_CHECKING:
    from controller.core.adoption.forms import FoundForm

#: Each gap in words.
DESCRIPTIONS: Mapping[str, str] = {
    Gap.CAPABILITIES: "it keeps capabilities of the engine's default set",
    Gap.NEW_PRIVILEGES: "its programs can gain privileges (no no-new-privileges)",
    Gap.LOGS: "its log isn't bounded as the document says",
    Gap.WRITABLE_ROOT: "its root file system is writable",
    Gap.FILES: "it has files of the project, which the document delivers",
    Gap.PORTS: "it publishes ports on every address",
    Gap.TMPFS: "a tmpfs has another size than the document's",
    Gap.HEALTHCHECK: "its health check is missing, or has other times than the document's",
}
#: The capabilities of a container that names none, since Docker 1.12.
DEFAULT_CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
_ALL = "ALL"


def capabilities_of(host: Mapping[str, Any]) -> frozenset[str]:
    """Return the capabilities of a container, by its ``HostConfig``; ``ALL`` may be among them."""
    added = {capability(each) for each in texts_of(host.get("CapAdd"))}
    dropped = {capability(each) for each in texts_of(host.get("CapDrop"))}
    base = frozenset() if _ALL in dropped else DEFAULT_CAPABILITIES - dropped
    return base | added


def gaps_of(host: Mapping[str, Any], document: CreateRequest) -> Iterator[Gap]:
    """Yield the gaps of a container, by its ``HostConfig`` and its document's create.

    *document* is the admitted create, with the log configuration filled in.
    """
    wanted = {capability(each) for each in document.cap_add}
    if (capabilities_of(host) - wanted) & DEFAULT_CAPABILITIES:
        yield Gap.CAPABILITIES
    if not {*texts_of(host.get("SecurityOpt"))} & {*NO_NEW_PRIVILEGES}:
        yield Gap.NEW_PRIVILEGES
    if _log_of(host) != (document.log.type, dict(document.log.options)):
        yield Gap.LOGS
    if document.read_only_root and not host.get("ReadonlyRootfs"):
        yield Gap.WRITABLE_ROOT


def judge_hardening(
    host: Mapping[str, Any], document: CreateRequest, drivers: Iterable[str]
) -> Iterator[Finding]:
    """Yield the differences in hardening that nobody can admit.

    *drivers* are the log drivers of the policy.
    """
    wanted = frozenset(capability(each) for each in document.cap_add)
    present = capabilities_of(host)
    if extra := present - wanted - DEFAULT_CAPABILITIES:
        reason = f"it has the capabilities {quote(', '.join(sorted(extra)))}"
        yield _never("capabilities", "HostConfig.CapAdd", reason)
    if missing := wanted - present:
        reason = f"it lacks the capabilities {', '.join(sorted(missing))} of the document"
        remedy = "take them out of spec.security.capAdd, or let trimtab create the container"
        yield Finding("adopt.differs", "spec.security.capAdd", reason, remedy)
    for option in texts_of(host.get("SecurityOpt")):
        if option not in NO_NEW_PRIVILEGES:
            reason = f"it has the security option {quote(option)}"
            yield _never("security-opt", "HostConfig.SecurityOpt", reason)
    driver = _log_of(host)[0]
    if driver not in {*LOCAL_LOGS} & {*drivers}:
        reason = f"its log driver is {quote(driver)}"
        yield _never("log.driver", "HostConfig.LogConfig", reason)
    if host.get("ReadonlyRootfs") and not document.read_only_root:
        reason = "its root file system is read-only, and the document's isn't"
        remedy = "write spec.security.readOnlyRootFilesystem: true"
        yield Finding("adopt.differs", "spec.security.readOnlyRootFilesystem", reason, remedy)


def judge_gaps(
    gaps: Iterable[Gap], admitted: Iterable[str], forms: Iterable[FoundForm] = ()
) -> Iterator[Finding]:
    """Yield the gaps without an operator's admission; *forms* are the fields of some of them."""
    known, listed = {*admitted}, [*forms]
    for gap in gaps:
        if gap.value in known:
            continue
        remedy = f"admit it with --admit {gap.value}"
        fields = [each for each in listed if each.gap is gap]
        for each in fields:
            yield Finding("adopt.gap", each.path, each.text, remedy)
        if not fields:
            yield Finding("adopt.gap", gap.value, DESCRIPTIONS[gap], remedy)


def _log_of(host: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    log = mapping_of(host.get("LogConfig"))
    options = mapping_of(log.get("Config"))
    return str(log.get("Type") or ""), {str(key): str(value) for key, value in options.items()}


def _never(rule: str, path: str, reason: str) -> Finding:
    remedy = "no operator can admit it: let trimtab create the container"
    return Finding(rule, path, reason, remedy)


#: What a container with a gap lacks.
_LACKS: Mapping[str, str] = {
    Gap.CAPABILITIES: "dropped capabilities",
    Gap.NEW_PRIVILEGES: "no-new-privileges",
    Gap.LOGS: "the document's log bounds",
    Gap.WRITABLE_ROOT: "a read-only root",
    Gap.FILES: "delivered files",
    Gap.PORTS: "the document's addresses of ports",
    Gap.TMPFS: "the document's size of a tmpfs",
    Gap.HEALTHCHECK: "the document's health check",
}


def gaps_in_words(gaps: Iterable[str]) -> list[str]:
    """Return what a container with gaps lacks, each with the name of the gap."""
    return [f"{_LACKS[gap]} ({gap})" if gap in _LACKS else gap for gap in gaps]


def read_gaps(value: object) -> frozenset[str] | None:
    """Return the admitted gaps of a request; None for an unknown gap."""
    names = list_of(value)
    fits = all(isinstance(name, str) and name in GAPS for name in names)
    return frozenset(names) if fits else None
