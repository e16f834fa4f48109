"""A broker in a thread of this process, on a real engine: for tests that choose its limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from controller.app.process import SystemClock, new_id
from controller.broker.dispatch import handle
from controller.broker.server.server import Broker, BrokerPaths, HostServices, ServerLimits
from controller.journal.index.queries import LiveIndex
from controller.journal.writer.writer_thread import Writer

if TYPE_CHECKING:
    from controller.model.policy.document import Policy
    from tests.engine import FoundEngine, PrivateEngine


LIMITS = ServerLimits()


@contextmanager
def served(
    engine: PrivateEngine | FoundEngine,
    root: Path,
    *,
    policy: Policy,
    limits: ServerLimits = LIMITS,
) -> Iterator[Path]:
    """Serve while the block runs; gives the socket. What was made through it is removed."""
    (root / "broker" / "journal").mkdir(parents=True, mode=0o700)
    clock = SystemClock()
    broker = Broker(
        BrokerPaths(
            state=root,
            socket=root / "run" / "broker.sock",
            policy=root / "policy.yaml",
            engine=engine.host,
        ),
        instance=new_id()[-12:],
        controller_uid=54321,
        group=None,
        handle=handle,
        services=HostServices(
            clock=clock,
            new_id=new_id,
            load_policy=lambda: policy,
            open_journal=lambda: Writer(root / "broker" / "journal", clock=clock, new_id=new_id),
            open_archive=lambda journal: LiveIndex(
                root / "broker" / "journal", durable=lambda: journal.last_seq, clock=clock
            ),
            bind_engine=lambda _: None,
        ),
        limits=limits,
    )
    loop = asyncio.new_event_loop()
    stop, ready, is_ready = asyncio.Event(), asyncio.Event(), threading.Event()

    async def serve() -> None:
        task = asyncio.ensure_future(broker.serve(stop, ready=ready))
        await ready.wait()
        is_ready.set()
        await task

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert is_ready.wait(30)
    try:
        yield root / "run" / "broker.sock"
        ours = f"label=io.trimtab.instance={broker.state.instance}"
        for kind in ("container", "network"):
            found = engine.docker(
                kind, "ls", "--quiet", "--filter", ours, *ALL[kind]
            ).stdout.split()
            if found:
                engine.docker(kind, "rm", *FORCE[kind], *found)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive(), "the broker ends within its grace"
        loop.close()


ALL = {"container": ["--all"], "network": []}
FORCE = {"container": ["--force"], "network": []}
