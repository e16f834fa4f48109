"""The control socket: what may be asked, by whom, and what nonsense costs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from controller import __version__
from controller.core.drift import failures
from controller.core.drift.failures import Readers
from controller.loop.control_api import ControlApi
from controller.loop.control_socket import ActRequest, PassRequest, read_request
from controller.loop.passes import PassPolicy
from controller.loop.state.failed_runs import FailureLog
from controller.loop.workqueue import PassLock
from controller.model.container_output import FailedRun, LogLine
from controller.model.desired.desired import Verb
from controller.model.errors import EngineUnavailable
from controller.model.names import service_key
from controller.model.observed import ContainerUse
from controller.model.records import ViewerScope
from controller.system.conversation import QUESTION_MAX, converse
from tests.unit.loop.toy import House
from tests.worlds import container, engine, service

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


RUNS = (FAILED, replace(FAILED, key=service_key("default", "db"), owner="dba"))
HISTORY = {"do": "history", "key": str(FAILED.key)}


class Desk(House):
    """A controller with failed runs of two services. User 4711 is allowed to read one team's logs.

    User 1100 is a viewer of the team, and 1101 of everybody.
    """

    def rules(self) -> PassPolicy:
        viewers = {1100: ViewerScope(frozenset({"team"})), 1101: ViewerScope(None)}
        return replace(super().rules(), readers=Readers(owners={4711: "team"}, viewers=viewers))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    file = tmp_path / "failures.json"
    runs = [failures.FORM.to_json(run) for run in RUNS]
    file.write_text(json.dumps({"version": 1, "runs": runs}))
    made = Desk(tmp_path)
    made.failure_log = FailureLog(made.watch, file=file)
    made.failure_log.load()
    made.restart()
    made.engine.world = engine(container(), container("db"))
    made.declare(service(), service("db"))
    made.let_pass(120)
    return made


def api_of(desk: Desk) -> ControlApi:
    stopped = threading.Event()
    stopped.set()  # a pass then waits for nothing
    trusted = frozenset({0, OWN})
    return ControlApi(desk.controller, PassLock(), stopped, directory="/desired", trusted=trusted)


def ask(desk: Desk, question: Mapping[str, object], uid: int = 0) -> dict[str, Any]:
    reply = api_of(desk).answer(question, uid)
    answer: dict[str, Any] = json.loads(reply if isinstance(reply, bytes) else json.dumps(reply))
    return answer


def code(reply: dict[str, Any]) -> str:
    return str(reply["error"]["code"])


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"do": "state", "key": "Service/default/web"}, {"saved", "memory"}),
        ({"do": "secrets"}, {"contents"}),
        ({"do": "observe"}, set()),
        (
            {"do": "pass"},
            {"converged", "stuck", "seconds", "unmet", "summary", "acts", "status"},
        ),
    ],
)
def test_only_root_and_the_controllers_own_user_may_act_and_see_the_inside(
    desk: Desk, question: dict[str, object], answer: set[str]
) -> None:
    assert ask(desk, question).keys() == ask(desk, question, uid=OWN).keys() == answer
    assert ask(desk, question, uid=4711) == {
        "error": {
            "code": "control.denied",
            "message": "uid 4711 is allowed to look, not to act",
            "remedy": "run the command as root",
        }
    }


def test_whoever_can_connect_may_look(desk: Desk) -> None:
    assert ask(desk, {"do": "status"}, uid=4711) == desk.controller.status()
    assert ask(desk, {"do": "ping"}, uid=4711) == {"pong": True}
    assert ask(desk, HISTORY, uid=4711) == desk.operator.history(FAILED.key)


@pytest.mark.parametrize(
    ("uid", "names"),
    [(0, ["web", "db"]), (OWN, ["web", "db"]), (4711, ["web"]), (4712, [])],
)
def test_output_is_for_root_the_own_user_and_whoever_may_read_the_logs(
    desk: Desk, uid: int, names: list[str]
) -> None:
    kept = [failures.FORM.from_json(each) for each in ask(desk, {"do": "failures"}, uid)["runs"]]
    assert [run.key.name for run in kept] == names
    assert all(run.lines == FAILED.lines for run in kept)


def test_a_report_that_the_asker_has_is_not_sent_again(desk: Desk) -> None:
    first = ask(desk, {"do": "status", "unless": ""})
    version = first.pop("version")
    assert first == desk.controller.status()
    assert ask(desk, {"do": "status", "unless": version}) == {"unchanged": True}
    with_output = ask(desk, {"do": "status", "unless": version, "output": True})
    assert "no password" in json.dumps(with_output)
    assert with_output["version"] != version


@pytest.mark.parametrize(("uid", "waits"), [(0, True), (OWN, True), (4711, False)])
def test_a_trusted_asker_waits_for_a_changed_report(desk: Desk, uid: int, waits: bool) -> None:
    desk.controller.publish()
    version = ask(desk, {"do": "status", "unless": "", "wait_s": 30}, uid)["version"]
    question: dict[str, object] = {"do": "status", "unless": version, "wait_s": 30}
    if not waits:
        assert ask(desk, question, uid) == {"unchanged": True}
        return
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(ask, desk, question, uid)
        desk.declare(service(), service("db", rev="c"))
        desk.settle()
        desk.controller.publish()
        reply = later.result(timeout=60)
    assert reply["version"] != version


@pytest.mark.parametrize("wait_s", [-1, 61, True, "1"])
def test_a_wait_is_bounded(desk: Desk, wait_s: object) -> None:
    question = {"do": "status", "unless": "", "wait_s": wait_s}
    assert code(ask(desk, question)) == "control.malformed"


def test_the_use_of_containers_is_for_whoever_can_connect(desk: Desk) -> None:
    assert ask(desk, {"do": "samples", "key": str(FAILED.key)}, uid=4711) == {"samples": []}
    desk.read_use = lambda ids: {each: ContainerUse(1.0, 1 << 20) for each in ids}
    desk.restart()
    desk.engine.world = engine(container())
    desk.declare(service())
    desk.let_pass(120)
    looks = desk.engine.looks
    (row,) = ask(desk, {"do": "stats"}, uid=4711)["containers"]
    assert (row["key"], row["memoryBytes"], row["cpus"]) == (str(FAILED.key), 1 << 20, None)
    samples = ask(desk, {"do": "samples", "key": str(FAILED.key)}, uid=4711)
    assert samples == {"samples": [[desk.watch.now(), None, 1 << 20]]}
    assert desk.engine.looks == looks, "no look at the engine"


def test_output_is_only_given_to_those_who_ask_for_it(desk: Desk) -> None:
    for question in ({"do": "status"}, {"do": "pass"}):
        assert "no password" not in json.dumps(ask(desk, question))
        assert "no password" in json.dumps(ask(desk, {**question, "output": True}))


@pytest.mark.parametrize("verb", get_args(Verb))
def test_only_they_may_act_on_a_service(desk: Desk, verb: str) -> None:
    question = {"do": verb, "key": "Service/default/web", "only_ask": True, "replicas": 1}
    # A service that was never rolled out before has nothing to go back to.
    answer = ask(desk, question, uid=OWN)
    assert answer["error"]["code"] != "control.denied" if verb == "rollback" else answer["quiet"]
    assert code(ask(desk, question, uid=4711)) == "control.denied"


def test_the_kernel_names_who_acts_and_a_claim_only_adds_to_it(desk: Desk) -> None:
    question = {"do": "suspend", "key": "Service/default/web", "on_behalf_of": "uid:0"}
    assert ask(desk, question, uid=OWN)["changed"]
    suspension = desk.store.of(FAILED.key).overrides.suspension
    assert suspension is not None
    assert suspension.by == f"uid:{OWN} uid:0"


def test_what_is_wanted_of_a_service_is_read_without_what_terminals_obey() -> None:
    question = {
        "do": "rollback",
        "key": "Service/lab/web",
        "to": "3f2a91bc",
        "note": "late\x1b[2J again",
        "on_behalf_of": "alice\n",
        "timeout_s": 3,
    }
    web = service_key("lab", "web")
    wanted = ActRequest("rollback", web, "3f2a91bc", "late[2J again", "alice", timeout_s=3.0)
    assert read_request(question) == wanted


def test_members_that_are_missing_or_unknown_are_those_of_an_ordinary_pass() -> None:
    assert read_request({"do": "pass", "key": None, "colour": "red"}) == PassRequest()


def test_whoever_can_connect_may_ask_for_a_review(desk: Desk) -> None:
    members = {"directory": "/desired", "version": __version__}
    assert "plan" in ask(desk, {"do": "review", **members}, uid=4711)


def test_an_error_is_an_answer(desk: Desk) -> None:
    desk.engine.away = EngineUnavailable("broker.unavailable", "nobody there", remedy="wait")
    assert ask(desk, {"do": "plan"}) == {
        "error": {"code": "broker.unavailable", "message": "nobody there", "remedy": "wait"}
    }


@pytest.mark.parametrize(
    "question",
    [
        {"do": "fly"},
        {"do": ["pass"]},
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
        {"do": "scale", "key": "Service/default/web"},
        {"do": "scale", "key": "Service/default/web", "replicas": 1000},
        {"do": "scale", "key": "Service/default/web", "replicas": True},
        {"do": "scale", "key": "Service/default/web", "replicas": 1, "for_s": 0},
        {"do": "rollback", "key": "Service/default/web", "note": "x" * 513},
    ],
)
def test_what_makes_no_sense_is_refused(desk: Desk, question: dict[str, object]) -> None:
    assert code(ask(desk, question)) in {"control.unknown", "control.malformed"}


def converse_with(desk: Desk, sent: bytes, *, hang_up: bool = False) -> bytes:
    """Send bytes through a real socket and return all that comes back."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.settimeout(10)

        def serve() -> None:
            converse(theirs, api_of(desk).answer)
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


