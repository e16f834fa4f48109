"""The broker's client to the engine, over the engine's Unix socket.

A mutation, and whatever is relayed, has a connection of its own. Looks share a few that are kept.
Paths get one pinned API version, the lower of 1.45 and the engine's: the gate's schemas were
written for it. A mutation is sent once and never again. Whether it reached the engine is told
apart from whether its answer came: ``Lost(sent=False)`` certainly changed nothing. A look may be
asked again, once: where a connection that was kept ended meanwhile. Then whoever answers next may
be another engine, and is asked who it is first.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from controller.broker.engine.response import READ_BYTES, ResponseBroken, ResponseReader, TooLong
from controller.broker.gate.commands import NOT_ALLOWED, Lost, engine_remedy
from controller.broker.wire.request_reader import BODILESS
from controller.core.encoding.json_members import (
    text_member,
    texts_of,
)
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import EngineError, EngineUnavailable, TrimtabError
from controller.model.records import Reply
from controller.ports import EngineFacts

PINNED_API = (1, 45)
OLDEST_API = (1, 44)
CONNECT_S = 5.0
FACTS_S = 15.0
#: Time for the head of a relayed answer; its body may take for ever.
HEAD_S = 60.0
#: Connections that are kept between looks, and how long they may have been idle.
KEPT_MAX = 8
KEPT_S = 30.0

_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
_BASE64 = re.compile(r"[A-Za-z0-9_=-]*", re.ASCII)
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)


class RequestNotSent(Exception):
    """Nothing of the request reached the engine."""


@dataclass(frozen=True, slots=True)
class ConnectedEngine:
    """The engine that answers: its facts, and what of the host belongs to it."""

    facts: EngineFacts
    pinned: str  # "1.45"
    data_root: str
    platform: str  # os/architecture
    seccomp: bool = True  # it can filter system calls


class EngineClient:
    """The engine behind its socket.

    ``admit`` is called with each engine that answers for the first time since it was gone, before
    anything else is sent to it; what it raises keeps the engine out of reach.
    """

    def __init__(
        self,
        path: str,
        *,
        admit: Callable[[ConnectedEngine], None] = lambda _engine: None,
        reach: Reach = pass_by,
    ) -> None:
        self._path = path
        self._admit = admit
        self._reach = reach
        self._engine: ConnectedEngine | None = None
        self._asking: asyncio.Task[ConnectedEngine] | None = None
        self._kept: list[tuple[ResponseReader, float]] = []  # the one that was used last at the end
        self.error = "nobody asked it yet"  # why the engine isn't known; '' while it is

    @property
    def known(self) -> ConnectedEngine | None:
        """The engine that answered last, None once it was gone."""
        return self._engine

    async def meet(self) -> ConnectedEngine:
        """Return the engine, asking who it is where that isn't known; all callers ask once.

        Raises:
            EngineUnavailable: nobody answers.
            EngineError: it is too old.
            TrimtabError: ``admit`` doesn't take it.
        """
        if self._engine is not None:
            return self._engine
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        # One caller's end doesn't end the question of the others.
        return await asyncio.shield(self._asking)

    async def look(
        self, method: str, path: str, *, auth: str = "", deadline_s: float
    ) -> Reply | Lost:
        """Read from the engine; *auth* are credentials that it needs for it."""
        request = _Request(method, path, keeps=True, auth=auth)
        kept = self._take_kept()
        if kept is not None:
            answer = await self._over(kept, request, deadline_s)
            if isinstance(answer, Reply) or kept.heard or self._engine is not None:
                return answer
            # It had ended, as when an engine restarts: the engine is asked who it is, and again.
        return await self._answer(request, deadline_s)

    async def forward(
        self, method: str, path: str, body: bytes, *, deadline_s: float
    ) -> Reply | Lost:
        """Send a mutation once, and return its whole answer."""
        request = _Request(method, path, body, mutation=True)
        return await self._answer(request, deadline_s)

    async def open(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        mutation: bool,
        hijack: bool = False,
        auth: str = "",
        deadline_s: float = HEAD_S,
    ) -> ResponseReader | Lost:
        """Send a request and return its answer, opened; the caller closes it."""
        request = _Request(method, path, body, mutation=mutation, hijack=hijack, auth=auth)
        try:
            stream = await self._connect()
            async with asyncio.timeout(deadline_s):
                await self._send(stream, request)
        except (RequestNotSent, ResponseBroken, TimeoutError) as error:
            return self._lost(error, deadline_s)
        return stream

    async def _answer(self, request: _Request, deadline_s: float) -> Reply | Lost:
        try:
            stream = await self._connect()
        except RequestNotSent as error:
            return self._lost(error, deadline_s)
        return await self._over(stream, request, deadline_s)

    async def _over(
        self, stream: ResponseReader, request: _Request, deadline_s: float
    ) -> Reply | Lost:
        """Send a request over a connection, and return the whole answer."""
        keeps = False
        try:
            async with asyncio.timeout(deadline_s):
                await self._send(stream, request)
                reply = await stream.whole()
            keeps = request.keeps and stream.reusable
        except (ResponseBroken, TimeoutError) as error:
            return self._lost(error, deadline_s)
        finally:
            if keeps:
                self._keep(stream)
            else:
                stream.close()
        return reply

    # What is kept belongs to the engine that is known: it is let go with it.

    def _keep(self, stream: ResponseReader) -> None:
        if self._engine is not stream.engine or len(self._kept) >= KEPT_MAX:
            stream.close()
            return
        stream.rest()
        self._kept.append((stream, asyncio.get_running_loop().time()))

    def _take_kept(self) -> ResponseReader | None:
        """Return a connection for the next look, None where there is none.

        One that ended means that the engine may be another: then it isn't known any more.
        """
        self._let_go_idle()
        if not self._kept:
            return None
        kept, _ = self._kept.pop()
        again = kept.again()
        if again is None:
            kept.close()
            self._forget("it ended a connection")
        return again

    def _let_go_idle(self) -> None:
        """Let go what wasn't used for long: the first ones are the oldest."""
        now = asyncio.get_running_loop().time()
        while self._kept and now - self._kept[0][1] > KEPT_S:
            self._kept.pop(0)[0].close()

    def close(self) -> None:
        """End the connections that are kept."""
        for kept, _ in self._kept:
            kept.close()
        self._kept.clear()

    def _lost(self, error: Exception, deadline_s: float) -> Lost:
        match error:
            case RequestNotSent():
                return Lost(str(error), sent=False)
            case TimeoutError():
                return Lost(f"the engine didn't answer within {deadline_s:g} s")
            case TooLong():
                return Lost(str(error))  # it is there, and who it was
            case _:
                # Whoever answers next may be another engine, or another version.
                self._forget(str(error))
                return Lost(str(error))

    def _forget(self, why: str) -> None:
        self._engine, self.error = None, why
        self.close()

    def _asked(self, asking: asyncio.Task[ConnectedEngine]) -> None:
        self._asking = None
        if not asking.cancelled() and (error := asking.exception()) is not None:
            self.error = str(error)

    async def _ask(self) -> ConnectedEngine:
        try:
            async with asyncio.timeout(FACTS_S):
                version = await self._facts("/version")
                pinned = pinned_version(str(version.get("ApiVersion", "")))
                info = await self._facts(f"/v{pinned}/info")
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

    async def _facts(self, path: str) -> dict[str, object]:
        stream = await self._open_connection()
        try:
            await self._send(stream, _Request("GET", path))
            reply = await stream.whole()
        finally:
            stream.close()
        try:
            value = json.loads(reply.body)
        except ValueError:
            value = None
        if reply.status != HTTPStatus.OK or not isinstance(value, dict):
            raise ResponseBroken(f"GET {path} answered {reply.status}")
        return value

    async def _connect(self) -> ResponseReader:
        try:
            engine = await self.meet()
        except TrimtabError as error:
            away = isinstance(error, EngineUnavailable)
            raise RequestNotSent(error.message if away else str(error)) from error
        stream = await self._open_connection()
        stream.prefix, stream.engine = f"/v{engine.pinned}", engine
        return stream

    async def _open_connection(self) -> ResponseReader:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=READ_BYTES)
        except (OSError, TimeoutError) as error:
            why = _words(error)
            self._forget(f"{self._path}: {why}")
            raise RequestNotSent(why) from error
        stream = ResponseReader(reader, writer)
        stream.on_break = self._forget
        return stream

    async def _send(self, stream: ResponseReader, request: _Request) -> None:
        reach = self._reach if request.mutation else pass_by
        try:
            reach("upstream.send.before")
            await stream.write(request.raw(stream.prefix))
            reach("upstream.send.after")
            reach("upstream.receive.before")
            await stream.read_head(to_head=request.method == "HEAD", hijack=request.hijack)
            reach("upstream.receive.after")
        except BaseException:
            stream.close()
            raise


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes = b""
    mutation: bool = False
    hijack: bool = False
    keeps: bool = False  # the connection is for others too
    auth: str = field(default="", repr=False)  # for the registry that the engine asks

    def __post_init__(self) -> None:
        assert _BASE64.fullmatch(self.auth), "credentials that would break the head"
        assert _TARGET.fullmatch(self.path), f"not a target for the engine: {self.path!r}"

    def raw(self, prefix: str) -> bytes:
        """Return the request's bytes; none of them came from a client's head."""
        lines = [f"{self.method} {prefix}{self.path} HTTP/1.1", "Host: docker"]
        if self.hijack:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        elif not self.keeps:
            lines.append("Connection: close")
        if self.auth:
            lines.append(f"X-Registry-Auth: {self.auth}")
        if self.body:
            lines.append("Content-Type: application/json")
        if self.body or self.method not in BODILESS:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def _has_seccomp(info: dict[str, object]) -> bool:
    options = texts_of(info.get("SecurityOptions"))
    return any(option.startswith("name=seccomp") for option in options)


