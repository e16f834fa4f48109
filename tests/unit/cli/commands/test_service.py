"""Acting on services by command: what is asked of whom, in which order, and what is told of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.cli.commands import service
from controller.cli.commands.service import describe_progress, render_history
from controller.cli.main import main
from controller.loop.state.store import StateStore
from controller.settings import Instance, StateFolder, write_instance
from tests.unit.core.service.test_overrides import course, written
from tests.worlds import WEB

WEB_KEY = "Service/default/web"
REVISION = "v2:" + "b" * 64
Said = list[tuple[str, Any]]


def condition(kind: str, message: str = "", status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "message": message}


def resource(*conditions: dict[str, str], name: str = "web", namespace: str = "default"):
    return {
        "kind": "Service",
        "namespace": namespace,
        "name": name,
        "ready": 1,
        "desired": 2,
        "conditions": list(conditions),
    }


READY = resource(condition("Ready"))
GOING = resource(condition("Progressing", "start-container web.1-bbbbbbbb: why"))
PLANNED = {"changed": True, "text": "goes back", "revision": REVISION, "anew": False, "quiet": True}


class Both:
    """Controller and broker behind their sockets; what each was asked, in order."""

    def __init__(
        self, state: StateFolder, planned: dict[str, Any], *states: dict[str, Any]
    ) -> None:
        self.said: Said = []
        self.planned = planned
        self.states = list(states)
        self.others: list[dict[str, Any]] = []
        self.denied: tuple[int, dict[str, Any]] | None = None
        #: The errors of questions, by the key.
        self.impossible: dict[str, dict[str, Any]] = {}
        self._doors = [
            self._serve(state.controller_socket, self._control),
            self._serve(state.broker_socket, self._record),
        ]

    def _serve(self, path: Path, answer: Callable[[socket.socket], None]) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    answer(peer)

        threading.Thread(target=accept, daemon=True).start()
        return listener

    def _control(self, peer: socket.socket) -> None:
        question = json.loads(peer.makefile("rb").readline())
        if question["do"] == "status":
            now = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            resources = [*([now] if now else []), *self.others]
            told: dict[str, Any] = {"resources": resources, "problems": []}
        else:
            self.said.append(("controller", question))
            told = self.impossible.get(question.get("key", ""), self.planned)
        peer.sendall(json.dumps(told).encode() + b"\n")

    def _record(self, peer: socket.socket) -> None:
        file = peer.makefile("rb")
        length = 0
        while (line := file.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self.said.append(("broker", json.loads(file.read(length))))
        status, body = self.denied or (200, {"id": "record-1"})
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n\r\n"
        peer.sendall(head.encode() + data)

    def close(self) -> None:
        for door in self._doors:
            door.shutdown(socket.SHUT_RDWR)
            door.close()


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    root = tmp_path / "state"
    layout = StateFolder(root, root / "run")
    for folder in (root, layout.run, layout.controller):
        folder.mkdir()
    instance = Instance(id="1" * 16, dir="/d", run=str(layout.run))
    write_instance(root, instance)
    return layout


@contextmanager
def serving(state: StateFolder, *states: dict[str, Any], **planned: object) -> Iterator[Both]:
    both = Both(state, {**PLANNED, **planned}, *(states or (READY,)))
    try:
        yield both
    finally:
        both.close()


def run(state: StateFolder, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--state", str(state.root)])
    return int(ended.value.code or 0)


def test_it_is_asked_then_recorded_then_done_and_awaited(
    state: StateFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setenv("SUDO_USER", "alice")
    with serving(state, READY, GOING, GOING, READY) as both:
        assert run(state, "rollback", "web", "--to", "bbbb", "--note", "late") == 0
    asked = {
        "do": "rollback",
        "key": WEB_KEY,
        "to": "bbbb",
        "note": "late",
        "on_behalf_of": "alice",
        "timeout_s": 300.0,
    }
    record = {"act": "service.rollback", "object": WEB_KEY, "note": "late", "revision": REVISION}
    assert both.said == [
        ("controller", {**asked, "only_ask": True}),
        ("broker", record),
        ("controller", {**asked, "to": REVISION}),
    ]
    assert capsys.readouterr().out.splitlines() == [
        f"{WEB_KEY}: goes back",
        f"{WEB_KEY}: 1 of 2 ready; start-container web.1-bbbbbbbb: why",
        f"{WEB_KEY}: 1 of 2 ready",
    ]


def test_without_a_record_nothing_is_done(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for status, code in ((403, 4), (503, 1)):
        with serving(state) as both:
            told = {"rule": "some.rule", "reason": "no", "remedy": "ask somebody"}
            both.denied = (status, {"message": "no", "trimtab": told})
            assert run(state, "suspend", "web") == code
        assert [who for who, _ in both.said] == ["controller", "broker"]
        assert both.said[0][1]["only_ask"] is True
        assert "some.rule" in capsys.readouterr().err
        for path in (state.controller_socket, state.broker_socket):
            path.unlink()


def test_what_is_so_already_is_neither_recorded_nor_done(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(state, changed=False, text="neither suspended nor pinned") as both:
        assert run(state, "resume", "web") == 0
    assert [who for who, _ in both.said] == ["controller"]
    assert capsys.readouterr().out == f"{WEB_KEY}: neither suspended nor pinned; nothing to do\n"


def test_a_restart_is_recorded_with_whether_its_image_is_looked_up_anew(state: StateFolder) -> None:
    with serving(state, anew=True) as both:
        assert run(state, "restart", "web", "--no-wait") == 0
    record = {"act": "service.restart", "object": WEB_KEY, "note": "", "revision": REVISION}
    assert both.said[1] == ("broker", {**record, "anew": True})


@pytest.mark.parametrize(("quiet", "code"), [(True, 0), (False, 5)])
def test_a_suspension_is_done_when_nothing_goes_on(
    state: StateFolder, quiet: bool, code: int
) -> None:
    with serving(state, quiet=quiet, revision=""):
        assert run(state, "suspend", "web") == code


def test_time_that_is_up_is_told_by_the_exit_code(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(state, GOING):
        assert run(state, "restart", "web", "--timeout", "10ms") == 5
    assert "not done within the timeout" in capsys.readouterr().err


def test_programs_are_told_all_in_one_object(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(state):
        assert run(state, "restart", "web", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "object": WEB_KEY,
        "act": "restart",
        **PLANNED,
        "record": "record-1",
        "done": True,
        "resource": READY,
    }


@pytest.mark.parametrize(
    ("name", "code"), [("api", "service.unknown"), ("web/api/x/y", "service.unknown")]
)
def test_a_name_that_means_nothing_is_told(
    state: StateFolder, capsys: pytest.CaptureFixture[str], name: str, code: str
) -> None:
    with serving(state):
        assert run(state, "suspend", name) == 1
    assert code in capsys.readouterr().err


def test_a_name_that_means_several_services_is_not_guessed(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(state) as both:
        both.others = [resource(namespace="shop")]
        assert run(state, "suspend", "web") == 1
        assert run(state, "suspend", "default/web") == 0
    assert "web means Service/default/web, Service/shop/web" in capsys.readouterr().err


def test_nothing_running_is_said_plainly(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(state, "restart", "web") == 1
    assert "nothing runs behind" in capsys.readouterr().err
    assert run(state, "history", "web") == 1
    assert "state.unreadable" in capsys.readouterr().err


def test_the_history_is_told_from_the_memory_where_nothing_runs(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    blue, green = written("env: {C: blue}"), written("env: {C: green}")
    memory = StateStore(state.controller / "state.json")
    memory.of(WEB).overrides = course(blue, green, pinned=blue)
    memory.save()
    assert run(state, "history", "web") == 0
    told = capsys.readouterr()
    assert "this is what was known last" in told.err
    lines = [line.split("   ") for line in told.out.splitlines()]
    assert [line[0] for line in lines[:3]] == [
        "REVISION",
        green.revision[3:11],
        blue.revision[3:11],
    ]
    assert [lines[1][-1], lines[2][-1]] == ["declared", "current, pinned"]
    assert run(state, "history", "api") == 1
    assert "no history is saved of a service api" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "line", "code"),
    [
        ({}, "gone: nothing declares it", 0),
        (READY, "1 of 2 ready", 0),
        (resource(), "1 of 2 ready", None),
        (GOING, "1 of 2 ready; start-container web.1-bbbbbbbb: why", None),
        (
            resource(condition("Ready"), condition("Progressing", "more")),
            "1 of 2 ready; more",
            None,
        ),
        (resource(condition("Stalled", "no image")), "1 of 2 ready; no image", 5),
        (resource(condition("Stalled", "no"), condition("PolicyViolation")), "1 of 2 ready; no", 4),
        (resource(condition("Ready"), condition("PolicyViolation")), "1 of 2 ready", 0),
        (resource(condition("PrunePending", "3 go")), "1 of 2 ready; 3 go", 5),
        (resource(condition("Ready"), condition("Suspended", "by file")), "by file", 5),
        (resource(condition("Ready", status="Unknown")), "1 of 2 ready", None),
    ],
)
def test_how_far_a_service_is(there: dict[str, Any], line: str, code: int | None) -> None:
    assert describe_progress(there) == (line, code)


def test_words_of_an_image_play_no_tricks_on_a_terminal(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    # An engine repeats what an image's configuration says: "unable to find user ...".
    hostile = "its image has no user \x1b]0;owned\x07"
    with serving(state, resource(condition("Stalled", hostile)), text=hostile):
        assert run(state, "restart", "web") == 5
    told = capsys.readouterr().out
    assert (told.count("\\u001b]0;owned\\u0007"), "\x1b" in told) == (2, False)
    pin = {"by": "uid:0", "since": "now", "reason": hostile}
    history: dict[str, Any] = {"revisions": [], "suspended": None, "pin": pin, "restarting": None}
    assert "\x1b" not in render_history(history, width=None)


def test_a_history_tells_below_what_people_want() -> None:
    told = {
        "revisions": [],
        "suspended": {"by": "uid:0", "since": "then"},
        "pin": {"by": "uid:3999999999", "since": "now", "reason": "late"},
        "restarting": {"by": "uid:0", "containers": 2},
    }
    assert render_history(told, width=None).splitlines()[1:] == [
        "suspended by root since then",
        "rolled back by uid:3999999999 since now: late",
        "restart of 2 containers asked by root",
    ]


def test_a_history_fits_80_columns() -> None:
    revision = {
        "revision": "v2:2bdaa731c0ffee",
        "generation": 12,
        "since": "2026-03-01T12:00:00Z",
        "image": "registry.example.com/platform/services/web:1.4",
        "file": "shop/frontend/web.yaml",
        "line": 12,
        "current": True,
        "pinned": False,
        "declared": True,
        "outcome": "failed",
        "reason": "slot 1 keeps failing: it exited with 1",
    }
    told = {"revisions": [revision], "suspended": None, "pin": None, "restarting": None}
    shown = render_history(told, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…/web:1.4" in shown
    assert "failed: slot 1 keeps failing: it exited with 1" in " ".join(shown.split())


def shop(name: str, since: str = "", *conditions: dict[str, str]) -> dict[str, Any]:
    made = resource(*(conditions or (condition("Ready"),)), name=name, namespace="shop")
    return {**made, **({"revisionSince": since} if since else {})}


def keys_asked(both: Both) -> list[str]:
    """Return the keys of what was done, without the questions before."""
    return [
        said["key"] for who, said in both.said if who == "controller" and "only_ask" not in said
    ]


def test_several_services_and_a_whole_project_are_acted_on(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(state) as both:
        both.others = [shop("api"), shop("db"), {**shop("net"), "kind": "Network"}]
        assert run(state, "suspend", "web", "db") == 0
        assert keys_asked(both) == [WEB_KEY, "Service/shop/db"]
        both.said.clear()
        assert run(state, "suspend", "--project", "shop", "--json") == 0
        assert keys_asked(both) == ["Service/shop/api", "Service/shop/db"]
        both.said.clear()
        assert run(state, "restart", "api", "-n", "shop") == 0
        assert keys_asked(both) == ["Service/shop/api"]
    (report,) = [json.loads(x) for x in capsys.readouterr().out.splitlines() if x[0] == "{"]
    assert [each["object"] for each in report["services"]] == [
        "Service/shop/api",
        "Service/shop/db",
    ]
    assert all(each["done"] for each in report["services"])


def test_nothing_is_done_before_all_named_services_can_be_acted_on(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"code": "service.suspended", "message": "api is suspended", "remedy": "resume it"}
    with serving(state) as both:
        both.others = [shop("api"), shop("db")]
        both.impossible = {"Service/shop/api": {"error": told}}
        assert run(state, "restart", "db", "api") == 1
        assert keys_asked(both) == []
        assert "service.suspended" in capsys.readouterr().err
        # Of a project, the others go on.
        assert run(state, "restart", "-n", "shop") == 0
        assert keys_asked(both) == ["Service/shop/db"]
        assert "Service/shop/api: stays as it is: api is suspended" in capsys.readouterr().err
        both.impossible["Service/shop/db"] = {"error": told}
        assert run(state, "restart", "-n", "shop") == 1


def test_a_project_goes_back_by_its_last_change(state: StateFolder) -> None:
    with serving(state) as both:
        both.others = [shop("api", "2026-02"), shop("db", "2026-01"), shop("worker", "2026-02")]
        assert run(state, "rollback", "-n", "shop") == 0
        assert keys_asked(both) == ["Service/shop/api", "Service/shop/worker"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("suspend", "-n", "shpo"), 1, "did you mean shop? "),
        (("suspend",), 64, "name a service, or a project with -n NAMESPACE"),
        (("rollback", "-n", "shop", "--to", "abc"), 64, "--to is of one service"),
        (("suspend", "web", "-n", "shop"), 1, "there is no service web"),
    ],
)
def test_a_choice_of_nothing_is_told(
    state: StateFolder,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    text: str,
) -> None:
    with serving(state) as both:
        both.others = [shop("api")]
        assert run(state, *arguments) == code
        assert both.said == []
    assert text in capsys.readouterr().err


def test_a_scaling_is_recorded_with_its_number_and_its_time(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(state, READY) as both:
        assert run(state, "scale", "web=0", "--for", "2h") == 0
    (_, asked), (_, record), (_, done) = both.said
    assert (asked["do"], asked["replicas"], asked["for_s"]) == ("scale", 0, 7200)
    assert record == {
        "act": "service.scale",
        "object": WEB_KEY,
        "note": "",
        "revision": REVISION,
        "replicas": 0,
        "seconds": 7200,
    }
    assert {**asked, "only_ask": False} == {**done, "only_ask": False}
    for wrong in ("web", "web=", "=3", "web=-1", "web=1000", "web=١"):
        assert run(state, "scale", wrong) == 64
        assert "isn't NAME=N, with N from 0 to 999" in capsys.readouterr().err
