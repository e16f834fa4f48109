"""The parts of a create's body with a grammar of their own: names, env, ports, checks.

Each function returns the typed part and adds its faults to *findings*.

Devices of a create's body: paths (``Devices``) and CDI names (``DeviceRequests``).

Only the grammar is checked here. ``core.rules.container`` decides whether a device is granted.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import unicodedata
from collections.abc import Iterator

from controller.core.encoding.text import quote
from controller.core.engine_api import field_tables
from controller.core.engine_api.field_reader import (
    FindingCollector,
    Values,
    is_one_line,
    is_unset,
    read_object,
)
from controller.core.engine_api.field_tables import DEVICE, DEVICE_REQUEST
from controller.core.engine_api.requests import (
    DeviceRequest,
    EndpointRequest,
    HealthcheckRequest,
    HookRequest,
    HookRequests,
    PortRequest,
    Ulimit,
    VariableRequest,
)
from controller.core.files.content import is_content_id
from controller.model.delivery import is_key
from controller.model.desired.spec import fields
from controller.model.desired.spec.container import (
    HOOK_MAX_MS,
    HOOK_MIN_MS,
    HOOKS_MAX,
    is_cdi_name,
    is_device_path,
)
from controller.model.host_paths import is_below
from controller.model.names import SERVICE_NAME_MAX, is_dns_label

PROTOCOLS = ("tcp", "udp", "sctp")
EXPOSED_MAX = 64
EXTRA_HOSTS_MAX = 64
DNS_MAX = 16
#: Host addresses and ports of one container port.
BINDINGS_MAX = 64
HEALTHCHECK_KINDS = ("NONE", "CMD", "CMD-SHELL")

_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_USER = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?", re.ASCII
)
_PORT = re.compile(r"([0-9]{1,5})(?:/([a-z]{1,4}))?", re.ASCII)
_PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})(?:/([a-z]{1,4}))?", re.ASCII)
_HOST_RANGE = re.compile(r"([1-9][0-9]{0,4})-([1-9][0-9]{0,4})", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)

#: The name of a variable to unset. Any other text is possibly a secret without its name.
_UNSET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)

_SIGNALS = (
    *("ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT"),
    *("KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM"),
    *("TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ"),
    *("RTMIN", *(f"RTMIN+{number}" for number in range(1, 16))),
    *("RTMAX", *(f"RTMAX-{number}" for number in range(1, 15))),
)
SIGNALS = frozenset([*_SIGNALS, *(f"SIG{name}" for name in _SIGNALS)])


def is_signal(text: str) -> bool:
    """Return True if *text* is the name of a signal (with or without SIG) or a number 1 to 64."""
    if text in SIGNALS:
        return True
    return _NUMBER.fullmatch(text) is not None and 1 <= int(text) <= 64


def is_clean(path: str) -> bool:
    """Return True if a path is absolute, normalized, printable and in Unicode normal form NFC."""
    return (
        path.startswith("/")
        and not path.startswith("//")
        and posixpath.normpath(path) == path
        and unicodedata.normalize("NFC", path) == path
        and is_one_line(path)
    )


def check_host_name(config: Values, name: str, findings: FindingCollector, *, most: int) -> None:
    """Check a host or domain name."""
    value = config.text(name)
    if value and not is_host_name(value, most=most):
        reason = f"{value!r} is no host name of at most {most} characters (RFC 1123)"
        findings.add("host.name", name, reason, "letters, digits and dashes, in parts by dots")


def is_host_name(text: str, *, most: int = 253) -> bool:
    """Return True if *text* is a host name (RFC 1123). The engine also accepts ``_``."""
    return len(text) <= most and all(_HOST_LABEL.fullmatch(part) for part in text.split("."))


def check_user(config: Values, findings: FindingCollector) -> None:
    """Check a user, ``NAME|UID[:GROUP|GID]``."""
    user = config.text("User")
    if user and not _USER.fullmatch(user):
        findings.add("user.invalid", "User", f"{user!r} is no user", "write USER, or USER:GROUP")


def check_environment(config: Values, findings: FindingCollector) -> None:
    """Check variables: ``NAME=value``, or ``NAME`` to unset the image's variable."""
    for index, entry in enumerate(config.texts("Env")):
        name, equals, _ = entry.partition("=")
        good = is_one_line(name) and " " not in name if equals else _UNSET.fullmatch(name)
        if not name or not good:
            # The value is never repeated: it may be a secret.
            reason = "not of the form NAME=value"
            findings.add("env.invalid", f"Env[{index}]", reason, "write NAME=value")