def pinned_version(api_version: str) -> str:
    """Return the API version to speak with an engine whose newest is *api_version*.

    Raises:
        EngineError: it is older than 1.44.
    """
    match = _VERSION.fullmatch(api_version)
    newest = (int(match[1]), int(match[2])) if match else (0, 0)
    if newest < OLDEST_API:
        oldest = ".".join(map(str, OLDEST_API))
        raise EngineError(
            "engine.too-old",
            f"the engine speaks API {api_version or 'of no version'}, and {oldest} is needed",
            remedy="upgrade the engine to Docker 25 or newer",
        )
    return ".".join(map(str, min(newest, PINNED_API)))


def _engine(version: dict[str, object], info: dict[str, object], pinned: str) -> ConnectedEngine:
    def number(name: str) -> int:
        value = info.get(name)
        return value if isinstance(value, int) else 0

    facts = EngineFacts(
        engine_id=text_member(info, "ID"),
        version=text_member(version, "Version"),
        api_version=text_member(version, "ApiVersion"),
        cpus=number("NCPU"),
        memory_bytes=number("MemTotal"),
    )
    return ConnectedEngine(
        facts=facts,
        pinned=pinned,
        data_root=text_member(info, "DockerRootDir"),
        seccomp=_has_seccomp(info),
        platform=f"{text_member(version, 'Os')}/{text_member(version, 'Arch')}",
    )


def _words(error: Exception) -> str:
    """Return why the engine's socket can't be connected to, without Python's numbers."""
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
