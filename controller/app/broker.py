"""The broker's process: builds the gate's server, the journal and its index, and runs them."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from controller.app import process
from controller.app.policy import (
    AccessCheck,
    access_error,
    policy_file,
    policy_of_directory,
    read_policy,
)
from controller.app.process import SystemClock
from controller.app.state_folder import (
    Launch,
    User,
    choose_settings,
    lay_out_own_socket,
    other_directory,
    prepare,
    raise_if_lost,
    read_file,
    shipper_user,
    start_options,
    text_digest,
    trimtab_gid,
    user_of,
)
from controller.broker.dispatch import handle
from controller.broker.files import SecretDelivery, restore
from controller.broker.host.capabilities import UMASK, drop_privileges, raise_priority
from controller.broker.prover import Prover
from controller.broker.secrets.opener import (
    GeneratedValues,
    SecretOpener,
    SecretWorker,
    secret_folder,
)
from controller.broker.server.server import Broker, BrokerPaths, HostServices
from controller.broker.server.settings_reload import SettingsSource
from controller.core.proofs.proven_commit import FILE_MAX, SignerFiles
from controller.core.records.checkpoint import origin_of
from controller.fetch.verify import KEYS, read_keys
from controller.journal.index.queries import LiveIndex
from controller.journal.writer.checkpointer import Checkpointer, KeyFiles, SigningKeys, hash_key
from controller.journal.writer.retention import KEEP
from controller.journal.writer.writer_thread import Writer
from controller.model.crashpoints import Reach
from controller.model.errors import SourceError, StateError
from controller.model.policy.document import Policy
from controller.model.settings import InForce, InstanceSettings
from controller.ports import Clock
from controller.process.start_checks import InstanceLock, check_access, shared_folder
from controller.settings import (
    SHORT_RUN,
    StateFolder,
    bind_engine,
    read_instance,
    settings_file,
    state_of,
    write_in_force,
)
from controller.ship import fd_server
from controller.system.durable_files import hold_lock
from controller.system.sockets import engine_socket_path
from controller.system.systemd import own_manager


def run_broker(launch: Launch, *, socket_path: Path | None, lifeline_fd: int | None) -> int:
    """Run the broker until a signal arrives or the parent ends; return the exit code.

    Raises:
        StateError: the state folder can't be used.
        PolicyInvalid: the policy can't be used.
        CredentialsInvalid: the file of registry credentials can't be used.
    """
    process.log_to_stderr("broker", launch.settings.log)
    process.load_modules(())
    manager = own_manager()
    if lifeline_fd is None and launch.user.dropped and not manager.sockets:
        lay_out_own_socket(launch.state, user=launch.user)
    state, instance = launch.state, launch.instance
    check_access(
        engine_socket_path(launch.settings.engine), monotonic=time.monotonic, wait=time.sleep
    )
    clock = SystemClock()
    reach = process.crash_reach(os.environ)
    paths = BrokerPaths(
        state=state.root,
        socket=socket_path or state.broker_socket,
        policy=launch.policy,
        settings=settings_file(state.root),
        engine=launch.settings.engine,
        desired_state=Path(instance.dir),
        registry_auth=launch.registry_auth,
        registry_auth_required=bool(launch.settings.registry_auth),
    )
    lock = InstanceLock(shared_folder(os.getuid()), state.root, instance.id)

    def bind_and_claim(engine_id: str) -> None:
        bind_engine(state.root, engine_id)
        lock.claim(engine_id)

    def open_for_writing() -> Writer:
        """Open the journal, and tell the other processes the settings: this broker has the lock."""
        journal = open_journal(state, instance.id, clock=clock, reach=reach)
        write_in_force(state.root, launch.in_force)
        return journal

    refuse_exposed = access_check(launch.user)

    def load_policy(settings: InstanceSettings) -> Policy:
        policy = read_policy(policy_file(settings.policy), check_access=refuse_exposed)
        return policy_of_directory(policy, instance.dir)

    def read_settings() -> InForce:
        file, text, read = read_file(state.root, check_access=refuse_exposed)
        if read.settings.desired_state not in {"", instance.dir}:
            raise other_directory(file, read.settings.desired_state, instance.dir)
        return InForce(read.settings, text_digest(text))

    key = hash_key(state.hash_key, new_seed=lambda: secrets.token_bytes(32))
    opener = _secret_opener(state, key)
    prover = Prover(_read_key_files, opener.answer, now=clock.now, monotonic=clock.monotonic)
    services = HostServices(
        clock=clock,
        new_id=process.new_id,
        load_policy=partial(load_policy, launch.settings),
        open_journal=open_for_writing,
        open_archive=lambda journal: LiveIndex(
            state.journal, durable=lambda: journal.last_seq, clock=clock
        ),
        bind_engine=bind_and_claim,
        hash_key=key,
        secrets=opener,
        prove=prover,
        secret_folder=secret_folder(instance.id),
        reach=reach,
        manager=manager,
        settings=SettingsSource(
            started=launch.in_force,
            read=read_settings,
            policy_file=lambda settings: policy_file(settings.policy),
            load_policy=load_policy,
            publish=partial(write_in_force, state.root),
        ),
    )
    broker = Broker(
        paths,
        instance=instance.id,
        controller_uid=launch.user.uid,
        group=launch.user.gid if os.getuid() == 0 else None,
        handle=handle,
        services=services,
    )
    raise_priority()
    drop_privileges()
    if (listener := manager.sockets.get(SHORT_RUN / "ship.sock")) is not None:
        _serve_shipper(listener, state)
    process.log_late_imports()
    try:
        broker.run(lifeline=lifeline_fd)
    finally:
        opener.worker.stop()
        prover.stop()
        lock.release()
    return 0


def _serve_shipper(listener: socket.socket, state: StateFolder) -> None:
    """Open the journal's files for the shipper, in a thread that ends with the process."""
    files = fd_server.LocalFiles(state.journal)
    serve = partial(fd_server.serve_connections, listener, files, uids=(shipper_user(None).uid,))
    threading.Thread(target=serve, name="shipper", daemon=True).start()