def secret_variables(config: Values, findings: FindingCollector) -> tuple[VariableRequest, ...]:
    """Return the variables with values of Secrets; each name once, also among the other ones."""
    taken = {entry.partition("=")[0] for entry in config.texts("Env")}
    found = []
    for index, text in enumerate(config.texts("TrimtabEnv")):
        path = f"TrimtabEnv[{index}]"
        name, _, rest = text.partition("=")
        source, _, content = rest.rpartition("@")
        secret, _, key = source.partition("/")
        named = fields.is_env_name(name) and is_dns_label(secret, length=SERVICE_NAME_MAX)
        if not named or not is_key(key) or not is_content_id(content):
            reason = "not of the form NAME=SECRET/KEY@CONTENT"
            findings.add("env.invalid", path, reason, "name a file of a delivered Secret")
        elif name in taken:
            findings.add("env.invalid", path, f"{name} has two values", "write it once")
        taken.add(name)
        found.append(VariableRequest(name, secret, key, content, path))
    return tuple(found)


def hooks(value: object, path: str, findings: FindingCollector) -> HookRequests:
    """Return the hooks of a container."""
    values = read_object(field_tables.HOOKS, value, path, findings)
    after, before = (
        tuple(_hook_list(values.items(name), f"{path}.{name}", findings))
        for name in ("PostStart", "PreStop")
    )
    return HookRequests(after, before)


def _hook_list(
    items: tuple[object, ...], path: str, findings: FindingCollector
) -> Iterator[HookRequest]:
    if len(items) > HOOKS_MAX:
        findings.add("hook.count", path, f"{len(items)} hooks: at most {HOOKS_MAX}", "join some")
    for index, item in enumerate(items):
        where, own = f"{path}[{index}]", FindingCollector()
        values = read_object(field_tables.HOOK, item, "", own)
        check_user(values, own)
        check_environment(values, own)
        check_working_dir(values, own)
        if not values.texts("Cmd") or not values.texts("Cmd")[0]:
            own.add("hook.command", "Cmd", "there is nothing to run", "name a program")
        if not HOOK_MIN_MS <= (values.whole("TimeoutMs") or 0) <= HOOK_MAX_MS:
            reason = f"a hook takes {HOOK_MIN_MS} to {HOOK_MAX_MS} ms"
            own.add("hook.timeout", "TimeoutMs", reason, "choose a time in that range")
        for finding in own.all():
            at = f"{where}.{finding.path}" if finding.path else where
            findings.add(finding.rule, at, finding.reason, finding.remedy)
        yield HookRequest(**values.attributes(field_tables.HOOK), path=where)


def check_working_dir(config: Values, findings: FindingCollector) -> None:
    """Check a working directory: absolute, and outside folders with file descriptors."""
    folder = config.text("WorkingDir")
    if folder and not is_clean(folder):
        reason = f"{folder!r} isn't a clean absolute path"
        findings.add("workdir.invalid", "WorkingDir", reason)
    elif any(is_below(folder, top) for top in ("/proc", "/sys", "/dev")):
        reason = f"{folder!r} lies where the runtime's own files can be reached (CVE-2024-21626)"
        findings.add("workdir.forbidden", "WorkingDir", reason, "choose a folder of the image")


def labels(config: Values) -> tuple[tuple[str, str], ...]:
    """Return labels, sorted by name."""
    return tuple(sorted((key, str(value)) for key, value in config.members("Labels").items()))


