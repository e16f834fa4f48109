"""``policy``, ``policy init``, ``policy reload`` and ``image trust``.

``policy``: show the policy in force, and its verdict on a file or a request.

``policy reload``: make the running broker read its policy file again.

``image trust``: an operator trusts local images.

``policy init``: write a policy from flags, or from answers to a few questions.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import struct
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import options
from controller.cli.clients.offline import policy_in_force
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.commands.policy_explain import (
    actor_of,
    as_option,
    explain,
    findings_json,
    print_findings,
)
from controller.cli.exit_codes import EXIT_INVALID, EXIT_REFUSED, with_program
from controller.cli.options import (
    PassingGroup,
    command,
    open_state,
    print_json,
    print_result,
    state_root,
)
from controller.cli.output.terminal import echo
from controller.core.encoding.identifiers import parse_reference
from controller.core.encoding.text import printable
from controller.core.service.overrides import display_name
from controller.model.errors import StateError, TrimtabError, UsageError
from controller.model.names import Key
from controller.settings import StateFolder, read_in_force, read_instance
from controller.system.durable_files import write_atomic

if TYPE_CHECKING:
    from controller.core.policy.text import Publish, TemplateAnswers
    from controller.core.rules.verdict import AdmissionDecision
    from controller.model.policy.document import Policy
    from controller.model.policy.values import AnonymousVolumes
    from controller.model.records import Actor


RELOAD_TIMEOUT_S = 10.0
RELOAD_POLL_S = 0.05


@command(
    """\b
Example:
  trimtab policy reload

\b
Exit codes: 0 the file is in force, 1 it isn't valid (the policy before it stays in force).
""",
    short_help="Make the running broker read its policy again.",
)
def reload(state: Path | None, as_json: bool) -> int:
    """Make the running broker read its policy file again, as SIGHUP does.

    A new policy stops no running container. A service that the new policy refuses gets the
    condition PolicyViolation, and isn't started again. What the policy before refused is tried at once.
    """
    folder, _ = open_state(state)
    api = BrokerApi(folder.broker_socket)
    before = _policy_health(api)
    signal_broker(folder.broker_socket)
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    while (after := _policy_health(api))["reloads"] == before["reloads"]:
        if time.monotonic() >= deadline:
            raise StateError(
                "policy.not-reloaded",
                f"the broker didn't read its policy again within {RELOAD_TIMEOUT_S:g} s",
                remedy="look at the broker's log",
            )
        time.sleep(RELOAD_POLL_S)
    changed = after["digest"] != before["digest"]
    if changed:
        with suppress(TrimtabError):  # without a controller there is nothing to try
            ask_controller(folder.controller_socket, {"do": "observe"})
    if as_json:
        print_json({**after, "changed": changed})
    elif after["error"]:
        echo(f"{after['error']}\nthe policy {after['name']} stays in force", err=True)
    else:
        result = "is in force now" if changed else "is unchanged"
        echo(f"policy {after['name']} {result}, digest {after['digest']}")
    return 1 if after["error"] else 0


def _policy_health(api: BrokerApi) -> dict[str, Any]:
    """Return the broker's health of its policy.

    Raises:
        UsageError: the user isn't an operator.
    """
    health = dict(api.get("health")["policy"])
    if "reloads" not in health:  # the broker omits it for clients
        raise UsageError(
            "policy.not-operator",
            "only an operator reloads the policy",
            remedy="run it as root, or as a user whom the policy lists in operators",
        )
    return health


def signal_broker(path: Path) -> None:
    """Send SIGHUP to the process behind the broker's socket.

    Raises:
        StateError: the user isn't allowed to, or the broker is in another PID namespace.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(str(path))
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    with suppress(PermissionError, ProcessLookupError):
        if pid > 0:  # 0: in another PID namespace
            os.kill(pid, signal.SIGHUP)
            return
    raise StateError(
        "policy.not-signalled",
        f"this user may not signal the broker (process {pid})",
        remedy="run it as root on the host, or send SIGHUP to the broker's process",
    )


