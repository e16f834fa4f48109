"""The broker: serves its socket from claim to release.

In this order: the lock, the journal, the inventory, the engine's identity, the socket. What fails
before the socket is there ends the broker; the engine alone may be away, for as long as it likes.
Ended by SIGTERM or SIGINT, or by its parent's end (the lifeline): streams are cut, requests get
their answers within the grace, and the inventory is saved.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import cast

from controller.broker.engine.client import ConnectedEngine, EngineClient
from controller.broker.gate import redact
from controller.broker.gate.call import BROKER
from controller.broker.gate.journal_entries import actor_of
from controller.broker.gate.state import GateState
from controller.broker.guards import split_brain
from controller.broker.host import listen_socket
from controller.broker.host.path_inspector import PathInspector, guarded
from controller.broker.host.peer_credentials import PeerRules, peer_of, uid_of
from controller.broker.host.registry_credentials import Credentials, Registrar
from controller.broker.host.routes import host_routes
from controller.broker.server.connection import (
    Connection,
    ConnectionContext,
    ConnectionTimeouts,
    HandleRequest,
)
from controller.broker.server.connection_slots import ConnectionSlots, SlotLimits
from controller.broker.server.driver import Driver
from controller.broker.server.fair_queue import FairQueue
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.server.record_limiter import RecordLimiter
from controller.broker.server.record_store import RecordStore
from controller.broker.server.recovery_task import Mending
from controller.broker.server.watch_task import Lookout
from controller.broker.server.watching import ExecReaper
from controller.broker.wire.responses import refusal, reply_bytes
from controller.core.encoding.engine_address import socket_path
from controller.core.enforcement.rate_limit import Limit
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import CredentialsInvalid, EngineError, PolicyInvalid
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory
from controller.model.policy.document import Policy
from controller.model.records import Entry
from controller.ports import Archive, Clock, EngineFacts, NewId, QueuedJournal
from controller.system.file_lock import hold_lock_async

LOG = logging.getLogger(__name__)
READ_BYTES = 64 * 1024
#: Connections beyond the limit that may wait for their refusal, and how long.
TURNED_AWAY_MAX = 64
TURN_AWAY_S = 0.5
#: Connections that are taken in one round of the loop, however many wait.
ACCEPTED_AT_ONCE = 16
#: How long a thread may compute while another has something to do: the journal's waits for the loop
#: at each record.
SWITCH_S = 0.0005
NOBODY_YET = EngineFacts("", "", "", 0, 0)


@dataclass(frozen=True, slots=True)
class BrokerPaths:
    """Where everything is. ``desired_state`` None: no container is kept off that directory.

    ``registry_auth`` None: there are no credentials for registries.
    """

    state: Path
    socket: Path
    policy: Path
    engine: str  # unix:///PATH
    desired_state: Path | None = None
    registry_auth: Path | None = None
    registry_auth_required: bool = True

    @property
    def folder(self) -> Path:
        """The broker's own folder in the state folder."""
        return self.state / "broker"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Numbers, each with its reason beside it."""

    connections: int = 256
    #: A client that holds many leaves enough for controller and operators.
    connections_of_a_client: int = 64
    #: That many are left to controller and operators, however many clients there are.
    reserved: int = 64
    #: Beyond, so many connections wait so long for one to end; nothing of them is read.
    waiting: int = 1024
    wait_s: float = 10.0
    #: Refusals and reads that are recorded one by one.
    records: Limit = field(default_factory=Limit)
    grace_s: float = 4.0  # of the 5 s in which the broker ends, some are for saving
    save_s: float = 60.0
    patience: ConnectionTimeouts = field(default_factory=ConnectionTimeouts)


@dataclass(frozen=True, slots=True)
class HostServices:
    """What the broker needs of its process: each comes from the composition root.

    ``load_policy`` and ``open_journal`` block, and raise PolicyInvalid and StateError.
    ``bind_engine`` remembers the engine's id, or raises StateError for another engine's.
    """

    clock: Clock
    new_id: NewId
    load_policy: Callable[[], Policy]
    open_journal: Callable[[], QueuedJournal]
    open_archive: Callable[[QueuedJournal], Archive]
    bind_engine: Callable[[str], None]
    hash_key: bytes = b""
    reach: Reach = pass_by


class Broker:
    """One broker of one instance. ``group`` is trimtab's gid: the socket's, and the clients'."""

    def __init__(
        self,
        places: BrokerPaths,
        *,
        instance: str,
        controller_uid: int,
        group: int | None,
        handle: HandleRequest,
        outside: HostServices,
        limits: ServerLimits = ServerLimits(),
    ) -> None:
        self._places = places
        self._handle = handle
        self._outside = outside
        self._limits = limits
        self._rules = PeerRules(controller_uid=controller_uid, own_uid=os.geteuid(), group=group)
        self._engine_socket = socket_path(places.engine)
        self._credentials = Credentials(
            places.registry_auth,
            required=places.registry_auth_required,
            own_uid=self._rules.own_uid,
        )
        self._credentials.load()
        self.state = GateState(
            policy=outside.load_policy(),
            inventory=Inventory(),
            instance=instance,
            engine=NOBODY_YET,
            clock=outside.clock,
            new_id=outside.new_id,
            start_monotonic=outside.clock.monotonic(),
            hash_key=outside.hash_key,
            routes=host_routes,
        )
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._seats = ConnectionSlots(
            SlotLimits(
                all=limits.connections,
                of_a_client=limits.connections_of_a_client,
                reserved=limits.reserved,
                waiting=limits.waiting,
                wait_s=limits.wait_s,
            ),
            trusted=self._is_trusted,
        )
        self._turns = FairQueue(self._is_trusted)
        self._waiting: set[asyncio.Task[None]] = set()
        self._turning_away = 0
        self._background: set[asyncio.Task[None]] = set()

    def run(self, *, lifeline: int | None = None) -> None:
        """Serve until a signal or the lifeline's end. Call it in the main thread.

        Raises:
            StateError: another broker serves, the state folder can't be used, or it is another
                engine's.
        """
        sys.setswitchinterval(SWITCH_S)
        asyncio.run(self._run(lifeline))

    async def _run(self, lifeline: int | None) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        reload = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        if lifeline is not None:
            loop.add_reader(lifeline, self._pulled, lifeline, stop)
        await self.serve(stop, reload=reload)

    @staticmethod
    def _pulled(lifeline: int, stop: asyncio.Event) -> None:
        """See what came of the lifeline: nothing but its end is ever written there."""
        if not os.read(lifeline, 1):
            asyncio.get_running_loop().remove_reader(lifeline)
            LOG.info("broker.orphaned: its parent is gone")
            stop.set()

    async def serve(
        self,
        stop: asyncio.Event,
        *,
        reload: asyncio.Event | None = None,
        ready: asyncio.Event | None = None,
    ) -> None:
        """Serve until *stop* is set; each setting of *reload* loads policy and credentials anew.

        *ready* is set once clients are served.

        Raises:
            StateError: as ``run``.
        """
        async with AsyncExitStack() as stack:
            books, archive = await stack.enter_async_context(self._claimed())
            upstream = EngineClient(
                self._engine_socket, admit=self._admit, reach=self._outside.reach
            )
            stack.callback(upstream.close)
            await self._meet(upstream)
            outside = self._outside
            meter = RecordLimiter(
                books.write, clock=outside.clock, new_id=outside.new_id, limit=self._limits.records
            )
            asking = JournalQueries(archive)

            def left_open() -> None:
                mending.wake()

            driver = Driver(
                upstream=upstream,
                books=books,
                meter=meter,
                asking=asking,
                examine=self._examine,
                authorise=Registrar(self._credentials, lambda: self._tell_access(meter)),
                left_open=left_open,
            )
            stack.push_async_callback(driver.close)
            mending = Mending(driver=driver, state=self.state, upstream=upstream)
            lookout = Lookout(driver=driver, state=self.state, upstream=upstream)
            service = ConnectionContext(
                driver=driver,
                handle=self._handle,
                state=self.state,
                rules=self._present_rules,
                turns=self._turns,
                asking=asking,
                patience=self._limits.patience,
                reach=self._outside.reach,
            )
            await driver.write(self._policy_entry())
            await self._tell_access(meter)
            self._start(mending.run())
            self._start(mending.forget())
            self._start(lookout.listen())
            self._start(lookout.look())
            self._start(ExecReaper(driver=driver, state=self.state).run())
            self._start(self._save_now_and_then(books))
            self._start(self._reload(reload or asyncio.Event(), meter))
            listener = listen_socket.listen(self._places.socket, group=self._rules.group)
            status = self._places.socket.lstat()
            identity = (status.st_dev, status.st_ino)
            stack.callback(listen_socket.remove_socket, self._places.socket, identity)
            server = await self._listen(listener, service, mending)
            LOG.info(
                "broker.serving socket=%s instance=%s", self._places.socket, self.state.instance
            )
            if ready is not None:
                ready.set()
            try:
                await stop.wait()
            finally:
                server.close()
                await self._wind_down(meter)
        LOG.info("broker.ended")

    # Start and end.

    @asynccontextmanager
    async def _claimed(self) -> AsyncIterator[tuple[RecordStore, Archive]]:
        """Hold lock and journal, with the inventory brought up to it, and its index on the way."""
        outside = self._outside
        lock = await hold_lock_async(
            self._places.folder / "lock", program="broker", monotonic=outside.clock.monotonic
        )
        try:
            journal = await asyncio.to_thread(outside.open_journal)
            try:
                snapshot = self._places.folder / "inventory.json"
                archive = outside.open_archive(journal)
                try:
                    books = RecordStore(
                        journal, self.state, snapshot, archive=archive, reach=outside.reach
                    )
                    await asyncio.to_thread(books.load)
                    self.state.start_seq = journal.last_seq
                    split_brain.begin_in_doubt(self.state)
                    self.state.health.journal_error = journal.error
                    yield books, archive
                    await books.settled()
                    books.save()
                finally:
                    await asyncio.to_thread(archive.close)
            finally:
                await asyncio.to_thread(journal.close)
        finally:
            os.close(lock)

    async def _meet(self, upstream: EngineClient) -> None:
        """Ask who the engine is. It may be away; that it is another one ends the broker."""
        try:
            await upstream.meet()
        except EngineError as error:
            LOG.warning("engine.away error=%s", error)

    def _admit(self, engine: ConnectedEngine) -> None:
        self._outside.bind_engine(engine.facts.engine_id)
        self.state.engine = engine.facts
        self.state.seccomp = engine.seccomp
        if engine.data_root:
            self.state.volumes_root = f"{engine.data_root.rstrip('/')}/volumes"
        LOG.info(
            "engine.known id=%s version=%s api=%s speaking=%s",
            engine.facts.engine_id,
            engine.facts.version,
            engine.facts.api_version,
            engine.pinned,
        )

    def _start(self, running: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(running)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _wind_down(self, meter: RecordLimiter) -> None:
        """End all connections: at once where nothing is due, the others within the grace.

        What was counted of refusals is written at once, so that their answers needn't wait.
        """
        for waiting in self._waiting:
            waiting.cancel()
        for task, connection in self._serving.items():
            connection.closing = True
            if not connection.busy:
                task.cancel()
        await meter.close()
        if self._serving:
            await asyncio.wait(tuple(self._serving), timeout=self._limits.grace_s)
        ending = (*self._waiting, *self._serving, *self._background)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await meter.close()  # what was asked for meanwhile

    # Connections.

    async def _listen(
        self, listener: socket.socket, service: ConnectionContext, mending: Mending
    ) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "a connection is served by a task"
            transport = cast("asyncio.Transport", writer.transport)
            transport.pause_reading()  # who waits is given nothing
            caller = writer.get_extra_info("socket")
            self._waiting.add(task)
            try:
                await self._turns.take(uid_of(caller))
                peer = peer_of(caller)
                seated = await self._seats.take(peer.uid)
            except (OSError, asyncio.CancelledError):  # it hung up, or the broker ends
                writer.close()
                return
            finally:
                self._waiting.discard(task)
            transport.resume_reading()
            if not seated:
                await self._turn_away(reader, writer)
                return
            crowded = partial(self._seats.wanted, peer.uid)
            connection = Connection(reader, writer, peer=peer, service=service, crowded=crowded)
            await self._serve_connection(task, connection)
            self._seats.leave(peer.uid)
            mending.wake()

        # What is given here as the backlog is how many are taken in one go as well.
        return await asyncio.start_unix_server(
            connected, sock=listener, limit=READ_BYTES, backlog=ACCEPTED_AT_ONCE
        )

    async def _serve_connection(self, task: asyncio.Task[None], connection: Connection) -> None:
        self._serving[task] = connection
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # the broker ends: nobody waits for this task's answer
        finally:
            del self._serving[task]

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer 503, after reading the request: closing with bytes unread would cut it off."""
        reply = refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "broker.busy",
            "too many connections are open",
            remedy="close some, or wait",
        )
        try:
            if self._turning_away < TURNED_AWAY_MAX:
                self._turning_away += 1
                try:
                    async with asyncio.timeout(TURN_AWAY_S):
                        await reader.read(READ_BYTES)
                finally:
                    self._turning_away -= 1
            writer.write(reply_bytes(reply, to_head=False, keep_alive=False))
        except (TimeoutError, OSError):
            pass  # it asked for nothing, or is gone
        finally:
            writer.close()

    def _is_trusted(self, uid: int) -> bool:
        rules = self._present_rules()
        return uid in rules.operating or uid == rules.controller_uid

    def _present_rules(self) -> PeerRules:
        """Return who is who by the policy in force."""
        policy = self.state.policy
        return replace(
            self._rules,
            operators=frozenset(policy.operators),
            clients=tuple((client.uid, client.owner) for client in policy.clients),
            container_peers=frozenset(policy.container_peers),
        )

    def _examine(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        places = self._places
        root = self.state.volumes_root.removesuffix("/volumes")
        protected = guarded(
            state=str(places.state),
            policy=str(places.policy),
            desired_state=str(places.desired_state or ""),
            sockets=(
                ("broker socket", str(places.socket)),
                ("engine socket", self._engine_socket),
            ),
            credentials=str(places.registry_auth or ""),
            engine_data=root,
        )
        return PathInspector(protected, own_uid=self._rules.own_uid).examine(paths)

    # In the background.

    async def _save_now_and_then(self, books: RecordStore) -> None:
        while True:
            await asyncio.sleep(self._limits.save_s)
            await asyncio.to_thread(books.save)

    async def _reload(self, reload: asyncio.Event, meter: RecordLimiter) -> None:
        while True:
            await reload.wait()
            reload.clear()
            try:
                self.state.policy = await asyncio.to_thread(self._outside.load_policy)
                self.state.health.policy_error = ""
                LOG.info("policy.loaded digest=%s", self.state.policy.digest)
            except PolicyInvalid as error:
                self.state.health.policy_error = told = redact.text(str(error))
                LOG.error("policy.invalid error=%s: the last good one stays", told)  # noqa: TRY400
            self.state.health.policy_reloads += 1
            await meter.write(self._policy_entry())
            await self._reload_access(meter)

    async def _reload_access(self, meter: RecordLimiter) -> None:
        try:
            await asyncio.to_thread(self._credentials.load)
        except CredentialsInvalid as error:
            told = redact.text(str(error))
            LOG.error("registry-auth.invalid error=%s: the last good one stays", told)  # noqa: TRY400
        await self._tell_access(meter)

    async def _tell_access(self, meter: RecordLimiter) -> None:
        """Take note of which registries there are credentials for, and record it."""
        credentials = self._credentials
        self.state.access, self.state.health.access_error = credentials.access, credentials.error
        if credentials.access.file:
            await meter.write(self._access_entry())

    def _access_entry(self) -> Entry:
        """Return the record of which registries there are credentials for."""
        access = self.state.access
        return Entry(
            self.state.new_id(),
            "policy",
            actor=actor_of(BROKER),
            request={
                "route": "registry-auth.load",
                "object": access.file,
                "summary": {"registries": sorted(access.hosts)},
            },
            result={"error": redact.text(self.state.health.access_error)},
        )

    def _policy_entry(self) -> Entry:
        """Return the record of which policy is in force, and why not another."""
        policy = self.state.policy
        return Entry(
            self.state.new_id(),
            "policy",
            actor=actor_of(BROKER),
            request={"route": "policy.load", "object": policy.name},
            verdict={"policy": policy.digest},
            result={"error": self.state.health.policy_error},
        )