def volume_paths(config: Values, findings: FindingCollector) -> tuple[str, ...]:
    """Return the paths of anonymous volumes (Config.Volumes)."""
    paths = tuple(sorted(config.members("Volumes")))
    for path in paths:
        if not is_clean(path) or ":" in path or not is_unset(config.members("Volumes")[path]):
            findings.add("mount.target", f"Volumes.{path}", "not a clean path in the container")
    return paths


def check_signal(config: Values, findings: FindingCollector) -> None:
    """Check the signal to stop."""
    signal = config.text("StopSignal")
    if signal and not is_signal(signal):
        reason = f"{signal!r} is no signal"
        findings.add("signal.invalid", "StopSignal", reason, "write SIGTERM, or another one's name")


def exposed_ports(config: Values, findings: FindingCollector) -> tuple[str, ...]:
    """Return exposed ports as ``PORT/PROTOCOL`` (or ``FROM-TO/PROTOCOL``)."""
    members = config.members("ExposedPorts")
    if len(members) > EXPOSED_MAX:
        findings.add("port.count", "ExposedPorts", f"more than {EXPOSED_MAX} ports")
    ports = []
    for key, value in members.items():
        if not _is_port_or_range(key) or not is_unset(value):
            reason = f"{key!r} is no port: PORT/PROTOCOL, 1 to 65535"
            findings.add("port.invalid", f"ExposedPorts.{key}", reason)
        ports.append(key if "/" in key else f"{key}/tcp")
    return tuple(sorted(ports))


def _is_port_or_range(text: str) -> bool:
    if match := _PORT_RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        return 1 <= first <= last <= 65535 and (match[3] or "tcp") in PROTOCOLS
    return _container_port(text) is not None


def _container_port(text: str) -> tuple[int, str] | None:
    match = _PORT.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 65535 or (match[2] or "tcp") not in PROTOCOLS:
        return None
    return int(match[1]), match[2] or "tcp"


def port_bindings(host: Values, findings: FindingCollector) -> tuple[PortRequest, ...]:
    """Return the published ports."""
    ports: list[PortRequest] = []
    for key, bindings in host.members("PortBindings").items():
        where = f"HostConfig.PortBindings.{key}"
        container = _container_port(key)
        if container is None:
            reason = f"{key!r} is no port: PORT/PROTOCOL, 1 to 65535, no range"
            findings.add("port.invalid", where, reason, "publish each port by itself")
            continue
        if bindings is None:
            continue
        if not isinstance(bindings, list) or len(bindings) > BINDINGS_MAX:
            reason = f"expected a list of at most {BINDINGS_MAX} host addresses and ports"
            findings.add("body.type", where, reason)
            continue
        for index, binding in enumerate(bindings):
            port = _binding(container, binding, f"{where}[{index}]", findings)
            ports += [port] if port else []
    return tuple(sorted(ports, key=lambda p: (p.container, p.protocol, p.host_ip, p.host)))


def _binding(
    container: tuple[int, str], binding: object, where: str, findings: FindingCollector
) -> PortRequest | None:
    read = read_object(field_tables.PORT_BINDING, binding, where, findings)
    text = read.text("HostPort") or "0"
    if several := _HOST_RANGE.fullmatch(text):
        first, last = int(several[1]), int(several[2])
        if first < last <= 65535:
            return PortRequest(
                container[0], container[1], first, read.text("HostIp"), last, path=where
            )
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        reason = f"{text!r} is no host port: a number, or FIRST-LAST, up to 65535"
        findings.add("port.invalid", f"{where}.HostPort", reason, "publish each port by itself")
        return None
    return PortRequest(container[0], container[1], int(text), read.text("HostIp"), path=where)


def check_extra_hosts(host: Values, findings: FindingCollector) -> None:
    """Check further entries of /etc/hosts, each ``NAME:ADDRESS`` or ``NAME:host-gateway``."""
    entries = host.texts("ExtraHosts")
    if len(entries) > EXTRA_HOSTS_MAX:
        reason = f"{len(entries)} entries: at most {EXTRA_HOSTS_MAX}"
        findings.add("network.hosts", "HostConfig.ExtraHosts", reason, "leave some out")
    for index, entry in enumerate(entries):
        name, _, address = entry.partition(":")
        if not is_host_name(name) or not (address == fields.HOST_GATEWAY or is_address(address)):
            reason = f"{quote(entry)} is not NAME:ADDRESS or NAME:{fields.HOST_GATEWAY}"
            remedy = "write the name, a colon and an IP address"
            findings.add("network.hosts", f"HostConfig.ExtraHosts[{index}]", reason, remedy)


