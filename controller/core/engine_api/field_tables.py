"""The fields of the Engine API's bodies (1.45): type, treatment and reason of each.

The gate knows only these fields. The field reference is generated from the tables. The decisions on
CONSTRAIN and MUTATE fields are in ``core.admission.create``.
"""

from __future__ import annotations

from functools import partial

from controller.core.engine_api.field_reader import (
    Field,
    Posture,
    ValueReader,
    an_object,
    anything,
    command,
    flag,
    free_text,
    lines,
    list_of,
    map_of,
    members,
    structure,
    text,
    text_members,
    texts,
    whole,
    whole_or_all,
)

allow, constrain = partial(Field, Posture.ALLOW), partial(Field, Posture.CONSTRAIN)
mutate, drop = partial(Field, Posture.MUTATE), partial(Field, Posture.DROP)
#: Spellings of docker-py.
_SPELLINGS = {
    "CpuRealtimePeriod": "CPURealtimePeriod",
    "CpuRealtimeRuntime": "CPURealtimeRuntime",
    "AuxiliaryAddresses": "AuxAddress",
}


def deny(
    names: str, read: ValueReader, why: str, rule: str, remedy: str = "", *, keep_zero: bool = False
) -> tuple[Field, ...]:
    """Return refused fields of one type; *names* are separated by spaces."""
    return tuple(
        Field(
            *(Posture.DENY, name, read, why),
            rule=rule,
            remedy=remedy or f"leave out {name}",
            keep_zero=keep_zero,
            spelling=_SPELLINGS.get(name),
        )
        for name in names.split()
    )


TERMINAL = (
    allow("AttachStdin", flag, "the docker command needs it", "attach_stdin"),
    allow("AttachStdout", flag, "the docker command needs it", "attach_stdout"),
    allow("AttachStderr", flag, "the docker command needs it", "attach_stderr"),
    allow("Tty", flag, "the docker command needs it", "tty"),
)

CONFIG = (
    constrain("Hostname", text, "written into /etc/hosts: a name (RFC 1123)", "hostname"),
    constrain("Domainname", text, "written into /etc/hosts: a name (RFC 1123)", "domainname"),
    constrain("User", text, "a name or id; root where the policy allows it", "user"),
    *TERMINAL,
    allow("OpenStdin", flag, "the docker command needs it", "open_stdin"),
    allow("StdinOnce", flag, "the docker command needs it", "stdin_once"),
    constrain("ExposedPorts", members, "the engine takes 99999/tcp"),
    constrain("Env", texts, "NAME=value, bounded; some names choose code", "env"),
    constrain("TrimtabEnv", texts, "variables with values of Secrets, which the gate fills in"),
    constrain(
        "TrimtabHooks", an_object, "commands that the gate runs at a start and before a stop"
    ),
    constrain("TrimtabShares", an_object, "a service; the gate finds its container"),
    allow("Cmd", command, "what the container runs", "command"),
    allow("Entrypoint", command, "what the container runs", "entrypoint"),
    allow("Shell", command, "used by health checks of kind CMD-SHELL", "shell"),
    constrain("Healthcheck", an_object, "a command that the engine runs over and over"),
    drop("ArgsEscaped", flag, "Windows only"),
    *deny("OnBuild", texts, "it belongs to a build, not to a run", "body.build"),
    mutate("Image", free_text, "an admitted reference, pinned to the trusted image id", "image"),
    constrain("Volumes", members, "anonymous volumes have no owner and no name"),
    constrain(
        "WorkingDir",
        text,
        "absolute; file descriptors of the runtime can leak through it",
        "working_dir",
    ),
    allow("NetworkDisabled", flag, "docker-py always sends it", "network_disabled"),
    *deny("MacAddress", text, "a chosen address can pose as another's", "network.address"),
    mutate("Labels", text_members, "completed with the gate's own"),
    constrain("StopSignal", text, "a signal that exists", "stop_signal"),
    constrain("StopTimeout", whole, "-1 waits forever", "stop_timeout", keep_zero=True),
    constrain("Runtime", text, "docker-py writes it here: judged as HostConfig.Runtime"),
    constrain("HostConfig", an_object, "see its own table"),
    constrain("NetworkingConfig", an_object, "see its own table"),
)

