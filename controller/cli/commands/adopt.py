"""``adopt``: take over running containers, or the objects of a lost state folder.

The part of ``adopt`` for running containers of nobody: as found, under declared services.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import options
from controller.cli.clients.socket_client import PLAN_S, BrokerApi, ask_controller
from controller.cli.clients.status_report import complete_names
from controller.cli.exit_codes import EXIT_ERROR, EXIT_REFUSED
from controller.cli.options import HostChoice, print_json
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo, echo_with_remedy
from controller.core.adoption.gaps import gap_lines, notice_lines, object_lines, run_lines
from controller.core.encoding.text import printable
from controller.model.confinement import GAPS
from controller.model.errors import EngineError, StateError, UsageError
from controller.model.mutations import STATE_CONFIRMED
from controller.model.names import (
    DEFAULT_NAMESPACE,
    NAMESPACE_MAX,
    REPLICAS_MAX,
    REVISION_DIGITS,
    Key,
    is_instance,
    revision_digits,
    service_key,
)
from controller.model.quantities import format_instant
from controller.settings import (
    Instance,
    read_in_force,
    read_instance,
    run_folder,
    write_instance,
)

if TYPE_CHECKING:
    from controller.loop.full_plan import FullPlan
    from controller.model.desired.desired import Desired, Network, Service, Volume


#: The broker compares each container with its document, and with the kernel.
ADOPT_S = 120.0
FOUND_HEADERS = ("CONTAINER", "SERVICE", "SLOT", "GAPS", "NETWORKS", "VERDICT")
#: States of a container that does not run, and will not by itself.
_ENDED = ("exited", "dead", "created")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Wish:
    """The arguments of the command."""

    container: str = ""
    service: str = ""  # [NAMESPACE/]SERVICE
    slot: int = 0  # 0: the first free one
    project: str = ""
    namespace: str = ""  # of a project's services; '' for that of its name
    admit: tuple[str, ...] = ()  # [SERVICE:]GAP
    leave: tuple[str, ...] = ()
    #: The folder in which docker compose ran; '' if none is named.
    folder: str = ""
    dry_run: bool = False
    note: str = ""


@dataclass(slots=True)
class _Choice:
    """A container, with the service and the slot to adopt it under."""

    container: str
    key: Key
    slot: int = 0
    problem: str = ""
    request: dict[str, Any] = field(default_factory=dict)


def adopt_as_found(host: HostChoice, wish: Wish, *, as_json: bool) -> int:
    """Adopt containers under the services of a directory; return the exit code."""
    from controller.cli.clients.oneshot import planning_controller

    with planning_controller(host) as (state, _, built):
        full_plan = built.controller.plan_everything()
        api = BrokerApi(state.broker_socket, ADOPT_S)
        found = _found(api, wish)
        choices = list(_choices(found, wish, full_plan.view.desired))
        _make_requests(choices, full_plan, wish, host.directory)
        ready = [each for each in choices if not each.problem]
        jobs = _jobs(found, wish, full_plan, host.directory)
        question = {
            "containers": [each.request for each in ready],
            "runs": [*jobs.values()],
            "objects": _objects({*jobs, *(each.key for each in ready)}, full_plan),
            "leave": list(wish.leave),
            "folder": wish.folder,
            "note": f"{wish.note} (by uid {os.getuid()})".strip()[:512],
        }
        if not as_json:
            echo(f"Comparing {len(ready)} containers with their documents ...", err=True)
        answer = compare(api, state.controller_socket, question) if ready or jobs else {}
        judged, objects = answer.get("containers", []), answer.get("objects", [])
        refused = any(each["findings"] for each in (*judged, *objects))
        refused |= len(ready) < len(choices)
        failed: list[Any] = []
        adopted: list[str] = []
        if (ready or jobs) and not refused and not wish.dry_run:
            if not as_json:
                echo(f"Adopting {len(ready)} containers ...", err=True)
            answer = api.post("adoptions", question)
            adopted, failed = answer["adopted"], answer["failed"]
    problems = [
        {"container": each.container, "service": str(each.key), "problem": each.problem}
        for each in choices
        if each.problem
    ]
    report = {
        "containers": judged,
        "objects": objects,
        "runs": answer.get("runs", []),
        "problems": problems,
        "adopted": adopted,
        "failed": failed,
    }
    if as_json:
        print_json(report)
    else:
        _print(report, of_project=bool(wish.project))
        if refused:
            echo("Nothing was changed.")
        elif wish.dry_run:
            echo("Nothing was changed; repeat it without --dry-run to adopt these.")
        else:
            echo(f"Adopted {len(adopted)}. No process was restarted.")
        if not adopted and (hint := admit_hint(wish, judged)):
            echo(hint)
    if failed:
        return EXIT_ERROR
    return EXIT_REFUSED if refused else 0


def admit_hint(wish: Wish, judged: Iterable[Any]) -> str:
    """Return the lines that show the command for the gaps that were found; '' without any."""
    line = command_line(wish, judged)
    return f"To admit exactly these gaps:\n  {printable(line)}" if line else ""


def compare(api: BrokerApi, controller: Path, question: dict[str, Any]) -> Any:
    """Let the broker compare containers with their documents, and return the answer.

    A broker that started or reloaded the policy has no proof of the accepted commit. The controller
    uploads the proof as it reads the documents, so it is asked to plan, and then the broker again.
    """
    dry_run = {**question, "dryRun": True}
    answer = api.post("adoptions", dry_run)
    found = (finding["rule"] for each in answer["containers"] for finding in each["findings"])
    if "proof.missing" not in found:
        return answer
    with suppress(EngineError, StateError):
        ask_controller(controller, {"do": "plan"}, timeout_s=PLAN_S)
    return api.post("adoptions", dry_run)


def _found(api: BrokerApi, wish: Wish) -> list[dict[str, str]]:
    """Return the foreign containers of the project; none without a project.

    Raises:
        UsageError: the project has no container.
    """
    if not wish.project:
        return []
    found = api.get("strangers", {"project": wish.project})["containers"]
    if not found:
        raise UsageError(
            "adopt.project-empty",
            f"no container outside the inventory belongs to the compose project {wish.project}",
            remedy="see 'docker compose ls' for the projects of this host",
        )
    return list(found)


def _namespace(wish: Wish) -> str:
    """Return the namespace of the project's services."""
    return wish.namespace or _dns_label(wish.project)[:NAMESPACE_MAX]