@command("""\b
Examples:
  trimtab image trust ghcr.io/platformnetwork/web:1.2.3
  docker build -t shop/web:1 . && trimtab image trust shop/web:1 && trimtab restart web
""")
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True)
def trust(references: tuple[str, ...], state: Path | None, as_json: bool) -> None:
    """Trust the present local images of each REFERENCE.

    Every user who can build an image can tag it with an admitted name. The gate therefore refuses
    a local image, unless the broker pulled the image or an operator trusts it. Services that run an
    earlier image of the name go on with it until 'trimtab restart'; those that were refused start now.
    """
    folder, _ = open_state(state)
    answers = []
    for reference in references:
        answer = BrokerApi(folder.broker_socket).post("trust", {"reference": reference})
        answers.append(answer)
        if not as_json:
            echo(printable(f"{answer['reference']} is trusted as {answer['id']}"))
    for answer in answers:
        answer["earlier"] = []
    with suppress(TrimtabError):  # another operator than root may only look
        ask_controller(folder.controller_socket, {"do": "observe"})
    with suppress(TrimtabError):  # without a controller nothing runs by the documents
        for answer, service in _earlier(folder, answers):
            answer["earlier"].append(service)
            if not as_json:
                hint = (
                    f"{service} runs an earlier image: trimtab restart {service} takes the new one"
                )
                echo(printable(with_program(hint)))
    if as_json:
        print_json(answers[0] if len(answers) == 1 else answers)


