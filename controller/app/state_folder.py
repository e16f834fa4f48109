"""The state folder: creation, the instance's settings, owners and modes.

The users of the processes.

As root, controller and shipper run as unprivileged users of their own. Otherwise all processes
share the caller's uid.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from controller.app.policy import AccessCheck, policy_file, read_acl
from controller.model.errors import SettingsInvalid, StateError, UsageError, error_reason
from controller.model.policy.shipped import SHIPPED_POLICIES
from controller.model.settings import (
    REGISTRY_AUTH,
    SYSTEM_DIRECTORY,
    InForce,
    InstanceSettings,
    SettingsRead,
    values_of,
)
from controller.process.process_group import POLL_S
from controller.settings import (
    GROUP,
    SYSTEM_STATE,
    Instance,
    StateFolder,
    existing_instance,
    raise_if_restoring,
    read_instance,
    run_folder,
    settings_file,
    state_of,
    write_instance,
)
from controller.system.durable_files import hold_lock, write_atomic
from controller.system.sockets import engine_socket_path, has_listener

#: The default user of the shipper.
SHIPPER = "trimtab-ship"
#: The user of the fetcher.
FETCHER = "trimtab-fetch"
#: The user of the process that sends notifications.
NOTIFIER = "trimtab-notify"
#: The uid of ``nobody`` on Linux (kernel.overflowuid).
NOBODY_UID = 65534


@dataclass(frozen=True, slots=True)
class User:
    """The user of a child process; ``dropped`` is False for the parent's own uid."""

    uid: int
    gid: int
    dropped: bool


def controller_user(name: str | None, *, uid: int) -> User:
    """Return the controller's user: for root a separate user, else the caller.

    Raises:
        UsageError: *name* was given, and the caller isn't root.
        StateError: the user doesn't exist, or is root or nobody.
    """
    if uid != 0:
        if name is not None:
            raise UsageError("user.not-root", "--controller-user can only be given by root")
        return User(uid, os.getgid(), dropped=False)
    wanted = name or GROUP
    entry = _find_user(wanted, purpose="run the controller as", option="--controller-user")
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_name == "nobody":
        raise StateError(
            "user.unfit",
            f"the controller never runs as {entry.pw_name}",
            remedy="give it a user of its own with --controller-user",
        )
    gid = _gid_of_group(default=entry.pw_gid)
    if gid == 0:
        raise StateError("user.unfit", f"the group of {wanted!r} is root's")
    return User(entry.pw_uid, gid, dropped=True)


def user_of(chosen: InstanceSettings, options: Mapping[str, str]) -> User:
    """Return the controller's user by the settings, and by the *options* of a start.

    Raises:
        UsageError: as ``controller_user``.
        StateError: as ``controller_user``.
    """
    uid, name = os.getuid(), options.get("users.controller")
    return controller_user(name or (chosen.controller_user if uid == 0 else None) or None, uid=uid)


def shipper_user(name: str | None) -> User:
    """Return the shipper's user, an unprivileged user without other files. For root only.

    Raises:
        StateError: the user doesn't exist, or is root, nobody, or in root's group.
    """
    entry = _find_user(name or SHIPPER, purpose="ship as", option="--user")
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_gid == 0:
        raise StateError(
            "user.unfit",
            f"{entry.pw_name} can't run the shipper: the shipper needs an unprivileged user without other processes",
            remedy="give the shipper a user of its own with --user",
        )
    return User(entry.pw_uid, entry.pw_gid, dropped=True)


def fetcher_user(*, uid: int) -> User:
    """Return the fetcher's user: for root a separate user, else the caller.

    Raises:
        StateError: the user doesn't exist, or is root, nobody, or in root's or trimtab's group.
    """
    if uid != 0:
        return User(uid, os.getgid(), dropped=False)
    return _user_apart(FETCHER, purpose="fetch Git sources as")


def notifier_user(*, uid: int) -> User:
    """Return the user of the process that sends notifications: for root a separate user, else the caller.

    The policy lists it as a viewer: it is in no group of trimtab's.

    Raises:
        StateError: the user doesn't exist, or is root, nobody, or in root's or trimtab's group.
    """
    if uid != 0:
        return User(uid, os.getgid(), dropped=False)
    return _user_apart(NOTIFIER, purpose="send notifications as")


def trimtab_gid() -> int:
    """Return the gid of the group with access to the sockets; without such a group the caller's."""
    return _gid_of_group(default=os.getgid())


def _gid_of_group(*, default: int) -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return default


