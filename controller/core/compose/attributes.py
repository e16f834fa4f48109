"""The table of the attributes of the Compose Specification.

For each attribute: how its value is read, the field of a Service that has it, and what is said about it.
An attribute without a row is an error, so that none is ignored in silence. docs/compose.md tells people
what becomes of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.core.compose.nodes import ComposeNode, Fault, NodePath, PathTable, ReadingReport
from controller.core.compose.values import (
    COMMAND,
    COUNT,
    DURATION,
    FLAG,
    GRACE,
    HOSTS,
    INTEGER,
    LIMIT,
    MAPPING,
    MODE,
    NATURAL,
    NUMBER,
    SIZE,
    TEXTS,
    VARIABLES,
    WRITTEN,
    ValueForm,
)
from controller.core.compose.variables import Cast, to_integer
from controller.core.engine_api.container_fields import FIELDS, in_bytes
from controller.core.engine_api.field_reader import flag, text, whole


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row of the table."""

    #: Such as ``services.*.healthcheck.test``; ``*`` is a name that users choose. Lists have no part.
    path: str
    #: How the value is read. None: it has no effect, it is refused, or its attributes have rows.
    form: ValueForm | None = None
    #: The field below ``spec`` of a Service for the value; '' if the translation does more than that.
    field: str = ""
    #: Why the attribute is refused, and what to do instead; '' for an attribute that isn't refused.
    refusal: str = ""
    remedy: str = ""
    #: What is said to a project with the attribute.
    warning: str = ""
    #: The row is also for all attributes below.
    whole: bool = False


def known(names: str) -> Iterator[Attribute]:
    """Yield the rows of attributes without a form."""
    return map(Attribute, names.split())


def refused(path: str, refusal: str, remedy: str) -> Attribute:
    """Return the row of a refused attribute."""
    return Attribute(path, refusal=refusal, remedy=remedy)


def announced(path: str, warning: str, form: ValueForm | None = None) -> Attribute:
    """Return the row of an attribute that a project gets a warning for."""
    return Attribute(path, form, warning=warning)


