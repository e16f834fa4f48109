"""The composition root: builds adapters and hands them what they need.

The only reader of clock and randomness; of the environment what the adapters need (commands read
theirs). Imports are inside the functions,
so that the broker's process never loads what belongs to the controller, and ``status`` loads
neither.
"""

from __future__ import annotations

import grp
import json
import logging
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.app.clock import SystemClock
from controller.app.launch import (
    CRASH_AT,
    PACKAGE,
    UNCHANGED,
    Launch,
    LaunchOptions,
    User,
    broker_recipe,
    controller_recipe,
    controller_socket,
    controller_user,
    lay_out_shipper,
    prepare,
    shipper_argv,
    shipper_environment,
    shipper_user,
)
from controller.core.encoding import engine_address
from controller.model.crashpoints import CRASH_POINTS, Reach, pass_by
from controller.model.errors import PolicyInvalid, StateError, UsageError
from controller.model.names import NetworkNames
from controller.process.drop_privileges import MEANT, check_meant
from controller.process.engine_socket import raise_if_denied
from controller.process.instance_lock import InstanceLock, shared_folder
from controller.process.process_group import POLL_S, ProcessGroup
from controller.settings import GROUP, STANDARD_SOCKET, bind_engine, read_instance, state_of
from controller.system.atomic_file import write_atomic
from controller.system.file_lock import hold_lock
from controller.system.unix_socket import has_listener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controller.engine.adapter import BrokerEngine
    from controller.journal.index.live_index import LiveIndex
    from controller.journal.writer.writer import Writer
    from controller.loop.controller import Controller
    from controller.loop.passes import PassPolicy
    from controller.model.container_output import FailedRun
    from controller.model.desired.plan import AnyAction
    from controller.model.errors import Problem
    from controller.model.names import Key
    from controller.model.observed import HostPort
    from controller.model.policy.document import Policy
    from controller.ports import Clock, QueuedJournal
    from controller.settings import Instance, StateFolder
    from controller.ship.destination import Destination
    from controller.sources.directory import DirectorySource

#: How long ``up`` waits for an instance on the same state folder to end (docs/operations/state.md).
FREE_WAIT_S = 5.0


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7): ordered by time, else random."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_instance_id() -> str:
    """Return a new instance id: 16 hex digits."""
    return secrets.token_hex(8)