def test_one_line_in_one_line_out(desk: Desk) -> None:
    reply = converse_with(desk, b'{"do": "ping"}\nrest that nobody reads')
    assert reply == b'{"pong": true}\n'


@pytest.mark.parametrize(
    "sent", [b"\n", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"\xff\n", b"[" * 60_000 + b"\n"]
)
def test_nonsense_is_answered_as_such(desk: Desk, sent: bytes) -> None:
    assert code(json.loads(converse_with(desk, sent))) == "control.malformed"


def test_a_question_without_an_end_is_cut_off(desk: Desk) -> None:
    assert (
        code(json.loads(converse_with(desk, b"x" * (QUESTION_MAX + 8192)))) == "control.malformed"
    )


def test_a_peer_that_hangs_up_gets_nothing(desk: Desk) -> None:
    assert converse_with(desk, b'{"do": "pass"}', hang_up=True) == b""


def test_whoever_can_connect_may_see_what_is_done(desk: Desk) -> None:
    for question in ({"do": "progress", "since": 7}, {"do": "progress"}):
        assert ask(desk, question, uid=1000).keys() == {"acts", "last", "working"}
    for wrong in (True, "7", None):
        assert code(ask(desk, {"do": "progress", "since": wrong})) == "control.malformed"


def test_a_reader_of_the_view_gets_everything_and_then_what_changed(desk: Desk) -> None:
    desk.controller.publish()
    whole = ask(desk, {"do": "view", "have": ""}, uid=4711)
    assert (whole["full"], [row["name"] for row in whole["resources"]]) == (True, ["db", "web"])
    assert whole["host"]["engine"] == "26.1.5"
    same = ask(desk, {"do": "view", "have": whole["version"]}, uid=4711)
    assert (same["full"], same["version"], same["resources"]) == (False, whole["version"], [])


