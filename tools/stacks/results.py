"""The recorded results of the stacks, and the page that is made of them."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, Final

from tests.e2e.client import HANGS_S
from tools.stacks.adoption import Adopted
from tools.stacks.compare import APART, Difference
from tools.stacks.load import Loaded
from tools.stacks.proxied import Pressed
from tools.stacks.side_by_side import Compared

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "compose-stacks.md"
RESULTS: Final = PAGE.with_suffix(".json")
#: Requests that a change with StartFirst may cost an only replica: at the hand-over of its address, its name
#: resolves to nothing for some 90 ms, and connections are reset (decision 85).
NAMELESS_MAX: Final = 8
#: A value in the page is cut here.
VALUE_MAX: Final = 60

INTRO: Final = """\
# Compose stacks, side by side

Ten ordinary stacks, in `tests/e2e/stacks`, run from their unchanged folders: with Docker Compose, and with trimtab under the
policy `home`, on one engine. `make ring KIND=compose-side` runs them as root, and writes this page and compose-stacks.json. With
`DIR=folder` it runs the stacks of another folder, and writes nothing of them here.

## The same containers

The containers of each service are inspected, and compared field by field. A difference counts as announced if
`trimtab try` names it before anything is changed. An unannounced difference is a fault. `trimtab try` reads files alone: it opens no
socket, starts no program and writes nothing, and a test holds it to that.
"""
LOAD: Final = """
## A change under load

A client in the network of the project asks the changed service by its name, up to 80 times a second, while its image, an
environment variable, a mounted file, the number of replicas and a published port are changed. Docker Compose runs `up -d`, and
for a changed file `up -d --force-recreate`, since it does not look into mounted files. A request has failed if the first address
of the name doesn't answer it within 3 s; no other address is tried. The pause is the longest time between two good answers.

The changed services have one replica each, but that of `queue`, which has three. At the hand-over of its address, the name of an only replica resolves to nothing for some
90 ms: these are the failures with `StartFirst`. With two replicas or more the name always has an address.
"""
PROXIED: Final = f"""
## Behind a proxy that resolves names once

`tests/e2e/proxied` has a shop of six services. Its proxy is an ordinary nginx with `proxy_pass http://catalog`: it resolves the name
at its start, and never again. A client asks the proxy's published port 50 times a second, and doesn't wait for an answer before the next
request. A request that has neither an answer nor an error after {HANGS_S:g} s hangs; in brackets those that were answered by
{2 * HANGS_S:g} s, because the proxy tried another address then. The pause is the longest time between two good
answers. Each act is one that people do on a running stack: with docker compose it is `up -d` after an edit. The proxy is restarted
after each act, so that it knows the replicas of now, and no act inherits the harm of another.
"""
ADOPTION: Final = """
## Adoption

The stacks are started by Docker Compose. Their folders are put into the directory of an instance, with
`x-trimtab: {volumes: compose, networks: compose, suspend: true}` in an override file, and `trimtab adopt --project NAME --from FOLDER`
admits all gaps. Volumes without a name are named as found, in the override file. A stack is adopted as a whole, or not at all.
*Moved* counts containers with another network, address or name on a network; *shown* counts services with the condition
`AdoptedAsFound`; *planned* counts the actions for them in the plan afterwards. *Mistaken* counts the adopted containers that a
mistaken `docker compose up -d` with the unchanged file replaces.
*Gaps* counts the containers with each gap. See [adopt.md](adopt.md).
"""
PUBLISHED: Final = """
## Published projects

`make ring KIND=compose-side DIR=CHECKOUT ARGS="--part run --jobs 1"` runs each project of a folder from its unchanged files under `home`: all services
become Ready and a server holds each published port; the first service gets another environment variable, and is Ready again; `trimtab down`
leaves no container and no network (volumes stay, as always). The builds go through the gate to the engine.

No registry answers here, so the images have stand-ins. MariaDB, nginx, PostgreSQL, Redis and Prometheus are Debian's own,
with entrypoints like the official ones. Everything else is one small image in which `npm`, `pip`, `go`, `mvn`, `java`, `python3` and the like are
one script: a step of a build succeeds with an empty result, and a service answers every HTTP request on the ports that the project names.
So the run shows projects, builds, networks, volumes, secrets, health checks and rollouts, and not the programs.
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


def of_comparison(compared: Compared) -> dict[str, Any]:
    """Return the results of a comparison as JSON."""
    return {
        "containers": compared.containers,
        "fields": compared.fields,
        "missing": list(compared.missing),
        "differing": len(compared.differences),
        "unannounced": [_row(each) for each in compared.unannounced],
        "announced": {_group(each.field): _row(each) for each in reversed(compared.announced)},
        "counts": dict(sorted(Counter(_group(each.field) for each in compared.announced).items())),
    }