def crash_reach(environ: Mapping[str, str]) -> Reach:
    """Return the ``reach`` of this process: nothing, or a kill at the point that is named.

    ``TRIMTAB_CRASH_AT=NAME`` or ``NAME:N`` for the N-th time the point is reached.

    Raises:
        UsageError: there is no such point.
    """
    wanted = environ.get(CRASH_AT)
    if not wanted:
        return pass_by
    name, _, count = wanted.partition(":")
    if name not in CRASH_POINTS:
        raise UsageError("crash-point.unknown", f"{CRASH_AT} names no crash point: {name}")
    left = int(count or "1")

    def reach(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


def engine_url(explicit: str | None) -> str:
    """Return the engine's address: as given, else ``$DOCKER_HOST``, else the standard socket."""
    return explicit or os.environ.get("DOCKER_HOST") or STANDARD_SOCKET


def prepare_launch(
    root: Path,
    *,
    directory: Path,
    engine: str | None,
    policy: str | None,
    controller_user_name: str | None,
    rebind: bool,
    chosen: LaunchOptions = UNCHANGED,
    instance_id: str = "",
) -> Launch:
    """Make the state folder ready for ``up``; raises as ``launch.prepare`` and ``await_free``, and
    where this user is not allowed to open the engine's socket.

    A new one becomes the instance *instance_id*, where that is given.
    """
    await_free(root)
    url = engine_url(engine)
    raise_if_denied(engine_address.socket_path(url), monotonic=time.monotonic, wait=time.sleep)
    return prepare(
        root,
        directory=directory,
        engine=url,
        policy=policy,
        user=controller_user(controller_user_name, uid=os.getuid()),
        new_instance_id=instance_id or new_instance_id(),
        rebind=rebind,
        chosen=chosen,
    )


def await_free(root: Path) -> None:
    """Wait until a dying instance has left its sockets: what lives on is changed by nobody else.

    Raises:
        StateError: it is served still after ``FREE_WAIT_S``.
    """
    instance = read_instance(root)
    if instance is None:
        return
    state = state_of(root, instance)
    deadline = time.monotonic() + FREE_WAIT_S
    for path in (state.broker_socket, state.controller_socket):
        while has_listener(path):
            if time.monotonic() >= deadline:
                raise StateError(
                    "state.served",
                    f"a process serves {path} already",
                    remedy="stop it first, or name another state folder with --state",
                )
            time.sleep(POLL_S)


@contextmanager
def both(launch: Launch, *, paused: bool = False) -> Iterator[ProcessGroup]:
    """Run broker and controller as children until the block ends; then the broker last.

    *paused*: the controller runs passes only while one is asked for.
    """
    assembly = ProcessGroup(monotonic=time.monotonic, wait=time.sleep)
    try:
        child = assembly.start(broker_recipe(launch, os.environ))
        assembly.await_socket(child, launch.state.broker_socket)
        with controller_socket(launch.state, user=launch.user) as listener:
            assembly.start(controller_recipe(launch, os.environ, listener=listener, paused=paused))
            try:
                yield assembly
            finally:
                assembly.stop()
                launch.state.controller_socket.unlink(missing_ok=True)
    finally:
        assembly.stop()


@contextmanager
def broker_alone(launch: Launch) -> Iterator[Path]:
    """Run a broker as a child until the block ends, and yield its socket."""
    assembly = ProcessGroup(monotonic=time.monotonic, wait=time.sleep)
    try:
        child = assembly.start(broker_recipe(launch, os.environ))
        assembly.await_socket(child, launch.state.broker_socket)
        yield launch.state.broker_socket
    finally:
        assembly.stop()


# The broker's process


def run_broker(
    root: Path,
    *,
    engine: str | None,
    policy: str | None,
    socket_path: Path | None,
    controller_uid: int | None,
    lifeline_fd: int | None,
    chosen: LaunchOptions = UNCHANGED,
) -> int:
    """Be the broker until a signal or the end of the parent.

    Raises:
        StateError: the state folder can't be used.
        PolicyInvalid: the policy can't be used.
        CredentialsInvalid: the file of registry credentials can't be used.
    """
    from controller.broker.dispatch import handle
    from controller.broker.host.capabilities import bound
    from controller.broker.server.server import Broker, BrokerPaths, HostServices
    from controller.journal.writer.signing_keys import hash_key

    log_to_stderr("broker")
    launch = open_launch(
        root,
        engine=engine,
        policy=policy,
        controller_uid=controller_uid,
        chosen=chosen,
    )
    state, instance = launch.state, launch.instance
    raise_if_denied(
        engine_address.socket_path(instance.engine), monotonic=time.monotonic, wait=time.sleep
    )
    clock = SystemClock()
    reach = crash_reach(os.environ)
    places = BrokerPaths(
        state=state.root,
        socket=socket_path or state.broker_socket,
        policy=launch.policy,
        engine=instance.engine,
        desired_state=Path(instance.dir),
        registry_auth=launch.registry_auth,
        registry_auth_required=bool(instance.registry_auth),
    )
    alone = InstanceLock(shared_folder(os.getuid()), state.root, instance.id)

    def belong(engine_id: str) -> None:
        bind_engine(state.root, engine_id)
        alone.claim(engine_id)

    outside = HostServices(
        clock=clock,
        new_id=new_id,
        load_policy=lambda: read_policy(launch.policy),
        open_journal=lambda: open_journal(state, instance.id, clock=clock, reach=reach),
        open_archive=lambda journal: keep_index(state, journal, clock=clock),
        bind_engine=belong,
        hash_key=hash_key(state.hash_key, new_seed=lambda: secrets.token_bytes(32)),
        reach=reach,
    )
    broker = Broker(
        places,
        instance=instance.id,
        controller_uid=launch.user.uid,
        group=launch.user.gid if os.getuid() == 0 else None,
        handle=handle,
        outside=outside,
    )
    bound()
    try:
        broker.run(lifeline=lifeline_fd)
    finally:
        alone.release()
    return 0


def open_journal(state: StateFolder, instance: str, *, clock: Clock, reach: Reach) -> Writer:
    """Open the instance's journal to write it, with the key that signs it.

    Raises:
        StateError: the journal or its key can't be used.
    """
    from controller.core.transparency.checkpoint import origin_of
    from controller.journal.writer.checkpointer import Checkpointer
    from controller.journal.writer.retention import KEEP
    from controller.journal.writer.signing_keys import KeyFiles, SigningKeys
    from controller.journal.writer.writer import Writer

    origin = origin_of(instance)
    files = KeyFiles(state.journal_key, state.journal_public, state.journal_checkpoint)
    keys = SigningKeys(files, name=origin, new_seed=lambda: secrets.token_bytes(32))
    notary = Checkpointer(keys, origin=origin, clock=clock, new_id=new_id)
    return Writer(state.journal, clock=clock, new_id=new_id, reach=reach, notary=notary, keep=KEEP)


def keep_index(state: StateFolder, journal: QueuedJournal, *, clock: Clock) -> LiveIndex:
    """Begin to keep the index of the journal that is being written."""
    from controller.journal.index.live_index import LiveIndex

    return LiveIndex(state.journal, durable=lambda: journal.last_seq, clock=clock)


def open_launch(
    root: Path,
    *,
    engine: str | None,
    policy: str | None,
    controller_uid: int | None,
    chosen: LaunchOptions = UNCHANGED,
) -> Launch:
    """Open or make the state folder for a broker alone; ``up`` made it already for its own."""
    found = read_instance(root)
    if controller_uid is None:
        user = controller_user(None, uid=os.getuid())
    else:
        user = User(controller_uid, trimtab_gid(), dropped=os.getuid() == 0)
    return prepare(
        root,
        directory=Path(found.dir) if found is not None else Path.cwd() / "desired-state",
        engine=engine or (found.engine if found is not None else engine_url(None)),
        policy=policy,
        user=user,
        new_instance_id=new_instance_id(),
        chosen=chosen,
    )


def trimtab_gid() -> int:
    """Return the gid of the group whose members may connect, else our own."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return os.getgid()


def read_policy(path: Path) -> Policy:
    """Return the policy of a file.

    Raises:
        PolicyInvalid: it can't be read, or isn't a policy; the message says file, line and why.
    """
    from controller.core.policy.load import load_policy

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyInvalid(
            "policy.unreadable", f"{path}: {error}", remedy="name a readable file with --policy"
        ) from error
    return _with_shipped(load_policy(text, str(path)))


def _with_shipped(policy: Policy) -> Policy:
    """Return a policy that knows whether its file is part of the package, and what ``home`` grants."""
    from controller.app.launch import is_shipped, policy_file

    origin = policy.origin
    if origin is None or not is_shipped(Path(origin.file)):
        return policy
    home = None if policy.name == "home" else read_policy(policy_file("home"))
    return policy.read_from(replace(origin, shipped=True, home=home))


def policy_from_route(told: Mapping[str, Any]) -> Policy:
    """Return the policy that the broker's own route shows, with the file that it was read from."""
    from controller.model.policy.document import Policy, PolicyOrigin

    policy = Policy.model_validate_json(json.dumps(told["policy"]))
    origin = told.get("origin")
    if not isinstance(origin, dict):
        return policy  # a client's look, or an earlier broker
    return _with_shipped(policy.read_from(PolicyOrigin(str(origin["file"]), dict(origin["lines"]))))


def log_to_stderr(name: str) -> None:
    """Log to stderr, a line a message, as journald and docker like it."""
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("TRIMTAB_LOG", "WARNING").upper(),
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
    )


