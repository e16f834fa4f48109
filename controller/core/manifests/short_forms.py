"""Short forms of compose and docker in long form: ports, mounts, variables, sizes, durations.

A remedy repeats a value only if it has the form of a port, a path, a name or a quantity. Any other
text is possibly secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from controller.model.names import is_dns_label
from controller.model.quantities import format_bytes, format_duration_ms, parse_bytes

#: Conditions of a dependency in compose, and here.
CONDITIONS: Mapping[str, str] = {
    "service_started": "Started",
    "service_healthy": "Healthy",
    "service_completed_successfully": "Completed",
}
_RESTART = {"no": "Never", "never": "Never", "on-failure": "OnFailure", "onfailure": "OnFailure"}

_PORT = re.compile(
    r"(?:(?P<ip>[0-9.]{7,15}|\[[0-9a-fA-F:.]{2,45}\]):)?(?:(?P<host>[0-9]{1,5}(?:-[0-9]{1,5})?):)?"
    r"(?P<container>[0-9]{1,5}(?:-[0-9]{1,5})?)(?:/(?P<protocol>tcp|udp|sctp))?",
    re.ASCII,
)
_VOLUME = re.compile(
    r"(?P<source>[A-Za-z0-9_./~-]{1,200}):(?P<target>/[A-Za-z0-9_./-]{0,200})(?::(?P<mode>[a-zA-Z,]{1,20}))?",
    re.ASCII,
)
_HOST_ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]{1,253})[:=](?P<address>host-gateway|\[?[0-9a-fA-F.:]{2,45}\]?)",
    re.ASCII,
)
_ULIMIT = re.compile(
    r"(?:(?P<name>[a-z]{2,10})=)?(?P<soft>[0-9]{1,15})(?::(?P<hard>[0-9]{1,15}))?", re.ASCII
)
_BYTES = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))? ?([A-Za-z]{0,3})", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))? ?([A-Za-z]{1,7})", re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_UNITS_MS = {
    **dict.fromkeys(("ms", "msec", "millis"), 1),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
}
SHOWN_MAX = 3


def size_remedy(value: object) -> str:
    """Return the possible sizes in units of trimtab, with their bytes; '' for none."""
    meant = sizes(value)
    if len(meant) > 1:
        meant = [f"{size} ({parse_bytes(size)} bytes)" for size in meant]
    return f"write {' or '.join(meant)}" if meant else ""


def duration_remedy(value: object) -> str:
    """Return the intended duration in units of trimtab, or '' if ambiguous.

    A duration that is already valid is rounded up to whole seconds: the refusing field needs those.
    """
    if isinstance(value, bool):
        return ""
    if isinstance(value, int) or (isinstance(value, str) and re.fullmatch("[0-9]{1,6}", value)):
        return f"write {value}s, or another unit: ms, m, h"
    if not isinstance(value, str):
        return ""
    total, end = 0, 0
    while match := _DURATION.match(value, end):
        unit = _UNITS_MS.get(match[3].lower())
        if unit is None:
            return ""
        total += int(match[1]) * unit
        total += int(match[2].ljust(3, "0")) * unit // 1000 if match[2] else 0
        end = match.end() + (value[match.end() : match.end() + 1] == " ")
    if not end or end != len(value) or not total:
        return ""
    meant = format_duration_ms(total)
    return f"write {format_duration_ms(-(-total // 1000) * 1000) if meant == value else meant}"


def sizes(value: object) -> list[str]:
    """Return a size in units of trimtab, once for each possible meaning."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return []
    match = _BYTES.fullmatch(str(value))
    if match is None:
        return []
    number, fraction, unit = int(match[1]), match[2] or "", match[3]
    letter, rest = unit[:1].lower(), unit[1:].lower()
    if unit.lower() in ("", "b"):
        return [_round_down(number)] if number >= 1024 and not fraction else []
    power = _POWERS.get(letter)
    if power is None or rest not in ("", "b", "i", "ib"):
        return []
    scale = 10 ** len(fraction)
    thousandfold = int(match[1] + fraction)
    options = [_round_down(thousandfold * 1024**power // scale)]
    # docker reads 512m as binary; elsewhere a capital without i is decimal.
    if unit[:1].isupper() and rest in ("", "b"):
        options.append(_below(thousandfold * 1000**power // scale))
    return list(dict.fromkeys(options))


def _round_down(count: int) -> str:
    """Return a size in a unit of trimtab, rounded down if no unit divides it."""
    exact = format_bytes(count)
    return _below(count) if exact.endswith("B") else exact


def _below(count: int) -> str:
    """Return the largest size, with two or more digits, that is not above *count*."""
    for unit, power in (("Gi", 3), ("Mi", 2)):
        if count >= 10 * 1024**power:
            return f"{count // 1024**power}{unit}"
    return f"{max(1, count // 1024)}Ki"


def is_name(value: object) -> bool:
    """Return True if a value is valid as the name of a service or a network."""
    return isinstance(value, str) and is_dns_label(value, length=63)


def dependencies(value: object) -> str:
    """Return a list of dependencies for a list of names or compose's mapping."""
    names = [name for name in value if is_name(name)] if isinstance(value, list | dict) else []
    items = []
    for name in names[:SHOWN_MAX]:
        condition = ""
        if isinstance(value, dict) and isinstance(value[name], dict):
            word = str(value[name].get("condition", ""))
            condition = CONDITIONS.get(word, "")
        more = f", condition: {condition}" if condition and condition != "Started" else ""
        items.append(f"{{name: {name}{more}}}")
    if not items:
        return "[{name: SERVICE}]"
    return f"[{', '.join(items)}{', …' if len(names) > SHOWN_MAX else ''}]"


def port(value: object) -> str:
    """Return the mapping to write for a published port such as ``127.0.0.1:8080:80/tcp``."""
    text = str(value)
    match = _PORT.fullmatch(text)
    if match is None:
        return "write {container: 80}, or {container: 80, host: 8080} to publish it"
    parts = [f"container: {match['container']}"]
    if match["host"]:
        parts.append(f"host: {match['host']}")
    if match["ip"]:
        address = match["ip"].strip("[]")
        parts.append(f'hostIP: "{address}"' if ":" in address else f"hostIP: {address}")
    if match["protocol"] not in (None, "tcp"):
        parts.append(f"protocol: {match['protocol']}")
    return f"write {{{', '.join(parts)}}}"


def mount(value: object) -> str:
    """Return the mount to write for compose's short form, '' for any other value."""
    if isinstance(value, str) and re.fullmatch(r"/[A-Za-z0-9_./-]{1,200}", value):
        return f"{{type: volume, source: NAME, target: {value}}}"
    match = _VOLUME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return ""
    source, target = match["source"], match["target"]
    read_only = ", readOnly: true" if "ro" in (match["mode"] or "").split(",") else ""
    if source.startswith(("/", ".", "~")):
        folder = source if source.startswith("/") else f"/ABSOLUTE/{source.lstrip('./~')}"
        return f"{{type: bind, source: {folder.rstrip('/')}, target: {target}{read_only}}}"
    name = source.lower().replace("_", "-").replace(".", "-")
    return f"{{type: volume, source: {name}, target: {target}{read_only}}}"


def variables(field: str, value: object) -> str:
    """Return the mapping to write for a list of ``NAME=VALUE``, without values; '' for none."""
    if isinstance(value, dict):
        names = [str(name) for name in value]
    elif isinstance(value, list):
        names = [item.partition("=")[0] for item in value if isinstance(item, str)]
    else:
        return ""
    shown = [name for name in names if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", name)]
    pairs = ", ".join(f"{name}: VALUE" for name in shown[:SHOWN_MAX])
    more = ", …" if len(names) > SHOWN_MAX else ""
    mapping = f"{{{pairs or 'NAME: VALUE'}{more}}}"
    return f"write {field}: {mapping}" if field else f"write a mapping: {mapping}"


def extra_hosts(value: object) -> str:
    """Return the mapping to write for compose's list of ``NAME:ADDRESS`` or ``NAME=ADDRESS``."""
    entries = [str(item) for item in value[:SHOWN_MAX]] if isinstance(value, list) else []
    matches = [_HOST_ENTRY.fullmatch(entry) for entry in entries]
    pairs = [f'{match["name"]}: "{match["address"].strip("[]")}"' for match in matches if match]
    more = ", …" if isinstance(value, list) and len(value) > SHOWN_MAX else ""
    return f"{{{', '.join(pairs) or 'NAME: ADDRESS'}{more}}}"


def ulimit(value: object) -> str:
    """Return the limits to write for docker's ``NAME=SOFT:HARD``, or for a number in quotes."""
    match = _ULIMIT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return "{soft: 1024, hard: 4096}, or one number for both"
    limits = f"{{soft: {match['soft']}, hard: {match['hard']}}}" if match["hard"] else match["soft"]
    return f"{{{match['name']}: {limits}}}" if match["name"] else limits


def servers(value: object) -> str:
    """Return the mapping to write for a DNS server, or for a list of servers."""
    given = value if isinstance(value, list) else [value]
    good = [str(each) for each in given if re.fullmatch(r"[0-9a-fA-F.:]{3,45}", str(each))]
    quoted = ", ".join(f'"{each}"' if ":" in each else each for each in good[:SHOWN_MAX])
    return f"{{servers: [{quoted or 'ADDRESS'}]}}"


def attachments(value: object) -> str:
    """Return the list to write for compose's mapping of networks, or for a single name."""
    names = [value] if isinstance(value, str) else [*value] if isinstance(value, dict) else []
    items = []
    for name in [name for name in names if is_name(name)][:SHOWN_MAX]:
        options = value[name] if isinstance(value, dict) else None
        aliases = options.get("aliases") if isinstance(options, dict) else None
        good = [each for each in aliases if is_name(each)] if isinstance(aliases, list) else []
        items.append(f"{{name: {name}, aliases: [{', '.join(good)}]}}" if good else str(name))
    return f"[{', '.join(items) or 'NAME'}]"


def restart(value: object) -> str:
    """Return the restart policy for a value of compose or docker."""
    word = str(value).partition(":")[0].lower()
    return _RESTART.get(word, "Always")


def network(value: object) -> str:
    """Return the mapping to write for the name of a mode, or for names of networks."""
    if value == "host":
        return "no policy admits the host's network: write {mode: isolated}, and publish ports"
    if value in ("isolated", "bridge", "none"):
        return f"write {{mode: {value}}}"
    names = value if isinstance(value, list) else [value]
    good = [str(name) for name in names if is_name(name)]
    return f"write {{attach: [{', '.join(good[:SHOWN_MAX]) or 'NAME'}]}}"
