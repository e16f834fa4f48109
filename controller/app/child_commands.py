"""Command lines, environments and file views of the child processes."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from controller.app.policy import PACKAGE, PROJECT
from controller.app.process import CRASH_AT
from controller.app.state_folder import Launch, User
from controller.process.drop_privileges import (
    EXPECTED_PROGRAM,
    Need,
    PrivilegeDrop,
    expected_program,
    plan_view,
)
from controller.process.process_group import Recipe
from controller.settings import StateFolder
from controller.system.sockets import engine_socket_path

#: The environment variables that every child inherits.
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TRIMTAB_LOG")
#: Variables of every child.
SET_ENVIRONMENT = {
    # pydantic then searches no installed package for plugins: a search takes a twentieth of a child's
    # start, and a plugin would run as root in the broker.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    # glibc's malloc then returns the memory of long lists to the system. By default each thread has
    # heaps of its own, and the first freed list raises the size from which memory is returned: the
    # controller of 10,000 containers grew by a third, and by 4 MB with each list of the engine.
    # See mallopt(3), M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD. Each read of a socket takes a
    # buffer of 256 KiB, which is better kept.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(8 * 1024 * 1024),
}
#: Prefixes of the variables that the shipper inherits too: OpenTelemetry's exporter takes a
#: collector's credentials from them.
EXPORTERS = "OTEL_EXPORTER_OTLP_"


def broker_recipe(launch: Launch, environ: Mapping[str, str]) -> Recipe:
    """Return the broker's command; the broker keeps the caller's uid to open the engine's socket."""
    argv = (
        *_python(),
        "broker",
        *("--state", str(launch.state.root)),
        *("--controller-uid", str(launch.user.uid)),
        *("--lifeline", "{lifeline}"),
    )
    return Recipe("broker", argv, _inherited(environ), _crash(environ))


def controller_recipe(
    launch: Launch, environ: Mapping[str, str], *, listener: socket.socket, paused: bool = False
) -> Recipe:
    """Return the controller's command; for root, the command drops to the controller's user first.

    Raises:
        StateError: the controller's user has no access to a required file.
    """
    argv = (
        *_python(),
        "run",
        launch.instance.dir,
        *("--state", str(launch.state.root)),
        *("--broker", str(launch.state.broker_socket)),
        *("--listen-fd", str(listener.fileno())),
        *("--lifeline", "{lifeline}"),
        *(("--paused",) if paused else ()),
    )
    environment = _inherited(environ)
    if launch.user.dropped:
        argv = _dropping(argv, launch.user, needs_of(launch))
        environment[EXPECTED_PROGRAM] = expected_program(Path(sys.executable), PACKAGE)
    return Recipe("controller", argv, environment, _crash(environ), (listener.fileno(),))


def needs_of(launch: Launch) -> list[Need]:
    """Return the paths that the controller's user must reach: interpreter, package, state, DIR.

    DIR is reached through its parent: a bind mount of DIR itself would keep showing a DIR that
    was replaced.
    """
    directory = Path(launch.instance.dir)
    needs = [
        *_python_needs(),
        Need(directory.parent, "the folder that holds DIR"),
        Need(launch.state.run, "the folder of the sockets"),
        Need(launch.state.controller, "the controller's state", writable=True),
        Need(launch.state.feedback, "the outcomes of commits", writable=True),
    ]
    if directory.is_symlink():
        needs.append(Need(directory.resolve().parent, "the folder that DIR's link leads to"))
    return needs


def fetcher_recipe(
    launch: Launch, user: User, environ: Mapping[str, str], *, listener: socket.socket
) -> Recipe:
    """Return the fetcher's command; for root, the command drops to the fetcher's user first.

    Raises:
        StateError: the fetcher's user has no access to a required file.
    """
    argv = (
        *_python(),
        "fetch",
        launch.instance.dir,
        *("--state", str(launch.state.root)),
        *("--listen-fd", str(listener.fileno())),
        *("--lifeline", "{lifeline}"),
    )
    environment = _inherited(environ)
    if user.dropped:
        state = launch.state
        needs = [
            *_python_needs(),
            Need(Path(launch.instance.dir).parent, "the folder that holds DIR"),
            Need(state.fetcher, "the fetcher's state", writable=True),
            Need(state.root / "instance.json", "the instance's identity"),
            Need(state.root / "settings.json", "the settings in force"),
            Need(state.feedback, "the outcomes of commits"),
        ]
        engine = Path(engine_socket_path(launch.settings.engine))
        hidden = (state.run, state.broker, state.controller, engine)
        argv = _dropping(argv, user, needs, hidden=hidden)
        environment[EXPECTED_PROGRAM] = expected_program(Path(sys.executable), PACKAGE)
    return Recipe("fetcher", argv, environment, {}, (listener.fileno(),))


