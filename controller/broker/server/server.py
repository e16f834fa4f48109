"""The broker process: start, background tasks, reload and end.

The start has a fixed order: lock file, journal, inventory, identity of the engine, socket. A
failure before the socket exists ends the broker. Only the engine is allowed to be down, for any
time.

SIGTERM, SIGINT or the end of the parent process (the lifeline) end the broker. Streams are cut,
requests get their responses within the grace period, and the inventory is saved.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from controller.broker.engine.client import ConnectedEngine, EngineClient
from controller.broker.files import SecretDelivery, open_store, run_upkeep
from controller.broker.gate import commands, redact
from controller.broker.gate.call import BROKER
from controller.broker.gate.journal_entries import actor_of
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares
from controller.broker.guards import recovery as split_brain
from controller.broker.handlers.trimtab_api import reload_changed
from controller.broker.host.capabilities import descriptor_limit
from controller.broker.host.host_facts import engine_routes, other_view
from controller.broker.host.path_inspector import PathInspector, protected_places
from controller.broker.host.peer_credentials import PeerRules, user_of
from controller.broker.host.registry_auth import Credentials
from controller.broker.host.sockets import BrokerSockets
from controller.broker.secrets.key_files import FILES, KEYS
from controller.broker.secrets.opener import SecretOpener
from controller.broker.server.background_tasks import ContainerWatcher, ExecReaper, RecoveryTask
from controller.broker.server.connection import (
    ConnectionContext,
    ConnectionTimeouts,
    HandleRequest,
    Listener,
    SlotLimits,
)
from controller.broker.server.driver import Driver
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.server.record_store import (
    JournalShare,
    LoadingEnded,
    RecordLimiter,
    RecordStore,
)
from controller.broker.server.settings_reload import SettingsReload, SettingsSource, UsableSettings
from controller.core.encoding.text import printable
from controller.core.enforcement.limits import Limit
from controller.core.metrics.broker_values import engine_answer
from controller.core.records.parts import RegistriesPart, RequestPart, ResultPart, VerdictPart
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import CredentialsInvalid, EngineError, PolicyInvalid
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory
from controller.model.policy.document import Policy
from controller.model.records import Entry
from controller.ports import Archive, Clock, EngineFacts, NewId, QueuedJournal
from controller.system.durable_files import hold_lock_async
from controller.system.runtime import StallMeter, WatchedSelector, keep_out_of_collections
from controller.system.slots import FairQueue, SlotHolder, Slots
from controller.system.sockets import broker_sockets, engine_socket_path
from controller.system.systemd import ServiceManager, without_manager
from controller.system.usage import process_use

LOG = logging.getLogger(__name__)
#: After this time threads switch. The default of 5 ms is long: the journal's waits at each record.
SWITCH_S = 0.0005
#: Seconds between two signs of life for the service manager.
SIGN_S = 1.0
#: Seconds between two looks for a new socket of the controller, while the policy lists viewers.
ACCESS_S = 1.0
#: How long the service manager waits for the next sign while the journal is read, in microseconds.
LOADING_US = 60_000_000
#: The facts of the engine before the engine has answered.
UNKNOWN_ENGINE = EngineFacts("", "", "", 0, 0)


@dataclass(frozen=True, slots=True)
class BrokerPaths:
    """Files, folders and sockets of a broker."""

    #: The state folder of the instance.
    state: Path
    #: The socket that clients connect to.
    socket: Path
    policy: Path
    #: The engine's address: ``unix:///PATH``.
    engine: str
    #: The desired-state directory, protected from bind mounts. None: no protection.
    desired_state: Path | None = None
    #: The file of settings, which names the policy.
    settings: Path | None = None
    #: The file with registry credentials. None: no credentials.
    registry_auth: Path | None = None
    #: False allows the file to be missing.
    registry_auth_required: bool = True

    @property
    def folder(self) -> Path:
        """The broker's private folder in the state folder."""
        return self.state / "broker"


@dataclass(frozen=True, slots=True)
class ServerLimits(SlotLimits):
    """Limits and timeouts of a broker."""

    #: Refusals and reads recorded individually; more are counted in a summary.
    records: Limit = field(default_factory=Limit)
    #: How long open requests get at the end. The broker ends within 5 s, including the save.
    grace_s: float = 4.0
    #: Seconds between two saves of the inventory.
    save_s: float = 60.0
    #: Seconds between two removals of files that nobody needs.
    collect_s: float = 300.0
    timeouts: ConnectionTimeouts = field(default_factory=ConnectionTimeouts)


