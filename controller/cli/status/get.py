"""``get``: resources by kind and name, in the forms that users of kubectl know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from controller.cli.clients.status_report import (
    complete_names,
    fetch,
    project_option,
    raise_if_unread,
    suggestion,
)
from controller.cli.options import command, print_json
from controller.cli.output.jsonpath import CustomColumns, PathTemplate
from controller.cli.output.tables import Column, render, terminal_width
from controller.cli.output.terminal import echo
from controller.cli.status.sources import render_sources
from controller.cli.status.status import warn_if_outdated, watch_status
from controller.cli.status.table import StatusJson, TableView, render_status, terminal_view
from controller.model.errors import StateError
from controller.model.names import API_VERSION, KINDS

_SHORT: Final = {"svc": "Service", "net": "Network", "vol": "Volume", "cm": "Config"}
#: A kind as people write it, in lower case.
FORMS: Final = {
    **{form: kind for kind in KINDS for form in (kind.lower(), f"{kind.lower()}s")},
    **_SHORT,
}
#: Kinds of kubectl without a document here.
_ELSEWHERE: Final = {
    **dict.fromkeys(
        ("pod", "pods", "po"),
        "replicas belong to services: 'trimtab get services', 'trimtab describe NAME'",
    ),
    **dict.fromkeys(
        ("deployment", "deployments", "deploy"), "the kind is Service: 'trimtab get services'"
    ),
}
OUTPUTS: Final = ("json", "yaml", "name", "wide", "jsonpath=", "custom-columns=")
_METADATA: Final = ("name", "namespace", "owner", "generation")


def object_of(row: StatusJson) -> StatusJson:
    """Return a row of the status in the shape of a document, with ``status`` in place of ``spec``."""
    metadata = {name: row[name] for name in _METADATA if name in row}
    status = {name: value for name, value in row.items() if name not in ("kind", *_METADATA)}
    return {
        "apiVersion": API_VERSION,
        "kind": row["kind"],
        "metadata": metadata,
        "status": status,
    }


@dataclass(frozen=True, slots=True)
class WantedResources:
    """The resources of a command line: a row is chosen by its kind, its name, and its namespace."""

    #: Empty for all kinds.
    kinds: frozenset[str]
    #: The kind, or '' for any, with the namespace, or '' for any, and the name. Empty for all.
    names: tuple[tuple[str, str, str], ...]
    namespace: str | None

    @classmethod
    def parse(cls, words: Sequence[str], namespace: str | None) -> WantedResources:
        """Return the choice of ``KIND[,KIND] [NAME]...``, or of names with or without a kind."""
        kinds, names = frozenset[str](), list(words)
        if words and (found := _kinds_of(words[0])) is not None:
            kinds, names = found, names[1:]
        return cls(kinds, tuple(map(_name_of, names)), namespace)

    def of(self, report: StatusJson) -> StatusJson:
        """Return a report with the chosen rows alone."""
        rows = self._candidates(report)
        if self.names:
            rows = [row for row in rows if any(_is(row, name) for name in self.names)]
        sources = [row for row in rows if row["kind"] == "Source"]
        return {
            **report,
            "resources": [row for row in rows if row["kind"] != "Source"],
            "sources": sources,
            "problems": [],
        }

    def raise_if_missing(self, report: StatusJson) -> None:
        """Raise an error if a name has no row in a report.

        Raises:
            EngineUnavailable: not everything was read yet.
            StateError: there is no such resource.
        """
        rows = self._candidates(report)
        for name in self.names:
            if not any(_is(row, name) for row in rows):
                raise_if_unread(report)
                raise _unknown(name, rows)

    def _candidates(self, report: StatusJson) -> list[StatusJson]:
        """Return the rows of the kinds and the namespace."""
        return [
            row
            for row in _rows(report)
            if self.namespace in (None, row.get("namespace"))
            and (not self.kinds or row["kind"] in self.kinds)
        ]

    @property
    def is_one(self) -> bool:
        """True if a single object is asked for, not a list."""
        return len(self.names) == 1


def _rows(report: StatusJson) -> list[StatusJson]:
    sources = ({"kind": "Source", **each} for each in report.get("sources") or ())
    return [*report["resources"], *sources]


def _kinds_of(word: str) -> frozenset[str] | None:
    """Return the kinds that a word names, none for all of them; None if the word is no kind."""
    words = [each for each in word.lower().split(",") if each]
    if words == ["all"]:
        return frozenset()
    found = frozenset(FORMS[each] for each in words if each in FORMS)
    return found if words and len(found) == len({FORMS.get(each) for each in words}) else None


def _name_of(word: str) -> tuple[str, str, str]:
    """Return ``NAME``, ``NAMESPACE/NAME``, ``KIND/NAME`` or ``KIND/NAMESPACE/NAME`` as its three parts."""
    first, _, rest = word.partition("/")
    kind = FORMS.get(first.lower(), "") if rest else ""
    namespace, _, name = (rest if kind else word).rpartition("/")
    return kind, namespace, name


def _is(row: StatusJson, wanted: tuple[str, str, str]) -> bool:
    kind, namespace, name = wanted
    is_named = row["name"] == name and kind in ("", row["kind"])
    return is_named and namespace in ("", row.get("namespace"))


def _unknown(wanted: tuple[str, str, str], rows: list[StatusJson]) -> StateError:
    text = "/".join(filter(None, wanted))
    remedy = f"{suggestion(wanted[2], rows)}'trimtab get' lists all"
    return StateError(
        "resource.unknown",
        f"there is no resource {text}",
        remedy=_ELSEWHERE.get(text.lower().partition("/")[0], remedy),
    )


#: Returns the text of a report with the chosen rows.
ReportPrinter = Callable[[StatusJson, WantedResources], str]


def _objects(report: StatusJson) -> list[StatusJson]:
    return [object_of(row) for row in _rows(report)]


def _value_of(report: StatusJson, wanted: WantedResources) -> StatusJson:
    """Return the only object of one name, or a List."""
    objects = _objects(report)
    if wanted.is_one and len(objects) == 1:
        return objects[0]
    return {"apiVersion": API_VERSION, "kind": "List", "items": objects}


def _as_yaml(report: StatusJson, wanted: WantedResources) -> str:
    import yaml

    return yaml.safe_dump(_value_of(report, wanted), sort_keys=False, width=1000).rstrip()


def _as_names(report: StatusJson, _wanted: WantedResources) -> str:
    """Return ``KIND/NAMESPACE/NAME`` of each, which every command takes."""
    parts = ([row["kind"], row.get("namespace"), row["name"]] for row in _rows(report))
    return "\n".join("/".join(filter(None, each)) for each in parts)


def _by_template(template: PathTemplate) -> ReportPrinter:
    return lambda report, wanted: template.render(_value_of(report, wanted)).removesuffix("\n")


def _by_columns(columns: CustomColumns) -> ReportPrinter:
    heads = [Column(header) for header in columns.headers]
    return lambda report, _wanted: render(
        heads, map(columns.row, _objects(report)), width=terminal_width()
    )


def read_output(text: str) -> ReportPrinter | None:
    """Return what prints a form of ``-o``; None for ``json`` and ``wide``.

    Raises:
        click.BadParameter: there is no such form, or its template can't be read.
    """
    form, _, template = text.partition("=")
    try:
        match form:
            case "json" | "wide" if not template:
                return None
            case "yaml" if not template:
                return _as_yaml
            case "name" if not template:
                return _as_names
            case "jsonpath" if template:
                return _by_template(PathTemplate.parse(template))
            case "custom-columns" if template:
                return _by_columns(CustomColumns.parse(template))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    raise click.BadParameter(f"there is no form '{text}'; known are {', '.join(OUTPUTS)}TEMPLATE")


def table_text(report: StatusJson, view: TableView) -> str:
    """Return the tables of a report, without its problems."""
    sources = render_sources(report, width=view.width, now=view.now)
    if sources and not report["resources"]:
        return "\n".join(sources).strip("\n")
    return render_status(report, view).rstrip("\n")


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    kinds: Iterable[str] = () if ctx.params.get("words") else (f"{each.lower()}s" for each in KINDS)
    found = [each for each in kinds if each.startswith(incomplete)]
    return [*found, *complete_names(ctx, parameter, incomplete)]


def _complete_output(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    return [each for each in OUTPUTS if each.startswith(incomplete)]


@command("""\b
Examples:
  trimtab get                                        everything, as 'trimtab status' without problems
  trimtab get services,jobs -n shop
  trimtab get svc web -o yaml
  trimtab get services -o name | xargs trimtab wait
  trimtab get svc -o custom-columns=NAME:.metadata.name,READY:.status.ready,NEXT:.status.next
  trimtab get svc web -o jsonpath='{.status.conditions[?(@.type=="Ready")].message}'
  trimtab get svc -o jsonpath='{range .items[*]}{.metadata.name}{"\\t"}{.status.worst}{"\\n"}{end}'

