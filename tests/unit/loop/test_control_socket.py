"""The control socket: what may be asked, by whom, and what nonsense costs."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import replace
from typing import Any, get_args

import pytest

from controller.core.drift import failures
from controller.loop.control_socket import (
    ActRequest,
    PassRequest,
    act_request,
    answer,
    answer_with,
    pass_request,
)
from controller.model.container_output import FailedRun, LogLine
from controller.model.desired.desired import ServiceAct, Verb
from controller.model.errors import EngineUnavailable
from controller.model.names import Key, service_key
from controller.system.conversation import QUESTION_MAX, converse

OWN = 990
FAILED = FailedRun(
    key=service_key("default", "web"),
    slot=1,
    container="web.1-bbbbbbbb",
    id="c1",
    run="ended x",
    revision="v2:b",
    owner="team",
    at="2026-03-01T12:00:00Z",
    cause="exited with 1",
    exit_code=1,
    lines=(LogLine("2026-03-01T12:00:00.000000000Z", "stderr", "no password"),),
)


class Desk:
    """Answers, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.requests: list[PassRequest] = []
        self.awaited: list[tuple[int, float]] = []
        self.resources: list[dict[str, object]] = [
            {
                "kind": "Service",
                "namespace": "default",
                "name": "web",
                "revision": "v2:b",
                "conditions": [],
                "slots": [{"slot": 1}],
            }
        ]
        self.runs = (FAILED, replace(FAILED, key=service_key("default", "db"), owner="dba"))

    def status(self) -> dict[str, object]:
        return {"resources": self.resources, "problems": []}

    def published(self) -> int:
        return 7

    def await_published(self, number: int, *, timeout_s: float) -> None:
        """Return at once, with another status."""
        self.awaited.append((number, timeout_s))
        self.resources = []

    def plan(self) -> dict[str, object]:
        raise EngineUnavailable("broker.unavailable", "nobody there", remedy="wait")

    def review(self, *, version: str, directory: str) -> dict[str, object]:
        return {"asked": (version, directory)}

    def failed_runs(self, uid: int, *, owns_all: bool) -> tuple[FailedRun, ...]:
        return tuple(run for run in self.runs if owns_all or (uid, run.owner) == (4711, "team"))

    def progress(self, since: int) -> dict[str, object]:
        return {"acts": [], "last": since, "working": {}}

    def history(self, key: Key) -> dict[str, object]:
        return {
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "revisions": [{"revision": "v2:b", "outcome": "failed"}],
        }

    def state(self, key: Key) -> dict[str, object]:
        return {"saved": {}, "memory": {"failure": "its secret"}}

    def observe(self) -> dict[str, object]:
        return {"observed": True}

    def secret_contents(self) -> dict[str, object]:
        return {"contents": {"Secret/default/db": "hmac:1"}}

    def run_pass(self, request: PassRequest) -> dict[str, object]:
        self.requests.append(request)
        return {"converged": True, "status": self.status()}

    def act(self, request: ActRequest) -> dict[str, object]:
        return {"asked": str(request.act.key), "by": request.act.by, "only": request.only_ask}


def ask(question: dict[str, object], uid: int = 0, desk: Desk | None = None) -> dict[str, Any]:
    return answer(question, peer_uid=uid, own_uid=OWN, backend=desk or Desk())


def code(reply: dict[str, Any]) -> str:
    return str(reply["error"]["code"])


def test_the_state_is_for_root_and_the_controller_itself() -> None:
    question: dict[str, object] = {"do": "state", "key": "Service/default/web"}
    assert ask(question) == ask(question, uid=OWN) == Desk().state(service_key("default", "web"))
    assert code(ask(question, uid=4711)) == "control.denied"


def test_the_contents_of_secrets_are_for_root_and_the_controller_itself() -> None:
    assert ask({"do": "secrets"}) == ask({"do": "secrets"}, uid=OWN) == Desk().secret_contents()
    assert code(ask({"do": "secrets"}, uid=4711)) == "control.denied"


def test_a_look_at_everything_is_for_root_and_the_controller_itself() -> None:
    assert ask({"do": "observe"}) == ask({"do": "observe"}, uid=OWN) == Desk().observe()
    assert code(ask({"do": "observe"}, uid=4711)) == "control.denied"


