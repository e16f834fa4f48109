"""How ``up`` lays out a state folder and becomes two processes, one privileged, one not.

Beside ``wiring``, and above the shells: it knows the arguments of ``trimtab broker`` and
``trimtab run``, the owners of folders, and what the controller's user must be let see.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from controller.model.errors import StateError, UsageError
from controller.model.policy.shipped import SHIPPED_POLICIES
from controller.process.drop_privileges import MEANT, PrivilegeDrop, meant
from controller.process.mount_view import Need, plan_view
from controller.process.process_group import Recipe
from controller.settings import (
    GROUP,
    REGISTRY_AUTH,
    Instance,
    StateFolder,
    read_instance,
    run_folder,
    state_of,
    write_instance,
)
from controller.ship.destination import ToFile, ToNote, ToOtlp, ToSyslog, read_destination
from controller.system.unix_socket import SocketInUse, bind_socket

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = PACKAGE.parent
#: What the controller's process is given of our environment.
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")
CRASH_AT = "TRIMTAB_CRASH_AT"
#: Who ships the journal, as root.
SHIPPER = "trimtab-ship"
#: The variables of OpenTelemetry's exporter: credentials for a collector are given by them.
EXPORTERS = ("OTEL_EXPORTER_OTLP_", "TRIMTAB_LOG")


@dataclass(frozen=True, slots=True)
class User:
    """Who the controller runs as; ``dropped`` is false where it shares our uid."""

    uid: int
    gid: int
    dropped: bool


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What a start may settle for the instance: it holds until another start says otherwise."""

    quarantine_ms: int | None = None
    registry_auth: Path | None = None


UNCHANGED = LaunchOptions()


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that ``up`` needs to start its children."""

    state: StateFolder
    instance: Instance
    user: User
    policy: Path

    @property
    def registry_auth(self) -> Path:
        """The file of registry credentials; the standard one need not be there."""
        return Path(self.instance.registry_auth or REGISTRY_AUTH)


def controller_user(name: str | None, *, uid: int) -> User:
    """Return the controller's user: as root one of its own, else ourselves.

    Raises:
        StateError: there is no such user, or it is root or nobody.
    """
    if uid != 0:
        if name is not None:
            raise UsageError("user.not-root", "--controller-user can only be given by root")
        return User(uid, os.getgid(), dropped=False)
    wanted = name or GROUP
    try:
        entry = pwd.getpwnam(wanted)
    except KeyError as error:
        raise StateError(
            "user.missing",
            f"there is no user {wanted!r} to run the controller as",
            remedy=f"useradd --system --no-create-home --shell /usr/sbin/nologin {wanted}, "
            "or name another with --controller-user",
        ) from error
    if entry.pw_uid in (0, 65534) or entry.pw_name == "nobody":
        raise StateError(
            "user.unfit",
            f"the controller never runs as {entry.pw_name}",
            remedy="give it a user of its own with --controller-user",
        )
    try:
        gid = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        gid = entry.pw_gid
    if gid == 0:
        raise StateError("user.unfit", f"the group of {wanted!r} is root's")
    return User(entry.pw_uid, gid, dropped=True)


def policy_file(name: str) -> Path:
    """Return the file of a policy: a path as given, else ``configs/policies/NAME.yaml``.

    Never looked for beside DIR: who may drop a file may not bring a policy.

    Raises:
        UsageError: there is no such policy.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name).absolute()
    for folder in (PROJECT / "configs" / "policies", PACKAGE / "policies"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise UsageError(
        "policy.unknown",
        f"there is no policy {name!r}",
        remedy=f"name {', '.join(SHIPPED_POLICIES)}, or the path of a file",
    )


def is_shipped(file: Path) -> bool:
    """Return True if a policy's file is part of the package."""
    return file.parent.resolve() == (PACKAGE / "policies").resolve()


def prepare(
    root: Path,
    *,
    directory: Path,
    engine: str,
    policy: str | None,
    user: User,
    new_instance_id: str,
    rebind: bool = False,
    chosen: LaunchOptions = UNCHANGED,
) -> Launch:
    """Make or open the state folder and settle what the instance is.

    What isn't given (None) stays as the instance has it.

    Raises:
        StateError: the folder can't be made, or belongs to another DIR.
    """
    if root.exists():
        _refuse_stranger(root)
    _raise_if_no_directory(root, directory)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            "state.unwritable", f"{root}: {error.strerror}", remedy="name another with --state"
        ) from error
    instance = read_instance(root)
    if instance is None:
        instance = Instance(id=new_instance_id, dir=str(directory), engine=engine)
        instance = replace(instance, run=str(run_folder(root, instance.id)))
    if instance.dir != str(directory) and not rebind:
        raise StateError(
            "state.other-dir",
            f"{root} converges {instance.dir}, not {directory}",
            remedy="give --rebind to move this instance to the new DIR, or another --state",
        )
    rules = policy_file(policy if policy is not None else instance.policy)
    run = str(state_of(root, instance).run)
    settled = replace(instance, dir=str(directory), engine=engine, policy=str(rules), run=run)
    if chosen.quarantine_ms is not None:
        settled = replace(settled, quarantine_ms=chosen.quarantine_ms)
    if chosen.registry_auth is not None:
        settled = replace(settled, registry_auth=str(chosen.registry_auth.absolute()))
    if settled != instance or read_instance(root) is None:
        write_instance(root, settled)
    state = state_of(root, settled)
    lay_out(state, user=user)
    return Launch(state, settled, user, rules)


