"""Field differences between two documents of a service, and between a container and its document.

Documents are compared with their defaults filled in. A field with only a new spelling (``1024Mi``
and ``1Gi``), or with its default written out, is no difference.

Values of environment variables, arguments, health check commands and container labels can be
secret. They are compared, but only named: a ``FieldChange`` has them only if *reveal* is true. The
same holds for a field missing from ``SHOWN``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.core.encoding.text import printable
from controller.core.engine_api.comparable_fields import (
    declared_settings,
    differing_settings,
    is_ignored,
)
from controller.core.engine_api.container_fields import FIELDS
from controller.core.engine_api.create_body import RESTART
from controller.core.manifests.revision_hash import NOT_OF_THE_SLOT
from controller.model.desired.desired import Service
from controller.model.desired.plan import FieldChange
from controller.model.desired.spec.fields import AS_WRITTEN
from controller.model.desired.spec.service import Boot, ServiceSpec
from controller.model.observed import Container

#: The most characters of one value that are shown.
VALUE_MAX: Final = 160

#: The fields below ``spec`` whose values are shown: all numbers and switches of the create, and these.
#: ``[]`` stands for an item of a list.
SHOWN: Final = frozenset(
    field.document.removeprefix("spec.") for field in FIELDS if field.document and field.is_plain
) | frozenset(
    f"{parent}{name}"
    for parent, names in {
        "": "image pullPolicy state suspend replicas workingDir user groupAdd hostname domainname"
        " stopSignal stopGracePeriod extraHosts[] sysctls[] ipc",
        "build.": "context digest dockerfile bases target network shm pull",
        "shares.": "service network ipc pid",
        "observe.": "network pid",
        "dns.": "servers search options",
        "ulimits[].": "soft hard",
        "network.": "mode aliases attach",
        "resources.": "cpuset disk",
        "security.": "capAdd runtime",
        "restart.": "policy boot",
        "logs.": "driver options maxSize maxFiles compress",
        "rollout.": "order maxUnavailable parallelism minHealthy healthDeadline progressDeadline before after"
        " onFailure",
        "healthcheck.": "http.path http.port tcp.port interval timeout retries startPeriod"
        " startInterval",
        "lifecycle.postStart[].": "user workingDir timeout",
        "lifecycle.preStop[].": "user workingDir timeout",
        "ports[].": "container host hostIP protocol",
        "devices[].": "path cdi target permissions",
        "mounts[].": "type source target readOnly shared subpath noCopy size mode exec key keys uid"
        " gid onChange onChange.signal",
        "rollout.rollback.": "order maxUnavailable parallelism minHealthy",
        "dependsOn[].": "kind name condition restart",
    }.items()
    for name in names.split()
)
_ITEM = re.compile(r"\[[^\]]*\]")

#: The lists of objects, and the identity of their items.
_ITEMS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "ports": lambda port: f"{port['container']}/{port['protocol']}",
    "devices": lambda device: str(device.get("path") or device.get("cdi")),
    "mounts": lambda mount: str(mount["target"]),
    "dependsOn": lambda dependency: str(dependency["name"]),
}
#: The members of items that their paths already show.
_IN_PATH: Final = frozenset({"target", "name", "container", "protocol", "path", "cdi"})
#: Mappings with keys that users choose. They are shown as ``name[key]``.
_KEYED: Final = frozenset({"containerLabels", "extraHosts", "sysctls", "ulimits"})

_POLICIES: Final = {word: policy.value for policy, (word, _) in RESTART.items()}


# Documents


def slot_changes(
    old: ServiceSpec, new: ServiceSpec, *, reveal: bool = False
) -> tuple[FieldChange, ...]:
    """Return the fields of the replicas by which two documents differ, by path."""
    return _compared(_document(old), _document(new), reveal=reveal)


def content_changes(old: Service, new: Service) -> tuple[FieldChange, ...]:
    """Return the mounts whose files have another content, by path; never the content."""
    before = {(each.target, each.variable): each.content for each in old.deliveries}
    return tuple(
        FieldChange(
            f"spec.env.{each.variable}" if each.variable else f"spec.mounts[{each.target}].content",
            "changed",
            sensitive=True,
            unknown=each.is_unopened,
        )
        for each in new.deliveries
        if before.get((each.target, each.variable), each.content) != each.content
    )


def service_changes(
    old: ServiceSpec, new: ServiceSpec, *, reveal: bool = False
) -> tuple[FieldChange, ...]:
    """Return the different fields of a service as a whole, such as its replicas."""
    return _compared(_document(old, whole=True), _document(new, whole=True), reveal=reveal)


def written_fields(spec: ServiceSpec, *, reveal: bool = False) -> tuple[FieldChange, ...]:
    """Return all fields set in a document, as added ones, by path."""
    everything = [_document(spec), _document(spec, whole=True)]
    changes = [change for each in everything for change in _compared(_NOTHING, each, reveal=reveal)]
    return tuple(sorted(changes, key=_by_path))


def scalar_change(path: str, old: object, new: object) -> FieldChange:
    """Return the change of one field whose values may be shown."""
    return _change(path, old, new, sensitive=False, reveal=True)


@dataclass(frozen=True, slots=True)
class _Document:
    """The leaves of a spec by path: all of them, and those with other values than the defaults."""

    full: Mapping[str, object]
    written: Mapping[str, object]

    def items(self) -> frozenset[str]:
        """Return the paths of list items, such as ``mounts[/data]``."""
        return frozenset(path[: path.index("]") + 1] for path in self.full if _is_in_item(path))


_NOTHING = _Document({}, {})


def _document(spec: ServiceSpec, *, whole: bool = False) -> _Document:
    chosen = NOT_OF_THE_SLOT if whole else ServiceSpec.model_fields.keys() - NOT_OF_THE_SLOT
    full, written = (
        spec.model_dump(
            mode="json",
            by_alias=True,
            include=set(chosen),
            exclude_defaults=exclude_defaults,
            context=AS_WRITTEN,
        )
        for exclude_defaults in (False, True)
    )
    # Members that identify an item can be defaults, so an item is written whole or not at all.
    written |= {name: full[name] for name in _ITEMS if name in written}
    return _Document(dict(_leaves(full)), dict(_leaves(written)))


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, member in value.items():
        path = f"{prefix}{name}"
        if isinstance(member, dict) and path in _KEYED:
            for key, each in member.items():
                place = f"{path}[{_escaped(key)}]"
                yield from _leaves(each, f"{place}.") if isinstance(each, dict) else [(place, each)]
        elif isinstance(member, dict):
            yield from _leaves(member, f"{path}.")
        elif path in _ITEMS:
            taken: set[str] = set()
            for item in member:
                own = key = _escaped(_ITEMS[path](item)).replace("]", "\\u005d")
                while key in taken:
                    key = f"{own}#{sum(each.split('#')[0] == own for each in taken) + 1}"
                taken.add(key)
                yield from _leaves(item, f"{path}[{key}].")
        elif member is not None:
            yield path, member


def _is_in_item(path: str) -> bool:
    return path.split("[", maxsplit=1)[0] in _ITEMS


def _compared(old: _Document, new: _Document, *, reveal: bool) -> tuple[FieldChange, ...]:
    whole = old.items() ^ new.items()  # items that only one of the two has
    changes = [_item_change(item, old, new) for item in whole]
    for path in old.full.keys() | new.full.keys():
        if any(path.startswith(f"{item}.") for item in whole):
            continue
        was, now = old.full.get(path), new.full.get(path)
        # A default of a new object is no information.
        shown = path in (new.written if was is None else old.written) or None not in (was, now)
        if was != now and shown:
            sensitive = not _is_shown(path, was, now)
            changes.append(_change(f"spec.{path}", was, now, sensitive=sensitive, reveal=reveal))
    return tuple(sorted(changes, key=_by_path))


def _item_change(item: str, old: _Document, new: _Document) -> FieldChange:
    was, now = (_item_text(item, document) for document in (old, new))
    return _change(f"spec.{item}", was, now, sensitive=False, reveal=True)


def _item_text(item: str, document: _Document) -> str | None:
    """Return an item in one line; None for an item missing from the document."""
    if item not in document.items():
        return None
    members = {
        path.removeprefix(f"{item}."): value
        for path, value in document.full.items()
        if path.startswith(f"{item}.") and _is_shown(path, value) and value is not False
    }
    if "container" in members and "host" not in members:
        members.pop("hostIP")  # of a port that isn't published
    return ", ".join(
        f"{name} {_text(value)}" for name, value in members.items() if name not in _IN_PATH
    )


def _is_shown(path: str, *values: object) -> bool:
    if path == "healthcheck.http.path":
        return not any("?" in str(value) for value in values)  # a query may carry a token
    return _ITEM.sub("[]", path) in SHOWN


def _change(path: str, old: object, new: object, *, sensitive: bool, reveal: bool) -> FieldChange:
    carried = reveal or not sensitive
    return FieldChange(
        path=path,
        what="added" if old is None else "removed" if new is None else "changed",
        old=_text(old) if carried and old is not None else None,
        new=_text(new) if carried and new is not None else None,
        sensitive=sensitive,
    )


def _by_path(change: FieldChange) -> tuple[str, str]:
    return (change.path, change.kind)


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case {"name": name, "aliases": list(aliases)}:
            return f"{name} as {' and '.join(map(_text, aliases))}"
        case list() | tuple():
            return ", ".join(_text(each) for each in value) or "none"
        case _:
            return _escaped(str(value))


def _escaped(text: str) -> str:
    """Return a user's text without control characters, shortened."""
    shown = printable(text[:VALUE_MAX])
    return shown if len(text) <= VALUE_MAX else f"{shown}…"