def _choices(found: Iterable[dict[str, str]], wish: Wish, desired: Desired) -> Iterator[_Choice]:
    """Yield the containers to adopt, with their services. Ended runs of jobs are left out."""
    if not wish.project:
        namespace, _, name = wish.service.rpartition("/")
        yield _Choice(wish.container, service_key(namespace or DEFAULT_NAMESPACE, name), wish.slot)
        return
    namespace = _namespace(wish)
    for each in found:
        number = each["number"]
        slot = int(number) if number.isascii() and number.isdigit() else 0
        name = _dns_label(each["service"])
        job = Key("Job", namespace, name)
        if desired.workload(job) is None:
            yield _Choice(each["id"], service_key(namespace, name), slot)
        elif each["state"] not in _ENDED:
            fault = f"the job {namespace}/{name} is still running: wait for its end"
            yield _Choice(each["id"], job, problem=fault)


def _jobs(
    found: Iterable[dict[str, str]], wish: Wish, full_plan: FullPlan, directory: Path
) -> dict[Key, dict[str, Any]]:
    """Return the requests for the suspended jobs of a project without a run, by their keys.

    Each names the ended container of docker compose, if there is one.
    """
    from controller.core.engine_api.create_body import container_body
    from controller.core.jobs.memory import ON_CHANGE
    from controller.core.planning.images_networks_volumes import Prerequisites
    from controller.core.planning.job_plan import first_run, job_spec
    from controller.model.desired.spec.service import Trigger
    from controller.model.observed import NO_RUNS

    desired, observed = full_plan.view.desired, full_plan.observed
    ended = {_dns_label(each["service"]): each["id"] for each in found if each["state"] in _ENDED}
    prerequisites = Prerequisites(desired, observed, full_plan.policy.networks)
    requests: dict[Key, dict[str, Any]] = {}
    for job in desired.jobs if wish.project else ():
        spec, memory = job_spec(job), observed.jobs.get(job.key, NO_RUNS)
        by_change = spec.trigger is Trigger.ON_CHANGE and spec.schedule is None
        known = memory.occasion(job.revision, ON_CHANGE) is not None
        if job.key.namespace == _namespace(wish) and by_change and spec.suspend and not known:
            create = first_run(job, memory, prerequisites)
            requests[job.key] = {
                "container": ended.get(job.key.name, ""),
                "name": create.target,
                "create": container_body(create, full_plan.policy.networks),
                "files": _files(job, desired, directory),
            }
    return requests


