"""Long forms: each attribute with a short form in its long form, and defaults of the long forms.

The reference is the package ``transform`` of compose-go.

The short form of a mount, ``SOURCE:TARGET:OPTIONS``, and of ports.

The short form of ports: ``[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]``, with ranges.

The reference is ``nat.ParsePortSpec`` of go-connections.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable

from controller.core.compose.nodes import (
    MAX_MADE,
    ComposeNode,
    Fault,
    NodePath,
    PathTable,
    ReadingReport,
    fail,
    same,
)
from controller.core.compose.values import wrong

#: How mounts below a bind appear on the host, and the other way.
PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
_REMEDY = "write SOURCE:TARGET or SOURCE:TARGET:ro, or use the long form"

MountTree = dict[str, object]


def parse_volume(node: ComposeNode, spec: str, path: NodePath = ()) -> dict[str, object]:
    """Return the long form of a mount as plain values.

    Raises:
        Fault: an empty part, or too many parts.
    """
    if not spec:
        fail(node, "compose.mount", "the mount is empty", _REMEDY, path)
    if len(spec) <= 2:
        return {"type": "volume", "target": spec}
    parts = _parts(spec)
    if not all(parts):
        fail(node, "compose.mount", f"empty part between colons in {spec!r}", _REMEDY, path)
    if len(parts) > 3:
        fail(node, "compose.mount", f"too many colons in {spec!r}", _REMEDY, path)
    source = parts[0] if len(parts) > 1 else ""
    mount: dict[str, object] = {"type": "volume"}
    if source:
        mount["source"] = source
    mount["target"] = parts[min(1, len(parts) - 1)]
    bind: dict[str, object] = {}
    _read_options(parts[2] if len(parts) > 2 else "", mount, bind)
    if is_path(source):
        mount["type"] = "bind"
        mount["bind"] = {**bind, "create_host_path": True}
    else:
        mount.setdefault("volume", {})
        if bind:
            mount["bind"] = bind
    return mount


def _read_options(text: str, mount: MountTree, bind: dict[str, object]) -> None:
    for option in text.split(","):
        if option == "ro":
            mount["read_only"] = True
        elif option == "rw":
            mount.pop("read_only", None)
        elif option == "nocopy":
            mount["volume"] = {"nocopy": True}
        elif option in PROPAGATIONS:
            bind["propagation"] = option
        elif option in {"z", "Z"}:
            bind["selinux"] = option


def _parts(spec: str) -> list[str]:
    """Return the parts between colons; the colon of a Windows drive separates no parts."""
    parts, part = [], ""
    for letter in spec:
        if letter == ":" and not (len(part) == 1 and part.isalpha()):
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]


def is_path(source: str) -> bool:
    """Return True if the source of a mount is a path, not the name of a volume."""
    if not source:
        return False
    return (
        source[0] in "./~"
        or source.startswith("\\\\")
        or (len(source) > 1 and source[1] == ":" and source[0].isalpha())
    )


_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
_PORTS_REMEDY = "write HOST:CONTAINER, such as 8080:80, or the long form"
_CODE = "compose.port"


def parse_port(node: ComposeNode, spec: str, path: NodePath = ()) -> list[dict[str, object]]:
    """Return the long form of a port, one mapping for each container port, as plain values.

    Raises:
        Fault: no port, an invalid address or protocol, or ranges of different lengths.
    """
    address, host, container, protocol = _split(spec)
    address = _address(node, address, path)
    if not container:
        fail(node, _CODE, f"no container port in {spec!r}", _PORTS_REMEDY, path)
    first, last = _range(node, container, "container", path)
    host_first, host_last = _range(node, host, "host", path) if host else (0, 0)
    if host and last != first and last - first != host_last - host_first:
        message = f"the ranges {container} and {host} have different lengths"
        fail(node, _CODE, message, "write ranges of one length", path)
    if protocol not in _PROTOCOLS:
        fail(node, _CODE, f"unknown protocol {protocol!r}", "write tcp, udp or sctp", path)
    ports: list[dict[str, object]] = []
    for offset in range(last - first + 1):
        published = str(host_first + offset) if host else ""
        if first == last and host_first != host_last:
            published = f"{published}-{host_last}"
        fields: dict[str, object] = {
            "mode": "ingress",
            "host_ip": address,
            "target": first + offset,
        }
        fields |= {"published": published, "protocol": protocol}
        ports.append({name: value for name, value in fields.items() if value})
    return sorted(ports, key=lambda port: f"{port.get('target', 0)}/{protocol}")


def _split(spec: str) -> tuple[str, str, str, str]:
    """Return address, host port, container port and protocol."""
    *before, last = spec.split(":")
    host = before[-1] if before else ""
    container, _, protocol = last.partition("/")
    protocol = protocol.partition("/")[0]
    return ":".join(before[:-1]), host, container, protocol.lower() or "tcp"


def _address(node: ComposeNode, text: str, path: NodePath) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        return ""
    if ":" in bare and bare == text:
        fail(node, _CODE, f"invalid address {text!r}", f"write [{text}]", path)
    try:
        ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        fail(node, _CODE, f"invalid address {text!r}", "write an IP address", path)
    return bare


def _range(node: ComposeNode, text: str, side: str, path: NodePath) -> tuple[int, int]:
    parts = text.split("-")[:2]
    if not all(_PORT.fullmatch(part) and int(part) < 65536 for part in parts):
        message = f"invalid {side} port {text!r}"
        fail(node, _CODE, message, "write a number up to 65535, or a range such as 8000-8010", path)
    first, last = int(parts[0]), int(parts[-1])
    if last < first:
        fail(node, _CODE, f"the range {text} ends before its start", "swap the ports", path)
    return first, last


#: The characters that one port of a range counts for.
PORT_SIZE = 500

LongForm = Callable[[ComposeNode, NodePath, ReadingReport], ComposeNode]
#: A member of a mapping: the key and the value.


def to_long_forms(root: ComposeNode, report: ReadingReport) -> ComposeNode:
    """Return the tree with every short form replaced. Values with a problem stay as they are."""
    return _walk(root, _FORMS, (), report)


def add_defaults(root: ComposeNode, report: ReadingReport) -> ComposeNode:
    """Return the tree with the defaults of long forms."""
    return _walk(root, _DEFAULTS, (), report)


def _walk(
    node: ComposeNode, table: PathTable[LongForm] | None, path: NodePath, report: ReadingReport
) -> ComposeNode:
    if table is None:
        return node
    if table.rule is not None:
        try:
            node = table.rule(node, path, report)
        except Fault as fault:
            report.add(fault.problem)
    if isinstance(node.value, dict):
        members = node.value
        for name, member in members.items():
            below = table.below(name)
            if below is not None:
                members[name] = _walk(member, below, (*path, name), report)
    elif isinstance(node.value, list):
        below = table.below("*")
        if below is not None:
            node.value = [
                _walk(item, below, (*path, number), report)
                for number, item in enumerate(node.value)
            ]
    return node


def nodes_of(source: ComposeNode, value: object) -> ComposeNode:
    """Return nodes for a plain value, all at the place of *source*."""
    if isinstance(value, dict):
        return source.at({name: nodes_of(source, member) for name, member in value.items()})
    if isinstance(value, list):
        return source.at([nodes_of(source, item) for item in value])
    assert value is None or isinstance(value, bool | int | float | str), "a plain value"
    return source.at(value)


def _list(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
    return node.at([node]) if isinstance(node.value, str) else node


def _servers(node: ComposeNode, path: NodePath, report: ReadingReport) -> ComposeNode:
    """Return a list of servers without empty entries, which Compose leaves out."""
    servers = _list(node, path, report)
    if isinstance(servers.value, list):
        servers.value = [item for item in servers.value if item.value not in {None, ""}]
    return servers


def _mapping_of(name: str) -> LongForm:
    def form(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
        return node.at({name: node}) if isinstance(node.value, str) else node

    return form


def _env_files(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
    files = []
    for item in [node] if isinstance(node.value, str) else node.items:
        members = {"path": item} if isinstance(item.value, str) else item.members
        members.setdefault("required", item.at(value=True))
        files.append(item.at(members))
    return node.at(list(files))


def _depends_on(node: ComposeNode, path: NodePath, _report: ReadingReport) -> ComposeNode:
    members: dict[str, ComposeNode] = {}
    for item in node.items:
        if item.text is None:
            wrong(item, "the name of a service", path)
        members[item.text] = item.at({})
    members = members or node.members
    for name, member in members.items():
        if not isinstance(member.value, dict):
            wrong(member, "a mapping with a condition", (*path, name))
        member.members.setdefault("condition", member.at("service_started"))
        member.members.setdefault("required", member.at(value=True))
    return node.at(members)


def _networks(node: ComposeNode, path: NodePath, _report: ReadingReport) -> ComposeNode:
    if not isinstance(node.value, list):
        return node
    members: dict[str, ComposeNode] = {}
    for item in node.value:
        if item.text is None:
            wrong(item, "the name of a network", path)
        members[item.text] = item.at(None)
    return node.at(members)


def _ports(node: ComposeNode, path: NodePath, report: ReadingReport) -> ComposeNode:
    if not isinstance(node.value, list):
        wrong(node, "a list of ports", path)
    ports: list[ComposeNode] = []
    for number, item in enumerate(node.items):
        value = item.value
        if report.made > MAX_MADE:
            message = "the project has too many ports"
            fail(item, "compose.limit", message, "write shorter ranges", path)
        try:
            if isinstance(value, bool) or not isinstance(value, int | str | dict):
                wrong(item, "a port", (*path, number))
            if isinstance(value, dict):
                ports.append(item)
            else:
                long = parse_port(item, str(value), (*path, number))
                report.make(PORT_SIZE * (len(long) - 1))
                ports += [nodes_of(item, port) for port in long]
        except Fault as fault:
            report.add(fault.problem)
    return node.at(ports)


def _volume(node: ComposeNode, path: NodePath, _report: ReadingReport) -> ComposeNode:
    if not isinstance(node.value, str):
        return node
    mount = parse_volume(node, node.value, path)
    mount["target"] = clean_path(str(mount["target"]))
    return nodes_of(node, mount)


def clean_path(path: str) -> str:
    """Return a path without ``.``, ``..`` and doubled slashes."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _device(node: ComposeNode, path: NodePath, _report: ReadingReport) -> ComposeNode:
    if not isinstance(node.value, str):
        return node
    parts = node.value.split(":")
    if len(parts) > 3:
        message = f"too many colons in {node.value!r}"
        fail(node, "compose.mount", message, "use the long form with source and target", path)
    source, target, permissions = [*parts, "", ""][:3]
    fields = {"source": source, "target": target or source}
    fields["permissions"] = permissions if len(parts) == 3 else "rwm"
    return nodes_of(node, fields)