def _read_key_files(name: str) -> SignerFiles:
    """Return the files of a folder of keys.

    Raises:
        SourceError: the folder can't be used, or has no keys for SSH signatures.
    """
    keys = read_keys(KEYS / name, owners=(0, os.getuid()))
    files = []
    for path in (keys.allowed_signers, keys.revoked_keys):
        content = b"" if path is None else path.read_bytes()
        if len(content) > FILE_MAX:
            raise SourceError("source.keys", f"{path} has more than {FILE_MAX >> 10} KiB")
        files.append(content)
    return SignerFiles(*files)


def open_launch(
    root: Path,
    *,
    directory: Path,
    options: Mapping[str, str],
    controller_uid: int | None,
    rebind: bool = False,
) -> Launch:
    """Open or create the state folder for a broker; ``up`` created the folder for its own broker.

    *options* are values of the settings, by the names of keys.

    Raises:
        StateError: as ``prepare`` and ``raise_if_lost``.
        SettingsInvalid: as ``choose_settings``, or others can change the file of settings.
        UsageError: as ``prepare`` and ``start_options``.
    """
    raise_if_lost(root)
    wanted = start_options(root, options, directory=directory, rebind=rebind)
    chosen = choose_settings(root, wanted)
    if controller_uid is None:
        user = user_of(chosen.settings, options)
    else:
        user = User(controller_uid, trimtab_gid(), dropped=os.getuid() == 0)
    read_file(root, check_access=access_check(user))
    return prepare(
        root,
        chosen,
        directory=directory,
        user=user,
        new_instance_id=process.new_instance_id(),
        rebind=rebind,
    )


def access_check(user: User) -> AccessCheck:
    """Return a check that refuses files which the controller's user or other users can change."""
    return partial(access_error, broker_uid=os.getuid(), controller_uid=user.uid)


def restore_files(root: Path) -> list[tuple[str, str]] | None:
    """Make missing folders of delivered files again, before the engine starts containers.

    Return those that can't be made, with the reason. None: a broker runs, and has done so.

    Raises:
        StateError: the state folder can't be used.
    """
    try:
        lock = hold_lock(
            root / "broker" / "lock", program="broker", monotonic=time.monotonic, wait_s=0.0
        )
    except StateError as error:
        if error.code != "state.held":
            raise
        return None
    try:
        os.umask(UMASK)
        return _restore(root)
    finally:
        os.close(lock)


def _restore(root: Path) -> list[tuple[str, str]]:
    instance = read_instance(root)
    memory = secret_folder(instance.id) if instance is not None else None
    if instance is None or memory is None:
        return restore(root, None)
    state = state_of(root, instance)
    key = hash_key(state.hash_key, new_seed=lambda: secrets.token_bytes(32))
    opener = _secret_opener(state, key)
    try:
        delivery = SecretDelivery(memory, opener.reopen_stored, opener.answer, opener.forget)
        return restore(root, delivery)
    finally:
        opener.worker.stop()


def _secret_opener(state: StateFolder, key: bytes) -> SecretOpener:
    generated = GeneratedValues(state.root / "broker" / "generated", key, secrets.token_bytes)
    worker = SecretWorker(monotonic=time.monotonic)
    return SecretOpener(worker, generated, key, time.monotonic)


def open_journal(state: StateFolder, instance: str, *, clock: Clock, reach: Reach) -> Writer:
    """Open the instance's journal for writing, with its signing key.

    Raises:
        StateError: the journal or its key can't be used.
    """
    origin = origin_of(instance)
    files = KeyFiles(state.journal_key, state.journal_public, state.journal_checkpoint)
    keys = SigningKeys(files, name=origin, new_seed=lambda: secrets.token_bytes(32))
    checkpointer = Checkpointer(keys, origin=origin, clock=clock, new_id=process.new_id)
    return Writer(
        state.journal,
        clock=clock,
        new_id=process.new_id,
        reach=reach,
        checkpointer=checkpointer,
        retention=KEEP,
    )