def _dns_label(text: str) -> str:
    """Return a name of compose as a name of a resource: in lower case, with dashes."""
    return _NOT_IN_NAMES.sub("-", text.lower().replace("_", "-").replace(".", "-")).strip("-")


def _make_requests(
    choices: Iterable[_Choice], full_plan: FullPlan, wish: Wish, directory: Path
) -> None:
    """Add the request, or the problem instead of a request, to each chosen container."""
    from controller.core.engine_api.create_body import container_body
    from controller.core.planning.images_networks_volumes import Prerequisites
    from controller.core.planning.slot_plan import create_of

    desired, observed = full_plan.view.desired, full_plan.observed
    names = full_plan.policy.networks
    prerequisites = Prerequisites(desired, observed, names)
    taken = {(c.key, c.slot) for c in observed.containers if c.origin == "controller"}
    for choice in choices:
        if choice.problem:
            continue
        service = desired.service(choice.key)
        shown = f"{choice.key.namespace}/{choice.key.name}"
        if service is None:
            blind = desired.is_blind_for(choice.key)
            choice.problem = (
                f"the document of {shown} can't be read: see 'trimtab validate'"
                if blind
                else f"no document declares the service {shown}: declare it first"
            )
            continue
        slots = range(1, service.spec.replicas + 1)
        free = [slot for slot in slots if (choice.key, slot) not in taken]
        if choice.slot not in free:
            if choice.slot and not wish.project:
                choice.problem = f"slot {choice.slot} of {shown} isn't free, or isn't declared"
                continue
            choice.slot = next(iter(free), 0)
        if not choice.slot:
            choice.problem = f"{shown} has no free slot: suspend it before its containers are made"
            continue
        taken.add((choice.key, choice.slot))
        create = create_of(
            service,
            prerequisites,
            slot=choice.slot,
            containers=observed.of(choice.key),
            cause="adopted as found",
        )
        choice.request = {
            "container": choice.container,
            "name": create.target,
            "create": container_body(create, names),
            "admit": sorted(_admitted(wish.admit, choice.key.name)),
            "files": _files(service, desired, directory),
        }


def _files(service: Service, desired: Desired, directory: Path) -> dict[str, str]:
    """Return the path of each mounted file in the folder of its project, by target."""
    is_project = projects_of(service, desired, directory)
    declared = declared_files(service, desired)
    return {target: path_below_project(path, is_project) for target, path in declared.items()}


def declared_files(service: Service, desired: Desired) -> dict[str, str]:
    """Return the declared path of each mounted file or folder, by target.

    The path of a Config is relative to the folder of its document, or of a Compose project to DIR. Of a Secret only the name of the
    file is known. Files without a path are left out.
    """
    from controller.core.files.mounts import source_key
    from controller.model.desired.spec.mounts import FileMount

    found: dict[str, str] = {}
    configs = {each.key: each.spec.files for each in desired.configs}
    secrets = {each.key: each.spec.file or {} for each in desired.secrets}
    for mount in service.spec.mounts:
        if not isinstance(mount, FileMount):
            continue
        key = source_key(mount, service.key.namespace)
        paths = configs.get(key, {}) if mount.type == "config" else secrets.get(key, {})
        if mount.key is not None:
            path = paths.get(mount.key)
        else:
            folders = {_folder_of(name, each) for name, each in paths.items()}
            path = folders.pop() if len(folders) == 1 else None
        if path is not None:
            found[mount.target] = posixpath.normpath(path)
    return found