# Containers


def drift_changes(container: Container) -> tuple[FieldChange, ...]:
    """Return the settings of a container changed outside trimtab, by path.

    ``new`` is the admitted value, to be restored by a plan.
    """
    now, admitted = container.settings, container.admitted
    if admitted is None:
        return ()
    changes = [
        FieldChange(
            setting.path,
            "changed",
            _setting_text(setting.name, setting.show, getattr(now, setting.name)),
            _setting_text(setting.name, setting.show, getattr(admitted, setting.name)),
            kind="drift",
        )
        for setting in differing_settings(now, admitted)
        if not is_ignored(setting, now, container.ignored)
    ]
    return tuple(sorted(changes, key=_by_path))


def limit_changes(container: Container, service: Service) -> tuple[FieldChange, ...]:
    """Return the limits that a document changes in a container, by path; ``old`` is the admitted limit."""
    admitted = container.admitted
    if admitted is None:
        return ()
    limits = service.limits.differing_from(admitted)
    changes = [
        _change(
            setting.path,
            setting.show(getattr(admitted, setting.name)),
            setting.show(limits[setting.name]),
            sensitive=False,
            reveal=True,
        )
        for setting in declared_settings(limits)
    ]
    policy = service.spec.restart.policy
    # ``no`` can also be the policy of a container that the controller restarts itself.
    if admitted.restart not in ("no", RESTART[policy][0]):
        was = _POLICIES.get(admitted.restart, admitted.restart)
        changes.append(scalar_change("spec.restart.policy", was, policy.value))
    if service.spec.restart.boot is Boot.ORDERED and admitted.restart != "no":
        changes.append(scalar_change("spec.restart.boot", Boot.ENGINE.value, Boot.ORDERED.value))
    return tuple(sorted(changes, key=_by_path))


def _setting_text(name: str, show: Callable[..., str], value: object) -> str:
    if isinstance(value, tuple):
        return _text(value)
    return _escaped(_POLICIES.get(str(value), show(value)) if name == "restart" else show(value))


def admitted_changes(container: Container, service: Service) -> tuple[FieldChange, ...]:
    """Return how a document differs from a container's admitted settings, as far as is known.

    For a container without a kept document. Only image, owner and the limits in the document can be
    compared, because the policy filled in unset limits.
    """
    spec, admitted = service.spec, container.admitted
    pairs: list[tuple[str, object, object]] = [
        ("metadata.owner", container.owner, service.owner),
        ("spec.image", container.image or None, spec.image),
    ]
    if admitted is not None:
        limits = service.limits.differing_from(admitted)
        pairs += [
            (setting.path, setting.show(was), setting.show(limits[setting.name]))
            for setting in declared_settings(limits)
            if (was := getattr(admitted, setting.name))
        ]
    changed = (scalar_change(path, old, new) for path, old, new in pairs if old and old != new)
    return tuple(sorted(changed, key=_by_path))
