"""The controller's process, and its parts for one-shot commands."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller import __version__
from controller.app.desired_state import (
    READERS_ON_USE,
    DesiredFiles,
    charts_folder,
    directory_source,
    send_no_proof,
)
from controller.app.policy import PACKAGE, policy_from_route
from controller.app.process import (
    SystemClock,
    boot_id,
    call_on_termination,
    crash_reach,
    load_modules,
    log_late_imports,
    log_to_stderr,
    new_id,
)
from controller.core.admission.preview import preview_action
from controller.core.compose.translation.scope import ComposeSettings, settings_of
from controller.core.drift.failures import Readers
from controller.core.encoding.identifiers import is_image_id
from controller.core.engine_api.create_body import container_body
from controller.core.metrics.families import MetricsOwner, merged
from controller.core.planning.deliveries import AskSecrets, bind_secrets
from controller.core.planning.images_networks_volumes import volume_rule_of
from controller.core.planning.quarantine import QuarantineRules
from controller.core.status.facts import Report
from controller.engine.adapter import (
    BrokerEngine,
    PolicyCache,
    SnapshotEngine,
    VerdictCache,
    ignore_progress,
    no_archive,
)
from controller.engine.docker_client import SdkTransport
from controller.engine.proof_uploads import BrokerProofs
from controller.engine.requests import BrokerSecrets
from controller.engine.responses import bound_ports
from controller.loop.controller import Controller
from controller.loop.passes import PassPolicy
from controller.loop.prober import ProbedEngine, Prober, ProbeSockets
from controller.loop.shared_state import ControllerParts
from controller.loop.state.failed_runs import FailureLog
from controller.loop.state.overrides import retry_refused
from controller.loop.state.store import StateStore
from controller.loop.supervisor import ControlEndpoints, Supervisor
from controller.loop.workqueue import Chore, Triggers, WorkerSlots
from controller.model.desired.desired import Desired
from controller.model.desired.plan import AnyAction, CreateContainer
from controller.model.errors import EngineError, Problem, StateError
from controller.model.names import Key, NetworkNames
from controller.model.observed import Observed
from controller.model.policy.document import Policy
from controller.model.records import Verdict
from controller.model.settings import Process, digest_of
from controller.ports import DesiredSource
from controller.process.drop_privileges import EXPECTED_PROGRAM, check_program
from controller.settings import StateFolder, TargetsInForce, existing_instance, read_in_force
from controller.sources.watch import watch
from controller.sources.written_folders import WRITTEN_FOLDERS, WrittenFolders
from controller.system.durable_files import hold_lock, write_atomic
from controller.system.runtime import StopSignal
from controller.system.syscalls import forbid_core_dumps
from controller.system.systemd import WAITING_MAX, ServiceManager, is_restored_at_boot, own_manager
from controller.system.usage import CgroupReader

if TYPE_CHECKING:
    from controller.loop.state.saved_state import FeedbackFile, HoldFile
    from controller.model.desired.spec.container import Build
    from controller.model.sources import SourceHold


#: What the controller's modules load on use, because commands start faster so.
LOADED_ON_USE = (
    *READERS_ON_USE,
    "app/up",
    "core/enforcement/approvals",
    "core/policy/text",
    "core/review/plan_json",
    "core/review/progress",
    "core/review/review",
    "core/status/sources",
    "core/view/view",
    "core/view/view",
    "loop/state/saved_state",
    "sources/build_contexts",
)


def broker_engine(
    broker_socket: Path,
    *,
    networks: Callable[[], NetworkNames] = NetworkNames,
    on_progress: Callable[[Key, str], None] = ignore_progress,
    archive: Callable[[Build], Iterator[bytes]] = no_archive,
) -> BrokerEngine:
    """Return the engine behind the broker at *broker_socket*; *archive* reads contexts of builds."""
    return BrokerEngine(
        SdkTransport(broker_socket),
        networks=networks,
        on_progress=on_progress,
        archive=archive,
        pause=time.sleep,
        reach=crash_reach(os.environ),
        listening=bound_ports,
    )


def _archive(
    directory: Path, sources: Path, written: WrittenFolders, build: Build
) -> Iterator[bytes]:
    """Yield the archive of a build's context. The reader is loaded only for a build."""
    from controller.sources.build_contexts import archive
    from controller.sources.fetched import exported_root

    def root_of(source: str) -> str:
        return exported_root(sources / source) if source else os.path.realpath(directory)

    yield from archive(root_of, build, written.closed(os.path.realpath(directory)))


