"""Requests of clients to the engine, as typed values: the results of ``core.engine_api.parse``.

Only these fields of a body are kept. A field with a wrong type, an unknown field and a forbidden
field are each a ``Finding`` and count as unset.

The engine mounts them as root. Every other option of the driver can make a volume any path of the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from controller.model.delivery import Variant
from controller.model.observed import EngineLimits

if TYPE_CHECKING:
    # The journal is read without documents.
    from controller.model.desired.spec.mounts import RemoteFolder
import re

#: The driver's option for the largest size of a volume.
VOLUME_SIZE = "size"
_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]{0,254}){1,32}|/", re.ASCII)
_NUMBER, _ID = "[0-9]{1,7}", "[0-9]{1,10}"
_COMMON = dict.fromkeys(("ro", "rw", "soft", "hard", "noatime", "nodiratime", "noexec"), "")
#: The options of each type, with the form of the value; '' for none. All else is refused.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "nfs": _COMMON
    | dict.fromkeys(("nolock", "lock", "noac", "ac", "softerr", "intr", "nointr", "noresvport"), "")
    | dict.fromkeys(("timeo", "retrans", "rsize", "wsize", "actimeo", "port", "mountport"), _NUMBER)
    | {"vers": r"3|4|4\.[0-2]", "nfsvers": r"3|4|4\.[0-2]", "proto": "tcp|udp"}
    | {"nconnect": "[1-9]|1[0-6]"},
    "cifs": _COMMON
    | dict.fromkeys(("guest", "nobrl", "noperm", "serverino", "noserverino", "mfsymlinks"), "")
    | {"vers": r"2\.[01]|3|3\.0|3\.02|3\.1\.1", "uid": _ID, "gid": _ID, "iocharset": "utf8"}
    | {"file_mode": "0?[0-7]{3}", "dir_mode": "0?[0-7]{3}", "cache": "strict|none|loose"}
    | {"username": "guest", "password": "", "sec": "none|ntlmssp"},
}
#: Set on each remote volume, so that the other machine's files give no rights here.
_FORCED = ("nosuid", "nodev")
_KEPT_IN_THE_OPEN = (
    "a password among the options: the engine shows it in every inspect. Mount the share on the host, with its "
    "credentials in a file of root's, and mount that folder"
)


@dataclass(frozen=True, slots=True)
class RemoteVolume:
    """A folder of another machine."""

    type: str  # nfs or cifs
    server: str
    path: str
    #: In the order of their names, without those that the gate sets.
    options: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The source of the mount, as the kernel shows it."""
        return (
            f"//{self.server}{self.path}" if self.type == "cifs" else f"{self.server}:{self.path}"
        )

    @property
    def driver_options(self) -> dict[str, str]:
        """The options of the engine's driver."""
        options = ",".join((f"addr={self.server}", *_FORCED, *self.options))
        return {"type": self.type, "o": options, "device": self.device}


def remote_of(folder: RemoteFolder | None) -> RemoteVolume | None:
    """Return the remote volume of a document, in the gate's form if it has one."""
    if folder is None:
        return None
    written = RemoteVolume(folder.type, folder.server, folder.path, tuple(folder.options))
    found = read_remote(written.driver_options)
    return found if isinstance(found, RemoteVolume) else written


def read_remote(driver_options: Mapping[str, str]) -> RemoteVolume | str:
    """Return the remote volume of the driver's options, or why they are none, without any value."""
    options = {name: value for name, value in driver_options.items() if name != VOLUME_SIZE}
    kind = {"nfs": "nfs", "nfs4": "nfs", "cifs": "cifs"}.get(options.get("type", ""), "")
    if not kind or not options.keys() <= {"type", "o", "device"} or VOLUME_SIZE in driver_options:
        return "a local volume with options other than size can mount anything of the host"
    named = [part.partition("=") for part in options.get("o", "").split(",") if part]
    servers = {value for name, _, value in named if name in {"addr", "ip"}}
    server, path = _split(kind, options.get("device", ""))
    servers |= {server} if server else set()
    rest = [(name, value) for name, _, value in named if name not in {"addr", "ip", *_FORCED}]
    if options.get("type") == "nfs4" and not any(name in {"vers", "nfsvers"} for name, _ in rest):
        rest.append(("vers", "4"))
    if any(name in {"password", "pass", "credentials", "cred"} and value for name, value in rest):
        return _KEPT_IN_THE_OPEN
    if len(servers) != 1 or not _SERVER.fullmatch(next(iter(servers))) or not _PATH.fullmatch(path):
        return "device and addr name no single server, or no plain path there"
    for name, value in rest:
        form = _OPTIONS[kind].get(name)
        if form is None or not re.fullmatch(form, value, re.ASCII):
            known = ", ".join(sorted(_OPTIONS[kind]))
            return f"an option of the mount that isn't admitted, or its value; admitted are {known}"
    if len({name for name, _ in rest}) < len(rest):
        return "an option of the mount is named twice"
    texts = sorted(
        f"{name}={value}" if value or name == "password" else name for name, value in rest
    )
    return RemoteVolume(kind, servers.pop(), path, tuple(texts))


