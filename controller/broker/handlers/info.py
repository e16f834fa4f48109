"""GET /info: what clients need of the engine, with the caller's own numbers.

Nothing of it tells a client of others on this host, or where things lie on it. Members that SDKs
index are always there.
"""

from __future__ import annotations

from collections import Counter

from controller.broker.gate.call import Flow, GateRequest, read_json
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards import list_filters
from controller.broker.guards.lookup import can_see, can_see_host
from controller.broker.handlers import image
from controller.broker.wire.responses import json_reply
from controller.model.policy.document import Policy
from controller.model.records import Reply

#: Members that are passed on as the engine has them.
_KEPT = (
    "ID",
    "Driver",
    "MemoryLimit",
    "SwapLimit",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "CPUShares",
    "CPUSet",
    "PidsLimit",
    "OomKillDisable",
    "IPv4Forwarding",
    "BridgeNfIptables",
    "BridgeNfIp6tables",
    "LoggingDriver",
    "CgroupDriver",
    "CgroupVersion",
    "KernelVersion",
    "OperatingSystem",
    "OSVersion",
    "OSType",
    "Architecture",
    "NCPU",
    "MemTotal",
    "SystemTime",
    "ServerVersion",
    "DefaultRuntime",
    "LiveRestoreEnabled",
    "InitBinary",
    "SecurityOptions",
)


def info(call: GateRequest, state: GateState) -> Flow[Reply]:
    """GET /info, without what is private to the host; counts are the caller's."""
    told = (yield from read_json("/info")) or {}
    shown = {
        **{key: told[key] for key in _KEPT if key in told},
        **(yield from _container_counts(call, state)),
        "Images": len((yield from image.visible_images(call, {}))),
        "Name": "trimtab",
        "ExperimentalBuild": False,
        "Debug": False,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False},
        "Warnings": [],
    }
    if can_see_host(call.actor):
        shown |= _policy_members(call.policy)
    return json_reply(200, shown)


def _container_counts(call: GateRequest, state: GateState) -> Flow[dict[str, int]]:
    """Return the numbers of containers that the caller sees, by what they do."""
    query = {
        "all": "1",
        "filters": list_filters.encode(list_filters.restrict({}, state, call.actor)),
    }
    states: Counter[str] = Counter()
    for told in (yield from read_json(build_path("/containers/json", query))) or ():
        item = state.inventory.containers.get(str(told.get("Id", "")))
        if item is not None and can_see(call.actor, item.owner):
            states[str(told.get("State", ""))] += 1
    running, paused = states["running"] + states["restarting"], states["paused"]
    return {
        "Containers": states.total(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": states.total() - running - paused,
    }


def _policy_members(policy: Policy) -> dict[str, object]:
    """Return the members that list what may be chosen: the policy's choice, not the host's."""
    return {
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": list(policy.logs.drivers),
        },
        "Runtimes": {name: {"path": name} for name in policy.security.runtimes},
        "Labels": [],
    }