# The controller's process, and one-shot commands that plan as it does


def directory_source(directory: Path) -> DirectorySource:
    """Return the files of DIR, with the charts in ``configs/`` beside it."""
    from controller.sources.directory import DirectorySource

    return DirectorySource(directory, charts=charts_of(directory))


def charts_of(directory: Path) -> Path:
    """Return where the Releases of DIR find their charts."""
    return directory.parent / "configs"


def broker_engine(broker_socket: Path) -> BrokerEngine:
    """Return the engine as it shows itself through a broker."""
    from controller.engine.adapter import BrokerEngine
    from controller.engine.docker_client import SdkTransport

    return BrokerEngine(
        SdkTransport(broker_socket),
        networks=NetworkNames(),
        pause=time.sleep,
        reach=crash_reach(os.environ),
        listening=host_ports,
    )


def host_ports() -> frozenset[HostPort]:
    """Return what is bound in this network namespace, as far as it can be read."""
    from controller.core.drift.host_ports import parse_sockets

    found: frozenset[HostPort] = frozenset()
    for protocol in ("tcp", "udp"):
        for version in ("", "6"):
            with suppress(OSError):
                text = Path(f"/proc/net/{protocol}{version}").read_text("ascii")
                found |= parse_sockets(text, protocol)
    return found


