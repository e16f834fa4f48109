"""Closed schemas of the Engine API's bodies: from parsed JSON to typed requests.

The input was parsed strictly (``core.encoding.json_values``: no duplicate keys, no floats, no
invalid Unicode). The output has only fields of ``core.engine_api.field_tables``. Every other key is
a finding, so one verdict reports all faults. The grammar is checked here, the policy elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from controller.core.engine_api import field_tables, grammar, requests
from controller.core.engine_api.field_reader import FindingCollector, Values, read_object
from controller.core.engine_api.grammar import devices
from controller.core.engine_api.mount_grammar import mounts
from controller.core.engine_api.requests import VOLUME_SIZE, read_remote

STOP_TIMEOUT_MAX_S = 300
CONSOLE_MAX = 10_000
#: The container that docker buildx makes for a build, before anything says "build".
_BUILDX = re.compile(r"(?:docker\.io/)?moby/buildkit(?:[:@].*)?", re.ASCII)
_BUILDX_REMEDY = (
    "build with DOCKER_BUILDKIT=0 where the policy grants builds, or build elsewhere and pull the"
    " image: the builder of docker buildx has all rights over the host"
)
DETACH_KEYS = re.compile(r"[a-zA-Z0-9@\[\],^_\\-]{1,64}", re.ASCII)


def parse_create(body: object) -> requests.CreateRequest:
    """Return a create request; its ``findings`` are the faults."""
    findings = FindingCollector()
    config = read_object(field_tables.CONFIG, body, "", findings, legacy=field_tables.LEGACY_NAMES)
    if body is None:
        findings.add("body.missing", "body", "a create needs a body")
    host = read_object(
        field_tables.HOST_CONFIG, config.values.get("HostConfig"), "HostConfig", findings
    )
    networking = read_object(
        field_tables.NETWORKING_CONFIG,
        config.values.get("NetworkingConfig"),
        "NetworkingConfig",
        findings,
    )
    # The order of the checks is the order of the findings, and the first finding leads a refusal.
    grammar.check_host_name(config, "Hostname", findings, most=63)
    grammar.check_host_name(config, "Domainname", findings, most=253)
    grammar.check_user(config, findings)
    exposed = grammar.exposed_ports(config, findings)
    grammar.check_environment(config, findings)
    variables = grammar.secret_variables(config, findings)
    requested_hooks = grammar.hooks(config.values.get("TrimtabHooks"), "TrimtabHooks", findings)
    shares = read_object(
        field_tables.SHARES, config.values.get("TrimtabShares"), "TrimtabShares", findings
    )
    health, volumes = grammar.healthcheck(config, findings), grammar.volume_paths(config, findings)
    grammar.check_working_dir(config, findings)
    grammar.check_signal(config, findings)
    _check_stop_timeout(config, findings)
    restart = _restart(host, "HostConfig.RestartPolicy", findings)
    log, ports = _log(host, findings), grammar.port_bindings(host, findings)
    grammar.check_extra_hosts(host, findings)
    grammar.check_dns(host, findings)
    all_mounts = mounts(host, findings)
    grammar.check_groups(host, findings)
    runtime = _runtime(config, host, findings)
    grammar.check_cpuset(host, "HostConfig.", findings)
    return requests.CreateRequest(
        **config.attributes(field_tables.CONFIG),
        **host.attributes(field_tables.HOST),
        exposed_ports=exposed,
        variables=variables,
        hooks=requested_hooks,
        shares=requests.SharesRequest(**shares.attributes(field_tables.SHARES)),
        healthcheck=health,
        volumes=volumes,
        labels=grammar.labels(config),
        limits=_limits(host),
        restart=restart,
        log=log,
        ports=ports,
        mounts=all_mounts,
        runtime=runtime,
        storage=tuple(sorted((k, str(v)) for k, v in host.members("StorageOpt").items())),
        console_size=_console_size(host, "HostConfig.ConsoleSize", findings),
        ulimits=grammar.ulimits(host, findings),
        sysctls=tuple(sorted((k, str(v)) for k, v in host.members("Sysctls").items())),
        devices=devices(host, findings),
        endpoints=grammar.endpoints(networking, "NetworkingConfig.EndpointsConfig", findings),
        findings=_with_remedies(findings.all(), config.text("Image")),
    )


def _with_remedies(
    findings: tuple[requests.Finding, ...], image: str
) -> tuple[requests.Finding, ...]:
    if _BUILDX.fullmatch(image) is None:
        return findings
    return tuple(
        replace(each, remedy=_BUILDX_REMEDY) if each.rule == "privileged" else each
        for each in findings
    )


def parse_config(config: object) -> requests.CreateRequest:
    """Return what containers inherit of an image's config, as a request for it."""
    findings = FindingCollector()
    values = read_object(field_tables.INHERITED, config, "", findings)
    grammar.check_user(values, findings)
    exposed = grammar.exposed_ports(values, findings)
    grammar.check_environment(values, findings)
    health, volumes = grammar.healthcheck(values, findings), grammar.volume_paths(values, findings)
    grammar.check_working_dir(values, findings)
    grammar.check_signal(values, findings)
    return requests.CreateRequest(
        **values.attributes(field_tables.INHERITED),
        exposed_ports=exposed,
        healthcheck=health,
        volumes=volumes,
        labels=grammar.labels(values),
        findings=findings.all(),
    )