\b
Exit codes: 0 shown, 1 there is no such resource; or nothing runs: the last known state is shown.
""")
@click.argument("words", metavar="[KIND[,KIND]] [NAME]...", nargs=-1, shell_complete=_complete)
@project_option
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="The default.")
@click.option(
    "-o",
    "--output",
    metavar="FORM",
    shell_complete=_complete_output,
    help="json, yaml, name, wide, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,…",
)
@click.option("-w", "--watch", is_flag=True, help="Redraw it as it changes, until Ctrl-C.")
def get(
    words: tuple[str, ...],
    namespace: str | None,
    everywhere: bool,
    output: str | None,
    watch: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show resources of a KIND, or by NAME, as kubectl does.

    Kinds: service (svc), job, network (net), volume (vol), config (cm), secret, release, source,
    notification; also in the plural, several with commas, or all. A name is NAME, NAMESPACE/NAME, KIND/NAME or
    KIND/NAMESPACE/NAME. An object has the shape of a document, with the members of 'trimtab status --json'
    in status; 'trimtab render' prints documents.
    """
    if namespace and everywhere:
        raise click.UsageError("-n NAMESPACE and -A exclude each other")
    wanted = WantedResources.parse(words, namespace)
    printer = None if output is None else read_output(output)
    as_json, wide = as_json or output == "json", output == "wide"
    if watch:
        if printer is not None:
            raise click.UsageError("--watch shows a table, wide or not, or JSON")
        return watch_status(state, wanted.of, wide=wide, as_json=as_json)
    view = terminal_view(wide=wide)
    fetched = fetch(state, now=view.now)
    wanted.raise_if_missing(fetched.report)
    chosen = wanted.of(fetched.report)
    if as_json:
        print_json(_value_of(chosen, wanted))
    elif printer is not None:
        if text := printer(chosen, wanted):
            echo(text)
    else:
        echo(table_text(chosen, view))
    return warn_if_outdated(fetched)
