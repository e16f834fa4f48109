"""Remedies for what people know from Compose, docker and Kubernetes: the field with the same meaning here.

``trimtab convert`` writes a whole Compose file as documents; these remedies name the field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from controller.core.yaml.documents import YamlPath
from controller.model.quantities import format_bytes, format_duration_ms, parse_size

_CONVERT: Final = "`trimtab convert FILE` prints a Compose file as documents"
#: Fields of a Service by the names that other tools give them, at their place below ``spec``.
_FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("args",), "command"),
    **dict.fromkeys(("capAdd", "cap_add", "securityContext"), "security.capAdd"),
    **dict.fromkeys(("cpu", "cpus", "cpu_count"), "resources.cpus"),
    **dict.fromkeys(("memory", "mem_limit", "memory_limit"), "resources.memory"),
    **dict.fromkeys(("pids", "pids_limit"), "resources.pids"),
    **dict.fromkeys(("labels",), "containerLabels"),
    **dict.fromkeys(("environment", "env_file"), "env"),
    **dict.fromkeys(("deploy", "scale"), "replicas"),
    **dict.fromkeys(("livenessProbe", "readinessProbe"), "healthcheck"),
    **dict.fromkeys(("logging",), "logs"),
    **dict.fromkeys(("networks", "network_mode", "aliases"), "network"),
    **dict.fromkeys(("read_only",), "security.readOnlyRootFilesystem"),
    **dict.fromkeys(("restart_policy", "restartPolicy"), "restart"),
    **dict.fromkeys(("strategy", "update_config"), "rollout"),
    **dict.fromkeys(("terminationGracePeriodSeconds",), "stopGracePeriod"),
    **dict.fromkeys(("volumes", "volumeMounts", "tmpfs"), "mounts"),
    "depends_on": "dependsOn",
    "gpus": "devices",
    "healthcheck.test": "exec",
    "ports.published": "host",
    "ports.target": "container",
    "resources.limits": "memory",
    "shm_size": "resources.shm",
    "stdin_open": "stdin",
}
_NO_FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("privileged", "security_opt", "userns_mode", "uts"), "no policy admits it"),
    "container_name": "a container is called SERVICE.SLOT-REVISION",
    "expose": "services of a namespace reach all ports of each other",
    "memswap_limit": "containers use no swap",
}
_WORDS: Final = '[PROGRAM, ARGUMENT], such as [sh, -c, "COMMAND"]'
#: The forms of fields that other tools write in another form.
_FORMS: Final[Mapping[str, str]] = {
    "command": _WORDS,
    "containerLabels": "{NAME: VALUE}",
    "dependsOn": "[{name: SERVICE}]",
    "devices": "[/dev/fuse, nvidia.com/gpu=0]",
    "dns": "{servers: [ADDRESS]}",
    "entrypoint": _WORDS,
    "env": "{NAME: VALUE}",
    "exec": _WORDS,
    "extraHosts": "{NAME: ADDRESS}",
    "groupAdd": '[video, "44"]',
    "healthcheck": "{http: {path: /, port: 8080}}, or {exec: [PROGRAM, ARGUMENT]}",
    "healthcheck.exec": _WORDS,
    "mounts": "[{type: volume, source: NAME, target: /PATH}]",
    "network": "{mode: isolated}, or {attach: [NAME]}",
    "network.attach": "[NAME]",
    "ports": "[{container: 80, host: 8080}]",
    "restart": "{policy: Always}",
    "security.capAdd": "[CHOWN]",
    "ulimits": "{nofile: {soft: 1024, hard: 4096}}",
}
_DURATION: Final = re.compile(r"([0-9]{1,9}) ?(ms|s|m|h|d)[a-z]{0,6} ?", re.ASCII | re.IGNORECASE)
_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def key_remedy(path: YamlPath) -> str:
    """Return the field to write for an unknown key of a Service, misspelt or not; '' for no other tool's."""
    key = _dotted(path)
    if key in _NO_FIELDS:
        return f"remove it: {_NO_FIELDS[key]}"
    (near,) = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.85) or [""]
    field = _FIELDS.get(near, "")
    form = f": {_FORMS[field]}" if field in _FORMS else ""
    return f"write {field}{form}; {_CONVERT}" if field else ""


def form_remedy(path: YamlPath) -> str:
    """Return how to write a field of a Service whose value has another form; '' if unknown."""
    field = _dotted(path)
    return f"write {field.rpartition('.')[2]}: {_FORMS[field]}" if field in _FORMS else ""


def _dotted(path: YamlPath) -> str:
    """Return a path below ``spec``, without the indexes of lists."""
    return ".".join(part for part in path[1:] if isinstance(part, str))


def size_remedy(value: object) -> str:
    """Return a size of Docker in units of documents, rounded down to them; '' for none."""
    size = parse_size(str(value)) if isinstance(value, str | int) else None
    if isinstance(value, bool) or not size or size < 1024:
        return ""
    return f"write {format_bytes(size - size % 1024)}"


def duration_remedy(value: object) -> str:
    """Return a duration of another tool in units of documents; '' for none.

    A duration that is already valid is rounded up to whole seconds: the refusing field needs those.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value)
    if re.fullmatch("[0-9]{1,6}", text):
        return f"write {text}s, or another unit: ms, m, h"
    if not text or _DURATION.sub("", text):
        return ""
    total = sum(int(n) * _UNITS_MS[unit.lower()] for n, unit in _DURATION.findall(text))
    if format_duration_ms(total) == text:
        total = -(-total // 1000) * 1000
    return f"write {format_duration_ms(total)}" if total else ""