def _user_apart(name: str, *, purpose: str) -> User:
    """Return a user for a child, neither root's nor nobody, and in a group of its own."""
    entry = _find_user(name, purpose=purpose, option=None)
    if entry.pw_uid in (0, NOBODY_UID) or entry.pw_gid in (0, trimtab_gid()):
        raise StateError(
            "user.unfit",
            f"{name} can't be used to {purpose}: its group is root's or {GROUP}",
            remedy=f"give {name} a group of its own",
        )
    return User(entry.pw_uid, entry.pw_gid, dropped=True)


def _find_user(name: str, *, purpose: str, option: str | None) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise StateError(
            "user.missing",
            f"there is no user {name!r} to {purpose}",
            remedy=f"useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
            + (f", or name another with {option}" if option else ""),
        ) from error


#: How long ``up`` waits for an instance on the same state folder to end (docs/operations/state.md).
FREE_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class ChosenSettings:
    """The file of settings as a start finds it, and with the options of the start."""

    file: Path
    #: The file's text, with the options in it.
    text: str
    read: SettingsRead
    #: False if the options change nothing in the file.
    is_new: bool

    @property
    def settings(self) -> InstanceSettings:
        """The settings in force after the start."""
        return self.read.settings

    @property
    def in_force(self) -> InForce:
        """The settings with their digest, for other processes."""
        return InForce(self.settings, text_digest(self.text))


def text_digest(text: str) -> str:
    """Return the digest of a file of settings."""
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()}"


def read_file(
    root: Path, *, check_access: AccessCheck | None = None, file: Path | None = None
) -> tuple[Path, str, SettingsRead]:
    """Return a state folder's file of settings, or *file*, its text, and what it says. No file: no text.

    Raises:
        SettingsInvalid: the file can't be read or has mistakes, or *check_access* finds that others can
            change it.
    """
    from controller.core.settings_file import load_settings  # a parser: slow to load

    given, file = file, file or settings_file(root)
    try:
        with file.open(encoding="utf-8", errors="surrogateescape") as opened:
            if check_access is not None:
                number = opened.fileno()
                exposed = check_access(file, os.fstat(number), read_acl(number))
                if exposed is not None:
                    raise SettingsInvalid(
                        "settings.exposed", exposed.message, remedy=exposed.remedy
                    )
            text = opened.read()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and given is None:
            return file, "", SettingsRead(InstanceSettings())
        raise SettingsInvalid(
            "settings.unreadable", f"{file} can't be read: {error_reason(error)}", remedy="mend it"
        ) from error
    return file, text, load_settings(text, str(file))


def choose_settings(root: Path, options: Mapping[str, str]) -> ChosenSettings:
    """Return the settings of a start: the *options*, and the file for every key without an option.

    *options* are values by the names of keys. Nothing is written.

    Raises:
        SettingsInvalid: the file has mistakes, or an option has another form than its key.
        UsageError: an option names an unknown policy.
    """
    if root.exists():
        _raise_if_foreign(root)
    file, text, read = read_file(root)
    present = values_of(read.settings)
    changes = {name: value for name, value in options.items() if present[name] != value}
    if not changes:
        return ChosenSettings(file, text, read, is_new=False)
    from controller.core.settings_file import load_settings, with_values

    text = with_values(text, str(file), changes)
    return ChosenSettings(file, text, load_settings(text, str(file)), is_new=True)


def start_options(
    root: Path, options: Mapping[str, str], *, directory: Path, rebind: bool
) -> dict[str, str]:
    """Return the options of a start, with what binds a new instance: the directory, and ``$DOCKER_HOST``.

    Raises:
        StateError: ``instance.json`` can't be read.
        UsageError: the engine's address isn't a Unix socket.
    """
    added = {}
    is_new = read_instance(root) is None
    if is_new and (engine := os.environ.get("DOCKER_HOST")):
        added["engine"] = engine
    is_default = root == SYSTEM_STATE and str(directory) == SYSTEM_DIRECTORY
    if rebind or (is_new and not is_default):
        added["desiredState"] = str(directory)
    wanted = {**added, **options}
    if "engine" in wanted:
        engine_socket_path(wanted["engine"])
    return wanted