def _row(difference: Difference) -> dict[str, str]:
    return {
        "service": difference.service,
        "field": difference.field,
        "compose": _text(difference.compose),
        "trimtab": _text(difference.trimtab),
        "announced": difference.announced,
    }


def _group(field: str) -> str:
    """Return the field, without the names of mounts and networks."""
    part = field.partition(".")[0]
    return field if part in ("Config", "HostConfig") else part


def of_load(loaded: Iterable[Loaded]) -> dict[str, Any]:
    """Return the results of changes under load as JSON."""
    return {"changes": [asdict(each) for each in loaded]}


def of_adoption(adopted: Adopted) -> dict[str, Any]:
    """Return the results of an adoption as JSON."""
    return asdict(adopted)


def of_proxied(acts: Mapping[str, Mapping[str, Pressed]]) -> dict[str, Any]:
    """Return what became of the requests during each act as JSON."""
    return {
        "acts": [
            {"act": act, **{program: asdict(one) for program, one in programs.items()}}
            for act, programs in acts.items()
        ]
    }


def faults(outcome: dict[str, Any]) -> int:
    """Return the number of faults in the results of a part."""
    unannounced = outcome.get("unannounced", ())
    needless = [each for each in outcome.get("changes", ()) if _is_needless(each)]
    restarted = int(outcome.get("restarted", 0))
    acts = [each["trimtab"] for each in outcome.get("acts", ())]
    hung = sum(int(each["hung"]) - int(each["late"]) for each in acts) + int(outcome.get("left", 0))
    return len(unannounced) + len(outcome.get("missing", ())) + len(needless) + restarted + hung


def _is_needless(change: dict[str, Any]) -> bool:
    return bool(change["order"] == "StartFirst" and change["trimtab"]["failed"] > NAMELESS_MAX)


def lines(part: str, outcome: dict[str, Any]) -> Iterator[str]:
    """Yield the results of a part for a person."""
    match part:
        case "compare":
            yield f"  {outcome['containers']} containers, {outcome['fields']} fields, {outcome['differing']} differ"
            yield from (f"  {each}: only one program started it" for each in outcome["missing"])
            for each in outcome["unannounced"]:
                yield f"  {each['service']} {each['field']}: {each['compose']} becomes {each['trimtab']}"
        case "load":
            for each in outcome["changes"]:
                ours, theirs = each["trimtab"], each["compose"]
                yield (
                    f"  {each['change']} of {each['service']} ({each['order']}): {ours['failed']} failed, "
                    f"{ours['outage_ms']} ms; compose {theirs['failed']}, {theirs['outage_ms']} ms"
                )
        case "run":
            counts = (f"{member} {outcome.get(member)}" for member in ("services", "built", "open"))
            yield f"  {_outcome(outcome)}; {', '.join(counts)}"
        case "proxied":
            for each in outcome["acts"]:
                theirs = f"; compose {_pressed(each['compose'])}" if "compose" in each else ""
                yield f"  {each['act']}: {_pressed(each['trimtab'])}{theirs}"
        case _:
            yield f"  {outcome['adopted']} of {outcome['containers']} adopted, {outcome['restarted']} restarted"
            yield f"  {outcome['shown']} shown, {outcome['planned']} planned, then {outcome['mistaken']}"
            yield from (f"  {name}: {reason}" for name, reason in outcome["refused"])


def _pressed(found: dict[str, int]) -> str:
    return f"{found['hung']} hung ({found['late']} late), {found['errors']} errors, {found['pause_ms']} ms"


def _text(value: object) -> str:
    text = "unset" if value in (None, [], {}, ()) else str(value)
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def of_folder(folder: Path) -> str:
    """Return the date of now, and a folder with its commit."""
    argv = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    return f"{date.today().isoformat()}, {folder.name} at {commit}"  # noqa: DTZ011 - of this machine


def record(part: str, found: dict[str, Any]) -> None:
    """Write the results of a part beside those of other runs, and the page.

    Those of published projects replace the earlier ones: they are of one commit.
    """
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    earlier = {} if part == "run" else results.get(part, {})
    results[part] = {**earlier, **found}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE.write_text(page(results), "utf-8")


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    compared = results.get("compare", {})
    parts = (
        *(INTRO, *_stacks(compared), *_differences(compared)),
        *(LOAD, *_load(results.get("load", {}))),
        *(PROXIED, *_proxied(results.get("proxied", {}))),
        *(ADOPTION, *_adoption(results.get("adopt", {}))),
        *(PUBLISHED, *_published(results.get("run", {}))),
    )
    return "\n".join([*parts, ""])


