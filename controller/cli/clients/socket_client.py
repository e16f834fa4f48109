"""Clients for the broker's own routes and the controller's socket, with the standard library only.

Each request of HTTP/1.1 gets one whole answer over a connected socket.

Calls to the engine go through ``controller.engine``. Without the Docker SDK, commands such as
``status`` start fast.

``http.client`` loads parsers for mail and TLS, which cost ``status`` and ``plan`` more than the
exchange itself. Broker and engine frame an answer by its length, or in chunks (RFC 9112, section 7.1).

Supports the calls of ``logs`` and ``exec``: JSON, streamed answers and hijacked connections. The
broker judges each request, and journals reads of output.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from controller.model.errors import (
    EngineFailed,
    EngineUnavailable,
    JournalUnavailable,
    Refused,
    StateError,
    TrimtabError,
    error_reason,
)
from controller.system.conversation import peer_uid_of
from controller.system.sockets import connect_in_turn, connect_to_broker

READ_BYTES = 64 * 1024
HEAD_MAX = 64 * 1024
#: Seconds of a pass that is one look, without a wait until services run.
LOOK_S = 0.1
#: Seconds for the answer after a pass.
LOOK_ANSWER_S = 30.0


#: The query of a request; None without one.
RequestQuery = Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A whole answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer with a body that arrives in chunks."""

    content_type: str
    chunks: Iterator[bytes]


def exchange(
    peer: socket.socket, method: str, target: str, body: bytes | None, *, longest: int
) -> WholeAnswer:
    """Send a request with a JSON body, if any, and return the answer.

    Raises:
        OSError: the connection broke, or a read took longer than the socket's timeout.
        ValueError: the answer isn't HTTP, or its body has more than *longest* bytes.
    """
    received = send(peer, method, target, body)
    status, headers = read_head(received)
    return WholeAnswer(status, headers, read_body(received, headers, longest=longest))


