"""Suggested changes of the policy for denied requests: key and value.

Rules without a key in the policy are not in the table and get no suggestion. The wording of grants
is in ``core.policy.remedies``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from controller.core.encoding.image_reference import parse_reference
from controller.core.encoding.strict_json import fold
from controller.core.engine_api import grammar
from controller.core.engine_api.container_fields import BOUNDED
from controller.core.engine_api.remote_volumes import RemoteVolume
from controller.core.engine_api.requests import CreateRequest, Finding
from controller.core.rules.context import implied
from controller.core.rules.limits_privileges import capability
from controller.core.rules.logs import address_of
from controller.core.rules.networks import host_address
from controller.model.desired.spec.fields import HOST_GATEWAY
from controller.model.names import DEFAULT_NAMESPACE, REVISION
from controller.model.policy.devices import TUN
from controller.model.policy.document import Policy
from controller.model.policy.values import format_cpus
from controller.model.quantities import format_bytes, format_duration_ms, parse_size

Item = TypeVar("Item")
Value = str | int | bool | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """The parts of a request that suggestions need."""

    request: CreateRequest = field(default_factory=CreateRequest)
    reference: str = ""  # '' if unknown
    owner: str = ""
    namespace: str = DEFAULT_NAMESPACE
    platform: str = ""
    name: str = ""
    by_client: bool = False
    #: Of a volume's create.
    remote: RemoteVolume | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A change of the policy: *value* is added to the list at *key*, removed from it, or set."""

    how: Literal["add", "remove", "set"]
    key: str  # dotted, such as ``images.allow``
    value: Value


Suggest = Callable[[Finding, GrantRequest, Policy], Grant | None]


# Values of the request at the place of a finding


def _at(items: Sequence[Item], path: str) -> Item | None:
    """Return the item of a path such as ``HostConfig.CapAdd[3]``, if it exists."""
    match = re.search(r"\[(\d+)\]", path)
    index = int(match[1]) if match else 0
    return items[index] if index < len(items) else None


