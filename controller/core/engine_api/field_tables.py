"""The fields of the Engine API's bodies (1.45): type, treatment and reason of each.

The gate knows only these fields. The field reference is generated from the tables. The decisions on
CONSTRAIN and MUTATE fields are in ``core.admission.create``.
"""

from __future__ import annotations

from controller.core.engine_api.field_reader import (
    Field,
    Posture,
    an_object,
    anything,
    command,
    flag,
    free_text,
    list_of,
    map_of,
    structure,
    text,
    whole,
)

ALLOW, CONSTRAIN, MUTATE = Posture.ALLOW, Posture.CONSTRAIN, Posture.MUTATE
DENY, DROP = Posture.DENY, Posture.DROP


def _denied(
    name: str, read: object, rule: str, why: str, remedy: str = "", *, spelled: tuple[str, ...] = ()
) -> Field:
    assert callable(read)
    return Field(name, read, DENY, why, rule, remedy or f"leave out {name}", spellings=spelled)


CONFIG = (
    Field("Hostname", text, CONSTRAIN, "written into /etc/hosts: a name (RFC 1123)"),
    Field("Domainname", text, CONSTRAIN, "written into /etc/hosts: a name (RFC 1123)"),
    Field("User", text, CONSTRAIN, "a name or id; root where the policy allows it"),
    Field("AttachStdin", flag, ALLOW, "the docker command needs it"),
    Field("AttachStdout", flag, ALLOW, "the docker command needs it"),
    Field("AttachStderr", flag, ALLOW, "the docker command needs it"),
    Field("Tty", flag, ALLOW, "the docker command needs it"),
    Field("OpenStdin", flag, ALLOW, "the docker command needs it"),
    Field("StdinOnce", flag, ALLOW, "the docker command needs it"),
    Field("ExposedPorts", map_of(anything), CONSTRAIN, "the engine takes 99999/tcp"),
    Field("Env", list_of(free_text), CONSTRAIN, "NAME=value, bounded; some names choose code"),
    Field("Cmd", command, ALLOW, "what the container runs"),
    Field("Entrypoint", command, ALLOW, "what the container runs"),
    Field("Shell", command, ALLOW, "used by health checks of kind CMD-SHELL"),
    Field("Healthcheck", an_object, CONSTRAIN, "a command that the engine runs over and over"),
    Field("ArgsEscaped", flag, DROP, "Windows only"),
    _denied("OnBuild", list_of(free_text), "body.build", "it belongs to a build, not to a run"),
    Field("Image", free_text, MUTATE, "an admitted reference, pinned to the trusted image id"),
    Field("Volumes", map_of(anything), CONSTRAIN, "anonymous volumes have no owner and no name"),
    Field(
        "WorkingDir",
        text,
        CONSTRAIN,
        "absolute; file descriptors of the runtime can leak through it",
    ),
    Field("NetworkDisabled", flag, ALLOW, "docker-py always sends it"),
    _denied("MacAddress", text, "network.address", "a chosen address can pose as another's"),
    Field("Labels", map_of(free_text), MUTATE, "completed with the gate's own"),
    Field("StopSignal", text, CONSTRAIN, "a signal that exists"),
    Field("StopTimeout", whole, CONSTRAIN, "-1 waits forever", keep_zero=True),
    Field("Runtime", text, CONSTRAIN, "docker-py writes it here: judged as HostConfig.Runtime"),
    Field("HostConfig", an_object, CONSTRAIN, "see its own table"),
    Field("NetworkingConfig", an_object, CONSTRAIN, "see its own table"),
)

#: A key that engines up to 26.1 also read at the top level of a create's body.
LEGACY_CPUSET = "Cpuset"

