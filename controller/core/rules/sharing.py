"""Rules about the namespaces of another container: a service may share those of another service.

No request names the container. The gate finds it: of the named service, of the same slot,
namespace and owner, in the inventory, and running. So a controller cannot join a container of its
own choice, and ``container:ID`` stays refused for every caller.
"""

from __future__ import annotations

from controller.core.encoding.quoting import quote
from controller.core.engine_api.requests import CreateRequest, Finding, Findings, Grant
from controller.core.rules.context import Case, Placement, exceptions_at
from controller.model import names

_PATH = "TrimtabShares"
#: The member of the body for each namespace, as the policy lists them.
_MEMBERS = {"network": "Network", "ipc": "Ipc", "pid": "Pid"}


def shares_allowed(case: Case) -> Findings:
    """The policy allows the namespaces, and the request names another service."""
    asked = case.request.shares
    if not asked.is_asked:
        return
    if not case.by_controller:
        reason = "only documents share namespaces"
        yield Finding("namespace.client", _PATH, reason, "write spec.shares in a document")
        return
    if asked.host:
        return  # ``observers_confined``
    for name in asked.names:
        if name not in case.policy.security.shared_namespaces:
            reason = f"the policy admits no services that share the namespace {name}"
            remedy = "leave it out: each container has its own"
            where, permit = (
                f"{_PATH}.{_MEMBERS[name]}",
                Grant("add", "security.sharedNamespaces", name),
            )
            yield Finding("namespace.shared", where, reason, remedy, permit=permit)
    if not names.is_dns_label(asked.service, length=names.SERVICE_NAME_MAX):
        reason = f"{quote(asked.service)} is no name of a service"
        yield Finding("namespace.service", f"{_PATH}.Service", reason, "name a Service")
    elif asked.service == case.service:
        reason = "a container can't share its own namespaces"
        yield Finding("namespace.service", f"{_PATH}.Service", reason, "name another Service")
    elif not asked.names:
        reason = "no namespace is named"
        yield Finding("namespace.service", _PATH, reason, "name one of network, ipc and pid")
    if names.run_of_slot(case.request.label(names.SLOT)):
        reason = "a run of a job has no slot that another service has, too"
        yield Finding("namespace.service", _PATH, reason, "leave it out of a Job")
    yield from _own_settings(case.request)
    yield from _borrowed(case)
    yield from _target(case)


def observers_confined(case: Case) -> Findings:
    """An observer of the host has an exception, its own uid, and no way to change anything."""
    request, uid = case.request, case.observer
    if not request.observes or (uid is None and not request.shares.host):
        return  # without the exception, ``/`` is a mount that no policy admits
    if uid is None or not case.by_controller:
        reason = (
            "the host's network, processes or files are for a service with an exception as observer"
        )
        remedy = (
            "leave it out, or write an exception with loosens: {observer: UID} (docs/policy.md)"
        )
        yield Finding("observer", _PATH, reason, remedy)
        return
    binds = [mount for mount in request.mounts if mount.type == "bind"]
    for path, is_wrong, reason, remedy in (
        ("User", request.user != f"{uid}:{uid}", f"it runs as another user than {uid}:{uid}",
         f'write user: "{uid}:{uid}"'),
        ("HostConfig.CapAdd", bool(request.cap_add), "it has capabilities", "leave them out"),
        ("HostConfig.GroupAdd", bool(request.groups), "it has further groups", "leave them out"),
        ("HostConfig.Devices", bool(request.devices), "it has devices", "leave them out"),
        ("HostConfig.ReadonlyRootfs", not request.read_only_root, "its root filesystem is writable",
         "write security: {readOnlyRootFilesystem: true}"),
        ("HostConfig.Mounts", any(not mount.read_only for mount in binds),
         "it has a writable folder of the host", "write readOnly: true"),
        ("TrimtabHooks", bool(request.hooks.all), "it has hooks", "leave them out"),
        (_PATH, request.shares.ipc or request.shares.service != "",
         "it shares more than the host's network and processes", "leave it out"),
    ):  # fmt: skip
        if is_wrong:
            yield Finding("observer", path, f"an observer changes nothing, and {reason}", remedy)
    if case.facts is not None and case.facts.uid_user:
        reason = f"the uid {uid} of the observer is also that of {case.facts.uid_user}"
        remedy = "write a uid that nobody has into the exception, and into the document"
        yield Finding("observer", "User", reason, remedy)
    if request.shares.host:
        yield from _own_settings(request)