def rules_of(policy: Policy, digest: str) -> PassPolicy:
    """Return what passes need of a policy: names, verdicts in advance, which one it is."""
    from controller.core.admission.create import preview
    from controller.core.drift.failed_runs import Readers
    from controller.core.engine_api.translate import container_body
    from controller.core.planning.image_volumes import volume_rule_of
    from controller.loop.passes import PassPolicy
    from controller.model.desired.plan import CreateContainer, Verdict

    networks = policy.networks.names

    def judge(action: AnyAction) -> Verdict:
        if isinstance(action, CreateContainer):
            return preview(policy, action, container_body(action, networks))
        return preview(policy, action, None)

    readers = Readers(
        operators=frozenset({0, *policy.operators}),
        owners={client.uid: client.owner for client in policy.clients},
    )
    return PassPolicy(
        networks=networks,
        judge=judge,
        digest=digest,
        volume_rule=volume_rule_of(policy),
        readers=readers,
    )


class PolicyInForce:
    """The broker's policy, parsed anew only when its digest changed."""

    def __init__(self, engine: BrokerEngine) -> None:
        self._engine = engine
        self._rules: PassPolicy | None = None

    def __call__(self) -> PassPolicy:
        """Return the rules in force.

        Raises:
            EngineError: the broker can't be asked.
        """
        told = self._engine.own_route("policy")
        if self._rules is None or self._rules.digest != told["digest"]:
            policy = policy_from_route(told)
            self._rules = rules_of(policy, told["digest"])
            self._engine.networks = self._rules.networks
        return self._rules


def build_controller(
    state: StateFolder,
    directory: Path,
    engine: BrokerEngine,
    *,
    memory_file: Path,
    quarantine_ms: int = 0,
    acts: bool = True,
) -> tuple[Controller, Problem | None]:
    """Return a controller without threads, and what is wrong with its memory.

    One that doesn't act leaves a broken memory where it is, so that one that does tells of it.

    Raises:
        StateError: its memory can't be read.
    """
    from controller.core.planning.quarantine import QuarantineRules
    from controller.loop.controller import Controller
    from controller.loop.probes.prober import ProbedEngine, Prober
    from controller.loop.probes.sockets import ProbeSockets
    from controller.loop.state.failed_runs import FailureLog
    from controller.loop.state.store import StateStore

    clock = SystemClock()
    reach = crash_reach(os.environ)
    memory = StateStore(memory_file, reach=reach)
    problem = memory.load(stamp=f"{time.time_ns()}" if acts else "")
    failure_log = FailureLog(
        clock, file=memory_file.with_name("failures.json"), reader=engine, reach=reach
    )
    failure_log.load()
    published = state.controller / "status.json"

    def publish(report: dict[str, object]) -> None:
        write_atomic(published, json.dumps(report).encode())

    controller = Controller(
        source=directory_source(directory),
        engine=ProbedEngine(engine, Prober(ProbeSockets(clock.monotonic), clock)),
        memory=memory,
        clock=clock,
        random=random.random,
        fetch_rules=PolicyInForce(engine),
        publish=publish,
        keeping=QuarantineRules(quarantine_ms / 1000, boot_id()),
    )
    controller.keep_failures(failure_log)
    engine.progress = controller.progressed
    return controller, problem