def ask_as_viewer(desk: Desk, question: Mapping[str, object], uid: int = 1100) -> dict[str, Any]:
    reply = api_of(desk).answer_viewer(question, uid)
    return json.loads(reply) if isinstance(reply, bytes) else reply


@pytest.mark.parametrize(
    "question",
    [
        *({"do": do} for do in ("status", "plan", "failures", "secrets", "observe", "review")),
        *({"do": do} for do in ("pass", "progress")),
        *({"do": do, "key": str(FAILED.key)} for do in ("history", "state", *get_args(Verb))),
    ],
    ids=lambda question: str(question["do"]),
)
def test_a_viewer_asks_for_nothing_but_the_view_and_metrics(
    desk: Desk, question: dict[str, object]
) -> None:
    desk.controller.publish()
    looks, version = desk.engine.looks, desk.controller.shared.version
    for uid in (1100, 1101):
        assert code(ask_as_viewer(desk, question, uid)) == "viewer.denied"
        assert ask_as_viewer(desk, {"do": "view"}, uid)["full"]
    assert (desk.engine.looks, desk.controller.shared.version) == (looks, version)
    assert desk.controller.keys.idle


def test_a_viewer_reads_the_rows_of_its_owners_and_waits_for_their_next_version(desk: Desk) -> None:
    desk.declare(service(), service("db", owner="dba"))
    desk.let_pass(120)
    desk.controller.publish()
    own = ask_as_viewer(desk, {"do": "view"})
    whole = ask_as_viewer(desk, {"do": "view"}, uid=1101)
    assert [row["name"] for row in own["resources"]] == ["web"]
    assert [row["name"] for row in whole["resources"]] == ["db", "web"]
    assert "default/db" not in json.dumps(own)
    with ThreadPoolExecutor(1) as pool:
        waits = {"do": "view", "have": own["version"], "wait_s": 30}
        waiting = pool.submit(ask_as_viewer, desk, waits)
        desk.declare(service(replicas=2), service("db", owner="dba"))
        desk.let_pass(120)
        desk.controller.publish()
        lacks = waiting.result(60)
    assert (lacks["full"], [row["name"] for row in lacks["resources"]]) == (False, ["web"])


