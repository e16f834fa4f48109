"""The run of a build: the upload of its context, and its run on the engine within bounds.

The engine's classic builder ends a build, with its running command, as soon as the connection of the
request ends. So the broker ends a build by closing the connection.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from controller.broker.builds.context_archive import (
    BadContext,
    ContextLimits,
    JudgedContext,
    read_context,
)
from controller.broker.engine.client import EngineClient, Upload
from controller.broker.engine.relay import ClientStream, hang_up_of
from controller.broker.engine.response import ResponseBroken, ResponseReader
from controller.broker.gate.commands import (
    BuildEnded,
    ContextReceived,
    ContextRefused,
    Lost,
    ReceiveContext,
    RunBuild,
)
from controller.broker.wire import CONTINUE, Malformed, StreamedBody, json_reply, refusal
from controller.core.encoding.json_values import mapping_of, parse_json
from controller.core.engine_api.translate import layers_size
from controller.model.records import Reply
from controller.system.slots import SlotUser

READ_BYTES = 64 * 1024
GZIP = b"\x1f\x8b"
AGAIN, LIST = "send it again", "list what the build doesn't need in .dockerignore"
#: Bytes that are written at a time.
BATCH_BYTES = 1 << 20
#: How long the client may send nothing.
IDLE_S = 30.0
#: Free bytes that stay on the disk of the state folder, and of the engine.
DISK_FLOOR = 1 << 30
_LATE = ContextRefused("build.context", "the context didn't come in time", "send it again")


async def receive_context(
    client: ClientStream, command: ReceiveContext, folder: Path
) -> ContextReceived | ContextRefused:
    """Receive and read the context of a build. The file is the client's, and is closed with it."""
    assert client.body is not None, "a route without a streamed body"
    limits = ContextLimits(command.bytes_max, command.entries_max)
    client.body.most = limits.archive_bytes
    file: BinaryIO = await asyncio.to_thread(_new_file, folder)
    try:
        async with asyncio.timeout(command.within_s):
            await _spool(client, client.body, file, folder)
        if await asyncio.to_thread(_is_compressed, file):
            file = await asyncio.to_thread(_decompressed, file, limits, folder)
        context = await asyncio.to_thread(read_context, file, limits)
        text = await asyncio.to_thread(context.text, command.dockerfile)
    except (BadContext, TimeoutError, OSError) as error:
        file.close()
        return _refused(error)
    client.context = context
    return ContextReceived(
        digest=context.digest,
        size=context.size,
        entries=len(context.entries),
        dockerfile=text,
        archives=tuple(each.name for each in context.ordered() if each.is_archive),
    )


def context_of(client: ClientStream) -> JudgedContext | None:
    """Return the context that the client sent; None before it did."""
    context = getattr(client, "context", None)
    return context if isinstance(context, JudgedContext) else None