def _raise_if_no_directory(root: Path, directory: Path) -> None:
    """Raise UsageError before an instance is bound to a DIR that isn't there.

    One that vanishes later, such as an unmounted disk, is waited for.
    """
    instance = read_instance(root)
    if instance is not None and instance.dir == str(directory):
        return
    if not directory.is_dir():
        if directory.exists():
            message, remedy = f"{directory} isn't a directory", "name the directory that it is in"
        else:
            message = f"{directory} doesn't exist"
            remedy = f"create it with 'mkdir -p {directory}', or name another directory"
        raise UsageError("dir.missing", message, remedy=remedy)


def _refuse_stranger(root: Path) -> None:
    """Refuse a state folder that another user made: it would decide which policy is in force.

    Raises:
        StateError: it is neither ours nor root's.
    """
    owner = root.stat().st_uid
    if owner not in {0, os.getuid()}:
        raise StateError(
            "state.stranger",
            f"{root} belongs to uid {owner}",
            remedy="name a state folder of your own with --state",
        )


def lay_out(state: StateFolder, *, user: User) -> None:
    """Make the folders with the owners and modes that ARCHITECTURE.md lists.

    Raises:
        StateError: one can't be made.
    """
    root = os.getuid() == 0
    wanted = (
        (state.root, 0o755, (0, 0)),
        (state.broker, 0o700, (0, 0)),
        (state.controller, 0o700, (user.uid, user.gid)),
        (state.run, 0o750, (0, user.gid)),
    )
    for folder, mode, (uid, gid) in wanted:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if root:
                os.chown(folder, uid, gid)
            folder.chmod(mode)
        except OSError as error:
            raise StateError(
                "state.unwritable",
                f"{folder}: {error.strerror}",
                remedy="make the state folder writable, or name another with --state",
            ) from error
    if root and state.controller.is_dir():
        for path in state.controller.iterdir():
            _hand_over(path, user)


def _hand_over(path: Path, user: User) -> None:
    """Give the controller a file of its folder, unless it has another name elsewhere.

    The folder is the controller's: a hard link that it made there may be any file of the host.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # a link, a socket, or gone
    try:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.fchown(handle, user.uid, user.gid)
    finally:
        os.close(handle)


def controller_socket(state: StateFolder, *, user: User) -> socket.socket:
    """Bind and listen on the controller's socket; the controller itself may not write its folder.

    Raises:
        StateError: another controller serves it.
    """
    path = state.controller_socket
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind_socket(listener, path, group=user.gid if os.getuid() == 0 else None)
    except SocketInUse as error:
        listener.close()
        raise StateError(
            "controller.running",
            f"a controller serves {path} already",
            remedy="stop it first, or use another --state",
        ) from error
    listener.listen(64)
    return listener


def broker_recipe(launch: Launch, environ: Mapping[str, str]) -> Recipe:
    """Return how the broker is started: as we are, since it holds the engine's socket."""
    argv = (
        *_python(),
        "broker",
        *("--state", str(launch.state.root)),
        *("--engine", launch.instance.engine),
        *("--policy", str(launch.policy)),
        *("--controller-uid", str(launch.user.uid)),
        *("--lifeline", "{lifeline}"),
    )
    kept = {name: environ[name] for name in KEPT_ENVIRONMENT if name in environ}
    return Recipe("broker", argv, kept, _crash(environ))