RESOURCES = (
    Field("Memory", whole, CONSTRAIN, "bytes; the policy's default where unset"),
    Field("MemorySwap", whole, MUTATE, "equal to Memory: unset means twice as much to the engine"),
    Field("MemoryReservation", whole, CONSTRAIN, "not above Memory"),
    Field("MemorySwappiness", whole, CONSTRAIN, "0 to 100; -1 is unset", keep_zero=True),
    Field("NanoCpus", whole, CONSTRAIN, "the policy's default where no CPU limit is given"),
    Field("CpuQuota", whole, CONSTRAIN, "the other way to limit CPUs, with CpuPeriod"),
    Field("CpuPeriod", whole, CONSTRAIN, "microseconds, 1000 to 1000000"),
    Field("CpuShares", whole, CONSTRAIN, "a weight, no limit"),
    Field("PidsLimit", whole, CONSTRAIN, "the policy's default where unset"),
    _denied("KernelMemory", whole, "resources.kernel-memory", "the engine dropped it"),
    _denied("KernelMemoryTCP", whole, "resources.kernel-memory", "the engine dropped it"),
    _denied("OomKillDisable", flag, "resources.oom", "the host would kill another process"),
    _denied("CpusetMems", text, "resources.cpuset", "no policy grants the pinning of memory nodes"),
    # docker-py's spellings.
    _denied(
        "CpuRealtimePeriod",
        whole,
        "resources.realtime",
        "real-time scheduling can starve",
        spelled=("CPURealtimePeriod",),
    ),
    _denied(
        "CpuRealtimeRuntime",
        whole,
        "resources.realtime",
        "real-time scheduling can starve",
        spelled=("CPURealtimeRuntime",),
    ),
    _denied("CpuCount", whole, "resources.windows", "Windows only"),
    _denied("CpuPercent", whole, "resources.windows", "Windows only"),
    _denied("IOMaximumIOps", whole, "resources.windows", "Windows only"),
    _denied("IOMaximumBandwidth", whole, "resources.windows", "Windows only"),
    _denied("BlkioWeight", whole, "resources.blkio", "it names or weighs devices of the host"),
    _denied("BlkioWeightDevice", anything, "resources.blkio", "it names devices of the host"),
    _denied("BlkioDeviceReadBps", anything, "resources.blkio", "it names devices of the host"),
    _denied("BlkioDeviceWriteBps", anything, "resources.blkio", "it names devices of the host"),
    _denied("BlkioDeviceReadIOps", anything, "resources.blkio", "it names devices of the host"),
    _denied("BlkioDeviceWriteIOps", anything, "resources.blkio", "it names devices of the host"),
    _denied("CgroupParent", text, "namespace.cgroup", "it leads out of the engine's cgroups"),
    _denied("Devices", anything, "devices", "a device of the host is a way to the host"),
    _denied("DeviceCgroupRules", anything, "devices", "a rule opens devices of the host"),
    _denied("DeviceRequests", anything, "devices", "devices come with hooks that run on the host"),
)