def is_address(text: str) -> bool:
    """Return True if *text* is an IP address without a zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # any text can follow a %


def check_groups(host: Values, findings: FindingCollector) -> None:
    """Check further groups, by name or number."""
    for index, group in enumerate(host.texts("GroupAdd")):
        if not fields.GROUP.fullmatch(group):
            where = f"HostConfig.GroupAdd[{index}]"
            reason = f"{quote(group)} is not a group"
            findings.add("user.groups", where, reason, "write a name or a number")


def check_cpuset(host: Values, path: str, findings: FindingCollector) -> None:
    """Check a set of CPUs, such as ``0-2,4``."""
    text = host.text("CpusetCpus")
    if text and not fields.CPUSET.fullmatch(text):
        reason = f"{quote(text)} is not a set of CPUs"
        findings.add("resources.cpuset", f"{path}CpusetCpus", reason, "write it as in 0-2,4")


def check_dns(host: Values, findings: FindingCollector) -> None:
    """Check the servers, search domains and options of resolv.conf."""
    for field, is_valid, form in (
        ("Dns", is_address, "an IP address"),
        ("DnsSearch", _is_search_domain, "a domain name, or '.' for none"),
        ("DnsOptions", fields.DNS_OPTION.fullmatch, "an option, such as ndots:2"),
    ):
        entries, where = host.texts(field), f"HostConfig.{field}"
        if len(entries) > DNS_MAX:
            findings.add("network.dns", where, f"{len(entries)} entries: at most {DNS_MAX}")
        for index, entry in enumerate(entries):
            if not is_valid(entry):
                reason = f"{quote(entry)} is not {form}"
                findings.add("network.dns", f"{where}[{index}]", reason, f"write {form}")


def _is_search_domain(text: str) -> bool:
    return text == "." or is_host_name(text)


def healthcheck(config: Values, findings: FindingCollector) -> HealthcheckRequest | None:
    """Return the health check; None for the image's own."""
    if "Healthcheck" not in config.values:
        return None
    read = read_object(
        field_tables.HEALTHCHECK, config.values["Healthcheck"], "Healthcheck", findings
    )
    test = read.texts("Test")
    if test and (test[0] not in HEALTHCHECK_KINDS or not _has_arguments(test)):
        reason = "it starts with CMD and a command, CMD-SHELL and one line, or is NONE"
        findings.add("healthcheck.invalid", "Healthcheck.Test", reason, 'write ["CMD", "/check"]')
    return HealthcheckRequest(**read.attributes(field_tables.HEALTHCHECK))


def _has_arguments(test: tuple[str, ...]) -> bool:
    match test[0]:
        case "NONE":
            return len(test) == 1
        case "CMD-SHELL":
            return len(test) == 2 and bool(test[1])
        case _:
            return len(test) > 1 and bool(test[1])


def ulimits(host: Values, findings: FindingCollector) -> tuple[Ulimit, ...]:
    """Return the ulimits."""
    items = (
        read_object(field_tables.ULIMIT, item, f"HostConfig.Ulimits[{index}]", findings)
        for index, item in enumerate(host.items("Ulimits"))
    )
    return tuple(Ulimit(**read.attributes(field_tables.ULIMIT)) for read in items)


def endpoints(
    networking: Values, path: str, findings: FindingCollector
) -> tuple[EndpointRequest, ...]:
    """Return the networks to join, as the client named them."""
    requests = (
        endpoint(name, config, f"{path}.{name}", findings)
        for name, config in networking.members("EndpointsConfig").items()
    )
    return tuple(item for item in requests if item is not None)


