"""Commit statuses reach a forge: a real server on loopback plays each of them."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.git.commit_objects import Refusal
from controller.core.git.forge import POSTS_MAX
from controller.core.git.reports import render_feedback
from controller.fetch.forge import SenderParts, SentFile, StatusSender
from controller.model.desired.source_spec import GitSpec
from controller.model.sources import CommitOutcome, OutcomeState
from controller.system.durable_files import write_atomic
from controller.system.outgoing import HttpLimits
from tests.certificates import write_certificate
from tests.git.forge import TOKEN, ForgeServer

COMMIT, OTHER = "a" * 40, "b" * 40
PENDING = CommitOutcome("shop", COMMIT, "web", OutcomeState.PENDING, "0 of 1 services Ready")
SUCCESS = replace(PENDING, state=OutcomeState.SUCCESS, text="1 service Ready")
FAILURE = replace(PENDING, state=OutcomeState.FAILURE, text="web: RolledBack (Automatic)")


class SetClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 1_767_225_600.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Sending:
    """A sender that takes steps on request."""

    def __init__(self, folder: Path, forge: str, url: str, *, insecure: bool = True) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.reports: list[Refusal | None] = []
        self.limits = HttpLimits(silence_s=0.3, life_s=0.8)
        status = {"forge": forge, "credentials": "shop", "url": url, "repository": "team/deploy"}
        git = {
            "url": "file:///srv/deploy.git",
            "status": status,
            "allowInsecureLoopback": insecure,
        }
        self.spec = GitSpec.model_validate_json(json.dumps(git))
        (folder / "git" / "shop").mkdir(parents=True, exist_ok=True)
        self.put_token(TOKEN)
        self.restart()

    def put_token(self, text: str, mode: int = 0o640) -> None:
        path = self.folder / "git" / "shop" / "token"
        path.write_text(f"{text}\n")
        path.chmod(mode)

    def restart(self) -> None:
        """Start as a new process does, from the files."""
        sent = SentFile(self.folder)
        self.damage = sent.load()
        parts = SenderParts(
            feedback=self.folder / "feedback.json",
            credentials=self.folder / "git",
            sent=sent,
            host="host-1",
            clock=self.clock,
            random=lambda: 0.5,
            limits=self.limits,
        )
        self.sender = StatusSender("shop", self.spec, parts, self.reports.append)

    def change_status(self, **members: str) -> None:
        """Restart with another ``spec.git.status``."""
        assert self.spec.status is not None
        status = self.spec.status.model_copy(update=members)
        self.spec = self.spec.model_copy(update={"status": status})
        self.restart()

    def write(self, *outcomes: CommitOutcome) -> None:
        write_atomic(self.folder / "feedback.json", render_feedback(outcomes))

    def steps(self, count: int = 5, *, each_s: float = 0.0) -> None:
        for _ in range(count):
            self.sender.step()
            self.clock.at += each_s

    @property
    def problem(self) -> str:
        last = self.reports[-1]
        return last.code if last else ""


@pytest.fixture
def forge() -> Iterator[ForgeServer]:
    with ForgeServer() as server:
        yield server


@pytest.fixture
def sending(tmp_path: Path, forge: ForgeServer) -> Sending:
    return Sending(tmp_path, "github", forge.url)


@pytest.mark.parametrize(
    ("name", "path", "header"),
    [
        ("github", f"/repos/team/deploy/statuses/{COMMIT}", ("authorization", f"Bearer {TOKEN}")),
        ("gitlab", f"/projects/team%2Fdeploy/statuses/{COMMIT}", ("private-token", TOKEN)),
        ("gitea", f"/repos/team/deploy/statuses/{COMMIT}", ("authorization", f"token {TOKEN}")),
    ],
)
def test_each_forge_gets_a_status_in_its_form(
    tmp_path: Path, forge: ForgeServer, name: str, path: str, header: tuple[str, str]
) -> None:
    sending = Sending(tmp_path, name, forge.url)
    sending.write(PENDING)
    sending.steps()
    sending.write(SUCCESS)
    sending.steps()
    assert forge.states() == ["pending", "success"]
    request = forge.received[0]
    assert request.path == path
    assert request.headers[header[0]] == header[1]
    assert request.body["name" if name == "gitlab" else "context"] == "trimtab/host-1/web"
    assert sending.problem == ""


def test_a_failed_rollout_is_told_and_later_its_repair(
    sending: Sending, forge: ForgeServer
) -> None:
    for outcome in (PENDING, FAILURE, FAILURE, SUCCESS):
        sending.write(outcome)
        sending.steps()
    assert forge.told() == [
        ("a", "pending", "0 of 1 services Ready"),
        ("a", "failure", "web: RolledBack (Automatic)"),
        ("a", "success", "1 service Ready"),
    ]


def test_a_restart_repeats_nothing(sending: Sending, forge: ForgeServer) -> None:
    sending.write(SUCCESS, replace(FAILURE, commit=OTHER))
    sending.steps()
    sending.restart()
    sending.steps()
    assert len(forge.received) == 2
    assert (sending.folder / "sent.json").stat().st_mode & 0o777 == 0o600


def test_a_lost_or_damaged_memory_costs_a_request_each(
    sending: Sending, forge: ForgeServer
) -> None:
    sending.write(SUCCESS)
    sending.steps()
    for damage in ("{", "[" * 100_000, "[]", '{"version": 1, "sent": [[1]]}'):
        (sending.folder / "sent.json").write_text(damage)
        sending.restart()
        assert sending.damage is not None
        sending.steps()
    assert forge.states() == ["success"] * 5


def test_the_newest_outcome_counts_after_an_outage(sending: Sending, forge: ForgeServer) -> None:
    forge.answers.next = [(500, {})]
    sending.write(PENDING)
    sending.steps()
    assert (forge.states(), sending.problem) == (["pending"], "forge.failed")
    sending.write(SUCCESS)
    sending.steps(20, each_s=1.0)
    assert (forge.states(), sending.problem) == (["pending", "success"], "")


def test_progress_alone_is_not_worth_a_request(sending: Sending, forge: ForgeServer) -> None:
    sending.write(PENDING)
    sending.steps()
    sending.write(replace(PENDING, text="1 of 2 services Ready"))
    sending.steps()
    assert forge.states() == ["pending"]
    for text in ("web: Stalled (a)", "web: Stalled (b)"):
        sending.write(replace(FAILURE, text=text))
        sending.steps()
    assert forge.states() == ["pending", "failure", "failure"]


def test_failures_are_retried_more_and_more_seldom(sending: Sending, forge: ForgeServer) -> None:
    forge.answers.next = [(503, {})] * 1000
    sending.write(SUCCESS)
    sending.steps(3600, each_s=1.0)
    assert 5 < len(forge.received) < 15
    forge.answers.next = []
    sending.steps(1000, each_s=1.0)
    assert sending.problem == ""


def test_a_forge_that_is_overloaded_is_left_alone(sending: Sending, forge: ForgeServer) -> None:
    forge.answers.next = [(429, {"Retry-After": "120"})]
    sending.write(SUCCESS)
    sending.steps(119, each_s=1.0)
    assert (len(forge.received), sending.problem) == (1, "forge.limited")
    sending.steps(3, each_s=1.0)
    assert (len(forge.received), sending.problem) == (2, "")


def test_a_refused_token_is_a_problem_until_it_is_replaced(
    sending: Sending, forge: ForgeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    forge.answers.next = [(401, {})]
    forge.answers.body = f'{{"message": "bad token {TOKEN}"}}'.encode()
    sending.write(SUCCESS)
    sending.steps()
    (problem,) = [each for each in sending.reports if each]
    assert (problem.code, problem.message) == ("forge.denied", "GitHub refuses the token (401)")
    sending.put_token("another")
    sending.steps(10, each_s=1.0)
    assert forge.received[-1].headers["authorization"] == "Bearer another"
    assert sending.problem == ""
    assert TOKEN not in caplog.text + repr(sending.reports)


def test_the_present_state_is_sent_however_long_a_token_was_refused(
    sending: Sending, forge: ForgeServer
) -> None:
    forge.answers.next = [(401, {})] * 10_000
    held = replace(PENDING, commit="c" * 40, state=OutcomeState.HELD, text="not served: x")
    sending.write(held, SUCCESS, replace(FAILURE, commit=OTHER))
    sending.steps(600, each_s=900.0)
    forge.answers.next = []
    forge.received.clear()
    sending.steps(5, each_s=1000.0)
    assert sorted(forge.states()) == ["failure", "success"]
    assert {each.path[-1] for each in forge.received} == {"a", "c"}
    assert sending.problem == ""


@pytest.mark.parametrize("change", [{"repository": "team/other"}, {"context": "prod"}])
def test_another_place_at_the_forge_gets_the_present_state(
    sending: Sending, forge: ForgeServer, change: dict[str, str]
) -> None:
    sending.write(SUCCESS)
    sending.steps()
    sending.change_status(**change)
    sending.steps()
    sending.restart()
    sending.steps()
    assert forge.states() == ["success", "success"]


@pytest.mark.parametrize("status", [401, 422, 201])
def test_a_sender_that_is_stopped_during_a_request_reports_nothing(
    sending: Sending, forge: ForgeServer, status: int
) -> None:
    sending.limits = HttpLimits(silence_s=10.0, life_s=10.0)
    sending.restart()
    forge.answers.next = [(status, {})]
    forge.may_answer.clear()
    sending.write(SUCCESS)
    step = threading.Thread(target=sending.sender.step)
    step.start()
    forge.arrived.wait(10)
    sending.sender.stop()
    forge.may_answer.set()
    step.join(10)
    assert sending.reports == []
    # What the forge has isn't sent again; the rest is.
    sending.restart()
    sending.steps()
    assert len(forge.received) == (1 if status == 201 else 2)


def test_a_rejected_status_is_not_repeated(sending: Sending, forge: ForgeServer) -> None:
    forge.answers.next = [(422, {})]
    sending.write(PENDING)
    sending.steps(100, each_s=60.0)
    assert (forge.states(), sending.problem) == (["pending"], "forge.rejected")
    sending.write(SUCCESS)
    sending.steps()
    assert (forge.states(), sending.problem) == (["pending", "success"], "")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(
    tmp_path: Path, forge: ForgeServer, sending: Sending, status: int
) -> None:
    with ForgeServer() as other:
        forge.answers.next = [(status, {"Location": f"{other.url}/x"})] * 10
        sending.write(SUCCESS)
        sending.steps(30, each_s=1.0)
        assert other.received == []
    assert sending.problem == "forge.redirect"


@pytest.mark.parametrize("status", [301, 401, 422, 429, 500])
def test_a_token_that_a_forge_repeats_is_shown_nowhere(
    forge: ForgeServer, sending: Sending, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    repeated = {
        "Location": f"http://127.0.0.1/{TOKEN}",
        "Retry-After": TOKEN,
        "X-RateLimit-Remaining": TOKEN,
    }
    forge.answers.next = [
        (status, repeated),
        (status, {"Retry-After": "Mon, 01 Jan 0001 00:00:00"}),
    ]
    forge.answers.body = f'{{"message": "bad token {TOKEN}"}}'.encode()
    sending.write(SUCCESS)
    sending.steps(2, each_s=60.0)
    assert sending.problem
    assert TOKEN not in f"{sending.reports} {caplog.text}"
    (sending.folder / "git" / "shop" / "token").unlink()
    for file in sending.folder.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("kind", ["silent", "slow", "closed", "noise", "endless"])
def test_a_forge_that_hangs_or_talks_nonsense_costs_a_bounded_time(
    sending: Sending, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()
        threading.Thread(target=misbehave, args=(listener, kind, over), daemon=True).start()
        sending.change_status(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        sending.write(SUCCESS)
        began = time.monotonic()
        sending.steps(1)
        assert time.monotonic() - began < 5
        over.set()
    # An answer that never ends is read up to the bound alone.
    assert sending.problem == ("" if kind == "endless" else "forge.unreachable")


def test_the_addresses_of_a_forge_share_the_time_of_a_request(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A full backlog: the kernel answers no further connection.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = socket.create_connection(address)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)] * 20
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        sending.change_status(url=f"http://localhost:{address[1]}")
        sending.write(SUCCESS)
        began = time.monotonic()
        sending.steps(1)
        assert time.monotonic() - began < 3
        waiting.close()
    assert sending.problem == "forge.unreachable"


def misbehave(listener: socket.socket, kind: str, over: threading.Event) -> None:
    """Answer one connection badly."""
    peer, _ = listener.accept()
    with peer:
        peer.recv(65536)
        beginnings = {
            "silent": (),
            "slow": (b"HTTP/1.1 201 Created\r\n", *(b"X" for _ in range(100))),
            "closed": (),
            "noise": (b"SSH-2.0-OpenSSH_9.2\r\n",),
            "endless": (b"HTTP/1.1 201 Created\r\n\r\n", *(b"x" * 65536 for _ in range(100))),
        }
        try:
            for part in beginnings[kind]:
                peer.sendall(part)
                if kind == "slow" and over.wait(0.1):
                    return
            if kind in {"silent", "slow"}:
                over.wait(30)
        except OSError:
            return


def test_a_forge_is_known_by_its_certificate(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    with ForgeServer(tmp_path) as forge:
        sending = Sending(tmp_path / "fetcher", "gitea", forge.url, insecure=False)
        sending.write(SUCCESS)
        sending.steps()
        assert (forge.received, sending.problem) == ([], "forge.unreachable")
        (tmp_path / "ca.pem").rename(sending.folder / "git" / "shop" / "ca.pem")
        sending.steps(10, each_s=1.0)
        assert (forge.states(), sending.problem) == (["success"], "")


def test_plain_http_gets_no_token_unless_it_is_loopback_and_permitted(
    tmp_path: Path, forge: ForgeServer
) -> None:
    for url, insecure in ((forge.url, False), ("http://git.example.org", True)):
        sending = Sending(tmp_path, "gitea", url, insecure=insecure)
        sending.write(SUCCESS)
        sending.steps()
        assert (sending.problem, forge.received) == ("source.insecure", [])


@pytest.mark.parametrize(
    ("text", "mode"),
    [(TOKEN, 0o644), ("", 0o640), ("a b", 0o640), ("a\r\nX-Evil: 1", 0o640), ("x" * 5000, 0o640)],
)
def test_a_token_that_is_open_or_malformed_is_not_sent(
    sending: Sending, forge: ForgeServer, text: str, mode: int
) -> None:
    sending.put_token(text, mode)
    sending.write(SUCCESS)
    sending.steps()
    assert (sending.problem, forge.received) == ("source.credentials", [])


def broken_files(folder: Path) -> Iterable[tuple[str, Callable[[Path], object]]]:
    yield "damaged", lambda file: file.write_text("{")
    yield "a link", lambda file: file.symlink_to(folder / "git" / "shop" / "token")
    yield "a folder", lambda file: file.mkdir()


@pytest.mark.parametrize("kind", ["damaged", "a link", "a folder"])
def test_a_file_that_cannot_be_read_is_a_problem_and_sends_nothing(
    sending: Sending, forge: ForgeServer, kind: str
) -> None:
    file = sending.folder / "feedback.json"
    dict(broken_files(sending.folder))[kind](file)
    sending.steps()
    assert (sending.problem, forge.received) == ("forge.feedback", [])


def test_outcomes_of_other_sources_are_left_to_their_senders(
    sending: Sending, forge: ForgeServer
) -> None:
    sending.write(replace(SUCCESS, source="other"))
    sending.steps()
    assert forge.received == []
    assert sending.reports == [None]


def test_a_state_that_changes_again_and_again_is_told_more_and_more_seldom(
    sending: Sending, forge: ForgeServer
) -> None:
    for number in range(2000):
        sending.write(SUCCESS if number % 2 else FAILURE)
        sending.steps(1, each_s=60.0)
    assert 20 < len(forge.received) < POSTS_MAX
