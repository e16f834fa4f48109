"""``policy init``: write a policy from flags, or from answers to a few questions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.options import command, print_result, state_root
from controller.cli.output.terminal import echo
from controller.model.errors import StateError, UsageError
from controller.settings import read_instance
from controller.system.atomic_file import write_atomic

if TYPE_CHECKING:
    from controller.core.policy.template import Publish, TemplateAnswers
    from controller.model.policy.values import AnonymousVolumes

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


@command(
    """\b
Examples:
  trimtab policy init
  trimtab policy init --output /etc/trimtab/policy.yaml --allow docker.io/ --allow quay.io/
  trimtab policy init --publish loopback --low-port 443 --owner shop:shop,default --client 1000=shop
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
    from controller.core.policy.template import TemplateAnswers, policy_text

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
    instance = read_instance(state_root(state))
    directory = instance.dir if instance is not None else "desired-state"
    following = f"trimtab up {directory} --policy {target.absolute()}"
    if instance is not None and instance.policy == str(target.absolute()):
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
    from controller.core.policy.template import TemplateAnswers

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
