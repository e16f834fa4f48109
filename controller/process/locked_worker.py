"""The common part of workers that only compute: they lock their process, and answer requests.

The broker starts a worker with two pipes as standard input and output. Each request and answer is a
frame: four bytes of length, then JSON. Raw bytes can follow a request, and an answer can have parts
(``system.child_programs``). A worker parses what others wrote. So before the first request
it gives up its capabilities, all files but the pipes, and all system calls but a few.

A worker ends at the end of its input, after a number of requests, and at any fault that no file of a
person causes. The broker then starts another (``system.child_programs``).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from controller.system import syscalls

_INPUT, _OUTPUT = 0, 1
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The limits of a worker."""

    #: What a hostile request left in memory ends with the worker.
    requests: int
    request_bytes: int
    memory_bytes: int
    #: Processor time of a worker's whole life; the broker's deadline bounds each request.
    cpu_s: int = 300


#: Returns the answer to a request with its raw bytes, or the parts of the answer.
Respond = Callable[[dict[str, Any], bytes], dict[str, Any] | Sequence[dict[str, Any]]]


def serve(answer: Respond, limits: WorkerLimits) -> None:
    """Lock the process, and serve. Everything that *answer* needs must be loaded already."""
    try:
        lock_down(limits)
    except OSError as error:
        _write({"unsafe": f"{error}"})
        sys.exit(1)
    _write({"ready": True})
    for _ in range(limits.requests):
        request = _read(limits.request_bytes)
        if request is None:
            return
        answered = answer(*request)
        if isinstance(answered, dict):
            _write(answered)
            continue
        _write({"parts": len(answered)})
        for part in answered:
            _write(part)
        del request, answered


def lock_down(limits: WorkerLimits) -> None:
    """Give up everything but the pipes. Raises OSError if the kernel refuses a step."""
    # The broker runs before other programs of the host; what a user wrote must not.
    os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
    os.closerange(_OUTPUT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for limit, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (most, most))
    if os.geteuid() == 0:
        syscalls.limit_capability_sets()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.forbid_core_dumps()
    syscalls.permit_computing_only()


def _read(most: int) -> tuple[dict[str, Any], bytes] | None:
    """Return the next request with its raw bytes; None at the end of the input."""
    head = _read_bytes(_LENGTH_BYTES)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    assert length <= most, f"a request of {length} bytes"
    request = json.loads(_read_bytes(length))
    assert isinstance(request, dict)
    raw_bytes = request.pop("rawBytes", 0)
    assert 0 <= raw_bytes <= most, f"a request with {raw_bytes} raw bytes"
    return request, _read_bytes(raw_bytes)


def _read_bytes(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = os.read(_INPUT, min(count - len(data), 1 << 20))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)


def _write(answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    frame = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    while frame:
        frame = frame[os.write(_OUTPUT, frame) :]
