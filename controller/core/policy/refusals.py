"""Denials by the policy as problems of a document: file, line, column and YAML field.

The gate judges bodies of the Engine API and names their fields. The author of a document does not
know them, so each finding is converted to the field of the document.

``core.engine_api.create_body`` is the opposite direction. Each of its keys has a field
here, also keys for unset fields. A test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from controller.core.encoding.text import shorten
from controller.core.engine_api.container_fields import FIELDS
from controller.core.engine_api.create_body import aliases_on, joined_networks
from controller.core.engine_api.requests import Finding
from controller.core.manifests.validation_errors import dotted
from controller.core.rules.verdict import AdmissionDecision, mode_of
from controller.core.yaml.documents import YamlPath, locate
from controller.model import names
from controller.model.desired.desired import Network, Service, SourceLocation, Volume
from controller.model.desired.spec.fields import host_addresses
from controller.model.desired.spec.mounts import TmpfsMount
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem, Severity, SourcePosition
from controller.model.names import NetworkNames
from controller.model.policy.document import Policy
from controller.model.records import Verdict

#: The places of the fields of containers.
_OF_CONTAINERS: Mapping[str, YamlPath] = {
    field.place: tuple(field.path.split(".")) for field in FIELDS if field.path
}
_FIELDS: Mapping[str, YamlPath] = {
    **_OF_CONTAINERS,
    "name": ("metadata", "name"),
    "platform": ("spec", "image"),
    "Build": ("spec", "build"),
    "TrimtabShares.Service": ("spec", "shares", "service"),
    "TrimtabShares.Network": ("spec", "shares", "network"),
    "TrimtabShares.Ipc": ("spec", "shares", "ipc"),
    "TrimtabShares.Pid": ("spec", "shares", "pid"),
    "Healthcheck.Test": ("spec", "healthcheck", "exec"),
    "Healthcheck.Interval": ("spec", "healthcheck", "interval"),
    "Healthcheck.Timeout": ("spec", "healthcheck", "timeout"),
    "Healthcheck.Retries": ("spec", "healthcheck", "retries"),
    "Healthcheck.StartPeriod": ("spec", "healthcheck", "startPeriod"),
    "Healthcheck.StartInterval": ("spec", "healthcheck", "startInterval"),
    f"Labels.{names.OWNER}": ("metadata", "owner"),
    f"Labels.{names.NAMESPACE}": ("metadata", "namespace"),
    f"Labels.{names.SERVICE}": ("metadata", "name"),
    f"Labels.{names.SLOT}": ("spec", "replicas"),
    f"Labels.{names.REVISION}": ("spec",),
    f"Labels.{names.IMAGE}": ("spec", "image"),
    "HostConfig": ("spec",),
    "HostConfig.LogConfig.Type": ("spec", "logs", "driver"),
    "HostConfig.LogConfig.Config": ("spec", "logs", "options"),
    "HostConfig.LogConfig.Config.cache-max-size": ("spec", "logs", "maxSize"),
    "HostConfig.LogConfig.Config.cache-max-file": ("spec", "logs", "maxFiles"),
    "HostConfig.LogConfig.Config.compress": ("spec", "logs", "compress"),
    "HostConfig.LogConfig.Config.max-size": ("spec", "logs", "maxSize"),
    "HostConfig.LogConfig.Config.max-file": ("spec", "logs", "maxFiles"),
    # In the create of a Network or a Volume.
    "Name": ("metadata", "name"),
    "Internal": ("spec", "internal"),
    "DriverOpts": ("spec", "remote"),
    "Driver": ("spec", "macvlan"),
    "EnableIPv6": ("spec", "ipv6Subnet"),
    "IPAM": ("spec", "subnet"),
    "Options": ("spec", "internal"),
}

#: The names of a mount's and a published port's members in a document.
_MOUNT = {
    "Type": "type",
    "Source": "source",
    "Target": "target",
    "ReadOnly": "readOnly",
    "TmpfsOptions": "size",
    "TmpfsOptions.Mode": "mode",
    "VolumeOptions.Subpath": "subpath",
    "VolumeOptions.NoCopy": "noCopy",
}
_HOOK = {
    "Cmd": "exec",
    "User": "user",
    "WorkingDir": "workingDir",
    "Env": "env",
    "TimeoutMs": "timeout",
}
_PORT = {"HostIp": "hostIP", "HostPort": "host"}

#: The member judged by a rule with a whole mount as its place.
_MEMBER_BY_RULE = {
    "mount.target": "target",
    "mount.duplicate": "target",
    "mount.tmpfs": "size",
    **dict.fromkeys(
        (
            *("mount.source", "mount.never", "mount.forbidden", "mount.not-allowed"),
            *("mount.symlink", "mount.missing", "mount.socket", "mount.kind", "mount.parent"),
            *("mount.unreadable", "mount.changed"),
            *("volume.missing", "volume.foreign", "volume.options", "volume.changed"),
        ),
        "source",
    ),
}


def fields_of(resource: Service | Network | Volume, base: NetworkNames) -> Mapping[str, YamlPath]:
    """Return the field of each place in the create of a resource."""
    if isinstance(resource, Service):
        return {**_FIELDS, **dict(_variable_fields(resource, base))}
    return _FIELDS


def field_at(fields: Mapping[str, YamlPath], place: str, rule: str = "") -> YamlPath:
    """Return the field of the longest known place equal to *place* or around it.

    If the place is a whole mount, *rule* selects the member. An unknown place belongs to the spec.
    """
    path = _longest(fields, place)
    member = _MEMBER_BY_RULE.get(rule)
    whole = len(path) == 3 and path[:2] == ("spec", "mounts")
    return (*path, member) if member and whole else path


def _longest(fields: Mapping[str, YamlPath], place: str) -> YamlPath:
    end = len(place)
    while end > 0:
        if place[:end] in fields:
            return fields[place[:end]]
        end = max(place.rfind(".", 0, end), place.rfind("[", 0, end))
    return ("spec",)


def _variable_fields(service: Service, base: NetworkNames) -> Iterator[tuple[str, YamlPath]]:
    """Yield the places that depend on the content of the document, each with its field."""
    spec = service.spec
    for index, name in enumerate(sorted(spec.texts_of_env)):
        yield f"Env[{index}]", ("spec", "env", name)
    for index, name in enumerate(spec.secrets_of_env):
        yield f"TrimtabEnv[{index}]", ("spec", "env", name)
        yield f"Env[{len(spec.texts_of_env) + index}]", ("spec", "env", name)
    if spec.observe is not None:
        yield "TrimtabShares", ("spec", "observe")
    yield from _hooks(spec)
    for key in spec.container_labels:
        yield f"Labels.{key}", ("spec", "containerLabels", key)
    for index in range(len(spec.security.cap_add)):
        yield f"HostConfig.CapAdd[{index}]", ("spec", "security", "capAdd", index)
    number = 0  # an executable tmpfs is not among ``Mounts``
    for index, mount in enumerate(spec.mounts):
        path: YamlPath = ("spec", "mounts", index)
        if isinstance(mount, TmpfsMount) and mount.exec:
            yield f"HostConfig.Tmpfs.{mount.target}", path
            continue
        place = f"HostConfig.Mounts[{number}]"
        number += 1
        yield place, path
        yield from ((f"{place}.{name}", (*path, member)) for name, member in _MOUNT.items())
    yield from _lists(spec)
    yield from _ports(service)
    yield from _endpoints(service, base)


def _hooks(spec: ServiceSpec) -> Iterator[tuple[str, YamlPath]]:
    for event, member, hooks in (
        ("PostStart", "postStart", spec.lifecycle.post_start),
        ("PreStop", "preStop", spec.lifecycle.pre_stop),
    ):
        yield f"TrimtabHooks.{event}", ("spec", "lifecycle", member)
        for index, hook in enumerate(hooks):
            place, path = f"TrimtabHooks.{event}[{index}]", ("spec", "lifecycle", member, index)
            yield place, path
            yield from ((f"{place}.{name}", (*path, field)) for name, field in _HOOK.items())
            for number, name in enumerate(sorted(hook.env)):
                yield f"{place}.Env[{number}]", (*path, "env", name)


def _lists(spec: ServiceSpec) -> Iterator[tuple[str, YamlPath]]:
    """Yield the places of lists and mappings with separately judged items."""
    for name, path, count in (
        ("GroupAdd", ("groupAdd",), len(spec.group_add)),
        ("Dns", ("dns", "servers"), len(spec.dns.servers)),
        ("DnsSearch", ("dns", "search"), len(spec.dns.search)),
        ("DnsOptions", ("dns", "options"), len(spec.dns.options)),
    ):
        for index in range(count):
            yield f"HostConfig.{name}[{index}]", ("spec", *path, index)
    by_path = [index for index, device in enumerate(spec.devices) if device.path is not None]
    for number, index in enumerate(by_path):
        yield f"HostConfig.Devices[{number}]", ("spec", "devices", index)
    hosts = sorted(spec.extra_hosts.items())
    names = [name for name, addresses in hosts for _ in host_addresses(addresses)]
    for index, name in enumerate(names):
        yield f"HostConfig.ExtraHosts[{index}]", ("spec", "extraHosts", name)
    for name in spec.logs.options:
        yield f"HostConfig.LogConfig.Config.{name}", ("spec", "logs", "options", name)
    for name in spec.sysctls:
        yield f"HostConfig.Sysctls.{name}", ("spec", "sysctls", name)
    for index, limit in enumerate(sorted(spec.ulimits)):
        yield f"HostConfig.Ulimits[{index}]", ("spec", "ulimits", limit)


def _ports(service: Service) -> Iterator[tuple[str, YamlPath]]:
    published: dict[str, int] = {}
    written = ((index, port) for index, each in enumerate(service.spec.ports) for port in each.each)
    for index, port in written:
        key, path = f"{port.container}/{port.protocol}", ("spec", "ports", index)
        yield f"ExposedPorts.{key}", (*path, "container")
        if port.host is None:
            continue
        place = f"HostConfig.PortBindings.{key}"
        at = f"{place}[{published.setdefault(key, 0)}]"
        if published[key] == 0:
            yield place, (*path, "host")
        published[key] += 1
        yield at, (*path, "host")
        yield from ((f"{at}.{name}", (*path, member)) for name, member in _PORT.items())


def _endpoints(service: Service, base: NetworkNames) -> Iterator[tuple[str, YamlPath]]:
    attached = {
        service.network_name(each.name): index
        for index, each in enumerate(service.spec.network.attach)
    }
    for name in joined_networks(service, base):
        place = f"NetworkingConfig.EndpointsConfig.{name}"
        if name in attached:
            yield place, ("spec", "network", "attach", attached[name])
            address = ("spec", "network", "attach", attached[name], "address")
            yield f"{place}.IPAMConfig", address
        else:
            yield place, ("spec", "network", "mode")
        yield f"{place}.Aliases", _aliases(service, name, attached, base)


def _aliases(
    service: Service, network: str, attached: Mapping[str, int], base: NetworkNames
) -> YamlPath:
    """Return the field of the aliases on a network; the name of the service if there are none."""
    if len(aliases_on(service, network, base)) == 1:
        return ("metadata", "name")
    if network in attached:
        return ("spec", "network", "attach", attached[network], "aliases")
    return ("spec", "network", "aliases")


#: A reason of the broker starts with the first denied place in the body. Further rules follow.
_PLACE = (
    r"(?P<place>(?:HostConfig|NetworkingConfig|Healthcheck|Labels|Volumes|ExposedPorts|Env|Image|Cmd"
    r"|Entrypoint|User|WorkingDir|StopSignal|StopTimeout)(?:[.\[][^ ,:]*(?::[^ ,:]+)*)?)"
)
_LED = re.compile(rf"{_PLACE}: (?P<reason>.+)", re.DOTALL)
_ALSO = re.compile(rf"(?P<rule>[a-z-]+(?:\.[a-z-]+)?) at {_PLACE}")
#: Limit of the findings in a verdict; a document can have thousands.
SHOWN_MAX = 20


def verdict_in_document(
    admission: AdmissionDecision, resource: Service | Network | Volume, policy: Policy
) -> Verdict:
    """Return the verdict on a resource's create, with each finding at its place in the document.

    Findings of rules in the mode ``audit`` are left out: they are admitted without a warning.
    """
    verdict = admission.verdict_for_client
    if verdict.decision not in ("deny", "audit-deny"):
        return verdict
    denied = verdict.decision == "deny"
    shown = [f for f in admission.findings if denied or mode_of(f, policy.modes) == "warn"]
    severity = Severity.REFUSED if denied else Severity.WARNING
    fields = fields_of(resource, policy.networks.names)
    problems = dict.fromkeys(_problem(f, resource, fields, severity) for f in shown[:SHOWN_MAX])
    return replace(
        verdict,
        reason=summary(problems),
        remedy=next(iter(problems)).remedy,
        problems=tuple(problems),
    )


def _problem(
    finding: Finding,
    resource: Service | Network | Volume,
    fields: Mapping[str, YamlPath],
    severity: Severity,
) -> Problem:
    """Return one finding as a problem of the document."""
    path = field_at(fields, finding.path, finding.rule)
    place = place_of(resource.source, path)
    field = dotted(path)
    message = f"{field}{_joint(finding.reason)}{finding.reason}"
    if severity is Severity.WARNING:
        message += " (let through for now: the policy will refuse it)"
    if resource.source.release:
        message += f" (rendered for {resource.source.release})"
    return Problem(
        code=finding.rule,
        message=message,
        file=place.file or resource.source.file,
        line=place.line,
        column=place.column,
        remedy=finding.advice,
        severity=severity,
        key=resource.key,
        field=field,
    )


def _joint(reason: str) -> str:
    """Return the text between field and reason: a space before a quoted value, else a colon."""
    return " " if reason[:1] in "'\"" else ": "


def place_of(source: SourceLocation, path: YamlPath) -> SourcePosition:
    """Return the position of a field in its document, or of the document."""
    if source.places is not None:
        return source.places.find(path)
    if not source.text:
        return SourcePosition(source.line, 0)
    return locate(source.text, source.line, path)


def summary(problems: Iterable[Problem]) -> str:
    """Return all findings in one line: places and reasons."""
    return shorten("; also ".join(f"{each.place}: {each.message}" for each in problems))


def with_remedies(verdict: Verdict) -> str:
    """Return a denial in one line, for a condition: each reason with its remedy."""
    reasons = [(f"{each.place}: {each.message}", each.remedy) for each in verdict.problems]
    reasons = reasons or [(verdict.reason, verdict.remedy)]
    return shorten("; also ".join(f"{why} ({do})" if do else why for why, do in reasons))


def with_document_fields(reason: str, rule: str, service: Service, base: NetworkNames) -> str:
    """Return the broker's reason for a denied create, with the fields of the document.

    The broker also judges facts of the host, such as a missing path, so no preview has its reason.
    """
    match = _LED.fullmatch(reason)
    if match is None:
        return reason
    fields = fields_of(service, base)
    finding = Finding(rule, match["place"], match["reason"])
    problem = _problem(finding, service, fields, Severity.REFUSED)

    def other(match: re.Match[str]) -> str:
        return f"{match['rule']} at {dotted(field_at(fields, match['place'], match['rule']))}"

    return f"{problem.place}: {_ALSO.sub(other, problem.message)}"
