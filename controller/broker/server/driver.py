"""The driver of the gate: executes each command of a flow and sends the result back into the flow.

A mutation continues to its closing record, whatever the client does. Recovery closes a mutation
that ends without such a record: a lost response, or the end of the broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Generic, TypeVar, assert_never, cast

from controller.broker.builds.runner import context_of, receive_context, run_build
from controller.broker.engine.client import BROKER, EngineClient
from controller.broker.engine.relay import ClientStream
from controller.broker.engine.response import ResponseReader, read_within
from controller.broker.engine.shared_pulls import Authorise, SharedPulls, send_no_credentials
from controller.broker.files import FileStore
from controller.broker.gate import commands
from controller.broker.gate.call import Flow, unavailable_reason
from controller.broker.gate.commands import ReceiveContext, RunBuild
from controller.broker.gate.state import HealthState
from controller.broker.host import host_facts, path_inspector, processes
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.server.record_store import RecordLimiter, RecordStore
from controller.broker.server.settings_reload import SettingsReload
from controller.broker.server.thread_limit import ThreadLimit, ThreadsBusy
from controller.broker.wire import refusal
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.host_paths import PathFacts
from controller.model.records import Actor, Entry, Record, Reply, Role
from controller.system.slots import AdmissionLock, SlotUser

LOG = logging.getLogger(__name__)
ADMISSION_S = 30.0  # how long a mutation waits for the admissions before it
#: Timeout for the inspection of bind sources. Others wait for the lock while a file system hangs.
INSPECT_S = 5.0
INSPECTIONS_MAX = 8  # in threads at a time; more are answered as unreadable paths
OPENINGS_MAX = 4  # Secrets opened at a time: a hostile file keeps its thread until a deadline
PROCESS_S = 2.0  # the timeout for reading a container's process
#: Processes read at a time, and threads for further reads while some hang.
READING_MAX, HANGING_MAX = 8, 8
AHEAD_MAX = 8  # reads of one request that are sent before the flow asks for them

#: Commands during which a mutation stays the only one that is judged.
_KEEPS_ADMISSION = (
    *(commands.InspectPaths, commands.ReadCdiFiles, commands.ReadAccounts),
    commands.FindUidUser,
    *(commands.ReadProcess, commands.QueryJournal),
    *(commands.StoreContent, commands.MakeFiles, commands.MakeFolder),
    *(commands.ReadSecret, commands.OpenSecret),
)

T = TypeVar("T")
#: A flow of the gate. A Relay as the result hands the connection over to a relay; a Follow sends
#: new journal records over the connection.
RequestFlow = Flow[Reply | commands.Relay | commands.Follow]
InspectPathsFunction = Callable[[tuple[str, ...]], tuple[PathFacts, ...]]


class StartedFlow(Generic[T]):
    """A flow that runs to its next command. Starts the generator at once."""

    def __init__(
        self,
        flow: Generator[commands.Command, commands.CommandResult, T],
        user: SlotUser,
    ) -> None:
        self._flow = flow
        #: The user of the connections to the engine.
        self.user = user
        #: The command to execute. None at the end of the flow; then ``value`` is the result.
        self.command: commands.Command | None = None
        self.send(None)

    @property
    def is_refused(self) -> bool:
        """True if the first command records a refusal, or the flow ended without a command."""
        return self.command is None or _is_refusal(self.command)

    def send(self, result: commands.CommandResult) -> None:
        """Continue with the result of the command."""
        try:
            self.command = self._flow.send(result)
        except StopIteration as stop:
            self.command, self.value = None, cast("T", stop.value)

    def close(self) -> None:
        """End the flow at its present command."""
        self._flow.close()


RequestStart = StartedFlow[Reply | commands.Relay | commands.Follow]


def _read_process(arguments: tuple[int, str, tuple[str, ...]]) -> EffectiveState | NotReadable:
    return processes.read_process(*arguments)


def _is_refusal(command: commands.Command) -> bool:
    return isinstance(command, commands.WriteRecord) and command.entry.stage == "refusal"


class _EngineReads:
    """The engine reads of one request. Announced reads are sent together with the first one."""

    def __init__(self, client: EngineClient, authorise: Authorise, user: SlotUser) -> None:
        self._client = client
        self._authorise = authorise
        self._user = user
        self._ahead: dict[str, asyncio.Task[Reply | commands.Lost]] = {}

    async def execute(self, command: commands.ReadEngine) -> Reply | commands.Lost:
        """Return the response to a read, from a read sent ahead if there is one."""
        if command.after_s:
            await asyncio.sleep(command.after_s)
        further = [path for path in command.ahead if path not in self._ahead]
        for path in further[: AHEAD_MAX - len(self._ahead)]:
            read = self._client.read(
                command.method, path, user=self._user, deadline_s=command.deadline_s
            )
            self._ahead[path] = asyncio.create_task(read)
        task = self._ahead.pop(command.path, None)
        assert task is None or command.rows is None, (
            "a list that was read ahead has all its members"
        )
        if task is None:
            auth = await self._authorise(command.registry)
            return await self._client.read(
                command.method,
                command.path,
                user=self._user,
                auth=auth,
                rows=command.rows,
                bytes_max=command.bytes_max,
                deadline_s=command.deadline_s,
            )
        try:
            return await task
        finally:
            task.cancel()

    def discard(self) -> None:
        """Cancel the reads sent ahead: their results are outdated after any other command."""
        for task in self._ahead.values():
            task.cancel()
        self._ahead.clear()


@dataclass(frozen=True, slots=True)
class OpenResponse:
    """An open response of the engine, to be relayed."""

    stream: ResponseReader
    relay: commands.Relay


class Driver:
    """Executes commands. All connections of a broker share one driver."""

    def __init__(
        self,
        *,
        client: EngineClient,
        store: RecordStore,
        limiter: RecordLimiter,
        inspect_paths: InspectPathsFunction,
        queries: JournalQueries,
        files: FileStore,
        authorise: Authorise = send_no_credentials,
    ) -> None:
        self._client = client
        self._authorise = authorise
        self._pulls = SharedPulls(client, authorise)
        self._store = store
        self._files = files
        #: The folder of the contexts of builds.
        self._uploads = Path()
        self._openings = ThreadLimit(files.open_secret, threads=OPENINGS_MAX, idle_s=None)
        self._proofs = ThreadLimit(commands.refuse_proofs, threads=1, idle_s=None)
        self._settings = SettingsReload(None, HealthState(), lambda _found: None, own_uid=0)
        self._limiter = limiter
        self._queries = queries
        self._inspections = ThreadLimit(inspect_paths, threads=INSPECTIONS_MAX)
        self._process_reads = ThreadLimit(_read_process, threads=READING_MAX + HANGING_MAX)
        self._reading = asyncio.Semaphore(READING_MAX)
        self._admission = AdmissionLock()

    def keep_contexts_in(self, folder: Path) -> None:
        """Keep the contexts of builds in a folder, as files without names."""
        self._uploads = folder

    def use_settings(self, settings: SettingsReload) -> None:
        """Reload settings by *settings*."""
        self._settings = settings

    def use_prover(self, prove: commands.Prove | None) -> None:
        """Verify proofs by *prove*; None refuses all proofs."""
        self._proofs = ThreadLimit(prove or commands.refuse_proofs, threads=1, idle_s=None)

    async def drive(
        self,
        begin: Callable[[], RequestFlow],
        client: ClientStream,
        *,
        admits: Actor | None,
        user: SlotUser = BROKER,
    ) -> Reply | OpenResponse | commands.Follow:
        """Run the flow of a request to its result, and open the engine's response for a Relay.

        *user* has the connections to the engine. *admits* is the actor of a mutation. Its flow holds
        the admission lock until its first record or mutation: everything counted at admission still
        holds when the intent is written. A client's or operator's flow that refuses at once doesn't
        wait for the lock; a controller's does, up to ``ADMISSION_S``, and can end ``broker.busy``.
        """
        self._store.refresh_health()
        opened: dict[commands.Relay, ResponseReader] = {}
        flow = None

        def start() -> RequestStart:
            return StartedFlow(begin(), user)

        try:
            with ExitStack() as admission:
                flow = await self._begin(start, admits, admission)
                if flow is None:
                    return refusal(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "broker.busy",
                        f"the mutations before this one took longer than {ADMISSION_S:g} s",
                        remedy="check whether the engine hangs, and try again",
                    )
                value = await self._run(flow, admission, opened, client)
            return await self._open_result(value, opened, client, user)
        finally:
            if flow is not None:
                flow.close()
            if (context := context_of(client)) is not None:
                context.file.close()
            for stream in opened.values():
                stream.close()

    async def _begin(
        self, start: Callable[[], RequestStart], admits: Actor | None, admission: ExitStack
    ) -> RequestStart | None:
        """Start a flow, for a mutation with the admission lock. Return None after a timeout."""
        if admits is None:
            return start()
        if admits.role is not Role.CONTROLLER:  # which is seldom refused, and often waits
            flow, is_free = start(), self._admission.is_free
            if flow.is_refused or (is_free and await self._acquire_admission(admits, admission)):
                return flow
            flow.close()  # the state can change during the wait
        return start() if await self._acquire_admission(admits, admission) else None

    async def _acquire_admission(self, actor: Actor, admission: ExitStack) -> bool:
        """Take the admission lock and let *admission* release it. Return False after a timeout."""
        trusted = actor.role in {Role.CONTROLLER, Role.OPERATOR}
        try:
            async with asyncio.timeout(ADMISSION_S):
                await self._admission.acquire(actor.uid, trusted=trusted)
        except TimeoutError:
            return False
        admission.callback(self._admission.release)
        return True

    async def run(self, flow: Generator[commands.Command, commands.CommandResult, T]) -> T:
        """Run a flow of the broker itself, without a client."""
        started = StartedFlow(flow, BROKER)
        try:
            return await self._run(started, ExitStack(), {}, None)
        finally:
            started.close()

    async def _run(
        self,
        flow: StartedFlow[T],
        admission: ExitStack,
        opened: dict[commands.Relay, ResponseReader],
        client: ClientStream | None,
    ) -> T:
        """Run a flow to its end.

        *admission* holds the admission lock. Closed, and so released, after the first refusal,
        record or mutation.
        """
        reads = _EngineReads(self._client, self._authorise, flow.user)
        try:
            while (command := flow.command) is not None:
                if isinstance(command, commands.GiveWay):
                    await asyncio.sleep(0)
                    flow.send(None)
                    continue
                if isinstance(command, commands.ReadEngine):
                    flow.send(await reads.execute(command))
                    continue
                reads.discard()
                # A refusal changes nothing that others count, and a proof takes seconds.
                if _is_refusal(command) or isinstance(command, commands.VerifyProof):
                    admission.close()
                result = await self._execute(command, opened, client, flow.user)
                if not isinstance(command, _KEEPS_ADMISSION):
                    admission.close()
                flow.send(result)
        finally:
            reads.discard()
        return flow.value

    async def close(self) -> None:
        """End the pulls."""
        await self._pulls.close()

    async def write(self, entry: Entry) -> Record | None:
        """Write or count an entry of the server itself. Return None without a durable record."""
        return await self._limiter.write(entry)

    async def _open_result(
        self,
        value: Reply | commands.Relay | commands.Follow,
        opened: dict[commands.Relay, ResponseReader],
        client: ClientStream,
        user: SlotUser,
    ) -> Reply | OpenResponse | commands.Follow:
        if isinstance(value, Reply | commands.Follow):
            return value
        stream = opened.pop(value, None) or await self._open(value, client, user)
        if isinstance(stream, commands.Lost):
            return refusal(
                HTTPStatus.GATEWAY_TIMEOUT if stream.sent else HTTPStatus.BAD_GATEWAY,
                "engine.unavailable",
                unavailable_reason(stream),
                remedy=commands.engine_remedy(stream.reason),
            )
        return OpenResponse(stream, value)

    async def _execute(
        self,
        command: commands.OtherCommand,
        opened: dict[commands.Relay, ResponseReader],
        client: ClientStream | None,
        user: SlotUser,
    ) -> commands.CommandResult:
        match command:
            case commands.InspectPaths(paths):
                return await self._inspect(paths)
            case commands.WriteRecord(entry):
                return await self._limiter.write(entry)
            case commands.Forward():
                return await self._forward(command, client, user)
            case commands.QueryJournal(question):
                return await self._queries.ask(question)
            case commands.Relay():
                return await self._open_head(command, opened, client, user)
            case commands.ReadProcess(pid, container, targets, after_s):
                return await self._read_process(pid, container, targets, after_s)
            case commands.OpenSecret() | commands.VerifyProof():
                return await self._open_in_thread(command)
            case commands.ReadSettings() | commands.UseSettings():
                return await self._settings.execute(command)
            case ReceiveContext() | RunBuild():
                assert client is not None, "a build without a client"
                return await self._build(command, client, user)
            case _:
                return await asyncio.to_thread(self._execute_on_host, command)

    async def _forward(
        self, command: commands.Forward, client: ClientStream | None, user: SlotUser
    ) -> commands.CommandResult:
        if command.stream and client is not None:
            return await self._pulls.pull(command, client, user)
        return await self._client.forward(
            command.method,
            command.path,
            command.body,
            user=user,
            deadline_s=command.deadline_s,
        )

    async def _build(
        self, command: ReceiveContext | RunBuild, client: ClientStream, user: SlotUser
    ) -> commands.CommandResult:
        if isinstance(command, ReceiveContext):
            return await receive_context(client, command, self._uploads)
        context = context_of(client)
        assert context is not None, "a build without a context"
        return await run_build(self._client, client, context, command, user)

    async def _open_in_thread(
        self, command: commands.OpenSecret | commands.VerifyProof
    ) -> commands.CommandResult:
        try:
            if isinstance(command, commands.OpenSecret):
                return await self._openings(command)
            return await self._proofs(command)
        except ThreadsBusy:
            is_secret = isinstance(command, commands.OpenSecret)
            return commands.SECRETS_BUSY if is_secret else commands.PROOFS_BUSY

    def _execute_on_host(self, command: commands.OnHost) -> commands.CommandResult:
        """Execute a command of the host. Blocks. Return its result, or why it failed, '' for success."""
        match command:
            case commands.ReadCdiFiles():
                return host_facts.read_files()
            case commands.FindUidUser(uid, own):
                return host_facts.find_user(uid, own)
            case commands.ReadAccounts(layers):
                return host_facts.read_accounts(layers)
            case commands.EndProcess(pid, container):
                return processes.kill_session(pid, container)
            case commands.EndConnections():
                return processes.execute(command.pid, command.container, command.address)
            case commands.MakeFolder(path, uid):
                return path_inspector.make_folder(path, uid)
            case _:
                return self._execute_on_files(command)

    def _execute_on_files(self, command: commands.OnFiles) -> commands.CommandResult:
        match command:
            case commands.StoreContent(files, content, blob):
                return self._files.put(files, content, blob)
            case commands.MakeFiles(files, content, variant, stable):
                return self._files.make(files, content, variant, stable=stable)
            case commands.ReadSecret(files, content, key):
                return self._files.read(files, content, key)
            case commands.ForgetSecret(files):
                return self._files.forget(files)
            case _:
                assert_never(command)

    async def _inspect(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        """Inspect paths. Return nothing if a file system hangs: the gate then refuses the paths."""
        try:
            async with asyncio.timeout(INSPECT_S):
                return await self._inspections(paths)
        except (TimeoutError, ThreadsBusy):
            LOG.warning("examine.late paths=%d", len(paths))
            return ()

    async def _read_process(
        self, pid: int, container: str, targets: tuple[str, ...], after_s: float
    ) -> EffectiveState | NotReadable:
        """Read a process. Return NotReadable if the read hangs in one of its file systems."""
        await asyncio.sleep(after_s)
        try:
            async with asyncio.timeout(PROCESS_S):
                async with self._reading:
                    return await self._process_reads((pid, container, targets))
        except (TimeoutError, ThreadsBusy):
            LOG.warning("process.late container=%s", container)
            return NotReadable("looking at its process takes too long")

    async def _open(
        self, relay: commands.Relay, client: ClientStream | None, user: SlotUser
    ) -> ResponseReader | commands.Lost:
        hijack = relay.hijack and client is not None and client.upgrade
        return await self._client.open(
            relay.method,
            relay.path,
            relay.body,
            mutation=relay.mutates,
            hijack=hijack,
            user=user,
        )

    async def _open_head(
        self,
        relay: commands.Relay,
        opened: dict[commands.Relay, ResponseReader],
        client: ClientStream | None,
        user: SlotUser,
    ) -> Reply | commands.Lost:
        """Open a response and return its head. Return a failed response whole."""
        stream = await self._open(relay, client, user)
        if isinstance(stream, commands.Lost):
            return stream
        if stream.status < HTTPStatus.MULTIPLE_CHOICES:
            opened[relay] = stream
            return Reply(stream.status, b"", stream.headers)
        return await read_within(stream, deadline_s=15.0)