def _split(kind: str, device: str) -> tuple[str, str]:
    """Return the server, '' for none, and the path of a device."""
    if kind == "cifs":
        server, slash, path = device.removeprefix("//").partition("/")
        return (server, slash + path) if device.startswith("//") else ("", "")
    server, _, path = device.partition(":")
    return server, path


#: Options of a bridge network: masquerading, and traffic between its containers.
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
ICC = "com.docker.network.bridge.enable_icc"

#: A driver whose networks are on an interface of the host, which the option *parent* names.
MACVLAN = "macvlan"
PARENT = "parent"

#: The JSON body of an Engine API request, or an object within one.
RequestBody = dict[str, Any]


#: A value of the policy, as its JSON has it.
GrantValue = str | int | bool | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Grant:
    """A change of the policy: *value* is added to the list at *key*, removed from it, or set."""

    how: Literal["add", "remove", "set"]
    key: str  # dotted, such as ``images.allow``
    value: GrantValue


def new_bound(key: str, value: GrantValue, *, is_beyond: bool) -> Grant | None:
    """Return the change of a bound of the policy; None unless the request only exceeds that bound."""
    return Grant("set", key, value) if is_beyond else None


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason to refuse part of a request: the rule, the place, the reason and the remedy."""

    rule: str
    path: str
    reason: str
    remedy: str = ""
    #: Only the policy's own bound is exceeded. A mode of the rule (``model.policy.sections``) can admit the
    #: request, and the body can be built with the requested value.
    tolerable: bool = False
    #: The change of the policy that would permit the value, if there is one.
    permit: Grant | None = field(default=None, hash=False)
    #: The same in words (``core.policy.grants``); '' for none, or for a policy without a file.
    grant: str = ""

    @property
    def advice(self) -> str:
        """The remedy, and the line of the policy that would permit the value."""
        return "; or ".join(part for part in (self.remedy, self.grant) if part)


#: The findings of one rule.
Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A published port."""

    container: int
    protocol: str
    host: int = 0  # 0: the engine chooses
    host_ip: str = ""  # '' if unset
    #: If set, the engine chooses a free port from ``host`` to ``last``.
    last: int = 0
    #: The place in the body, for messages.
    path: str = field(default="", compare=False)

    @property
    def host_text(self) -> str:
        """The host port in the notation of the Engine API; '' if the engine chooses."""
        return f"{self.host}-{self.last}" if self.last else str(self.host or "")


@dataclass(frozen=True, slots=True)
class FileRequest:
    """The files of a mount of type config or secret."""

    content: str = ""  # the id of the content
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    keys: tuple[str, ...] = ()  # () for all
    key: str = ""  # the one file to mount; '' for a folder
    stable: bool = False  # the mounted folder stays when the content changes
    #: The variant's id, if the container is there already and only its path is known.
    known_variant: str = ""

    @property
    def variant(self) -> Variant:
        """How the files appear in the container."""
        return Variant(self.uid, self.gid, self.mode, self.keys)


@dataclass(frozen=True, slots=True)
class MountRequest:
    """A mount, from one of the three places of the API."""

    type: str  # bind, volume, tmpfs; config or secret from the controller
    source: str = ""
    target: str = ""
    read_only: bool = False
    #: The place in the API, kept in the rebuilt body: ``binds`` (HostConfig.Binds), ``mounts``
    #: (HostConfig.Mounts) or ``tmpfs`` (HostConfig.Tmpfs).
    form: str = "mounts"
    path: str = ""  # the place in the body, for messages
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""  # ``local`` if a volume mount has the driver
    size: int = 0  # 0 if unset
    mode: int | None = None
    executable: bool = False  # a tmpfs with executable files
    access: str = ""  # ``ro`` or ``rw`` if HostConfig.Binds has the option
    propagation: str = ""
    files: FileRequest | None = None  # of a mount of type config or secret


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """A network to join, by the name in the request, with aliases."""

    network: str
    aliases: tuple[str, ...] = ()
    #: The address that the gate chose: that of the container's slot, or the one that was asked for.
    address: str = ""
    #: The address in the request; '' for none.
    asked: str = ""


@dataclass(frozen=True, slots=True)
class HealthcheckRequest:
    """A health check. Durations are in nanoseconds; 0 inherits."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    retries: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of processes."""

    name: str = ""
    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A device of the host: a path, or a name of a CDI specification."""

    source: str
    target: str  # a path in the container; of a CDI name, the name
    permissions: str = ""  # some of r, w and m; '' for a CDI name
    cdi: bool = False
    path: str = field(default="", compare=False)  # the place in the body, for messages


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log driver ('' if unset) and its options."""

    type: str = ""
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """The restart policy of the engine; '' if unset."""

    name: str = ""
    max_retries: int = 0


