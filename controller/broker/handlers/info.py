"""Handle ``GET /info``: facts about the engine for clients, with the caller's own counts.

The reply reveals neither objects of others nor paths of the host. Members that SDKs index are
always present.
"""

from __future__ import annotations

from collections import Counter

from controller.broker.gate.call import Flow, GateRequest, parse_list, read_json, read_members
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import GateState
from controller.broker.guards import lists
from controller.broker.guards.lookup import can_see, can_see_host
from controller.broker.handlers import image
from controller.broker.wire import json_reply
from controller.model.policy.document import Policy
from controller.model.records import Reply

#: Members that are passed on unchanged.
_KEPT = """
    ID Driver MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit
    OomKillDisable IPv4Forwarding BridgeNfIptables BridgeNfIp6tables LoggingDriver CgroupDriver
    CgroupVersion KernelVersion OperatingSystem OSVersion OSType Architecture NCPU MemTotal
    SystemTime ServerVersion DefaultRuntime LiveRestoreEnabled InitBinary SecurityOptions
"""


def info(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /info``, without private facts of the host; the counts are the caller's."""
    engine = (yield from read_json("/info")) or {}
    shown = {
        **{key: engine[key] for key in _KEPT.split() if key in engine},
        **(yield from _container_counts(call, state)),
        "Images": len(parse_list((yield from image.visible_images(call, {})))),
        "Name": "trimtab",
        "ExperimentalBuild": False,
        "Debug": False,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "Warnings": [],
    }
    if can_see_host(call.actor):
        shown |= _policy_members(call.policy)
    return json_reply(200, shown)


def _container_counts(call: GateRequest, state: GateState) -> Flow[dict[str, int]]:
    """Return the counts of the caller's containers, by state."""
    query = {
        "all": "1",
        "filters": lists.encode_filters(lists.restrict_filters({}, state, call.actor)),
    }
    states: Counter[str] = Counter()
    for row in (yield from read_members(build_path("/containers/json", query), "Id", "State")):
        item = state.inventory.containers.get(str(row.get("Id", "")))
        if item is not None and can_see(call.actor, item.owner):
            states[str(row.get("State", ""))] += 1
    running, paused = states["running"] + states["restarting"], states["paused"]
    return {
        "Containers": states.total(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": states.total() - running - paused,
    }


def _policy_members(policy: Policy) -> dict[str, object]:
    """Return the members that list options: the options of the policy, not of the host."""
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
