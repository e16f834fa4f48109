"""The sections of a policy, with devices, builds, rule modes and signed sources. Defaults are strict's.

The sections of a policy. The defaults are the values of the policy ``strict``.

Builds of images through the gate: who may build, from what, and within which bounds.

Devices that a policy grants, and the devices that no policy can grant.

Modes of rules: how a policy's bounds are introduced without stopping running containers.

A rule is enforced unless the policy's ``modes`` has another mode for it. In ``warn`` and ``audit``,
a request beyond the bound is admitted unchanged, with all other hardening, and journaled as
``audit-deny``. The client gets a warning in ``warn`` and none in ``audit``. Only rules in
``ROLLABLE`` can have a mode. They bound a share of the host or a habit, never a right over the host
or over others.

The policy's section ``sources``: namespaces with signed admission.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from controller.model.desired.spec.container import OOM_SCORE_ADJ_MIN, is_cdi_name, is_device_path
from controller.model.desired.spec.fields import (
    InterfaceName,
    Model,
    PortNumber,
    SysctlName,
    matching,
    satisfying,
)
from controller.model.names import COMMIT_ID, CONTAINER_NAME_MAX, NetworkNames, is_dns_label
from controller.model.policy import values
from controller.model.policy.values import Namespace, OwnerName


class ContextRules(Model):
    """Bounds of the files that a build gets."""

    bytes: Annotated[values.PolicyBytes, Field(ge=1024, le=8 * 1024**3)] = 256 * 1024**2
    #: Files, folders and links.
    files: Annotated[int, Field(ge=1, le=200_000)] = 20_000


class BuildRules(Model):
    """Builds by the engine's classic builder, which can hold every limit here."""

    #: Owners whose documents may build; None for every owner. Operators may always build.
    owners: tuple[values.OwnerName, ...] | None = None
    #: The network of the commands of a build. ``default`` is the engine's bridge, with the internet.
    network: Literal["none", "default"] = "none"
    #: Memory and CPUs of each command of a build. Swap is not used.
    memory: values.PolicyBytes = 2 * 1024**3
    cpus: values.Cpus = 2 * values.NANO
    #: Processes of a command. The engine can't limit them: the broker counts, and ends the build.
    pids: Annotated[int, Field(ge=1)] = 2048
    #: From the upload of the context to the result.
    time: Annotated[values.PolicyDurationMs, Field(ge=1_000, le=86_400_000)] = 1_800_000
    context: ContextRules = ContextRules.model_construct()
    #: The most bytes of the result with its base, and of what a build writes.
    result: Annotated[values.PolicyBytes, Field(ge=1024**2)] = 8 * 1024**3
    #: The images that a build may start from, beside ``images.allow``; None for all admitted ones.
    base: tuple[values.ImagePrefix, ...] | None = None


#: The folder of the host's devices.
FOLDER = "/dev/"
#: The device of virtual private networks.
TUN = "/dev/net/tun"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
#: Names below /dev that no policy can grant, with the reason. The numbers decide in the end.
_NEVER = (
    (
        "it is the memory, the ports or the log of the host",
        re.compile(r"(?:mem|kmem|port|oldmem|kmsg|nvram)"),
    ),
    (
        "it is a terminal of the host",
        re.compile(
            r"(?:tty(?!(?:ACM|USB|S|AMA)[0-9]{1,3}\Z).*|console|ptmx|pts(?:/.*)?|vcs.*|hvc.*|pty.*)"
        ),
    ),
    (
        "it is a disk of the host, or a way to the blocks of one",
        re.compile(
            r"(?:[shv]d[a-z].*|xvd.*|nvme.*|mmcblk.*|loop.*|dm-.*|md[0-9].*|sr[0-9].*|ram[0-9].*"
            r"|zram.*|nbd.*|drbd.*|bcache.*|rbd.*|fd[0-9].*|sg[0-9].*|pmem.*|cdrom|dvd|raw.*"
            r"|(?:mapper|disk|block|bsg|ng.*)(?:/.*)?)"
        ),
    ),
)
#: Major numbers of serial ports: ttyS, ttyACM, ttyUSB and ttyAMA.
SERIAL = frozenset({4, 166, 188, 204})
#: Numbers of character devices that no policy can grant: the major number, and the minor ones.
#: None stands for all minor numbers (Documentation/admin-guide/devices.txt of Linux).
_NEVER_NUMBERS: tuple[tuple[str, frozenset[int], frozenset[int] | None], ...] = (
    (_NEVER[0][0], frozenset({1}), frozenset({1, 2, 4, 6, 11, 12})),
    (_NEVER[0][0], frozenset({10}), frozenset({144})),
    (
        _NEVER[1][0],
        frozenset({2, 3, 5, 7, *range(128, 144), 205, 229}),
        None,
    ),
    # 64 and above are serial ports (ttyS, ttyAMA): no terminal, unless the kernel has its console there.
    (_NEVER[1][0], frozenset({4, 204}), frozenset(range(64))),
    (_NEVER[2][0], frozenset({21, 162}), None),
)