#: The members that the engine completes from the image's config (moby, ``daemon/commit.go``).
INHERITED = tuple(
    entry
    for entry in CONFIG
    if entry.name
    in {
        *("User", "Env", "Cmd", "Entrypoint", "Healthcheck", "WorkingDir"),
        *("ExposedPorts", "Volumes", "Labels", "StopSignal"),
    }
)

#: A key that engines up to 26.1 also read at the top level of a create's body.
LEGACY_CPUSET = "Cpuset"

RESOURCES = (
    constrain("Memory", whole, "bytes; the policy's default where unset", "memory"),
    mutate(
        "MemorySwap",
        whole,
        "equal to Memory: unset means twice as much to the engine",
        "memory_swap",
    ),
    constrain("MemoryReservation", whole, "not above Memory", "memory_reservation"),
    constrain(
        "MemorySwappiness", whole, "0 to 100; -1 is unset", "memory_swappiness", keep_zero=True
    ),
    constrain("NanoCpus", whole, "the policy's default where no CPU limit is given", "nano_cpus"),
    constrain("CpuQuota", whole, "the other way to limit CPUs, with CpuPeriod", "cpu_quota"),
    constrain("CpuPeriod", whole, "microseconds, 1000 to 1000000", "cpu_period"),
    constrain("CpuShares", whole, "a weight, no limit", "cpu_shares"),
    constrain("PidsLimit", whole, "the policy's default where unset", "pids"),
    *deny(
        "KernelMemory KernelMemoryTCP", whole, "the engine dropped it", "resources.kernel-memory"
    ),
    constrain(
        "CpusetCpus", text, "if the policy allows it: pinning takes CPUs from others", "cpuset"
    ),
    *deny("OomKillDisable", flag, "the host would kill another process", "resources.oom"),
    *deny("CpusetMems", text, "no policy grants the pinning of memory nodes", "resources.cpuset"),
    *deny(
        "CpuRealtimePeriod CpuRealtimeRuntime",
        whole,
        "real-time scheduling can starve",
        "resources.realtime",
    ),
    *deny(
        "CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth",
        whole,
        "Windows only",
        "resources.windows",
    ),
    *deny("BlkioWeight", whole, "it names or weighs devices of the host", "resources.blkio"),
    *deny(
        "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps",
        anything,
        "it names devices of the host",
        "resources.blkio",
    ),
    *deny("CgroupParent", text, "it leads out of the engine's cgroups", "namespace.cgroup"),
    *deny("DeviceCgroupRules", anything, "a rule opens devices of the host", "devices"),
)

