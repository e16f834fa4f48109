"""The attributes of a Compose project, each with its converter, as Compose 2.26 prints them."""

from __future__ import annotations

from controller.core.compose.forms.typed import (
    Convert,
    Target,
    always,
    command,
    device_count,
    duration,
    environment,
    flag,
    fraction,
    health_test,
    hosts,
    integer,
    list_of,
    mapping,
    mapping_of,
    natural,
    nonzero_duration,
    options,
    size,
    ssh_keys,
    structure,
    text,
    texts,
    ulimit,
)
from controller.core.compose.text.nodes import ComposeNode, ReadingReport


def _fields(convert: Convert, names: str) -> dict[str, Convert]:
    return dict.fromkeys(names.split(), convert)


def _as_written(node: ComposeNode, _target: Target) -> ComposeNode:
    """Keep the value of a refused attribute as written."""
    return node


_ULIMITS = mapping_of(ulimit)
_FILE_MOUNTS = list_of(
    structure({**_fields(text, "source target uid gid"), "mode": always(natural)})
)
_HOOK_FIELDS: dict[str, Convert] = {
    "command": command,
    "environment": environment,
    "privileged": flag,
    **_fields(text, "user working_dir"),
}
_HOOK = structure(_HOOK_FIELDS, defaults={"command": None})
_FIRST_HOOK = structure(
    {**_HOOK_FIELDS, "image": text, "per_replica": always(flag)}, defaults={"command": None}
)
_DEVICE_REQUESTS = list_of(
    structure(
        {
            **_fields(texts, "capabilities device_ids"),
            "count": device_count,
            "driver": text,
            "options": mapping,
        }
    )
)
_RATES = list_of(
    structure(
        {"path": text, "rate": size},
        renamed={"path": "Path", "rate": "Rate"},
        defaults={"Path": "", "Rate": "0"},
    )
)
_BUILD = structure(
    {
        **_fields(text, "context dockerfile dockerfile_inline isolation network target"),
        **_fields(texts, "entitlements cache_from cache_to tags platforms"),
        **_fields(flag, "no_cache pull privileged"),
        "args": environment,
        "labels": mapping,
        "additional_contexts": mapping,
        "extra_hosts": hosts,
        "secrets": _FILE_MOUNTS,
        "shm_size": size,
        "ssh": ssh_keys,
        "ulimits": _ULIMITS,
    }
)
_UPDATE = structure(
    {
        "parallelism": always(natural),
        **_fields(nonzero_duration, "delay monitor"),
        **_fields(text, "failure_action order"),
        "max_failure_ratio": fraction,
    }
)
_RESOURCE = structure(
    {
        "cpus": fraction,
        "memory": size,
        "pids": integer,
        "devices": _DEVICE_REQUESTS,
        "generic_resources": list_of(
            structure(
                {
                    "discrete_resource_spec": structure(
                        {"kind": always(text), "value": always(integer)},
                        defaults={"kind": "", "value": 0},
                    )
                }
            )
        ),
    }
)
_DEPLOY_FIELDS = structure(
    {
        **_fields(text, "mode endpoint_mode"),
        "replicas": always(integer),
        "labels": mapping,
        **_fields(_UPDATE, "update_config rollback_config"),
        "resources": structure(_fields(_RESOURCE, "limits reservations")),
        "restart_policy": structure(
            {
                "condition": text,
                **_fields(duration, "delay window"),
                "max_attempts": always(natural),
            }
        ),
        "placement": structure(
            {
                "constraints": texts,
                "preferences": list_of(structure({"spread": text})),
                "max_replicas_per_node": natural,
            }
        ),
    }
)


def _deploy(node: ComposeNode, target: Target) -> ComposeNode | None:
    converted = _DEPLOY_FIELDS(node, target)
    if converted is not None:
        for name in ("resources", "placement"):
            converted.members.setdefault(name, node.at({}))
    return converted


_VOLUMES = list_of(
    structure(
        {
            **_fields(text, "type source target consistency"),
            "read_only": flag,
            "bind": structure(
                {
                    **_fields(text, "selinux propagation recursive"),
                    "create_host_path": flag,
                }
            ),
            "volume": structure({"nocopy": flag, "subpath": text}),
            "tmpfs": structure({"size": size, "mode": natural}),
        }
    )
)
_WATCH = list_of(
    structure(
        {
            **_fields(always(text), "path action"),
            "target": text,
            "exec": _HOOK,
            "ignore": texts,
        }
    )
)


def _develop(node: ComposeNode, target: Target) -> ComposeNode | None:
    converted = structure({"watch": _WATCH})(node, target)
    watch = converted.get("watch") if converted is not None else None
    for rule in watch.items if watch is not None else ():
        action = rule.members.setdefault("exec", rule.at({}))
        action.members.setdefault("command", rule.at(None))
    return converted