def _stacks(stacks: dict[str, Any]) -> Iterator[str]:
    yield "| stack | shows | containers | fields | equal | announced | unannounced |"
    yield "|---|---|---|---|---|---|---|"
    totals = [0] * 5
    for name, found in sorted(stacks.items()):
        announced = sum(found["counts"].values())
        others = len(found["unannounced"]) + len(found["missing"])
        equal = found["fields"] - found["differing"]
        row = [found["containers"], found["fields"], equal, announced, others]
        totals = [one + two for one, two in zip(totals, row, strict=True)]
        yield f"| `{name}` | {SUBJECTS.get(name, '')} | {' | '.join(map(str, row))} |"
    yield f"| all | | {' | '.join(map(str, totals))} |"
    yield ""


def _differences(stacks: dict[str, Any]) -> Iterator[str]:
    yield "The announced differences, with the first example of each:"
    yield ""
    yield "| field | containers | docker compose | trimtab | announced as |"
    yield "|---|---|---|---|---|"
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, str]] = {}
    for found in stacks.values():
        counts.update(found["counts"])
        examples = {**found["announced"], **examples}
    for field, one in sorted(examples.items()):
        cells = (one["compose"], one["trimtab"], one["announced"])
        text = " | ".join(each.replace("|", "\\|") for each in cells)
        yield f"| `{field}` | {counts[field]} | {text} |"
    yield ""
    yield "Not compared:"
    yield ""
    yield "| field | reason |"
    yield "|---|---|"
    for field, reason in APART.items():
        yield f"| `{field}` | {reason} |"
    yield "| names, ids, dates, addresses | of each container |"


def _load(load: dict[str, Any]) -> Iterator[str]:
    yield "| stack | change | service | order | trimtab: failed | pause | compose: failed | pause |"
    yield "|---|---|---|---|---|---|---|---|"
    for stack, found in sorted(load.items()):
        for each in found["changes"]:
            ours, theirs = each["trimtab"], each["compose"]
            cells = (
                *(f"`{stack}`", each["change"], f"`{each['service']}`", each["order"]),
                *(
                    f"{ours['failed']} of {ours['failed'] + ours['answered']}",
                    f"{ours['outage_ms']} ms",
                ),
                *(
                    f"{theirs['failed']} of {theirs['failed'] + theirs['answered']}",
                    f"{theirs['outage_ms']} ms",
                ),
            )
            yield f"| {' | '.join(cells)} |"


def _proxied(stacks: dict[str, Any]) -> Iterator[str]:
    yield "| act | trimtab: requests | hang | errors | pause | compose: requests | hang | errors | pause |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for _, found in sorted(stacks.items()):
        for each in found["acts"]:
            cells = [each["act"]]
            for one in (each["trimtab"], each.get("compose")):
                if one is None:
                    cells += ["", "", "", ""]
                    continue
                total = one["answered"] + one["errors"] + one["hung"]
                hung = f"{one['hung']} ({one['late']})" if one["late"] else str(one["hung"])
                cells += [str(total), hung, str(one["errors"]), f"{one['pause_ms']} ms"]
            yield f"| {' | '.join(cells)} |"


def _published(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    for source, found in sorted(runs.items()):
        ran = sum("services" in each for each in found.values())
        granted = sum(bool(each.get("granted")) for each in found.values())
        yield f"{source}: {ran} of {len(found)} ran, {granted} of them with a line more in the policy."
        yield ""
        yield "| project | services | images built | ports | outcome |"
        yield "|---|---|---|---|---|"
        for name, each in sorted(found.items()):
            counts = [each.get(member, "") for member in ("services", "built", "open")]
            yield f"| `{name}` | {' | '.join(map(str, counts))} | {_outcome(each)} |"


def _outcome(found: dict[str, Any]) -> str:
    if "failed" in found:
        return "didn't become Ready, or stay so after the change"
    if "refused" in found:
        codes = ", ".join(f"`{code}`" for code in found["refused"])
        return f"refused by {codes}: {found['reason']}"
    ports = ", ".join(map(str, found["granted"]))
    return f"ran, with {ports} in `networks.ports.granted`" if ports else "ran"


def _adoption(adoption: dict[str, Any]) -> Iterator[str]:
    yield "| stack | running | adopted | restarted | moved | shown | planned | mistaken | gaps |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for stack, found in sorted(adoption.items()):
        members = ("containers", "adopted", "restarted", "moved", "shown", "planned")
        cells = [*(str(found[name]) for name in members), str(found["mistaken"][0])]
        gaps = ", ".join(f"{name} {count}" for name, count in sorted(found.get("gaps", {}).items()))
        yield f"| `{stack}` | {' | '.join(cells)} | {gaps} |"
    if not any(found["refused"] for found in adoption.values()):
        return
    yield ""
    yield "Reasons of refusals; nothing was changed:"
    yield ""
    yield "| stack | service | reason |"
    yield "|---|---|---|"
    for stack, found in sorted(adoption.items()):
        for service, reason in found["refused"]:
            text = reason.replace("|", "\\|")
            yield f"| `{stack}` | `{service}` | {text} |"