def _earlier(
    folder: StateFolder, answers: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the services with another image than the trusted image of the same reference."""
    status = ask_controller(folder.controller_socket, {"do": "status"})
    for resource in status["resources"]:
        if resource["kind"] != "Service" or not resource.get("digest"):
            continue
        key = Key("Service", resource["namespace"], resource["name"])
        for answer in answers:
            is_of = parse_reference(resource["image"]).canonical == answer["reference"]
            if is_of and resource["digest"] not in (answer["id"], answer.get("digest")):
                yield answer, display_name(key)


@click.group(cls=PassingGroup, commands=[trust])
def image() -> None:
    """Trust local images."""


SYSTEM_FILE = Path("/etc/trimtab/policy.yaml")
VOLUMES: tuple[AnonymousVolumes, ...] = ("slot", "scratch", "refuse")
_OF_DOCUMENTS = (
    "note: ports of Compose files and clients are published on all addresses; a document of kind Service "
    "publishes on 127.0.0.1 unless it says hostIP: 0.0.0.0"
)
PUBLISH: tuple[Publish, ...] = ("asked", "all", "loopback")


def _parsed_by(parse: Callable[[Any], Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a callback for an option that can be repeated: the parsed values, each once."""
    return lambda _context, _option, values: tuple(dict.fromkeys(map(parse, values)))


def _owner(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, namespaces = text.strip().partition(":")
    return name, tuple(part.strip() for part in namespaces.split(",") if part.strip())


def _client(text: str) -> tuple[int, str]:
    uid, equals, owner = text.strip().partition("=")
    if not (equals and uid.isascii() and uid.isdigit()):
        raise UsageError(
            "policy.client", f"{text!r} names no client", remedy="write UID=OWNER, such as 1000=me"
        )
    return int(uid), owner


def _viewer(text: str) -> tuple[int, tuple[str, ...]]:
    user, equals, owners = text.strip().partition("=")
    listed = tuple(part.strip() for part in owners.split(",") if part.strip())
    try:
        uid = int(user) if user.isascii() and user.isdigit() else pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        uid = None
    if uid is None or bool(equals) != bool(listed):
        raise UsageError(
            "policy.viewer",
            f"{text!r} names no viewer",
            remedy="write USER or USER=OWNER,…, with a user of this machine, such as trimtab-web or 998=shop",
        )
    return uid, () if listed == ("all",) else listed


@command(
    """\b
Examples:
  trimtab policy init
  trimtab policy init --output /etc/trimtab/policy.yaml --allow docker.io/ --allow quay.io/
  trimtab policy init --publish loopback --low-port 443 --owner shop:shop,default --client 1000=shop
  trimtab policy init --viewer trimtab-web --viewer trimtab-notify
  trimtab policy init --output -
""",
    name="init",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="The file to write, - for stdout (default: /etc/trimtab/policy.yaml as root, else "
    "$XDG_CONFIG_HOME/trimtab/policy.yaml).",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--name", help="The policy's name in verdicts and the journal.")
@click.option(
    "--allow",
    "images",
    multiple=True,
    callback=_parsed_by(str),
    metavar="PREFIX",
    help="Images that may run: a registry (docker.io/), a folder or one repository; repeat it.",
)
@click.option(
    "--publish",
    type=click.Choice(PUBLISH),
    help="Published ports of Compose files and clients: on loopback unless another address is "
    "asked for (asked), on all addresses (all), on loopback only (loopback). Documents of kind "
    "Service name all addresses with hostIP: 0.0.0.0.",
)
@click.option(
    "--low-port",
    "low_ports",
    multiple=True,
    type=click.IntRange(1, 1023),
    callback=_parsed_by(int),
    help="A port below 1024 that may be published; repeat it.",
)
@click.option(
    "--owner",
    "owners",
    multiple=True,
    callback=_parsed_by(_owner),
    metavar="NAME[:NAMESPACE,…]",
    help="Who may own services, and in which namespaces; without any, any owner is admitted.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    callback=_parsed_by(_client),
    metavar="UID=OWNER",
    help="A user who may use docker through the broker, for that owner; repeat it. The user must be "
    "in the group trimtab.",
)
@click.option(
    "--viewer",
    "viewers",
    multiple=True,
    callback=_parsed_by(_viewer),
    metavar="USER[=OWNER,…]",
    help="A user who may see the state of these owners, or of all, and change nothing; repeat it. "
    "trimtab-web and trimtab-notify are the users of the page and of notifications.",
)
@click.option(
    "--volumes",
    "anonymous_volumes",
    type=click.Choice(VOLUMES),
    help="Where an image declares a VOLUME that no mount covers: a volume that the slot keeps "
    "(slot), a tmpfs (scratch), or a refusal (refuse).",
)
def init(output: Path | None, force: bool, state: Path | None, as_json: bool, **flags: Any) -> None:
    """Write a commented policy for this machine.

    Without flags for the content, it asks a few questions on a terminal. Otherwise missing values
    are taken from the policy `home`.
    """
    from controller.app.policy import policy_file
    from controller.core.policy.text import TemplateAnswers, policy_text

    target = output or _standard_file()
    to_stdout = str(target) == "-"
    if not (to_stdout or force) and target.exists():
        raise UsageError(
            "policy.exists",
            f"{target} is there already",
            remedy="name another file with --output, or replace it with --force",
        )
    given = {name: value for name, value in flags.items() if value}
    asks = not given and sys.stdin.isatty() and not as_json
    answers = ask() if asks else TemplateAnswers(**given)
    file = "/etc/trimtab/policy.yaml" if to_stdout else str(target.absolute())
    text = policy_text(policy_file("home").read_text("utf-8"), answers, file=file)
    if to_stdout:
        echo(text, nl=False)
        return
    _write(target, text)
    root = state_root(state)
    instance = read_instance(root)
    directory = instance.dir if instance is not None else "desired-state"
    following = f"trimtab up {directory} --policy {target.absolute()}"
    if instance is not None and read_in_force(root).settings.policy == str(target.absolute()):
        following = "trimtab policy reload"
    report = {"file": str(target.absolute()), "next": following}
    lines = [f"wrote {target.absolute()}", f"next: {following}"]
    if answers.publish == "all":
        lines.insert(1, _OF_DOCUMENTS)
    print_result(report, "\n".join(lines), as_json=as_json)


def _standard_file() -> Path:
    if os.getuid() == 0:
        return SYSTEM_FILE
    home = Path(os.environ.get("HOME", "/nonexistent"))
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "trimtab" / "policy.yaml"


def ask() -> TemplateAnswers:
    """Ask the questions on the terminal, and return the answers."""
    from controller.core.policy.text import TemplateAnswers

    usual = TemplateAnswers()
    echo("A policy for this machine. Enter takes the answer in brackets.\n")
    return TemplateAnswers(
        images=_several("Images may come from (registries, folders or repositories)", usual.images),
        publish=click.prompt(
            "Published ports are on loopback unless asked, on all addresses, or on loopback only",
            type=click.Choice(PUBLISH),
            default=usual.publish,
        ),
        low_ports=click.prompt(
            "Ports below 1024 that may be published",
            default=" ".join(map(str, usual.low_ports)),
            value_proc=_low_ports,
        ),
        owners=_several("Owners, as NAME or NAME:NAMESPACE (none: any)", (), read=_owner),
        clients=_several(
            "Users who may use docker through the broker, as UID=OWNER", (), read=_client
        ),
        viewers=_several("Users who may look, as USER or USER=OWNER,…", (), read=_viewer),
        anonymous_volumes=click.prompt(
            "Where an image declares a VOLUME without a mount: keep a volume (slot), a tmpfs "
            "(scratch), or refuse",
            type=click.Choice(VOLUMES),
            default=usual.anonymous_volumes,
        ),
    )


def _several(
    question: str, usual: tuple[str, ...], *, read: Callable[[str], Any] = str
) -> tuple[Any, ...]:
    """Ask for a list of words, separated by spaces."""

    def words(text: str) -> tuple[Any, ...]:
        try:
            return tuple(read(word) for word in text.split() if word != "none")
        except UsageError as error:
            raise click.BadParameter(f"{error.message} ({error.remedy})") from error

    answer: tuple[Any, ...] = click.prompt(
        question, default=" ".join(usual) or "none", value_proc=words
    )
    return answer


def _low_ports(text: str) -> tuple[int, ...]:
    words = [word for word in text.replace(",", " ").split() if word != "none"]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= 1023 for word in words):
        raise click.BadParameter("expected numbers from 1 to 1023, such as 80 443, or none")
    return tuple(dict.fromkeys(int(word) for word in words))


def _write(target: Path, text: str) -> None:
    """Write the file atomically, with mode 0644.

    Raises:
        StateError: the file can't be written.
    """
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(target, text.encode(), mode=0o644, folder_sync_required=False)
    except OSError as error:
        raise StateError(
            "policy.unwritable",
            f"{target}: {error.strerror}",
            remedy="run it as root, or name another file with --output",
        ) from error


@options.command(
    """\b
Examples:
  trimtab policy show
  trimtab policy show --policy production --json
""",
    short_help="Show the policy in force, or another one.",
)
@options.policy_option
def show(policy: str | None, state: Path | None, as_json: bool) -> None:
    """Show the policy: --policy, else the running broker's, else the instance's, else strict."""
    from controller.core.policy.text import describe

    rules = policy_in_force(policy, options.state_root(state))
    content = json.loads(rules.model_dump_json(by_alias=True))
    report = {"name": rules.name, "digest": rules.digest, "policy": content}
    options.print_result(report, "\n".join(describe(rules)), as_json=as_json)


@options.command(
    """\b
Examples:
  trimtab policy check web.yaml --policy strict
  trimtab policy check web.yaml --json | jq '.[].findings'
  echo '{"Image": "alpine:latest"}' | trimtab policy check - --as client:alice

\b
Exit codes: 0 allowed, 3 the file is invalid, 4 refused, 64 wrong usage.
""",
    short_help="Judge a file of resources, or a request's body.",
)
@click.argument("file", type=click.File("r"))
@as_option
@options.policy_option
def check(file: Any, role: str, policy: str | None, state: Path | None, as_json: bool) -> int:
    """Judge FILE (or - for stdin): resources in YAML, or the JSON body of a container create.

    Every finding is printed with its remedy. Resources are judged as the controller's requests, a
    body as a request of --as. The broker later checks images, volumes, networks and paths, which
    need the engine.
    """
    actor = actor_of(role)
    rules = policy_in_force(policy, options.state_root(state))
    name = getattr(file, "name", "-")
    try:
        content = file.read()
    except UnicodeDecodeError:
        raise click.BadParameter("it isn't text in UTF-8", param_hint="'FILE'") from None
    invalid, decisions = _judge(content, name, rules, actor)
    if as_json:
        options.print_json(
            [_decision_json(label, decision, rules) for label, decision in decisions]
        )
    else:
        for label, decision in decisions:
            _print(label, decision, rules)
    if invalid:
        return EXIT_INVALID
    return EXIT_REFUSED if any(d.verdict.decision == "deny" for _, d in decisions) else 0


def _judge(
    content: str, name: str, rules: Policy, actor: Actor
) -> tuple[bool, list[tuple[str, AdmissionDecision]]]:
    """Return True if the file is invalid, and the decision on each object in the file."""
    from controller.cli.clients import offline
    from controller.core.admission import preview
    from controller.core.encoding.json_values import InvalidJson, parse_strict
    from controller.core.manifests.check_together import desired_of
    from controller.core.policy.refusals import verdict_in_document

    if _is_body(content):
        try:
            body = parse_strict(content.encode())
        except InvalidJson as error:
            raise UsageError("file.invalid", f"{name}: {error}") from error
        return False, [(name, preview.check_create(rules, body, name="", actor=actor))]
    desired = desired_of({name: content})
    for problem in desired.problems:
        echo(problem.render(), err=True)
    decisions = [
        (
            str(action.object),
            replace(decision, verdict=verdict_in_document(decision, action.service, rules)),
        )
        for action, decision in offline.check_creations(desired, rules)
    ]
    return not desired.valid, decisions


def _is_body(content: str) -> bool:
    """Return True for the body of a create. A document, in YAML or JSON, names its apiVersion."""
    if not content.lstrip().startswith("{"):
        return False
    try:
        return "apiVersion" not in json.loads(content)
    except (ValueError, RecursionError):
        from controller.core.manifests.named_files import is_of_trimtab  # a slow import

        return not is_of_trimtab(content.encode())


def _decision_json(label: str, decision: AdmissionDecision, rules: Policy) -> dict[str, object]:
    from controller.core.review.flat_plan import verdict_json

    return {
        "object": label,
        "verdict": verdict_json(decision.verdict),
        "findings": findings_json(decision.findings, rules),
        "warnings": list(decision.warnings),
    }


def _print(label: str, decision: AdmissionDecision, rules: Policy) -> None:
    verdict = decision.verdict
    colour = {"deny": "red", "audit-deny": "yellow"}.get(verdict.decision, "green")
    rule_ids = f" [{', '.join(verdict.rules)}]" if verdict.rules else ""
    echo(f"{label}: {click.style(verdict.decision, fg=colour)} by {rules.name}{rule_ids}")
    if verdict.decision == "deny" and verdict.problems:
        for problem in verdict.problems:
            echo(textwrap.indent(problem.render(), "    "))
    else:
        print_findings(decision.findings, rules)
    for line in (*verdict.mutations, *(f"warning: {text}" for text in decision.warnings)):
        echo(f"    {line}")


@click.group(cls=options.PassingGroup, commands=[show, check, explain, init, reload])
def policy() -> None:
    """Show the policy in force, and judge files, requests and docker commands."""