def free_bytes(folder: str | Path) -> int | None:
    """Return the free bytes of the disk of a folder; None if they can't be told."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _new_file(folder: Path) -> BinaryIO:
    folder.mkdir(mode=0o700, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


def _is_compressed(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(GZIP)) == GZIP


def _decompressed(packed: BinaryIO, limits: ContextLimits, folder: Path) -> BinaryIO:
    """Return the content of a file of gzip, as another file. Docker Compose compresses each context."""
    file = _new_file(folder)
    try:
        with packed:
            _decompress(packed, file, limits, folder)
    except BaseException:
        file.close()
        raise
    return file


def _decompress(packed: BinaryIO, file: BinaryIO, limits: ContextLimits, folder: Path) -> None:
    packed.seek(0)
    reader, size = zlib.decompressobj(wbits=31), 0
    while data := reader.unconsumed_tail or packed.read(READ_BYTES):
        if reader.eof:
            raise BadContext("build.context", "data follows the compressed archive", AGAIN)
        try:
            part = reader.decompress(data, BATCH_BYTES)
        except zlib.error:
            raise BadContext("build.context", "the compression is damaged", AGAIN) from None
        size += len(part)
        if size > limits.archive_bytes:
            what = f"the decompressed context passes {limits.archive_bytes} bytes"
            raise BadContext("build.context-size", what, LIST)
        _write_blocking(file, part, folder)
    if not reader.eof or reader.unused_data:
        raise BadContext("build.context", "the compressed archive has no right end", AGAIN)


def _refused(error: BadContext | TimeoutError | OSError) -> ContextRefused:
    match error:
        case BadContext():
            return ContextRefused(error.code, error.reason, error.remedy)
        case TimeoutError():
            return _LATE
        case _:
            why = error.strerror or "a failure of the disk"
            return ContextRefused(
                "build.storage", f"the context can't be kept: {why}", "free space"
            )


async def _spool(client: ClientStream, body: StreamedBody, file: BinaryIO, folder: Path) -> None:
    if body.wants_continue:
        client.writer.write(CONTINUE)
    batch = bytearray(_checked(body.first()))
    while not body.complete:
        async with asyncio.timeout(IDLE_S):
            data = await client.reader.read(READ_BYTES)
        if not data:
            raise BadContext("build.context", "the context broke off", "send it again")
        batch += _checked(body.feed(data))
        if len(batch) >= BATCH_BYTES:
            await _write(file, batch, folder)
        await asyncio.sleep(0)
    await _write(file, batch, folder)


def _checked(part: bytes | Malformed) -> bytes:
    if isinstance(part, Malformed):
        code = "build.context-size" if part.rule == "wire.body-size" else part.rule
        raise BadContext(code, part.reason, LIST)
    return part


async def _write(file: BinaryIO, batch: bytearray, folder: Path) -> None:
    data = bytes(batch)
    batch.clear()
    await asyncio.to_thread(_write_blocking, file, data, folder)


def _write_blocking(file: BinaryIO, data: bytes, folder: Path) -> None:
    free = free_bytes(folder)
    if free is not None and free < DISK_FLOOR + len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.write(data)
    file.flush()


#: How often the broker looks at a build, and how much of the time it looks at most.
LOOK_S, LOOK_SHARE = 1.0, 10
READ_S = 15.0
#: Bytes of a log that the client gets, and beyond which the build ends.
SHOWN_MAX, LOG_MAX = 16 << 20, 64 << 20
LINE_MAX = 1 << 20
#: Containers and images that a log may name. A program can print lines as the engine's.
NAMED_MAX = 256
_CUT = json.dumps({"stream": f"[the log passes {SHOWN_MAX} bytes: the rest isn't shown]\n"})
_RUNNING = re.compile(r" ---> Running in ([0-9a-f]{12,64})\n?", re.ASCII)
_LAYER = re.compile(r" ---> ([0-9a-f]{12,64})\n?", re.ASCII)
_BUILT = re.compile(r"Successfully built [0-9a-f]{12}\n", re.ASCII)
_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound that a build passed."""

    code: str
    reason: str
    remedy: str = "make it smaller, or let root raise images.build in the policy"

    @property
    def reply(self) -> Reply:
        """The reply to the client."""
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return refusal(status, self.code, f"the build was ended: {self.reason}", remedy=self.remedy)


class _Passed(Exception):
    def __init__(self, bound: Bound) -> None:
        super().__init__(bound.reason)
        self.bound = bound


async def run_build(
    engine: EngineClient,
    client: ClientStream,
    context: JudgedContext,
    command: RunBuild,
    user: SlotUser,
) -> BuildEnded:
    """Run a build to its end, to a bound, or until the client goes away."""
    build = _Build(engine, client, context, command, user)
    answer = await _run_to_end(build, client, command)
    return BuildEnded(answer, tuple(build.named), tuple(build.running))


