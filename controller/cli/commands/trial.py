"""``try``: what would become of a Compose project. Nothing is touched, and no engine is asked.

A Compose project for a command: the folder, or the folder of the file, and nothing else.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from controller.cli.exit_codes import EXIT_INVALID, EXIT_REFUSED
from controller.cli.options import command, policy_option, print_json, state_root
from controller.cli.output.terminal import echo, excerpts
from controller.core.compose.project import ComposeProject
from controller.core.compose.reader import FILE_NAMES, read_project
from controller.core.compose.translation.documents import Translation, parsed_documents, translate
from controller.core.compose.translation.scope import ComposeSettings
from controller.core.manifests.check_together import resolve
from controller.model.desired.desired import Desired
from controller.model.errors import UsageError
from controller.sources.build_contexts import ContextReader
from controller.sources.compose_projects import look_up, read_file
from controller.sources.config_files import SourceRoot, with_files
from controller.system.runtime import importing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controller.core.compose.translation.scope import FoundPath
    from controller.core.compose.trial import ServiceReach, Side, TrialChange
    from controller.model.errors import Problem
    from controller.model.names import Key
    from controller.model.policy.document import Policy
    from controller.model.records import Verdict


@command(
    """\b
Examples:
  trimtab try compose.yaml
  trimtab try shop/ --policy home
  trimtab try compose.yaml --json | jq '.losses'

\b
Exit codes: 0 everything would run, 3 the files have errors, 4 refused by the policy.
""",
    name="try",
    short_help="Show what would become of a Compose file; touch nothing.",
)
@click.argument(
    "path", metavar="[COMPOSE-FILE|FOLDER]", default=".", type=click.Path(path_type=Path)
)
@policy_option
def attempt(path: Path, policy: str | None, state: Path | None, as_json: bool) -> int:
    """Show what would become of a Compose project here.

    Prints the resources with the policy's verdicts, problems with their lines, which services reach
    each other before and after, and gains and losses against Docker Compose. Reads the project's
    files and the policy. Asks no engine, and changes nothing.
    """
    with importing():  # most of the time, also of the verdicts
        from controller.cli.clients import offline
        from controller.core.compose.translation.scope import settings_of
        from controller.core.compose.trial import changes_of, reach_of

        rules = offline.policy_in_force(policy, state_root(state))
        # The project is to become a folder of the directory.
        own = Path(os.path.realpath(path if path.is_dir() else path.parent))
        rules = rules.with_directory(str(own.parent))
        read = read_folder(path, replace(settings_of(rules), directory=str(own)))
        verdicts = tuple(offline.preview_creations(read.desired, rules))
        reaches = reach_of(read.project, read.desired)
        changes = changes_of(read.project, read.desired, reaches, rules)
    if as_json:
        print_json(_report(read, rules, verdicts, reaches, changes))
    else:
        echo("\n".join(_lines(read, rules, verdicts, reaches, changes)))
    if not read.desired.valid:
        return EXIT_INVALID
    return EXIT_REFUSED if any(verdict.decision == "deny" for _, verdict in verdicts) else 0


def _report(
    read: ReadFolder,
    rules: Policy,
    verdicts: Iterable[tuple[Key, Verdict]],
    reaches: Iterable[ServiceReach],
    changes: Iterable[TrialChange],
) -> dict[str, Any]:
    from controller.core.review.flat_plan import problem_json, verdict_json

    changes = [*changes]
    return {
        "project": read.project.name,
        "namespace": read.translation.namespace,
        "policy": {"name": rules.name, "digest": rules.digest},
        "resources": [{"object": str(k), "verdict": verdict_json(v)} for k, v in verdicts],
        "files": [str(key) for key in _files(read)],
        "problems": [problem_json(problem) for problem in read.desired.problems],
        "reach": [asdict(each) for each in reaches],
        "gains": _changes_json(changes, "gain"),
        "losses": _changes_json(changes, "loss"),
    }


#: Verdicts in the words of people: ``mutate`` is an admission in which the policy fills something in.
_WORDS: Final = {
    "allow": "admitted",
    "mutate": "adapted",
    "deny": "refused",
    "audit-deny": "warning",
}


def _files(read: ReadFolder) -> list[Key]:
    """Return the Configs and Secrets, which no rule judges before their delivery."""
    desired = read.desired
    return [*(each.key for each in desired.configs), *(each.key for each in desired.secrets)]


def _changes_json(changes: Iterable[TrialChange], kind: str) -> list[dict[str, object]]:
    return [{"services": c.services, "text": c.text} for c in changes if c.kind == kind]


def _lines(
    read: ReadFolder,
    rules: Policy,
    verdicts: Iterable[tuple[Key, Verdict]],
    reaches: Iterable[ServiceReach],
    changes: Iterable[TrialChange],
) -> Iterator[str]:
    namespace = read.translation.namespace
    yield f"project {read.project.name}: namespace {namespace}, policy {rules.name}; nothing is changed"
    found = [*verdicts]
    refused: list[Problem] = []
    yield ""
    is_adapted = any(verdict.decision == "mutate" for _, verdict in found)
    yield f"would be made{' (adapted: with what the policy fills in)' if is_adapted else ''}:"
    for key, verdict in found:
        yield f"  {_WORDS[verdict.decision]:<8} {key}"
        refused += verdict.problems if verdict.decision == "deny" else ()
    yield from _supplies(read)
    if problems := sorted(
        (*read.desired.problems, *refused), key=lambda p: (p.file, p.line, p.column)
    ):
        show = excerpts(read.folder)
        yield ""
        yield "problems:"
        for problem in problems:
            yield from (f"  {line}" for line in problem.render(show(problem)).split("\n"))
    yield ""
    yield "who reaches whom:"
    for reach in reaches:
        yield f"  {reach.service}"
        yield f"    docker compose: {_side_text(reach.before)}"
        yield f"    trimtab:        {_side_text(reach.after)}"
    for title, kind in (("gained:", "gain"), ("lost, or different:", "loss")):
        listed = [each for each in changes if each.kind == kind]
        if listed:
            yield ""
            yield title
        for each in listed:
            yield f"  {', '.join(each.services)}: {each.text}"
    yield ""
    yield _next_step(read, refused)


def _supplies(read: ReadFolder) -> Iterator[str]:
    """Yield a line for each Config and Secret, and for each image that is built."""
    for key in _files(read):
        yield f"  {'files':<8} {key}"
    for service in read.desired.workloads:
        if (build := service.spec.build) is not None:
            bases = ", ".join(build.bases) or "no image"
            yield f"  {'built':<8} {service.spec.image} from {build.context} and {bases}"


def _side_text(side: Side | None) -> str:
    if side is None:
        return "isn't started"
    parts = [", ".join(side.services) or "no other service"]
    parts.append("the internet" if side.internet else "no internet")
    if side.ports:
        parts.append(f"published on {', '.join(side.ports)}")
    return "; ".join(parts)


def _next_step(read: ReadFolder, refused: list[Problem]) -> str:
    if not read.desired.valid:
        return "next: correct the errors above, and try again"
    if refused:
        return "next: change the file as the remedies say, or choose another policy (--policy home)"
    return "next: copy the project's folder into the directory that `trimtab up` keeps"


@dataclass(frozen=True, slots=True)
class ReadFolder:
    """A project, the project's documents, and the desired state."""

    folder: Path
    project: ComposeProject
    translation: Translation
    desired: Desired