HOST = (
    constrain("Devices", list_of(anything), "character devices that the policy grants"),
    constrain("DeviceRequests", list_of(anything), "CDI names that the policy grants"),
    constrain("Ulimits", list_of(anything), "some names, bounded"),
    constrain("Binds", lines, "SOURCE:TARGET[:ro|rw]"),
    constrain("Mounts", list_of(anything), "bind, volume and tmpfs"),
    *deny("ContainerIDFile", text, "a file of the client's machine", "body.client-only"),
    mutate("LogConfig", an_object, "drivers that keep the log here, rotated"),
    mutate("NetworkMode", text, "a granted mode or a network of ours, by name", "network_mode"),
    mutate("PortBindings", members, "loopback, ports that aren't privileged"),
    *deny(
        "PublishAllPorts",
        flag,
        "the image would decide what is published",
        "port.publish-all",
        "publish each port with PortBindings",
    ),
    constrain("RestartPolicy", an_object, "the engine's names, bounded retries"),
    constrain("AutoRemove", flag, "where the policy allows it", "auto_remove"),
    *deny(
        "VolumeDriver",
        text,
        "an unknown driver stalls the engine, a known one mounts the host",
        "volume.driver",
    ),
    *deny(
        "VolumesFrom",
        lines,
        "it inherits mounts without a check",
        "mount.volumes-from",
        "name each volume in Mounts",
    ),
    constrain("ConsoleSize", list_of(whole), "height and width of the terminal"),
    *deny("Annotations", members, "they steer hooks of the runtime", "annotations"),
    constrain("CapAdd", command, "the few that the policy lists", "cap_add"),
    mutate("CapDrop", command, "always ALL"),
    constrain("CgroupnsMode", text, "private", "cgroupns_mode"),
    *deny("Cgroup", text, "it shares another's cgroup", "namespace.cgroup"),
    constrain("Dns", lines, "within ranges that the policy lists", "dns_servers"),
    constrain("DnsOptions", lines, "if the policy allows it: NAME or NAME:NUMBER", "dns_options"),
    constrain("DnsSearch", lines, "if the policy allows it: domain names", "dns_search"),
    constrain(
        "ExtraHosts", lines, "if the policy allows it: names can be redirected", "extra_hosts"
    ),
    constrain("GroupAdd", lines, "if the policy allows it: groups can own files", "groups"),
    constrain("IpcMode", text, "private or none", "ipc_mode"),
    *deny("Links", lines, "names of other containers could be taken", "network.links"),
    constrain(
        "OomScoreAdj",
        whole,
        "below 0 others end first: where the policy allows it",
        "oom_score_adj",
    ),
    *deny(
        "PidMode",
        text,
        "processes of the host or of other containers would be visible",
        "namespace.pid",
    ),
    *deny(
        "Privileged",
        flag,
        "a privileged container is the host",
        "privileged",
        "ask for the capability that is needed (CapAdd); no exception reaches this",
    ),
    allow("ReadonlyRootfs", flag, "encouraged", "read_only_root"),
    mutate("SecurityOpt", texts, "exactly no-new-privileges:true", "security_opt"),
    constrain("StorageOpt", text_members, "size, where the host can bound it"),
    mutate("Tmpfs", text_members, "bounded, without suid and dev; exec by the policy"),
    *deny("UTSMode", text, "the container would share the name of the host", "namespace.uts"),
    *deny("UsernsMode", text, "it switches the user namespace off", "namespace.user"),
    constrain("ShmSize", whole, "bounded, and part of the memory", "shm_size"),
    constrain("Sysctls", text_members, "namespaced ones that the policy lists"),
    constrain("Runtime", text, "the runtimes that the policy lists"),
    constrain("Isolation", text, "Windows only", "isolation"),
    *deny(
        "MaskedPaths",
        anything,
        "any list, an empty one too, shows parts of the host's /proc and /sys",
        "masked-paths",
        keep_zero=True,
    ),
    *deny(
        "ReadonlyPaths",
        anything,
        "any list, an empty one too, makes parts of /proc writable",
        "masked-paths",
        keep_zero=True,
    ),
    allow("Init", flag, "a process that reaps and forwards signals", "init", keep_zero=True),
)

HOST_CONFIG = (*RESOURCES, *HOST)
LEGACY_NAMES = " ".join([*(entry.name for entry in HOST_CONFIG), LEGACY_CPUSET])

UPDATE = (
    *(entry for entry in RESOURCES if entry.name != "PidsLimit"),
    constrain(
        "PidsLimit", whole_or_all, "0 and -1 mean unlimited in an update", "pids", keep_zero=True
    ),
    *deny("Devices DeviceRequests", anything, "the engine ignores it in an update", "update.field"),
    *deny("Ulimits", list_of(anything), "the engine ignores it in an update", "update.field"),
    constrain("RestartPolicy", an_object, "the engine's names, bounded retries"),
)

HEALTHCHECK = (
    constrain("Test", texts, "NONE, CMD or CMD-SHELL", "test"),
    constrain("Interval", whole, "nanoseconds; 0 inherits", "interval_ns"),
    constrain("Timeout", whole, "nanoseconds; 0 inherits", "timeout_ns"),
    constrain("Retries", whole, "0 inherits", "retries"),
    constrain("StartPeriod", whole, "nanoseconds; 0 inherits", "start_period_ns"),
    constrain("StartInterval", whole, "nanoseconds; 0 inherits", "start_interval_ns"),
)

LOG_CONFIG = (
    constrain("Type", text, "the driver"),
    constrain("Config", map_of(text), "its options"),
)

RESTART_POLICY = (
    constrain("Name", text, "the engine's names", "name"),
    constrain("MaximumRetryCount", whole, "with on-failure", "max_retries"),
)

ULIMIT = (
    constrain("Name", text, "a name that the policy lists", "name"),
    constrain("Soft", whole, "not above Hard", "soft"),
    constrain("Hard", whole, "not above the policy's", "hard"),
)

DEVICE = (
    constrain("PathOnHost", text, "a path below /dev that the policy grants"),
    constrain("PathInContainer", text, "below /dev; unset: the same path"),
    constrain("CgroupPermissions", text, "some of r, w and m"),
)

