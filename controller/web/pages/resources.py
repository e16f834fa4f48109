"""What the pages show of the view's resources: who must act on what, tables, and sparklines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.core.encoding.text import shorten
from controller.core.status.standing import worst_of
from controller.model.names import is_dns_label
from controller.web.pages.port import route_of

#: The rows of one page of the table.
ROWS_SHOWN: Final = 100
#: Resources with the same cause that are one entry, at least.
GROUP_LEAST: Final = 3
#: The entries above the table.
ENTRIES_SHOWN: Final = 20
#: Severities, the most urgent first, and their words.
SEVERITIES: Final = {
    "page": "Act now",
    "warning": "Look",
    "progress": "Converging",
    "ok": "As declared",
}
ACTORS: Final = {
    "nobody": "nobody",
    "trimtab": "trimtab",
    "operator": "the host's operator",
    "author": "the document's author",
}
#: Commands for the worst condition of a resource. REF is replaced by its validated name.
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "PrunePending": ("trimtab plan", "trimtab approve"),
    "CrashLoop": ("trimtab logs --previous REF", "trimtab resume REF"),
    "Stalled": ("trimtab describe REF", "trimtab resume REF"),
    "Paused": ("trimtab diff REF", "trimtab resume REF"),
    "RolledBack": ("trimtab history REF", "trimtab resume REF"),
    "Scaled": ("trimtab resume REF",),
    "Suspended": ("trimtab resume REF",),
    "Contended": ("trimtab journal list --service REF",),
    "PolicyViolation": ("trimtab describe REF",),
}
_NAME_MAX: Final = 63
_STALLED_BY_AN_IMAGE: Final = ("image.", "pull.", "policy.")


@dataclass(frozen=True, slots=True)
class Cause:
    """Resources with one cause, and what follows for people."""

    rows: tuple[Mapping[str, Any], ...]
    severity: str
    worst: str
    reason: str
    message: str
    since: str
    next: str
    who: str
    commands: tuple[str, ...]


def key_of(row: Mapping[str, Any]) -> str:
    """Return the key of a row: ``KIND/NAMESPACE/NAME``."""
    return f"{row['kind']}/{row['namespace']}/{row['name']}"


def address_of(key: str) -> str:
    """Return the address of a resource's page; '' for a key that can't stand in an address."""
    route = route_of(f"/{key}")
    return f"/{key}" if route is not None and route.key == key != "" else ""


def reference_of(row: Mapping[str, Any]) -> str:
    """Return a service's name in commands; '' if its names aren't plain labels."""
    namespace, name = str(row["namespace"]), str(row["name"])
    if not (is_dns_label(namespace, length=_NAME_MAX) and is_dns_label(name, length=_NAME_MAX)):
        return ""
    return name if namespace == "default" else f"{namespace}/{name}"


def commands_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return commands to copy: our words and validated names alone."""
    reference = reference_of(row)
    if not reference or row["kind"] not in {"Service", "Job"}:
        return ()
    reason = worst_of(row)[1].get("reason", "")
    if row["worst"] == "Stalled" and str(reason).startswith(_STALLED_BY_AN_IMAGE):
        return (f"trimtab describe {reference}",)
    return tuple(each.replace("REF", reference) for each in _COMMANDS.get(row["worst"], ()))


def entry_of(rows: Sequence[Mapping[str, Any]]) -> Cause:
    """Return the entry of resources with the same cause; the first one speaks for all."""
    first = rows[0]
    word, condition = worst_of(first)
    return Cause(
        tuple(rows),
        first["severity"],
        word,
        str(condition.get("reason", "")),
        shorten(str(condition.get("message", ""))),
        min(str(worst_of(row)[1].get("since", "")) for row in rows),
        first["next"],
        first["who"],
        commands_of(first),
    )


def entries_of(rows: Iterable[Mapping[str, Any]]) -> list[Cause]:
    """Return the resources by cause, the most urgent first, then the latest first."""
    causes = defaultdict[tuple[str, ...], list[Mapping[str, Any]]](list)
    for row in rows:
        condition = worst_of(row)[1]
        cause = (row["severity"], row["worst"], condition.get("reason"), condition.get("message"))
        causes[tuple(map(str, cause))].append(row)
    groups: list[Sequence[Mapping[str, Any]]] = []
    for members in causes.values():
        groups += [members] if len(members) >= GROUP_LEAST else [[row] for row in members]
    found = sorted((entry_of(group) for group in groups), key=lambda each: each.since, reverse=True)
    order = list(SEVERITIES)
    return sorted(found, key=lambda each: order.index(each.severity))


@dataclass(frozen=True, slots=True)
class RowsTable:
    """A page of the table of resources."""

    rows: tuple[Mapping[str, Any], ...]
    matching: int
    #: The resources that the filter hides.
    hidden: int
    page: int
    pages: int
    kinds: tuple[str, ...]
    namespaces: tuple[str, ...]
    owners: tuple[str, ...]

    @property
    def first(self) -> int:
        """The number of the first row."""
        return (self.page - 1) * ROWS_SHOWN + 1


def table_of(rows: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> RowsTable:
    """Return the rows of a page that a filter leaves: ``q``, ``state``, ``kind``, ``ns``, ``owner``, ``page``."""
    text = query.get("q", "").casefold()
    wanted = {"severity": "state", "kind": "kind", "namespace": "ns", "owner": "owner"}
    found = [
        row
        for row in rows
        if all(query.get(name, "") in {"", row[member]} for member, name in wanted.items())
        and text in f"{key_of(row)} {row['image']}".casefold()
    ]
    order = list(SEVERITIES)
    found.sort(key=lambda row: (order.index(row["severity"]), row["namespace"], row["name"]))
    pages = max(1, -(-len(found) // ROWS_SHOWN))
    asked = query.get("page", "")
    page = min(max(int(asked), 1), pages) if asked.isdecimal() and len(asked) < 7 else 1
    return RowsTable(
        tuple(found[(page - 1) * ROWS_SHOWN : page * ROWS_SHOWN]),
        len(found),
        len(rows) - len(found),
        page,
        pages,
        *(tuple(sorted({row[name] for row in rows})) for name in ("kind", "namespace", "owner")),
    )


#: The size of a sparkline, in units of its drawing.
SPARK_WIDTH, SPARK_HEIGHT = 160, 32


def sparkline_of(values: Sequence[float]) -> str:
    """Return the points of a polyline for samples, the oldest first; '' for fewer than two."""
    if len(values) < 2:
        return ""
    most = max(*values, 1e-9)
    step = SPARK_WIDTH / (len(values) - 1)
    drawn = SPARK_HEIGHT - 4
    return " ".join(
        f"{at * step:.1f},{SPARK_HEIGHT - 2 - value / most * drawn:.1f}"
        for at, value in enumerate(values)
    )