def policy_setting(name: str | None) -> str | None:
    """Return an option ``--policy`` as a value of the settings: a shipped policy, or an absolute path.

    Raises:
        UsageError: the policy is unknown.
    """
    return name if name is None or name in SHIPPED_POLICIES else str(policy_file(name))


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters of the children of ``up``."""

    state: StateFolder
    instance: Instance
    in_force: InForce
    user: User

    @property
    def settings(self) -> InstanceSettings:
        """The values of the settings."""
        return self.in_force.settings

    @property
    def policy(self) -> Path:
        """The file of the policy."""
        return policy_file(self.settings.policy)

    @property
    def registry_auth(self) -> Path:
        """The file of registry credentials; the standard file is allowed to be missing."""
        return Path(self.settings.registry_auth or REGISTRY_AUTH)


def prepare(
    root: Path,
    chosen: ChosenSettings,
    *,
    directory: Path,
    user: User,
    new_instance_id: str,
    rebind: bool = False,
) -> Launch:
    """Create or open the state folder, and write the settings with the options of the start.

    *directory* is that of the options, else the instance's own, else that of the settings.

    Raises:
        StateError: the folder can't be created, belongs to another user, or to another DIR.
        UsageError: a new instance names a missing DIR, or an unknown policy.
    """
    if root.exists():
        _raise_if_foreign(root)
    _raise_if_no_directory(root, directory)
    instance = read_instance(root)
    bound = instance.dir if instance is not None else str(directory)
    if bound != str(directory) and not rebind:
        raise StateError(
            "state.other-dir",
            f"{root} converges {bound}, not {directory}",
            remedy="give --rebind to move this instance to the new DIR, or another --state",
        )
    if chosen.settings.desired_state not in {"", str(directory)}:
        raise other_directory(chosen.file, chosen.settings.desired_state, bound)
    policy_file(chosen.settings.policy)
    with _writing(root, remedy="name another with --state"):
        root.mkdir(parents=True, exist_ok=True)
    if instance is None:
        instance = Instance(id=new_instance_id, dir=str(directory))
        instance = replace(instance, run=str(run_folder(root, instance.id)))
    run = str(state_of(root, instance).run)
    settled = replace(instance, dir=str(directory), run=run)
    if chosen.is_new:
        with _writing(chosen.file, remedy="make it writable, or name another folder with --state"):
            chosen.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(chosen.file, chosen.text.encode(errors="surrogateescape"), mode=0o644)
    if settled != instance or read_instance(root) is None:
        write_instance(root, settled)
    state = state_of(root, settled)
    lay_out(state, user=user)
    return Launch(state, settled, chosen.in_force, user)


def other_directory(file: Path, directory: str, bound: str) -> StateError:
    """Return the error of settings with another directory than the instance is bound to."""
    return StateError(
        "settings.rebind",
        f"{file} names desiredState {directory}, and the instance is bound to {bound}: its containers "
        "would be removed",
        remedy=f"write desiredState: {bound}, or move the instance with 'trimtab settings rebind'",
    )


def rebind_instance(root: Path) -> tuple[str, str]:
    """Bind an instance to the directory of its file of settings. Return the directories before and after.

    Raises:
        StateError: there is no instance, or a broker or a controller runs.
        SettingsInvalid: the file has mistakes, or names no directory.
        UsageError: the directory isn't there.
    """
    instance, state = existing_instance(root)
    file, _, read = read_file(root)
    wanted = read.settings.desired_state or (SYSTEM_DIRECTORY if root == SYSTEM_STATE else "")
    if not wanted:
        raise SettingsInvalid(
            "settings.invalid",
            f"{file} names no directory",
            remedy="write desiredState: DIR into it",
        )
    _raise_if_no_directory(root, Path(wanted))
    locks = []
    try:
        for folder, program in ((state.broker, "broker"), (state.controller, "controller")):
            lock = folder / "lock"
            locks.append(hold_lock(lock, program=program, monotonic=time.monotonic, wait_s=0.0))
        write_instance(root, replace(instance, dir=wanted))
    finally:
        for held in locks:
            os.close(held)
    return instance.dir, wanted


def raise_if_lost(root: Path) -> None:
    """Refuse a new id for a folder with a journal: its containers have the former one.

    Raises:
        StateError: the folder has a journal, and no instance.json.
    """
    journal = root / "broker" / "journal"
    is_new = read_instance(root) is None
    if is_new:
        raise_if_restoring(root)
    if is_new and journal.is_dir() and any(journal.iterdir()):
        raise StateError(
            "state.damaged",
            f"{root} has a journal, and its instance.json is lost",
            remedy="restore the file; or find the id in the labels of the containers, and write the "
            "file anew: trimtab adopt DIR --instance ID --yes",
        )


def write_source(root: Path, text: str) -> Path:
    """Write the document of a Source into a folder of the state folder. Return it, as DIR.

    Raises:
        StateError: the state folder belongs to another user, or can't be written.
    """
    if root.exists():
        _raise_if_foreign(root)
    directory = root / "desired"
    with _writing(directory, remedy="name another with --state"):
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        path = directory / "source.yaml"
        if not path.is_file() or path.read_text() != text:
            write_atomic(path, text.encode(), mode=0o644)
    return directory


def _raise_if_no_directory(root: Path, directory: Path) -> None:
    """Raise UsageError before an instance is bound to a missing DIR.

    If DIR vanishes later, as with an unmounted disk, the controller waits.
    """
    instance = read_instance(root)
    is_bound = instance is not None and instance.dir == str(directory)
    if is_bound or directory.is_dir():
        return
    message, remedy = f"{directory} isn't a directory", "name the directory that it is in"
    if not directory.exists():
        message = f"{directory} doesn't exist"
        remedy = f"create it with 'mkdir -p {directory}', or name another directory"
    raise UsageError("dir.missing", message, remedy=remedy)


def _raise_if_foreign(root: Path) -> None:
    """Refuse another user's state folder: its owner would decide which policy is in force.

    Raises:
        StateError: the folder belongs neither to the caller nor to root.
    """
    owner = root.stat().st_uid
    if owner not in {0, os.getuid()}:
        raise StateError(
            "state.stranger",
            f"{root} belongs to uid {owner}",
            remedy="name a state folder of your own with --state",
        )


def await_free(root: Path) -> None:
    """Wait until a terminating instance has left its sockets, so that nothing else uses the folder.

    Raises:
        StateError: a process still serves the state folder after ``FREE_WAIT_S``.
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


