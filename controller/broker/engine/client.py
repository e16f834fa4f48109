"""The broker's client to the engine, over the engine's Unix socket.

Connections: each mutation and each relay has its own. Reads share a few idle connections. Each
group of users has a number of connections of its own (``system.slots``); a request waits for one.

API version: every path gets one pinned version, the lower of 1.45 and the engine's newest. The
gate's schemas were written for 1.45.

Retries: a mutation is sent once and never repeated. A failed mutation says whether the request
reached the engine: ``Lost(sent=False)`` certainly changed nothing. A read is repeated once, if
the engine closed an idle connection. The next engine can then be a different one, so the client
identifies the engine before the repetition.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

from controller.broker.engine.response import (
    NoList,
    ResponseBroken,
    ResponseReader,
    TooLong,
    connect,
)
from controller.broker.gate.commands import NOT_ALLOWED, REPLY_BYTES_MAX, Lost, Rows, engine_remedy
from controller.broker.gate.state import NEWEST_API, OLDEST_API
from controller.broker.wire import BODILESS
from controller.core.encoding.json_values import parse_json, text_member, texts_of
from controller.core.enforcement.kept_settings import ignored_by_engine
from controller.core.engine_api.engine_objects import image_store
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import EngineError, EngineUnavailable, TrimtabError
from controller.model.records import Reply
from controller.ports import EngineFacts
from controller.system.slots import Slot, Slots, SlotUser

CONNECT_S = 5.0
FACTS_S = 15.0
#: Timeout for the head of a relayed response. The body has no timeout.
HEAD_S = 60.0
#: Idle connections for later reads, and how long a connection stays idle at most.
IDLE_MAX = 8
IDLE_S = 30.0

_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
_BASE64 = re.compile(r"[A-Za-z0-9_=-]*", re.ASCII)
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)


#: The user of the broker's own requests.
BROKER = SlotUser("broker", 0)
ALL_IN_USE = "all connections to the engine are in use"
T = TypeVar("T")


class RequestNotSent(Exception):
    """Nothing of the request reached the engine."""


@dataclass(frozen=True, slots=True)
class ConnectedEngine:
    """The engine behind the socket: its facts and its place on the host."""

    facts: EngineFacts
    #: The API version of all requests, for example ``1.45``.
    pinned: str
    #: The engine's data folder, for example ``/var/lib/docker``.
    data_root: str
    #: Operating system and architecture, for example ``linux/amd64``.
    platform: str
    #: Whether the engine can filter system calls.
    seccomp: bool = True


class EngineClient:
    """Requests to the engine behind one socket.

    *admit* is called with the engine after each new connection to an unknown engine, before any
    other request. An exception from *admit* keeps the engine unreachable. *count* is called with the
    method and the status of each request, None without an answer.
    """

    def __init__(
        self,
        path: str,
        *,
        admit: Callable[[ConnectedEngine], None] = lambda _engine: None,
        reach: Reach = pass_by,
        slots: Slots | None = None,
        count: Callable[[str, int | None], None] = lambda _method, _status: None,
    ) -> None:
        self._path = path
        self._count_answer = count
        self._slots = slots
        self._admit = admit
        self._reach = reach
        self._engine: ConnectedEngine | None = None
        self._identifying: asyncio.Task[ConnectedEngine] | None = None
        #: Idle connections with the time of their last use, the latest at the end.
        self._idle: list[tuple[ResponseReader, float]] = []
        #: Why the engine is unknown; '' while the engine is known.
        self.error = "nobody asked it yet"

    @property
    def engine(self) -> ConnectedEngine | None:
        """The engine that responded last; None after a lost connection."""
        return self._engine

    async def identify(self) -> ConnectedEngine:
        """Return the engine. Ask an unknown engine for its facts, once for all callers.

        Raises:
            EngineUnavailable: no engine responds.
            EngineError: the engine is too old.
            TrimtabError: ``admit`` rejects the engine.
        """
        if self._engine is not None:
            return self._engine
        if self._identifying is None:
            self._identifying = asyncio.create_task(self._ask_for_facts())
            self._identifying.add_done_callback(self._end_identifying)
        # The cancellation of one caller doesn't cancel the request for the others.
        return await asyncio.shield(self._identifying)

    async def read(
        self,
        method: str,
        path: str,
        *,
        user: SlotUser = BROKER,
        auth: str = "",
        rows: Rows | None = None,
        bytes_max: int = REPLY_BYTES_MAX,
        deadline_s: float,
    ) -> Reply | Lost:
        """Send a read and return its response.

        *auth* are the credentials for a registry, *rows* encode the rows of a list, and *bytes_max*
        bounds another response.
        """
        request = _Request(method, path, keep_alive=True, auth=auth, rows=rows, bytes_max=bytes_max)
        if isinstance(slot := await self._take_slot(user), Lost):
            return slot
        try:
            return self._counted(request, await self._read(request, deadline_s))
        finally:
            slot.release()

    async def _read(self, request: _Request, deadline_s: float) -> Reply | Lost:
        idle = self._take_idle()
        if idle is not None:
            response = await self._exchange(idle, request, deadline_s)
            if isinstance(response, Reply) or idle.has_begun or self._engine is not None:
                return response
            # The connection had ended, for example by a restart of the engine: identify the
            # engine, and repeat the read once.
        return await self._connect_and_exchange(request, deadline_s)

    async def forward(
        self, method: str, path: str, body: bytes, *, user: SlotUser = BROKER, deadline_s: float
    ) -> Reply | Lost:
        """Send a mutation once and return its whole response."""
        request = _Request(method, path, body, mutation=True)
        if isinstance(slot := await self._take_slot(user), Lost):
            return slot
        try:
            return self._counted(request, await self._connect_and_exchange(request, deadline_s))
        finally:
            slot.release()

    async def open(
        self,
        method: str,
        path: str,
        body: bytes | Upload,
        *,
        mutation: bool,
        hijack: bool = False,
        user: SlotUser = BROKER,
        auth: str = "",
        deadline_s: float = HEAD_S,
    ) -> ResponseReader | Lost:
        """Send a request and return the open response. The caller closes the response."""
        upload = body if isinstance(body, Upload) else None
        whole = body if isinstance(body, bytes) else b""
        request = _Request(
            method, path, whole, mutation=mutation, hijack=hijack, auth=auth, upload=upload
        )
        if isinstance(slot := await self._take_slot(user), Lost):
            return slot
        try:
            stream = await self._connect()
            stream.on_close = slot.release
            async with asyncio.timeout(deadline_s):
                await self._send(stream, request)
        except BaseException as error:
            slot.release()
            if not isinstance(error, RequestNotSent | ResponseBroken | TimeoutError):
                raise
            return self._counted(request, self._lost(error, deadline_s))
        return self._counted(request, stream)

    def _counted(self, request: _Request, answer: T) -> T:
        """Return an answer after it was counted."""
        self._count_answer(request.method, getattr(answer, "status", None))
        return answer

    async def _take_slot(self, user: SlotUser) -> Slot | Lost:
        """Return a slot for one connection; Lost if all slots of the user stay in use."""
        if self._slots is None:
            return Slot(lambda: None)
        slot = await self._slots.take(user)
        if slot is None:
            why = f"{ALL_IN_USE} of the group {user.group}, or of uid {user.uid}"
            return Lost(why, sent=False)
        return slot

    async def _connect_and_exchange(self, request: _Request, deadline_s: float) -> Reply | Lost:
        try:
            stream = await self._connect()
        except RequestNotSent as error:
            return self._lost(error, deadline_s)
        return await self._exchange(stream, request, deadline_s)

    async def _exchange(
        self, stream: ResponseReader, request: _Request, deadline_s: float
    ) -> Reply | Lost:
        """Send a request over a connection and return the whole response."""
        keep = False
        try:
            async with asyncio.timeout(deadline_s):
                await self._send(stream, request)
                if request.rows is None or stream.status >= HTTPStatus.BAD_REQUEST:
                    reply = await stream.read_whole(request.bytes_max)
                else:
                    reply = await stream.read_rows(request.rows)
            keep = request.keep_alive and stream.is_reusable
        except (ResponseBroken, TimeoutError) as error:
            return self._lost(error, deadline_s)
        finally:
            if keep:
                self._keep(stream)
            else:
                stream.close()
        return reply

    # Idle connections belong to the known engine, and are closed together with it.

    def _keep(self, stream: ResponseReader) -> None:
        if self._engine is not stream.engine or len(self._idle) >= IDLE_MAX:
            stream.close()
            return
        stream.rest()
        self._idle.append((stream, asyncio.get_running_loop().time()))

    def _take_idle(self) -> ResponseReader | None:
        """Return an idle connection for the next read, or None.

        A connection that the engine closed makes the engine unknown: a different one can follow.
        """
        self._close_expired()
        if not self._idle:
            return None
        idle, _ = self._idle.pop()
        reused = idle.reuse()
        if reused is None:
            idle.close()
            self._forget("it ended a connection")
        return reused

    def _close_expired(self) -> None:
        """Close the connections that were idle for too long. The oldest are first in the list."""
        now = asyncio.get_running_loop().time()
        while self._idle and now - self._idle[0][1] > IDLE_S:
            self._idle.pop(0)[0].close()

    def close(self) -> None:
        """Close the idle connections."""
        for idle, _ in self._idle:
            idle.close()
        self._idle.clear()

    def _lost(self, error: Exception, deadline_s: float) -> Lost:
        match error:
            case RequestNotSent():
                return Lost(str(error), sent=False)
            case TimeoutError():
                return Lost(f"the engine didn't answer within {deadline_s:g} s")
            case TooLong() | NoList():
                # The engine responds, and is still the same.
                return Lost(str(error), unreadable=True)
            case _:
                # The next engine can be a different one, or have a different version.
                self._forget(str(error))
                return Lost(str(error))

    def _forget(self, why: str) -> None:
        self._engine, self.error = None, why
        self.close()

    def _end_identifying(self, task: asyncio.Task[ConnectedEngine]) -> None:
        self._identifying = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = str(error)

    async def _ask_for_facts(self) -> ConnectedEngine:
        try:
            async with asyncio.timeout(FACTS_S):
                version = await self._read_json("/version")
                pinned = pinned_version(
                    str(version.get("ApiVersion", "")), str(version.get("MinAPIVersion", ""))
                )
                info = await self._read_json(f"/v{pinned}/info")
        except (RequestNotSent, ResponseBroken, TimeoutError) as error:
            why = str(error) or f"no answer within {FACTS_S:g} s"
            raise EngineUnavailable(
                "engine.unavailable",
                f"the engine at {self._path} doesn't answer: {why}",
                remedy=f"{engine_remedy(why)}; the broker tries again by itself",
            ) from error
        engine = _engine(version, info, pinned)
        self._admit(engine)
        self._engine, self.error = engine, ""
        return engine

    async def _read_json(self, path: str) -> dict[str, object]:
        stream = await self._open_connection()
        try:
            await self._send(stream, _Request("GET", path))
            reply = await stream.read_whole()
        finally:
            stream.close()
        try:
            value = parse_json(reply.body)
        except ValueError:
            value = None
        if reply.status != HTTPStatus.OK or not isinstance(value, dict):
            raise ResponseBroken(f"GET {path} answered {reply.status}")
        return value

    async def _connect(self) -> ResponseReader:
        try:
            engine = await self.identify()
        except TrimtabError as error:
            unavailable = isinstance(error, EngineUnavailable)
            raise RequestNotSent(error.message if unavailable else str(error)) from error
        stream = await self._open_connection()
        stream.prefix, stream.engine = f"/v{engine.pinned}", engine
        return stream

    async def _open_connection(self) -> ResponseReader:
        try:
            async with asyncio.timeout(CONNECT_S):
                stream = await connect(self._path)
        except (OSError, TimeoutError) as error:
            why = _reason_of(error)
            self._forget(f"{self._path}: {why}")
            raise RequestNotSent(why) from error
        stream.on_break = self._forget
        return stream

    async def _send(self, stream: ResponseReader, request: _Request) -> None:
        reach = self._reach if request.mutation else pass_by
        try:
            reach("upstream.send.before")
            await stream.write(request.raw(stream.prefix))
            if request.upload is not None:
                pieces = iter(request.upload.pieces())
                while piece := await asyncio.to_thread(next, pieces, b""):
                    await stream.write(piece)
            reach("upstream.send.after")
            reach("upstream.receive.before")
            await stream.read_head(to_head=request.method == "HEAD", hijack=request.hijack)
            reach("upstream.receive.after")
        except BaseException:
            stream.close()
            raise


@dataclass(frozen=True, slots=True)
class Upload:
    """The context of a build as a body that isn't held in memory."""

    #: Bytes of all pieces.
    length: int
    #: Returns the pieces, none of them empty. Reading one blocks.
    pieces: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes = b""
    mutation: bool = False
    hijack: bool = False
    #: True if other requests can follow on the connection.
    keep_alive: bool = False
    #: The value of X-Registry-Auth, '' for none.
    auth: str = field(default="", repr=False)
    #: Encodes the rows of a successful response.
    rows: Rows | None = None
    #: The most bytes of another response.
    bytes_max: int = REPLY_BYTES_MAX
    upload: Upload | None = None

    def __post_init__(self) -> None:
        assert _BASE64.fullmatch(self.auth), "credentials that would break the head"
        assert _TARGET.fullmatch(self.path), f"not a target for the engine: {self.path!r}"

    def raw(self, prefix: str) -> bytes:
        """Return the bytes of the request. No byte of the head comes from a client's head."""
        lines = [f"{self.method} {prefix}{self.path} HTTP/1.1", "Host: docker"]
        if self.hijack:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        elif not self.keep_alive:
            lines.append("Connection: close")
        if self.auth:
            lines.append(f"X-Registry-Auth: {self.auth}")
        if self.body:
            lines.append("Content-Type: application/json")
        if self.upload is not None:
            lines += ["Content-Type: application/x-tar", f"Content-Length: {self.upload.length}"]
        elif self.body or self.method not in BODILESS:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def pinned_version(api_version: str, oldest_served: str = "") -> str:
    """Return the API version for requests to an engine with the newest version *api_version*.

    Raises:
        EngineError: the engine's newest version is older than 1.44, or it serves none as old as 1.45.
    """
    newest = _numbers(api_version)
    if _numbers(oldest_served) > NEWEST_API:
        spoken = ".".join(map(str, NEWEST_API))
        raise EngineError(
            "engine.too-new",
            f"the engine speaks API {oldest_served} and newer, and the broker {spoken}",
            remedy="run a newer trimtab, or an engine that still serves that version (docs/engines.md)",
        )
    if newest < OLDEST_API:
        oldest = ".".join(map(str, OLDEST_API))
        raise EngineError(
            "engine.too-old",
            f"the engine speaks API {api_version or 'of no version'}, and {oldest} is needed",
            remedy="upgrade the engine to Docker 25 or newer",
        )
    return ".".join(map(str, min(newest, NEWEST_API)))


