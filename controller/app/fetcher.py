"""The fetcher's process, and its start by ``up`` while DIR declares a Source."""

from __future__ import annotations

import os
import platform
import random
import select
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from controller.app.child_commands import fetcher_recipe
from controller.app.policy import PACKAGE
from controller.app.process import (
    SystemClock,
    call_on_termination,
    hold_process_lock,
    load_modules,
    log_late_imports,
    log_to_stderr,
)
from controller.app.state_folder import (
    Launch,
    fetcher_user,
    lay_out_feedback,
    lay_out_fetcher,
    trimtab_gid,
)
from controller.app.up import listen
from controller.model.errors import TrimtabError
from controller.model.settings import Process, digest_of
from controller.process.drop_privileges import EXPECTED_PROGRAM, check_program
from controller.process.process_group import ProcessGroup
from controller.settings import existing_instance, read_in_force
from controller.sources.source_scan import SourceScan
from controller.sources.written_folders import WRITTEN_FOLDERS, WrittenFolders
from controller.system.child_programs import end_programs
from controller.system.runtime import StopSignal
from controller.system.syscalls import forbid_core_dumps
from controller.system.systemd import WAITING_MAX, own_manager

#: The time between two searches for Sources in DIR.
SCAN_S = 2.0
FETCHER = "fetcher"


class FetcherChild:
    """The fetcher among the children of ``up``: it runs while DIR declares a Source."""

    def __init__(self, group: ProcessGroup, launch: Launch) -> None:
        self._group = group
        self._launch = launch
        self._scan = SourceScan(Path(launch.instance.dir), self._closed)
        self._next_scan = 0.0
        self._listener: socket.socket | None = None

    def _closed(self) -> frozenset[str]:
        """Return the folders of DIR that the controller leaves out."""
        return WrittenFolders(self._launch.state.controller / WRITTEN_FOLDERS, keeps=False).known

    def adjust(self, *, now: float) -> str | None:
        """Start or stop the fetcher, if DIR changed. Call this periodically.

        Return why the fetcher can't be started, once for each change.
        """
        if now < self._next_scan:
            return None
        self._next_scan = now + SCAN_S
        is_needed = self._scan.declares_sources()
        if is_needed == (self._listener is not None):
            return None
        if not is_needed:
            self.stop()
            return None
        try:
            self._start()
        except (TrimtabError, OSError) as error:
            self._next_scan = now + 30 * SCAN_S
            return f"the fetcher of Git sources can't be started: {error}"
        return None

    def stop(self) -> None:
        """End the fetcher, and remove its socket."""
        self._group.end(FETCHER)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._launch.state.fetch_socket.unlink(missing_ok=True)

    def _start(self) -> None:
        user = fetcher_user(uid=os.getuid())
        lay_out_fetcher(self._launch.state.fetcher, user, group=trimtab_gid())
        lay_out_feedback(self._launch.state.feedback, self._launch.user, reader=user)
        group = trimtab_gid() if user.dropped else None
        listener = listen(self._launch.state.fetch_socket, program=FETCHER, group=group)
        try:
            self._group.start(fetcher_recipe(self._launch, user, os.environ, listener=listener))
        except BaseException:
            listener.close()
            raise
        self._listener = listener


def run_fetcher(
    root: Path,
    *,
    directory: Path | None,
    listen_fd: int | None,
    lifeline_fd: int | None,
    webhook: str | None,
) -> int:
    """Fetch the Sources of DIR until a signal arrives or the parent ends; return the exit code.

    Raises:
        StateError: the state folder can't be used, or another fetcher runs.
        UsageError: *webhook* is no address of this host.
    """
    # Only a process with Sources loads what reads documents and talks to Git.
    from controller.app.desired_state import READERS_ON_USE, directory_source
    from controller.core.compose.translation.scope import ComposeSettings
    from controller.fetch.credentials import FOLDER
    from controller.fetch.fetcher import DeclaredSources, Fetcher, FetcherParts, serve_requests
    from controller.fetch.verify import KEYS, Verifier, read_keys
    from controller.fetch.webhook import serve_webhooks
    from controller.sources.watch import watch

    check_program(os.environ.get(EXPECTED_PROGRAM), package=PACKAGE)
    forbid_core_dumps()
    manager = own_manager()
    load_modules(READERS_ON_USE)
    instance, state = existing_instance(root)
    in_force = read_in_force(root)
    log_to_stderr("fetch", in_force.settings.log)
    lock = hold_process_lock(
        state.fetcher / "lock",
        program=FETCHER,
        settings=digest_of(in_force.settings, Process.FETCHER),
    )
    clock = SystemClock()
    desired_state = directory.absolute() if directory is not None else Path(instance.dir)
    # A container that could declare a Source would choose who gets the credentials.
    place = ComposeSettings(directory=os.path.realpath(desired_state))
    documents = directory_source(
        desired_state,
        compose=lambda: place,
        written=WrittenFolders(state.fetcher / WRITTEN_FOLDERS),
    )

    def load_sources() -> DeclaredSources:
        desired = documents.load()
        is_complete = desired.identity.present and not (
            desired.blind or any(key.kind == "Source" for key in desired.blind_keys)
        )
        return DeclaredSources(
            {source.key.name: source.spec for source in desired.sources}, is_complete
        )

    owners = frozenset({0, root.stat().st_uid})
    fetcher = Fetcher(
        FetcherParts(
            folder=state.fetcher,
            credentials=FOLDER,
            verify=lambda keys, signature: Verifier(
                read_keys(KEYS / keys, owners=owners), now=clock.now(), monotonic=clock.monotonic
            ).verify(signature),
            load_sources=load_sources,
            clock=clock,
            random=random.random,
            feedback=state.feedback / "feedback.json",
            host=platform.node(),
        )
    )
    stop, ended = StopSignal(), threading.Event()
    call_on_termination(stop.set)
    fetcher.start()
    if listen_fd is not None:
        listener = socket.socket(fileno=listen_fd)
    elif (held := manager.sockets.get(state.fetch_socket)) is not None:
        listener = held
        listener.listen(WAITING_MAX)
    else:
        listener = listen(state.fetch_socket, program=FETCHER, group=None)
    serve_requests(listener, fetcher, operators=owners)
    if address := in_force.settings.webhook if webhook is None else webhook:
        serve_webhooks(address, fetcher.wake)
    threading.Thread(
        target=partial(watch, closed=documents.closed),
        args=(desired_state, fetcher.reload, ended),
        name="files",
        daemon=True,
    ).start()
    log_late_imports()
    manager.tell(READY=1)
    watched = [stop, *(() if lifeline_fd is None else (lifeline_fd,))]
    # As a unit of its own, the fetcher ends when no Source is declared any more.
    while (
        not select.select(watched, (), (), SCAN_S if manager.sockets else None)[0]
        and state.declared_sources.exists()
    ):
        pass
    manager.tell(STOPPING=1)
    ended.set()
    end_programs()
    fetcher.stop()
    with suppress(OSError):
        os.close(lock)
    return 0
