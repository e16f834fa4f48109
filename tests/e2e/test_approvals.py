"""A controller that lies to an operator: the broker names what is approved, and nothing escapes.

The rogue listens where the controller does, and answers what it likes.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_blast_radius import VOLUME, Usurper, broker_alone, controllers_user, ids
from tests.instance import TRIMTAB, Host, eventually, web

pytestmark = pytest.mark.needs_root
NAMES = ("s0", "s1", "s2")
PLAN = "be" * 32
#: A title of the window, colours, a bell, a C1 control, an override of direction, forged lines.
HOSTILE = "x\x1b]0;pwned\x07\x1b[31m\x9b2J\u202e\u200b\u2028\r\nroot# all is well"
STATUS: dict[str, Any] = {"resources": [], "problems": []}


class Rogue:
    """Answers on the controller's socket; *going* are the rows that it asks an approval for."""

    def __init__(self, path: Path, gid: int) -> None:
        self.going: list[dict[str, str]] = []
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        os.chown(path, 0, gid)
        path.chmod(0o660)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                line = peer.makefile("rb").readline()
                if line:
                    answer = self._answer(json.loads(line))
                    peer.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["do"]:
            case "plan":
                plan = {"digest": PLAN, "actions": [], "complete": True}
                return {"plan": plan, "going": self.going, "text": HOSTILE}
            case "progress":
                return {"acts": [], "last": 0, "working": {}}
            case "status":
                return STATUS
            case _:
                done = {"converged": True, "seconds": 1.0, "acts": []}
                return {**done, "summary": {"text": "1 removed"}, "status": STATUS}

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def usurped(host: Host) -> Iterator[tuple[Usurper, Rogue]]:
    """Have the controller's user and its socket, while the broker serves."""
    with controllers_user(host) as peer, broker_alone(host):
        gid = host.broker_socket.stat().st_gid
        rogue = Rogue(host.broker_socket.with_name("controller.sock"), gid)
        try:
            yield Usurper(host, peer), rogue
        finally:
            rogue.close()


def on_a_terminal(host: Host, *arguments: str, answer: str, columns: int = 200) -> tuple[int, str]:
    """Run a command on a terminal, answer its question, and return its code and the screen."""
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        host.engine.inside(TRIMTAB, *arguments, "--state", str(host.state)),
        env=host.environment(COLUMNS=str(columns), TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=host.folder,
    )
    os.close(theirs)
    screen = b""
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], 60.0)
            assert ready, f"nothing more is printed:\n{screen!r}"
            try:
                read = os.read(ours, 65536)
            except OSError:  # the terminal is closed with its last writer
                break
            screen += read
            if answer and b"[y/N]" in screen:
                os.write(ours, answer.encode())
                answer = ""
        code = command.wait(timeout=60)
    finally:
        command.kill()
        os.close(ours)
    return code, screen.decode(errors="surrogateescape")


def forged(identifier: str, claim: str) -> dict[str, str]:
    """A row that calls an object something harmless."""
    return {
        "id": identifier,
        "service": "Service/default/old-canary",
        "container": "old-canary.1-00000000",
        "why": claim,
    }


def approvals(host: Host) -> list[dict[str, Any]]:
    records = host.records()
    return [r for r in records if r.get("request", {}).get("route") == "plan.approve"]


def test_an_operator_sees_what_the_broker_knows_and_not_what_the_controller_says(
    host: Host,
) -> None:
    host.write("data.yaml", VOLUME)
    for name in NAMES:
        host.write(f"{name}.yaml", web(name))
    host.up()
    host.await_ready(*NAMES)
    eventually(lambda: host.is_ready("data"))
    started = ids(host)
    with usurped(host) as (usurper, rogue):
        nothing_reaches_a_terminal_raw(host, rogue, started)
        approve_prune_approves_no_volume(host, rogue, started)
        what_is_there_is_named(host, rogue, started)
        assert usurper.ask("DELETE", "/volumes/data", plan=PLAN).rule == "volume.approval"

        code, _ = on_a_terminal(host, "approve", answer="y\n")
        assert code == 0
        _, approval = approvals(host)
        summary = approval["request"]["summary"]
        assert sorted(summary["objects"]) == sorted([*started.values(), "volume:data"])
        assert len(summary["shown"]) == 64


def nothing_reaches_a_terminal_raw(host: Host, rogue: Rogue, started: dict[str, str]) -> None:
    rogue.going = [forged(started["s0"], HOSTILE), forged(HOSTILE, HOSTILE)]
    for columns in (200, 60):
        _, screen = on_a_terminal(host, "approve", answer="n\n", columns=columns)
        assert is_clean(screen), ascii(screen)


def is_clean(screen: str) -> bool:
    """Return True if only line ends and colours of the command itself control the terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.replace("\r\n", "\n"))
    lines = text.split("\n")
    is_forged = any(line.lstrip().startswith("root#") for line in lines)
    return all(line.isprintable() for line in lines) and not is_forged


def approve_prune_approves_no_volume(host: Host, rogue: Rogue, started: dict[str, str]) -> None:
    assert approvals(host) == []
    rogue.going = [forged(started["s0"], "gone"), forged("volume:data", "gone")]
    done = host.cli("apply", "--approve-prune", "--timeout", "20s")
    assert "a removal or move of data needs 'trimtab approve'" in done.stdout
    (approval,) = approvals(host)
    assert approval["request"]["summary"]["objects"] == [started["s0"]]


def what_is_there_is_named(host: Host, rogue: Rogue, started: dict[str, str]) -> None:
    claim = "its document is gone"
    rogue.going = [forged(started[name], claim) for name in NAMES]
    rogue.going += [forged("volume:data", claim), forged("ab" * 32, claim)]
    code, screen = on_a_terminal(host, "approve", answer="n\n")
    assert code != 0
    assert len(approvals(host)) == 1, "the answer was no"
    assert "old-canary" not in screen
    for name in NAMES:
        assert f"Service/default/{name}" in screen
    assert "\x1b[31mdata " in screen
    assert "3 containers and 1 volume with all data?" in screen
    unknown = screen.partition("These can't be approved:")[2]
    assert "ab" * 32 in unknown