def endpoint(
    network: str, config: object, path: str, findings: FindingCollector
) -> EndpointRequest | None:
    """Return one network to join. Null equals a network without settings."""
    read = read_object(field_tables.ENDPOINT, config, path, findings)
    aliases = read.texts("Aliases")
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            findings.add("network.alias", f"{path}.Aliases", f"{alias!r} is no name for a host")
    ipam = read_object(
        field_tables.ENDPOINT_IPAM, read.values.get("IPAMConfig"), f"{path}.IPAMConfig", findings
    )
    return EndpointRequest(network, aliases, asked=ipam.text("IPv4Address"))


DEVICES_MAX = 64
#: The driver of device requests with CDI names.
CDI_DRIVER = "cdi"
_PERMISSIONS = re.compile(r"r?w?m?", re.ASCII)
#: Devices and folders that the runtime makes in every container.
_RUNTIME = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm")
_RUNTIME_PATHS = frozenset(
    [*(f"/dev/{name}" for name in _RUNTIME), "/dev/mqueue", "/dev/fd", "/dev/core"]
)


def devices(host: Values, findings: FindingCollector) -> tuple[DeviceRequest, ...]:
    """Return the devices: the paths first, then the CDI names."""
    found = [
        *(_by_path(item, index, findings) for index, item in enumerate(host.items("Devices"))),
        *(
            device
            for index, item in enumerate(host.items("DeviceRequests"))
            for device in _by_name(item, index, findings)
        ),
    ]
    result = tuple(device for device in found if device is not None)
    if len(result) > DEVICES_MAX:
        reason = f"{len(result)} devices: at most {DEVICES_MAX}"
        findings.add("devices", "HostConfig.Devices", reason, "ask for fewer")
    targets: set[str] = set()
    for device in result:
        if device.target in targets:
            findings.add("devices", device.path, f"{device.target} is asked for twice")
        targets.add(device.target)
    return result


def _by_path(item: object, index: int, findings: FindingCollector) -> DeviceRequest | None:
    path = f"HostConfig.Devices[{index}]"
    read = read_object(DEVICE, item, path, findings)
    source = read.text("PathOnHost")
    target = read.text("PathInContainer") or source
    permissions = read.text("CgroupPermissions") or "rwm"
    for name, text in (("PathOnHost", source), ("PathInContainer", target)):
        if not is_device_path(text):
            reason = f"{quote(text)} is not a path of a device below /dev"
            findings.add("devices", f"{path}.{name}", reason, "name a device, such as /dev/fuse")
            return None
    if target in _RUNTIME_PATHS or target.startswith("/dev/pts/"):
        reason = f"{target} is the runtime's own in every container"
        findings.add("devices", f"{path}.PathInContainer", reason, "choose another name")
    if not _PERMISSIONS.fullmatch(permissions):
        reason = f"{quote(permissions)}: some of r, w and m, in that order"
        findings.add("devices", f"{path}.CgroupPermissions", reason, "write rw")
    return DeviceRequest(source, target, permissions, path=path)


def _by_name(item: object, index: int, findings: FindingCollector) -> list[DeviceRequest]:
    path = f"HostConfig.DeviceRequests[{index}]"
    read = read_object(DEVICE_REQUEST, item, path, findings)
    if read.text("Driver") != CDI_DRIVER:
        reason = "devices are asked for by their CDI names, with the driver cdi"
        remedy = "write VENDOR/CLASS=NAME, such as --device nvidia.com/gpu=0 instead of --gpus"
        findings.add("device.driver", f"{path}.Driver", reason, remedy)
        return []
    names = read.texts("DeviceIDs")
    if not names:
        findings.add("devices", f"{path}.DeviceIDs", "no device is named", "name one")
    for name in names:
        if not is_cdi_name(name):
            reason = f"{quote(name)} is not a CDI name: VENDOR/CLASS=NAME"
            findings.add("devices", f"{path}.DeviceIDs", reason, "such as nvidia.com/gpu=0")
    return [
        DeviceRequest(name, name, cdi=True, path=f"{path}.DeviceIDs")
        for name in names
        if is_cdi_name(name)
    ]