def why_never(path: str) -> str:
    """Return why no policy can grant a path below /dev; '' for any other path."""
    name = path.removeprefix(FOLDER)
    return next((why for why, names in _NEVER if names.fullmatch(name)), "")


def why_never_number(major: int, minor: int) -> str:
    """Return why no policy can grant the character device with these numbers, or ''."""
    for why, majors, minors in _NEVER_NUMBERS:
        if major in majors and (minors is None or minor in minors):
            return why
    return ""


def _device(text: str) -> str:
    if is_cdi_name(text):
        return text
    if not is_device_path(text):
        raise ValueError("expected a path below /dev, or a CDI name such as nvidia.com/gpu=0")
    if why := why_never(text):
        raise ValueError(f"no policy can grant it: {why}")
    return text


DeviceName = Annotated[str, AfterValidator(_device)]
SpecificationDigest = Annotated[str, matching(_DIGEST, 71, "sha256: and 64 hexadecimal digits")]


class DeviceGrant(Model):
    """Devices for the containers of a listed owner in one of its namespaces."""

    owner: OwnerName
    namespace: Namespace
    #: Paths of character devices, and CDI names.
    devices: Annotated[tuple[DeviceName, ...], Field(min_length=1, max_length=64)]
    #: Digests of CDI specifications that may mount files, run hooks on the host or do more.
    specifications: Annotated[tuple[SpecificationDigest, ...], Field(max_length=64)] = ()
    #: Capabilities for the containers that have one of the devices, and a network of their own.
    cap_add: Annotated[tuple[Literal["NET_ADMIN"], ...], Field(max_length=1)] = ()


class DeviceRules(Model):
    """Devices of the host. All others are refused."""

    grants: Annotated[tuple[DeviceGrant, ...], Field(max_length=256)] = ()

    def of(self, owner: str, namespace: str) -> tuple[DeviceGrant, ...]:
        """Return the grants of an owner in a namespace."""
        return tuple(
            grant for grant in self.grants if (grant.owner, grant.namespace) == (owner, namespace)
        )


Mode = Literal["enforce", "warn", "audit"]

#: Each rule with the excess tolerated in ``warn`` and ``audit``, and why nobody gains a right. Other
#: faults, such as a negative number or contradictory limits, stay denied.
ROLLABLE: dict[str, str] = {
    "auto-remove": "removal at exit; only the container's own evidence goes",
    "env.size": "more variables than the policy's bound; the body is bounded all the same",
    "healthcheck.bounds": "checks more often or longer than the policy's; they run in the container",
    "healthcheck.shell": "a check by the container's own shell, in the container",
    "image.mutable": "a tag instead of a digest; it is still the image that was let in under it",
    "label.size": "more labels than the policy's bound; the body is bounded all the same",
    "log.driver": "the other driver that keeps logs on this host",
    "log.option": "larger or more log files; they still rotate and have a size",
    "mount.tmpfs": "a larger memory filesystem; it is charged to the container's memory",
    "resources.cpus": "more CPUs than the policy's, never more than the host has",
    "resources.memory": "more memory than the policy's; still a limit, and no swap",
    "resources.pids": "more processes than the policy's; still a limit",
    "resources.shm": "more shared memory than the policy's, never more than the memory",
    "resources.ulimits": "a higher value of an ulimit that the policy lists",
    "restart": "another of the engine's restart policies, or more retries",
    "root-filesystem": "a writable root filesystem; the image's files are the container's copy",
    "user.root": "root in the container: without the capabilities that aren't listed",
    "volume.anonymous": "a volume without a name; it is the engine's own, and its data is lost",
}


