"""A report of ``adopt`` in words: the gaps, what clients notice, and which jobs don't run again. Pure.

The report is the broker's answer, as ``adopt --json`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Findings of containers whose networks were compared with the document.
_BEYOND_NETWORKS = frozenset({"adopt.gap", "adopt.network-shared"})
NOTHING = "Clients notice nothing: the containers keep their networks, addresses and names."
STALE = (
    "Who resolved an address before, such as nginx with proxy_pass or a connection pool, gets no answer "
    "there until it resolves the name again: reload or restart it."
)
KEEP = (
    "To keep the networks of docker compose, write x-trimtab: {networks: compose} into the override file "
    "(docs/adopt.md)."
)


def gap_lines(containers: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each gap with the services that have it, and a line for each field."""
    services: dict[str, list[str]] = {}
    fields: dict[str, list[str]] = {}
    means: dict[str, str] = {}
    for each in containers:
        for gap in each["gaps"]:
            name, means[gap["gap"]] = gap["gap"], gap["means"]
            services.setdefault(name, []).append(each["service"])
            listed = (f"{each['service']}: {text}" for text in gap["fields"])
            fields.setdefault(name, []).extend(listed)
    if services:
        yield "Gaps, until the next replacement of each container:"
    for name, having in services.items():
        yield f"  {name} ({', '.join(dict.fromkeys(having))}): {means[name]}"
        yield from (f"    {text}" for text in dict.fromkeys(fields[name]))


def notice_lines(containers: Iterable[Mapping[str, Any]], *, of_project: bool) -> Iterator[str]:
    """Yield what clients of the containers notice.

    Nothing is said of containers that were refused before their networks were compared.
    """
    compared = [each for each in containers if _is_compared(each)]
    changed = {each["name"]: text for each in compared if (text := _notice_of(each))}
    if not changed:
        if compared:
            yield NOTHING
        return
    yield "What clients notice:"
    yield from (f"  {name} {text}" for name, text in changed.items())
    if any(each["leaves"] or each["rejoins"] for each in compared):
        yield f"  {STALE}"
    if of_project and any(each["leaves"] for each in compared):
        yield f"  {KEEP}"


def _is_compared(container: Mapping[str, Any]) -> bool:
    return {each["rule"] for each in container["findings"]} <= _BEYOND_NETWORKS


def _notice_of(container: Mapping[str, Any]) -> str:
    leaves, joins = container["leaves"], container["joins"]
    parts = [f"leaves {' and '.join(leaves)}"] if leaves else []
    parts += [f"joins {' and '.join(joins)}"] if joins else []
    again = container["rejoins"]
    parts += [f"joins {' and '.join(again)} again, for the names of its document"] if again else []
    text = ", ".join(parts)
    if leaves or again:
        text += ": its connections there end, and its address changes"
    if parts and container["publishes"]:
        text += "; its published ports don't answer for a moment"
    return text


def object_lines(objects: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the verdict of each volume and network."""
    for each in objects:
        verdict = "refused" if each["findings"] else "adopted with them"
        way_out = f"; it has a way out, granted by {each['granted']}" if each["granted"] else ""
        yield f"{each['kind']} {each['name']}: {verdict}{'' if each['findings'] else way_out}"


def run_lines(runs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which jobs don't run again, and which are held."""
    for each in runs:
        job = each["job"].removeprefix("Job/")
        if each["outcome"] == "succeeded":
            yield (
                f"{job}: its run by docker compose counts ({each['name']}), and it doesn't run again"
            )
        else:
            why = "; ".join(each["reasons"])
            yield f"{job}: is held, and runs by trimtab run-job {job} alone ({why})"
