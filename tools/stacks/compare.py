"""Containers of one service, as docker compose and as trimtab made them, field by field.

Names, ids, labels, addresses and times are apart: ``APART`` gives the reason for each. Every other field is
equal, or ``trimtab try`` announced the difference, or the difference is unannounced: a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

Inspect = dict[str, Any]
Fields = dict[str, object]
#: Settings that the engine takes where a container has none (docs of the Engine API 1.45).
STOP_TIMEOUT_S: Final = 10
INTERVAL_NS: Final = 30_000_000_000
RETRIES: Final = 3

UNITS: Final = {"k": 1024, "m": 1024**2, "g": 1024**3}
#: Labels of the programs, and of the demo images.
OWN_LABELS: Final = ("com.docker.compose.", "io.trimtab.")
COMPLETED: Final = "^the healthcheck is completed"

#: Fields that are not compared, with the reason.
APART: Final = {
    "Config.Labels": "those of the file are compared, and those of the programs are left out",
    "Config.Image": "compared by the id of the image, since trimtab names the digest",
    "Config.AttachStderr": "of the client that created the container, no effect on it",
    "Config.AttachStdout": "of the client that created the container, no effect on it",
    "Config.AttachStdin": "of the client that created the container, no effect on it",
    "Config.StdinOnce": "of the client that created the container, no effect on it",
    "Config.ExposedPorts": "no effect in a network; published ports are compared",
    "HostConfig.Binds": "compared as mounts",
    "HostConfig.Mounts": "compared as mounts",
    "HostConfig.Tmpfs": "compared as mounts",
    "HostConfig.NetworkMode": "compared as networks",
    "HostConfig.ConsoleSize": "of the client that created the container, no effect on it",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs, and the words of ``trimtab try`` about it; '' if there are none."""

    service: str
    field: str
    compose: object
    trimtab: object
    announced: str = ""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A difference that ``try`` announces: which values it covers, and the words that say so."""

    field: str
    words: str
    fits: Callable[[Any, Any], bool]


def _is_unset(before: object, _after: object) -> bool:
    return not before


def _are_times(before: Any, after: Any) -> bool:
    return after is not None and before is not None


def _gains_names(before: Any, after: Any) -> bool:
    return before is not None and set(before) < set(after or ())


def _are_tmpfs(before: Any, after: Any) -> bool:
    return bool(before and after) and before[0] == after[0] == "tmpfs"


def _restarts(before: str, after: str) -> Callable[[Any, Any], bool]:
    return lambda one, two: (one["Name"], two["Name"]) == (before, after)


ANNOUNCEMENTS: Final = (
    Announcement("HostConfig.Memory", r"^memory \d", _is_unset),
    Announcement("HostConfig.MemorySwap", "^no swap beside", lambda _a, b: b > 0),
    Announcement("HostConfig.NanoCpus", r"^\d+ CPUs?$", _is_unset),
    Announcement("HostConfig.PidsLimit", r"^\d+ processes$", _is_unset),
    Announcement("HostConfig.CapDrop", "^all capabilities dropped", lambda _a, b: b == ["ALL"]),
    Announcement("HostConfig.CapAdd", "^all capabilities dropped", lambda a, b: set(a) <= set(b)),
    Announcement(
        "HostConfig.SecurityOpt",
        "^no new privileges",
        lambda a, b: [*a, "no-new-privileges"] == b,
    ),
    Announcement("HostConfig.LogConfig", "logs rotate", lambda a, b: a["Type"] == b["Type"]),
    Announcement("HostConfig.RestartPolicy", "^restart isn't written", _restarts("no", "always")),
    Announcement(
        "HostConfig.RestartPolicy", "^restart unless-stopped", _restarts("unless-stopped", "always")
    ),
    Announcement(
        "HostConfig.RestartPolicy", "^restart on-failure", _restarts("on-failure", "on-failure")
    ),
    Announcement(
        "HostConfig.RestartPolicy", "^a Secret is mounted", lambda _a, b: b["Name"] == "no"
    ),
    Announcement(
        "HostConfig.CgroupnsMode", "^cgroup: the engine's default", lambda a, _b: a == "private"
    ),
    Announcement(
        "Config.Env",
        "has no value, and is not set",
        lambda a, b: [each for each in a if "=" in each] == b,
    ),
    Announcement(
        r"Config.Healthcheck\..*", "a check of the image itself stays in force", lambda _a, _b: True
    ),
    Announcement(r"Config.Healthcheck.(Interval|Timeout|StartPeriod)", COMPLETED, _are_times),
    Announcement(
        r"Config.Healthcheck.(Retries|StartPeriod)", r"^\d+ retries are more than", _are_times
    ),
    Announcement(
        r"Mounts\..*",
        "has a tmpfs at each VOLUME",
        lambda a, b: a == ("volume", None, "rw") and b[0] == "tmpfs",
    ),
    Announcement(
        r"Mounts\..*", "^the container can't write to", lambda a, b: (*a[:2], "ro") == tuple(b)
    ),
    Announcement(r"Networks\.\(ports\)", "^published ports lead", _is_unset),
    Announcement(r"Networks\..*", "^links: ", _gains_names),
    Announcement(r"Mounts\..*", "^the tmpfs .* has no size", _are_tmpfs),
    Announcement(
        "HostConfig.PortBindings",
        "^published ports",
        lambda a, b: a == {port: [("", to) for _, to in bound] for port, bound in b.items()},
    ),
)


def differences(
    service: str, compose: Fields, trimtab: Fields, announced: Iterable[str]
) -> Iterator[Difference]:
    """Yield the fields that differ between two containers of a service."""
    said = [*announced]
    for field in sorted(compose.keys() | trimtab.keys()):
        one, two = compose.get(field), trimtab.get(field)
        if one != two:
            yield Difference(service, field, one, two, _words(field, one, two, said))


def _words(field: str, one: object, two: object, said: Iterable[str]) -> str:
    """Return the announcement that covers a difference, else ''."""
    rows = [row for row in ANNOUNCEMENTS if re.fullmatch(row.field, field)]
    covering = [row for row in rows if row.fits(one, two)]
    found = (text for row in covering for text in said if re.search(row.words, text))
    return next(found, "")


@dataclass(frozen=True, slots=True)
class Renaming:
    """The names of one program on the engine, and the names in the Compose file."""

    networks: Callable[[str], str]
    #: None for a volume that the file doesn't declare.
    volumes: Callable[[str], str | None]
    #: The names that the program makes up for a container, and the service's own.
    made_up: Callable[[Inspect], set[str]]
    #: The content and mode of a bind's source on the host.
    content: Callable[[str], object]


def fields_of(inspect: Inspect, names: Renaming) -> Fields:
    """Return the fields of a container that both programs decide, in one form."""
    config, host = inspect["Config"], inspect["HostConfig"]
    fields: Fields = {"Image": inspect["Image"]}
    for part, members in (("Config", config), ("HostConfig", host)):
        for name, value in members.items():
            field = f"{part}.{name}"
            if field not in APART:
                fields[field] = _plain(value)
    own = inspect["Id"][:12]
    fields["Config.Hostname"] = "" if config["Hostname"] == own else config["Hostname"]
    fields["Config.Env"] = sorted(config.get("Env") or [])
    fields["Config.StopTimeout"] = config.get("StopTimeout") or STOP_TIMEOUT_S
    fields |= {
        f"Labels.{k}": v for k, v in config["Labels"].items() if not k.startswith(OWN_LABELS)
    }
    fields["HostConfig.LogConfig"] = _logs(host["LogConfig"])
    fields.pop("Config.Healthcheck", None)
    fields |= {f"Config.Healthcheck.{k}": v for k, v in _healthcheck(config).items()}
    fields["HostConfig.PortBindings"] = {
        port: sorted((each.get("HostIp", ""), each["HostPort"]) for each in bound or [])
        for port, bound in (host.get("PortBindings") or {}).items()
    }
    for name in ("CapAdd", "CapDrop", "SecurityOpt", "ExtraHosts", "GroupAdd"):
        fields[f"HostConfig.{name}"] = sorted(_word(each) for each in host.get(name) or [])
    fields["HostConfig.Ulimits"] = sorted(
        (each["Name"], each["Soft"], each["Hard"]) for each in host.get("Ulimits") or []
    )
    fields |= {f"Mounts.{target}": mount for target, mount in _mounts(inspect, names)}
    fields |= _networks(inspect, names)
    return fields


def _logs(log: Inspect) -> Inspect:
    """Return a log configuration with sizes in bytes."""
    options = {name: _bytes(value) for name, value in (log.get("Config") or {}).items()}
    return {"Type": log["Type"], "Config": options}


def _bytes(text: str) -> str:
    number, unit = text[:-1], text[-1:].lower()
    return str(int(number) * UNITS[unit]) if unit in UNITS and number.isdigit() else text


def _word(text: str) -> str:
    return text.removeprefix("CAP_").removesuffix(":true")


def _plain(value: object) -> object:
    """Return None for every way to write that nothing is set."""
    return None if value in ("", [], {}, 0, False) else value


def _healthcheck(config: Inspect) -> dict[str, object]:
    check = config.get("Healthcheck") or {}
    if not check:
        return {}
    test = check.get("Test") or []
    return {
        "Test": ["CMD", "/bin/sh", "-c", *test[1:]] if test[:1] == ["CMD-SHELL"] else test,
        "Interval": check.get("Interval") or INTERVAL_NS,
        "Timeout": check.get("Timeout") or INTERVAL_NS,
        "Retries": check.get("Retries") or RETRIES,
        "StartPeriod": check.get("StartPeriod") or 0,
        "StartInterval": check.get("StartInterval") or 0,
    }


def _mounts(inspect: Inspect, names: Renaming) -> Iterator[tuple[str, object]]:
    for mount in inspect["Mounts"]:
        kind, writable = mount["Type"], mount["RW"]
        match kind:
            case "volume":
                source: object = names.volumes(mount["Name"])
            case "bind":
                source = names.content(mount["Source"])
            case _:
                continue  # a tmpfs: below, since the two ways to ask for one differ here
        yield mount["Destination"], (kind, source, "rw" if writable else "ro")
    host = inspect["HostConfig"]
    for target, options in (host.get("Tmpfs") or {}).items():
        yield target, ("tmpfs", _tmpfs(options))
    for mount in host.get("Mounts") or []:
        if mount["Type"] == "tmpfs":
            terms = mount.get("TmpfsOptions") or {}
            mode = f",mode={terms['Mode']:o}" if terms.get("Mode") else ""
            yield mount["Target"], ("tmpfs", _tmpfs(f"size={terms.get('SizeBytes', '')}{mode}"))


def _tmpfs(options: str) -> tuple[str, ...]:
    found = (each for each in options.split(",") if each not in ("", "size="))
    return tuple(sorted(map(_option, found)))


def _option(option: str) -> str:
    """Return an option of a tmpfs, with a size in bytes."""
    name, _, value = option.partition("=")
    return f"size={_bytes(value)}" if name == "size" else option


def _networks(inspect: Inspect, names: Renaming) -> Fields:
    """Return the names of a container in each network, beside those that its program makes up."""
    joined: dict[str, set[str]] = {}
    for network, endpoint in (inspect["NetworkSettings"]["Networks"] or {}).items():
        known = {inspect["Name"].removeprefix("/"), *(endpoint.get("Aliases") or ())}
        joined.setdefault(names.networks(network), set()).update(known - names.made_up(inspect))
    return {f"Networks.{name}": sorted(value) for name, value in joined.items()}
