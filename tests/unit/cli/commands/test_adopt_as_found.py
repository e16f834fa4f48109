"""The parts of ``adopt --project`` that ask nobody: the declared files, and the printed command."""

from __future__ import annotations

import dataclasses
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from controller.app.desired_state import directory_source
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.commands.adopt_as_found import (
    Wish,
    command_line,
    declared_files,
    path_below_project,
    post_adoption,
    projects_of,
)
from controller.model.errors import Refused
from controller.model.names import service_key
from controller.settings import StateFolder
from tests.unit.cli.commands.test_service import Both
from tests.unit.cli.commands.test_service import state as state  # noqa: PLC0414 - a fixture

COMPOSE = """\
services:
  web:
    image: ghcr.io/platformnetwork/web:1.2.3
    volumes: ["./conf/site.conf:/etc/site.conf:ro", "./www:/www:ro"]
    configs: [text, {source: ini, target: /etc/app.ini}]
    secrets: [password]
configs:
  text: {content: "hello"}
  ini: {file: app.ini}
secrets:
  password: {file: ./secrets/pw}
"""


def test_the_declared_files_of_a_project_are_below_its_folder(tmp_path: Path) -> None:
    files = ("conf/site.conf", "www/index.html", "www/css/a.css", "app.ini", "secrets/pw")
    for name in files:
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "shop" / "compose.yaml").write_text(COMPOSE)
    desired = directory_source(tmp_path).load()
    web = desired.service(service_key("shop", "web"))
    assert web is not None, desired.problems
    declared = declared_files(web, desired)
    of_git = dataclasses.replace(
        web, source=dataclasses.replace(web.source, file=f"team:{web.source.file}", origin="team")
    )
    served = dataclasses.replace(desired, services=(of_git,))
    # The files of a Git source aren't below DIR.
    for service, known, directory in ((web, desired, tmp_path), (of_git, served, tmp_path / "DIR")):
        is_project = projects_of(service, known, directory)
        assert {
            target: path_below_project(path, is_project) for target, path in declared.items()
        } == {
            "/etc/site.conf": "conf/site.conf",
            "/www": "www",
            "/etc/app.ini": "app.ini",
            "/run/secrets/password": "pw",
        }


def test_a_path_outside_a_project_stays() -> None:
    assert path_below_project("site/index.html", lambda _folder: False) == "site/index.html"


class Forgetful(Both):
    """A broker without the proof of the accepted commit, until the controller reads the documents."""

    def _control(self, peer: socket.socket) -> None:
        self.denied = None
        super()._control(peer)


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("proof.missing", ["broker", "controller", "broker"]),
        ("proof.unseparated", ["broker"]),
    ],
)
def test_an_adoption_without_a_proof_lets_the_controller_upload_it(
    state: StateFolder, code: str, asked: list[str]
) -> None:
    both = Forgetful(state, {})
    both.denied = (409, {"trimtab": {"rule": code, "reason": "why", "remedy": "how"}})
    api, question = BrokerApi(state.broker_socket), {"containers": ["x"]}
    try:
        with nullcontext() if len(asked) > 1 else pytest.raises(Refused, match="why"):
            answer = post_adoption(api, state.controller_socket, question)
            assert answer == {"id": "record-1"}
    finally:
        both.close()
    assert [who for who, _ in both.said] == asked
    told = [question for who, question in both.said if who == "controller"]
    assert told == [{"do": "plan"}] * asked.count("controller")


def test_an_adoption_without_a_proof_and_a_controller_is_refused(state: StateFolder) -> None:
    both = Both(state, {})
    both.denied = (409, {"trimtab": {"rule": "proof.missing", "reason": "why", "remedy": "how"}})
    nowhere = state.run / "nowhere.sock"
    try:
        with pytest.raises(Refused, match="why"):
            post_adoption(BrokerApi(state.broker_socket), nowhere, {})
    finally:
        both.close()
    assert len(both.said) == 2


def test_the_printed_command_admits_exactly_the_found_gaps() -> None:
    judged: list[dict[str, Any]] = [
        {"service": "web", "gaps": [{"gap": "files"}, {"gap": "logs"}]},
        {"service": "db", "gaps": [{"gap": "logs"}]},
        {"service": "web", "gaps": [{"gap": "logs"}]},
    ]
    wish = Wish(project="shop", folder="/home/me/my shop", leave=("old",))
    assert command_line(wish, judged) == (
        "trimtab adopt --project shop --from '/home/me/my shop' --leave old "
        "--admit db:logs --admit web:files --admit web:logs"
    )
    assert command_line(wish, []) == ""
    assert command_line(dataclasses.replace(wish, project=""), judged) == ""