def controller_recipe(
    launch: Launch, environ: Mapping[str, str], *, listener: socket.socket, paused: bool = False
) -> Recipe:
    """Return how the controller is started, dropped to its own user where we are root.

    Raises:
        StateError: its user can't be let see what it needs.
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
    kept = {name: environ[name] for name in KEPT_ENVIRONMENT if name in environ}
    if not launch.user.dropped:
        return Recipe("controller", argv, kept, _crash(environ), (listener.fileno(),))
    view = plan_view(needs_of(launch), uid=launch.user.uid, gid=launch.user.gid)
    kept[MEANT] = meant(Path(sys.executable), PACKAGE)

    drop = PrivilegeDrop(
        uid=launch.user.uid, gid=launch.user.gid, parent=os.getpid(), view=view, argv=argv
    )
    outer = (sys.executable, "-I", "-m", "controller.process.drop_privileges", drop.to_json())
    return Recipe("controller", outer, kept, _crash(environ), (listener.fileno(),))


def needs_of(launch: Launch) -> list[Need]:
    """Return what the controller's user must reach: interpreter, package, DIR's holder, state.

    Never DIR itself: a bind mount would go on showing a DIR that was replaced.
    """
    directory = Path(launch.instance.dir)
    needs = [
        Need(Path(sys.prefix), "the Python environment"),
        Need(Path(sys.base_prefix), "the Python interpreter"),
        Need(PROJECT, "the package's folder"),
        Need(directory.parent, "the folder that holds DIR"),
        Need(launch.state.run, "the folder of the sockets"),
        Need(launch.state.controller, "the controller's state", writable=True),
    ]
    if directory.is_symlink():
        needs.append(Need(directory.resolve().parent, "the folder that DIR's link leads to"))
    return needs


def _python() -> tuple[str, ...]:
    # -I: neither the working directory nor PYTHON* variables nor the user's site can slip code in.
    return (sys.executable, "-I", "-m", "controller")


def _crash(environ: Mapping[str, str]) -> dict[str, str]:
    return {CRASH_AT: environ[CRASH_AT]} if CRASH_AT in environ else {}


def shipper_user(name: str | None) -> User:
    """Return who ships, as root: a user of its own, who can do nothing else.

    Raises:
        StateError: there is no such user, or it is one that can more.
    """
    wanted = name or SHIPPER
    try:
        entry = pwd.getpwnam(wanted)
    except KeyError as error:
        raise StateError(
            "user.missing",
            f"there is no user {wanted!r} to ship as",
            remedy=f"useradd --system --no-create-home --shell /usr/sbin/nologin {wanted}, "
            "or name another with --user",
        ) from error
    if entry.pw_uid in (0, 65534) or entry.pw_gid == 0:
        raise StateError(
            "user.unfit",
            f"{entry.pw_name} doesn't ship: root can more, and nobody is many",
            remedy="give the shipper a user of its own with --user",
        )
    return User(entry.pw_uid, entry.pw_gid, dropped=True)


def lay_out_shipper(folder: Path, user: User) -> None:
    """Make the shipper's folder, its user's alone.

    Raises:
        StateError: it can't be made.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
        folder.chmod(0o700)
    except OSError as error:
        raise StateError(
            "state.unwritable", f"{folder}: {error.strerror}", remedy="make it writable"
        ) from error
    for path in folder.iterdir():
        _hand_over(path, user)


def shipper_argv(
    state: StateFolder,
    user: User,
    *,
    targets: Sequence[str],
    handed: Mapping[str, object],
    metrics: Path | None,
) -> tuple[str, ...]:
    """Return how the shipper is started, dropped to its user.

    Raises:
        StateError: its user can't be let see what it needs.
    """
    needs = [
        Need(Path(sys.prefix), "the Python environment"),
        Need(Path(sys.base_prefix), "the Python interpreter"),
        Need(PROJECT, "the package's folder"),
        Need(state.ship, "the shipper's state", writable=True),
    ]
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
    view = plan_view(needs, uid=user.uid, gid=user.gid)
    drop = PrivilegeDrop(uid=user.uid, gid=user.gid, parent=os.getpid(), view=view, argv=argv)
    return (sys.executable, "-I", "-m", "controller.process.drop_privileges", drop.to_json())


def shipper_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of our environment the shipper is given: the exporter reads some by itself."""
    kept = {name: environ[name] for name in KEPT_ENVIRONMENT if name in environ}
    return kept | {name: text for name, text in environ.items() if name.startswith(EXPORTERS)}
