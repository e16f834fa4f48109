"""``secret``: keys of namespaces, and SOPS files to encrypt, edit, rotate and list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.options import (
    PassingGroup,
    command,
    note_option,
    open_state,
    print_result,
    raise_unless_on_terminal,
)
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo_data
from controller.cli.output.times import current_time
from controller.model.errors import UsageError
from controller.system.syscalls import forbid_core_dumps

if TYPE_CHECKING:
    from controller.cli.commands.sops_files import SopsFile
    from controller.core.secrets.sops import Identities, PlainLeaf


_KEYS = Path("/etc/trimtab/keys")
#: Seconds for new values of a forgotten Secret.
FORGOTTEN_S = 30.0
file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
namespace_option = click.option(
    "-n",
    "--namespace",
    default="default",
    show_default=True,
    help="The namespace with the key of the file.",
)
keys_option = click.option(
    "--keys",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_KEYS,
    show_default=True,
    help="The folder of private keys.",
)
identity_option = click.option(
    "--identity",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A key file of your own, in place of the namespace's.",
)
recipients_option = click.option(
    "-r",
    "--recipient",
    "recipients",
    multiple=True,
    metavar="age1…",
    help="A public key; repeat it. Default: the namespace's, if its key can be read.",
)


@click.group(
    cls=PassingGroup,
    epilog="""\b
Examples:
  sudo trimtab secret keygen shop
  trimtab secret encrypt db.yaml --recipient age1… --in-place
  sudo trimtab secret edit db.yaml -n shop
""",
)
def secret() -> None:
    """Make keys for namespaces; encrypt, edit, rotate and list SOPS files.

    The files are those of SOPS with age recipients; the program sops reads and writes them too.
    """
    forbid_core_dumps()


@command("""\b
Example:
  sudo trimtab secret keygen shop        the key is /etc/trimtab/keys/shop.age
""")
@click.argument("namespace")
@keys_option
def keygen(namespace: str, folder: Path, state: Path | None, as_json: bool) -> None:  # noqa: ARG001
    """Make the private key of a namespace, and print the recipient to encrypt for."""
    from controller.cli.commands.sops_files import make_key

    recipient = make_key(namespace, now=current_time(), folder=folder)
    path = str(folder / f"{namespace}.age")
    text = f"wrote {path}\nrecipient: {recipient}\nkeep a copy of the key in a safe place"
    print_result({"file": path, "recipient": recipient}, text, as_json=as_json)


@command("""\b
Examples:
  trimtab secret encrypt db.yaml --recipient age1… >db.sops.yaml
  sudo trimtab secret encrypt db.yaml -n shop --in-place
  trimtab secret encrypt values.json -r age1… --encrypted-regex '^(password|token)$' --in-place
""")
@file_argument
@namespace_option
@recipients_option
@click.option("--encrypted-regex", metavar="REGEX", help="Encrypt only the keys that match.")
@click.option("--in-place", is_flag=True, help="Replace the file, rather than print.")
@keys_option
def encrypt(
    file: Path,
    namespace: str,
    recipients: tuple[str, ...],
    encrypted_regex: str | None,
    in_place: bool,
    folder: Path,
    state: Path | None,  # noqa: ARG001 — may follow any command
    as_json: bool,
) -> None:
    """Encrypt a file as SOPS does: YAML, JSON and dotenv by value, other files as a whole.

    Comments stay readable.
    """
    from controller.cli.commands import sops_files
    from controller.cli.commands.sops_files import identities_of
    from controller.core.secrets.sops_metadata import EncryptionRule

    rule = (
        EncryptionRule("encrypted_regex", encrypted_regex) if encrypted_regex else EncryptionRule()
    )
    wanted = recipients or identities_of(namespace, folder).recipients
    plain = sops_files.read_file(file)
    result = sops_files.encrypt(plain, wanted, rule, now=current_time())
    if in_place:
        plain.replace(result)
        _report(file, "encrypted", as_json)
    else:
        echo_data(result.decode().removesuffix("\n"))


@command("""\b
Example:
  sudo EDITOR=nano trimtab secret edit db.yaml -n shop
""")
@file_argument
@namespace_option
@identity_option
@keys_option
def edit(
    file: Path,
    namespace: str,
    identity: Path | None,
    folder: Path,
    state: Path | None,  # noqa: ARG001 — may follow any command
    as_json: bool,
) -> None:
    """Open the plain text of a file in $EDITOR, and encrypt the result for the same recipients.

    The plain text lies on a tmpfs while the editor runs.
    """
    from controller.cli.commands import sops_files

    found = sops_files.read_file(file)
    identities = _identities(namespace, identity, folder)
    result = sops_files.edit(found, identities, sops_files.run_editor, now=current_time())
    if result is not None:
        found.replace(result)
    _report(file, "unchanged" if result is None else "changed", as_json)


@command("""\b
Examples:
  sudo trimtab secret rotate db.yaml -n shop
  sudo trimtab secret rotate db.yaml -n shop --recipient age1new… --remove age1old…
