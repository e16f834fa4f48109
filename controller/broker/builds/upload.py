"""The upload of a context: from the connection into a file without a name, within bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO

from controller.broker.builds.context_archive import (
    BadContext,
    ContextLimits,
    JudgedContext,
    read_context,
)
from controller.broker.engine.relay import ClientStream
from controller.broker.gate.commands import ContextReceived, ContextRefused, ReceiveContext
from controller.broker.wire import CONTINUE, Malformed, StreamedBody

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