def projects_of(service: Service, desired: Desired, directory: Path) -> Callable[[str], bool]:
    """Return whether a folder of the service's source, DIR or a Git source, is a Compose project."""
    from controller.core.compose.reader import FILE_NAMES, OVERRIDE_NAMES

    origin = service.source.origin
    if not origin:
        return lambda folder: any((directory / folder / name).exists() for name in FILE_NAMES)
    # The command doesn't read the exported commit: the documents say where they are.
    sources = (each.source for each in desired.services)
    files = (each.file.removeprefix(f"{origin}:") for each in sources if each.origin == origin)
    known = {
        posixpath.dirname(file)
        for file in files
        if posixpath.basename(file) in {*FILE_NAMES, *OVERRIDE_NAMES}
    }
    return known.__contains__


def path_below_project(path: str, is_project: Callable[[str], bool]) -> str:
    """Return a path of a source as a path of the Compose project around the file; unchanged without a project."""
    parts = path.split("/")
    for depth in range(len(parts)):
        if is_project("/".join(parts[:depth])):
            return "/".join(parts[depth:])
    return path


def _folder_of(name: str, path: str) -> str | None:
    """Return the folder below which a file has the path *name*; None for a file elsewhere."""
    path = posixpath.normpath(path)
    if path == name:
        return "."
    return path.removesuffix(f"/{name}") if path.endswith(f"/{name}") else None


def _admitted(admit: Iterable[str], service: str) -> set[str]:
    """Return the gaps that are admitted for a service: ``GAP``, or ``SERVICE:GAP``."""
    pairs = [text.rpartition(":")[::2] for text in admit]
    return {gap for named, gap in pairs if named in ("", service)}


def _objects(keys: set[Key], full_plan: FullPlan) -> list[dict[str, str]]:
    """Return the foreign volumes and networks that the services use by ``engineName``."""
    desired, observed = full_plan.view.desired, full_plan.observed
    used = set[Key]()
    for service in filter(None, map(desired.workload, keys)):
        namespace = service.key.namespace
        mounts = (mount for mount in service.spec.mounts if mount.type == "volume")
        used |= {Key("Volume", namespace, mount.source) for mount in mounts}
        used |= {Key("Network", namespace, each.name) for each in service.spec.network.attach}
    ours = {("volume", each.name) for each in observed.volumes if each.ours}
    ours |= {("network", each.name) for each in observed.networks if each.ours}
    found = []
    resources: tuple[Network | Volume, ...] = (*desired.volumes, *desired.networks)
    for resource in resources:
        kind = resource.key.kind.lower()
        is_foreign = resource.spec.engine_name and (kind, resource.engine_name) not in ours
        if resource.key in used and is_foreign:
            place = {"namespace": resource.key.namespace, "owner": resource.owner}
            found.append({"kind": kind, "name": resource.engine_name, **place})
    return found


def _print(report: dict[str, Any], *, of_project: bool) -> None:
    if report["containers"]:
        echo(
            table(
                FOUND_HEADERS,
                [_found_row(each, report["adopted"]) for each in report["containers"]],
            )
        )
    lines = (
        *object_lines(report["objects"]),
        *run_lines(report["runs"]),
        *gap_lines(report["containers"]),
        *notice_lines(report["containers"], of_project=of_project),
    )
    for line in lines:
        echo(printable(line))
    for each in (*report["containers"], *report["objects"]):
        for finding in each["findings"]:
            if finding["rule"] == "adopt.gap":
                continue  # listed by gap
            name = each["name"] or each["container"]
            path = f"{finding['path']}: " if finding["path"] else ""
            text = f"{name}: {path}{finding['reason']} [{finding['rule']}]"
            echo_with_remedy(text, finding["remedy"])
    for each in report["problems"]:
        echo(printable(f"{each['container'][:12]}: {each['problem']}"))
    for each in report["failed"]:
        echo(printable(f"{each['id'][:12]}: {each['step']} failed: {each['reason']}"))