HOST_CONFIG = (
    *RESOURCES,
    Field("CpusetCpus", text, CONSTRAIN, "if the policy allows it: pinning takes CPUs from others"),
    Field("Ulimits", list_of(anything), CONSTRAIN, "some names, bounded"),
    Field("Binds", list_of(text), CONSTRAIN, "SOURCE:TARGET[:ro|rw]"),
    Field("Mounts", list_of(anything), CONSTRAIN, "bind, volume and tmpfs"),
    _denied("ContainerIDFile", text, "body.client-only", "a file of the client's machine"),
    Field("LogConfig", an_object, MUTATE, "drivers that keep the log here, rotated"),
    Field("NetworkMode", text, MUTATE, "a granted mode or a network of ours, by name"),
    Field("PortBindings", map_of(anything), MUTATE, "loopback, ports that aren't privileged"),
    _denied(
        "PublishAllPorts",
        flag,
        "port.publish-all",
        "the image would decide what is published",
        "publish each port with PortBindings",
    ),
    Field("RestartPolicy", an_object, CONSTRAIN, "the engine's names, bounded retries"),
    Field("AutoRemove", flag, CONSTRAIN, "where the policy allows it"),
    _denied(
        "VolumeDriver",
        text,
        "volume.driver",
        "an unknown driver stalls the engine, a known one mounts the host",
    ),
    _denied(
        "VolumesFrom",
        list_of(text),
        "mount.volumes-from",
        "it inherits mounts without a check",
        "name each volume in Mounts",
    ),
    Field("ConsoleSize", list_of(whole), CONSTRAIN, "height and width of the terminal"),
    _denied("Annotations", map_of(anything), "annotations", "they steer hooks of the runtime"),
    Field("CapAdd", command, CONSTRAIN, "the few that the policy lists"),
    Field("CapDrop", command, MUTATE, "always ALL"),
    Field("CgroupnsMode", text, CONSTRAIN, "private"),
    _denied("Cgroup", text, "namespace.cgroup", "it shares another's cgroup"),
    _denied("Dns", list_of(text), "network.dns", "queries could be redirected"),
    _denied("DnsOptions", list_of(free_text), "network.dns", "lines could be added to resolv.conf"),
    _denied("DnsSearch", list_of(free_text), "network.dns", "lines could be added to resolv.conf"),
    Field(
        "ExtraHosts", list_of(text), CONSTRAIN, "if the policy allows it: names can be redirected"
    ),
    Field("GroupAdd", list_of(text), CONSTRAIN, "if the policy allows it: groups can own files"),
    Field("IpcMode", text, CONSTRAIN, "private or none"),
    _denied("Links", list_of(text), "network.links", "names of other containers could be taken"),
    Field("OomScoreAdj", whole, CONSTRAIN, "0 to 1000: no container is spared before others"),
    _denied(
        "PidMode",
        text,
        "namespace.pid",
        "processes of the host or of other containers would be visible",
    ),
    Field(
        "Privileged",
        flag,
        DENY,
        "a privileged container is the host",
        "privileged",
        "ask for the capability that is needed (CapAdd); no exception reaches this",
    ),
    Field("ReadonlyRootfs", flag, ALLOW, "encouraged"),
    Field("SecurityOpt", list_of(free_text), MUTATE, "exactly no-new-privileges:true"),
    Field("StorageOpt", map_of(free_text), CONSTRAIN, "size, where the host can bound it"),
    Field("Tmpfs", map_of(free_text), MUTATE, "bounded, without suid and dev; exec by the policy"),
    _denied("UTSMode", text, "namespace.uts", "the container would share the name of the host"),
    _denied("UsernsMode", text, "namespace.user", "it switches the user namespace off"),
    Field("ShmSize", whole, CONSTRAIN, "bounded, and part of the memory"),
    _denied("Sysctls", map_of(anything), "sysctls", "settings of the kernel"),
    Field("Runtime", text, CONSTRAIN, "the runtimes that the policy lists"),
    Field("Isolation", text, CONSTRAIN, "Windows only"),
    Field(
        "MaskedPaths",
        anything,
        DENY,
        "any list, an empty one too, shows parts of the host's /proc and /sys",
        "masked-paths",
        "leave out MaskedPaths",
        keep_zero=True,
    ),
    Field(
        "ReadonlyPaths",
        anything,
        DENY,
        "any list, an empty one too, makes parts of /proc writable",
        "masked-paths",
        "leave out ReadonlyPaths",
        keep_zero=True,
    ),
    Field("Init", flag, ALLOW, "a process that reaps and forwards signals", keep_zero=True),
)

LEGACY_NAMES = " ".join([*(entry.name for entry in HOST_CONFIG), LEGACY_CPUSET])

UPDATE = (
    _denied("CpusetCpus", text, "resources.cpuset", "CPUs are pinned when a container is made"),
    *(entry for entry in RESOURCES if entry.name != "PidsLimit"),
    Field("PidsLimit", whole, CONSTRAIN, "0 and -1 mean unlimited in an update", keep_zero=True),
    _denied("Ulimits", list_of(anything), "update.field", "the engine ignores it in an update"),
    Field("RestartPolicy", an_object, CONSTRAIN, "the engine's names, bounded retries"),
)

HEALTHCHECK = (
    Field("Test", list_of(free_text), CONSTRAIN, "NONE, CMD or CMD-SHELL"),
    Field("Interval", whole, CONSTRAIN, "nanoseconds; 0 inherits"),
    Field("Timeout", whole, CONSTRAIN, "nanoseconds; 0 inherits"),
    Field("Retries", whole, CONSTRAIN, "0 inherits"),
    Field("StartPeriod", whole, CONSTRAIN, "nanoseconds; 0 inherits"),
    Field("StartInterval", whole, CONSTRAIN, "nanoseconds; 0 inherits"),
)

