"""The parts of ``adopt --project`` that ask nobody: the declared files, and the printed command."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest

from controller.app.desired_state import directory_source
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.commands.adopt import (
    Wish,
    admit_hint,
    command_line,
    compare,
    declared_files,
    path_below_project,
    projects_of,
)
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


def compared(*rules: str) -> dict[str, Any]:
    """Return the broker's comparison of a container with findings."""
    return {"containers": [{"findings": [{"rule": each} for each in rules]}], "objects": []}


class Forgetful(Both):
    """A broker without the proof of the accepted commit, until the controller reads the documents."""

    def _control(self, peer: socket.socket) -> None:
        self.denied = (200, compared())
        super()._control(peer)


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ("proof.missing", ["broker", "controller", "broker"]),
        ("proof.unseparated", ["broker"]),
    ],
)
def test_a_comparison_without_a_proof_lets_the_controller_upload_it(
    state: StateFolder, rule: str, asked: list[str]
) -> None:
    both = Forgetful(state, {})
    both.denied = (200, compared(rule))
    try:
        answer = compare(BrokerApi(state.broker_socket), state.controller_socket, {"folder": ""})
    finally:
        both.close()
    assert answer == (compared() if len(asked) > 1 else compared(rule))
    dry_run = {"folder": "", "dryRun": True}
    told = {"broker": dry_run, "controller": {"do": "plan"}}
    assert both.said == [(who, told[who]) for who in asked]


def test_a_comparison_without_a_proof_and_a_controller_keeps_the_finding(
    state: StateFolder,
) -> None:
    both = Both(state, {})
    both.denied = (200, compared("proof.missing"))
    nowhere = state.run / "nowhere.sock"
    try:
        answer = compare(BrokerApi(state.broker_socket), nowhere, {})
    finally:
        both.close()
    assert answer == compared("proof.missing")
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
    assert admit_hint(wish, []) == ""
    assert admit_hint(Wish(project="shop", folder="/a\nb"), judged[1:2]).split("\n") == [
        "To admit exactly these gaps:",
        "  trimtab adopt --project shop --from '/a\\u000ab' --admit db:logs",
    ]
    one = Wish(container="old web", service="shop/web", slot=2)
    assert command_line(one, judged[:1]) == (
        "trimtab adopt 'old web' --as shop/web --slot 2 --admit files --admit logs"
    )