@dataclass(frozen=True, slots=True)
class HostServices:
    """Services that the composition root (``app.broker``) provides."""

    clock: Clock
    new_id: NewId
    #: Reads the policy. Blocks; raises PolicyInvalid.
    load_policy: Callable[[], Policy]
    #: Opens the journal for writing. Blocks; raises StateError.
    open_journal: Callable[[], QueuedJournal]
    #: Opens the index of an open journal.
    open_archive: Callable[[QueuedJournal], Archive]
    #: Stores the engine's id. Raises StateError if the state folder belongs to another engine.
    bind_engine: Callable[[str], None]
    #: The key for hashes of secrets in the journal.
    hash_key: bytes = b""
    #: Opens Secrets; None: this broker can't.
    secrets: SecretOpener | None = None
    prove: commands.Prove | None = None
    #: The folder in memory that containers mount Secrets from.
    secret_folder: Path | None = None
    reach: Reach = pass_by
    #: The file of settings; None: this broker has none.
    settings: SettingsSource | None = None
    #: Holds the sockets, and is told what the broker does.
    manager: ServiceManager = field(default_factory=without_manager)


async def _freeze_objects(ready: asyncio.Event) -> None:
    """Spare the garbage collector the objects of the start: a walk over all stops the event loop."""
    await ready.wait()
    keep_out_of_collections()


