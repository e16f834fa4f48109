"""The shipper's processes.

As root, two: a privileged parent, which opens the journal's files and passes their descriptors,
and a child with the shipper's user for everything else. Otherwise a single process, for which a broker
with systemd's socket opens the files.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller import __version__
from controller.app.child_commands import shipper_argv, shipper_environment
from controller.app.process import (
    SystemClock,
    call_on_termination,
    hold_process_lock,
    load_modules,
    log_late_imports,
    log_to_stderr,
)
from controller.app.state_folder import lay_out_private, shipper_user
from controller.broker.host.capabilities import drop_privileges
from controller.journal.store.reader import readable
from controller.model.errors import UsageError
from controller.model.settings import Process, digest_of
from controller.settings import SHORT_RUN, Instance, StateFolder, read_in_force
from controller.ship import fd_server
from controller.ship.destination import Destination, read_destination
from controller.system.syscalls import forbid_core_dumps
from controller.system.systemd import own_manager

#: The socket at which a broker opens the journal's files for the shipper's user.
SHIP_SOCKET = SHORT_RUN / "ship.sock"


def ship(
    state: StateFolder,
    instance: Instance,
    *,
    targets: Sequence[str],
    user_name: str | None,
    metrics: Path | None,
) -> int:
    """Ship the journal until a signal arrives; return the exit code.

    Raises:
        UsageError: a destination is malformed, or two destinations have the same name.
        StateError: the shipper's user is missing, or another shipper runs.
    """
    destinations = [read_destination(target) for target in targets]
    names = [destination.name for destination in destinations]
    if len(set(names)) != len(names):
        raise UsageError("ship.destination", "two destinations have one name", remedy="rename one")
    settings = read_in_force(state.root).settings
    handed: dict[str, object] = {
        "folder": str(state.ship),
        "instance": instance.id,
        "log": settings.log,
        "settings": digest_of(settings, Process.SHIPPER),
    }
    if os.getuid() != 0:
        if (opened := fd_server.connect(SHIP_SOCKET)) is not None:
            return run_shipper(handed, destinations, metrics=metrics, opened=opened)
        with readable(state.journal):
            fd_server.LocalFiles(state.journal).names()
        state.ship.mkdir(mode=0o700, exist_ok=True)
        return run_shipper({**handed, "journal": str(state.journal)}, destinations, metrics=metrics)

    user = shipper_user(user_name)
    lay_out_private(state.ship, user)
    ours, theirs = fd_server.pair()
    handed["handle"] = theirs.fileno()
    child = subprocess.Popen(
        shipper_argv(state, user, targets=targets, handed=handed, metrics=metrics),
        env=shipper_environment(os.environ),
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    # KILL: the child has another uid. DAC_READ_SEARCH: the journal's owner need not be root.
    drop_privileges(keep=("KILL", "DAC_READ_SEARCH"))
    call_on_termination(child.terminate)
    fd_server.serve(ours, fd_server.LocalFiles(state.journal))
    ours.close()
    code = child.wait()
    return code if code >= 0 else 1  # killed by a signal


def run_shipper(
    handed: Mapping[str, object],
    destinations: Sequence[Destination],
    *,
    metrics: Path | None,
    opened: fd_server.JournalFiles | None = None,
) -> int:
    """Run the shipper until a signal arrives; return the exit code.

    *handed* comes from the parent: ``folder`` (cursors and status), ``instance``, ``log`` (a level), ``settings`` (their
    digest), and, without *opened*, either ``handle`` (the descriptor of the parent's file server) or ``journal`` (a path).

    Raises:
        StateError: the journal doesn't continue the shipped records, or another shipper runs.
        UsageError: a destination's package is missing, or a TLS file can't be used.
    """
    # The privileged parent must not load what parses records and talks to the network.
    from controller.ship.destination import Sender
    from controller.ship.shipper import Shipper, ShipperPaths
    from controller.ship.sinks import open_sink

    forbid_core_dumps()
    log_to_stderr("ship", str(handed["log"]))
    load_modules(())
    manager = own_manager()
    folder, clock = Path(str(handed["folder"])), SystemClock()
    digest = str(handed["settings"])
    lock = hold_process_lock(folder / "lock", program="shipper", settings=digest)
    handle = handed.get("handle")
    files = opened or (
        fd_server.RemoteFiles(socket.socket(fileno=handle))
        if isinstance(handle, int)
        else fd_server.LocalFiles(Path(str(handed["journal"])))
    )
    sender = Sender(socket.gethostname(), __version__, str(handed["instance"]), time.monotonic)
    sinks = {destination.name: open_sink(destination, sender) for destination in destinations}
    shipper = Shipper(sinks, files, ShipperPaths(folder, metrics), clock=clock)
    call_on_termination(shipper.stop)
    log_late_imports()
    manager.tell(READY=1)
    shipper.run()
    manager.tell(STOPPING=1)
    os.close(lock)
    return 0