#: The longest name in a file system. A volume is a folder.
NAME_MAX = 255


class ImageRules(Model):
    """The allowlist of images, by whole components of the canonical reference."""

    allow: Annotated[tuple[values.ImagePrefix, ...], Field(min_length=1)] = (
        "ghcr.io/platformnetwork/",
    )
    #: Prefixes of local images that need no entry in the ledger; ``development`` only.
    trust_local: tuple[values.ImagePrefix, ...] = ()
    #: Only references with a digest.
    require_digest: bool = False
    #: The mount at a VOLUME of an image, and for a client's request without a volume name; see
    #: ``core.rules.images``.
    anonymous_volumes: values.AnonymousVolumes = "refuse"
    #: os/architecture values in addition to the host's own.
    platforms: tuple[str, ...] = ()
    #: Builds from Dockerfiles; None refuses them.
    build: BuildRules | None = None


class Capabilities(Model):
    """The capabilities allowed in CapAdd; all others stay dropped."""

    allowed: tuple[values.Capability, ...] = ("CHOWN", "SETUID", "SETGID")


class SecurityRules(Model):
    """Hardening in addition to the settings that are always enforced."""

    require_non_root: bool = False
    require_read_only_root: bool = False
    runtimes: tuple[str, ...] = ("runc",)
    #: Allow groups in addition to the user's own.
    group_add: bool = False
    #: The namespaces that services may share with each other, within one namespace and owner.
    shared_namespaces: tuple[Literal["network", "ipc", "pid"], ...] = ()
    #: Settings of the kernel that a container sets for itself, by their whole names.
    sysctls: tuple[SysctlName, ...] = ()
    #: The treatment of a running container that cannot be compared with its admitted state.
    unverified: Literal["allow", "stop"] = "allow"


class MemoryLimit(Model):
    """Memory of a container. Swap is always equal to memory, so no swap is used."""

    default: values.PolicyBytes = 2 * 1024**3
    max: values.PolicyBytes = 8 * 1024**3


class CpuLimit(Model):
    """CPUs of a container, in nano-CPUs."""

    default: values.Cpus = values.NANO
    max: values.Cpus = 4 * values.NANO


class PidLimit(Model):
    """Processes of a container."""

    default: Annotated[int, Field(ge=1)] = 256
    max: Annotated[int, Field(ge=1)] = 512


class TmpfsLimit(Model):
    """Size of one tmpfs mount."""

    default: values.PolicyBytes = 64 * 1024**2
    max: values.PolicyBytes = 256 * 1024**2
    #: Allow executable files in the mount, on request.
    executable: Annotated[bool, Field(alias="exec")] = False


class ResourceRules(Model):
    """Limits: the defaults, and the maximum of each request."""

    memory: MemoryLimit = MemoryLimit.model_construct()
    cpus: CpuLimit = CpuLimit.model_construct()
    pids: PidLimit = PidLimit.model_construct()
    tmpfs: TmpfsLimit = TmpfsLimit.model_construct()
    shm_max: values.PolicyBytes = 256 * 1024**2
    #: The least ``oomScoreAdj``. Below 0 the kernel ends other programs of the host before a container.
    oom_score_adj_min: Annotated[int, Field(ge=OOM_SCORE_ADJ_MIN, le=0)] = 0
    #: Allow CPU pinning.
    cpuset: bool = False
    #: The allowed ulimits, each with its largest hard value.
    ulimits: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: {"nofile": 65536, "nproc": 512, "core": 0}
    )
    #: Size of the writable layer, if the host's storage can limit it; None refuses the option.
    disk_max: values.PolicyBytes | None = None
    #: The largest size of a volume, if the host's storage can limit it; None refuses the option. A
    #: volume without a size is not limited.
    volume_max: values.PolicyBytes | None = None


class EngineRules(Model):
    """The settings that an engine may drop from a request, for want of support in the kernel."""

    #: Limits that containers may lack. A create and a start without another limit are refused.
    ignores: tuple[values.IgnoredLimit, ...] = ()


class Project(Model):
    """A folder of files edited by the user *uid*, for bind mounts."""

    path: values.HostPath
    uid: values.Uid


