"""The prune guard's memory, and its form in the controller's saved state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.model.names import Key


@dataclass(frozen=True, slots=True)
class PruneMemory:
    """The guard's memory between observations. The controller stores it."""

    #: The filesystem of the directory when all was well.
    device: int = 0
    #: The new candidates of the last observation.
    settling: frozenset[Key] = frozenset()
    #: When these candidates first appeared.
    settling_since: float = 0.0
    #: Services that may go and are not gone yet.
    going: frozenset[Key] = frozenset()
    #: Those of ``going`` that were still declared (scaled to 0, or Stopped). The removal of
    #: their documents is not allowed yet.
    standing: frozenset[Key] = frozenset()
    #: When each service of the window was allowed.
    passed: tuple[tuple[Key, float], ...] = ()
    #: The filesystem of each Git source when all was well.
    devices: tuple[tuple[str, int], ...] = ()
    #: The source of each resource, '' for DIR. Empty without Git sources.
    sources: tuple[tuple[Key, str], ...] = ()


def to_json(memory: PruneMemory) -> dict[str, object]:
    """Return a memory as JSON, in whole milliseconds."""
    sources: dict[str, object] = {}
    if memory.devices:
        sources["devices"] = dict(memory.devices)
    if memory.sources:
        sources["sources"] = [[str(key), name] for key, name in memory.sources]
    return {
        "device": memory.device,
        "settling": [str(key) for key in sorted(memory.settling)],
        "settlingSinceMs": round(memory.settling_since * 1000),
        "going": [str(key) for key in sorted(memory.going)],
        "standing": [str(key) for key in sorted(memory.standing)],
        "passed": [[str(key), round(at * 1000)] for key, at in memory.passed],
        **sources,
    }


def from_json(value: Mapping[str, object]) -> PruneMemory:
    """Parse the output of ``to_json``.

    Raises:
        ValueError: *value* is not a memory.
    """
    match value:
        case {
            "device": int(device),
            "settling": list(settling),
            "settlingSinceMs": int(since_ms),
            "going": list(going),
            "standing": list(standing),
            "passed": list(passed),
        }:
            return PruneMemory(
                device=device,
                settling=_keys(settling),
                settling_since=since_ms / 1000,
                going=_keys(going),
                standing=_keys(standing),
                passed=tuple(sorted(_entry(entry) for entry in passed)),
                devices=_devices(value.get("devices", {})),
                sources=_named(value.get("sources", [])),
            )
        case _:
            raise ValueError(f"not the prune guard's memory: {value!r}")


def _keys(texts: list[object]) -> frozenset[Key]:
    return frozenset(Key.parse(str(text)) for text in texts)


def _entry(entry: object) -> tuple[Key, float]:
    match entry:
        case [str(text), int(at_ms)]:
            return Key.parse(text), at_ms / 1000
        case _:
            raise ValueError(f"not an entry of the prune guard's memory: {entry!r}")


def _devices(value: object) -> tuple[tuple[str, int], ...]:
    match value:
        case dict() if all(isinstance(device, int) for device in value.values()):
            return tuple(sorted((str(name), int(device)) for name, device in value.items()))
        case _:
            raise ValueError(f"not the filesystems of sources: {value!r}")


def _named(value: object) -> tuple[tuple[Key, str], ...]:
    """Parse the sources of resources."""
    entries = value if isinstance(value, list) else [value]
    found: list[tuple[Key, str]] = []
    for entry in entries:
        match entry:
            case [str(text), str(name)]:
                found.append((Key.parse(text), name))
            case _:
                raise ValueError(f"not the source of a resource: {entry!r}")
    return tuple(sorted(found))