DEVICE_REQUEST = (
    constrain("Driver", text, "cdi"),
    *deny("Count", whole, "each device is named", "device.driver", "name each device by CDI"),
    constrain("DeviceIDs", lines, "CDI names: VENDOR/CLASS=NAME"),
    *deny(
        "Capabilities",
        anything,
        "the runtime's own hooks would choose the devices",
        "device.driver",
        "name each device by CDI",
    ),
    *deny("Options", members, "options of a driver", "device.driver"),
)

PORT_BINDING = (
    mutate("HostIp", text, "loopback where unset"),
    constrain("HostPort", text, "one port, or a range by the policy; unset: any free one"),
)

MOUNT = (
    constrain("Type", text, "bind, volume or tmpfs; config or secret from the controller", "type"),
    constrain(
        "Source", text, "a path of the host, or a volume's, Config's or Secret's name", "source"
    ),
    constrain("Target", text, "a clean path in the container", "target"),
    allow("ReadOnly", flag, "encouraged", "read_only"),
    drop("Consistency", text, "macOS only"),
    constrain("BindOptions", an_object, "see its own table"),
    constrain("VolumeOptions", an_object, "see its own table"),
    constrain("TmpfsOptions", an_object, "see its own table"),
    constrain("Trimtab", an_object, "the files of a Config or Secret, see its own table"),
    *deny("ImageOptions", structure, "images aren't mounted here", "mount.type"),
    *deny("ClusterOptions", anything, "cluster volumes aren't mounted here", "mount.type"),
)

#: Of a mount of type config or secret. The gate replaces such a mount by a bind of its own folder.
FILE_OPTIONS = (
    mutate("Content", text, "the id of a delivered content", "content"),
    mutate("Uid", whole, "the owner of the files", "uid"),
    mutate("Gid", whole, "the group of the files", "gid"),
    mutate("Mode", whole, "the mode of the files", "mode", keep_zero=True),
    mutate("Keys", texts, "the chosen files; all if unset", "keys"),
    mutate("Key", text, "the one file to mount", "key"),
    mutate("Stable", flag, "the folder stays when the content changes", "stable"),
)

BIND_OPTIONS = (
    constrain("Propagation", text, "rprivate", "propagation"),
    *deny("NonRecursive", flag, "mounts below the source would be left out", "mount.options"),
    *deny(
        "CreateMountpoint",
        flag,
        "the engine would make the folder on the host, as root",
        "mount.options",
        "make the folder first",
    ),
    *deny("ReadOnlyNonRecursive", flag, "mounts below it would be writable", "mount.options"),
    *deny("ReadOnlyForceRecursive", flag, "not every host can", "mount.options"),
)

VOLUME_OPTIONS = (
    allow("NoCopy", flag, "leaves an empty volume empty", "no_copy"),
    drop("Labels", text_members, "the volume exists already, with its own"),
    constrain("Subpath", text, "clean and relative", "subpath"),
    constrain("DriverConfig", an_object, "see its own table"),
)

DRIVER_CONFIG = (
    constrain("Name", text, "local"),
    *deny(
        "Options",
        members,
        "a local volume with options can mount anything of the host",
        "volume.options",
        "create the volume without options first, then mount it by name",
    ),
)

TMPFS_OPTIONS = (
    mutate("SizeBytes", whole, "the policy's default where unset", "size"),
    constrain("Mode", whole, "permission bits", "mode"),
    *deny("Options", anything, "they allow exec, suid and dev again", "mount.options"),
)

NETWORKING_CONFIG = (mutate("EndpointsConfig", members, "networks to join"),)

ENDPOINT = (
    constrain("Aliases", lines, "the container's own names", "aliases"),
    constrain("IPAMConfig", anything, "an IPv4 address, where the policy allows it"),
    *deny("Links", lines, "names of other containers could be taken", "network.links"),
    *deny("MacAddress", text, "a chosen address can pose as another's", "network.address"),
    *deny("DriverOpts", members, "they set sysctls", "network.options"),
    *deny("GwPriority", whole, "it chooses the default gateway", "network.options"),
    *deny(
        "NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames",
        anything,
        "the engine assigns it",
        "network.address",
    ),
)

ENDPOINT_IPAM = (
    constrain("IPv4Address", text, "of a network of one's own, where the policy allows it"),
    *deny("IPv6Address", text, "a chosen address can pose as another's", "network.address"),
    *deny("LinkLocalIPs", lines, "a chosen address can pose as another's", "network.address"),
)