_PROJECT: Final = (
    *known(
        "version name services include.** models.** networks networks.*.driver networks.*.ipam "
        "networks.*.external.name networks.*.attachable volumes volumes.*.driver "
        "volumes.*.external.name secrets secrets.*.name secrets.*.file secrets.*.external.name "
        "configs configs.*.name configs.*.content configs.*.environment configs.*.file "
        "configs.*.external.name x-trimtab.**"
    ),
    announced("networks.*.name", "the engine's name is NAMESPACE.NETWORK"),
    Attribute("networks.*.driver_opts", MAPPING),
    announced(
        "networks.*.ipam.config.**",
        "the subnet counts where a service has an ipv4_address there, or with enable_ipv6; else the engine chooses one",
    ),
    refused("networks.*.ipam.driver", "the engine's own address management is used", "remove it"),
    refused("networks.*.ipam.options", "the engine's own address management is used", "remove it"),
    Attribute("networks.*.external", FLAG),
    Attribute("networks.*.internal", FLAG),
    announced("networks.*.enable_ipv4", "networks have IPv4 addresses", FLAG),
    announced(
        "networks.*.enable_ipv6",
        "with an IPv6 subnet in ipam, by a grant of the policy (networks.ipv6)",
        FLAG,
    ),
    Attribute("networks.*.labels", MAPPING),
    announced("volumes.*.name", "the engine's name is NAMESPACE.VOLUME"),
    Attribute("volumes.*.driver_opts", MAPPING),
    Attribute("volumes.*.external", FLAG),
    Attribute("volumes.*.labels", MAPPING),
    refused(
        "secrets.*.environment",
        "a value of .env is plain text in the project",
        "write file: NAME, and put the value below /etc/trimtab/secrets",
    ),
    Attribute("secrets.*.external", FLAG),
    Attribute("secrets.*.labels", MAPPING),
    refused("secrets.*.driver", "of Swarm", "write file: NAME"),
    refused("secrets.*.driver_opts", "of Swarm", "write file: NAME"),
    refused("secrets.*.template_driver", "of Swarm", "write the finished file"),
    Attribute("configs.*.external", FLAG),
    Attribute("configs.*.labels", MAPPING),
    refused("configs.*.template_driver", "of Swarm", "write the finished file"),
)
_SERVICE: Final = (
    *known(
        "attach build build.context build.dockerfile build.dockerfile_inline build.target "
        "build.network build.platforms build.no_cache build.cache_from build.cache_to "
        "build.tags build.provenance build.sbom cap_add cap_drop configs configs.source "
        "configs.target configs.uid configs.gid container_name depends_on "
        "depends_on.*.condition deploy deploy.mode deploy.endpoint_mode deploy.update_config "
        "deploy.update_config.failure_action deploy.update_config.order deploy.rollback_config "
        "deploy.rollback_config.failure_action deploy.rollback_config.max_failure_ratio "
        "deploy.rollback_config.order deploy.resources deploy.resources.limits "
        "deploy.resources.reservations deploy.resources.reservations.cpus "
        "deploy.resources.reservations.generic_resources.** "
        "deploy.resources.reservations.devices "
        "deploy.resources.reservations.devices.capabilities "
        "deploy.resources.reservations.devices.device_ids "
        "deploy.resources.reservations.devices.driver deploy.restart_policy "
        "deploy.restart_policy.condition deploy.placement.** devices devices.source "
        "devices.target devices.permissions develop.** env_file.** label_file expose extends.** "
        "gpus gpus.capabilities gpus.device_ids gpus.driver healthcheck healthcheck.test image "
        "ipc links logging logging.driver network_mode networks networks.*.aliases "
        "networks.*.ipv4_address networks.*.priority networks.*.gw_priority pid ports "
        "ports.name ports.mode ports.host_ip ports.published ports.protocol ports.app_protocol "
        "post_start post_start.user post_start.working_dir pre_stop pre_stop.user "
        "pre_stop.working_dir pre_start pre_start.image pre_start.user pre_start.working_dir "
        "profiles pull_policy restart security_opt secrets secrets.source secrets.target "
        "secrets.uid secrets.gid tmpfs ulimits.*.soft ulimits.*.hard uts volumes volumes.type "
        "volumes.source volumes.target volumes.consistency volumes.bind volumes.volume "
        "volumes.volume.labels volumes.volume.subpath volumes.tmpfs volumes_from"
    ),
    refused("annotations", "annotations configure runtimes past the gate", "write labels"),
    Attribute("build.args", VARIABLES),
    Attribute("build.labels", MAPPING),
    Attribute("build.shm_size", SIZE),
    Attribute("build.pull", FLAG),
    refused(
        "build.additional_contexts.**",
        "only BuildKit has several contexts",
        "copy the files into the context",
    ),
    refused("build.entitlements", "a build has no privilege", "remove it"),
    refused("build.extra_hosts", "a build resolves names as the engine does", "remove it"),
    refused("build.isolation", "of Windows", "remove it"),
    refused("build.privileged", "a build has no privilege", "remove it"),
    refused(
        "build.secrets.**",
        "only BuildKit keeps a secret out of the image",
        "fetch the files before the build",
    ),
    refused("build.ssh", "only BuildKit has an agent", "clone before the build, into the context"),
    refused("build.ulimits.**", "the policy bounds builds", "remove it"),
    refused("blkio_config.**", "limits of input and output are not supported yet", "remove it"),
    announced(
        "cgroup",
        "the engine's default: private with version 2 of cgroups, the host's with version 1. host is refused",
    ),
    refused("cgroup_parent", "limits would be those of another group", "remove it"),
    Attribute("command", COMMAND),
    Attribute("configs.mode", NATURAL),
    refused("cpu_count", "of Windows", "write cpus"),
    refused("cpu_percent", "of Windows", "write cpus"),
    refused("cpu_quota", "a second way to write cpus", "write cpus"),
    refused("cpu_period", "a second way to write cpus", "write cpus"),
    refused("cpu_rt_period", "real-time processes can stall the host", "remove it"),
    refused("cpu_rt_runtime", "real-time processes can stall the host", "remove it"),
    Attribute("cpus", NUMBER, "resources.cpus"),
    refused("credential_spec.**", "of Windows", "remove it"),
    Attribute("depends_on.*.restart", FLAG),
    Attribute("depends_on.*.required", FLAG),
    Attribute("deploy.replicas", INTEGER),
    Attribute("deploy.labels", MAPPING),
    Attribute("deploy.update_config.parallelism", NATURAL),
    Attribute("deploy.update_config.delay", DURATION),
    Attribute("deploy.update_config.monitor", DURATION),
    Attribute("deploy.update_config.max_failure_ratio", NUMBER),
    Attribute("deploy.rollback_config.parallelism", NATURAL),
    Attribute("deploy.rollback_config.delay", DURATION),
    Attribute("deploy.rollback_config.monitor", DURATION),
    Attribute("deploy.resources.limits.cpus", NUMBER, "resources.cpus"),
    Attribute("deploy.resources.limits.memory", SIZE, "resources.memory"),
    Attribute("deploy.resources.limits.pids", LIMIT, "resources.pids"),
    Attribute("deploy.resources.reservations.memory", SIZE, "resources.memoryReservation"),
    Attribute("deploy.restart_policy.delay", DURATION),
    Attribute("deploy.restart_policy.max_attempts", NATURAL),
    Attribute("deploy.restart_policy.window", DURATION),
    Attribute("deploy.resources.reservations.devices.count", COUNT),
    Attribute("deploy.resources.reservations.devices.options", MAPPING),
    refused("device_cgroup_rules", "a rule can open any device", "write devices, and grant them"),
    Attribute("dns", TEXTS, "dns.servers"),
    Attribute("dns_opt", TEXTS, "dns.options"),
    Attribute("dns_search", TEXTS, "dns.search"),
    Attribute("entrypoint", COMMAND),
    Attribute("environment", VARIABLES),
    refused("external_links", "containers of others have no names here", "put both in one project"),
    Attribute("extra_hosts", HOSTS, "extraHosts"),
    Attribute("group_add", TEXTS, "groupAdd"),
    Attribute("gpus.count", COUNT),
    Attribute("gpus.options", MAPPING),
    announced("healthcheck.disable", "a check of the image itself stays in force", FLAG),
    Attribute("healthcheck.interval", DURATION),
    Attribute("healthcheck.retries", NATURAL),
    Attribute("healthcheck.timeout", DURATION),
    Attribute("healthcheck.start_period", DURATION),
    Attribute("healthcheck.start_interval", DURATION),
    refused("isolation", "of Windows", "remove it"),
    Attribute("labels", MAPPING, "containerLabels"),
    Attribute("logging.options", MAPPING),
    refused("mac_address", "an address of the engine's choice is used", "remove it"),
    refused("mem_swappiness", "swap is never used", "remove it"),
    announced("memswap_limit", "swap is never used", SIZE),
    refused("models.**", "models need a runner in the engine", "run the model in a service"),
    refused("networks.*.interface_name", "the engine names interfaces", "remove it"),
    refused("networks.*.ipv6_address", "the engine chooses addresses", "use the service's name"),
    refused("networks.*.link_local_ips", "the engine chooses addresses", "use the service's name"),
    refused("networks.*.mac_address", "an address of the engine's choice is used", "remove it"),
    refused(
        "networks.*.driver_opts", "options of the driver can open ways around the gate", "remove it"
    ),
    refused("oom_kill_disable", "a process without memory could block the host", "remove it"),
    Attribute("pids_limit", LIMIT, "resources.pids"),
    announced("platform", "the engine takes the image's variant for the host"),
    Attribute("ports.target", NATURAL),
    Attribute("post_start.command", COMMAND),
    refused("post_start.privileged", "a privileged command is root on the host", "remove it"),
    Attribute("post_start.environment", VARIABLES),
    Attribute("pre_stop.command", COMMAND),
    refused("pre_stop.privileged", "a privileged command is root on the host", "remove it"),
    Attribute("pre_stop.environment", VARIABLES),
    Attribute("pre_start.command", COMMAND),
    refused("pre_start.privileged", "a privileged command is root on the host", "remove it"),
    Attribute("pre_start.environment", VARIABLES),
    refused(
        "pre_start.per_replica",
        "a step runs once for all replicas",
        "put the work of each replica into entrypoint or post_start",
    ),
    refused(
        "privileged", "a privileged container is root on the host", "add the capabilities it needs"
    ),
    refused("provider.**", "a provider is a program outside the gate", "run it by hand"),
    announced("pull_refresh_after", "a tag is resolved at a new revision alone"),
    Attribute("scale", INTEGER),
    Attribute("shm_size", SIZE, "resources.shm"),
    Attribute("secrets.mode", NATURAL),
    Attribute("sysctls", MAPPING, "sysctls"),
    Attribute("stop_grace_period", GRACE, "stopGracePeriod"),
    Attribute("storage_opt", MAPPING),
    Attribute("ulimits", WRITTEN, "ulimits"),
    refused(
        "use_api_socket", "the engine's socket is root on the host", "use a client of the gate"
    ),
    refused("userns_mode", "a namespace of the host is never shared", "remove it"),
    Attribute("volumes.read_only", FLAG),
    refused("volumes.bind.propagation", "mounts would appear on the host", "remove it"),
    Attribute("volumes.bind.create_host_path", FLAG),
    refused("volumes.bind.recursive", "mounts below are not told apart", "remove it"),
    announced("volumes.bind.selinux", "files of the host are not relabelled"),
    Attribute("volumes.volume.nocopy", FLAG),
    Attribute("volumes.tmpfs.size", SIZE),
    Attribute("volumes.tmpfs.mode", MODE),
    refused(
        "volumes.image.**",
        "mounts of images are not supported",
        "copy the files into an image or a volume",
    ),
)