def send(
    peer: socket.socket, method: str, target: str, body: bytes | None, *, upgrades: bool = False
) -> ReceivedBytes:
    """Send a request with a JSON body, if any, and return what is received. Raises OSError."""
    lines = [f"{method} {target} HTTP/1.1", "Host: trimtab"]
    lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrades else ["Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    peer.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
    return ReceivedBytes(peer)


def read_head(received: ReceivedBytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an answer. Names of headers are in lower case.

    Raises:
        OSError: the connection broke, or a read took longer than the socket's timeout.
        ValueError: the answer isn't HTTP, or has a longer head than ``HEAD_MAX``.
    """
    status_line, *lines = received.until(b"\r\n\r\n", HEAD_MAX).decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"expected HTTP, not {status_line[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(rest[:3]), {name.lower(): value.strip() for name, _, value in pairs}


def read_body(received: ReceivedBytes, headers: Mapping[str, str], *, longest: int) -> bytes:
    """Return the body of an answer after its head.

    Raises:
        OSError: as ``read_head``.
        ValueError: the framing isn't HTTP, or the body has more than *longest* bytes.
    """
    return b"".join(chunks_of(received, headers, longest=longest))


def chunks_of(
    received: ReceivedBytes, headers: Mapping[str, str], *, longest: int
) -> Iterator[bytes]:
    """Yield the body of an answer as it arrives; raises as ``read_body``."""
    left = longest
    if headers.get("transfer-encoding", "").lower() != "chunked":
        yield received.exactly(_bounded(int(headers.get("content-length", "0")), left))
        return
    while size := _bounded(int(received.until(b"\r\n", HEAD_MAX), 16), left):
        left -= size
        yield received.exactly(size)
        received.until(b"\r\n", HEAD_MAX)


def _bounded(size: int, longest: int) -> int:
    if not 0 <= size <= longest:
        raise ValueError(f"expected a body of at most {longest} bytes, not {size}")
    return size


class ReceivedBytes:
    """The bytes of an answer, in order."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._buffer = bytearray()

    def until(self, end: bytes, longest: int) -> bytes:
        """Return the bytes before *end*, and drop *end*.

        Raises:
            ValueError: *end* isn't within *longest* bytes.
        """
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > longest:
                raise ValueError(f"expected {end!r} within {longest} bytes")
            self._read()
        return self._take(at, len(end))

    def exactly(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        while len(self._buffer) < count:
            self._read()
        return self._take(count, 0)

    def rest(self) -> bytes:
        """Return the bytes that were read beyond the last part."""
        return self._take(len(self._buffer), 0)

    def _read(self) -> None:
        data = self._peer.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the other side hung up")
        self._buffer += data

    def _take(self, count: int, drop: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[: count + drop]
        return taken


TIMEOUT_S = 15.0
#: Time for the controller to plan everything.
PLAN_S = 60.0
REPLY_MAX = 64 * 1024 * 1024
#: The prefix of the broker's own routes.
OWN_PREFIX = "/trimtab/v1/"
#: The lowest status of an error.
ERROR = 400


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Return a connection to the broker.

    Raises:
        StateError: the user isn't allowed to connect.
        EngineUnavailable: nothing listens on the socket.
    """
    with _translated_refusals(path):
        return connect_to_broker(path, timeout_s=timeout_s)


@contextmanager
def _translated_refusals(path: Path) -> Iterator[None]:
    """Turn errors of a connect into the errors of ``connect``."""
    try:
        yield
    except PermissionError as error:
        raise StateError(
            "socket.denied",
            f"{path}: {error.strerror}",
            remedy="run as root, or as a member of the group trimtab",
        ) from error
    except OSError as error:
        raise EngineUnavailable(
            "nothing.running", f"nothing runs behind {path}", remedy="start it with 'trimtab up'"
        ) from error


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn errors of a connection into EngineUnavailable with the socket's path."""
    try:
        yield
    except (OSError, ValueError, AttributeError) as error:
        # ValueError: the answer isn't HTTP. ValueError, AttributeError: another thread closed the
        # connection during a read.
        raise EngineUnavailable(
            "broker.lost", f"the broker at {path} doesn't answer: {error_reason(error)}"
        ) from error


@dataclass(frozen=True, slots=True)
class BrokerApi:
    """Requests to the broker, as the user of the command. *prefix* begins each path.

    A path is quoted, and a query encoded.

    Each method raises:
        EngineUnavailable: no broker answers.
        StateError: the user isn't allowed to connect.
        Refused: the gate refuses the request.
        EngineFailed: the engine answers with an error.
    """

    path: Path
    timeout_s: float = TIMEOUT_S
    prefix: str = OWN_PREFIX

    def target(self, route: str, query: RequestQuery) -> str:
        """Return the path and query of a request."""
        path = f"{self.prefix}{quote(route)}"
        return f"{path}?{urlencode(query)}" if query else path

    def get(self, route: str, query: RequestQuery = None) -> Any:
        """Return the JSON of a route."""
        return json.loads(self.fetch(route, query=query)[0])

    def post(self, route: str, body: object | None = None, query: RequestQuery = None) -> Any:
        """Send JSON to a route. Return its JSON, None for an empty answer."""
        data, _ = self.fetch(route, "POST", body, query=query)
        return json.loads(data) if data else None

    def record(self, act: str, subject: str, note: str, **members: object) -> Any:
        """Have an act recorded and done, with the first 512 characters of a note."""
        body = {"act": act, "object": subject, "note": note[:512], **members}
        return self.post("records", body)

    def fetch(
        self,
        route: str,
        method: str = "GET",
        body: object | None = None,
        *,
        query: RequestQuery = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Return the body and the headers of an answer."""
        data = None if body is None else json.dumps(body).encode()
        target = self.target(route, query)
        with connect(self.path, self.timeout_s) as peer, translated_errors(self.path):
            answer = exchange(peer, method, target, data, longest=REPLY_MAX)
        if answer.status >= ERROR:
            raise error_of(answer.status, answer.body)
        return answer.body, answer.headers

    def lines(self, route: str, query: RequestQuery = None) -> Iterator[bytes]:
        """Yield the whole lines of an answer as they arrive, until the broker hangs up. Without a timeout."""
        rest = b""
        with self.stream(route, query) as answer:
            try:
                for chunk in answer.chunks:
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from (line + b"\n" for line in whole)
            except EngineUnavailable as error:
                if not isinstance(error.__cause__, ConnectionResetError):
                    raise

    @contextmanager
    def stream(self, route: str, query: RequestQuery = None) -> Iterator[Streamed]:
        """Send a GET, and yield the answer after its head, with a status below 400.

        The body can be silent for days: it is read without a timeout.
        """
        peer = connect(self.path, self.timeout_s)
        try:
            with translated_errors(self.path):
                received = send(peer, "GET", self.target(route, query), None)
                status, headers = read_head(received)
                failed = b"" if status < ERROR else read_body(received, headers, longest=REPLY_MAX)
            if status >= ERROR:
                raise error_of(status, failed)
            peer.settimeout(None)
            yield Streamed(headers.get("content-type", ""), self._chunks(received, headers))
        finally:
            with suppress(OSError):
                # close waits for a reading thread, and a shutdown ends the thread's read.
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()

    def _chunks(self, received: ReceivedBytes, headers: Mapping[str, str]) -> Iterator[bytes]:
        with translated_errors(self.path):
            yield from chunks_of(received, headers, longest=sys.maxsize)


def error_of(status: int, data: bytes) -> Exception:
    """Return the error for an answer of the broker; only refusals of the gate have a rule."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {}
    refusal = answer.get("trimtab") or {}
    message = refusal.get("reason") or answer.get("message") or f"status {status}"
    rule, remedy = refusal.get("rule", f"http.{status}"), refusal.get("remedy", "")
    if status == 503:
        return JournalUnavailable(rule, message, remedy=remedy)
    kind = Refused if refusal else EngineFailed
    return kind(rule, message, remedy=remedy, status=status)


def ask_controller(path: Path, question: dict[str, object], *, timeout_s: float = TIMEOUT_S) -> Any:
    """Send a JSON line to the controller's socket, and return the JSON of the answer.

    Raises:
        EngineUnavailable: no controller answers.
        StateError: the user isn't allowed to connect.
        EngineFailed: the controller answers with an error.
    """
    return read_answer(send_question(path, question, timeout_s=timeout_s), path)


def ask_to_observe(path: Path, key: str, *, timeout_s: float = LOOK_S) -> None:
    """Let a running controller look now, for what is on record already.

    A failure is ignored: the act is on record, and the controller's next look finds the act. The
    question fails without a controller. It also fails for operators other than root, because the
    controller obeys root alone.
    """
    with suppress(TrimtabError):
        question = {"do": "pass", "key": key, "timeout_s": timeout_s}
        ask_controller(path, question, timeout_s=timeout_s + LOOK_ANSWER_S)


def send_question(path: Path, question: dict[str, object], *, timeout_s: float) -> socket.socket:
    """Send a JSON line to the controller's socket; return the connection for ``read_answer``.

    Raises:
        EngineUnavailable: no controller listens.
        StateError: the user isn't allowed to connect.
    """
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _translated_refusals(path):
            connect_in_turn(peer, path, timeout_s=timeout_s)
        _check_server(peer, path)
        peer.sendall(json.dumps(question).encode() + b"\n")
    except OSError as error:
        peer.close()
        raise _lost(path, error) from error
    except BaseException:
        peer.close()
        raise
    return peer


def _check_server(peer: socket.socket, path: Path) -> None:
    """Raise StateError if a link of the controller's user leads to a socket of somebody else.

    The folder of a controller without a parent is its user's, who can put a link to any socket there:
    no question of another user, such as root, goes to another program.
    """
    if not path.is_symlink():
        return
    owner = (path.parent / path.readlink()).parent.stat().st_uid
    if (server := peer_uid_of(peer)) != owner:
        raise StateError(
            "controller.stranger",
            f"{path} leads to a process of uid {server}, not of the controller's uid {owner}",
            remedy="find out who changed it; then start 'trimtab run' again",
        )


def read_answer(peer: socket.socket, path: Path) -> Any:
    """Read the answer to ``send_question`` until the connection's timeout, and close the connection.

    Raises:
        EngineUnavailable: no controller answers.
        EngineFailed: the controller answers with an error.
    """
    try:
        chunks = []
        while chunk := peer.recv(65536):
            chunks.append(chunk)
            if chunk.endswith(b"\n") or sum(map(len, chunks)) > REPLY_MAX:
                break
    except OSError as error:
        raise _lost(path, error) from error
    finally:
        peer.close()
    if not chunks:
        raise EngineUnavailable("controller.lost", f"the controller at {path} hung up")
    answer = json.loads(b"".join(chunks))
    if "error" in answer:
        failure = answer["error"]
        raise EngineFailed(
            failure.get("code", "controller.error"),
            failure.get("message", ""),
            remedy=failure.get("remedy", ""),
        )
    return answer


def _lost(path: Path, error: OSError) -> EngineUnavailable:
    message = f"the controller at {path} doesn't answer: {error_reason(error)}"
    return EngineUnavailable("controller.lost", message)


#: The oldest version that the gate supports.
VERSION = "v1.44"
#: The status of a hijacked connection.
SWITCHED = 101


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A hijacked connection; the caller closes it."""

    connection: socket.socket
    content_type: str
    early: bytes  # received together with the head of the answer


@dataclass(frozen=True, slots=True)
class EngineApi(BrokerApi):
    """Requests to the engine, as the user of the command."""

    prefix: str = f"/{VERSION}"

    def take_over(self, path: str, body: object) -> TakenOver:
        """Send a request that hijacks the connection: a stream in both directions."""
        data = json.dumps(body).encode()
        peer = connect(self.path, self.timeout_s)
        try:
            with translated_errors(self.path):
                target = self.target(path, None)
                return _taken_over(peer, send(peer, "POST", target, data, upgrades=True))
        except BaseException:
            peer.close()
            raise


def _taken_over(peer: socket.socket, received: ReceivedBytes) -> TakenOver:
    status, headers = read_head(received)
    if status >= ERROR:
        raise error_of(status, read_body(received, headers, longest=REPLY_MAX))
    if status != SWITCHED:
        raise EngineFailed("exec.not-upgraded", f"the connection wasn't taken over: {status}")
    peer.settimeout(None)
    return TakenOver(peer, headers.get("content-type", ""), received.rest())
