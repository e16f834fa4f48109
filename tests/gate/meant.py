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
#: What the engine ignores in an exec: the path names the container, the start detaches.
IGNORED = re.compile(r"/containers/[^/]+/exec")
IGNORED_FIELDS = frozenset({"Container", "Detach"})
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


def differences(sent: object, tapped: Tapped, *, own: str) -> list[str]:
    """Return what reached the engine otherwise than the client meant it."""
    got = tapped.json
    if not isinstance(got, dict) or not isinstance(sent, dict):
        return [f"not two objects: {tapped.body[:80]!r}"]
    wanted, found = dict(leaves(sent)), dict(leaves(got))
    if IGNORED.fullmatch(tapped.path):
        wanted = {path: value for path, value in wanted.items() if path not in IGNORED_FIELDS}
    lost = [
        f"{path}: {value!r} became {found.get(path)!r}"
        for path, value in wanted.items()
        if not _same(path, value, found.get(path), own=own)
    ]
    added = [
        f"{path}: {value!r} was added"
        for path, value in found.items()
        if path not in wanted and not _ADDED.fullmatch(path)
    ]
    return lost + added


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
            lambda wanted, got: set(str(wanted).split(",")) <= set(str(got).split(",")),
        ),
    )
)


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


def query_differences(sent: str, tapped: Tapped) -> list[str]:
    """Return the parameters of a query that didn't reach the engine as they were meant."""
    wanted = dict(parse_qsl(sent, keep_blank_values=False))
    found = dict(parse_qsl(tapped.query))
    return [
        f"?{name}={value} became {found.get(name)!r}"
        for name, value in wanted.items()
        if name not in DROPPED and not _same_parameter(value, found.get(name))
    ] + [f"?{name} was passed on" for name in DROPPED if name in found]


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
    return all(set(values) <= set(passed.get(key, ())) for key, values in asked.items())