def boot_id() -> str:
    """Return what tells this boot of the host from others (proc_sys_kernel(5)), '' if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def known_dependencies(state: StateFolder, directory: Path) -> dict[Key, frozenset[Key]]:
    """Return what services depend on, as the files say, or else as they said it last."""
    from controller.core.manifests.dependencies import dependencies_of
    from controller.loop.state.store import BROKEN, StateStore

    memory = StateStore(state.controller / "state.json")
    with suppress(OSError, *BROKEN):
        memory.read()
    declared = directory_source(directory).load().services
    return {
        **memory.dependencies(),
        **{each.key: frozenset(dependencies_of(each.key, each.spec)) for each in declared},
    }


def read_report(path: Path) -> dict[str, object] | None:
    """Return the status that was published last, so that conditions keep their since."""
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def last_history(state: StateFolder, name: str) -> dict[str, object]:
    """Return a service's history from what the controller remembered last.

    Raises:
        StateError: that can't be read, or there is no such service in it.
    """
    from controller.core.service.history import HistoryInputs, history
    from controller.loop.state.store import BROKEN, StateStore

    memory = StateStore(state.controller / "state.json")
    try:
        memory.read()
    except (OSError, *BROKEN) as error:
        raise StateError(
            "state.unreadable",
            f"what the controller remembers can't be read: {error}",
            remedy="run the command as root, or start the instance with 'trimtab up'",
        ) from error
    wanted = tuple(name.split("/"))
    for key, steering in sorted(memory.steerings().items()):
        parts = (key.kind, key.namespace, key.name)
        if steering.revisions and parts[-len(wanted) :] == wanted:
            generation = memory.generation(key)
            number = 0 if generation is None else generation.number
            return history(HistoryInputs(key, steering, steering.revisions[-1].revision, number))
    raise StateError("service.unknown", f"nothing is known of a service {name}")


def last_failures(state: StateFolder) -> tuple[FailedRun, ...]:
    """Return the failed runs that the controller kept last.

    Raises:
        StateError: they can't be read.
    """
    from controller.loop.state.failed_runs import read_runs

    try:
        return read_runs(state.controller / "failures.json")
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            "state.unreadable",
            f"what failed containers printed can't be read: {error}",
            remedy="run the command as root, or start the instance with 'trimtab up'",
        ) from error


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
    """Be the controller until a signal or the end of the parent.

    Raises:
        StateError: the state folder can't be used, its memory can't be read, or another controller
            holds it.
    """
    from controller.loop.supervisor import ControlEndpoints, Supervisor
    from controller.sources.watch import watch

    check_meant(os.environ.get(MEANT), package=PACKAGE)
    log_to_stderr("controller")
    instance = read_instance(root)
    if instance is None:
        raise StateError(
            "state.missing", f"no instance at {root}", remedy="start its broker first, or 'up'"
        )
    state = state_of(root, instance)
    lock = hold_lock(state.controller / "lock", program="controller", monotonic=time.monotonic)
    where = directory.absolute() if directory is not None else Path(instance.dir)
    engine = broker_engine(broker_socket or state.broker_socket)
    controller, problem = build_controller(
        state,
        where,
        engine,
        memory_file=state.controller / "state.json",
        quarantine_ms=instance.quarantine_ms if quarantine_ms is None else quarantine_ms,
    )
    listener = (
        socket.socket(fileno=listen_fd)
        if listen_fd is not None
        else controller_socket(state, user=User(os.getuid(), os.getgid(), dropped=False))
    )
    doors = ControlEndpoints(
        watch=lambda wake, stop: watch(where, wake, stop, also=(charts_of(where),)),
        listener=listener,
        lifeline=lifeline_fd,
    )
    supervisor = Supervisor(
        controller, engine, clock=SystemClock(), random=random.random, doors=doors, paused=paused
    )

    def end(_number: int, _frame: object) -> None:
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    controller.begin(previous=read_report(state.controller / "status.json"), problem=problem)
    supervisor.run()
    os.close(lock)
    return 0


# The shipper's processes


def ship(
    state: StateFolder,
    instance: Instance,
    *,
    targets: Sequence[str],
    user_name: str | None,
    metrics: Path | None,
) -> int:
    """Ship until a signal. As root this process opens files alone, and a child does all else.

    Raises:
        UsageError: a destination isn't one, or two have one name.
        StateError: the shipper's user is missing, or another shipper runs.
    """
    from controller.broker.host.capabilities import bound
    from controller.journal.store.reader import readable
    from controller.ship import fd_server
    from controller.ship.destination import read_destination

    destinations = [read_destination(target) for target in targets]
    names = [destination.name for destination in destinations]
    if len(set(names)) != len(names):
        raise UsageError("ship.destination", "two destinations have one name", remedy="rename one")
    handed: dict[str, object] = {"folder": str(state.ship), "instance": instance.id}
    if os.getuid() != 0:
        with readable(state.journal):
            fd_server.LocalFiles(state.journal).names()
        state.ship.mkdir(mode=0o700, exist_ok=True)
        return run_shipper({**handed, "journal": str(state.journal)}, destinations, metrics=metrics)

    user = shipper_user(user_name)
    lay_out_shipper(state.ship, user)
    ours, theirs = fd_server.pair()
    handed["handle"] = theirs.fileno()
    child = subprocess.Popen(
        shipper_argv(state, user, targets=targets, handed=handed, metrics=metrics),
        env=shipper_environment(os.environ),
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    bound(keep=("KILL", "DAC_READ_SEARCH"))  # the child is another user's, a journal may be

    def end(_number: int, _frame: object) -> None:
        child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    fd_server.serve(ours, fd_server.LocalFiles(state.journal))
    ours.close()
    code = child.wait()
    return code if code >= 0 else 1  # killed


def run_shipper(
    handed: Mapping[str, object], destinations: Sequence[Destination], *, metrics: Path | None
) -> int:
    """Be the shipper until a signal, with what its parent handed on.

    Raises:
        StateError: the journal isn't what was shipped, or another shipper runs.
        UsageError: a destination needs what isn't there.
    """
    from controller import __version__
    from controller.ship.fd_server import LocalFiles, RemoteFiles
    from controller.ship.shipper import Shipper, ShipperPaths
    from controller.ship.sink import Sender
    from controller.ship.sinks import open_sink

    log_to_stderr("ship")
    folder, clock = Path(str(handed["folder"])), SystemClock()
    lock = hold_lock(folder / "lock", program="shipper", monotonic=time.monotonic)
    handle = handed.get("handle")
    files = (
        RemoteFiles(socket.socket(fileno=handle))
        if isinstance(handle, int)
        else LocalFiles(Path(str(handed["journal"])))
    )
    sender = Sender(socket.gethostname(), __version__, str(handed["instance"]), time.monotonic)
    sinks = {each.name: open_sink(each, sender) for each in destinations}
    shipper = Shipper(sinks, files, ShipperPaths(folder, metrics), clock=clock)

    def end(_number: int, _frame: object) -> None:
        shipper.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    shipper.run()
    os.close(lock)
    return 0
