"""The broker with a real decryption worker, and with workers that fail."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.broker.secrets import opener
from controller.broker.secrets.opener import SecretWorker
from controller.core.secrets.declared import AgeSource, OpenRequest, SopsSource
from controller.core.secrets.formats import SopsForm
from controller.model.errors import SecretError
from controller.process import secret_worker
from controller.system.child_programs import RESTART_S
from tests.unit.core.secrets.oracle import Keys, encrypt

KEYS = Keys()
SOURCE = SopsSource(encrypt("db.yaml", b"pw: s3cret\nurl: x\n", KEYS), SopsForm.YAML, "db.yaml")
PLACE = "/etc/trimtab/keys/shop.age"


def request(keys: Keys = KEYS) -> OpenRequest:
    return OpenRequest(SOURCE, keys.private, PLACE)


class Clock:
    """Real time, with leaps: a test needn't wait until a restart is permitted."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def worker(clock: Clock) -> Iterator[SecretWorker]:
    worker = SecretWorker(monotonic=clock)
    yield worker
    worker.stop()


def refused(worker: SecretWorker, wanted: OpenRequest) -> SecretError:
    with pytest.raises(SecretError) as caught:
        worker.open(wanted)
    return caught.value


def test_one_worker_serves_many_requests(worker: SecretWorker) -> None:
    assert worker.open(request()) == {"pw": b"s3cret", "url": b"x"}
    pid = worker.pid
    inline = OpenRequest(AgeSource({"pw": KEYS.sealed(b"\0\xff")}), KEYS.private, PLACE)
    assert worker.open(inline) == {"pw": b"\0\xff"}
    assert worker.pid == pid


def test_a_wrong_key_is_an_error_and_the_worker_goes_on(worker: SecretWorker) -> None:
    worker.open(request())
    pid = worker.pid
    assert refused(worker, request(Keys())).code == "secret.wrong-key"
    no_age = OpenRequest(AgeSource({"pw": "s3cret"}), KEYS.private, PLACE)
    error = refused(worker, no_age)
    assert error.code == "secret.age-invalid"
    assert "s3cret" not in error.message
    assert worker.pid == pid


def test_a_locked_worker_holds_two_pipes_and_no_privilege(worker: SecretWorker) -> None:
    worker.open(request())
    process = Path(f"/proc/{worker.pid}")
    assert sorted(path.name for path in (process / "fd").iterdir()) == ["0", "1"]
    assert process.joinpath("environ").read_bytes() == b""
    status = dict(
        line.split(":\t", 1)
        for line in process.joinpath("status").read_text().splitlines()
        if "\t" in line
    )
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0] * 4


def test_a_killed_worker_is_replaced(worker: SecretWorker, clock: Clock) -> None:
    worker.open(request())
    assert worker.pid is not None
    before = worker.pid
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    clock.ahead += 1.0
    assert worker.open(request())["pw"] == b"s3cret"
    assert worker.pid != before