class DirectoryFolders(Model):
    """Folders of the directory of the desired state, for bind mounts of documents.

    The rules are those of a project that the user *uid* edits.
    """

    uid: values.Uid = 0


class RemoteGrant(Model):
    """A folder of another machine, with what lies below it, for volumes of an owner in a namespace."""

    owner: values.OwnerName
    namespace: values.Namespace
    type: Literal["nfs", "cifs"]
    server: Annotated[str, Field(min_length=1, max_length=253)]
    #: The exported folder; of cifs the share with a slash before it.
    path: values.HostPath


class Mounts(Model):
    """Sources of bind mounts, by whole components. Sources that are never allowed need no entry."""

    forbidden: tuple[values.HostPath, ...] = (
        "/etc/passwd",
        "/etc/shadow",
        "/etc/sudoers",
        "/root",
        "/home",
        "/proc",
        "/sys",
        "/dev",
    )
    allowed: tuple[values.HostPath, ...] = (
        "/tmp/",  # noqa: S108 - a source that the policy allows
        "/var/lib/platform/",
        "/var/lib/docker/volumes/",
    )
    max: Annotated[int, Field(ge=0, le=256)] = 64
    #: Allow a client's create to create the missing volumes that it names. Allow volumes without a
    #: name.
    create_volumes: bool = False
    #: Folders allowed although they lie below a forbidden one.
    projects: tuple[Project, ...] = ()
    #: None: no document mounts a folder of the directory, unless ``projects`` has it.
    directory: DirectoryFolders | None = None
    #: Folders of other machines, over NFS or CIFS. All others are refused.
    remote: Annotated[tuple[RemoteGrant, ...], Field(max_length=64)] = ()


class HostPorts(Model):
    """The host addresses and ports allowed for publishing.

    A port without an address gets the first address.
    """

    host_ips: Annotated[tuple[values.Address, ...], Field(min_length=1, alias="hostIPs")] = (
        "127.0.0.1",
        "::1",
    )
    min_host: PortNumber = 1024
    #: Ports of the engine, its cluster and other agents with rights on the host.
    reserved: tuple[PortNumber, ...] = (2375, 2376, 2377, 4243, 4789, 7946, 8472, 10250)
    max: Annotated[int, Field(ge=0, le=1024)] = 64
    #: Allowed ports although they are reserved or below ``minHost``.
    granted: tuple[PortNumber, ...] = ()
    #: Allow a range, from which the engine chooses a free port.
    ranges: bool = False


class DnsRules(Model):
    """Allowed settings of a container's resolver. Names resolve through the engine otherwise."""

    #: Ranges of the servers that a container may ask.
    servers: tuple[values.AddressRange, ...] = ()
    search: bool = False
    options: bool = False


class MacvlanGrant(Model):
    """An interface of the host, for networks of an owner's documents in a namespace."""

    owner: values.OwnerName
    namespace: values.Namespace
    parent: InterfaceName
    #: The addresses of the host's network that the containers may have.
    range: values.Subnet


class Networks(Model):
    """Allowed network modes, and the names of the implied networks."""

    modes: Annotated[tuple[Literal["none", "bridge", "isolated"], ...], Field(min_length=1)] = (
        "none",
        "bridge",
        "isolated",
    )
    isolated: values.BaseName = "platform-network"
    ingress: values.BaseName = "platform-ingress"
    bridge: values.BaseName = "platform-bridge"
    #: A service with mode bridge also joins its namespace's isolated network. It reaches the internet
    #: and the isolated services, and the isolated services reach it.
    bridge_joins_isolated: bool = False
    #: The mode of a Compose service on its project's network ``default``.
    compose_default: Literal["isolated", "bridge"] = "isolated"
    #: Networks created by clients are internal, whatever the request says.
    client_internal: bool = True
    ports: HostPorts = HostPorts.model_construct()
    #: Allowed aliases in addition to a container's own names.
    aliases: tuple[str, ...] = ()
    #: Allow any alias of a client's container in networks created by clients.
    client_aliases: bool = False
    #: Allow any alias of a service's containers. A name of another owner's container stays refused.
    service_aliases: bool = False
    dns: DnsRules = DnsRules.model_construct()
    #: Ranges for the subnets of networks, of clients and of documents.
    subnets: tuple[values.Subnet, ...] = ()
    #: Allow chosen addresses of containers, in networks of documents and of clients.
    static_addresses: bool = False
    #: Ranges from which the controller's networks get their subnets, each with an address for every slot;
    #: () leaves the subnets to the engine, and the address of a service changes with each container.
    address_pools: tuple[values.Subnet, ...] = ("10.208.0.0/12",)
    #: Allowed targets of additional entries of /etc/hosts.
    extra_hosts: tuple[Literal["addresses", "host-gateway"], ...] = ()
    #: Allow IPv6 subnets within fc00::/7.
    ipv6: bool = False
    #: Interfaces whose network containers may join as machines of their own. () for none.
    macvlan: Annotated[tuple[MacvlanGrant, ...], Field(max_length=64)] = ()
    #: Networks of this instance, by their name on the engine, open to all namespaces.
    granted: tuple[str, ...] = ()

    @property
    def names(self) -> NetworkNames:
        """The base names of the implied networks, for the planner."""
        return NetworkNames(
            self.isolated,
            self.ingress,
            self.bridge,
            bridge_joins_isolated=self.bridge_joins_isolated,
        )


