"""An open-loop client of one address: a new request at a fixed rate, whatever became of the others.

A client that waits for each answer hides how many people a pause concerns. Arguments: the address, the port, the
requests a second, and for how many seconds a request may have neither an answer nor an error. A line is
printed for each request, when it ended, in the form of asker.py; the outcome is "ok" (status 200), "failed: REASON",
"late" if a request was answered after that time and before twice that time, or "hung". Ends when whoever started it hangs up; requests under way are waited for.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

REQUEST = b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n"


async def ask(address: str, port: int) -> str:
    """Return the outcome of one request."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(REQUEST)
            status = (await reader.readline()).split()[1:2]
            await reader.read()
        finally:
            writer.close()
    except OSError as error:
        return f"failed: {error.strerror or type(error).__name__}"
    if status == [b"200"]:
        return "ok"
    return f"failed: status {status[0].decode()}" if status else "failed: hung up"


async def request(address: str, port: int, patience_s: float) -> None:
    """Make one request, and print its line."""
    began = time.monotonic()
    try:
        outcome = await asyncio.wait_for(ask(address, port), 2 * patience_s)
        if time.monotonic() - began > patience_s:
            outcome = "late" if outcome == "ok" else "hung"
    except TimeoutError:
        outcome = "hung"
    took_ms = round((time.monotonic() - began) * 1000)
    os.write(1, f"{address}:{port}\t{outcome}\t{took_ms}\t{began:.3f}\n".encode())


async def main(address: str, port: int, per_s: int, patience_s: float) -> None:
    """Make requests until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)
    running: set[asyncio.Task[None]] = set()
    due = loop.time()
    while not ended.is_set():
        task = asyncio.create_task(request(address, port, patience_s))
        running.add(task)
        task.add_done_callback(running.discard)
        due += 1 / per_s
        try:
            await asyncio.wait_for(ended.wait(), max(0.0, due - loop.time()))
        except TimeoutError:
            continue
    await asyncio.gather(*running)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
