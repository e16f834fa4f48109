"""Values of the docker command with a grammar of their own: mounts, ports, ulimits."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.cli.docker_line.options import (
    Given,
    LineError,
    count_of_bytes,
    fields,
    pairs,
    whole,
)
from controller.core.engine_api.requests import RequestBody


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the command reads beside its line: variables, files, the folder that it runs in."""

    environ: Mapping[str, str] = field(default_factory=dict)
    read_file: Callable[[str], str] = lambda _: ""
    folder: str = "/"

    def absolute(self, path: str) -> str:
        """Return a path below the folder (``./…``) as the command makes it absolute."""
        relative = path == "." or path.startswith("./")
        return posixpath.normpath(posixpath.join(self.folder, path)) if relative else path


def is_anonymous(text: str) -> bool:
    """Tell whether a value of --volume names no source; ``c:/x`` is one path to the command."""
    return ":" not in text or re.fullmatch(r"[A-Za-z]:[^:]*", text) is not None


def bind(text: str, around: Surroundings) -> str:
    """Return a member of Binds."""
    source, colon, rest = text.partition(":")
    return f"{around.absolute(source)}{colon}{rest}"


#: What a field of --mount is in the body: the group of options, the member, and its type.
_MOUNT_FIELDS: dict[str, tuple[str, str, str]] = {
    "type": ("", "Type", "text"),
    "source": ("", "Source", "path"),
    "src": ("", "Source", "path"),
    "target": ("", "Target", "text"),
    "dst": ("", "Target", "text"),
    "destination": ("", "Target", "text"),
    "readonly": ("", "ReadOnly", "flag"),
    "ro": ("", "ReadOnly", "flag"),
    "consistency": ("", "Consistency", "text"),
    "bind-propagation": ("BindOptions", "Propagation", "text"),
    "bind-nonrecursive": ("BindOptions", "NonRecursive", "flag"),
    "volume-nocopy": ("VolumeOptions", "NoCopy", "flag"),
    "volume-subpath": ("VolumeOptions", "Subpath", "text"),
    "volume-label": ("VolumeOptions", "Labels", "pair"),
    "volume-driver": ("VolumeOptions", "DriverConfig.Name", "text"),
    "volume-opt": ("VolumeOptions", "DriverConfig.Options", "pair"),
    "tmpfs-size": ("TmpfsOptions", "SizeBytes", "bytes"),
    "tmpfs-mode": ("TmpfsOptions", "Mode", "octal"),
}


def mount(text: str, around: Surroundings) -> RequestBody:
    """Return a member of Mounts.

    Raises:
        LineError: it has no target, or a field that isn't known.
    """
    made: RequestBody = {"Type": "volume"}
    for key, value in fields(text, "mount"):
        if key == "bind-recursive":
            made.setdefault("BindOptions", {}).update(_recursive(value))
            continue
        if key not in _MOUNT_FIELDS:
            raise LineError(f"--mount: unknown field {key!r}")
        group, member, kind = _MOUNT_FIELDS[key]
        into = made.setdefault(group, {}) if group else made
        first, dot, second = member.partition(".")
        into, member = (into.setdefault(first, {}), second) if dot else (into, member)
        if kind == "pair":
            into.setdefault(member, {}).update(pairs([value]))
        else:
            into[member] = _mount_value(kind, key, value, around)
    if not made.get("Target"):
        raise LineError(f"--mount {text!r}: no target")
    return made


def _recursive(value: str) -> RequestBody:
    """Return the bind options of the modes of --mount's bind-recursive."""
    modes: dict[str, RequestBody] = {
        "enabled": {},
        "disabled": {"NonRecursive": True},
        "writable": {"ReadOnlyNonRecursive": True},
        "readonly": {"ReadOnlyForceRecursive": True},
    }
    if value not in modes:
        raise LineError(f"--mount: bind-recursive is {', '.join(modes)}, not {value!r}")
    return modes[value]


def _mount_value(kind: str, key: str, value: str, around: Surroundings) -> object:
    match kind:
        case "flag":
            if value not in {"", "true", "1", "false", "0"}:
                raise LineError(f"--mount: {key} is true or false, not {value!r}")
            return value in {"", "true", "1"}
        case "bytes":
            return count_of_bytes(value, f"mount {key}")
        case "octal":
            if not re.fullmatch(r"[0-7]{1,6}", value):
                raise LineError(f"--mount: {key} is an octal number, not {value!r}")
            return int(value, 8)
        case "path":
            return around.absolute(value)
        case _:
            return value.lower() if key == "type" else value


_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def _range(text: str, whole_text: str) -> range:
    match = _PORT.fullmatch(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise LineError(f"{whole_text!r}: expected a port, or a range of ports")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _published(given: Given) -> Iterator[tuple[str, str, int, str]]:
    """Yield address, host port ('' is unset), container port and protocol."""
    for text in given.all("publish"):
        spec, slash, protocol = _short(text).partition("/")
        *before, container = spec.split(":")
        address = ":".join(before[:-1]).removeprefix("[").removesuffix("]")
        host = before[-1] if before else ""
        ports = _range(container, text)
        hosts = [str(port) for port in _range(host, text)] if host else [""] * len(ports)
        if len(ports) == 1 and len(hosts) > 1:
            hosts = [host]  # the engine chooses one of the range
        if len(hosts) != len(ports):
            raise LineError(f"{text!r}: as many ports of the host as of the container")
        if slash and protocol.lower() not in {"tcp", "udp", "sctp"}:
            raise LineError(f"{text!r}: tcp, udp or sctp")
        for port, host_port in zip(ports, hosts, strict=True):
            yield address, host_port, port, protocol.lower() or "tcp"


def _short(text: str) -> str:
    """Return the short form of ``published=80,target=80,protocol=tcp``."""
    if "=" not in text:
        return text
    long = dict(fields(text, "publish"))
    if unknown := long.keys() - {"published", "target", "protocol", "mode"}:
        raise LineError(f"--publish: unknown field {min(unknown)!r}")
    published = f"{long['published']}:" if long.get("published") else ""
    return f"{published}{long.get('target', '')}/{long.get('protocol') or 'tcp'}"


def bindings(given: Given) -> RequestBody:
    """Return PortBindings."""
    found: dict[str, list[RequestBody]] = {}
    for address, host, port, protocol in _published(given):
        binding = {"HostIp": address, "HostPort": host}
        found.setdefault(f"{port}/{protocol}", []).append(binding)
    return dict(found)


def exposed(given: Given) -> Iterator[tuple[int, str]]:
    """Yield the exposed ports, the published ones among them."""
    yield from ((port, protocol) for _, _, port, protocol in _published(given))
    for text in given.all("expose"):
        ports, _, protocol = text.partition("/")
        if ":" in ports:
            raise LineError(f"--expose {text!r}: only ports of the container")
        yield from ((port, protocol.lower() or "tcp") for port in _range(ports, text))


def ulimit(text: str) -> RequestBody:
    """Return a member of Ulimits."""
    name, equals, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    if not equals:
        raise LineError(f"--ulimit {text!r}: expected NAME=SOFT[:HARD]")
    least = whole(soft, "ulimit")
    return {"Name": name, "Soft": least, "Hard": whole(hard, "ulimit") if colon else least}
