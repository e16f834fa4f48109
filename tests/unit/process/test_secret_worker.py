"""The decryption worker after its lock-down: nothing is left but two pipes and computing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

#: Code that runs in the place of a hostile request.
HOSTILE = """
import json, os, resource, signal, socket
from controller.process import locked_worker, secret_worker
secret_worker._warm_up()
own = os.getpid()
locked_worker.lock_down(secret_worker.LIMITS)
tries = {
    "open a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "open a new file": lambda: os.open("/tmp/leak", os.O_WRONLY | os.O_CREAT),
    "list a folder": lambda: os.listdir("/"),
    "remove a file": lambda: os.unlink("/tmp/leak"),
    "make a socket": lambda: socket.socket(socket.AF_UNIX),
    "make an internet socket": lambda: socket.socket(socket.AF_INET),
    "fork": os.fork,
    "execute": lambda: os.execv("/bin/sh", ["sh"]),
    "signal a process": lambda: os.kill(1, 0),
    "copy a descriptor": lambda: os.dup(1),
    "make a pipe": os.pipe,
    "become another user": lambda: os.setuid(65534),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)),
    "change the folder": lambda: os.chdir("/tmp"),
    "make memory shared": lambda: os.memfd_create("x"),
}
done = []
for name, attempt in tries.items():
    try:
        attempt()
        done.append(name)
    except (OSError, ValueError):
        pass
os.write(1, json.dumps({"done": done, "tried": len(tries), "pid": own}).encode())
"""


def run(code: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
    )


def test_code_in_a_locked_worker_reaches_nothing() -> None:
    result = json.loads(run(HOSTILE).stdout)
    assert result["done"] == []
    assert result["tried"] == 15


def test_a_worker_without_input_ends() -> None:
    finished = subprocess.run(
        [sys.executable, "-I", "-m", "controller.process.secret_worker"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={},
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0
    assert json.loads(finished.stdout[4:]) == {"ready": True}


@pytest.mark.needs_root
def test_a_worker_does_not_have_the_brokers_priority() -> None:
    with subprocess.Popen(
        ["nice", "-n", "-5", sys.executable, "-I", "-m", "controller.process.secret_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    ) as worker:
        assert worker.stdout is not None and worker.stdin is not None
        greeting = worker.stdout.read(4 + len('{"ready": true}'))
        assert json.loads(greeting[4:]) == {"ready": True}
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) == 0
        worker.stdin.close()


def test_too_much_memory_ends_the_worker() -> None:
    code = HOSTILE[: HOSTILE.index("tries = {")] + "x = bytearray(512 * 1024 * 1024)\n"
    assert run(code).returncode != 0