def _gpus(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
    return nodes_of(node, [{"count": "all"}]) if isinstance(node.value, str) else node


def _ulimit(node: ComposeNode, path: NodePath, _report: ReadingReport) -> ComposeNode:
    if isinstance(node.value, bool) or not isinstance(node.value, int | dict):
        wrong(node, "an integer", path)
    return node


def _external(node: ComposeNode, path: NodePath, report: ReadingReport) -> ComposeNode:
    external = node.get("external")
    if external is None or not isinstance(external.value, dict):
        return node
    members = node.members
    members["external"] = external.at(value=True)
    name, own = external.get("name"), members.get("name")
    if name is None:
        return node
    remedy = "write name beside external: true"
    report.warn(name, "compose.deprecated", "external.name is deprecated", remedy, path)
    if own is None:
        members["name"] = name
    elif not same(name, own):
        message = "name and external.name are different"
        fail(name, "compose.conflict", message, "keep name alone", path)
    return node


_FORMS: PathTable[LongForm] = PathTable(
    {
        "services.*.build": _mapping_of("context"),
        "services.*.build.secrets.*": _mapping_of("source"),
        "services.*.configs.*": _mapping_of("source"),
        "services.*.depends_on": _depends_on,
        "services.*.devices.*": _device,
        "services.*.dns": _servers,
        "services.*.env_file": _env_files,
        "services.*.extends": _mapping_of("service"),
        "services.*.gpus": _gpus,
        "services.*.label_file": _list,
        "services.*.networks": _networks,
        "services.*.ports": _ports,
        "services.*.secrets.*": _mapping_of("source"),
        "services.*.ulimits.*": _ulimit,
        "services.*.volumes.*": _volume,
        "configs.*": _external,
        "networks.*": _external,
        "secrets.*": _external,
        "volumes.*": _external,
    }
)


def _port_defaults(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
    node.members.setdefault("protocol", node.at("tcp"))
    node.members.setdefault("mode", node.at("ingress"))
    return node


def _build_defaults(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
    node.members.setdefault("context", node.at("."))
    return node


def _secret_defaults(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> ComposeNode:
    source = node.get("source")
    name = source.value if source is not None else None
    node.members.setdefault("target", node.at(f"/run/secrets/{name}"))
    return node


def _device_request_defaults(
    node: ComposeNode, _path: NodePath, _report: ReadingReport
) -> ComposeNode:
    if "count" not in node.members and "device_ids" not in node.members:
        node.members["count"] = node.at("all")
    return node


_DEFAULTS: PathTable[LongForm] = PathTable(
    {
        "services.*.build": _build_defaults,
        "services.*.secrets.*": _secret_defaults,
        "services.*.ports.*": _port_defaults,
        "services.*.deploy.resources.reservations.devices.*": _device_request_defaults,
        "services.*.gpus.*": _device_request_defaults,
    }
)
