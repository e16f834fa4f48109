"""Gaps: what an adopted container lacks of its document, admitted by an operator, each gap by name.

The list is closed. No engine can change any of the gaps at an existing container. Hardening is judged
here, and other forms of the same thing in ``core.adoption.forms``. Nothing else can be admitted.

A report of ``adopt`` in words: the gaps, what clients notice, and which jobs don't run again. Pure.

The report is the broker's answer, as ``adopt --json`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controller.core.encoding.json_values import list_of, mapping_of, texts_of
from controller.core.encoding.text import quote
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.rules.container import NO_NEW_PRIVILEGES, capability
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


#: Findings of containers whose networks were compared with the document.
_BEYOND_NETWORKS = frozenset({"adopt.gap", "adopt.network-shared"})
NOTHING = "Clients notice nothing: the containers keep their networks, addresses and names."
STALE = (
    "Who resolved an address before, such as nginx with proxy_pass or a connection pool, gets no answer "
    "there until it resolves the name again: reload or restart it."
)
KEEP = (
    "To keep the networks of docker compose, write x-trimtab: {networks: compose} into the override file "
    "(docs/adopt.md)."
)


def gap_lines(containers: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each gap with the services that have it, and a line for each field."""
    services: dict[str, list[str]] = {}
    fields: dict[str, list[str]] = {}
    means: dict[str, str] = {}
    for each in containers:
        for gap in each["gaps"]:
            name, means[gap["gap"]] = gap["gap"], gap["means"]
            services.setdefault(name, []).append(each["service"])
            listed = (f"{each['service']}: {text}" for text in gap["fields"])
            fields.setdefault(name, []).extend(listed)
    if services:
        yield "Gaps, until the next replacement of each container:"
    for name, having in services.items():
        yield f"  {name} ({', '.join(dict.fromkeys(having))}): {means[name]}"
        yield from (f"    {text}" for text in dict.fromkeys(fields[name]))


def notice_lines(containers: Iterable[Mapping[str, Any]], *, of_project: bool) -> Iterator[str]:
    """Yield what clients of the containers notice.

    Nothing is said of containers that were refused before their networks were compared.
    """
    compared = [c for c in containers if {f["rule"] for f in c["findings"]} <= _BEYOND_NETWORKS]
    changed = {each["name"]: text for each in compared if (text := _notice_of(each))}
    if not changed:
        if compared:
            yield NOTHING
        return
    yield "What clients notice:"
    yield from (f"  {name} {text}" for name, text in changed.items())
    if any(each["leaves"] or each["rejoins"] for each in compared):
        yield f"  {STALE}"
    if of_project and any(each["leaves"] for each in compared):
        yield f"  {KEEP}"


def _notice_of(container: Mapping[str, Any]) -> str:
    leaves, joins = container["leaves"], container["joins"]
    parts = [f"leaves {' and '.join(leaves)}"] if leaves else []
    parts += [f"joins {' and '.join(joins)}"] if joins else []
    again = container["rejoins"]
    parts += [f"joins {' and '.join(again)} again, for the names of its document"] if again else []
    text = ", ".join(parts)
    if leaves or again:
        text += ": its connections there end, and its address changes"
    if parts and container["publishes"]:
        text += "; its published ports don't answer for a moment"
    return text


def object_lines(objects: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the verdict of each volume and network."""
    for each in objects:
        verdict = "refused" if each["findings"] else "adopted with them"
        way_out = f"; it has a way out, granted by {each['granted']}" if each["granted"] else ""
        yield f"{each['kind']} {each['name']}: {verdict}{'' if each['findings'] else way_out}"


def run_lines(runs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which jobs don't run again, and which are held."""
    for each in runs:
        job = each["job"].removeprefix("Job/")
        if each["outcome"] == "succeeded":
            yield (
                f"{job}: its run by docker compose counts ({each['name']}), and it doesn't run again"
            )
        else:
            why = "; ".join(each["reasons"])
            yield f"{job}: is held, and runs by trimtab run-job {job} alone ({why})"