LOG_CONFIG = (
    Field("Type", text, CONSTRAIN, "the driver"),
    Field("Config", map_of(text), CONSTRAIN, "its options"),
)

RESTART_POLICY = (
    Field("Name", text, CONSTRAIN, "the engine's names"),
    Field("MaximumRetryCount", whole, CONSTRAIN, "with on-failure"),
)

ULIMIT = (
    Field("Name", text, CONSTRAIN, "a name that the policy lists"),
    Field("Soft", whole, CONSTRAIN, "not above Hard"),
    Field("Hard", whole, CONSTRAIN, "not above the policy's"),
)

PORT_BINDING = (
    Field("HostIp", text, MUTATE, "loopback where unset"),
    Field("HostPort", text, CONSTRAIN, "one port, or a range by the policy; unset: any free one"),
)

MOUNT = (
    Field("Type", text, CONSTRAIN, "bind, volume or tmpfs"),
    Field("Source", text, CONSTRAIN, "a path of the host, or a volume's name"),
    Field("Target", text, CONSTRAIN, "a clean path in the container"),
    Field("ReadOnly", flag, ALLOW, "encouraged"),
    Field("Consistency", text, DROP, "macOS only"),
    Field("BindOptions", an_object, CONSTRAIN, "see its own table"),
    Field("VolumeOptions", an_object, CONSTRAIN, "see its own table"),
    Field("TmpfsOptions", an_object, CONSTRAIN, "see its own table"),
    _denied("ImageOptions", structure, "mount.type", "images aren't mounted here"),
    _denied("ClusterOptions", anything, "mount.type", "cluster volumes aren't mounted here"),
)

BIND_OPTIONS = (
    Field("Propagation", text, CONSTRAIN, "rprivate"),
    _denied("NonRecursive", flag, "mount.options", "mounts below the source would be left out"),
    _denied(
        "CreateMountpoint",
        flag,
        "mount.options",
        "the engine would make the folder on the host, as root",
        "make the folder first",
    ),
    _denied("ReadOnlyNonRecursive", flag, "mount.options", "mounts below it would be writable"),
    _denied("ReadOnlyForceRecursive", flag, "mount.options", "not every host can"),
)

VOLUME_OPTIONS = (
    Field("NoCopy", flag, ALLOW, "leaves an empty volume empty"),
    Field("Labels", map_of(free_text), DROP, "the volume exists already, with its own"),
    Field("Subpath", text, CONSTRAIN, "clean and relative"),
    Field("DriverConfig", an_object, CONSTRAIN, "see its own table"),
)

DRIVER_CONFIG = (
    Field("Name", text, CONSTRAIN, "local"),
    _denied(
        "Options",
        map_of(anything),
        "volume.options",
        "a local volume with options can mount anything of the host",
        "create the volume without options first, then mount it by name",
    ),
)

TMPFS_OPTIONS = (
    Field("SizeBytes", whole, MUTATE, "the policy's default where unset"),
    Field("Mode", whole, CONSTRAIN, "permission bits"),
    _denied("Options", anything, "mount.options", "they allow exec, suid and dev again"),
)

NETWORKING_CONFIG = (Field("EndpointsConfig", map_of(anything), MUTATE, "networks to join"),)

ENDPOINT = (
    Field("Aliases", list_of(text), CONSTRAIN, "the container's own names"),
    _denied("IPAMConfig", structure, "network.address", "a chosen address can pose as another's"),
    _denied("Links", list_of(text), "network.links", "names of other containers could be taken"),
    _denied("MacAddress", text, "network.address", "a chosen address can pose as another's"),
    _denied("DriverOpts", map_of(anything), "network.options", "they set sysctls"),
    _denied("GwPriority", whole, "network.options", "it chooses the default gateway"),
    *(
        _denied(name, anything, "network.address", "the engine assigns it")
        for name in (
            "NetworkID",
            "EndpointID",
            "Gateway",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "DNSNames",
        )
    ),
)

