"""``web``: the page of this host, for the browser of the user of the command, or for holders of tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from controller.cli.clients.socket_client import BrokerApi, EngineApi, ask_controller
from controller.cli.commands.logs import read_log
from controller.cli.commands.metrics import read_metrics
from controller.cli.commands.replicas import VisibleContainer
from controller.cli.options import (
    DefaultGroup,
    PassingGroup,
    command,
    duration_ms,
    open_state,
    print_json,
    print_result,
)
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.cli.output.times import current_time, span, user_name, with_names
from controller.core.view.view import with_texts
from controller.model.container_output import LogLine
from controller.model.errors import (
    EngineUnavailable,
    Refused,
    StateError,
    TrimtabError,
)
from controller.settings import StateFolder, read_in_force
from controller.system.runtime import importing
from controller.web.pages import Away, LogsNeeded, PageLogs, Records
from controller.web.server.port import Samples

#: Seconds for an answer, besides those that the controller waits for news.
ANSWER_S: Final = 15.0
#: The output that is read of a container: lines can be long.
OUTPUT_MAX: Final = 16 * 1024 * 1024


class OwnReader:
    """Reads an instance over its sockets (``controller.web.server.port``), with the rights of this user."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def view(self, have: str, *, wait_s: float) -> Mapping[str, Any]:
        """Return what changed in the view, with users by their names; raises as ``ask_controller``."""
        question: dict[str, object] = {"do": "view", "have": have, "wait_s": wait_s}
        answer = ask_controller(
            self._state.controller_socket, question, timeout_s=wait_s + ANSWER_S
        )
        named: dict[str, Any] = with_texts(answer, with_names)
        return named

    def records(self, query: Mapping[str, str]) -> Records | Away:
        """Return records that this user is allowed to read."""
        try:
            api = BrokerApi(self._state.broker_socket)
            body, _ = api.fetch("journal", query={**query, "about": "1"})
        except TrimtabError as error:
            return _away(error, Away.JOURNAL)
        return Records(tuple(_with_names(json.loads(line)) for line in body.splitlines()))

    def logs(self, needed: LogsNeeded) -> PageLogs | Away:
        """Return the last lines of a container. The journal records the read."""
        api = EngineApi(self._state.broker_socket)
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": str(needed.lines + 1)}
        _, namespace, service = needed.key.split("/")
        # By name: a viewer isn't allowed to list containers.
        container = VisibleContainer(
            needed.container, needed.container, namespace, service, slot=0, state=""
        )
        lines: list[LogLine] = []
        size = 0
        try:
            for _, line in read_log(api, container, query):
                lines.append(line)
                size += len(line.text)
                if size > OUTPUT_MAX:
                    return PageLogs(needed.container, tuple(lines[-needed.lines :]), is_cut=True)
        except TrimtabError as error:
            return _away(error, Away.OUTPUT)
        is_cut = len(lines) > needed.lines
        return PageLogs(needed.container, tuple(lines[-needed.lines :]), is_cut)

    def metrics(self) -> str | Away:
        """Return the metrics of broker and controller."""
        try:
            return read_metrics(self._state)
        except TrimtabError as error:
            return _away(error, Away.DENIED)

    def samples(self, key: str) -> Samples:
        """Return the samples of a service; () without a controller, and where it has no figures."""
        try:
            answer = ask_controller(
                self._state.controller_socket, {"do": "samples", "key": key}, timeout_s=ANSWER_S
            )
        except TrimtabError:
            return ()
        return tuple((at, cpus, size) for at, cpus, size in answer["samples"])