def parse_pass_policy(payload: Mapping[str, Any], now: float) -> PassPolicy:
    """Return the policy for passes at a time, from the payload of the broker's route."""
    policy = policy_from_route(payload)
    ended = len(policy.ended_exceptions(now))
    # An exception that ends changes verdicts, as another policy does.
    return pass_policy(
        policy.at(now), f"{payload['digest']}-{ended}" if ended else payload["digest"]
    )


def pass_policy(policy: Policy, policy_digest: str) -> PassPolicy:
    """Return the parts of a policy that passes use: network names, verdicts, readers of output."""
    networks, verdicts = policy.networks.names, VerdictCache()

    def judge(action: AnyAction) -> Verdict:
        if not isinstance(action, CreateContainer):
            return preview_action(policy, action, None)
        if is_image_id(action.image):
            # Without facts, the rules judge the reference in the label.
            action = replace(action, image=action.service.spec.image)
        body, source = container_body(action, networks), action.service.source
        # A denial names the place in the document, whose text can be more than JSON's Unicode.
        judged = json.dumps([action.target, body, asdict(source)], sort_keys=True)
        digest = hashlib.sha256(judged.encode()).hexdigest()
        return verdicts.get(digest, lambda: preview_action(policy, action, body))

    readers = Readers(
        operators=frozenset({0, *policy.operators}),
        owners={client.uid: client.owner for client in policy.clients},
        viewers={viewer.uid: viewer.scope for viewer in policy.viewers},
    )
    return PassPolicy(
        compose=settings_of(policy),
        networks=networks,
        judge=judge,
        digest=policy_digest,
        volume_rule=volume_rule_of(policy),
        readers=readers,
        valid_until=policy.next_end,
        signed=frozenset(each for source in policy.sources for each in source.namespaces),
    )


@dataclass(frozen=True, slots=True)
class BuiltController:
    """A controller without threads, and the parts shared with its supervisor."""

    controller: Controller
    engine: BrokerEngine
    files: DesiredFiles
    worker_slots: WorkerSlots
    stop: StopSignal
    #: Set if the saved state was damaged.
    problem: Problem | None


