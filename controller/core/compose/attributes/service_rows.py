"""The rows of the attributes table for services. ``top_rows`` explains the words."""

from __future__ import annotations

from typing import Final

_LIMIT = "the policy has a default and a maximum"
_SWARM = "of Swarm"
_HOST = "a namespace of the host is never shared"
_SHARED = (
    "service:NAME where the policy allows it (security.sharedNamespaces): a sidecar. container: is refused, "
    "and host: " + _HOST
)
_IO = "limits of input and output are not supported yet → remove it"
_GPU = (
    "the CDI names nvidia.com/gpu=all, =INDEX or =ID, by a grant of the policy to the owner; with the "
    "driver cdi the names in device_ids. Other drivers and options are refused"
)
_PRIVILEGED = "a privileged command is root on the host → remove it"

_ROWS: tuple[tuple[str, str, str], ...] = (
    ("annotations", "!", "annotations configure runtimes past the gate → write labels"),
    ("attach", "~", "`trimtab logs` shows every service"),
    (
        "build",
        "~",
        "the policy grants builds (images.build). The classic builder of the engine builds, within its bounds",
    ),
    (
        "build.context",
        "~",
        "a folder of the source. Links out of it are refused, files of Git are left out",
    ),
    (
        "build.dockerfile",
        "~",
        "read before the build: docs/builds.md says which instructions are refused",
    ),
    ("build.dockerfile_inline", "~", "like dockerfile"),
    ("build.args", "=", "values are no secret"),
    ("build.target", "=", "only the stages that it needs are built"),
    ("build.labels", "=", "labels of the image"),
    ("build.network", "~", "none, or default as far as the policy grants it; others are refused"),
    ("build.shm_size", "=", "for the commands of the build"),
    ("build.platforms", "~", "the engine's own; others are refused"),
    ("build.pull", "=", "bases are pulled anew at each build"),
    ("build.no_cache", "~", "no build uses a cache; see docs/builds.md"),
    ("build.cache_from", "~", "ignored: the build is the same, and slower"),
    ("build.cache_to", "~", "ignored"),
    (
        "build.tags",
        "~",
        "ignored: the image has the name of image and a tag with a digest of the build",
    ),
    ("build.provenance", "~", "ignored"),
    ("build.sbom", "~", "ignored"),
    (
        "build.additional_contexts.**",
        "!",
        "only BuildKit has several contexts → copy the files into the context",
    ),
    ("build.entitlements", "!", "a build has no privilege → remove it"),
    ("build.extra_hosts", "!", "a build resolves names as the engine does → remove it"),
    ("build.isolation", "!", "of Windows → remove it"),
    ("build.privileged", "!", "a build has no privilege → remove it"),
    (
        "build.secrets.**",
        "!",
        "only BuildKit keeps a secret out of the image → fetch the files before the build",
    ),
    ("build.ssh", "!", "only BuildKit has an agent → clone before the build, into the context"),
    ("build.ulimits.**", "!", "the policy bounds builds → remove it"),
    ("blkio_config.**", "!", _IO),
    ("cap_add", "~", "asked for beside the default ones; the policy lists what is allowed"),
    (
        "cap_drop",
        "~",
        (
            "everything is dropped first. Without cap_drop the service asks for the capabilities of Docker's "
            "default set that the policy allows"
        ),
    ),
    (
        "cgroup",
        "~!",
        "the engine's default: private with version 2 of cgroups, the host's with version 1. host is refused",
    ),
    ("cgroup_parent", "!", "limits would be those of another group → remove it"),
    ("command", "=", "the arguments"),
    ("configs", "=", "files of Configs, read-only"),
    ("configs.source", "=", "the Config"),
    ("configs.target", "=", "the path in the container; /NAME by default"),
    ("configs.uid", "=", "the owner of the file"),
    ("configs.gid", "=", "the group of the file"),
    ("configs.mode", "~", "the mode without the right to write; 0444 by default"),
    (
        "container_name",
        "~",
        (
            "containers are called NAMESPACE.SERVICE.SLOT-REVISION; the name is a further name in the networks "
            "where the policy allows it (networks.serviceAliases)"
        ),
    ),
    ("cpu_count", "!", "of Windows → write cpus"),
    ("cpu_percent", "!", "of Windows → write cpus"),
    ("cpu_shares", "=", "the weight against other containers"),
    ("cpu_quota", "!", "a second way to write cpus → write cpus"),
    ("cpu_period", "!", "a second way to write cpus → write cpus"),
    ("cpu_rt_period", "!", "real-time processes can stall the host → remove it"),
    ("cpu_rt_runtime", "!", "real-time processes can stall the host → remove it"),
    ("cpus", "~", _LIMIT),
    ("cpuset", "~", "where the policy allows it"),
    ("credential_spec.**", "!", "of Windows → remove it"),
    ("depends_on", "=", "the service waits, and the others start first"),
    (
        "depends_on.*.restart",
        "~",
        "the containers are replaced after those of the dependency; a restart of it alone replaces none",
    ),
    ("depends_on.*.required", "=", "false: a service that isn't in the project counts as there"),
    (
        "depends_on.*.condition",
        "=",
        (
            "service_started, service_healthy, service_completed_successfully. The latter makes a Job of a "
            "service whose restart is no, or isn't written"
        ),
    ),
    ("deploy", "=", "on one host"),
    ("deploy.mode", "~", "replicated; global has one replica; the job modes make a Job"),
    ("deploy.endpoint_mode", "~", "the name resolves to each replica (dnsrr)"),
    ("deploy.replicas", "=", "the number of replicas"),
    ("deploy.labels", "~", "labels of the resource"),
    ("deploy.update_config", "=", "the pace of a rollout; without it the defaults of rollouts"),
    ("deploy.update_config.parallelism", "=", "replicas that are replaced at a time; 0 is all"),
    ("deploy.update_config.delay", "=", "a replacement counts after this time (minHealthy)"),
    (
        "deploy.update_config.failure_action",
        "=",
        "rollback or pause; continue is refused. rollback is the default",
    ),
    ("deploy.update_config.monitor", "=", "a replacement counts after this time (minHealthy)"),
    (
        "deploy.update_config.max_failure_ratio",
        "~",
        "0: the first failure ends the rollout; another ratio is refused",
    ),
    (
        "deploy.update_config.order",
        "=",
        "start-first or stop-first; by default as the service allows",
    ),
    ("deploy.rollback_config", "=", "the pace of a rollback; without it that of the rollout"),
    ("deploy.rollback_config.parallelism", "=", "replicas that are replaced at a time; 0 is all"),
    ("deploy.rollback_config.delay", "=", "a replacement counts after this time (minHealthy)"),
    ("deploy.rollback_config.failure_action", "~", "a rollback that fails is left as it is"),
    ("deploy.rollback_config.monitor", "=", "a replacement counts after this time (minHealthy)"),
    ("deploy.rollback_config.max_failure_ratio", "~", "the first failure ends a rollback"),
    ("deploy.rollback_config.order", "=", "start-first or stop-first"),
    ("deploy.resources", "=", ""),
    ("deploy.resources.limits", "~", _LIMIT),
    ("deploy.resources.limits.cpus", "~", _LIMIT),
    ("deploy.resources.limits.memory", "~", _LIMIT + "; swap is never used"),
    ("deploy.resources.limits.pids", "~", _LIMIT),
    ("deploy.resources.reservations", "=", ""),
    ("deploy.resources.reservations.cpus", "=", "of Swarm, no effect on one host"),
    ("deploy.resources.reservations.memory", "=", "the memory that is left if the host runs short"),
    ("deploy.resources.reservations.generic_resources.**", "=", "of Swarm, no effect on one host"),
    ("deploy.resources.reservations.devices.**", "~", _GPU),
    ("deploy.restart_policy", "=", ""),
    ("deploy.restart_policy.condition", "=", "any, on-failure or none"),
    ("deploy.restart_policy.delay", "~", "the pause grows from 1 s to 300 s"),
    ("deploy.restart_policy.max_attempts", "~", "restarts go on, more slowly each time"),
    ("deploy.restart_policy.window", "~", "the pause is reset after 10 minutes"),
    ("deploy.placement.**", "=", "of Swarm, no effect on one host"),
    ("device_cgroup_rules", "!", "a rule can open any device → write devices, and grant them"),
    ("devices", "~", "by a grant of the policy to the owner"),
    ("devices.source", "~", "by a grant of the policy to the owner"),
    ("devices.target", "=", "the path in the container"),
    ("devices.permissions", "=", "some of r, w and m"),
    ("develop.**", "=", "of `docker compose watch`, no effect on what runs"),
    ("dns", "~", "servers that the policy lists"),
    ("dns_opt", "~", "where the policy allows it"),
    ("dns_search", "~", "where the policy allows it"),
    ("domainname", "=", "the domain name of the container"),
    ("entrypoint", "=", "the program"),
    (
        "env_file.**",
        "=",
        "read into environment; the files are watched. format: raw takes values as they are",
    ),
    ("label_file", "=", "read into labels; the files are watched"),
    (
        "environment",
        "=",
        "the variables. A name without a value is unset: trimtab's own environment never counts",
    ),
    ("expose", "=", "no effect: services of a network reach every port of each other"),
    ("extends.**", "=", "the other service is read into this one"),
    ("external_links", "!", "containers of others have no names here → put both in one project"),
    ("extra_hosts", "~", "where the policy allows it; a name can have several addresses"),
    ("gpus.**", "~", _GPU),
    ("group_add", "~", "where the policy allows it"),
    ("healthcheck", "=", "run by the engine; an unhealthy container is replaced"),
    ("healthcheck.disable", "~!", "a check of the image itself stays in force"),
    ("healthcheck.interval", "=", "30s by default"),
    ("healthcheck.retries", "~", "at most 10; more retries lengthen start_period"),
    (
        "healthcheck.test",
        "~",
        "CMD, CMD-SHELL or a text for /bin/sh. NONE: a check of the image itself stays in force",
    ),
    ("healthcheck.timeout", "=", "30s by default"),
    ("healthcheck.start_period", "~", "30s by default, in place of none"),
    ("healthcheck.start_interval", "=", "the interval during start_period"),
    ("hostname", "=", "the host name of the container"),
    ("image", "~", "an image that the policy allows; its tag is resolved once"),
    ("init", "=", "an init process that reaps and forwards signals"),
    ("ipc", "~", "private, none, and shareable for a service that shares it. " + _SHARED),
    ("isolation", "!", "of Windows → remove it"),
    ("labels", "~", "labels of the container; the policy lists prefixes that are refused"),
    (
        "links",
        "~",
        "the other service starts first; its second name is for all services of the networks",
    ),
    ("logging", "~", "on this host, rotated; elsewhere by a grant of the policy"),
    (
        "logging.driver",
        "~",
        "json-file or local; journald, syslog, fluentd and gelf by a grant of the policy",
    ),
    (
        "logging.options",
        "~",
        "max-size, max-file and compress; of a granted driver, options that the gate judges",
    ),
    ("mac_address", "!", "an address of the engine's choice is used → remove it"),
    ("mem_limit", "~", _LIMIT + "; swap is never used"),
    ("mem_reservation", "=", "the memory that is left if the host runs short"),
    ("mem_swappiness", "!", "swap is never used → remove it"),
    ("memswap_limit", "~!", "swap is never used"),
    ("models.**", "!", "models need a runner in the engine → run the model in a service"),
    (
        "network_mode",
        "~",
        "none; bridge where the policy allows it. " + _SHARED,
    ),
    (
        "networks",
        "=",
        (
            "the service joins these networks alone. `default` is the network of the namespace by the policy "
            "(networks.composeDefault)"
        ),
    ),
    ("networks.*.aliases", "~", "further names, where the policy allows them"),
    ("networks.*.interface_name", "!", "the engine names interfaces → remove it"),
    (
        "networks.*.ipv4_address",
        "~",
        "by a grant of the policy (networks.staticAddresses), with ipam.config.subnet",
    ),
    ("networks.*.ipv6_address", "!", "the engine chooses addresses → use the service's name"),
    ("networks.*.link_local_ips", "!", "the engine chooses addresses → use the service's name"),
    ("networks.*.mac_address", "!", "an address of the engine's choice is used → remove it"),
    (
        "networks.*.driver_opts",
        "!",
        "options of the driver can open ways around the gate → remove it",
    ),
    ("networks.*.priority", "~", "the networks are joined in the order of their names"),
    ("networks.*.gw_priority", "~", "a published port leads through the ingress network"),
    ("oom_kill_disable", "!", "a process without memory could block the host → remove it"),
    ("oom_score_adj", "~", "below 0 where the policy allows it (resources.oomScoreAdjMin)"),
    ("pid", "~", "private. " + _SHARED),
    ("pids_limit", "~", _LIMIT),
    ("platform", "~!", "the engine takes the image's variant for the host"),
    ("ports", "~", "published on the policy's first address (127.0.0.1) without an address"),
    ("ports.name", "=", "no effect"),
    ("ports.mode", "=", _SWARM + ", no effect on one host"),
    ("ports.host_ip", "~", "an address that the policy lists"),
    ("ports.target", "=", "the port of the container"),
    (
        "ports.published",
        "~",
        "a port that the policy allows. Without it no port is published; a range for one port is refused",
    ),
    ("ports.protocol", "=", "tcp, udp or sctp"),
    ("ports.app_protocol", "=", "no effect"),
    ("post_start", "~", "run after each start by trimtab; the container isn't ready before"),
    ("post_start.command", "=", "the command"),
    ("post_start.user", "~", "root where the policy allows it (exec.root)"),
    ("post_start.privileged", "!", _PRIVILEGED),
    ("post_start.working_dir", "=", "the folder of the command"),
    ("post_start.environment", "=", "further variables"),
    ("pre_stop", "~", "run before each stop by trimtab, within four fifths of stop_grace_period"),
    ("pre_stop.command", "=", "the command"),
    ("pre_stop.user", "~", "root where the policy allows it (exec.root)"),
    ("pre_stop.privileged", "!", _PRIVILEGED),
    ("pre_stop.working_dir", "=", "the folder of the command"),
    ("pre_stop.environment", "=", "further variables"),
    (
        "pre_start",
        "~",
        (
            "each step is a Job, NAME-pre-start-N, that runs before a new revision of the service starts, once for "
            "all replicas, while the old revision still runs. A failure fails the rollout. A step that is changed "
            "alone runs with the next revision"
        ),
    ),
    ("pre_start.command", "=", "the arguments; the image's own without it"),
    ("pre_start.image", "~", "an image that the policy allows; the service's by default"),
    ("pre_start.user", "=", "by default the service's, or the user of the step's own image"),
    ("pre_start.privileged", "!", _PRIVILEGED),
    ("pre_start.working_dir", "=", "by default the service's"),
    ("pre_start.environment", "=", "variables beside those of the service"),
    (
        "pre_start.per_replica",
        "!",
        "a step runs once for all replicas → put the work of each replica into entrypoint or post_start",
    ),
    (
        "privileged",
        "!",
        "a privileged container is root on the host → add the capabilities it needs",
    ),
    ("profiles", "=", "x-trimtab.profiles chooses them"),
    ("provider.**", "!", "a provider is a program outside the gate → run it by hand"),
    (
        "pull_policy",
        "~",
        (
            "always, never, missing, if_not_present; build is refused. refresh, daily, weekly and every_TIME are "
            "always: the tag is looked up for each new revision, not by the clock"
        ),
    ),
    ("pull_refresh_after", "~!", "a tag is resolved at a new revision alone"),
    ("read_only", "=", "a read-only root filesystem"),
    (
        "restart",
        "~",
        (
            "always, unless-stopped: Always. on-failure: OnFailure, without a number of attempts. no: Never. "
            "Not written: Always"
        ),
    ),
    ("runtime", "~", "a runtime that the policy lists"),
    ("scale", "=", "the number of replicas"),
    ("security_opt", "~", "no-new-privileges is always on; other options are refused"),
    ("shm_size", "~", "the policy has a maximum"),
    ("secrets", "=", "files of Secrets, read-only"),
    ("secrets.source", "=", "the Secret"),
    ("secrets.target", "=", "the path in the container; /run/secrets/NAME by default"),
    ("secrets.uid", "=", "the owner of the file"),
    ("secrets.gid", "=", "the group of the file"),
    ("secrets.mode", "~", "the mode without the right to write; 0444 by default"),
    (
        "sysctls",
        "~",
        "settings of the container alone (net.*, fs.mqueue.*, System V IPC) that the policy lists",
    ),
    ("stdin_open", "=", "standard input stays open"),
    ("stop_grace_period", "~", "at most 300s"),
    ("stop_signal", "=", "the signal of a stop"),
    ("storage_opt", "~", "size, where the host's storage can limit it"),
    ("tmpfs", "~", "the policy's default size without a size"),
    ("tty", "=", "a terminal"),
    ("ulimits", "~", "limits that the policy lists, up to its maximum"),
    ("ulimits.*.soft", "~", "the limit in force"),
    ("ulimits.*.hard", "~", "the most that a process can raise it to"),
    ("use_api_socket", "!", "the engine's socket is root on the host → use a client of the gate"),
    ("user", "=", "the user of the processes"),
    ("uts", "~", "private; " + _HOST),
    ("userns_mode", "!", _HOST + " → remove it"),
    ("volumes", "=", "volumes, folders and files"),
    ("volumes.type", "=", "volume, bind, tmpfs; others are refused"),
    (
        "volumes.source",
        "~",
        (
            "a volume; a path of the host that the policy allows; a file, or a small read-only folder, of the project "
            "becomes a Config; another folder of the project, where the policy has mounts.directory"
        ),
    ),
    ("volumes.target", "=", "the path in the container"),
    ("volumes.read_only", "=", "a mount that the container can't change"),
    ("volumes.consistency", "=", "of macOS, no effect"),
    ("volumes.bind", "=", ""),
    ("volumes.bind.propagation", "!", "mounts would appear on the host → remove it"),
    (
        "volumes.bind.create_host_path",
        "~",
        "a missing folder of the project is made; elsewhere a missing path is a problem",
    ),
    ("volumes.bind.recursive", "!", "mounts below are not told apart → remove it"),
    ("volumes.bind.selinux", "~!", "files of the host are not relabelled"),
    ("volumes.volume", "=", ""),
    ("volumes.volume.labels", "~", "no effect"),
    ("volumes.volume.nocopy", "=", "the volume begins empty"),
    ("volumes.volume.subpath", "=", "a folder in the volume"),
    ("volumes.tmpfs", "=", ""),
    ("volumes.tmpfs.size", "~", "the policy has a maximum"),
    ("volumes.tmpfs.mode", "=", "the mode of the folder"),
    (
        "volumes.image.**",
        "!",
        "mounts of images are not supported → copy the files into an image or a volume",
    ),
    (
        "volumes_from",
        "~",
        (
            "the volumes and binds of the other service, where nothing else is mounted; with :ro read-only. Its tmpfs, "
            "configs and secrets aren't, nor volumes that its image declares. container: is refused"
        ),
    ),
    ("working_dir", "=", "the folder of the processes"),
)

#: Rows of path, word and text.
SERVICE_ROWS: Final = tuple((f"services.*.{path}", word, text) for path, word, text in _ROWS)