async def _run_to_end(build: _Build, client: ClientStream, command: RunBuild) -> Reply | Lost:
    async with hang_up_of(client) as hang_up:
        work = asyncio.create_task(build.run())
        others = (asyncio.create_task(build.watch()), asyncio.create_task(hang_up.wait()))
        tasks: tuple[asyncio.Task[Any], ...] = (work, *others)
        try:
            await asyncio.wait(tasks, timeout=command.within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task.cancelled() or (error := task.exception()) is None:
            continue
        if not isinstance(error, _Passed):
            raise error
        return error.bound.reply
    if not work.cancelled():
        return work.result()
    if client.gone or hang_up.is_set():
        return Bound("build.cancelled", "its client went away", "start it again").reply
    return Bound("build.time", f"it took longer than {command.within_s:.0f} s").reply


@dataclass(slots=True)
class _Build:
    engine: EngineClient
    client: ClientStream
    context: JudgedContext
    command: RunBuild
    user: SlotUser
    #: Bytes of the engine's log.
    logged: int = 0
    image: str = ""
    error: str = ""
    #: Containers and layers that the log named, and the files of containers in bytes, by id.
    running: dict[str, None] = field(default_factory=dict)
    layers: dict[str, None] = field(default_factory=dict)
    #: All layers that it named, in their order.
    named: dict[str, None] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)

    async def run(self) -> Reply | Lost:
        """Send the context, and read the log to its end."""
        self.context.replaced = {self.command.dockerfile: self.command.text.encode()}
        stream = await self.engine.open(
            "POST",
            self.command.path,
            Upload(self.context.length(), self.context.pieces),
            mutation=True,
            user=self.user,
            deadline_s=self.command.within_s,
        )
        if isinstance(stream, Lost):
            return stream
        try:
            if stream.status >= HTTPStatus.MULTIPLE_CHOICES:
                return await stream.read_whole()
            await self._read(stream)
        except ResponseBroken as error:
            return Lost(str(error))
        finally:
            stream.close()
        if self.error or not self.image:
            said = self.error or "the engine named no image"
            return refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "build.failed", said)
        return json_reply(HTTPStatus.OK, {"Id": self.image})

    async def _read(self, stream: ResponseReader) -> None:
        if not self.client.began:
            await self.client.begin(stream.status, (("Content-Type", "application/json"),))
        rest = b""
        async for part in stream.chunks():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > LINE_MAX:
                raise _Passed(Bound("build.log", f"a line of its log passes {LINE_MAX} bytes"))
            shown = [line for each in lines if (line := self._take(each.strip()))]
            await self._show(shown)
        await self._show([line] if (line := self._take(rest.strip())) else [])

    async def _show(self, lines: list[bytes]) -> None:
        data = b"".join(line + b"\r\n" for line in lines)
        before, self.logged = self.logged, self.logged + len(data)
        if self.logged > LOG_MAX:
            raise _Passed(Bound("build.log", f"its log passes {LOG_MAX} bytes", "print less"))
        if not data or before > SHOWN_MAX:
            await asyncio.sleep(0)
        elif self.logged > SHOWN_MAX:
            await self.client.send(_CUT.encode() + b"\r\n")
        else:
            await self.client.send(data)

    def _take(self, line: bytes) -> bytes | None:
        """Learn from a line; return the line for the client."""
        if not line:
            return None
        told: object = None
        with suppress(ValueError):
            told = parse_json(line)
        message = mapping_of(told)
        if "error" in message or "errorDetail" in message:
            detail = mapping_of(message.get("errorDetail"))
            self.error = str(message.get("error") or detail.get("message") or "the build failed")
            return None
        text, aux = message.get("stream"), mapping_of(message.get("aux")).get("ID")
        if isinstance(aux, str) and _ID.fullmatch(aux):
            self.image = aux
        if isinstance(text, str):
            self._note(_RUNNING.fullmatch(text), self.running)
            self._note(_LAYER.fullmatch(text), self.layers)
            self._note(_LAYER.fullmatch(text), self.named)
        if self.command.quiet:
            return None
        if isinstance(text, str) and _BUILT.fullmatch(text):
            # SDKs ask for the image by this id: a short one isn't told apart from a name.
            text = f"Successfully built {self.image.removeprefix('sha256:')}\n"
            return json.dumps({"stream": text}).encode()
        return line

    def _note(self, match: re.Match[str] | None, named: dict[str, None]) -> None:
        if match is None:
            return
        named[match[1]] = None
        if len(named) > NAMED_MAX:
            raise _Passed(Bound("build.log", "its log names too many containers or images"))

    async def watch(self) -> None:
        """Look at the build from time to time. Raises _Passed at a bound."""
        loop = asyncio.get_running_loop()
        while True:
            begin = loop.time()
            await self._look()
            await asyncio.sleep(max(LOOK_S, LOOK_SHARE * (loop.time() - begin)))

    async def _look(self) -> None:
        root = self.engine.engine.data_root if self.engine.engine is not None else ""
        free = await asyncio.to_thread(free_bytes, root) if root else None
        if free is not None and free < DISK_FLOOR:
            raise _Passed(Bound("build.disk", "the engine's disk is nearly full", "free space"))
        for layer in (*self.layers,):
            history = await self._read_json(f"/images/{layer}/history")
            del self.layers[layer]
            self._check_size(layers_size(history))
        for container in (*self.running,):
            await self._look_at(container)
        self._check_size(sum(self.written.values()))

    async def _look_at(self, container: str) -> None:
        shown = await self._read_json(f"/containers/{container}/stats?stream=false&one-shot=true")
        stats = mapping_of(shown)
        if not stats:
            del self.running[container]  # it ended, and the engine removed it
            return
        processes = _whole(mapping_of(stats.get("pids_stats")).get("current"))
        if processes > self.command.pids_max:
            reason = f"a command has {processes} processes, at most {self.command.pids_max}"
            raise _Passed(Bound("build.pids", reason))
        found = await self._read_json(f"/containers/{container}/json?size=true")
        size = _whole(mapping_of(found).get("SizeRw"))
        self.written[container] = max(size, self.written.get(container, 0))

    def _check_size(self, size: int) -> None:
        if size > self.command.bytes_max:
            raise _Passed(Bound("build.size", f"it wrote more than {self.command.bytes_max} bytes"))

    async def _read_json(self, path: str) -> object:
        reply = await self.engine.read("GET", path, deadline_s=READ_S)
        if not isinstance(reply, Reply) or reply.status != HTTPStatus.OK:
            return None
        with suppress(ValueError):
            return parse_json(reply.body)
        return None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