def _own_settings(request: CreateRequest) -> Findings:
    """Yield the settings of a namespace that the container doesn't have."""
    asked = request.shares
    whose = asked.service or "the host"
    of_network = {
        "Hostname": request.hostname,
        "Domainname": request.domainname,
        "ExposedPorts": request.exposed_ports,
        "NetworkDisabled": request.network_disabled,
        "HostConfig.NetworkMode": request.network_mode,
        "HostConfig.PortBindings": request.ports,
        "HostConfig.ExtraHosts": request.extra_hosts,
        "HostConfig.Dns": request.dns_servers,
        "HostConfig.DnsSearch": request.dns_search,
        "HostConfig.DnsOptions": request.dns_options,
        "HostConfig.Sysctls": [name for name, _ in request.sysctls if name.startswith("net.")],
        "NetworkingConfig.EndpointsConfig": request.endpoints,
    }
    of_ipc = {
        "HostConfig.IpcMode": request.ipc_mode,
        "HostConfig.ShmSize": request.shm_size,
        "HostConfig.Sysctls": [n for n, _ in request.sysctls if not n.startswith("net.")],
    }
    for shared, settings, word in (
        (asked.network, of_network, "network"),
        (asked.ipc, of_ipc, "ipc"),
    ):
        for path, value in settings.items():
            if shared and value:
                reason = f"it belongs to the namespace {word}, which is that of {whose}"
                yield Finding("namespace.own", path, reason, f"write it for {whose}")


def _borrowed(case: Case) -> Findings:
    """Yield the exceptions of the policy whose rights the namespaces would bring along.

    An exception is for one service with images of one repository: no other image gets the networks and
    ports of an exception by a shared network, nor the mounts by /proc/PID/root. An expired exception
    counts, because containers from before the expiry still have the rights.
    """
    asked, policy = case.request.shares, case.policy
    place, networks = Placement(case.owner, case.namespace, asked.service), policy.networks
    for exemption in exceptions_at(policy, place, role=case.actor.role):
        grant, own_ports = exemption.loosens, networks.ports
        if grant.observer is not None:
            reason = f"{asked.service} is an observer of the host, and shares nothing"
            yield Finding("namespace.service", f"{_PATH}.Service", reason, "leave it out")
        for name, rights, own, is_shared in (
            ("modes", grant.modes, networks.modes, asked.network),
            ("networks", grant.networks, networks.granted, asked.network),
            ("hostPorts", grant.host_ports, own_ports.granted, asked.network),
            ("hostIPs", grant.host_ips, own_ports.host_ips, asked.network),
            ("mounts", grant.mounts, policy.mounts.allowed, asked.pid),
        ):
            if is_shared and not {*rights} <= {*own}:
                reason = f"{asked.service} has an exception of the policy ({name}), and this service has not"
                remedy = "grant this service the same in an exception of its own"
                yield Finding("namespace.service", f"{_PATH}.Service", reason, remedy)


def _target(case: Case) -> Findings:
    target = case.facts.shared if case.facts else None
    if target is None:
        return
    asked = case.request.shares
    if target.joined:
        reason = f"{asked.service} shares the namespaces of another service itself"
        remedy = "share those of that service"
        yield Finding("namespace.service", f"{_PATH}.Service", reason, remedy)
    if asked.ipc and not target.shareable:
        reason = f"the containers of {asked.service} keep their IPC to themselves"
        remedy = f"write ipc: shareable for {asked.service}"
        yield Finding("namespace.service", f"{_PATH}.Ipc", reason, remedy)
