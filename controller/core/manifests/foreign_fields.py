"""Remedies for fields of compose, docker and Kubernetes: the line to write instead.

There is a remedy for a key of another tool, for a key on another level, and for a value in the
form of another tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from controller.core.manifests import short_forms
from controller.core.yaml.documents import YamlPath

FieldPath = tuple[str, ...]

_NO_FIELD = "remove it: a Service has no such field"
_MOUNTS = "write mounts: [{type: volume, source: NAME, target: /PATH}]"
_HEALTH = "write healthcheck: {http: {path: /, port: 8080}}, or {exec: [PROGRAM, ARGUMENT]}"
_LIMITS = "write resources: {memory: 512Mi, cpus: 0.5}, without another level"
_MEMORY = "write resources: {memory: 512Mi}"
_PLAIN_LIST = 'write a list with one item for each argument, such as [sh, -c, "COMMAND"]'

#: Keys of other tools by the parent path, below ``spec`` and without the indexes of lists.
_KEYS: Mapping[FieldPath, Mapping[str, str]] = {
    (): {
        "attach": "write network: {attach: [NAME]}",
        "capAdd": "write security: {capAdd: [NAME]}",
        "pids": "write resources: {pids: 128}",
        "readOnlyRootFilesystem": "write security: {readOnlyRootFilesystem: true}",
        "shm": "write resources: {shm: 64Mi}",
        "args": "write command: [ARGUMENT]",
        "cap_add": "write security: {capAdd: [NAME]}",
        "cap_drop": "remove it: all capabilities are dropped, apart from security.capAdd",
        "container_name": "remove it: a container is called SERVICE.SLOT-REVISION",
        "containers": "write the fields of the one container directly below spec",
        "cpu_count": "write resources: {cpus: 0.5}",
        "cpus": "write resources: {cpus: 0.5}",
        "cpu": "write resources: {cpus: 0.5}",
        "depends_on": "write dependsOn: [{name: SERVICE}]",
        "deploy": "write replicas, resources and rollout directly below spec",
        "env_file": "write the variables as env: {NAME: VALUE}",
        "environment": "write env: {NAME: VALUE}",
        "expose": "remove it: services of a namespace reach all ports of each other",
        "extra_hosts": "write extraHosts: {NAME: ADDRESS}",
        "add_host": "write extraHosts: {NAME: ADDRESS}",
        "aliases": "write network: {aliases: [NAME]}",
        "cpu_shares": "write resources: {cpuShares: 512}",
        "cpuset": "write resources: {cpuset: 0-1}",
        "cpuset_cpus": "write resources: {cpuset: 0-1}",
        "device_requests": "write devices: [VENDOR/CLASS=NAME], such as nvidia.com/gpu=all",
        "gpus": "write devices: [nvidia.com/gpu=all], a CDI name",
        "disk": "write resources: {disk: 10Gi}",
        "dns_opt": "write dns: {options: [NAME]}",
        "dns_search": "write dns: {search: [DOMAIN]}",
        "domain_name": "write domainname: example.com",
        "domainName": "write domainname: example.com",
        "group_add": "write groupAdd: [NAME]",
        "hostAliases": "write extraHosts: {NAME: ADDRESS}",
        "host_name": "write hostname: NAME",
        "mem_reservation": "write resources: {memoryReservation: 256Mi}",
        "mem_swappiness": "remove it: containers use no swap",
        "memswap_limit": "remove it: containers use no swap",
        "oom_kill_disable": "remove it: no policy admits it",
        "oom_score_adj": "write oomScoreAdj: 100",
        "pid": "write shares: {service: NAME, pid: true}, where the policy admits it",
        "runtime": "write security: {runtime: NAME}",
        "stdin_open": "write stdin: true",
        "storage_opt": "write resources: {disk: 10Gi}",
        "supplementalGroups": "write groupAdd: [NAME]",
        "userns_mode": "remove it: no policy admits it",
        "uts": "remove it: no policy admits it",
        "health": _HEALTH,
        "healthCheck": _HEALTH,
        "imagePullPolicy": "write pullPolicy: IfNotPresent",
        "labels": "write containerLabels: {KEY: VALUE}, or metadata.labels",
        "livenessProbe": _HEALTH,
        "logging": "write logs: {maxSize: 10Mi, maxFiles: 3}",
        "mem_limit": _MEMORY,
        "memory": _MEMORY,
        "memory_limit": _MEMORY,
        "network_mode": "write network: {mode: isolated}, or bridge, or none; shares: {service: NAME, network: true}",
        "networks": "write network: {attach: [NAME]}",
        "pids_limit": "write resources: {pids: 128}",
        "privileged": "remove it: no policy admits a privileged container",
        "pull_policy": "write pullPolicy: IfNotPresent",
        "read_only": "write security: {readOnlyRootFilesystem: true}",
        "readinessProbe": _HEALTH,
        "restartPolicy": "write restart: {policy: Always}",
        "restart_policy": "write restart: {policy: Always}",
        "scale": "write replicas: 2",
        "securityContext": "write user, and security: {capAdd: [NAME]}",
        "security_opt": "remove it: no-new-privileges is always set",
        "selector": _NO_FIELD,
        "shm_size": "write resources: {shm: 64Mi}",
        "stop_grace_period": "write stopGracePeriod: 10s",
        "stop_signal": "write stopSignal: SIGTERM",
        "strategy": "write rollout: {order: StartFirst}",
        "template": "write the fields of the one container directly below spec",
        "terminationGracePeriodSeconds": "write stopGracePeriod: 30s",
        "tmpfs": "write mounts: [{type: tmpfs, target: /PATH, size: 64Mi}]",
        "update_config": "write rollout: {order: StartFirst}",
        "volumes": _MOUNTS,
        "volumeMounts": _MOUNTS,
        "working_dir": "write workingDir: /PATH",
    },
    ("healthcheck",): {
        "command": "write exec: [PROGRAM, ARGUMENT]",
        "disable": "leave out healthcheck",
        "failureThreshold": "write retries: 3",
        "httpGet": "write http: {path: /, port: 8080}",
        "initialDelaySeconds": "write startPeriod: 30s",
        "periodSeconds": "write interval: 30s",
        "start_interval": "write startInterval: 5s",
        "start_period": "write startPeriod: 30s",
        "tcpSocket": "write tcp: {port: 8080}",
        "test": 'write exec: [PROGRAM, ARGUMENT] without CMD; for CMD-SHELL [sh, -c, "COMMAND"]',
        "timeoutSeconds": "write timeout: 5s",
    },
    ("ports",): {
        "containerPort": "write container: 80",
        "hostPort": "write host: 8080",
        "host_ip": "write hostIP: 127.0.0.1",
        "hostIp": "write hostIP: 127.0.0.1",
        "mode": "remove it: a host port belongs to one replica",
        "port": "write host: 8080",
        "published": "write host: 8080",
        "target": "write container: 80",
        "targetPort": "write container: 80",
    },
    ("mounts",): {
        "destination": "write target: /PATH",
        "dst": "write target: /PATH",
        "hostPath": "write source: /PATH with type: bind",
        "mountPath": "write target: /PATH",
        "path": "write target: /PATH",
        "read_only": "write readOnly: true",
        "readonly": "write readOnly: true",
        "nocopy": "write noCopy: true",
        "ro": "write readOnly: true",
        "subPath": "write subpath: FOLDER",
        "tmpfs": 'write size: 64Mi, and mode: "1777" directly below the mount',
        "volume": "write noCopy: true, or subpath: FOLDER, directly below the mount",
        "src": "write source: NAME, or source: /PATH with type: bind",
    },
    ("resources",): {
        "cpu": "write cpus: 0.5",
        "cpu_shares": "write cpuShares: 512",
        "cpuset_cpus": "write cpuset: 0-1",
        "limits": _LIMITS,
        "mem": "write memory: 512Mi",
        "mem_limit": "write memory: 512Mi",
        "pids_limit": "write pids: 128",
        "mem_reservation": "write memoryReservation: 256Mi",
        "requests": "write memoryReservation: 256Mi, without another level; CPUs aren't reserved",
        "reservations": "write memoryReservation: 256Mi, without another level; CPUs aren't reserved",
        "shm_size": "write shm: 64Mi",
    },
    ("logs",): {
        "max-file": "write maxFiles: 3",
        "max-size": "write maxSize: 10Mi",
    },
    ("dns",): {
        "nameservers": "write servers: [ADDRESS]",
        "searches": "write search: [DOMAIN]",
    },
    ("network", "attach"): {
        "ipv4_address": "remove it: the engine assigns addresses",
        "ipv6_address": "remove it: the engine assigns addresses",
        "mac_address": "remove it: the engine assigns addresses",
        "priority": "remove it: the first network is that of the mode",
    },
    ("security",): {
        "cap_add": "write capAdd: [NAME]",
        "capabilities": "write capAdd: [NAME]",
        "privileged": "remove it: no policy admits a privileged container",
        "readOnly": "write readOnlyRootFilesystem: true",
        "runAsUser": 'write user: "1000:1000" directly below spec',
    },
    ("network",): {"name": "write attach: [NAME]", "networks": "write attach: [NAME]"},
    ("rollout",): {
        "maxSurge": "remove it: a successor is started beside its predecessor, with StartFirst",
        "update_config": "write {order: StartFirst}, without another level",
    },
}

#: Values of other tools by field.
_WORDS: Mapping[FieldPath, Mapping[str, str]] = {
    ("restart", "policy"): {"unless-stopped": "Always", "no": "Never", "any": "Always"},
    ("pullPolicy",): {"missing": "IfNotPresent", "if_not_present": "IfNotPresent"},
    ("dependsOn", "condition"): short_forms.CONDITIONS,
    ("network", "mode"): {"default": "isolated", "internal": "isolated"},
    ("rollout", "onFailure"): {"continue": "Pause"},
    ("logs", "driver"): {"none": "local"},
}


def key_remedy(path: YamlPath, value: object) -> str:
    """Return the replacement of an unknown key of a Service; '' if no other tool has the key."""
    *parent, key = (part for part in path[1:] if isinstance(part, str))
    remedy = _KEYS.get(tuple(parent), {}).get(key, "")
    if parent or not remedy:
        return remedy
    match key:
        case "imagePullPolicy" if value in ("Always", "Never"):
            return f"write pullPolicy: {value}"
        case "environment":
            return short_forms.variables("env", value) or remedy
        case "depends_on" if isinstance(value, list | dict):
            return f"write dependsOn: {short_forms.dependencies(value)}"
        case "volumes" | "volumeMounts" if isinstance(value, list):
            items = [short_forms.mount(item) for item in value[: short_forms.SHOWN_MAX]]
            whole = all(items) and len(value) <= short_forms.SHOWN_MAX
            return f"write mounts: [{', '.join(items)}]" if items and whole else remedy
        case "mem_limit" | "memory" | "memory_limit" if options := short_forms.sizes(value):
            return f"write resources: {{memory: {options[0]}}}"
        case "cpus" | "cpu" | "cpu_count" if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", str(value)):
            return f"write resources: {{cpus: {value}}}"
        case "shm_size" if options := short_forms.sizes(value):
            return f"write resources: {{shm: {options[0]}}}"
        case _:
            return remedy


def word_remedy(path: YamlPath, value: object) -> str:
    """Return the replacement of another tool's value of a Service's field; '' if unknown."""
    if not isinstance(value, str):
        return ""
    field = tuple(part for part in path[1:] if isinstance(part, str))
    if field == ("network", "mode") and value == "host":
        return "no policy admits the host's network: write isolated, and publish ports"
    word = _WORDS.get(field, {}).get(value.lower(), "")
    return f"write {word}" if word else ""


def form_remedy(path: YamlPath, value: object) -> str:
    """Return how to write a value of another form in a field of a Service; '' if unknown."""
    field = tuple(part for part in path[1:] if isinstance(part, str))
    return _item_form(field, value) if isinstance(path[-1], int) else _whole_form(field, value)


def _item_form(field: FieldPath, value: object) -> str:
    match field:
        case ("dependsOn",):
            return (
                f"write {{name: {value}}}"
                if short_forms.is_name(value)
                else "write {name: SERVICE}"
            )
        case ("ports",):
            return short_forms.port(value)
        case ("mounts",):
            return f"write {short_forms.mount(value)}" if short_forms.mount(value) else _MOUNTS
        case _:
            return ""


_Form = Callable[[object], str]
#: How to write a value of another form in a field.
_FORMS: Mapping[FieldPath, _Form] = {
    ("dependsOn",): lambda value: f"write {short_forms.dependencies(value)}",
    ("env",): lambda value: short_forms.variables("", value),
    ("containerLabels",): lambda value: short_forms.variables("", value),
    ("extraHosts",): lambda value: f"write {short_forms.extra_hosts(value)}",
    ("dns",): lambda value: f"write {short_forms.servers(value)}",
    ("ulimits",): lambda _value: "write a mapping: {nofile: {soft: 1024, hard: 4096}}",
    ("network",): short_forms.network,
    ("network", "attach"): lambda value: f"write {short_forms.attachments(value)}",
    ("devices",): lambda _value: (
        "write a list of paths or CDI names: [/dev/fuse, nvidia.com/gpu=0]"
    ),
    ("groupAdd",): lambda _value: 'write a list of names, or numbers in quotes: [video, "44"]',
    ("restart",): lambda value: f"write {{policy: {short_forms.restart(value)}}}",
    ("command",): lambda value: _PLAIN_LIST if isinstance(value, str) else "",
    ("entrypoint",): lambda value: _PLAIN_LIST if isinstance(value, str) else "",
    ("healthcheck", "exec"): lambda value: _PLAIN_LIST if isinstance(value, str) else "",
    ("healthcheck",): lambda _value: (
        "write {exec: [PROGRAM, ARGUMENT]}, {http: {port: 8080}} or {tcp: {port: 8080}}"
    ),
    ("security", "capAdd"): lambda value: (
        "write a list, such as [CHOWN]" if isinstance(value, str) else ""
    ),
}


def _whole_form(field: FieldPath, value: object) -> str:
    if field[:1] == ("ulimits",) and len(field) == 2:
        return f"write {short_forms.ulimit(value)}"
    form = _FORMS.get(field)
    return form(value) if form is not None else ""
