"""``convert``: a Compose project, containers, or a docker command as documents of trimtab's kinds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import click

from controller.cli.exit_codes import EXIT_INVALID
from controller.cli.options import command, policy_option, print_json, state_root
from controller.cli.output.terminal import echo_data
from controller.model.errors import EngineError, EngineUnavailable, UsageError

if TYPE_CHECKING:
    from controller.core.compose.from_container import ConvertedContainer
    from controller.core.compose.translation.documents import Translation
    from controller.core.compose.translation.scope import ComposeSettings
    from controller.model.errors import Problem


_STANDARD_SOCKET = "/var/run/docker.sock"


@command(
    """\b
Examples:
  trimtab convert compose.yaml > shop.yaml
  trimtab convert web db --namespace shop
  trimtab convert -- docker run -d --name web -p 8080:80 -v data:/data nginx:1.27

\b
Exit codes: 0 done, 3 something can't be expressed (a comment says why), 64 wrong usage.
""",
    short_help="Print Compose files, containers or docker commands as documents.",
)
@click.argument("words", nargs=-1, metavar="COMPOSE-FILE | CONTAINER... | -- docker run …")
@click.option(
    "--namespace", default="default", show_default=True, help="Of containers: the namespace."
)
@policy_option
def convert(
    words: tuple[str, ...], namespace: str, policy: str | None, state: Path | None, as_json: bool
) -> int:
    """Print documents for a Compose project, for containers, or for a docker command.

    What can't be expressed is a comment with the reason and the remedy. Containers are inspected;
    a docker command runs against a socket that records it. Nothing is changed.
    """
    from controller.cli.clients import offline
    from controller.core.compose.translation.scope import settings_of

    root = state_root(state)
    settings = settings_of(offline.policy_in_force(policy, root))
    if not words:
        raise UsageError(
            "line.invalid", "nothing to convert", remedy="see 'trimtab convert --help'"
        )
    path = Path(words[0])
    if len(words) == 1 and (path.exists() or path.suffix in (".yaml", ".yml")):
        from controller.cli.commands.trial import read_folder

        read = read_folder(path, settings)
        return _print(read.translation, (), read.desired.problems, as_json=as_json)
    if Path(words[0]).name in ("docker", "run", "create"):
        found = _recorded(words)
    else:
        found = tuple(_inspected(words, root))
    return _print_containers(found, namespace, settings, as_json=as_json)


def _print_containers(
    found: tuple[ConvertedContainer, ...],
    namespace: str,
    settings: ComposeSettings,
    *,
    as_json: bool,
) -> int:
    from controller.core.compose.from_container import project_of_containers
    from controller.core.compose.translation.documents import parsed_documents, translate
    from controller.core.compose.translation.scope import FoundPath
    from controller.core.manifests.check_together import resolve

    project = project_of_containers(namespace, found)
    translation = translate(project, settings, lambda _path, **_: FoundPath("absent"))
    documents, problems = parsed_documents(translation)
    desired = resolve(documents, problems=problems)
    lost = [f"{each.name}: {name} has no field" for each in found for name in each.lost]
    return _print(translation, lost, desired.problems, as_json=as_json)


def _print(
    translation: Translation, lost: Sequence[str], problems: Iterable[Problem], *, as_json: bool
) -> int:
    """Print the documents, each problem as a comment above its document."""
    problems = [*problems]
    is_whole = not lost and not any(problem.severity == "error" for problem in problems)
    if as_json:
        from controller.core.review.flat_plan import problem_json

        documents = [document.value for document in translation.documents]
        shown = [problem_json(problem) for problem in problems]
        print_json({"documents": documents, "problems": shown, "lost": [*lost]})
    else:
        echo_data("\n".join(_lines(translation, lost, problems)))
    return 0 if is_whole else EXIT_INVALID


def _lines(
    translation: Translation, lost: Sequence[str], problems: Iterable[Problem]
) -> Iterator[str]:
    import yaml

    by_key: dict[str, list[Problem]] = {}
    for problem in problems:
        by_key.setdefault(str(problem.key or ""), []).append(problem)
    for line in lost:
        yield f"# {line}"
    yield from _comments(by_key.pop("", []))
    for document in translation.documents:
        value: Any = document.value
        names = value["metadata"]
        key = f"{value['kind']}/{names['namespace']}/{names['name']}"
        yield "---"
        yield from _comments(by_key.pop(key, []))
        yield yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000).rstrip()
    for others in by_key.values():
        yield from _comments(others)


def _comments(problems: Iterable[Problem]) -> Iterator[str]:
    for problem in problems:
        yield from (f"# {line}" for line in problem.render().split("\n"))


def _recorded(words: Sequence[str]) -> tuple[ConvertedContainer, ...]:
    """Return the containers that a docker command creates.

    Raises:
        UsageError: the command creates none, or docker rejects it.
    """
    from controller.cli.clients.docker_command import record
    from controller.core.compose.from_container import service_of

    recording = record(words)
    found = []
    for request in recording.requests:
        if request.method == "POST" and request.path == "/containers/create":
            body = json.loads(request.body)
            name = parse_qs(request.query).get("name", [""])[0] or _name_of(str(body.get("Image")))
            found.append(service_of(name, body))
    if not found:
        message = recording.error or "docker creates no container for this line"
        raise UsageError("line.invalid", message, remedy="write docker run …, or docker create …")
    return tuple(found)


def _name_of(image: str) -> str:
    """Return a name for a container without one: the last part of the image's name."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _inspected(names: Sequence[str], root: Path) -> Iterator[ConvertedContainer]:
    """Yield the named containers, from the running broker, else from the engine.

    The broker shows only containers of its own; a user with the engine's socket sees the others.

    Raises:
        UsageError: no container has a name.
    """
    from controller.cli.clients.socket_client import EngineApi
    from controller.core.compose.from_container import body_of_inspect, service_of
    from controller.settings import read_in_force, read_instance, state_of

    instance = read_instance(root)
    named = (
        os.environ.get("DOCKER_HOST", "")
        if instance is None
        else read_in_force(root).settings.engine
    )
    engine = named.removeprefix("unix://") or _STANDARD_SOCKET
    socket = state_of(root, instance).broker_socket if instance is not None else Path(engine)
    for name in names:
        api = EngineApi(socket)
        try:
            inspect = api.get(f"/containers/{name}/json")
        except EngineError as error:
            away = isinstance(error, EngineUnavailable) or error.status == HTTPStatus.NOT_FOUND
            if str(socket) == engine or not away or not os.access(engine, os.R_OK | os.W_OK):
                raise
            api = EngineApi(Path(engine))
            inspect = api.get(f"/containers/{name}/json")
        try:
            image = api.get(f"/images/{inspect['Image']}/json")["Config"]
        except (EngineError, KeyError):
            image = None  # the engine has it no more
        body = body_of_inspect(inspect, cgroup_version=str(api.get("/info").get("CgroupVersion")))
        yield service_of(str(inspect.get("Name", name)).lstrip("/"), body, image)
