"""What a client meant against what reached the engine: field by field, after what is always added.

Clients write null, "", 0, false, [] and {} for "unset". Beside what the client wrote, only what
``ADDED`` lists may be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from tests.gate.tap import Tapped

_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_NO_NEW_PRIVILEGES = re.compile(r"no-new-privileges(?:[:=]true)?", re.ASCII)
#: Query parameters that aren't passed on: no removal takes anonymous volumes along.
DROPPED = frozenset({"v"})
#: Parameters that say nothing to the engine there, or what holds anyhow: the path's pattern.
NEEDLESS = (
    (re.compile(r"/containers/[^/]+/start"), frozenset({"detachKeys"})),
    (re.compile(r"/networks/[^/]+"), frozenset({"scope", "verbose"})),
    (re.compile(r"/volumes/[^/]+"), frozenset({"force"})),
    (re.compile(r"/containers/json"), frozenset({"limit"})),  # -1, docker-py's word for all
)
#: Filters that the broker answers itself: the engine would tell of names that aren't shown.
ANSWERED = frozenset({"reference"})
#: What the engine ignores, or does anyhow: the path's pattern, fields, and the values for which
#: that is so (none: any).
IGNORED: tuple[tuple[re.Pattern[str], re.Pattern[str], tuple[Any, ...]], ...] = tuple(
    (re.compile(path), re.compile(field), values)
    for path, field, values in (
        (r"/containers/[^/]+/exec", "Container|Detach", ()),
        (r"/containers/.*|/exec/.*", r"(HostConfig\.)?ConsoleSize", ([0, 0],)),
        (r"/containers/create", r"HostConfig\.MemorySwappiness", (-1,)),
        (r"/containers/create", r"HostConfig\.Isolation", ("default",)),
        (r"/containers/create", "ArgsEscaped", (True,)),
        (r"/containers/create", r"HostConfig\.Mounts\.\d+\.Consistency", ()),
        (r"/containers/create", r"HostConfig\.Mounts\.\d+\.VolumeOptions\.Labels\..*", ()),
        (r"/networks/create", "CheckDuplicate|EnableIPv4", (True,)),
        (r"/networks/create", r"IPAM\.Driver", ("default",)),
        (r"/networks/create", "Scope", ("local",)),
    )
)
#: What the broker adds to a create: the path's pattern, and why.
ADDED = (
    (r"Image", "pinned by id"),
    (r"Labels\.io\.trimtab\..*", "whose it is"),
    (r"HostConfig\.CapDrop", "everything is dropped"),
    (r"HostConfig\.SecurityOpt", "no new privileges"),
    (r"HostConfig\.(Memory|MemorySwap|NanoCpus|PidsLimit)", "limits"),
    (r"HostConfig\.LogConfig\..*", "logs rotate"),
    (r"HostConfig\.NetworkMode", "the mode's network, by name"),
    (r"HostConfig\.PortBindings\..*\.HostIp", "loopback"),
    (r"HostConfig\.Mounts\.\d+\.TmpfsOptions\.SizeBytes", "bounded"),
    (r"HostConfig\.Tmpfs\..*", "bounded, without programs and devices"),
    (r"ExposedPorts\..*", "what is published is exposed"),
    (r"NetworkingConfig\.EndpointsConfig\..*", "the networks that mode and ports imply"),
    (r"(Driver|Internal|Options\..*|EnableIPv6|EnableIPv4)", "how networks and volumes are made"),
)
_ADDED = re.compile("|".join(f"(?:{pattern})" for pattern, _ in ADDED))

Leaves = dict[str, Any]


def differences(
    sent: object, tapped: Tapped, *, own: str, image: dict[str, Any] | None = None
) -> list[str]:
    """Return what reached the engine otherwise than the client meant it.

    *image* is the config of the image, of which the body has what the container inherits.
    """
    got = tapped.json
    if not isinstance(got, dict) or not isinstance(sent, dict):
        return [f"not two objects: {tapped.body[:80]!r}"]
    wanted, found = dict(leaves(sent)), dict(leaves(got))
    wanted = {
        path: value for path, value in wanted.items() if not _ignored(tapped.path, path, value)
    }
    given = dict(leaves(image or {}))
    lost = [
        f"{path}: {value!r} became {found.get(path)!r}"
        for path, value in wanted.items()
        if not _same(path, value, found.get(path), own=own)
        and not _completed(path, value, found.get(path), given)
    ]
    added = [
        f"{path}: {value!r} was added"
        for path, value in found.items()
        if path not in wanted
        and not _ADDED.fullmatch(path)
        and value not in ("0:0", given.get(path))
    ]
    return lost + added


def _completed(path: str, wanted: Any, got: Any, given: Leaves) -> bool:
    """Tell whether a value is what was meant, and beside it what the image gives."""
    match path:
        case "Env":
            return bool([*wanted, *(e for e in given.get("Env", ()) if e not in wanted)] == got)
        case "User":  # by number alone, and so in the group of that number
            return got == f"{int(wanted)}:{int(wanted)}" if wanted.isdigit() else False
        case _:
            return False


def _ignored(target: str, field: str, value: object) -> bool:
    return any(
        path.fullmatch(target) and name.fullmatch(field) and (not values or value in values)
        for path, name, values in IGNORED
    )


def leaves(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every set value with its dotted path; lists of plain values are values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
            # A port or volume is named by its key alone.
            if inner == {}:
                yield f"{path}.{key}", {}
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{index}")
    elif value not in (None, "", 0, False, []):
        yield path, value


def _same(path: str, wanted: object, got: object, *, own: str) -> bool:
    if wanted == got or (wanted == {} and got is None):
        return True
    for pattern, same in SAME:
        if pattern.fullmatch(path):
            return bool(same(wanted, got))
    return path == "Container" and got == own


def _listed(wanted: object) -> list[Any]:
    return wanted if isinstance(wanted, list) else []


def _restated(wanted: object) -> bool:
    return all(_NO_NEW_PRIVILEGES.fullmatch(str(each)) for each in _listed(wanted))


#: Where the same thing is written otherwise: the path's pattern, and when the two are the same.
SAME: tuple[tuple[re.Pattern[str], Callable[[Any, Any], bool]], ...] = tuple(
    (re.compile(pattern), same)
    for pattern, same in (
        ("Image", lambda _, got: _ID.fullmatch(str(got)) is not None),
        ("Cmd|Entrypoint|Shell", lambda wanted, got: [wanted] == got),
        (r"HostConfig\.CapAdd", lambda wanted, got: got == list(map(_capability, wanted))),
        # Of everything, whatever was named.
        (r"HostConfig\.CapDrop", lambda _, got: got == ["ALL"]),
        (
            r"HostConfig\.SecurityOpt",
            lambda wanted, got: _restated(wanted) and got == ["no-new-privileges:true"],
        ),
        # The engine's words for a choice; an owned network keeps its name.
        (
            r"HostConfig\.NetworkMode",
            lambda wanted, got: wanted in {"default", "bridge"} and bool(got),
        ),
        (r"NetworkingConfig\.EndpointsConfig\.(default|bridge).*", lambda _, got: True),
        (
            r"HostConfig\.Tmpfs\..*",
            lambda wanted, got: _options(wanted) <= _options(got),
        ),
    )
)


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


_OPTION_SIZE = re.compile(r"(size=)([0-9]+)([kmg]?)", re.ASCII)


def _options(text: object) -> set[str]:
    """Return the options of a tmpfs, sizes in bytes."""
    factors = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
    return {
        _OPTION_SIZE.sub(lambda found: f"size={int(found[2]) * factors[found[3]]}", option)
        for option in str(text).split(",")
    }


def query_differences(sent: str, tapped: Tapped) -> list[str]:
    """Return the parameters of a query that didn't reach the engine as they were meant."""
    wanted = dict(parse_qsl(sent, keep_blank_values=False))
    found = dict(parse_qsl(tapped.query))
    return [
        f"?{name}={value} became {found.get(name)!r}"
        for name, value in wanted.items()
        if name not in DROPPED | _needless(tapped.path)
        and not _same_parameter(value, found.get(name))
    ] + [f"?{name} was passed on" for name in DROPPED if name in found]


def _needless(target: str) -> frozenset[str]:
    return frozenset().union(*(names for path, names in NEEDLESS if path.fullmatch(target)))


def _same_parameter(wanted: str, got: str | None) -> bool:
    if wanted == got or wanted in {"0", "false", "False"}:
        return True
    if got is None:
        return False
    flags = {"1", "true", "True"}
    return {wanted, got} <= flags or _narrower(wanted, got)


def _narrower(wanted: str, got: str) -> bool:
    """Tell whether filters hold at least what was asked for."""
    try:
        asked, passed = json.loads(wanted), json.loads(got)
    except ValueError:
        return False
    if not isinstance(asked, dict) or not isinstance(passed, dict):
        return False
    return all(
        set(values) <= set(passed.get(key, ()))
        for key, values in asked.items()
        if key not in ANSWERED
    )