def test_whoever_can_connect_may_look() -> None:
    assert ask({"do": "status"}, uid=4711) == Desk().status()
    assert ask({"do": "ping"}, uid=4711) == {"pong": True}
    history = Desk().history(service_key("default", "web"))
    assert ask({"do": "history", "key": "Service/default/web"}, uid=4711) == history


@pytest.mark.parametrize(
    ("uid", "names"),
    [(0, ["web", "db"]), (OWN, ["web", "db"]), (4711, ["web"]), (4712, [])],
)
def test_output_is_for_root_the_own_user_and_whoever_may_read_the_logs(
    uid: int, names: list[str]
) -> None:
    kept = [failures.FORM.from_json(each) for each in ask({"do": "failures"}, uid)["runs"]]
    assert [run.key.name for run in kept] == names
    assert all(run.lines == FAILED.lines for run in kept)


def test_a_report_that_the_asker_has_is_not_sent_again() -> None:
    first = ask({"do": "status", "unless": ""})
    version = first.pop("version")
    assert first == Desk().status()
    assert ask({"do": "status", "unless": version}) == {"unchanged": True}
    with_output = ask({"do": "status", "unless": version, "output": True})
    assert "no password" in json.dumps(with_output)
    assert with_output["version"] != version


@pytest.mark.parametrize(("uid", "waits"), [(0, True), (OWN, True), (4711, False)])
def test_a_trusted_asker_waits_for_a_changed_report(uid: int, waits: bool) -> None:
    desk = Desk()
    first = ask({"do": "status", "unless": "", "wait_s": 30}, uid, desk)
    assert desk.awaited == []
    later = ask({"do": "status", "unless": first["version"], "wait_s": 30}, uid, desk)
    assert desk.awaited == [(7, 30.0)] * waits
    assert later.get("resources") == ([] if waits else None)
    assert later.get("unchanged") == (None if waits else True)


@pytest.mark.parametrize("wait_s", [-1, 61, True, "1"])
def test_a_wait_is_bounded(wait_s: object) -> None:
    assert code(ask({"do": "status", "unless": "", "wait_s": wait_s})) == "control.malformed"


def test_output_is_only_given_to_those_who_ask_for_it() -> None:
    told = json.dumps([ask({"do": "status"}), ask({"do": "history", "key": str(FAILED.key)})])
    assert "no password" not in told
    told = json.dumps(ask({"do": "status", "output": True}))
    assert "no password" in told


def test_a_pass_ends_with_the_output_of_what_failed_for_those_who_ask_for_it() -> None:
    assert "no password" not in json.dumps(ask({"do": "pass"}))
    assert "no password" in json.dumps(ask({"do": "pass", "output": True}))
    assert "no password" in json.dumps(
        ask({"do": "history", "key": str(FAILED.key), "output": True})
    )


@pytest.mark.parametrize(("uid", "may"), [(0, True), (OWN, True), (4711, False)])
def test_only_root_and_the_controllers_own_user_may_act(uid: int, may: bool) -> None:
    reply = ask({"do": "pass"}, uid=uid)
    assert reply == (
        {"converged": True, "status": Desk().status()}
        if may
        else {
            "error": {
                "code": "control.denied",
                "message": "uid 4711 is allowed to look, not to act",
                "remedy": "run the command as root",
            }
        }
    )


@pytest.mark.parametrize("verb", get_args(Verb))
def test_only_they_may_act_on_a_service(verb: str) -> None:
    question = {"do": verb, "key": "Service/default/web", "only_ask": True}
    assert ask(question, uid=OWN) == {
        "asked": "Service/default/web",
        "by": f"uid:{OWN}",
        "only": True,
    }
    assert code(ask(question, uid=4711)) == "control.denied"


def test_what_is_wanted_of_a_service_is_read_without_what_terminals_obey() -> None:
    question = {
        "key": "Service/lab/web",
        "to": "3f2a91bc",
        "note": "late\x1b[2J again",
        "on_behalf_of": "alice\n",
        "timeout_s": 3,
    }
    asked = act_request("rollback", question, peer_uid=0)
    web = service_key("lab", "web")
    wanted = ServiceAct("rollback", web, "uid:0 alice", to="3f2a91bc", reason="late[2J again")
    assert asked == ActRequest(wanted, only_ask=False, timeout_s=3.0)