NETWORK = (
    Field("Name", text, CONSTRAIN, "letters, digits, _ . -"),
    Field("CheckDuplicate", flag, DROP, "names are unique here anyway"),
    Field("Driver", text, CONSTRAIN, "bridge"),
    Field("Internal", flag, MUTATE, "always, for clients"),
    Field("Options", map_of(text), CONSTRAIN, "masquerading and inter-container traffic"),
    Field("Labels", map_of(free_text), MUTATE, "completed with the gate's own"),
    Field("Scope", text, CONSTRAIN, "local"),
    Field("EnableIPv4", flag, CONSTRAIN, "true", keep_zero=True),
    Field("EnableIPv6", flag, CONSTRAIN, "where the policy allows it"),
    _denied("Attachable", flag, "network.kind", "swarm only"),
    _denied("Ingress", flag, "network.kind", "swarm only"),
    _denied("ConfigOnly", flag, "network.kind", "settings for other networks"),
    _denied("ConfigFrom", structure, "network.kind", "it takes over another network's settings"),
    Field("IPAM", an_object, CONSTRAIN, "the engine's default"),
)

IPAM = (
    Field("Driver", text, CONSTRAIN, "default"),
    Field("Config", list_of(anything), CONSTRAIN, "within ranges that the policy lists"),
    _denied("Options", map_of(anything), "network.options", "a driver's own options"),
)

IPAM_CONFIG = (
    Field("Subnet", text, CONSTRAIN, "an IPv4 network within a range that the policy lists"),
    Field("IPRange", text, CONSTRAIN, "within the subnet"),
    Field("Gateway", text, CONSTRAIN, "an address of the subnet"),
    _denied(
        "AuxiliaryAddresses",
        map_of(anything),
        "network.address",
        "addresses for others",
        spelled=("AuxAddress",),
    ),
)

VOLUME = (
    Field("Name", text, CONSTRAIN, "letters, digits, _ . -"),
    Field("Driver", text, CONSTRAIN, "local"),
    _denied(
        "DriverOpts",
        map_of(anything),
        "volume.options",
        "a local volume with options can mount anything of the host",
    ),
    _denied("Opts", map_of(anything), "volume.options", "the old name of DriverOpts"),
    _denied("ClusterVolumeSpec", anything, "volume.driver", "swarm only"),
    Field("Labels", map_of(free_text), MUTATE, "completed with the gate's own"),
)

CONNECT = (
    Field("Container", text, CONSTRAIN, "a container of ours"),
    Field("EndpointConfig", an_object, CONSTRAIN, "see its own table"),
)

EXEC = (
    Field("Cmd", list_of(free_text), CONSTRAIN, "what to run: not empty, bounded"),
    Field("User", text, CONSTRAIN, "unset is the container's own; root where the policy allows it"),
    _denied(
        "Privileged",
        flag,
        "exec.privileged",
        "it has every capability of the host, whatever the container has",
    ),
    Field("Env", list_of(free_text), CONSTRAIN, "NAME=value, bounded; some names choose code"),
    Field(
        "WorkingDir",
        text,
        CONSTRAIN,
        "absolute; file descriptors of the runtime can leak through it",
    ),
    Field("AttachStdin", flag, ALLOW, "the docker command needs it"),
    Field("AttachStdout", flag, ALLOW, "the docker command needs it"),
    Field("AttachStderr", flag, ALLOW, "the docker command needs it"),
    Field("Tty", flag, ALLOW, "the docker command needs it"),
    Field("ConsoleSize", list_of(whole), CONSTRAIN, "height and width of the terminal"),
    # docker-py writes it as its configuration file does.
    Field("DetachKeys", text, CONSTRAIN, "a sequence of keys", spellings=("detachKeys",)),
    Field("Detach", flag, DROP, "given by the start"),
    Field("Container", text, DROP, "given by the path"),
)

EXEC_START = (
    Field("Detach", flag, ALLOW, "the start does not wait for the end"),
    Field("Tty", flag, ALLOW, "the form of the output"),
    Field("ConsoleSize", list_of(whole), CONSTRAIN, "height and width of the terminal"),
)

DISCONNECT = (
    Field("Container", text, CONSTRAIN, "a container of ours"),
    Field("Force", flag, CONSTRAIN, "disconnects even if the container is gone"),
)