class Collector(Model):
    """Where the engine may send logs. The address is compared as it is written."""

    driver: Literal["syslog", "fluentd", "gelf"]
    address: Annotated[
        str,
        matching(
            values.COLLECTOR,
            300,
            "an address with its scheme and port, such as udp://192.168.1.5:514, or unixgram:///dev/log",
        ),
    ]

    @model_validator(mode="after")
    def _is_spoken(self) -> Self:
        spoken = {
            "syslog": ("udp", "tcp", "tcp+tls", "unix", "unixgram"),
            "fluentd": ("tcp", "tls"),
            "gelf": ("udp", "tcp"),
        }[self.driver]
        if self.address.partition(":")[0] not in spoken:
            raise ValueError(f"has no address of {self.driver}; expected {' or '.join(spoken)}")
        return self


class LogRules(Model):
    """Log drivers and collectors, and the rotation of the logs on this host."""

    #: ``journald`` writes into the host's journal, where anybody's lines stand.
    drivers: Annotated[
        tuple[Literal["json-file", "local", "journald"], ...], Field(min_length=1)
    ] = ("json-file", "local")
    #: Everything that containers print may leave the host for these.
    collectors: Annotated[tuple[Collector, ...], Field(max_length=64)] = ()
    default_size: values.PolicyBytes = 10 * 1024**2
    default_files: Annotated[int, Field(ge=1)] = 3
    max_size: values.PolicyBytes = 100 * 1024**2
    max_files: Annotated[int, Field(ge=1)] = 10


class RestartRules(Model):
    """Allowed restart policies of the engine."""

    policies: tuple[Literal["no", "always", "on-failure", "unless-stopped"], ...] = (
        "no",
        "always",
        "on-failure",
        "unless-stopped",
    )
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 10


class HealthcheckRules(Model):
    """Bounds of health checks.

    A check is a command that the engine runs repeatedly.
    """

    min_interval: values.PolicyDurationMs = 1_000
    max_interval: values.PolicyDurationMs = 3_600_000
    min_timeout: values.PolicyDurationMs = 1
    max_timeout: values.PolicyDurationMs = 600_000
    max_retries: Annotated[int, Field(ge=1)] = 10
    max_start_period: values.PolicyDurationMs = 3_600_000
    shell: bool = True


class Env(Model):
    """Bounds of the environment, and denied variables, which decide what code runs."""

    max: Annotated[int, Field(ge=0)] = 512
    max_bytes: values.PolicyBytes = 64 * 1024
    denied: tuple[str, ...] = ("LD_PRELOAD", "LD_AUDIT")
    #: True: a name without a value unsets the image's variable, as in the engine. False: refused.
    unset: bool = False


class Exec(Model):
    """Commands of people in running containers."""

    enabled: bool = True
    #: Allow clients to run commands in the containers that they made themselves; as the container's
    #: user alone in those that mount a folder of the host.
    clients: bool = False
    #: After this time a session is disconnected, and its processes are killed.
    max_duration: Annotated[values.PolicyDurationMs, Field(ge=1_000, le=86_400_000)] = 3_600_000
    #: Allow root as the named user. Without a name, the user is the container's own.
    root: bool = False