def _add(key: str, value: Callable[[Finding, GrantRequest, Policy], Value | None]) -> Suggest:
    def suggest(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
        entry = value(finding, asked, policy)
        return None if entry is None else Grant("add", key, entry)

    return suggest


def _set(key: str, value: Value) -> Suggest:
    return lambda _finding, _asked, _policy: Grant("set", key, value)


def _raise(key: str, value: Callable[[Finding, GrantRequest, Policy], Value | None]) -> Suggest:
    """Suggest a new bound, if the request only exceeds the bound of the policy."""

    def suggest(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
        bound = value(finding, asked, policy) if finding.tolerable else None
        return None if bound is None else Grant("set", key, bound)

    return suggest


def _image_folder(_finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    """Return the folder of a repository: ``docker.io/library/`` of nginx."""
    try:
        repository = parse_reference(asked.reference).repository
    except ValueError:
        return None
    return repository.rpartition("/")[0] + "/"


def _capability(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    named = _at(asked.request.cap_add, finding.path)
    if named is None:
        return None
    name, devices = capability(named), {each.source for each in asked.request.devices}
    for index, grant in enumerate(policy.devices.grants):
        own = (grant.owner, grant.namespace) == (asked.owner, asked.namespace)
        if name == "NET_ADMIN" and own and TUN in devices & {*grant.devices}:
            return Grant("add", f"devices.grants.{index}.capAdd", name)
    return Grant("add", "capabilities.allowed", name)


def _cpus(_finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    limits = asked.request.limits
    quota = limits.cpu_quota * 1_000_000_000 // (limits.cpu_period or 100_000)
    return format_cpus(limits.nano_cpus or quota)


def _number(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    """Return the line of the policy that a number is beyond, with the number."""
    for each, bound in BOUNDED:
        number = each.number_in(asked.request) or each.number_in(asked.request.limits)
        if number and finding.path.rpartition(".")[2] == each.member:
            line = bound.line(number, policy)
            return Grant("set", line, number) if line else None
    return None


def _tmpfs(finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    sizes = [mount.size for mount in asked.request.mounts if mount.path == finding.path]
    return format_bytes(max(sizes)) if sizes else None


def _ulimit(finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    wanted = _at(asked.request.ulimits, finding.path)
    if wanted is None or not 0 <= wanted.soft <= wanted.hard:
        return None
    return Grant("set", f"resources.ulimits.{wanted.name}", wanted.hard)


def _source(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    sources = [mount.source for mount in asked.request.mounts if mount.path == finding.path]
    if not sources:
        return None
    for index, owner in enumerate(policy.owners or ()):
        if owner.name == asked.owner and owner.sources:
            return Grant("add", f"owners.{index}.sources", sources[0])
    return Grant("add", "mounts.allowed", sources[0])


def _mode(finding: Finding, asked: GrantRequest, policy: Policy) -> Value | None:
    """Return the denied network mode, if the request names one of the three."""
    networks, named = implied(policy, asked.namespace), asked.request.network_mode
    modes = {"none": "none", "isolated": networks.isolated, "bridge": networks.bridge}
    for mode, network in modes.items():
        if named in (mode, network) and mode not in policy.networks.modes:
            return mode
    # A network with external access, whatever its name.
    opened = finding.path in {"Name", "Internal"} or "way out" in finding.reason
    return "bridge" if opened and "bridge" not in policy.networks.modes else None


def _alias(finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    named = re.match(r"'([^']+)' isn't", finding.reason)
    known = {alias for end in asked.request.endpoints for alias in end.aliases}
    return named[1] if named and named[1] in known else None


def _free_alias(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    """Return the switch for networks of a client's own; for other networks, the alias to list."""
    if asked.request.label(REVISION):
        named = _alias(finding, asked, policy)
        free = isinstance(named, str) and grammar.is_host_name(named, most=63)
        return Grant("set", "networks.serviceAliases", True) if free else None
    network = finding.path.removeprefix("NetworkingConfig.EndpointsConfig.").removesuffix(
        ".Aliases"
    )
    shared = implied(policy, asked.namespace).all()
    if _by_hand(asked) and network not in (*shared, "bridge", "default"):
        return Grant("set", "networks.clientAliases", True)
    alias = _alias(finding, asked, policy)
    return None if alias is None else Grant("add", "networks.aliases", alias)


def _hosts(finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    address = (_at(asked.request.extra_hosts, finding.path) or "").partition(":")[2]
    if not grammar.is_host_address(address):
        return None
    return HOST_GATEWAY if address == HOST_GATEWAY else "addresses"


def _dns(finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    """Return the range of one server, or the switch for search domains or options."""
    for name, key in (("DnsSearch", "search"), ("DnsOptions", "options")):
        if finding.path.startswith(f"HostConfig.{name}"):
            return Grant("set", f"networks.dns.{key}", True)
    server = _at(asked.request.dns_servers, finding.path) or ""
    whole = str(ipaddress.ip_network(server)) if grammar.is_address(server) else ""
    return Grant("add", "networks.dns.servers", whole) if whole else None


def _device(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    """Return the line for a device, if the owner is listed with the namespace."""
    devices = [each.source for each in asked.request.devices if each.path == finding.path]
    owner = next((each for each in policy.owners or () if each.name == asked.owner), None)
    if len(devices) != 1 or owner is None or asked.namespace not in owner.namespaces:
        return None
    for index, grant in enumerate(policy.devices.grants):
        if (grant.owner, grant.namespace) == (asked.owner, asked.namespace):
            return Grant("add", f"devices.grants.{index}.devices", devices[0])
    place = {"owner": asked.owner, "namespace": asked.namespace}
    return Grant("add", "devices.grants", {**place, "devices": devices})


def _specification(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    digest = re.search(r"sha256:[0-9a-f]{64}", finding.reason)
    devices = {each.source for each in asked.request.devices if each.path == finding.path}
    for index, grant in enumerate(policy.devices.grants):
        own = (grant.owner, grant.namespace) == (asked.owner, asked.namespace)
        if digest and own and devices & {*grant.devices}:
            return Grant("add", f"devices.grants.{index}.specifications", digest[0])
    return None


def _range(finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    ranges = {f"{port.path}.HostPort" for port in asked.request.ports if port.last}
    return Grant("set", "networks.ports.ranges", True) if finding.path in ranges else None


def _executable(finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    wanted = {mount.path for mount in asked.request.mounts if mount.executable}
    return Grant("set", "resources.tmpfs.exec", True) if finding.path in wanted else None


def _new_volume(_finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    return Grant("set", "mounts.createVolumes", True) if _by_hand(asked) else None


def _remote(_finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    remote = asked.remote
    if remote is None:
        return None
    place = {"owner": asked.owner, "namespace": asked.namespace, "type": remote.type}
    return Grant("add", "mounts.remote", {**place, "server": remote.server, "path": remote.path})


def _by_hand(asked: GrantRequest) -> bool:
    """Return True if the create is not the controller's, which always names a revision."""
    return not asked.request.label(REVISION)


def _host_port(finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    ports = [p.host for p in asked.request.ports if finding.path == f"{p.path}.HostPort"]
    return ports[0] if ports else None


def _address(finding: Finding, asked: GrantRequest, _policy: Policy) -> Value | None:
    addresses = [p.host_ip for p in asked.request.ports if finding.path == f"{p.path}.HostIp"]
    return (host_address(addresses[0]) or None) if addresses else None


def _address_of(finding: Finding, _asked: GrantRequest, _policy: Policy) -> Grant | None:
    chosen = finding.path.endswith("IPv4Address")
    return Grant("set", "networks.staticAddresses", True) if chosen else None


def _restart(finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    restart = asked.request.restart
    if not finding.tolerable:
        return None
    if finding.path.endswith(".Name"):
        return Grant("add", "restart.policies", restart.name)
    return Grant("set", "restart.maxRetries", restart.max_retries)


_CHECKS = {
    "Interval": ("interval_ns", "min_interval", "minInterval", "maxInterval"),
    "StartInterval": ("start_interval_ns", "min_interval", "minInterval", "maxInterval"),
    "Timeout": ("timeout_ns", "min_timeout", "minTimeout", "maxTimeout"),
    "StartPeriod": ("start_period_ns", "min_timeout", "minTimeout", "maxStartPeriod"),
}


def _check(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    check, field = asked.request.healthcheck, finding.path.rpartition(".")[2]
    if check is None or not finding.tolerable:
        return None
    if field == "Retries":
        return Grant("set", "healthcheck.maxRetries", check.retries)
    if field not in _CHECKS:
        return None
    attribute, least, least_key, most_key = _CHECKS[field]
    count_ns = getattr(check, attribute)
    short = count_ns < getattr(policy.healthcheck, least) * 1_000_000
    milliseconds = count_ns // 1_000_000 if short else -(-count_ns // 1_000_000)
    key = f"healthcheck.{least_key if short else most_key}"
    return Grant("set", key, format_duration_ms(milliseconds))


def _log(finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    options = dict(asked.request.log.options)
    if finding.rule == "log.driver":
        log = asked.request.log
        if log.type not in {"syslog", "fluentd", "gelf"}:
            return Grant("add", "logs.drivers", log.type)
        collector = {"driver": log.type, "address": address_of(log)}
        return Grant("add", "logs.collectors", collector)
    if not finding.tolerable:
        return None
    if finding.path.endswith(".max-size"):
        size = parse_size(options.get("max-size", ""))
        return Grant("set", "logs.maxSize", format_bytes(size)) if size else None
    count = options.get("max-file", "")
    return Grant("set", "logs.maxFiles", int(count)) if count.isdigit() else None


def _environment(_finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    env = asked.request.env
    if len(env) > policy.env.max:
        return Grant("set", "env.max", len(env))
    size = sum(len(entry.encode(errors="replace")) + 1 for entry in env)
    return Grant("set", "env.maxBytes", f"{-(-size // 1024)}Ki")


def _variable(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    name = (_at(asked.request.env, finding.path) or "").partition("=")[0]
    return Grant("remove", "env.denied", name) if name in policy.env.denied else None


def _unset(_finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    return Grant("set", "env.unset", True) if asked.request.env else None


def _prefix(finding: Finding, _asked: GrantRequest, policy: Policy) -> Grant | None:
    key = fold(finding.path.removeprefix("Labels."))
    prefixes = [p for p in policy.labels.denied_prefixes if key.startswith(fold(p))]
    return Grant("remove", "labels.deniedPrefixes", prefixes[0]) if len(prefixes) == 1 else None


def _labels(_finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    labels = asked.request.labels
    if len(labels) > policy.labels.max:
        return Grant("set", "labels.max", len(labels))
    size = sum(len((key + value).encode(errors="replace")) for key, value in labels)
    client = asked.by_client and size > policy.labels.client_max_bytes
    key = "labels.clientMaxBytes" if client else "labels.maxBytes"
    return Grant("set", key, f"{-(-size // 1024)}Ki") if labels else None


def _owner(_finding: Finding, asked: GrantRequest, _policy: Policy) -> Grant | None:
    entry = {"name": asked.owner, "namespaces": [asked.namespace]}
    return Grant("add", "owners", entry) if asked.owner else None


def _namespace(_finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    for index, owner in enumerate(policy.owners or ()):
        if owner.name == asked.owner:
            return Grant("add", f"owners.{index}.namespaces", asked.namespace)
    return None


def _service_quota(_finding: Finding, _asked: GrantRequest, policy: Policy) -> Grant | None:
    return Grant("set", "quotas.perService", policy.quotas.per_service + 1)


def _of_owner(member: str, key: str) -> Suggest:
    """Suggest one more for the owner, if its entry has a number of its own; else for all owners."""

    def suggest(_finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
        for index, owner in enumerate(policy.owners or ()):
            if owner.name == asked.owner and (most := getattr(owner, member)) is not None:
                return Grant("set", f"owners.{index}.{member}", most + 1)
        every = {
            "perOwner": policy.quotas.per_owner,
            "volumesPerOwner": policy.quotas.volumes_per_owner,
            "networksPerOwner": policy.quotas.networks_per_owner,
            "portsPerOwner": policy.quotas.ports_per_owner,
        }
        return Grant("set", f"quotas.{key}", every[key] + 1)

    return suggest


def _sum(what: Literal["containers", "volumes", "networks", "ports"]) -> Suggest:
    def suggest(_finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
        whose = "clients" if asked.by_client else "documents"
        sums = policy.quotas.clients if asked.by_client else policy.quotas.documents
        most = {
            "containers": sums.containers,
            "volumes": sums.volumes,
            "networks": sums.networks,
            "ports": sums.ports,
        }
        return Grant("set", f"quotas.{whose}.{what}", most[what] + 1)

    return suggest


def _name(_finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    size = len(asked.name)
    return Grant("set", "names.max", size) if size > policy.names.max else None


#: The suggestion for each rule that a line of the policy can loosen.
GRANTS: Mapping[str, Suggest] = {
    "auto-remove": _raise("autoRemove", lambda *_: True),
    "capabilities": _capability,
    "device.edits": _specification,
    "devices": _device,
    "env.denied": _variable,
    "env.invalid": _unset,
    "env.size": _environment,
    "exec.client": lambda _f, _a, p: None if p.exec.clients else Grant("set", "exec.clients", True),
    "exec.disabled": _set("exec.enabled", True),
    "exec.root": _set("exec.root", True),
    "healthcheck.bounds": _check,
    "healthcheck.shell": _set("healthcheck.shell", True),
    "host.name": _set("names.underscores", True),
    "image.mutable": _set("images.requireDigest", False),
    "image.not-allowed": _add("images.allow", _image_folder),
    "image.platform": _add(
        "images.platforms",
        lambda _f, asked, p: (
            None if asked.platform in ("", *p.images.platforms) else asked.platform
        ),
    ),
    "label.denied": _prefix,
    "label.size": _labels,
    "log.driver": _log,
    "log.option": _log,
    "mount.count": lambda _f, asked, _p: Grant("set", "mounts.max", len(asked.request.mounts)),
    "mount.not-allowed": _source,
    "mount.options": _executable,
    "mount.tmpfs": _raise("resources.tmpfs.max", _tmpfs),
    "name.invalid": _name,
    "network.address": _address_of,
    "network.alias": _free_alias,
    "network.dns": _dns,
    "network.hosts": _add("networks.extraHosts", _hosts),
    "network.internal": _add("networks.modes", _mode),
    "network.ipv6": _set("networks.ipv6", True),
    "namespace.ipc": _add(
        "security.sharedNamespaces", lambda _f, a, _p: "ipc" if a.request.label(REVISION) else None
    ),
    "namespace.shared": _add(
        "security.sharedNamespaces", lambda f, _a, _p: f.path.rpartition(".")[2].lower()
    ),
    "network.mode": _add("networks.modes", _mode),
    "owner.namespace": _namespace,
    "owner.unknown": _owner,
    "port.address": _add("networks.ports.hostIPs", _address),
    "port.count": lambda _f, asked, _p: Grant(
        "set", "networks.ports.max", len(asked.request.ports)
    ),
    "port.invalid": _range,
    "port.privileged": _add("networks.ports.granted", _host_port),
    "port.reserved": _add("networks.ports.granted", _host_port),
    "quota.all-containers": _sum("containers"),
    "quota.all-networks": _sum("networks"),
    "quota.all-ports": _sum("ports"),
    "quota.all-volumes": _sum("volumes"),
    "quota.networks": _of_owner("networks", "networksPerOwner"),
    "quota.owner": _of_owner("quota", "perOwner"),
    "quota.ports": _of_owner("ports", "portsPerOwner"),
    "quota.service": _service_quota,
    "quota.volumes": _of_owner("volumes", "volumesPerOwner"),
    "resources.cpus": _raise("resources.cpus.max", _cpus),
    "resources.cpuset": _set("resources.cpuset", True),
    "resources.memory": _raise(
        "resources.memory.max", lambda _f, a, _p: format_bytes(a.request.limits.memory)
    ),
    "resources.shm": _raise("resources.shmMax", lambda _f, a, _p: format_bytes(a.request.shm_size)),
    "resources.ulimits": _ulimit,
    "restart": _restart,
    "root-filesystem": _set("security.requireReadOnlyRoot", False),
    "runtime": _add("security.runtimes", lambda _f, a, _p: a.request.runtime or None),
    "sysctls": _add("security.sysctls", lambda f, _a, _p: f.path.partition("Sysctls.")[2]),
    "user.groups": _set("security.groupAdd", True),
    "user.root": _set("security.requireNonRoot", False),
    "volume.anonymous": _set("images.anonymousVolumes", "slot"),
    "volume.missing": _new_volume,
    "volume.remote": _remote,
    **{
        bound.rule: _number for _, bound in BOUNDED if {str} & {type(bound.least), type(bound.most)}
    },
}


def grant_of(finding: Finding, asked: GrantRequest, policy: Policy) -> Grant | None:
    """Return the change of the policy to permit the denied request, if there is one."""
    suggest = GRANTS.get(finding.rule)
    grant = None if suggest is None else suggest(finding, asked, policy)
    return grant if grant is not None and _is_valid(policy, grant) else None


def apply_grant(policy: Policy, grant: Grant) -> Policy | None:
    """Return the policy with a grant; None if the result is not a valid policy."""
    whole = policy.to_json()
    _apply(whole, grant.key.split("."), grant)
    try:
        return Policy.from_json(whole)
    except ValidationError:
        return None


def _is_valid(policy: Policy, grant: Grant) -> bool:
    """Return True if the granted value is valid in the policy.

    Only its own section is checked, because a flood of denials calls this for each denial.
    """
    top, *path = grant.key.split(".")
    section = next((getattr(policy, name) for name in _SECTIONS if _SECTIONS[name] == top), None)
    if not path or not isinstance(section, BaseModel):
        return apply_grant(policy, grant) is not None
    section_json = section.model_dump(mode="json", by_alias=True)
    before = json.dumps(section_json)
    _apply(section_json, path, grant)
    if json.dumps(section_json) == before:
        return False  # granted already: the reason of the denial is another
    try:
        type(section).model_validate_json(json.dumps(section_json))
    except ValidationError:
        return False
    return True


#: The policy's sections: the name in code, and in the file.
_SECTIONS = {name: field.alias or name for name, field in Policy.model_fields.items()}


def _apply(value: object, path: list[str], grant: Grant) -> None:
    *folders, last = path
    for part in folders:
        value = member(value, part)
    if not isinstance(value, dict):
        return
    before = value.get(last)
    entries = before if isinstance(before, list) else []
    match grant.how:
        case "add":
            value[last] = [*entries, grant.value]
        case "remove":
            value[last] = [entry for entry in entries if entry != grant.value]
        case "set":
            value[last] = grant.value


def member(holder: object, part: str) -> object:
    """Return a member of an object, or an item of a list, by its name in the file."""
    if isinstance(holder, list):
        return holder[int(part)]
    return holder.get(part) if isinstance(holder, dict) else None
