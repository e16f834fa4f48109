"""What ``web`` reads of an instance for the page."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

from controller.cli.commands.web import OwnReader
from controller.settings import StateFolder
from controller.web.pages import Records
from tests.unit.cli.reports import condition, resource
from tests.unit.cli.status.test_status import PATIENCE_S, answering

SAID = "stopped by uid:0 through the gate"
NAMED = "stopped by root through the gate"


def test_the_page_names_users_as_status_does(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, tmp_path)
    suspended = resource("web", condition("Suspended", SAID))
    view: dict[str, Any] = {"version": "1", "resources": [suspended], "gone": []}
    with answering(state, view):
        read = OwnReader(state).view("", wait_s=0.0)
    assert read["resources"][0]["conditions"][0]["message"] == NAMED
    assert {**read, "resources": []} == {**view, "resources": []}


def test_the_reasons_of_records_name_users_and_the_rest_is_as_recorded(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, tmp_path)
    record = {"seq": 1, "request": {"object": "uid:0"}, "claims": {"cause": SAID}}
    body = json.dumps({"about": {}, "record": record}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(state.broker_socket))
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                peer.sendall(head.encode() + body)

        thread = threading.Thread(target=answer)
        thread.start()
        found = OwnReader(state).records({})
        thread.join(PATIENCE_S)
    assert isinstance(found, Records)
    named = {**record, "claims": {"cause": NAMED}}
    assert found.lines == ({"about": {}, "record": named},)
