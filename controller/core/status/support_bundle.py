"""The contents of a support bundle: the allowed fields of reports, each with the form of its values.

Pure. A bundle is built of this list alone: a field that isn't listed is left out, and so is a value of
another form. No form admits free text. So no value that somebody wrote is in a bundle, apart from names
of resources and namespaces, which are DNS labels: no environment, argument, document, message, path,
address, reference of an image or note.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.core.encoding.json_values import list_of, mapping_of
from controller.model import mutations
from controller.model.names import KINDS, SERVICE_NAME_MAX, is_dns_label
from controller.model.policy.shipped import SHIPPED_POLICIES

#: Returns a value of its form, or None for another one.
Select = Callable[[object], object]
#: Rows of a list, and names of a mapping.
ROWS_MAX, TEXT_MAX = 10_000, 80


@dataclass(frozen=True, slots=True)
class AllowedForm:
    """The form of a value, with its description for people."""

    told: str
    select: Select


def _matching(told: str, pattern: str) -> AllowedForm:
    form = re.compile(pattern, re.ASCII)

    def select(value: object) -> object:
        fits = isinstance(value, str) and len(value) <= TEXT_MAX and form.fullmatch(value)
        return value if fits else None

    return AllowedForm(told, select)


def _word(*words: str) -> AllowedForm:
    """Return the form of a text from a closed list of words. Any other text is ``other``."""

    def select(value: object) -> object:
        return value if value in words else "other" if isinstance(value, str) and value else None

    return AllowedForm(f"one of {', '.join(words)}", select)


def _number(value: object) -> object:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else None


NUMBER = AllowedForm("a number", _number)
FLAG = AllowedForm("true or false", lambda value: value if isinstance(value, bool) else None)
TIME = _matching("a time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
DIGEST = _matching("a digest", r"(sha256:)?[0-9a-f]{64}")
ID = _matching("an id", r"[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VERSION = _matching("a version", r"v?\d{1,5}(\.\d{1,5}){0,3}([-+~.][a-z0-9]{1,12}){0,4}")
#: Codes and words of the program's own: of letters alone.
CODE = _matching("a code of trimtab's", r"[A-Za-z]+(-[a-z]+)*(\.[a-zA-Z]+(-[a-z]+)*){0,2}")
CHECK = _matching("the name of a check", r"[A-Za-z]+([ -][A-Za-z]+){0,2}")
NAME = AllowedForm(
    "the name of a resource or namespace",
    lambda value: (
        value if isinstance(value, str) and is_dns_label(value, length=SERVICE_NAME_MAX) else None
    ),
)
LEVEL = _word("ok", "hint", "warning", "error")
STATUS = _word("True", "False", "Unknown")
KIND = _word(*KINDS)
STATE = _word(
    *["running", "exited", "created", "paused", "restarting", "removing", "dead", "missing"]
)
HEALTH = _word("healthy", "unhealthy", "starting", "none")


@dataclass(frozen=True, slots=True)
class Each:
    """A mapping with names of one form, and values of another."""

    name: AllowedForm
    value: AllowedForm


#: The forms of a report: members of an object, rows of a list (a list with one form), or a value.
Spec = Mapping[str, "Spec"] | list["Spec"] | Each | AllowedForm

_DURATIONS: Mapping[str, Spec] = {"count": NUMBER, "p50": NUMBER, "p95": NUMBER, "longest": NUMBER}
#: Every field of a bundle. Nothing else says what is in one.
ALLOWED: Mapping[str, Spec] = {
    "made": {"time": TIME},
    "versions": {
        "trimtab": VERSION,
        "python": VERSION,
        "kernel": VERSION,
        "machine": _word("x86_64", "aarch64"),
        "distribution": _word("debian", "ubuntu", "fedora", "rhel", "centos", "arch", "alpine"),
        "distributionVersion": VERSION,
    },
    "instance": {"id": ID, "engineId": ID},
    "settings": [{"key": CODE, "isSet": FLAG, "seconds": NUMBER}],
    "engine": {
        "reachable": FLAG,
        "version": VERSION,
        "apiVersion": VERSION,
        "cpus": NUMBER,
        "memoryBytes": NUMBER,
        "ignores": [CODE],
        "driver": _word("overlay2", "overlayfs", "vfs", "btrfs", "zfs", "fuse-overlayfs"),
        "cgroupVersion": VERSION,
        "cgroupDriver": _word("cgroupfs", "systemd", "none"),
        "loggingDriver": _word("json-file", "local", "journald", "syslog", "none"),
        "runtime": _word("runc", "crun", "runsc"),
        "liveRestore": FLAG,
        "containers": NUMBER,
        "containersRunning": NUMBER,
        "images": NUMBER,
    },
    "policy": {
        "digest": DIGEST,
        "name": _word(*SHIPPED_POLICIES),
        "reloads": NUMBER,
        "modes": Each(CODE, _word("enforce", "warn", "audit")),
    },
    "journal": {
        "writable": FLAG,
        "seq": NUMBER,
        "unrecordedRefusals": NUMBER,
        "index": {"seq": NUMBER, "behind": NUMBER},
        "freeBytes": NUMBER,
        "clockDoubted": FLAG,
    },
    "verified": {
        "result": CODE,
        "at": NUMBER,
        "since": NUMBER,
        "records": NUMBER,
        "head": DIGEST,
        "signed": NUMBER,
        "trusted": FLAG,
    },
    "records": {
        "read": NUMBER,
        "kinds": Each(CODE, NUMBER),
        "rules": Each(CODE, NUMBER),
        "milliseconds": [{"action": CODE, **_DURATIONS}],
    },
    "broker": {
        "openIntents": NUMBER,
        "longestStallMs": NUMBER,
        "refusedConnections": NUMBER,
        "strangers": NUMBER,
        "rivals": NUMBER,
        "quotas": [{"key": CODE, "count": NUMBER, "most": NUMBER, "percent": NUMBER}],
    },
    "resources": [
        {
            "kind": KIND,
            "namespace": NAME,
            "name": NAME,
            "desired": NUMBER,
            "ready": NUMBER,
            "generation": NUMBER,
            "observedGeneration": NUMBER,
            "conditions": [{"type": CODE, "status": STATUS, "reason": CODE, "since": TIME}],
            "slots": [{"slot": NUMBER, "state": STATE, "health": HEALTH, "restarts": NUMBER}],
        }
    ],
    "sources": [{"name": NAME, "state": CODE, "lastSuccess": TIME}],
    "problems": [{"code": CODE}],
    "checks": [{"check": CHECK, "level": LEVEL}],
    "processes": [
        {
            "role": _word("broker", "controller", "fetcher"),
            "residentBytes": NUMBER,
            "processorSeconds": NUMBER,
            "threads": NUMBER,
            "openFiles": NUMBER,
        }
    ],
    "sizes": Each(_word("journal", "files", "controller", "fetcher", "ship", "free"), NUMBER),
    "unavailable": Each(CODE, CODE),
}


def bundle(reports: Mapping[str, object]) -> Mapping[str, object]:
    """Return the allowed fields of reports, by the names of ``ALLOWED``."""
    return mapping_of(_select(ALLOWED, reports))


def _select(spec: Spec, value: object) -> object:
    """Return the part of a value that has the form; None if nothing has."""
    match spec:
        case AllowedForm(select=select):
            return select(value)
        case Each(name=name, value=form):
            pairs = (
                (name.select(key), form.select(each)) for key, each in mapping_of(value).items()
            )
            return {str(key): each for key, each in pairs if None not in (key, each)} or None
        case list():
            rows = (_select(spec[0], row) for row in list_of(value)[:ROWS_MAX])
            return [row for row in rows if row is not None] or None
        case _:
            members = mapping_of(value)
            found = {key: _select(each, members.get(key)) for key, each in spec.items()}
            return {key: each for key, each in found.items() if each is not None} or None


def listed() -> Iterator[tuple[str, str]]:
    """Yield every field of a bundle: its path, such as ``resources[].name``, and its form."""

    def walk(spec: Spec, path: str) -> Iterator[tuple[str, str]]:
        match spec:
            case AllowedForm(told=told):
                yield path, told
            case Each(name=name, value=value):
                yield f"{path}.*", f"{value.told}, by {name.told}"
            case list():
                yield from walk(spec[0], f"{path}[]")
            case _:
                for key, each in spec.items():
                    yield from walk(each, f"{path}.{key}" if path else key)

    yield from walk(ALLOWED, "")


# Records


#: The actions of records.
_ACTIONS = frozenset(
    value for name, value in vars(mutations).items() if name.isupper() and isinstance(value, str)
) | {each.value for each in mutations.Mutation}


def counts(records: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """Return how many records there are of each kind and rule, and how long changes took.

    *records* are in the form of ``journal list --json``.
    """
    kinds, rules, actions = Counter[str](), Counter[str](), dict[str, str]()
    took = defaultdict[str, list[float]](list)
    read = 0
    for record in records:
        read += 1
        stage, identifier = str(record.get("stage")), str(record.get("id"))
        action = str(mapping_of(record.get("request")).get("route") or actions.get(identifier, ""))
        actions[identifier] = action = action if action in _ACTIONS else "other"
        kinds[f"{stage}.{action}"] += 1
        rules.update(map(str, list_of(mapping_of(record.get("verdict")).get("rules"))))
        if isinstance(ms := mapping_of(record.get("result")).get("durationMs"), int):
            took[action].append(ms)
    return {
        "read": read,
        "kinds": dict(kinds),
        "rules": dict(rules),
        "milliseconds": [{"action": each, **_spread(took[each])} for each in sorted(took)],
    }


def _spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    at = {name: ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for name, share in _AT}
    return {"count": len(ordered), **at, "longest": ordered[-1]}


_AT = (("p50", 50), ("p95", 95))