NETWORK = (
    constrain("Name", text, "letters, digits, _ . -", "name"),
    drop("CheckDuplicate", flag, "names are unique here anyway"),
    constrain("Driver", text, "bridge", "driver"),
    mutate("Internal", flag, "always, for clients", "internal"),
    constrain("Options", map_of(text), "masquerading and inter-container traffic"),
    mutate("Labels", text_members, "completed with the gate's own"),
    constrain("Scope", text, "local"),
    constrain("EnableIPv4", flag, "true", keep_zero=True),
    constrain("EnableIPv6", flag, "where the policy allows it", "ipv6"),
    *deny("Attachable Ingress", flag, "swarm only", "network.kind"),
    *deny("ConfigOnly", flag, "settings for other networks", "network.kind"),
    *deny("ConfigFrom", structure, "it takes over another network's settings", "network.kind"),
    constrain("IPAM", an_object, "the engine's default"),
)

IPAM = (
    constrain("Driver", text, "default"),
    constrain("Config", list_of(anything), "within ranges that the policy lists"),
    *deny("Options", members, "a driver's own options", "network.options"),
)

IPAM_CONFIG = (
    constrain("Subnet", text, "an IPv4 network within a range that the policy lists", "subnet"),
    constrain("IPRange", text, "within the subnet", "ip_range"),
    constrain("Gateway", text, "an address of the subnet", "gateway"),
    *deny("AuxiliaryAddresses", members, "addresses for others", "network.address"),
)

VOLUME = (
    constrain("Name", text, "letters, digits, _ . -", "name"),
    constrain("Driver", text, "local", "driver"),
    constrain("DriverOpts", text_members, "size alone, where the host can bound it"),
    *deny("Opts", members, "the old name of DriverOpts", "volume.options"),
    *deny("ClusterVolumeSpec", anything, "swarm only", "volume.driver"),
    mutate("Labels", text_members, "completed with the gate's own"),
)

CONNECT = (
    constrain("Container", text, "a container of ours", "container"),
    constrain("EndpointConfig", an_object, "see its own table"),
)

#: The environment of a further process in a container: of an exec, or of a hook.
PROCESS = (
    constrain("Env", texts, "NAME=value, bounded; some names choose code", "env"),
    constrain(
        "WorkingDir",
        text,
        "absolute; file descriptors of the runtime can leak through it",
        "working_dir",
    ),
)

EXEC = (
    constrain("Cmd", texts, "what to run: not empty, bounded", "command"),
    constrain(
        "User", text, "unset is the container's own; root where the policy allows it", "user"
    ),
    *deny(
        "Privileged",
        flag,
        "it has every capability of the host, whatever the container has",
        "exec.privileged",
    ),
    *PROCESS,
    *TERMINAL,
    constrain("ConsoleSize", list_of(whole), "height and width of the terminal"),
    constrain("DetachKeys", text, "a sequence of keys", "detach_keys", spelling="detachKeys"),
    drop("Detach", flag, "given by the start"),
    drop("Container", text, "given by the path"),
)

HOOKS = (
    constrain("PostStart", list_of(anything), "after each start through the gate, at most 8"),
    constrain("PreStop", list_of(anything), "before each stop through the gate, at most 8"),
)

SHARES = (
    constrain("Service", text, "of the same namespace and owner", "service"),
    constrain("Network", flag, "if the policy allows it", "network"),
    constrain("Ipc", flag, "if the policy allows it", "ipc"),
    constrain("Pid", flag, "if the policy allows it", "pid"),
    constrain("Host", flag, "of an observer, by an exception of the policy", "host"),
)

HOOK = (
    constrain("Cmd", command, "what the hook runs, bounded", "command"),
    constrain("User", text, "a name or id; root where the policy allows it", "user"),
    *PROCESS,
    constrain("TimeoutMs", whole, "1000 to 60000", "timeout_ms"),
    *deny("Privileged", flag, "a privileged command is root on the host", "hook.privileged"),
)

EXEC_START = (
    allow("Detach", flag, "the start does not wait for the end", "detach"),
    allow("Tty", flag, "the form of the output", "tty"),
    constrain("ConsoleSize", list_of(whole), "height and width of the terminal"),
    drop("hijack", flag, "an option of dockerode itself"),
    drop("stdin", flag, "an option of dockerode itself"),
)

DISCONNECT = (
    constrain("Container", text, "a container of ours", "container"),
    constrain("Force", flag, "disconnects even if the container is gone", "force"),
)
