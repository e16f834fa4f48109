"""The fields of a service: what its document says, what runs, what the gate admitted, and where each value is from.

Values that can be secret are left out: variables, arguments, commands of checks, labels of containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from controller.core.engine_api.comparable_fields import SETTINGS, UNSET, Setting
from controller.core.review.field_changes import written_fields
from controller.core.status.facts import Report
from controller.model.desired.desired import Service, SourceLocation
from controller.model.observed import Container, Settings

#: The settings that a document can have.
_IN_DOCUMENTS: Final = tuple(each for each in SETTINGS if each.path.startswith("spec."))
#: The line of the policy with the value of an unset limit.
_OF_POLICY: Final[Mapping[str, str]] = {
    f"spec.resources.{limit}": f"resources.{limit}.default" for limit in ("memory", "cpus", "pids")
}


def fields_of(service: Service, containers: Iterable[Container]) -> list[Report]:
    """Return the fields of a service by path: ``field``, ``desired``, ``running``, ``admitted``, ``origin``.

    ``desired`` is None for an unset field, and for a value that isn't shown: then ``hidden`` is True.
    ``running`` and ``admitted`` are None where the engine's value isn't compared. Both name every value
    if containers differ.
    """
    current = [each for each in containers if each.revision == service.revision]
    written = {change.path: change for change in written_fields(service.spec)}
    settings = {setting.path: setting for setting in _IN_DOCUMENTS}
    shown = [path for path in settings if path in written or _is_set(settings[path], current)]
    return [
        {
            "field": path,
            "desired": written[path].new if path in written else None,
            **({"hidden": True} if path in written and written[path].sensitive else {}),
            "running": _running(path, settings.get(path), current),
            "admitted": _admitted(settings.get(path), current),
            "origin": _origin(path, service.source, is_written=path in written),
        }
        for path in sorted({*written, *shown})
    ]


def _is_set(setting: Setting, containers: Iterable[Container]) -> bool:
    return any(
        getattr(each, setting.name) != UNSET.get(setting.name)
        for container in containers
        for each in (container.settings, container.admitted)
        if each is not None
    )


def _running(path: str, setting: Setting | None, containers: Iterable[Container]) -> str | None:
    if path == "spec.image":
        return _texts(each.image for each in containers)
    if setting is None:
        return None
    return _texts(_value(setting, each.settings) for each in containers)


def _admitted(setting: Setting | None, containers: Iterable[Container]) -> str | None:
    if setting is None:
        return None
    return _texts(_value(setting, each.admitted) for each in containers if each.admitted)


def _value(setting: Setting, settings: Settings) -> str:
    return setting.show(getattr(settings, setting.name))


def _texts(values: Iterable[str]) -> str | None:
    """Return the distinct values in one text; None without any."""
    return " / ".join(dict.fromkeys(values)) or None


def _origin(path: str, source: SourceLocation, *, is_written: bool) -> Report:
    """Return where a value is from: ``document`` with its place, ``policy`` with its rule, or ``default``."""
    if is_written:
        line = next(_lines(path.removeprefix("spec."), source), source.line)
        return {"from": "document", **place_of(source), "line": line}
    rule = _OF_POLICY.get(path)
    return {"from": "policy", "rule": rule} if rule else {"from": "default"}


def _lines(path: str, source: SourceLocation) -> Iterator[int]:
    """Yield the line of a field, then those of the fields around it."""
    lines = dict(source.lines)
    while path:
        if path in lines:
            yield lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]


def place_of(source: SourceLocation) -> Report:
    """Return the member ``declared``: the place of a document."""
    return {
        "file": source.file,
        "line": source.line,
        "commit": source.commit,
        "source": source.origin,
    }