def _numbers(version: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _engine(version: dict[str, object], info: dict[str, object], pinned: str) -> ConnectedEngine:
    def number(name: str) -> int:
        value = info.get(name)
        return value if isinstance(value, int) else 0

    options = texts_of(info.get("SecurityOptions"))
    facts = EngineFacts(
        engine_id=text_member(info, "ID"),
        version=text_member(version, "Version"),
        api_version=text_member(version, "ApiVersion"),
        cpus=number("NCPU"),
        memory_bytes=number("MemTotal"),
        cdi_folders=texts_of(info.get("CDISpecDirs")),
        ignores=ignored_by_engine(info),
        image_store=image_store(info),
    )
    return ConnectedEngine(
        facts=facts,
        pinned=pinned,
        data_root=text_member(info, "DockerRootDir"),
        seccomp=any(option.startswith("name=seccomp") for option in options),
        platform=f"{text_member(version, 'Os')}/{text_member(version, 'Arch')}",
    )


def _reason_of(error: Exception) -> str:
    """Return why a connect to the engine's socket failed, without Python's error numbers."""
    match error:
        case FileNotFoundError():
            return "there is no such socket"
        case ConnectionRefusedError():
            return "the socket is there, and no engine listens on it"
        case PermissionError():
            return f"{NOT_ALLOWED} (only root and its group are)"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return str(error) or f"no connection within {CONNECT_S:g} s"