def read_folder(path: Path, settings: ComposeSettings) -> ReadFolder:
    """Read the project of a folder, or of a Compose file in it.

    Raises:
        UsageError: there is no such project.
    """
    folder = path if path.is_dir() else path.parent
    first = next((name for name in FILE_NAMES if (folder / name).exists()), None)
    if not path.is_dir() and (not path.exists() or path.name not in FILE_NAMES):
        message = f"{path} is no Compose file" if path.exists() else f"{path} doesn't exist"
        remedy = f"name a folder, or a file called {FILE_NAMES[0]} in it"
        raise UsageError("compose.file-missing", message, remedy=remedy)
    if first is None:
        message = f"{folder} has no Compose file"
        raise UsageError("compose.file-missing", message, remedy=f"add {FILE_NAMES[0]}")
    top = os.path.realpath(folder)

    def read(path: str) -> bytes:
        return read_file(top, os.path.normpath(path))

    def look(name: str, *, listed: bool = True) -> FoundPath:
        return look_up(top, name, listed=listed)

    project = read_project(".", read, folder_name=os.path.basename(top))  # noqa: PTH119 - a text
    contexts = ContextReader()
    translation = translate(project, settings, look, lambda request: contexts.read(top, request))
    documents, problems = parsed_documents(translation)
    desired = resolve(with_files(documents, top, SourceRoot(top)), problems=problems)
    return ReadFolder(Path(top), project, translation, desired)
