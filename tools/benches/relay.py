"""A bare relay to the engine: the floor of a request that passes through a process.

Run as ``python -m tools.benches.relay SOCKET ENGINE``. It judges nothing and records nothing: each
connection gets one request relayed, over a new connection to the engine. It ends with its input.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def relay(path: Path, engine: Path) -> Iterator[None]:
    """Run a relay at *path* during the block, in a session of its own as ``up`` is."""
    argv = [sys.executable, "-m", __spec__.name, str(path), str(engine)]
    process = subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    try:
        yield
    finally:
        process.communicate()


async def _serve(path: str, engine: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        from_engine, to_engine = await asyncio.open_unix_connection(engine)
        to_engine.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        writer.write(await from_engine.read())
        to_engine.close()
        writer.close()

    await asyncio.start_unix_server(handle, path)
    print("listening", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