def notifier_recipe(launch: Launch, user: User, environ: Mapping[str, str]) -> Recipe:
    """Return the command of the process that sends notifications; for root, it drops to its user first.

    Raises:
        StateError: the user has no access to a required file.
    """
    words = ("notify", "run", "--lifeline", "{lifeline}")
    engine = Path(engine_socket_path(launch.settings.engine))
    argv, environment = _notifier(launch.state, user, words, environ, hidden=(engine,))
    return Recipe("notifier", argv, environment, _crash(environ))


def notifier_test(
    state: StateFolder, user: User, name: str, environ: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the command that sends a test message as *user*, and its environment.

    Raises:
        StateError: as ``notifier_recipe``.
    """
    return _notifier(state, user, ("notify", "test", name), environ)


def _notifier(
    state: StateFolder,
    user: User,
    words: tuple[str, ...],
    environ: Mapping[str, str],
    *,
    hidden: tuple[Path, ...] = (),
) -> tuple[tuple[str, ...], dict[str, str]]:
    argv = (*_python(), *words, "--state", str(state.root))
    environment = _inherited(environ)
    if not user.dropped:
        return argv, environment
    needs = [
        *_python_needs(),
        # The whole folder: `settings.json` is replaced, and a bind mount of the file would keep the old one.
        Need(state.root, "the state folder"),
        Need(state.notify, "the state of notifications", writable=True),
    ]
    environment[EXPECTED_PROGRAM] = expected_program(Path(sys.executable), PACKAGE)
    hidden = (state.broker, state.controller, *hidden)
    return _dropping(argv, user, needs, hidden=hidden), environment


def shipper_argv(
    state: StateFolder,
    user: User,
    *,
    targets: Sequence[str],
    handed: Mapping[str, object],
    metrics: Path | None,
) -> tuple[str, ...]:
    """Return the shipper's command, which drops to the shipper's user first.

    *handed* becomes the shipper's ``--handed``: its folder, its instance and a descriptor.

    Raises:
        StateError: the shipper's user has no access to a required file.
    """
    # Only an instance that ships loads the formats of records.
    from controller.ship.destination import ToFile, ToNote, ToOtlp, ToSyslog, read_destination

    needs = [*_python_needs(), Need(state.ship, "the shipper's state", writable=True)]
    for destination in map(read_destination, targets):
        match destination:
            case ToFile() | ToNote():
                needs.append(Need(destination.path.parent, "the folder to ship to", writable=True))
            case ToSyslog() | ToOtlp():
                needs += [Need(path, "a file for TLS") for path in destination.trust.files]
    if metrics is not None:
        needs.append(Need(metrics.absolute().parent, "the folder of the metrics", writable=True))
    argv = (
        *_python(),
        "ship",
        *(part for target in targets for part in ("--to", target)),
        *("--handed", json.dumps(handed)),
        *(("--metrics", str(metrics.absolute())) if metrics is not None else ()),
    )
    return _dropping(argv, user, needs)


def shipper_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the shipper's environment, with the exporter's variables."""
    return _inherited(environ) | {
        name: text for name, text in environ.items() if name.startswith(EXPORTERS)
    }


def _python() -> tuple[str, ...]:
    # -I keeps code out that the working directory, PYTHON* variables or the user's site would add.
    return (sys.executable, "-I", "-m", "controller")


def _dropping(
    argv: tuple[str, ...], user: User, needs: list[Need], *, hidden: tuple[Path, ...] = ()
) -> tuple[str, ...]:
    """Return the command that drops to *user*, who sees only *needs*, and then runs *argv*."""
    view = replace(plan_view(needs, uid=user.uid, gid=user.gid), hidden=hidden)
    drop = PrivilegeDrop(uid=user.uid, gid=user.gid, parent=os.getpid(), view=view, argv=argv)
    return (sys.executable, "-I", "-m", "controller.process.drop_privileges", drop.to_json())


def _python_needs() -> list[Need]:
    return [
        Need(Path(sys.prefix), "the Python environment"),
        Need(Path(sys.base_prefix), "the Python interpreter"),
        Need(PROJECT, "the package's folder"),
    ]


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environ[name] for name in KEPT_ENVIRONMENT if name in environ}
    return kept | SET_ENVIRONMENT


def _crash(environ: Mapping[str, str]) -> dict[str, str]:
    return {CRASH_AT: environ[CRASH_AT]} if CRASH_AT in environ else {}