class Broker:
    """The broker of one instance.

    ``group`` is the gid of the group trimtab, for the socket and its clients; None disables both.
    """

    def __init__(
        self,
        paths: BrokerPaths,
        *,
        instance: str,
        controller_uid: int,
        group: int | None,
        handle: HandleRequest,
        services: HostServices,
        limits: ServerLimits = ServerLimits(),
    ) -> None:
        self._paths = paths
        self._handle = handle
        self._services = services
        self._limits = limits
        self._rules = PeerRules(controller_uid=controller_uid, own_uid=os.geteuid(), group=group)
        #: The policy that the rules are of.
        self._rules_of: Policy | None = None
        self._engine_socket = engine_socket_path(paths.engine)
        self._credentials = Credentials(
            paths.registry_auth,
            required=paths.registry_auth_required,
            own_uid=self._rules.own_uid,
        )
        self._credentials.load()
        self.state = GateState(
            policy=services.load_policy(),
            inventory=Inventory(),
            instance=instance,
            engine=UNKNOWN_ENGINE,
            clock=services.clock,
            new_id=services.new_id,
            start_monotonic=services.clock.monotonic(),
            hash_key=services.hash_key,
            routes=partial(engine_routes, self._engine_socket),
        )
        self._load_policy = services.load_policy
        self._settings = SettingsReload(
            services.settings, self.state.health, self._use_settings, own_uid=self._rules.own_uid
        )
        self._reload = asyncio.Event()
        self._is_reloading = False
        self._listener: Listener | None = None
        self._queue = FairQueue(self._is_trusted)
        self._background: list[asyncio.Task[None]] = []
        self._sockets: BrokerSockets | None = None

    def run(self, *, lifeline: int | None = None) -> None:
        """Serve until a signal arrives or the lifeline ends. Call ``run`` in the main thread.

        *lifeline* is the read end of a pipe whose write end the parent process holds.

        Raises:
            StateError: another broker serves, the state folder is unusable, or the state folder
                belongs to another engine.
        """
        sys.setswitchinterval(SWITCH_S)
        descriptors = descriptor_limit()
        if descriptors < self._limits.descriptors:
            wanted = self._limits.descriptors
            LOG.warning("descriptors.few limit=%d wanted=%d", descriptors, wanted)
            self._limits = self._limits.within(descriptors)
        meter = StallMeter(self._services.clock.monotonic)
        self.state.health.longest_stall_s = meter.longest_s
        self.state.health.process_use = process_use
        selector = partial(WatchedSelector, meter)
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
            runner.run(self._run(lifeline))

    async def _run(self, lifeline: int | None) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        reload = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        if lifeline is not None:
            loop.add_reader(lifeline, self._read_lifeline, lifeline, stop)
        ready = asyncio.Event()
        freezing = asyncio.create_task(_freeze_objects(ready))
        await self.serve(stop, reload=reload, ready=ready)
        freezing.cancel()

    @staticmethod
    def _read_lifeline(lifeline: int, stop: asyncio.Event) -> None:
        """Stop the broker at the end of file. The parent never writes to the lifeline."""
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
        """Serve until *stop* is set. Each time *reload* is set, reload policy and credentials.

        *ready* is set as soon as clients are served.

        Raises:
            StateError: see ``run``.
        """
        services, state = self._services, self.state
        self._reload = reload or self._reload
        async with AsyncExitStack() as stack:
            try:
                store, archive = await stack.enter_async_context(self._open_store(stop))
            except LoadingEnded:
                LOG.info("broker.ended")
                return
            client = EngineClient(
                self._engine_socket,
                admit=self._admit,
                reach=services.reach,
                slots=Slots(self._limits.engine, wait_s=self._limits.wait_s),
                count=self._count_answer,
            )
            stack.callback(client.close)
            try:
                await client.identify()  # raises StateError for another engine
            except EngineError as error:
                LOG.warning("engine.away error=%s", error)
            limiter = RecordLimiter(
                store.write,
                clock=services.clock,
                new_id=services.new_id,
                limit=self._limits.records,
                share=JournalShare(
                    count=partial(client_shares.count_record, state),
                    is_spent=partial(client_shares.is_journal_spent, state),
                ),
            )
            queries = JournalQueries(archive)

            secrets = services.secrets
            delivery = None
            if secrets is not None and services.secret_folder is not None:
                delivery = SecretDelivery(
                    services.secret_folder, secrets.reopen_stored, secrets.answer, secrets.forget
                )
            files = open_store(self._paths.state, state, services.reach, delivery)
            driver = Driver(
                client=client,
                store=store,
                files=files,
                limiter=limiter,
                queries=queries,
                inspect_paths=self._inspect_paths,
                authorise=partial(self._authorise, limiter),
            )
            driver.use_prover(services.prove)
            driver.use_settings(self._settings)
            driver.keep_contexts_in(self._paths.folder / "builds")
            stack.push_async_callback(driver.close)
            recovery = RecoveryTask(driver=driver, state=state, client=client)
            watcher = ContainerWatcher(driver=driver, state=state, client=client)
            context = ConnectionContext(
                driver=driver,
                handle=self._handle,
                state=state,
                rules=self._current_rules,
                queue=self._queue,
                queries=queries,
                answers=Slots(self._limits.answers, wait_s=self._limits.wait_s),
                timeouts=self._limits.timeouts,
                reach=services.reach,
            )
            await self._record_policy(limiter)
            await self._record_access(limiter)
            for task in (
                recovery.run(),
                recovery.run_forget(),
                watcher.run_events(),
                watcher.run_checks(),
                ExecReaper(driver=driver, state=state).run(),
                self._run_saves(store),
                self._run_access(),
                run_upkeep(files, state, every_s=self._limits.collect_s),
                self._run_reloads(self._reload, driver, limiter),
            ):
                self._background.append(asyncio.ensure_future(task))
            path = self._paths.socket
            sockets = BrokerSockets(path, self._current_rules(), services.manager.sockets)
            self._sockets = stack.enter_context(sockets)
            self._listener = listener = Listener(
                limits=self._limits,
                user_of=lambda connected: user_of(connected, self._current_rules()),
                queue=self._queue,
                context=context,
                on_end=recovery.wake,
                on_refusal=state.health.count_refused_connection,
            )
            state.health.connections = listener.in_use
            listener.start(sockets.listening)
            LOG.info("broker.serving socket=%s instance=%s", path, state.instance)
            if ready is not None:
                ready.set()
            self._background.append(asyncio.ensure_future(self._run_signs(client)))
            try:
                await stop.wait()
            finally:
                services.manager.tell(STOPPING=1)
                sockets.wait_for_another()
                await self._wind_down(listener, limiter)
        LOG.info("broker.ended")

    # Start and end of the parts.

    @asynccontextmanager
    async def _open_store(self, stop: asyncio.Event) -> AsyncIterator[tuple[RecordStore, Archive]]:
        """Hold the lock file, open journal and index, and load the inventory.

        The inventory is up to date with the journal. The index can still be under construction.

        Raises:
            LoadingEnded: *stop* was set meanwhile.
        """
        services = self._services
        lock = await hold_lock_async(
            self._paths.folder / "lock", program="broker", monotonic=services.clock.monotonic
        )
        async with AsyncExitStack() as stack:
            stack.callback(os.close, lock)
            journal = await asyncio.to_thread(services.open_journal)
            stack.push_async_callback(asyncio.to_thread, journal.close)
            archive = services.open_archive(journal)
            stack.push_async_callback(asyncio.to_thread, archive.close)
            snapshot = self._paths.folder / "inventory.json"
            store = RecordStore(
                journal, self.state, snapshot, archive=archive, reach=services.reach
            )
            signs = asyncio.ensure_future(self._run_signs_of_loading(store))
            try:
                await asyncio.to_thread(store.load, is_ending=stop.is_set)
            finally:
                signs.cancel()
            self.state.start_seq = journal.last_seq
            split_brain.begin_in_doubt(self.state)
            self.state.health.journal_error = journal.error
            yield store, archive
            await store.wait_until_folded()
            store.save()

    def _count_answer(self, method: str, status: int | None) -> None:
        self.state.health.counted[engine_answer(method, status)] += 1

    def _admit(self, engine: ConnectedEngine) -> None:
        self._services.bind_engine(engine.facts.engine_id)
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

    async def _wind_down(self, listener: Listener, limiter: RecordLimiter) -> None:
        """End idle connections at once, and the others within the grace period.

        Summaries of refusals are written at once, because their responses wait for them.
        """
        listener.stop()
        await limiter.close()
        await listener.wait(timeout_s=self._limits.grace_s)
        tasks = (*listener.tasks, *self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await limiter.close()  # summaries begun since the first call

    # What connections and the gate ask for.

    def _is_trusted(self, uid: SlotHolder) -> bool:
        """Return True if the uid is the controller's or an operator's."""
        rules = self._current_rules()
        return uid in rules.operating or uid == rules.controller_uid

    def _current_rules(self) -> PeerRules:
        """Return the rules that map peers to roles, by the policy in force."""
        policy = self.state.policy
        if policy is not self._rules_of:
            self._rules_of = policy
            self._rules = replace(
                self._rules,
                operators=frozenset(policy.operators),
                clients=tuple((client.uid, client.owner) for client in policy.clients),
                viewers={viewer.uid: viewer.scope for viewer in policy.viewers},
                container_peers=frozenset(policy.container_peers),
            )
        return self._rules

    def _inspect_paths(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        """Inspect bind sources. Blocks as long as the file systems do.

        The broker would judge another tree than the engine mounts, if their views differ.
        """
        if other_view(self._engine_socket):
            return tuple(PathFacts(path, "other-view") for path in paths)
        places = self._paths
        root = self.state.volumes_root.removesuffix("/volumes")
        protected = protected_places(
            state=str(places.state),
            policy=str(places.policy),
            settings=str(places.settings or ""),
            desired_state=str(places.desired_state or ""),
            sockets=(
                *(("broker socket", str(each)) for each in broker_sockets(places.socket)),
                ("engine socket", self._engine_socket),
            ),
            credentials=str(places.registry_auth or ""),
            secrets=(str(KEYS), str(FILES), str(self._services.secret_folder or "")),
            engine_data=root,
        )
        return PathInspector(protected, own_uid=self._rules.own_uid).inspect(paths)

    async def _authorise(self, limiter: RecordLimiter, host: str) -> str:
        """Return the value of X-Registry-Auth for a registry, by the present file; '' for none."""
        if not host:
            return ""
        if await asyncio.to_thread(self._credentials.refresh):
            await self._record_access(limiter)
        return self._credentials.header(host)

    # Background tasks.

    async def _run_signs_of_loading(self, store: RecordStore) -> None:
        """Tell the service manager that the broker goes on reading: it ends a start without READY.

        A journal that is read from its first record can take minutes. A disk that gives nothing more gets
        no longer time.
        """
        manager, told = self._services.manager, -1
        while manager.is_present:
            if store.reading != told:
                told = store.reading
                manager.tell(
                    EXTEND_TIMEOUT_USEC=LOADING_US, STATUS=f"reading the journal: record {told}"
                )
            await asyncio.sleep(SIGN_S)

    async def _run_signs(self, client: EngineClient) -> None:
        """Tell the service manager that the broker is ready, and that its event loop turns.

        The broker is ready without an engine. The watchdog sees the event loop alone: a slow disk is no
        reason to end the broker.
        """
        manager, told = self._services.manager, ""
        manager.tell(READY=1)
        while manager.is_present:
            status = f"waiting for the engine: {client.error}" if client.error else "serving"
            if status != told:
                manager.tell(STATUS=printable(status))
                told = status
            manager.feed()
            await asyncio.sleep(SIGN_S)

    async def _run_access(self) -> None:
        """Let viewers open a socket of the controller that appears later than the policy."""
        while True:
            viewers = self._current_rules().viewers.keys()
            await asyncio.sleep(ACCESS_S if viewers else self._limits.save_s)
            if self._sockets is not None:
                self._sockets.open_controller(self._current_rules().viewers.keys())

    async def _run_saves(self, store: RecordStore) -> None:
        while True:
            await asyncio.sleep(self._limits.save_s)
            await asyncio.to_thread(store.save)

    async def _run_reloads(
        self, reload: asyncio.Event, driver: Driver, limiter: RecordLimiter
    ) -> None:
        """Reload settings, policy and credentials. What is invalid leaves the previous one in force."""
        while True:
            await reload.wait()
            reload.clear()
            self._is_reloading = True
            await driver.run(reload_changed(self.state))
            self._is_reloading = False
            try:
                self._use_policy(await asyncio.to_thread(self._load_policy))
            except PolicyInvalid as error:
                self.state.health.policy_error = message = redact.lines(str(error))
                LOG.error("policy.invalid error=%s: the last good one stays", message)  # noqa: TRY400
            self.state.proofs.forget()
            self.state.health.policy_reloads += 1
            await self._record_policy(limiter)
            await self._reload_credentials(limiter)

    def _use_policy(self, policy: Policy) -> None:
        self.state.policy = policy
        self.state.health.policy_error = ""
        if self._sockets is not None:
            self._sockets.reserve(self._current_rules())
        if self._listener is not None:
            self._listener.cut_revoked()
        LOG.info("policy.loaded digest=%s", policy.digest)

    def _use_settings(self, found: UsableSettings) -> None:
        """Put live settings in force: policy and credentials."""
        settings, source = found.in_force.settings, self._services.settings
        assert source is not None, "settings have a file"
        self._load_policy = partial(source.load_policy, settings)
        self._credentials = found.credentials or self._credentials
        self._paths = replace(
            self._paths, policy=found.policy_file, registry_auth=found.registry_auth
        )
        self._use_policy(found.policy)
        if not self._is_reloading:
            self._reload.set()  # for the records of both

    async def _reload_credentials(self, limiter: RecordLimiter) -> None:
        try:
            await asyncio.to_thread(self._credentials.load)
        except CredentialsInvalid as error:
            message = redact.text(str(error))
            LOG.error("registry-auth.invalid error=%s: the last good one stays", message)  # noqa: TRY400
        await self._record_access(limiter)

    async def _record_access(self, limiter: RecordLimiter) -> None:
        """Store and record the registries with credentials."""
        credentials = self._credentials
        self.state.access, self.state.health.access_error = credentials.access, credentials.error
        if file := credentials.access.file:
            summary = RegistriesPart(registries=tuple(sorted(credentials.access.hosts)))
            request = RequestPart(route="registry-auth.load", object=file, summary=summary)
            await limiter.write(self._load_entry(request, redact.text(credentials.error)))

    async def _record_policy(self, limiter: RecordLimiter) -> None:
        """Record the policy in force, and the last load error."""
        policy, error = self.state.policy, redact.text(self.state.health.policy_error)
        request = RequestPart(route="policy.load", object=policy.name)
        verdict = VerdictPart(policy=policy.digest).members
        await limiter.write(replace(self._load_entry(request, error), verdict=verdict))

    def _load_entry(self, request: RequestPart, error: str) -> Entry:
        """Return the journal entry of a file that was loaded, with the error of the load."""
        return Entry(
            self.state.new_id(),
            "policy",
            actor=actor_of(BROKER),
            request=request.members,
            result=ResultPart(error=error).members,
        )
