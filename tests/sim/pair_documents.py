"""A row of features as documents, and documents as a Compose file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from controller.core.policy.text import load_policy
from controller.core.yaml.documents import compose
from controller.model.names import Key, job_key, service_key
from controller.model.policy.document import Policy
from tests.sim.files import Doc
from tests.sim.objects import SimImage
from tests.sim.probes import PORT
from tests.sim.stories import HOOKS

#: The value of each feature.
Row = Mapping[str, str]

REPOSITORY: Final = "ghcr.io/platformnetwork/app"
POLICIES: Final = Path(__file__).parents[2] / "configs" / "policies"
NAMESPACES: Final = {
    "directory": "default",
    "git": "lab",
    "signed": "lab",
    "compose": "shop",
    "chart": "default",
}
#: The digits of the images of tag 1 and 2, of what both become by a push, and of other services' image.
DIGITS: Final = {"1": "1", "2": "2", "pushed": "3", "base": "4"}

_TEMPORARY: Final = {"type": "tmpfs", "target": "/data", "size": "16Mi"}
_FILES: Final = {"type": "config", "source": "site", "target": "/srv/site"}
_CHECK: Final = {"interval": "10s", "startPeriod": "5s"}
_PUBLISHED: Final = {"container": 8080, "host": 18080, "hostIP": "127.0.0.1"}
_SITE: Final = {"Config": ("site", {"data": {"a": "1"}})}
_HEALTHY: Final = {"Service": ("db", {"healthcheck": {"exec": ["check"], "interval": "10s"}})}
_RUN: Final = {"entrypoint": ["/bin/sh", "-c", "sleep 2; exit 0"]}
_HOOK: Final = {"Job": ("work", {**_RUN, "trigger": "Rollout"})}

#: What a value adds to the service, and the other documents: name and spec by kind.
Part = tuple[dict[str, Any], Mapping[str, tuple[str, dict[str, Any]]]]
_PARTS: Final[Mapping[tuple[str, str], Part]] = {
    ("volume", "named"): (
        {"mounts": [{"type": "volume", "source": "data", "target": "/data"}]},
        {"Volume": ("data", {})},
    ),
    ("volume", "tmpfs"): ({"mounts": [_TEMPORARY]}, {}),
    ("order", "StartFirst"): ({"rollout": {"order": "StartFirst"}}, {}),
    ("order", "StopFirst"): ({"rollout": {"order": "StopFirst"}}, {}),
    ("network", "none"): ({"network": {"mode": "none"}}, {}),
    ("network", "bridge"): ({"network": {"mode": "bridge"}}, {}),
    ("network", "published"): ({"ports": [_PUBLISHED]}, {}),
    ("network", "attached"): (
        {"network": {"attach": ["lan"]}},
        {"Network": ("lan", {"internal": True})},
    ),
    ("files", "config"): ({"mounts": [_FILES]}, _SITE),
    ("files", "signalled"): ({"mounts": [{**_FILES, "onChange": {"signal": "SIGHUP"}}]}, _SITE),
    ("files", "secret"): (
        {"mounts": [{"type": "secret", "source": "key", "target": "/run/secrets/key"}]},
        {"Secret": ("key", {"file": {"key": "key"}})},
    ),
    ("probe", "exec"): ({"healthcheck": {"exec": ["check"], **_CHECK}}, {}),
    ("probe", "http"): ({"healthcheck": {"http": {"path": "/", "port": PORT}, **_CHECK}}, {}),
    ("depends", "Started"): ({"dependsOn": [{"name": "db", "condition": "Started"}]}, _HEALTHY),
    ("depends", "Healthy"): ({"dependsOn": [{"name": "db", "condition": "Healthy"}]}, _HEALTHY),
    ("depends", "restarted"): (
        {"dependsOn": [{"name": "db", "condition": "Started", "restart": True}]},
        _HEALTHY,
    ),
    ("job", "before"): ({"rollout": {"before": ["work"]}}, _HOOK),
    ("job", "after"): ({"rollout": {"after": ["work"]}}, _HOOK),
    ("job", "Completed"): (
        {"dependsOn": [{"kind": "Job", "name": "work", "condition": "Completed"}]},
        {"Job": ("work", _RUN)},
    ),
    ("replicas", "2"): ({"replicas": 2}, {}),
    ("restart", "OnFailure"): ({"restart": {"policy": "OnFailure"}}, {}),
    ("restart", "Ordered"): ({"restart": {"policy": "Always", "boot": "Ordered"}}, {}),
    ("limits", "declared"): ({"resources": {"memory": "64Mi", "cpus": 0.5}}, {}),
    ("hooks", "both"): ({"lifecycle": HOOKS}, {}),
}


def image_of(row: Row, tag: str, *, digits: str = "") -> SimImage:
    """Return an image that the registry has under *tag*."""
    digest = f"sha256:{(digits or DIGITS[tag]) * 64}"
    volumes = ("/data",) if row["volume"] == "image" and tag != "base" else ()
    reference = f"{REPOSITORY}:{tag}"
    return SimImage(reference, digest, digest=digest, exposed=("8080/tcp",), volumes=volumes)


def reference_of(row: Row, tag: str) -> str:
    """Return how documents name an image."""
    image = image_of(row, tag)
    return f"{REPOSITORY}@{image.digest}" if row["policy"] == "production" else image.reference


def policy_of(row: Row) -> Policy:
    """Return a shipped policy, for the images and owners of the simulation."""
    name = "home" if row["policy"] == "scratch" else row["policy"]
    (document,), _ = compose((POLICIES / f"{name}.yaml").read_text(), name)
    assert isinstance(document.value, dict)
    policy: dict[str, Any] = {**document.value}
    images = {**policy.get("images", {}), "allow": ["ghcr.io/platformnetwork/"], "trustLocal": []}
    policy["images"] = images | (
        {"anonymousVolumes": "scratch"} if row["policy"] == "scratch" else {}
    )
    if name == "production":
        policy["owners"] = [{"name": "team", "namespaces": sorted({*NAMESPACES.values()})}]
    return load_policy(json.dumps(policy), name)


def documents(row: Row) -> tuple[Doc, ...]:
    """Return what a row begins with; the last one is the service that the row is about."""
    namespace = NAMESPACES[row["source"]]
    common = {
        "image": reference_of(row, "base"),
        "pullPolicy": row["pull"],
        "security": {"readOnlyRootFilesystem": row["policy"] == "production"},
    }
    # A directory without any document is an accident, so something stays in it.
    found = [Doc(service_key(namespace, "beside"), common)]
    first = {"image": reference_of(row, "1"), "env": {"LEVEL": "info"}}
    spec = {**common, **first, "rollout": {"minHealthy": "2s"}}
    for feature in row.items():
        adds, others = _PARTS.get(feature, ({}, {}))
        spec = _joined(spec, adds)
        for kind, (name, other) in others.items():
            runs = common if kind in ("Service", "Job") else {}
            key = job_key(namespace, name) if kind == "Job" else Key(kind, namespace, name)
            found.append(Doc(key, {**runs, **other}))
    return (*found, Doc(service_key(namespace, "app"), spec))


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return two mappings as one: members of mappings, and items of lists, of both."""
    joined = dict(one)
    for name, value in other.items():
        match joined.get(name):
            case dict() as mine:
                joined[name] = {**mine, **value}
            case list() as mine:
                joined[name] = [*mine, *value]
            case _:
                joined[name] = value
    return joined