def command_line(wish: Wish, judged: Iterable[Any]) -> str:
    """Return the command that admits exactly the found gaps; '' without gaps."""
    admit = [(each["service"], gap["gap"]) for each in judged for gap in each["gaps"]]
    if not admit:
        return ""
    words = ["trimtab", "adopt"]
    words += ["--project", wish.project] if wish.project else [wish.container, "--as", wish.service]
    words += ["--namespace", wish.namespace] if wish.namespace else []
    words += ["--slot", str(wish.slot)] if wish.slot else []
    words += ["--from", wish.folder] if wish.folder else []
    words += [word for network in wish.leave for word in ("--leave", network)]
    named = {f"{name}:{gap}" if wish.project else gap for name, gap in admit}
    words += [word for each in sorted(named) for word in ("--admit", each)]
    return shlex.join(words)


def _found_row(each: Any, adopted: list[str]) -> tuple[str, ...]:
    gaps = ", ".join(gap["gap"] for gap in each["gaps"])
    networks = [f"+{name}" for name in each["joins"]] + [f"-{name}" for name in each["leaves"]]
    rules = {finding["rule"] for finding in each["findings"]}
    verdict = "adopted" if each["id"] in adopted else "can be adopted"
    if rules:
        verdict = "refused" if rules - {"adopt.gap"} else "needs --admit"
    return (
        each["name"] or each["container"],
        f"{each['namespace']}/{each['service']}",
        each["slot"],
        gaps,
        " ".join(networks),
        verdict,
    )


#: The broker inspects hundreds of containers in the engine and the kernel.
SURVEY_S = 120.0
#: Objects in a request. The gate delays other changes until the request is done.
BATCH = 50
HEADERS = (
    *("KIND", "NAME", "SERVICE", "REVISION", "OWNER", "ORIGIN"),
    *("STATE", "MADE", "INTENT", "VERDICT"),
)