def _with_names(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the journal with users by their names in the reasons, which are texts for people."""
    record = line["record"]
    return {
        **line,
        "record": {**record, "claims": with_texts(record.get("claims", {}), with_names)},
    }


def _away(error: TrimtabError, otherwise: Away) -> Away:
    """Return why something couldn't be fetched."""
    match error:
        case Refused() | StateError():
            return Away.DENIED
        case EngineUnavailable():
            return Away.BROKER
        case _:
            return otherwise


@click.group(
    cls=DefaultGroup,
    default="open",
    epilog="""\b
Examples:
  trimtab web                            prints a link for the browser of this computer
  trimtab web --port 8123                on a port for 'ssh -L 8123:127.0.0.1:8123 HOST'
  trimtab web token add ann              a token for the page of 'trimtab web run'
""",
)
def web() -> None:
    """Show the page of this host in a browser: what runs, what doesn't, why, and who must act.

    Without a subcommand: 'web open'.
    """


@command(
    """\b
Examples:
  trimtab web open
  trimtab web open --port 8123           behind 'ssh -L 8123:127.0.0.1:8123 HOST'

\b
The link works once, within 60 s. The page shows what this user is allowed to read, and changes
nothing. Other users of this computer aren't served.
""",
    name="open",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="The port on 127.0.0.1 (default: any free one).",
)
def open_page(port: int, state: Path | None, as_json: bool) -> None:
    """Serve the page to a browser of this user, on 127.0.0.1, until Ctrl-C."""
    with importing():
        from controller.app.page import bind_port, run_page
        from controller.cli.commands.web import OwnReader
        from controller.web.pages import WebSession

    folder, _ = open_state(state)

    def announce(link: str) -> None:
        if as_json:
            print_json({"url": link})
        else:
            echo(f"{link}\n\nThe link works once, within 60 s. Ctrl-C ends the page.")

    run_page(
        OwnReader(folder),
        bind_port(port),
        session=WebSession(user_name(os.getuid()), logs=None),
        uids=frozenset({0, os.getuid(), _caller()}),
        announce=announce,
    )


def _caller() -> int:
    """Return the uid of the user who called sudo, whose browser opens the link; without sudo, the own uid."""
    called = os.environ.get("SUDO_UID", "")
    return int(called) if os.getuid() == 0 and called.isdecimal() else os.getuid()


@command(
    """\b
Examples:
  trimtab web run

\b
The settings web.listen and web.url say where; trimtab-web.service runs this command. Readers log in
with a token ('trimtab web token add'). The policy must list the user of the process as a viewer.
"""
)
def run(state: Path | None, as_json: bool) -> None:  # noqa: ARG001 - may follow any command
    """Serve the page to holders of tokens, until a signal arrives."""
    with importing():
        from controller.app.page import run_shared_page
        from controller.cli.commands.web import OwnReader

    folder, _ = open_state(state)
    run_shared_page(OwnReader(folder), read_in_force(folder.root).settings, folder)


@click.group(cls=PassingGroup)
def token() -> None:
    """Add, list and revoke tokens of readers."""


@command(
    """\b
Examples:
  trimtab web token add ann
  trimtab web token add shop-team --scope view+logs:shop --expires 720h
  trimtab web token add prometheus --scope metrics

\b
The token is printed once. trimtab keeps its digest alone.
"""
)
@click.argument("name")
@click.option(
    "--scope",
    default="view",
    show_default=True,
    help="view, view+logs:OWNER[,OWNER] or metrics.",
)
@click.option(
    "--expires",
    "expires_ms",
    default="2160h",
    show_default=True,
    callback=lambda _context, _option, value: duration_ms(value),
    metavar="DURATION",
    help="The token ends after that time.",
)
def add(name: str, scope: str, expires_ms: int, state: Path | None, as_json: bool) -> None:
    """Add a token, and print it."""
    from controller.app.page import new_token
    from controller.web.server.tokens import TokenFile, WebToken, digest_of

    folder, _ = open_state(state)
    secret, expires = new_token(), int(current_time() + expires_ms / 1000)
    TokenFile(folder.web_tokens).add(WebToken(name, digest_of(secret), scope, expires))
    print_result({"name": name, "token": secret, "expires": expires}, secret, as_json=as_json)


@command("""\b
Examples:
  trimtab web token list
""")
def list_tokens(state: Path | None, as_json: bool) -> None:
    """List tokens, without the tokens themselves."""
    from controller.web.server.tokens import TokenFile

    folder, _ = open_state(state)
    tokens, now = TokenFile(folder.web_tokens).tokens(), current_time()
    shown = [{"name": t.name, "scope": t.scope, "expires": t.expires} for t in tokens]
    rows = [
        (t.name, t.scope, f"in {span(t.expires - now)}" if now < t.expires else "expired")
        for t in tokens
    ]
    text = table(("NAME", "SCOPE", "EXPIRES"), rows) if rows else "No tokens."
    print_result({"tokens": shown}, text, as_json=as_json)


@command("""\b
Examples:
  trimtab web token revoke ann
""")
@click.argument("name")
def revoke(name: str, state: Path | None, as_json: bool) -> None:
    """Revoke a token. Sessions that it began end with the next request."""
    from controller.web.server.tokens import TokenFile

    folder, _ = open_state(state)
    TokenFile(folder.web_tokens).revoke(name)
    print_result({"revoked": name}, f"{name} is revoked.", as_json=as_json)


token.add_command(add)
token.add_command(list_tokens, "list")
token.add_command(revoke)
web.add_command(open_page)
web.add_command(run)
web.add_command(token)
