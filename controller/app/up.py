"""The processes of ``up``, and of one-shot commands: broker and controller.

Broker and controller are children of the command. The broker starts first and stops last.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from controller.app.child_commands import broker_recipe, controller_recipe
from controller.app.process import new_instance_id
from controller.app.state_folder import (
    Launch,
    User,
    await_free,
    choose_settings,
    prepare,
    raise_if_lost,
    start_options,
    user_of,
)
from controller.model.errors import StateError
from controller.process.process_group import ProcessGroup
from controller.process.start_checks import check_access
from controller.settings import StateFolder
from controller.system.sockets import SocketInUse, bind_socket, engine_socket_path
from controller.system.syscalls import forbid_core_dumps


def prepare_launch(
    root: Path,
    *,
    directory: Path,
    options: Mapping[str, str],
    rebind: bool,
    instance_id: str = "",
) -> Launch:
    """Make the state folder ready for ``up``. A new instance gets *instance_id*, if given.

    *options* are values of the settings, by the names of keys (``model.settings.choose``).

    Raises:
        StateError: as ``prepare``, ``await_free`` and ``raise_if_lost``, or the caller has no access
            to the engine's socket.
        SettingsInvalid: as ``choose_settings``.
        UsageError: as ``prepare``, ``start_options`` and ``controller_user``.
    """
    await_free(root)
    if not instance_id:
        raise_if_lost(root)
    wanted = start_options(root, options, directory=directory, rebind=rebind)
    chosen = choose_settings(root, wanted)
    socket_path = engine_socket_path(chosen.settings.engine)
    check_access(socket_path, monotonic=time.monotonic, wait=time.sleep)
    return prepare(
        root,
        chosen,
        directory=directory,
        user=user_of(chosen.settings, options),
        new_instance_id=instance_id or new_instance_id(),
        rebind=rebind,
    )


@contextmanager
def run_both(launch: Launch, *, paused: bool = False) -> Iterator[ProcessGroup]:
    """Run broker and controller as children during the block; stop the broker last.

    A *paused* controller runs passes only on request.
    """
    with (
        run_broker_only(launch) if paused else _run_broker(launch, os.environ) as group,
        controller_socket(launch.state, user=launch.user) as listener,
    ):
        group.start(controller_recipe(launch, os.environ, listener=listener, paused=paused))
        try:
            yield group
        finally:
            group.stop()
            launch.state.controller_socket.unlink(missing_ok=True)


@contextmanager
def run_broker_only(launch: Launch) -> Iterator[ProcessGroup]:
    """Run a broker as a child during the block, for one command.

    The command prints errors itself, so the broker logs no warnings unless ``TRIMTAB_LOG`` is set.
    """
    with _run_broker(launch, {"TRIMTAB_LOG": "ERROR", **os.environ}) as group:
        yield group


@contextmanager
def _run_broker(launch: Launch, environ: Mapping[str, str]) -> Iterator[ProcessGroup]:
    forbid_core_dumps()
    group = ProcessGroup(monotonic=time.monotonic, wait=time.sleep)
    try:
        child = group.start(broker_recipe(launch, environ))
        group.await_socket(child, launch.state.broker_socket)
        yield group
    finally:
        group.stop()


def controller_socket(state: StateFolder, *, user: User) -> socket.socket:
    """Bind and listen on the controller's socket: the controller has no write access to the folder.

    Raises:
        StateError: another controller serves the socket.
    """
    group = user.gid if os.getuid() == 0 else None
    return listen(state.controller_socket, program="controller", group=group)


def listen(path: Path, *, program: str, group: int | None) -> socket.socket:
    """Bind and listen on the socket of a program, such as ``controller``.

    Raises:
        StateError: another process serves the socket.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind_socket(listener, path, group=group)
    except SocketInUse as error:
        listener.close()
        raise StateError(
            "controller.running",
            f"a {program} serves {path} already",
            remedy="stop it first, or use another --state",
        ) from error
    listener.listen(64)
    return listener