def _gaps(
    _context: click.Context, _option: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    for text in value:
        if text.rpartition(":")[2] not in GAPS:
            raise click.BadParameter(f"{text!r} is no gap: {', '.join(GAPS)}")
    return value


def _folder(_context: click.Context, _option: click.Parameter, value: str) -> str:
    return os.path.realpath(value) if value else ""


def _check(wish: Wish, *, instance_id: str, yes: bool) -> None:
    """Refuse contradicting options.

    Raises:
        UsageError: ``adopt.options``.
    """
    if wish.service and wish.project:
        fault, remedy = "--as and --project exclude each other", "leave one out"
    elif instance_id or yes:
        fault, remedy = "--instance and --yes are for lost state folders", "leave them out"
    elif wish.service and not wish.container:
        fault, remedy = "--as needs a container", "name it: trimtab adopt CONTAINER --as SERVICE"
    elif wish.project and wish.slot:
        fault, remedy = "--slot is for one container", "leave it out, or use --as"
    else:
        return
    raise UsageError("adopt.options", fault, remedy=remedy)


def _instance_id(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value and not is_instance(value):
        raise click.BadParameter("an instance's id has 16 hex digits")
    return value


@options.command("""\b
Examples:
  trimtab adopt web --as shop/web --dry-run                       compare it with its document
  trimtab adopt web --as shop/web --admit capabilities --admit logs
  trimtab adopt --project shop --from /home/me/shop --dry-run     list the gaps, and the command
  trimtab adopt --project shop --admit new-privileges --admit db:capabilities
  docker ps -a --format '{{.Label "io.trimtab.instance"}}' | sort | uniq -c    which ids there are
  trimtab adopt /srv/desired --instance 0123456789abcdef          show what there is of it
  trimtab adopt /srv/desired --instance 0123456789abcdef --yes    and take it over

\b
Exit codes: 0 all of it can be (or was) taken over, 4 something can't be, 1 a step failed.
""")
@click.argument("target", metavar="[CONTAINER|DIR]", required=False)
@click.option(
    "--as",
    "service",
    metavar="[NAMESPACE/]SERVICE",
    default="",
    shell_complete=complete_names,
    help="Adopt the running CONTAINER as found, as a replica of this declared service.",
)
@click.option(
    "--project",
    metavar="NAME",
    default="",
    help="Adopt the running containers of a docker compose project, service by service.",
)
@click.option(
    "--namespace", metavar="NS", default="", help="The namespace of the project's services."
)
@click.option(
    "--slot", type=click.IntRange(1, REPLICAS_MAX), help="The slot (default: the first free one)."
)
@click.option(
    "--admit",
    metavar="[SERVICE:]GAP",
    multiple=True,
    callback=_gaps,
    help=f"Admit a gap: {', '.join(GAPS)}. Repeatable.",
)
@click.option(
    "--leave",
    metavar="NETWORK",
    multiple=True,
    help="Leave this network although other containers are in it. Repeatable.",
)
@click.option(
    "--from",
    "came_from",
    metavar="FOLDER",
    default="",
    callback=_folder,
    help="The folder in which docker compose ran, for the gap files.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="The directory of the services, with --as.",
)
@click.option("--dry-run", is_flag=True, help="Compare, and change nothing.")
@click.option(
    "--instance",
    "instance_id",
    metavar="ID",
    default="",
    callback=_instance_id,
    help="The instance with the lost state folder (default: the instance of the present state folder).",
)
@click.option(
    "--yes", is_flag=True, help="Take over the objects; without this option, only list them."
)
@options.note_option
@options.engine_option
@options.policy_option
def adopt(
    target: str | None,
    service: str,
    project: str,
    namespace: str,
    slot: int | None,
    admit: tuple[str, ...],
    leave: tuple[str, ...],
    came_from: str,
    folder: Path | None,
    dry_run: bool,
    instance_id: str,
    yes: bool,
    note: str,
    engine: str | None,
    policy: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Take over running containers, or the objects of an instance with a lost state folder.

    With --as or --project: containers that nobody supervises, as found, without a restart. Each
    container is compared with its document, field by field. A difference refuses it, except limits,
    restart policy and networks, which change in place, and the named gaps.

    With --instance: objects that carry the instance's id but aren't in its inventory. The policy
    judges each object as if it were created now. Labels prove nothing: every user of the engine's
    socket can write them. Check the list first.
    """
    root = options.state_root(state)
    if service or project:
        wish = Wish(
            container=target or "",
            service=service,
            slot=slot or 0,
            project=project,
            namespace=namespace,
            admit=admit,
            leave=leave,
            folder=came_from,
            dry_run=dry_run,
            note=note,
        )
        _check(wish, instance_id=instance_id, yes=yes)
        directory = folder if service or not target else Path(target)
        directory = options.default_directory(directory, root)
        host = options.HostChoice(root, directory, engine, policy)
        return adopt_as_found(host, wish, as_json=as_json)
    if slot or admit or leave or folder or dry_run or namespace:
        raise UsageError(
            "adopt.options",
            "these options need --as or --project",
            remedy="name the service, or the compose project",
        )
    directory = Path(target) if target else None
    instance = read_instance(root)
    if not instance_id and instance is None:
        raise UsageError(
            "adopt.instance-missing",
            f"no instance at {root}",
            remedy="name the lost one with --instance",
        )
    lost = instance_id or (instance.id if instance is not None else "")
    broker_of = partial(
        broker_api,
        directory=options.default_directory(directory, root),
        engine=engine or (read_in_force(root).settings.engine if instance is not None else None),
        policy=policy,
    )
    is_here = instance is not None and instance.id == lost
    with broker_of(root, lost) if is_here else _temporary_broker(broker_of, lost) as api:
        # The containers mount files from the folder that is to take them over.
        found = api.get("strangers", {"state": str(root)})
        objects, restored = found["objects"], found["restored"]
    if not as_json:
        print_objects(objects)
    if not yes or not (objects or restored):
        if as_json:
            options.print_json({"instance": lost, "objects": objects})
        elif objects or restored:
            echo("Nothing was changed; repeat it with --yes to take these over.")
        return EXIT_REFUSED if any(map(_is_refused, objects)) else 0
    if not is_here:
        _take_id(root, instance, lost, broker_of)
    with broker_of(root, lost) as api:
        adopted, left = take_over(api, lost, objects, note, restored=bool(restored))
    report = {"instance": lost, "adopted": adopted, "left": left}
    text = f"Took over {len(adopted)} of {len(objects)}. 'trimtab up' continues with them."
    options.print_result(report, text, as_json=as_json)
    return EXIT_REFUSED if left else 0


#: Yields a broker of an instance on a state folder.
BrokerOf = Callable[[Path, str], AbstractContextManager[BrokerApi]]


@contextmanager
def broker_api(root: Path, instance_id: str, **settings: Any) -> Iterator[BrokerApi]:
    """Yield the running broker of a state folder, else a broker that ends with the block."""
    from controller.cli.clients import oneshot

    host = options.HostChoice(root, **settings)
    with oneshot.broker_of(host, instance_id=instance_id) as state:
        yield BrokerApi(state.broker_socket, SURVEY_S)


@contextmanager
def _temporary_broker(broker_of: BrokerOf, lost: str) -> Iterator[BrokerApi]:
    """Yield a broker of the instance on a temporary state folder.

    A list of objects then leaves no files behind. The start fails if another broker serves the
    instance: such an instance isn't lost.
    """
    folder = Path(tempfile.mkdtemp(prefix="trimtab-adopt-"))
    try:
        with broker_of(folder, lost) as api:
            yield api
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_id(root: Path, instance: Instance | None, lost: str, broker_of: BrokerOf) -> None:
    """Give the state folder the id of the lost instance, unless the folder owns objects.

    Raises:
        StateError: the folder's instance runs, or has objects.
    """
    from controller.app.state_folder import await_free

    if instance is None:
        return
    await_free(root)
    with broker_of(root, instance.id) as api:
        inventory = api.get("inventory")
    count = sum(len(inventory[kind]) for kind in ("containers", "networks", "volumes"))
    if count:
        raise StateError(
            "state.other-instance",
            f"{root} is instance {instance.id}, and has {count} objects of its own",
            remedy="name a new state folder with --state, or take these down first with "
            "'trimtab down'",
        )
    # No container of the lost instance knows the values that were made for this one.
    shutil.rmtree(root / "broker" / "generated", ignore_errors=True)
    write_instance(root, replace(instance, id=lost, run=str(run_folder(root, lost))))


def take_over(
    api: BrokerApi, instance: str, objects: list[Any], note: str, *, restored: bool
) -> tuple[list[Any], list[Any]]:
    """Adopt the listed objects in order: networks and volumes come before their containers.

    In a *restored* state folder, changes go on afterwards. Return the adopted and the other objects.
    """
    full_note = f"{note} (by uid {os.getuid()})".strip()[:512]
    adopted, left = list[Any](), list[Any]()
    for first in range(0, len(objects), BATCH):
        subjects = [item["subject"] for item in objects[first : first + BATCH]]
        reply = api.post("records", {"act": "adopt", "objects": subjects, "note": full_note})
        adopted += reply["adopted"]
        left += reply["left"]
    if restored:
        api.record(STATE_CONFIRMED, instance, full_note)
    return adopted, left


def _is_refused(item: Any) -> bool:
    return bool(item["verdict"]["decision"] == "deny")


def print_objects(objects: list[Any]) -> None:
    """Print the table of objects outside the inventory, and why some stay foreign."""
    if not objects:
        echo("No object outside the inventory carries this instance's id.")
        return
    echo(table(HEADERS, map(_row, objects)))
    for item in filter(_is_refused, objects):
        verdict, name = item["verdict"], item["name"] or item["id"]
        text = f"{name}: {verdict['reason']} [{verdict['rules'][0]}]"
        echo_with_remedy(text, verdict["remedy"])


def _row(item: Any) -> tuple[str, ...]:
    slot = f"{item['namespace']}/{item['service']}/{item['slot']}" if item["service"] else ""
    revision = revision_digits(item["revision"])[:REVISION_DIGITS]
    made = format_instant(item["madeAt"]) if item["madeAt"] is not None else ""
    verdict = "stays foreign" if _is_refused(item) else "adopt"
    return (
        *(item["kind"], item["name"], slot, revision, item["owner"], item["origin"]),
        *(item["state"], made, item["intent"], verdict),
    )