def build_controller(
    state: StateFolder,
    directory: Path,
    broker_socket: Path,
    *,
    quarantine_ms: int = 0,
    acts: bool = True,
    secrets: AskSecrets | None = None,
) -> BuiltController:
    """Build a controller on the saved state.

    A damaged state file is moved aside only if the controller *acts*. Planning alone leaves the
    file in place for the next acting controller, which reports the damage. Without *secrets* the
    broker is asked for the contents of Secrets.

    Raises:
        StateError: the saved state can't be read.
    """
    clock = SystemClock()
    written = WrittenFolders(state.controller / WRITTEN_FOLDERS, keeps=acts)
    reach = crash_reach(os.environ)
    triggers, worker_slots, stop = Triggers(clock.monotonic), WorkerSlots(), StopSignal()
    store = StateStore(state.controller / "state.json", reach=reach)
    problem = store.load(stamp=f"{time.time_ns()}" if acts else "")
    policy_cache = PolicyCache(parse_pass_policy, clock.now)
    engine = broker_engine(
        broker_socket,
        networks=policy_cache.networks,
        on_progress=triggers.report_progress,
        archive=partial(_archive, directory, state.fetcher / "sources", written),
    )
    failure_log = FailureLog(
        clock, file=state.controller / "failures.json", reader=engine, reach=reach
    )
    failure_log.load()
    report_file = state.controller / "status.json"

    def publish(report: dict[str, object]) -> None:
        write_atomic(report_file, json.dumps(report).encode())

    commit_files = CommitFiles(state, engine.record_hold)

    def fetch_policy() -> PassPolicy:
        return policy_cache.update(engine.read_own_route("policy"))

    def compose() -> ComposeSettings:
        return fetch_policy().compose

    asked = BrokerSecrets(engine.ask_content, clock.monotonic)
    read_proofs = partial(engine.read_own_route, "proofs")

    def proof_accepted() -> None:
        asked.forget()
        retry_refused(store, triggers.keys.add)  # some were refused for want of the proof

    ask_secrets = secrets or asked

    def bind(desired: Desired) -> Desired:
        if not desired.secrets:
            return desired
        contents = ask_secrets(desired.secrets)
        return bind_secrets(desired, contents, restored_at_boot=is_restored_at_boot(state.root))

    files = DesiredFiles(
        directory_source(
            directory,
            compose=compose,
            written=written,
        ),
        state.fetcher,
        lambda: dict(store.prune.sources),
        bind,
        compose,
        BrokerProofs(
            read_proofs,
            engine.ask_content,
            clock.monotonic,
            proof_accepted,
            partial(triggers.chores.add_after, Chore.RELOAD),
        )
        if acts
        else send_no_proof,
        partial(triggers.chores.add_after, Chore.RELOAD),
    )
    prober = Prober(ProbeSockets(clock.monotonic), clock, triggers.check)
    parts = ControllerParts(
        source=files,
        engine=ProbedEngine(engine, prober),
        store=store,
        clock=clock,
        random=random.random,
        triggers=triggers,
        fetch_policy=fetch_policy,
        publish=publish,
        publish_commits=commit_files.publish,
        quarantine_rules=QuarantineRules(quarantine_ms / 1000, boot_id()),
        failure_log=failure_log,
        outside_slot=worker_slots.outside_slot,
        run=new_id()[-8:],  # random
        host=_host,
        verified=partial(read_report, state.verified),
        read_targets=TargetsInForce(state.root).known,
        stopping=stop.is_set,
        read_use=CgroupReader(clock.monotonic).read,
    )
    return BuiltController(Controller(parts), engine, files, worker_slots, stop, problem)


def metrics_writer(path: Path, engine: BrokerEngine) -> Callable[[str], None]:
    """Return a function that writes the controller's metrics to a file, with the broker's."""

    def write(own: str) -> None:
        try:
            of_broker = engine.read_metrics()
        except EngineError:
            of_broker = None
        text = merged({MetricsOwner.BROKER: of_broker, MetricsOwner.CONTROLLER: own})
        # The controller's user can lack the right to read (and sync) Prometheus' folder.
        write_atomic(path, text.encode(errors="replace"), mode=0o644, folder_sync_required=False)

    return write


def _host() -> Report:
    return {"name": socket.gethostname(), "trimtab": __version__}


class CommitFiles:
    """What the commits of Git sources leave: records of holds, and outcomes for forges.

    Loads nothing before a Source is declared.
    """

    def __init__(self, state: StateFolder, record_hold: Callable[[SourceHold], None]) -> None:
        self._state = state
        self._record_hold = record_hold
        self._files: tuple[HoldFile, FeedbackFile] | None = None
        #: The file is there that lets the fetcher run.
        self._is_marked = state.declared_sources.exists()

    def publish(self, desired: Desired, report: Report) -> None:
        """Record holds that began, and write outcomes that changed.

        Raises:
            OSError: a file can't be written. The other is written.
        """
        if not desired.sources:
            if self._is_marked and not desired.blind and not desired.blind_keys:
                self._state.declared_sources.unlink(missing_ok=True)
                self._is_marked = False
            return
        if not self._is_marked:
            self._state.feedback.mkdir(mode=0o700, exist_ok=True)
            self._state.declared_sources.touch(mode=0o640)
            self._is_marked = True
        if self._files is None:
            from controller.loop.state.saved_state import FeedbackFile, HoldFile

            holds = HoldFile(
                self._state.controller, self._record_hold, monotonic=SystemClock().monotonic
            )
            self._files = (holds, FeedbackFile(self._state.feedback))
        holds, feedback = self._files
        try:
            holds.update(desired)
        finally:
            feedback.update(desired, report)