def test_whoever_can_connect_may_ask_for_a_review() -> None:
    members = {"directory": "/desired", "version": "1"}
    assert ask({"do": "review", **members}, uid=4711) == {"asked": ("1", "/desired")}


def test_an_error_is_an_answer() -> None:
    assert ask({"do": "plan"}) == {
        "error": {"code": "broker.unavailable", "message": "nobody there", "remedy": "wait"}
    }


@pytest.mark.parametrize(
    "question",
    [
        {"do": "fly"},
        {},
        {"do": "review", "directory": 1, "version": "1"},
        {"do": "review", "directory": "/", "version": 1},
        {"do": "pass", "timeout_s": 0},
        {"do": "pass", "timeout_s": True},
        {"do": "pass", "timeout_s": 1e9},
        {"do": "pass", "timeout_s": "5"},
        {"do": "pass", "approve_prune": "yes"},
        {"do": "pass", "key": "web"},
        {"do": "pass", "plan": 3},
        {"do": "pass", "on_behalf_of": ["root"]},
        {"do": "history"},
        {"do": "history", "key": "web"},
        {"do": "suspend"},
        {"do": "suspend", "key": "Service/default/web", "only_ask": 1},
        {"do": "suspend", "key": "Service/default/web", "timeout_s": -1},
        {"do": "rollback", "key": "Service/default/web", "to": 7},
        {"do": "rollback", "key": "Service/default/web", "note": "x" * 513},
    ],
)
def test_what_makes_no_sense_is_refused(question: dict[str, object]) -> None:
    assert code(ask(question)) in {"control.unknown", "control.malformed"}


def test_who_asks_is_told_by_the_kernel_and_a_claim_only_adds_to_it() -> None:
    asked = pass_request({"on_behalf_of": "uid:0 alice"}, peer_uid=0)
    assert asked == PassRequest(60.0, approve_prune=False, on_behalf_of="uid:0 alice", key=None)
    forged = pass_request({"on_behalf_of": "uid:0", "key": "Service/default/web"}, peer_uid=OWN)
    assert forged.on_behalf_of == f"uid:{OWN} uid:0"
    assert forged.key == service_key("default", "web")


def converse_with(sent: bytes, *, hang_up: bool = False) -> bytes:
    """Send bytes through a real socket and return all that comes back."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.settimeout(10)

        def serve() -> None:
            converse(theirs, answer_with(Desk(), own_uid=os.getuid()))
            theirs.shutdown(socket.SHUT_RDWR)

        server = threading.Thread(target=serve)
        server.start()
        try:
            ours.sendall(sent)
            if hang_up:
                ours.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # it had enough
        received = b""
        try:
            while chunk := ours.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass  # likewise
        server.join(timeout=10)
        return received


def test_one_line_in_one_line_out() -> None:
    reply = converse_with(b'{"do": "pass"}\nrest that nobody reads')
    assert reply.endswith(b"\n")
    assert json.loads(reply) == {"converged": True, "status": Desk().status()}


@pytest.mark.parametrize(
    "sent", [b"\n", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"\xff\n", b"[" * 60_000 + b"\n"]
)
def test_nonsense_is_answered_as_such(sent: bytes) -> None:
    assert code(json.loads(converse_with(sent))) == "control.malformed"


def test_a_question_without_an_end_is_cut_off() -> None:
    assert code(json.loads(converse_with(b"x" * (QUESTION_MAX + 8192)))) == "control.malformed"


def test_a_peer_that_hangs_up_gets_nothing() -> None:
    assert converse_with(b'{"do": "pass"}', hang_up=True) == b""


def test_whoever_can_connect_may_see_what_is_done() -> None:
    assert ask({"do": "progress", "since": 7}, uid=1000)["last"] == 7
    assert ask({"do": "progress"}, uid=1000)["last"] == 0
    for wrong in (True, "7", None):
        assert code(ask({"do": "progress", "since": wrong})) == "control.malformed"