def lay_out(state: StateFolder, *, user: User) -> None:
    """Create the subfolders with the owners and modes that docs/operations/state.md lists.

    Raises:
        StateError: a folder can't be created.
    """
    root = os.getuid() == 0
    wanted = (
        (state.root, 0o755, (0, 0)),
        (state.broker, 0o700, (0, 0)),
        (state.controller, 0o700, (user.uid, user.gid)),
        (state.run, 0o750, (0, user.gid)),
    )
    for folder, mode, (uid, gid) in wanted:
        with _writing(
            folder, remedy="make the state folder writable, or name another with --state"
        ):
            folder.mkdir(parents=True, exist_ok=True)
            if root:
                os.chown(folder, uid, gid)
            folder.chmod(mode)
    if not state.feedback.exists() or (root and state.feedback.stat().st_uid != user.uid):
        lay_out_feedback(state.feedback, user, reader=user)
    if root and state.controller.is_dir():
        for path in state.controller.iterdir():
            _hand_over(path, user)


def lay_out_own_socket(state: StateFolder, *, user: User) -> None:
    """Let a controller of another user serve without a parent: the folder of the sockets is root's.

    Raises:
        StateError: the folder or the link can't be made.
    """
    folder, link = state.own_socket.parent, state.controller_socket
    with _writing(folder, remedy="make it writable"):
        folder.mkdir(mode=0o750, exist_ok=True)
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
        folder.chmod(0o2750)  # the socket gets the group whose members may connect
        if not link.is_symlink() and not has_listener(link):
            link.unlink(missing_ok=True)  # of a process that ended
            link.symlink_to(state.own_socket.relative_to(state.run))


def lay_out_private(folder: Path, user: User) -> None:
    """Create the folder of the shipper, or of notifications, accessible to its user alone.

    Raises:
        StateError: the folder can't be created.
    """
    with _writing(folder, remedy="make it writable"):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
        folder.chmod(0o700)
    for path in folder.iterdir():
        _hand_over(path, user)


@contextmanager
def _writing(folder: Path, *, remedy: str) -> Iterator[None]:
    """Raise StateError for an OSError of the block, which creates *folder*."""
    try:
        yield
    except OSError as error:
        message = f"{folder}: {error.strerror}"
        raise StateError("state.unwritable", message, remedy=remedy) from error


def lay_out_fetcher(folder: Path, user: User, *, group: int) -> None:
    """Create the fetcher's folder; *group* reads the exported files in it.

    Files and folders that the fetcher makes there get the folder's group (mode 2750).

    Raises:
        StateError: the folder can't be created.
    """
    with _writing(folder, remedy="make it writable"):
        folder.mkdir(mode=0o750, exist_ok=True)
        if user.dropped:
            os.chown(folder, user.uid, group, follow_symlinks=False)
            folder.chmod(0o2750)


def lay_out_feedback(folder: Path, user: User, *, reader: User) -> None:
    """Let *reader*, the fetcher, read the outcomes that *user*, the controller, writes.

    Files that the controller makes there get the reader's group (mode 2750).

    Raises:
        StateError: the folder can't be created.
    """
    with _writing(folder, remedy="make it writable"):
        folder.mkdir(mode=0o700, exist_ok=True)
        if user.dropped:
            os.chown(folder, user.uid, reader.gid, follow_symlinks=False)
            folder.chmod(0o2750)
            for path in folder.iterdir():  # made before the reader was known
                _hand_over(path, replace(user, gid=reader.gid))


def _hand_over(path: Path, user: User) -> None:
    """Make *user* the owner of a file in the user's folder, unless the file has another hard link.

    The user writes to the folder: a hard link there can lead to any file of the host.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # a symbolic link, a socket, or gone
    try:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.fchown(handle, user.uid, user.gid)
    finally:
        os.close(handle)