def build_planner(
    observed: Observed, policy: PassPolicy, source: DesiredSource, store: StateStore
) -> Controller:
    """Build a controller on one recorded observation. It plans, and can change nothing."""
    clock = SystemClock()
    prober = Prober(ProbeSockets(clock.monotonic), clock, _ignore_key)
    parts = ControllerParts(
        source=source,
        engine=ProbedEngine(SnapshotEngine(observed), prober),
        store=store,
        clock=clock,
        random=random.random,
        triggers=Triggers(clock.monotonic),
        fetch_policy=lambda: policy,
        publish=_ignore_report,
    )
    return Controller(parts)


def _ignore_key(_key: Key) -> None:
    pass


def _ignore_report(_report: dict[str, object]) -> None:
    pass


def read_report(path: Path) -> dict[str, object] | None:
    """Return the last published status, from which conditions keep their ``since``."""
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


@contextmanager
def _listening(
    state: StateFolder, listen_fd: int | None, manager: ServiceManager
) -> Iterator[socket.socket]:
    """Listen during the block, on the socket of a parent or manager, or on one of this process.

    Raises:
        StateError: another controller serves the socket, or the socket can't be bound.
    """
    if listen_fd is not None:
        yield socket.socket(fileno=listen_fd)
        return
    if (held := manager.sockets.get(state.controller_socket)) is not None:
        held.listen(WAITING_MAX)  # also makes this process the one that peers see (SO_PEERCRED)
        yield held
        return
    from controller.app.up import listen

    path = state.controller_socket if os.access(state.run, os.W_OK) else state.own_socket
    try:
        listener = listen(path, program="controller", group=None)
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{path} can't be made: {error.strerror}",
            remedy=f"start the broker first, with --controller-uid {os.getuid()}",
        ) from error
    try:
        yield listener
    finally:
        path.unlink(missing_ok=True)


def run_controller(
    root: Path,
    *,
    directory: Path | None,
    broker_socket: Path | None,
    listen_fd: int | None,
    lifeline_fd: int | None,
    paused: bool,
    quarantine_ms: int | None = None,
) -> int:
    """Run the controller until a signal arrives or the parent ends; return the exit code.

    Raises:
        StateError: the state folder can't be used, the saved state can't be read, or another
            controller holds the state folder.
    """
    check_program(os.environ.get(EXPECTED_PROGRAM), package=PACKAGE)
    forbid_core_dumps()
    manager = own_manager()
    load_modules(LOADED_ON_USE)
    instance, state = existing_instance(root)
    in_force = read_in_force(root)
    log_to_stderr("controller", in_force.settings.log)
    lock = hold_lock(state.controller / "lock", program="controller", monotonic=time.monotonic)
    desired_state = directory.absolute() if directory is not None else Path(instance.dir)
    built = build_controller(
        state,
        desired_state,
        broker_socket or state.broker_socket,
        quarantine_ms=in_force.settings.quarantine_ms if quarantine_ms is None else quarantine_ms,
    )
    with _listening(state, listen_fd, manager) as listener:
        textfile = in_force.settings.metrics_textfile
        endpoints = ControlEndpoints(
            watch=lambda wake, stop: watch(
                desired_state,
                wake,
                stop,
                also=(charts_folder(desired_state),),
                marks=built.files.marks,
                closed=built.files.closed,
            ),
            listener=listener,
            lifeline=lifeline_fd,
            directory=str(desired_state),
            settings=digest_of(in_force.settings, Process.CONTROLLER),
            write_metrics=metrics_writer(Path(textfile), built.engine) if textfile else None,
            progressed=manager.feed,
        )
        supervisor = Supervisor(
            built.controller,
            built.engine,
            clock=SystemClock(),
            random=random.random,
            endpoints=endpoints,
            worker_slots=built.worker_slots,
            stop=built.stop,
            paused=paused,
        )
        call_on_termination(built.stop.set)
        previous = read_report(state.controller / "status.json")
        built.controller.begin(previous=previous, problem=built.problem)
        log_late_imports()
        manager.tell(READY=1, STATUS="converging")
        supervisor.run()
        manager.tell(STOPPING=1)
    os.close(lock)
    return 0