#: The form of an attribute with the value of a field, by the reader of the field's member.
_FORMS: Final[Mapping[object, ValueForm]] = {flag: FLAG, text: WRITTEN, whole: INTEGER}
#: The attributes of services, those with the value of a container's field too.
_OF_SERVICES: Final = (
    *_SERVICE,
    *(
        Attribute(
            field.compose,
            SIZE if field.show is in_bytes else _FORMS[field.gate.read],
            field.document.removeprefix("spec."),
        )
        for field in FIELDS
        if field.document and field.compose not in {row.path for row in _SERVICE} | {""}
        if field.gate.read in _FORMS
    ),
)


def _rows() -> Iterator[Attribute]:
    for row in (*_PROJECT, *(replace(row, path=f"services.*.{row.path}") for row in _OF_SERVICES)):
        path = row.path.removesuffix(".**")
        yield replace(row, path=path, whole=path != row.path)


ROWS: Final = tuple(_rows())
#: The rows by their paths.
ATTRIBUTES: Final = PathTable({row.path: row for row in ROWS})
#: The attributes of services whose values are fields, by the parts of their paths in a service.
FIELD_ROWS: Final = tuple((tuple(row.path.split(".")), row) for row in _OF_SERVICES if row.field)
#: Where variables in strings make numbers and booleans.
CASTS: Final[PathTable[Cast]] = PathTable(
    {
        **{row.path: row.form.cast for row in ROWS if row.form and row.form.cast},
        **dict.fromkeys(
            (f"services.*.ulimits.*{end}" for end in ("", ".soft", ".hard")), to_integer
        ),
    }
)


def attribute_at(path: str) -> Attribute | None:
    """Return the row of an attribute, or of the nearest attribute above with a row for all members."""
    table: PathTable[Attribute] | None = ATTRIBUTES
    for part in path.split("."):
        table = table.below(part) if table is not None else None
        if table is None or (table.rule is not None and table.rule.whole):
            break
    return table.rule if table is not None else None


def read_values(root: ComposeNode, report: ReadingReport) -> None:
    """Read the values of a tree by their forms, in place. A value with a problem stays as it is."""
    _read(root, ATTRIBUTES, (), report)


def _read(
    node: ComposeNode, table: PathTable[Attribute], path: NodePath, report: ReadingReport
) -> None:
    for name, member in node.members.items():
        below = table.below(name)
        if below is None:
            continue
        row, inner = below.rule, (*path, name)
        if row is not None and row.form is not None and member.value is not None:
            try:
                member.value = row.form.read(member, inner, report)
            except Fault as fault:
                report.add(fault.problem)
        elif isinstance(member.value, list):
            for number, item in enumerate(member.value):
                _read(item, below, (*inner, number), report)
        else:
            _read(member, below, inner, report)
