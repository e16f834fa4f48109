"""Reads of containers and of the engine: only the caller's objects, and no values of variables.

The reply reveals neither objects of others nor paths of the host. Members that SDKs index are
always present.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from controller.broker.gate import redact
from controller.broker.gate.call import (
    Flow,
    GateRequest,
    engine_reply,
    parse_list,
    read_engine,
    read_json,
    read_members,
    read_rows,
)
from controller.broker.gate.commands import Relay, Rows
from controller.broker.gate.journal_entries import record_read
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import OLDEST_API, GateState
from controller.broker.guards import job_runs, lists, lookup
from controller.broker.guards.lists import ListRows
from controller.broker.guards.lookup import can_see, can_see_host
from controller.broker.handlers import image
from controller.broker.wire import json_reply
from controller.core.adoption.likeness import (
    labels_of,
    match_labels,
    place_labels,
    show_on_inspect,
    show_on_row,
)
from controller.core.encoding.json_values import list_of, mapping_of, parse_json
from controller.core.records.parts import RequestPart
from controller.core.rules.container import variable_names
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.policy.document import Policy
from controller.model.records import Actor, Reply, Role

#: Events of the engine that show a request for the end of a container.
_ASKED = frozenset({"kill", "stop"})


def ping(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET`` and ``HEAD /_ping``, with the versions for negotiation."""
    reply = yield from read_engine("/_ping")
    headers = (
        ("api-version", _version(state.api_version)),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("content-type", "text/plain; charset=utf-8"),
    )
    return Reply(reply.status, b"" if call.route.method == "HEAD" else reply.body, headers)