""")
@file_argument
@namespace_option
@recipients_option
@click.option("--remove", "removed", multiple=True, metavar="age1…", help="Remove a recipient.")
@identity_option
@keys_option
def rotate(
    file: Path,
    namespace: str,
    recipients: tuple[str, ...],
    removed: tuple[str, ...],
    identity: Path | None,
    folder: Path,
    state: Path | None,  # noqa: ARG001 — may follow any command
    as_json: bool,
) -> None:
    """Encrypt a file under a new data key; add and remove recipients.

    Somebody who could read the file before still knows its values: change those too.
    """
    from controller.cli.commands import sops_files

    found = sops_files.read_file(file)
    identities = _identities(namespace, identity, folder)
    result = sops_files.rotate(
        found, identities, added=recipients, removed=removed, now=current_time()
    )
    found.replace(result)
    _report(file, "rotated", as_json)


@command(
    """\b
Examples:
  sudo trimtab secret list                         the keys of this host
  sudo trimtab secret list db.yaml -n shop         the file's keys, without values
  sudo trimtab secret list db.yaml -n shop --show  with values, on a terminal; recorded
""",
    name="list",
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@namespace_option
@click.option("--show", is_flag=True, help="Print the values. On a terminal only; recorded.")
@identity_option
@keys_option
def list_secrets(
    file: Path | None,
    namespace: str,
    show: bool,
    identity: Path | None,
    folder: Path,
    state: Path | None,
    as_json: bool,
) -> None:
    """List the keys of this host with their recipients, or the keys of a SOPS file."""
    if file is None:
        _list_keys(folder, as_json)
        return
    from controller.cli.commands.sops_files import read_file

    if show:
        raise_unless_on_terminal("--show", as_json=as_json)
    found = read_file(file)
    values = found.open(_identities(namespace, identity, folder)).values
    if show:
        _record(found, state)
    rows = [_described(value) for value in values]
    headers = ("KEY", "TYPE", "BYTES", "ENCRYPTED", *(("VALUE",) if show else ()))
    cells = [
        (
            row["key"],
            row["type"],
            str(row["bytes"]),
            "yes" if row["encrypted"] else "no",
            *((value.opened.content.decode("utf-8", "replace"),) if show else ()),
        )
        for row, value in zip(rows, values, strict=True)
    ]
    print_result({"keys": rows}, table(headers, cells), as_json=as_json)


def _described(value: PlainLeaf) -> dict[str, Any]:
    return {
        "key": "/".join(value.leaf.path),
        "type": value.opened.type,
        "bytes": len(value.opened.content),
        "encrypted": value.encrypted,
    }


def _list_keys(folder: Path, as_json: bool) -> None:
    from controller.cli.commands.sops_files import list_keys

    keys = list_keys(folder)
    report = [
        {"namespace": key.namespace, "recipients": list(key.recipients), "problem": key.problem}
        for key in keys
    ]
    cells = [(key.namespace, ", ".join(key.recipients), key.problem) for key in keys]
    text = (
        table(("NAMESPACE", "RECIPIENT", "PROBLEM"), cells)
        if keys
        else f"no keys in {folder}; make one: sudo trimtab secret keygen NAMESPACE"
    )
    print_result({"keys": report}, text, as_json=as_json)


def _identities(namespace: str, identity: Path | None, folder: Path) -> Identities:
    from controller.cli.commands.sops_files import identities_of
    from controller.core.secrets.sops import parse_identities

    if identity is None:
        return identities_of(namespace, folder)
    try:
        return parse_identities(identity.read_text("utf-8"), str(identity))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("secret.unreadable", f"{identity}: {error}") from None


def _record(found: SopsFile, state: Path | None) -> None:
    """Record the display of values, before any value is shown."""
    from controller.cli.clients.socket_client import BrokerApi
    from controller.model.mutations import SHOW_VALUES

    folder, instance = open_state(state)
    note = f"{found.path.name} by uid {os.getuid()}"
    BrokerApi(folder.broker_socket).record(SHOW_VALUES, instance.id, note)


def _report(file: Path, what: str, as_json: bool) -> None:
    print_result({"file": str(file), "result": what}, f"{file}: {what}", as_json=as_json)


@command("""\b
Example:
  trimtab secret forget shop/session --note "the value leaked"
""")
@click.argument("name", metavar="[NAMESPACE/]NAME")
@note_option
def forget(name: str, note: str, state: Path | None, as_json: bool) -> None:
    """Forget the generated values of a Secret: new ones are made, and rolled out.

    The act is recorded. The values are lost: a database that knows the old password keeps it.
    """
    from controller.cli.clients.socket_client import BrokerApi, ask_to_observe
    from controller.cli.commands.sops_files import check_namespace
    from controller.model.mutations import SECRET_FORGET

    folder, _ = open_state(state)
    namespace, _, secret_name = name.rpartition("/")
    key = f"Secret/{check_namespace(namespace or 'default')}/{secret_name}"
    answer = BrokerApi(folder.broker_socket).record(SECRET_FORGET, key, note)
    # Without a controller, its start makes the new values.
    ask_to_observe(folder.controller_socket, key, timeout_s=FORGOTTEN_S)
    told = "forgotten" if answer["forgotten"] else "there were none"
    told += "; the next reading makes new values"
    print_result(
        {"object": key, "forgotten": answer["forgotten"]}, f"{key}: {told}", as_json=as_json
    )


for _made in (keygen, encrypt, edit, rotate, list_secrets, forget):
    secret.add_command(_made)