class Labels(Model):
    """Bounds of labels, and denied prefixes, which grant rights in other tools of the engine."""

    max: Annotated[int, Field(ge=0)] = 100
    max_bytes: values.PolicyBytes = 64 * 1024
    #: Of an object that a client makes: every list repeats the labels. Compose writes about 2 KiB.
    client_max_bytes: values.PolicyBytes = 16 * 1024
    denied_prefixes: tuple[str, ...] = (
        "socket-proxy.",
        "com.sockguard.",
        "com.centurylinklabs.watchtower.",
        "ofelia.",
        "traefik.",
        "com.docker.swarm.",
        "com.docker.stack.",
        "io.kubernetes.",
    )


class Names(Model):
    """Names of containers, networks and volumes given by clients."""

    max: Annotated[int, Field(ge=CONTAINER_NAME_MAX, le=NAME_MAX)] = CONTAINER_NAME_MAX
    #: Allow ``_`` in host names, as the engine does.
    underscores: bool = False


class Sums(Model):
    """Maximum numbers of objects of all owners together."""

    containers: Annotated[int, Field(ge=0)] = 1000
    volumes: Annotated[int, Field(ge=0)] = 1000
    networks: Annotated[int, Field(ge=0)] = 100
    #: Published ports: each is a process of the engine's.
    ports: Annotated[int, Field(ge=0)] = 500


class ClientSums(Sums):
    """Maximum numbers of what the clients of all owners make together."""

    networks: Annotated[int, Field(ge=0)] = 20
    ports: Annotated[int, Field(ge=0)] = 250


class Quotas(Model):
    """Maximum numbers of objects in the inventory, in any state.

    The defaults of volumes, networks and ports are those of ``home``: own policies from before these
    quotas go on. ``strict`` and ``production`` write less.
    """

    per_service: Annotated[int, Field(ge=0)] = 100
    per_owner: Annotated[int, Field(ge=0)] = 200
    volumes_per_owner: Annotated[int, Field(ge=0)] = 500
    #: Networks that an owner's clients made. Networks of documents belong to namespaces.
    networks_per_owner: Annotated[int, Field(ge=0)] = 20
    #: Published ports of an owner's containers, of documents and clients together.
    ports_per_owner: Annotated[int, Field(ge=0)] = 250
    #: The sums over all owners: of what documents declare, and of what clients make. An engine has
    #: addresses for about 30 networks.
    documents: Sums = Sums.model_construct()
    clients: ClientSums = ClientSums.model_construct()
    #: Of each client's uid: changes a second (fifty times as many at once), and bytes of its records
    #: in the journal.
    mutations_per_second: Annotated[int, Field(ge=1, le=10_000)] = 20
    journal_per_day: Annotated[values.PolicyBytes, Field(ge=1024 * 1024)] = 64 * 1024 * 1024


SOURCES_MAX = 64
_PATH_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._ -]{1,255}", re.ASCII)


def _path(text: str) -> str:
    if text != "." and not all(_PATH_PART.fullmatch(part) for part in text.split("/")):
        raise ValueError("expected a folder of the repository, such as deploy/production, or '.'")
    return text


Name = Annotated[str, satisfying(partial(is_dns_label, length=63), "expected a DNS label")]


class SignedSource(Model):
    """A Git source. Its signed commits alone decide the controller's changes in its namespaces."""

    #: The name of the Source.
    source: Name
    namespaces: Annotated[tuple[Namespace, ...], Field(min_length=1, max_length=100)]
    require: Literal["signed"]
    #: The folder of keys below /etc/trimtab/keys.
    keys: Name
    #: The documents' folder in the repository, as in ``spec.git.path``.
    path: Annotated[str, Field(max_length=255), AfterValidator(_path)] = "."
    #: The owner of Compose projects without ``x-trimtab.owner``: the single owner in the Source's
    #: ``spec.owners``. Without a value, the owner is the policy's single owner, or ``default``.
    owner: OwnerName | None = None
    #: The first commit to accept. Later ones must descend from the newest accepted commit. Another
    #: value begins a new line at that commit.
    since: Annotated[str, matching(COMMIT_ID, 64, "the full id of a commit: 40 or 64 hex digits")]