FAULTS = {
    "ends at once": ("pass", "ended"),
    "greets wrongly": ("w(b'{}')", "unknown greeting"),
    "can't lock down": ('w(b\'{"unsafe": "no seccomp"}\')', "no seccomp"),
    "ends on a request": ("w(b'{\"ready\": true}'); os.read(0, 99)", "ended"),
    "answers with junk": ("w(b'{\"ready\": true}'); os.read(0, 99); w(b'junk')", "isn't JSON"),
    "answers with a list": ("w(b'{\"ready\": true}'); os.read(0, 99); w(b'[]')", "isn't an object"),
    "answers without files": ("w(b'{\"ready\": true}'); os.read(0, 99); w(b'{}')", "no mapping"),
    "answers no base64": (
        'w(b\'{"ready": true}\'); os.read(0, 99); w(b\'{"files": {"a": "!"}}\')',
        "no base64",
    ),
    "answers with an error of another part": (
        'w(b\'{"ready": true}\'); os.read(0, 99); w(b\'{"error": "policy.x"}\')',
        "unknown error",
    ),
    "answers with an error and a text": (
        (
            "w(b'{\"ready\": true}'); os.read(0, 99); "
            'w(b\'{"error": ["secret.bounds", "%b", "b"]}\' % (b"a" * 5000))'
        ),
        "unknown error",
    ),
    "answers beyond the bounds": (
        'w(b\'{"ready": true}\'); os.read(0, 99); w(b\'{"files": {"../a": ""}}\')',
        "beyond the bounds",
    ),
    "answers too much": ("os.write(1, b'\\xff' * 4)", "bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_fails_is_named_and_ended(fault: str) -> None:
    body, words = FAULTS[fault]
    code = f"import os\ndef w(d): os.write(1, len(d).to_bytes(4, 'big') + d)\n{body}"
    worker = SecretWorker(monotonic=time.monotonic, command=(sys.executable, "-c", code))
    error = refused(worker, request())
    assert error.code == "secret.worker"
    assert words in error.message
    assert worker.pid is None
    assert KEYS.private not in error.message


def test_a_late_worker_is_ended() -> None:
    code = "import os\nd=b'{\"ready\": true}'\nos.write(1, len(d).to_bytes(4, 'big') + d)\nos.pause = input()"
    clock = Clock()
    worker = SecretWorker(
        monotonic=clock, command=(sys.executable, "-c", f"import signal\n{code}\nsignal.pause()")
    )
    worker.start()
    clock.ahead = 0.0
    leaps = iter([0.0, 0.0, 100.0])
    worker._child._monotonic = lambda: time.monotonic() + next(leaps, 200.0)
    error = refused(worker, request())
    assert error.code == "secret.worker"
    assert worker.pid is None


def test_a_worker_that_dies_at_once_isnt_started_in_a_loop() -> None:
    waited: list[float] = []
    worker = SecretWorker(
        monotonic=lambda: 5.0, command=(sys.executable, "-c", "pass"), wait=waited.append
    )
    refused(worker, request())
    assert waited == []
    refused(worker, request())
    assert waited == [RESTART_S]


ECHO = """
import os
def w(d): os.write(1, len(d).to_bytes(4, 'big') + d)
w(b'{"ready": true}')
while head := os.read(0, 4):
    length = int.from_bytes(head, 'big')
    while length: length -= len(os.read(0, length))
    w(b'{"files": {"pid": "%s"}}' % __import__('base64').b64encode(str(os.getpid()).encode()))
"""


def echo(**options: Any) -> SecretWorker:
    return SecretWorker(monotonic=time.monotonic, command=(sys.executable, "-c", ECHO), **options)


def test_a_worker_is_renewed_before_it_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opener.RENEWED_AFTER < secret_worker.REQUESTS_MAX
    monkeypatch.setattr(opener, "BOUNDS", replace(opener.BOUNDS, renewed_after=2))
    worker = echo(wait=lambda _s: pytest.fail("a renewal waits for nothing"))
    answers = [worker.open(request())["pid"] for _ in range(4)]
    worker.stop()
    assert answers[0] == answers[1] != answers[2] == answers[3]


def test_an_answer_never_belongs_to_the_request_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault between request and answer ends the worker, whose answer is still in the pipe."""
    worker = echo()
    before = worker.open(request())["pid"]

    def fail(*_: object) -> Any:
        raise OSError("a fault of the broker")

    with monkeypatch.context() as patched:
        patched.setattr(worker._child, "_receive", fail)
        with pytest.raises(OSError, match="a fault of the broker"):
            worker.open(request())
    assert worker.pid is None
    assert worker.open(request())["pid"] != before
    worker.stop()


def test_pipes_may_have_descriptors_beyond_those_of_select() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1100
    if hard != resource.RLIM_INFINITY:
        assert hard >= wanted, "raise the limit of open files of the tests' user"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(1040)]
    worker = echo()
    try:
        assert worker.open(request())["pid"]
    finally:
        worker.stop()
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
