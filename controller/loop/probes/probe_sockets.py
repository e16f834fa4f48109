"""Probes over sockets: one thread, many probes at a time, each with a timeout.

Promises: connections go only to the address and port of the probe, never to a host name or to a
redirect's target. At most ``READ_MAX`` bytes are read, and none is kept.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from controller.core.drift.probe_verdict import (
    READ_MAX,
    Probe,
    ProbeOutcome,
    ProbeResult,
    read_status_line,
    request_of,
)

_CHUNK = 4096
#: Errors without any answer from the container; every other error comes from the container.
_NOBODY = frozenset(
    {
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPERM,
        errno.ETIMEDOUT,
    }
)
#: Errors of this process: the probe wasn't sent.
_OWN = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(slots=True)
class _Conversation:
    """One probe under way."""

    probe: Probe
    peer: socket.socket
    deadline: float
    to_send: bytes
    connected: bool = False
    read: int = 0
    line: bytearray = field(default_factory=bytearray)


class ProbeSockets:
    """``ports.ProbeTransport`` over TCP."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, _Conversation] = {}
        self._answers: list[ProbeResult] = []
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def close(self) -> None:
        """Drop all probes under way."""
        for conversation in list(self._open.values()):
            self._drop(conversation)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def wake(self) -> None:
        """End a wait, from any thread."""
        with suppress(OSError):  # full: a wake-up is pending; closed: no thread waits
            self._waker.send(b".")

    def ask(self, probe: Probe) -> None:
        """Begin to connect to a probe's container."""
        try:
            address = ipaddress.ip_address(probe.address)
        except ValueError:
            self._answers.append(_unreached(probe))
            return
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            peer = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._answers.append(_failure(probe, error.errno))
            return
        code = peer.connect_ex((str(address), probe.port))
        if code not in {0, errno.EINPROGRESS}:
            peer.close()
            self._answers.append(_failure(probe, code))
            return
        conversation = _Conversation(
            probe,
            peer,
            deadline=self._monotonic() + probe.timeout_s,
            to_send=b"" if probe.path is None else request_of(probe),
        )
        self._open[peer.fileno()] = conversation
        self._selector.register(peer, selectors.EVENT_WRITE, conversation)

    def answers(self, *, wait_s: float) -> list[ProbeResult]:
        """Advance all probes under way, waiting at most *wait_s*; return the results."""
        now = self._monotonic()
        soonest = min((each.deadline for each in self._open.values()), default=now + wait_s)
        wait_s = 0.0 if self._answers else min(wait_s, soonest - now)
        for ready, _ in self._selector.select(max(0.0, wait_s)):
            if ready.data is None:
                with suppress(OSError):
                    self._woken.recv(_CHUNK)
            else:
                self._advance(ready.data)
        now = self._monotonic()
        for late in [each for each in self._open.values() if each.deadline <= now]:
            self._end(late, _timed_out(late))
        answers, self._answers = self._answers, []
        return answers

    def _advance(self, conversation: _Conversation) -> None:
        try:
            if not conversation.connected:
                self._finish_connect(conversation)
            elif conversation.to_send:
                self._send(conversation)
            else:
                self._receive(conversation)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(conversation, _failure(conversation.probe, error.errno))

    def _finish_connect(self, conversation: _Conversation) -> None:
        code = conversation.peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        conversation.connected = True
        if conversation.probe.path is None:
            self._end(conversation, ProbeResult(conversation.probe.container, ProbeOutcome.GOOD))
        else:
            self._send(conversation)

    def _send(self, conversation: _Conversation) -> None:
        sent = conversation.peer.send(conversation.to_send)
        conversation.to_send = conversation.to_send[sent:]
        if not conversation.to_send:
            self._selector.modify(conversation.peer, selectors.EVENT_READ, conversation)

    def _receive(self, conversation: _Conversation) -> None:
        probe, chunk = conversation.probe, conversation.peer.recv(_CHUNK)
        line, ended, _ = chunk.partition(b"\n")
        conversation.line += line
        conversation.read += len(chunk)
        if ended or conversation.read >= READ_MAX:
            self._end(conversation, read_status_line(probe, bytes(conversation.line)))
        elif not chunk:
            said = f"port {probe.port} closed the connection without an answer"
            self._end(conversation, ProbeResult(probe.container, ProbeOutcome.BAD, said))

    def _end(self, conversation: _Conversation, answer: ProbeResult) -> None:
        self._drop(conversation)
        self._answers.append(answer)

    def _drop(self, conversation: _Conversation) -> None:
        del self._open[conversation.peer.fileno()]
        self._selector.unregister(conversation.peer)
        conversation.peer.close()


def _failure(probe: Probe, code: int | None) -> ProbeResult:
    if code in _OWN:
        said = f"the controller can't ask: {os.strerror(code or 0)}"
        return ProbeResult(probe.container, ProbeOutcome.UNASKED, said)
    if code in _NOBODY:
        return _unreached(probe)
    if code == errno.ECONNREFUSED:
        said = f"nothing listens on port {probe.port}"
    else:
        said = f"port {probe.port} broke the connection off"
    return ProbeResult(probe.container, ProbeOutcome.BAD, said)


def _unreached(probe: Probe) -> ProbeResult:
    said = f"nobody answers at {probe.address}" if probe.address else "it has no address"
    return ProbeResult(probe.container, ProbeOutcome.UNREACHED, said)


def _timed_out(conversation: _Conversation) -> ProbeResult:
    probe = conversation.probe
    if not conversation.connected:
        return _unreached(probe)
    said = f"port {probe.port} gave no answer within {probe.timeout_s:g} s"
    return ProbeResult(probe.container, ProbeOutcome.BAD, said)