@dataclass(frozen=True, slots=True)
class ResourceLimits(EngineLimits):
    """Requested limits. Unlimited processes are -1."""

    memory_swappiness: int | None = None


@dataclass(frozen=True, slots=True)
class VariableRequest:
    """A variable with the value of a Secret's file, ``NAME=SECRET/KEY@CONTENT``."""

    name: str
    secret: str
    key: str
    content: str
    #: The place in the body.
    path: str


@dataclass(frozen=True, slots=True)
class HookRequest:
    """A command that the gate runs in the container. ``user`` and ``working_dir`` '' inherit."""

    command: tuple[str, ...] = ()
    user: str = ""
    env: tuple[str, ...] = ()
    working_dir: str = ""
    timeout_ms: int = 0
    #: The place in the body, for messages.
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class HookRequests:
    """The hooks of a container: after a start, and before a stop."""

    post_start: tuple[HookRequest, ...] = ()
    pre_stop: tuple[HookRequest, ...] = ()

    @property
    def all(self) -> tuple[HookRequest, ...]:
        """All hooks, those of the start first."""
        return (*self.post_start, *self.pre_stop)


@dataclass(frozen=True, slots=True)
class SharesRequest:
    """The namespaces of another service's container, of the same slot. The gate finds the container."""

    service: str = ""
    network: bool = False
    ipc: bool = False
    pid: bool = False
    #: The namespaces are the host's: the container is an observer.
    host: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the shared namespaces, as the policy lists them."""
        found = {"network": self.network, "ipc": self.ipc, "pid": self.pid}
        return tuple(name for name, shared in found.items() if shared)

    @property
    def is_asked(self) -> bool:
        """True if the request names a service or a namespace."""
        return self.service != "" or self.names != () or self.host


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """The body of a container create."""

    image: str = ""
    # Config
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    variables: tuple[VariableRequest, ...] = ()
    hooks: HookRequests = HookRequests()
    shares: SharesRequest = SharesRequest()
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    shell: tuple[str, ...] = ()
    healthcheck: HealthcheckRequest | None = None
    volumes: tuple[str, ...] = ()  # Config.Volumes: paths of anonymous volumes
    working_dir: str = ""
    network_disabled: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None
    # HostConfig
    limits: ResourceLimits = ResourceLimits()
    restart: RestartRequest = RestartRequest()
    log: LogConfig = LogConfig()
    network_mode: str = ""
    ports: tuple[PortRequest, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # NAME:ADDRESS
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    cap_add: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()  # in addition to the user's own
    security_opt: tuple[str, ...] = ()
    auto_remove: bool = False
    read_only_root: bool = False
    init: bool | None = None
    ipc_mode: str = ""
    cgroupns_mode: str = ""
    isolation: str = ""
    runtime: str = ""
    oom_score_adj: int = 0
    shm_size: int = 0
    storage: tuple[tuple[str, str], ...] = ()
    console_size: tuple[int, int] = (0, 0)
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    # NetworkingConfig
    endpoints: tuple[EndpointRequest, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def observes(self) -> bool:
        """True if the container has namespaces or all files of the host."""
        return self.shares.host or any(
            mount.type == "bind" and mount.source == "/" for mount in self.mounts
        )

    def label(self, name: str) -> str:
        """Return the value of a label, '' if not requested."""
        return dict(self.labels).get(name, "")


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """The body of a container update."""

    limits: ResourceLimits = ResourceLimits()
    restart: RestartRequest = RestartRequest()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses of a network. The engine chooses ``ip_range`` and ``gateway`` if ''."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """The body of a network create; ``masquerade`` and ``icc`` are bridge options."""

    name: str = ""
    driver: str = ""
    internal: bool = False
    masquerade: bool | None = None
    icc: bool | None = None
    ipv6: bool = False
    pools: tuple[Pool, ...] = ()
    parent: str = ""  # the host's interface of a macvlan network
    options: tuple[str, ...] = ()  # the names of other options, which are all refused
    labels: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """The body of a volume create."""

    name: str = ""
    driver: str = ""
    size: str = ""  # the largest size, in the engine's notation; '' for none
    remote: RemoteVolume | None = None  # a folder of another machine; None for one of the engine's
    labels: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """The body of a network connect (``endpoint``) or disconnect (``force``)."""

    container: str = ""
    endpoint: EndpointRequest = EndpointRequest("")
    force: bool = False
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to run in a container. ``user`` and ``working_dir`` '' inherit."""

    command: tuple[str, ...] = ()
    user: str = ""
    env: tuple[str, ...] = ()
    working_dir: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    detach_keys: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecStart:
    """The start of an exec; ``detach`` returns without waiting."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    findings: tuple[Finding, ...] = ()