#: Every attribute of a service but ``extends``, by name.
SERVICE_FIELDS: dict[str, Convert] = {
    **_fields(
        text,
        "cgroup_parent cgroup cpuset container_name dockerfile domainname hostname image ipc "
        "isolation log_driver mac_address net network_mode pid platform pull_policy "
        "pull_refresh_after restart runtime stop_signal user userns_mode uts volume_driver working_dir",
    ),
    **_fields(
        texts,
        "profiles cap_add cap_drop device_cgroup_rules dns dns_opt dns_search expose "
        "external_links group_add links security_opt tmpfs volumes_from",
    ),
    **_fields(flag, "oom_kill_disable privileged read_only stdin_open tty use_api_socket"),
    **_fields(always(flag), "attach init"),
    **_fields(
        integer,
        "cpu_count cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares oom_score_adj "
        "pids_limit",
    ),
    **_fields(fraction, "cpu_percent cpus"),
    **_fields(size, "mem_limit mem_reservation memswap_limit mem_swappiness shm_size"),
    **_fields(mapping, "annotations labels sysctls"),
    **_fields(options, "log_opt storage_opt"),
    **_fields(command, "command entrypoint"),
    **_fields(_FILE_MOUNTS, "configs secrets"),
    "pre_start": list_of(_FIRST_HOOK),
    **_fields(list_of(_HOOK), "post_start pre_stop"),
    "blkio_config": structure(
        {
            "weight": natural,
            "weight_device": list_of(
                structure(
                    {"path": text, "weight": natural},
                    renamed={"path": "Path", "weight": "Weight"},
                    defaults={"Path": "", "Weight": 0},
                )
            ),
            **_fields(
                _RATES, "device_read_bps device_read_iops device_write_bps device_write_iops"
            ),
        }
    ),
    "build": _BUILD,
    "credential_spec": structure(_fields(text, "config file registry")),
    "depends_on": mapping_of(
        structure({"condition": text, "restart": flag, "required": always(flag)})
    ),
    "deploy": _deploy,
    "develop": _develop,
    "devices": list_of(structure(_fields(text, "source target permissions"))),
    "env_file": list_of(structure({**_fields(text, "path format"), "required": always(flag)})),
    "environment": environment,
    "extra_hosts": hosts,
    "gpus": _DEVICE_REQUESTS,
    "healthcheck": structure(
        {
            "test": health_test,
            **_fields(duration, "timeout interval start_period start_interval"),
            "retries": always(natural),
            "disable": flag,
        }
    ),
    "label_file": texts,
    **_fields(_as_written, "models provider"),
    "logging": structure({"driver": text, "options": mapping}),
    "networks": mapping_of(
        structure(
            {
                **_fields(integer, "priority gw_priority"),
                **_fields(texts, "aliases link_local_ips"),
                **_fields(text, "interface_name ipv4_address ipv6_address mac_address"),
                "driver_opts": mapping,
            }
        )
    ),
    "ports": list_of(
        structure(
            {
                **_fields(text, "name mode host_ip published protocol app_protocol"),
                "target": natural,
            }
        )
    ),
    "scale": always(integer),
    "stop_grace_period": duration,
    "ulimits": _ULIMITS,
    "volumes": _VOLUMES,
}
_SERVICE = structure(SERVICE_FIELDS, defaults={"command": None, "entrypoint": None})


_NETWORK_FIELDS = structure(
    {
        **_fields(text, "name driver"),
        "driver_opts": mapping,
        "ipam": structure(
            {
                "driver": text,
                "config": list_of(
                    structure(
                        {**_fields(text, "subnet gateway ip_range"), "aux_addresses": mapping}
                    )
                ),
            }
        ),
        **_fields(flag, "external internal attachable"),
        "labels": mapping,
        **_fields(always(flag), "enable_ipv4 enable_ipv6"),
    }
)


def _network(node: ComposeNode, target: Target) -> ComposeNode | None:
    converted = _NETWORK_FIELDS(node, target)
    if converted is not None:
        converted.members.setdefault("ipam", node.at({}))
    return converted


_FILE_OBJECT: dict[str, Convert] = {
    **_fields(text, "name file environment driver template_driver"),
    "external": flag,
    "labels": mapping,
    "driver_opts": options,
}
SECTIONS: dict[str, Convert] = {
    "services": mapping_of(_SERVICE),
    "networks": mapping_of(_network),
    "volumes": mapping_of(
        structure(
            {
                **_fields(text, "name driver"),
                "driver_opts": mapping,
                "external": flag,
                "labels": mapping,
            }
        )
    ),
    "models": _as_written,
    "secrets": mapping_of(structure(_FILE_OBJECT)),
    "configs": mapping_of(structure({**_FILE_OBJECT, "content": text})),
}


def to_typed(root: ComposeNode, report: ReadingReport) -> ComposeNode:
    """Return the tree with typed values; values with a problem are left out."""
    members: dict[str, ComposeNode] = {}
    for name, member in root.members.items():
        if name.startswith("x-"):
            members[name] = member
        elif name in SECTIONS:
            converted = SECTIONS[name](member, Target((name,), report))
            if converted is not None:
                members[name] = converted
    return root.at(members)
