"""The recorded results of the stacks, and the page that is made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tools.stacks.compare import APART
from tools.stacks.side_by_side import Compared

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "compose-stacks.md"
RESULTS: Final = PAGE.with_suffix(".json")
#: A value in the page is cut here.
VALUE_MAX: Final = 60

INTRO: Final = """\
# Compose stacks, side by side

Ten ordinary stacks, in `tests/e2e/stacks`, run from their unchanged folders: with Docker Compose, and with trimtab under the
policy `home`, on one engine. `make compose-side` runs them as root, and writes this page and compose-stacks.json. With
`DIR=folder` it runs the stacks of another folder, and writes nothing.

## The same containers

The containers of each service are inspected, and compared field by field. A difference counts as announced if
`trimtab try` names it before anything is changed. An unannounced difference is a fault.
"""
#: What each stack shows.
SUBJECTS: Final = {
    "blog": "long forms: ports, volumes, configs, secrets, conditions, aliases",
    "meshed": "networks, names, addresses, ranges of ports, links, no network",
    "migrate": "a migration before the services, profiles, every restart policy",
    "monitor": "entrypoints, terminals, logs, anonymous volumes, other health checks",
    "parts": "extends, include, an override file, !reset",
    "queue": "replicas, scale, update_config, limits, inline configs",
    "shop": "short forms",
    "studio": "build beside image, files and folders of the project, shared volumes",
    "vault": "users, read-only roots, capabilities, ulimits, tmpfs, signals",
    "wiki": "anchors, merged mappings, variables, env files",
}


def recorded(compared: Iterable[Compared]) -> dict[str, Any]:
    """Return the results of a run as JSON."""
    return {
        "stacks": {
            each.stack: {
                "containers": each.containers,
                "fields": each.fields,
                "missing": list(each.missing),
                "differences": [
                    {
                        "service": one.service,
                        "field": one.field,
                        "compose": _text(one.compose),
                        "trimtab": _text(one.trimtab),
                        "announced": one.announced,
                    }
                    for one in each.differences
                ],
            }
            for each in compared
        }
    }


def _text(value: object) -> str:
    text = "unset" if value in (None, [], {}, ()) else str(value)
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def write(results: dict[str, Any]) -> None:
    """Write the results and the page."""
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE.write_text(page(results), "utf-8")


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    return "\n".join([INTRO, *_stacks(results["stacks"]), *_differences(results["stacks"]), ""])


def _stacks(stacks: dict[str, Any]) -> Iterator[str]:
    yield "| stack | shows | containers | fields | equal | announced | unannounced |"
    yield "|---|---|---|---|---|---|---|"
    totals = [0] * 5
    for name, found in sorted(stacks.items()):
        announced = sum(bool(each["announced"]) for each in found["differences"])
        faults = len(found["differences"]) - announced + len(found["missing"])
        equal = found["fields"] - len(found["differences"])
        row = [found["containers"], found["fields"], equal, announced, faults]
        totals = [one + two for one, two in zip(totals, row, strict=True)]
        yield f"| `{name}` | {SUBJECTS.get(name, '')} | {' | '.join(map(str, row))} |"
    yield f"| all | | {' | '.join(map(str, totals))} |"
    yield ""


def _differences(stacks: dict[str, Any]) -> Iterator[str]:
    yield "The announced differences, with the first example of each:"
    yield ""
    yield "| field | containers | docker compose | trimtab | announced as |"
    yield "|---|---|---|---|---|"
    by_field: dict[str, list[dict[str, str]]] = {}
    for found in stacks.values():
        for each in found["differences"]:
            named = each["field"].startswith(("Mounts.", "Networks."))
            field = each["field"].partition(".")[0] if named else each["field"]
            by_field.setdefault(field, []).append(each)
    for field, listed in sorted(by_field.items()):
        one = listed[0]
        cells = (one["compose"], one["trimtab"], one["announced"] or "**unannounced**")
        text = " | ".join(each.replace("|", "\\|") for each in cells)
        yield f"| `{field}` | {len(listed)} | {text} |"
    yield ""
    yield "Not compared:"
    yield ""
    yield "| field | reason |"
    yield "|---|---|"
    for field, reason in APART.items():
        yield f"| `{field}` | {reason} |"
    yield "| names, ids, dates, addresses | of each container |"