def edited(row: Row, doc: Doc) -> Doc:
    """Return the service's document after the row's edit."""
    changes: dict[str, dict[str, Any]] = {
        "image": {"image": reference_of(row, "2")},
        "env": {"env": {**doc.spec["env"], "LEVEL": "debug"}},
        "limits": {"resources": {**doc.spec.get("resources", {}), "memory": "128Mi"}},
    }
    return replace(doc, spec={**doc.spec, **changes[row["edit"]]})


# Compose

_CONDITIONS: Final = {
    "Started": "service_started",
    "Healthy": "service_healthy",
    "Completed": "service_completed_successfully",
}
_PULLS: Final = {"Always": "always", "IfNotPresent": "missing", "Never": "never"}
_RESTARTS: Final = {"Always": "always", "OnFailure": "on-failure"}
_ORDERS: Final = {"StartFirst": "start-first", "StopFirst": "stop-first"}


def project(docs: Iterable[Doc]) -> dict[str, Any]:
    """Return documents as a Compose file."""
    whole: dict[str, dict[str, Any]] = {"x-trimtab": {"owner": "team"}}
    for doc in docs:
        section, attributes = _section(doc)
        whole.setdefault(section, {})[doc.key.name] = attributes
    return whole


def _section(doc: Doc) -> tuple[str, dict[str, Any]]:
    """Return the section of a document in a Compose file, and its attributes."""
    match doc.key.kind:
        case "Volume":
            return "volumes", {}
        case "Network":
            return "networks", {"internal": True}
        case "Config":
            return "configs", {"content": doc.spec["data"]["a"]}
        case "Secret":
            return "secrets", {"file": doc.spec["file"]["key"]}
        case _:
            spec = doc.spec
            return "services", {
                "image": spec["image"],
                "pull_policy": _PULLS[spec["pullPolicy"]],
                "environment": spec.get("env", {}),
                "read_only": spec["security"]["readOnlyRootFilesystem"],
                "cap_drop": ["ALL"],
                **({"entrypoint": spec["entrypoint"]} if "entrypoint" in spec else {}),
                **_life(doc),
                **_surroundings(spec),
            }


