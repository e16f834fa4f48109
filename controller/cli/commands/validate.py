"""``validate``, ``render`` and ``schema``: documents without an engine.

``validate`` and ``render``: check and print documents, without an engine.

``schema``: the JSON Schema of documents, for editors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import options
from controller.cli.exit_codes import EXIT_INVALID, EXIT_REFUSED
from controller.cli.options import command, print_json
from controller.cli.output.terminal import Excerpts, echo, echo_data, excerpts
from controller.model.desired.spec.fields import AS_WRITTEN
from controller.model.errors import UsageError

if TYPE_CHECKING:
    from controller.model.desired.desired import Desired, Network, Service, Volume
    from controller.model.errors import Problem
    from controller.model.names import Key
    from controller.model.policy.document import Policy
    from controller.model.records import Verdict


def problem_lines(problems: Iterable[Problem], show: Excerpts = lambda _problem: ()) -> str:
    """Return problems as lines with ``FILE:LINE:COLUMN``, each with the excerpt of *show*."""
    return "\n".join(problem.render(show(problem)) for problem in problems)


@options.command("""\b
Examples:
  trimtab validate desired-state --policy production
  trimtab validate --json | jq '.problems'
""")
@options.directory_argument
@options.policy_option
def validate(directory: Path | None, policy: str | None, state: Path | None, as_json: bool) -> int:
    """Check schema, references and policy of all files, offline; for CI.

    The policy is --policy, else the running broker's, else the instance's, else strict.
    """
    from controller.cli.clients import offline
    from controller.core.planning.planner import problem_order
    from controller.core.review import flat_plan

    folder, rules, desired = _read(directory, policy, state)
    verdicts = tuple(offline.preview_creations(desired, rules))
    denied = [item for item in verdicts if item[1].decision == "deny"]
    warned = [item for item in verdicts if item[1].decision == "audit-deny"]
    if as_json:
        options.print_json(
            {
                "directory": str(folder),
                "policy": {"name": rules.name, "digest": rules.digest},
                "services": len(desired.services),
                "problems": [flat_plan.problem_json(problem) for problem in desired.problems],
                "denied": [_verdict_json(*item) for item in denied],
                "warned": [_verdict_json(*item) for item in warned],
            }
        )
    else:
        refusals = [p for _, verdict in (*denied, *warned) for p in verdict.problems]
        problems = sorted((*desired.problems, *refusals), key=problem_order)
        if problems:
            echo(problem_lines(problems, excerpts(folder)))
        echo(_summary(folder, rules.name, desired, denied=denied, warned=warned))
    if not desired.valid:
        return EXIT_INVALID
    return EXIT_REFUSED if denied else 0


def _read(
    directory: Path | None, policy: str | None, state: Path | None
) -> tuple[Path, Policy, Desired]:
    """Return the folder, the policy in force, and what the folder's files declare under it."""
    from controller.app.desired_state import directory_source
    from controller.cli.clients.offline import policy_in_force
    from controller.core.compose.translation.scope import settings_of

    root = options.state_root(state)
    folder = options.default_directory(directory, root)
    rules = policy_in_force(policy, root, folder)
    return folder, rules, directory_source(folder, compose=lambda: settings_of(rules)).load()


def _verdict_json(key: Key, verdict: Verdict) -> dict[str, object]:
    from controller.core.review.flat_plan import verdict_json

    return {"object": str(key), "verdict": verdict_json(verdict)}


def _summary(folder: Path, policy: str, desired: Desired, *, denied: Sized, warned: Sized) -> str:
    """Return the last line: the numbers of resources, errors, warnings and refusals."""
    resources = len([*desired.workloads, *desired.networks, *desired.volumes, *desired.releases])
    resources += len([*desired.configs, *desired.secrets, *desired.notifications])
    errors = sum(1 for problem in desired.problems if problem.severity == "error")
    warnings = len(desired.problems) - errors + len(warned)
    counts = [options.counted(resources, "resource"), options.counted(errors, "error")]
    counts += [
        options.counted(warnings, "warning"),
        f"{len(denied)} refused by the policy {policy}",
    ]
    return f"{folder}: {', '.join(counts)}"