def test_metrics_are_for_viewers_of_all_owners(desk: Desk) -> None:
    desk.controller.publish()
    assert "trimtab_resource_ready" in ask_as_viewer(desk, {"do": "metrics"}, 1101)["text"]
    assert code(ask_as_viewer(desk, {"do": "metrics"})) == "viewer.metrics"


def test_a_viewers_metrics_are_of_the_last_status_and_make_none(desk: Desk) -> None:
    desk.controller.publish()
    reporter = desk.controller.reporter
    last = reporter.last()
    desk.declare(service(), service("further"))
    desk.controller.reload()
    assert "further" not in ask_as_viewer(desk, {"do": "metrics"}, 1101)["text"]
    assert reporter.last() is last
    assert "further" in ask(desk, {"do": "metrics"})["text"], "an operator's makes a status"


class TakenSoon(dict[int, ViewerScope]):
    """Viewers of a policy that is replaced while the first question is answered."""

    def get(self, uid: int, default: object = None) -> Any:
        return self.pop(uid, default)


def test_a_viewer_whose_right_ends_while_it_waits_reads_nothing(desk: Desk) -> None:
    desk.controller.publish()
    shared = desk.controller.shared
    assert shared.policy is not None
    viewers = TakenSoon({1100: ViewerScope(frozenset({"team"}))})
    shared.policy = replace(shared.policy, readers=Readers(viewers=viewers))
    assert code(ask_as_viewer(desk, {"do": "view"})) == "viewer.unknown"


def test_nobody_is_a_viewer_without_the_policy(desk: Desk) -> None:
    api = api_of(desk)
    assert (api.has_viewer(1100), api.has_viewer(4711)) == (True, False)
    assert code(ask_as_viewer(desk, {"do": "view"}, uid=4711)) == "viewer.unknown"
    desk.controller.shared.policy = None
    assert not api.has_viewer(1100)
    assert code(ask_as_viewer(desk, {"do": "view"})) == "controller.starting"