def _version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def version(_: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /version``: the engine's versions, with the API versions of this gate."""
    engine = (yield from read_json("/version")) or {}
    bounds = {
        "ApiVersion": _version(state.api_version),
        "MinAPIVersion": _version(OLDEST_API),
    }
    components = []
    for part in map(mapping_of, list_of(engine.get("Components"))):
        details = dict(mapping_of(part.get("Details")))
        details.update({key: value for key, value in bounds.items() if key in details})
        components.append({**part, "Details": details})
    return json_reply(200, {**engine, **bounds, "Components": components})


def system_df(call: GateRequest, _: GateState) -> Flow[Reply | Relay]:
    """Handle ``GET /system/df``: relayed, since it repeats every label of the engine."""
    yield from ()
    return Relay("GET", build_path("/system/df", call.query))


def events(call: GateRequest, state: GateState) -> Flow[Reply | Relay]:
    """Handle ``GET /events``, restricted to this instance, and for clients to their owner.

    Events of networks and volumes have no labels, and the controller needs them: its stream is
    filtered line by line. Only operators see the arguments of commands.
    """
    yield from ()
    asked = lists.parse_filters(call.query.get("filters", ""), lists.EVENT_KEYS)
    if call.actor.role is Role.OPERATOR:
        return _relay_events(call, lists.restrict_filters(asked, state, call.actor))
    # A filter by arguments would answer guesses about them.
    asked = {**asked, "event": [*map(redact.event_name, asked.get("event", ()))]}
    mine = call.actor.role is Role.CONTROLLER
    narrow = asked if mine else lists.restrict_filters(asked, state, call.actor)
    return _relay_events(call, narrow, partial(_own_event, state) if mine else redact.event)


def _relay_events(
    call: GateRequest,
    filters: lists.Filters,
    edit_line: Callable[[bytes], bytes | None] | None = None,
) -> Relay:
    kinds = [kind for kind in filters.get("type", []) if kind in lists.EVENT_TYPES]
    narrow = {key: values for key, values in filters.items() if values}
    narrow["type"] = kinds or sorted(lists.EVENT_TYPES)
    path = build_path("/events", {**call.query, "filters": lists.encode_filters(narrow)})
    return Relay("GET", path, edit_line=edit_line)


def _own_event(state: GateState, line: bytes) -> bytes | None:
    if not is_own_event(state, line) or _is_asked_here(state, line):
        return None
    return redact.event(_with_shown_labels(state, line))


def _is_asked_here(state: GateState, line: bytes) -> bool:
    """Return True if an event is the stop or signal of a request that the gate works on.

    Its record will say who asked: the controller takes the other ones for stops past the gate.
    """
    event = parse_json(line)
    if str(event.get("Action")) not in _ASKED:
        return False
    requests = (RequestPart.read(intent.request) for intent in state.inventory.open.values())
    return any(request.object == event["Actor"]["ID"] for request in requests)


def _with_shown_labels(state: GateState, line: bytes) -> bytes:
    """Return an event with the shown labels of an adopted, a moved or an unread container."""
    event = parse_json(line)
    item = state.inventory.containers.get(event["Actor"]["ID"])
    is_unread = not event["Actor"]["Attributes"]
    if item is None or not (item.adopted or item.former or is_unread):
        return line
    whole = item.adopted or is_unread
    shown = labels_of(item, state.instance) if whole else place_labels(item)
    event["Actor"]["Attributes"] |= shown
    return json.dumps(event, separators=(",", ":")).encode()


def is_own_event(state: GateState, line: bytes) -> bool:
    """Return True if an event of the engine concerns an object of this instance."""
    try:
        event = parse_json(line)
        subject, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        match event["Type"]:
            case "network":
                item = state.inventory.containers.get(attributes.get("container", ""))
                ours = item is not None and item.origin == Role.CONTROLLER.value
                return ours or subject in state.inventory.networks
            case "volume":
                return subject in state.inventory.volumes
            case _:
                item = state.inventory.containers.get(subject)
                if item is not None and (item.adopted or not attributes):
                    return True
                return bool(attributes.get(names.INSTANCE) == state.instance)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def container_list(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /containers/json``."""
    asked = lists.parse_filters(call.query.get("filters", ""), lists.CONTAINER_KEYS)
    ancestors = asked.pop("ancestor", [])
    # Whether a hidden image is an ancestor of an own one would reveal the name of the hidden one.
    known = [name for name in ancestors if image.is_known(name, call.policy, state.inventory)]
    if ancestors and not known:
        return json_reply(200, [])
    asked = {**asked, "ancestor": known} if known else asked
    narrow = lists.restrict_filters(asked, state, call.actor)
    places = frozenset[str]()
    if any(item.former for item in state.inventory.containers.values()):
        narrow, places = lists.split_places(narrow)
    query = {key: value for key, value in call.query.items() if (key, value) != ("limit", "-1")}
    query["filters"] = lists.encode_filters(narrow)
    rows = ListRows(call.actor)

    def encode(row: dict[str, Any]) -> bytes | None:
        item = _visible_item(row, call, state)
        if item is None:
            return None
        # Most lists name no place, and have many rows.
        if places and not places <= {f"{k}={v}" for k, v in place_labels(item).items()}:
            return None
        return rows.encode(_list_row(row, call, item, state.instance), item.owner)

    path = build_path("/containers/json", query)
    listed = yield from read_rows(path, Rows(encode))
    return rows.finish(_joined(listed, (yield from _adopted_rows(call, state, asked, rows))))


def _adopted_rows(
    call: GateRequest, state: GateState, asked: lists.Filters, rows: ListRows
) -> Flow[Reply | None]:
    """Return the list of the adopted containers for the caller; None if there are none.

    The engine doesn't know the shown labels of adopted containers, and filters by ids.
    """
    ids = [
        item.id
        for item in state.inventory.containers.values()
        if item.adopted and can_see(call.actor, item.owner)
    ]
    if wanted := asked.get("id"):
        ids = [each for each in ids if each.startswith(tuple(wanted))]
    if not ids:
        return None
    labels = asked.get("label", [])
    others = {key: values for key, values in asked.items() if key != "label"}
    query = {key: value for key, value in call.query.items() if (key, value) != ("limit", "-1")}
    query["filters"] = lists.encode_filters({**others, "id": ids})

    def encode(row: dict[str, Any]) -> bytes | None:
        item = _visible_item(row, call, state)
        if item is None or not item.adopted:
            return None
        shown = show_on_row(row, item, state.instance)
        if not match_labels(shown["Labels"], labels):
            return None
        return rows.encode(_list_row(shown, call, item, state.instance), item.owner)

    return (yield from read_rows(build_path("/containers/json", query), Rows(encode)))


def _joined(listed: Reply, further: Reply | None) -> Reply:
    """Return a list with the rows of another list at the end."""
    if further is None or further.body.strip() in {b"", b"[]", b"null"}:
        return listed
    if listed.body.strip() in {b"", b"[]", b"null"}:
        return further
    body = listed.body.rstrip()[:-1] + b"," + further.body.lstrip()[1:]
    return replace(listed, body=body)


def _visible_item(
    row: Mapping[str, Any], call: GateRequest, state: GateState
) -> ContainerItem | None:
    """Return the inventory's item of a row in a list; None if the caller may not see it.

    Notes whether the row was too long for its labels to be read.
    """
    item = state.inventory.containers.get(str(row.get("Id", "")))
    if item is not None and "Labels" not in row:
        state.health.long_containers[item.id] = item.admitted.name
    elif item is not None:
        state.health.long_containers.pop(item.id, None)
    return item if item is not None and can_see(call.actor, item.owner) else None


def _list_row(
    row: Mapping[str, Any], call: GateRequest, item: ContainerItem, instance: str
) -> Mapping[str, Any]:
    """Return the row of a visible container in a list; of a long one, with the inventory's labels."""
    shown = {**row, **_requested_image(row, call, item)}
    if "Labels" not in row:
        shown["Labels"] = labels_of(item, instance)
    if item.former and "Labels" in row:
        shown["Labels"] = {**(row["Labels"] or {}), **place_labels(item)}
    if "Mounts" in row and not can_see_host(call.actor):
        shown["Mounts"] = _visible_mounts(row["Mounts"])
    return shown


def _requested_image(
    shown: Mapping[str, Any], call: GateRequest, item: ContainerItem
) -> dict[str, str]:
    """Return the image under the name of the create request, for people.

    The container runs by image id, so the engine shows the id; the controller needs the id.
    """
    named = item.image and "Image" in shown and call.actor.role is not Role.CONTROLLER
    return {"Image": item.image} if named else {}


def container_inspect(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /containers/{container}/json``."""
    return json_reply(200, (yield from visible_inspect(call, state)))


def visible_inspect(call: GateRequest, state: GateState) -> Flow[dict[str, Any]]:
    """Return the inspect of a container for the caller.

    Env values are for operators, journaled, and for the client that wrote them.
    """
    container = yield from lookup.find_requested(call, state)
    inspect = container.inspect
    yield from job_runs.record_end(state, container.item.id, inspect)
    if call.query.get("size") == "1":
        again = yield from read_json(f"{container.path}/json?size=1")
        if again is None:
            raise Answered(Reply(404))
        inspect = show_on_inspect(again, container.item, state.instance)
    if call.actor.role is Role.OPERATOR:
        yield from record_read(call, container.item.id)
    else:
        # The secrets of a container may belong to somebody else than its reader.
        known = inspect if _wrote(call.actor, container.item) else hide_env_values(inspect)
        inspect = _hide_host_paths(known)
    config = inspect.get("Config") or {}
    config = {**config, **_requested_image(config, call, container.item)}
    return {**inspect, "Config": config}


def _wrote(actor: Actor, item: ContainerItem) -> bool:
    """Return True if all values of a container's environment were known to the client at its create.

    It asked for them itself, or they are those of an image that it may inspect. No client gets
    Secrets as variables. Who answered a create that recovery found isn't known.
    """
    asked = actor.role is Role.CLIENT and item.uid == actor.uid
    return asked and item.origin == Role.CLIENT.value and not (item.adopted or item.recovered)


def hide_env_values(inspect: dict[str, Any]) -> dict[str, Any]:
    """Return an inspect with the names of variables instead of the environment.

    An entry without ``=`` is left out: it may be a value that lost its name.
    """
    config = inspect.get("Config") or {}
    named = variable_names(tuple(map(str, config.get("Env") or ())))
    return {**inspect, "Config": {**config, "Env": redact.env_names(named)}}


#: Members with files of the engine on the host.
_PLACES = ("ResolvConfPath", "HostnamePath", "HostsPath", "LogPath")


def _hide_host_paths(inspect: dict[str, Any]) -> dict[str, Any]:
    """Return an inspect without the host paths of the engine's files and volumes.

    The members stay, since clients rely on them. Bind sources stay too: the client named them.
    """
    blank: dict[str, Any] = {name: "" for name in _PLACES if name in inspect}
    driver = inspect.get("GraphDriver")
    if isinstance(driver, dict):
        blank["GraphDriver"] = {**driver, "Data": None}
    return {**inspect, **blank, "Mounts": _visible_mounts(inspect.get("Mounts"))}


def _visible_mounts(mounts: Any) -> Any:
    return [
        {**each, "Source": ""} if each.get("Type") == "volume" else each for each in mounts or ()
    ]


def container_report(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET /containers/{container}/top`` and ``changes``."""
    container = yield from lookup.find_requested(call, state)
    path = build_path(f"{container.path}/{call.verb}", call.query)
    return engine_reply((yield from read_engine(path)))


def container_stream(call: GateRequest, state: GateState) -> Flow[Reply | Relay]:
    """Handle ``/containers/{container}/`` ``logs``, ``stats``, ``attach``, ``wait``, ``resize``.

    Reads of output are journaled.

    Raises:
        Denied: ``viewer.details``, ``viewer.logs``: a viewer isn't allowed to read that.
    """
    is_viewer = call.actor.role is Role.VIEWER
    if is_viewer and call.query.get("details") == "1":
        raise Denied(
            "viewer.details",
            "the details of a log are variables and labels of the container",
            "leave `details` out: a viewer reads the lines alone",
        )
    container = yield from lookup.find_requested(call, state)
    if is_viewer and (owner := container.item.owner) not in call.actor.scope.logs:
        raise Denied(
            "viewer.logs",
            f"the policy lets this viewer read no output of {owner}",
            f"add {owner} to the viewer's `logs` in the policy",
            subject=container.item.id,
        )
    if call.verb in {"logs", "attach"}:
        yield from record_read(call, container.item.id)
    path = build_path(f"{container.path}/{call.verb}", call.query)
    return Relay(call.route.method, path, hijack=call.verb == "attach")


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