@options.command("""\b
Examples:
  trimtab render                         all resources, charts included
  trimtab render --chart configs/validator --values my-values.yaml
""")
@options.directory_argument
@click.option(
    "--chart",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Render one chart instead of DIR.",
)
@click.option(
    "--values",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --chart: a YAML file of values.",
)
@click.option("--name", default="release", help="With --chart: the release's name.")
@click.option("--namespace", default="default", help="With --chart: the release's namespace.")
def render(
    directory: Path | None,
    chart: Path | None,
    values: Path | None,
    name: str,
    namespace: str,
    state: Path | None,
    as_json: bool,
) -> int:
    """Print the resources that files and charts declare, as plain YAML."""
    import yaml

    if chart is not None:
        from controller.cli.clients.offline import render_chart

        texts, problems = render_chart(chart, values, name=name, namespace=namespace)
        if as_json:
            parsed = (document for text in texts.values() for document in yaml.safe_load_all(text))
            options.print_json([document for document in parsed if document is not None])
        else:
            for file, text in texts.items():
                echo_data(f"---\n# {file}\n{text.strip()}")
        if problems:
            echo(problem_lines(problems), err=True)
        return EXIT_INVALID if any(p.severity == "error" for p in problems) else 0
    _, _, desired = _read(directory, None, state)
    documents = resource_documents(desired)
    if as_json:
        options.print_json(documents)
    elif documents:
        echo(yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True).rstrip())
    if desired.problems:
        echo(problem_lines(desired.problems), err=True)
    return 0 if desired.valid else EXIT_INVALID


def resource_documents(desired: Desired) -> list[dict[str, Any]]:
    """Return the resources as documents, as a user would write them."""
    resources: list[Service | Network | Volume] = [*desired.services]
    resources += [*desired.networks, *desired.volumes]
    return [_document(resource) for resource in resources]


def _document(resource: Service | Network | Volume) -> dict[str, Any]:
    key, labels = resource.key, dict(getattr(resource, "labels", ()))
    metadata = {"name": key.name, "namespace": key.namespace, "owner": resource.owner}
    return {
        "apiVersion": "trimtab/v1",
        "kind": key.kind,
        "metadata": {**metadata, **({"labels": labels} if labels else {})},
        "spec": resource.spec.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, context=AS_WRITTEN
        ),
    }


@command("""\b
Examples:
  trimtab schema > trimtab.schema.json      all kinds, for editors
  trimtab schema Service | jq '.properties.spec'
  trimtab schema settings                   the file of settings
""")
@click.argument("kind", required=False)
def schema(kind: str | None, state: Path | None, as_json: bool) -> None:  # noqa: ARG001 - of every command
    """Print the JSON Schema of documents: of one KIND, or of all kinds; or that of the settings.

    An editor with a YAML language server completes and checks documents by the schema. See
    docs/editors.md.
    """
    print_json(schema_of(kind))


def schema_of(kind: str | None) -> dict[str, Any]:
    """Return the JSON Schema of a kind, of all kinds, or of the file of settings.

    Raises:
        UsageError: there is no such kind.
    """
    from controller.core.manifests.json_schema import schema_of_all, schema_of_kind
    from controller.core.manifests.parse import KINDS, manifest_of
    from controller.model.settings import json_schema

    if kind is None:
        return schema_of_all()
    if kind == "settings":
        return json_schema()
    model = manifest_of(kind)
    if model is None:
        known = ", ".join(KINDS)
        raise UsageError("kind.unknown", f"there is no kind {kind}", remedy=f"name one of {known}")
    return schema_of_kind(kind, model)