def parse_update(body: object) -> requests.UpdateRequest:
    """Return an update request."""
    findings = FindingCollector()
    values = read_object(field_tables.UPDATE, body, "", findings)
    if body is None:
        findings.add("body.missing", "body", "an update needs a body")
    grammar.check_cpuset(values, "", findings)
    return requests.UpdateRequest(
        limits=_limits(values),
        restart=_restart(values, "RestartPolicy", findings),
        findings=findings.all(),
    )


def parse_network(body: object) -> requests.NetworkRequest:
    """Return the request of a network create."""
    findings = FindingCollector()
    values = read_object(field_tables.NETWORK, body, "", findings)
    ipam = read_object(field_tables.IPAM, values.values.get("IPAM"), "IPAM", findings)
    if ipam.text("Driver") not in {"", "default"}:
        findings.add("network.options", "IPAM.Driver", "only the engine's default", "leave it out")
    if values.text("Scope") not in {"", "local"}:
        findings.add("network.kind", "Scope", "only local networks", "leave it out")
    if values.values.get("EnableIPv4") is False:
        findings.add("network.options", "EnableIPv4", "networks here have IPv4", "leave it out")
    options = {key: str(value) for key, value in values.members("Options").items()}
    is_macvlan = values.text("Driver") == requests.MACVLAN
    return requests.NetworkRequest(
        **values.attributes(field_tables.NETWORK),
        masquerade=_switch(options, requests.MASQUERADE, findings),
        icc=_switch(options, requests.ICC, findings),
        pools=tuple(_pools(ipam, findings)),
        parent=options.get(requests.PARENT, "") if is_macvlan else "",
        options=tuple(
            sorted(
                set(options)
                - {requests.MASQUERADE, requests.ICC, *((requests.PARENT,) if is_macvlan else ())}
            )
        ),
        labels=grammar.labels(values),
        findings=findings.all(),
    )


def _pools(ipam: Values, findings: FindingCollector) -> Iterator[requests.Pool]:
    for index, item in enumerate(ipam.items("Config")):
        read = read_object(field_tables.IPAM_CONFIG, item, f"IPAM.Config[{index}]", findings)
        if read.values:
            yield requests.Pool(**read.attributes(field_tables.IPAM_CONFIG))


def parse_volume(body: object) -> requests.VolumeRequest:
    """Return the request of a volume create."""
    findings = FindingCollector()
    values = read_object(field_tables.VOLUME, body, "", findings)
    options = {name: str(value) for name, value in values.members("DriverOpts").items()}
    remote = read_remote(options) if options.keys() - {VOLUME_SIZE} else None
    if isinstance(remote, str):
        findings.add("volume.options", "DriverOpts", remote, "leave out DriverOpts, except size")
    return requests.VolumeRequest(
        **values.attributes(field_tables.VOLUME),
        size=options.get(VOLUME_SIZE, ""),
        remote=None if isinstance(remote, str) else remote,
        labels=grammar.labels(values),
        findings=findings.all(),
    )