def _life(doc: Doc) -> dict[str, Any]:
    """Return when a service starts, and how it is replaced."""
    spec = doc.spec
    rollout = spec.get("rollout", {})
    update = {"monitor": rollout.get("minHealthy", "0s")}
    if "order" in rollout:
        update["order"] = _ORDERS[rollout["order"]]
    deploy: dict[str, Any] = {"update_config": update, "replicas": spec.get("replicas", 1)}
    if "resources" in spec:
        limits = {name: str(value) for name, value in spec["resources"].items()}
        deploy["resources"] = {"limits": {**limits, "memory": limits["memory"].lower()[:-1]}}
    life: dict[str, Any] = {"deploy": deploy}
    restart = spec.get("restart", {}).get("policy", "Always")
    life["restart"] = "no" if doc.key.kind == "Job" else _RESTARTS[restart]
    if "healthcheck" in spec:
        check = spec["healthcheck"]
        life["healthcheck"] = {"test": ["CMD", *check["exec"]], "interval": check["interval"]}
    for event, name in (("postStart", "post_start"), ("preStop", "pre_stop")):
        hooks = spec.get("lifecycle", {}).get(event, ())
        life[name] = [{"command": each["exec"]} for each in hooks]
    life["depends_on"] = {
        each["name"]: {
            "condition": _CONDITIONS[each["condition"]],
            "restart": each.get("restart", False),
        }
        for each in spec.get("dependsOn", ())
    }
    return life


def _surroundings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mounts, networks and ports of a service."""
    found: dict[str, Any] = {}
    for mount in spec.get("mounts", ()):
        match mount["type"]:
            case "volume":
                found["volumes"] = [f"{mount['source']}:{mount['target']}"]
            case "tmpfs":
                found["tmpfs"] = [f"{mount['target']}:size=16m"]
            case kind:
                found[f"{kind}s"] = [{"source": mount["source"], "target": mount["target"]}]
    network = spec.get("network", {})
    if network.get("mode") == "none":
        found["network_mode"] = "none"
    if "attach" in network:
        found["networks"] = ["default", *network["attach"]]
    for port in spec.get("ports", ()):
        found["ports"] = [f"{port['hostIP']}:{port['host']}:{port['container']}"]
    return found