def parse_connect(body: object, *, network: str) -> requests.ConnectRequest:
    """Return the request of a network connect; *network* is from the path."""
    findings = FindingCollector()
    values = read_object(field_tables.CONNECT, body, "", findings)
    config = values.values.get("EndpointConfig")
    return requests.ConnectRequest(
        **values.attributes(field_tables.CONNECT),
        endpoint=grammar.endpoint(network, config, "EndpointConfig", findings)
        or requests.EndpointRequest(network),
        findings=findings.all(),
    )


def parse_disconnect(body: object, *, network: str) -> requests.ConnectRequest:
    """Return the request of a network disconnect."""
    findings = FindingCollector()
    values = read_object(field_tables.DISCONNECT, body, "", findings)
    return requests.ConnectRequest(
        **values.attributes(field_tables.DISCONNECT),
        endpoint=requests.EndpointRequest(network),
        findings=findings.all(),
    )


def parse_exec(body: object) -> requests.ExecRequest:
    """Return the request of an exec create."""
    findings = FindingCollector()
    values = read_object(field_tables.EXEC, body, "", findings)
    keys = values.text("DetachKeys")
    if keys and not DETACH_KEYS.fullmatch(keys):
        findings.add("body.type", "DetachKeys", "expected a sequence such as ctrl-p,ctrl-q")
    grammar.check_user(values, findings)
    grammar.check_environment(values, findings)
    grammar.check_working_dir(values, findings)
    return requests.ExecRequest(
        **values.attributes(field_tables.EXEC),
        console_size=_console_size(values, "ConsoleSize", findings),
        findings=findings.all(),
    )


def parse_exec_start(body: object) -> requests.ExecStart:
    """Return the request of an exec start."""
    findings = FindingCollector()
    values = read_object(field_tables.EXEC_START, body, "", findings)
    return requests.ExecStart(
        **values.attributes(field_tables.EXEC_START),
        console_size=_console_size(values, "ConsoleSize", findings),
        findings=findings.all(),
    )


def _runtime(config: Values, host: Values, findings: FindingCollector) -> str:
    """Return the runtime, from either of its two places in requests of clients."""
    beside, runtime = config.text("Runtime"), host.text("Runtime")
    if beside and runtime and beside != runtime:
        reason = f"{beside!r} here and {runtime!r} in HostConfig"
        findings.add("body.legacy", "Runtime", reason, "name the runtime in HostConfig.Runtime")
    return runtime or beside


def _limits(values: Values) -> requests.ResourceLimits:
    limits = requests.ResourceLimits(**values.attributes(field_tables.RESOURCES))
    return replace(limits, memory_swappiness=None) if limits.memory_swappiness == -1 else limits


def _restart(values: Values, path: str, findings: FindingCollector) -> requests.RestartRequest:
    read = read_object(
        field_tables.RESTART_POLICY, values.values.get("RestartPolicy"), path, findings
    )
    return requests.RestartRequest(**read.attributes(field_tables.RESTART_POLICY))


def _log(host: Values, findings: FindingCollector) -> requests.LogConfig:
    read = read_object(
        field_tables.LOG_CONFIG, host.values.get("LogConfig"), "HostConfig.LogConfig", findings
    )
    options = ((key, str(value)) for key, value in read.members("Config").items())
    return requests.LogConfig(read.text("Type"), tuple(sorted(options)))


def _check_stop_timeout(config: Values, findings: FindingCollector) -> None:
    seconds = config.whole("StopTimeout")
    if seconds is not None and not 0 <= seconds <= STOP_TIMEOUT_MAX_S:
        findings.add(
            "stop.timeout",
            "StopTimeout",
            f"{seconds} s to stop: it may take 0 to {STOP_TIMEOUT_MAX_S}",
            "ask for less",
        )


def _console_size(values: Values, path: str, findings: FindingCollector) -> tuple[int, int]:
    size = values.items("ConsoleSize")
    if not size:
        return (0, 0)
    numbers = tuple(number for number in size if isinstance(number, int))
    if len(numbers) != 2 or not all(0 <= number <= CONSOLE_MAX for number in numbers):
        findings.add("body.type", path, "expected height and width")
        return (0, 0)
    return (numbers[0], numbers[1])


def _switch(options: dict[str, str], name: str, findings: FindingCollector) -> bool | None:
    value = options.get(name)
    if value not in {None, "true", "false"}:
        findings.add("body.type", f"Options.{name}", "expected true or false, as text")
    return None if value is None else value == "true"
