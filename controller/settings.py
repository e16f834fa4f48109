"""The state folder: where it is, the identity of its instance, and the settings in force.

The broker alone reads the file of settings. It writes what it read to ``settings.json``, from which the
other processes and commands read. Environment, working directory and uid are arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from controller.model.errors import StateError, TrimtabError
from controller.model.notice_targets import targets_of
from controller.model.notifications import NoticeTarget
from controller.model.policy.shipped import DEFAULT_POLICY
from controller.model.settings import InForce, read_settings, to_json
from controller.system.durable_files import try_lock, write_atomic
from controller.system.sockets import CONTROLLER_SOCKET

#: The format of all files in the state folder, and of the journal, that this trimtab writes and reads.
FORMAT = 1
#: The oldest format that a trimtab must read to use what this one writes.
READABLE = 1
SYSTEM_STATE = Path("/var/lib/trimtab")
#: The file of settings of the system's instance. Others have theirs in the state folder.
SYSTEM_SETTINGS = Path("/etc/trimtab/trimtab.yaml")
GROUP = "trimtab"
#: The folder in a state folder in which a restore makes the state folder.
RESTORING = ".restoring"
#: The parent of the sockets' folder for state folders with long paths.
SHORT_RUN = Path("/run/trimtab")
#: sun_path is 108 bytes (unix(7)); beyond this the sockets move to /run.
SOCKET_PATH_MAX = 100


@dataclass(frozen=True, slots=True)
class Instance:
    """The content of ``instance.json``: the identity of a state folder."""

    id: str
    #: The directory of the desired state that it is bound to.
    dir: str
    #: '' until an engine answered for the first time.
    engine_id: str = ""
    #: How often the folder was restored from a backup.
    epoch: int = 0
    #: The instance and the head of the backup that it began with on another engine: ``ID@HASH``.
    restored_from: str = ""
    #: The folder of the sockets.
    run: str = ""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The state folder and its files."""

    root: Path
    run: Path

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def journal(self) -> Path:
        return self.broker / "journal"

    @property
    def journal_key(self) -> Path:
        """The signing key of the journal; a secret of the broker."""
        return self.broker / "journal.key"

    @property
    def hash_key(self) -> Path:
        """The key of the hashes of secrets in the journal; a secret of the broker."""
        return self.broker / "secrets.key"

    @property
    def inventory_snapshot(self) -> Path:
        """The broker's snapshot of its inventory; rebuilt from the journal if lost."""
        return self.broker / "inventory.json"

    @property
    def journal_public(self) -> Path:
        """The journal's public keys, readable by all users."""
        return self.root / "journal.pub"

    @property
    def journal_checkpoint(self) -> Path:
        """The journal's last checkpoint, readable by all users."""
        return self.root / "journal.checkpoint"

    @property
    def controller(self) -> Path:
        return self.root / "controller"

    @property
    def ship(self) -> Path:
        """The shipper's folder, with cursors and status."""
        return self.root / "ship"

    @property
    def notify(self) -> Path:
        """The folder of the process that sends notifications."""
        return self.root / "notify"

    @property
    def web(self) -> Path:
        """The folder of the page's tokens, which operators write."""
        return self.root / "web"

    @property
    def page(self) -> Path:
        """The folder of the page's server, which the server writes."""
        return self.root / "page"

    @property
    def web_tokens(self) -> Path:
        """The digests of the tokens of readers."""
        return self.web / "tokens.json"

    @property
    def fetcher(self) -> Path:
        """The fetcher's own folder: the exported files of Git sources."""
        return self.root / "fetcher"

    @property
    def feedback(self) -> Path:
        """The folder with the outcomes of commits, from the controller to the fetcher."""
        return self.root / "feedback"

    @property
    def declared_sources(self) -> Path:
        """A file that the controller keeps while a Source is declared: the fetcher runs as long."""
        return self.feedback / "sources"

    @property
    def verified(self) -> Path:
        """The result of the last verification of the journal that was kept."""
        return self.root / "verified.json"

    @property
    def broker_socket(self) -> Path:
        return self.run / "broker.sock"

    @property
    def fetch_socket(self) -> Path:
        """The fetcher's socket, for requests of operators."""
        return self.run / "fetch.sock"

    @property
    def controller_socket(self) -> Path:
        return self.run / CONTROLLER_SOCKET

    @property
    def own_socket(self) -> Path:
        """The socket of a controller without a parent, in a folder of the controller's user.

        Then ``controller_socket`` is a link of the broker's to it.
        """
        return self.run / "controller" / CONTROLLER_SOCKET


def find_state(explicit: Path | None, *, environ: Mapping[str, str], cwd: Path, uid: int) -> Path:
    """Return the state folder.

    In this order: ``--state``, ``$TRIMTAB_STATE``, ``.state/`` in *cwd* or a parent, for root the
    system's, else the user's (XDG Base Directory: ``$XDG_STATE_HOME``).

    Raises:
        StateError: the ``.state/`` folder belongs to another user.
    """
    if explicit is not None:
        return (cwd / explicit).absolute()
    if environ.get("TRIMTAB_STATE"):
        return (cwd / environ["TRIMTAB_STATE"]).absolute()
    for folder in (cwd, *cwd.parents):
        found = folder / ".state"
        if (found / "instance.json").is_file():
            _raise_if_foreign(found, uid=uid)
            return found
    if uid == 0:
        return SYSTEM_STATE
    home = Path(environ.get("HOME", "/nonexistent"))
    return Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "trimtab"


def _raise_if_foreign(found: Path, *, uid: int) -> None:
    """Refuse the policy and sockets of another user in whose folder the caller works.

    Raises:
        StateError: the state folder or its instance file belongs to another user.
    """
    owners = {path.lstat().st_uid for path in (found, found / "instance.json")}
    strangers = sorted((owners | {found.stat().st_uid}) - {0, uid})
    if strangers:
        raise StateError(
            "state.stranger",
            f"{found} belongs to uid {strangers[0]}",
            remedy=f"name the state folder with --state: {found}, if you trust that user",
        )


def run_folder(root: Path, instance_id: str) -> Path:
    """Return the folder of the sockets: ``run/``, or a folder in /run if the path is too long."""
    folder = root / "run"
    if len(os.fsencode(folder / CONTROLLER_SOCKET)) <= SOCKET_PATH_MAX:
        return folder
    return SHORT_RUN / instance_id


def read_instance(root: Path) -> Instance | None:
    """Return the instance of a state folder; None before the first start.

    Raises:
        StateError: the file can't be read or is damaged, or is of another format.
    """
    path = root / "instance.json"
    try:
        members = json.loads(path.read_text())
        if members.keys() >= {"id", "dir", "engine"}:
            raise _older(root, members)
        form = members.pop("format")
        if (readable := _integer(form["readable"])) > FORMAT:
            raise _newer(root, readable)
        # A newer trimtab has members that this one needn't know.
        known = members if _integer(form["written"]) <= FORMAT else _known(members)
        return Instance(**known)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StateError(
            "state.unreadable", f"{path}: {error.strerror}", remedy="run as root or its owner"
        ) from error
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise StateError(
            "state.damaged",
            f"{path} can't be read as an instance: {error}",
            remedy="restore the file, or name another state folder with --state",
        ) from error


def raise_if_restoring(root: Path) -> None:
    """Refuse a folder without an instance where a restore was cut off.

    Raises:
        StateError: ``state.restoring``.
    """
    if (root / RESTORING).exists():
        raise StateError(
            "state.restoring",
            f"a restore in {root} didn't get to its end",
            remedy="repeat the command 'trimtab restore'",
        )


def _integer(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"its format is {value!r:.20}")
    return value


def _known(members: Mapping[str, str]) -> dict[str, str]:
    return {name: members[name] for name in Instance.__slots__ if name in members}


def _older(root: Path, members: Mapping[str, object]) -> StateError:
    options = {"instance": members["id"], "state": root, "engine": members["engine"]}
    options["policy"] = members.get("policy", DEFAULT_POLICY)
    words = " ".join(f"--{name} {value}" for name, value in options.items())
    return StateError(
        "state.older",
        f"{root} was written by trimtab from before its first release, in a format that isn't read",
        remedy="move all of it but its folder 'files', which containers mount, to another folder and keep that; then take "
        "the running containers over: "
        f"'trimtab adopt {members['dir']} {words} --yes'",
    )


def _newer(root: Path, readable: int) -> StateError:
    return StateError(
        "state.newer",
        f"{root} needs a trimtab that reads format {readable}, and this one reads format {FORMAT}; "
        "nothing was changed",
        remedy="install the newer trimtab again, or name another state folder with --state",
    )


def write_instance(root: Path, instance: Instance) -> None:
    """Replace ``instance.json`` durably.

    Raises:
        StateError: the folder can't be written.
    """
    path = root / "instance.json"
    members = {"format": {"written": FORMAT, "readable": READABLE}, **asdict(instance)}
    with suppress(OSError, ValueError, KeyError, TypeError):
        former = json.loads(path.read_text())
        if former["format"]["written"] > FORMAT:  # of a newer trimtab, whose members stay
            members = {**former, **asdict(instance)}
    _write(path, members)


def _write(path: Path, members: Mapping[str, object]) -> None:
    try:
        write_atomic(path, f"{json.dumps(members, indent=2)}\n".encode(), mode=0o644)
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{path}: {error.strerror}",
            remedy="make the state folder writable, or name another with --state",
        ) from error


def settings_file(root: Path) -> Path:
    """Return the file of settings of a state folder."""
    return SYSTEM_SETTINGS if root == SYSTEM_STATE else root / "trimtab.yaml"


def read_in_force(root: Path) -> InForce:
    """Return the settings that the broker read last; the defaults before its first start.

    Raises:
        StateError: the file can't be read or is damaged.
    """
    path = root / "settings.json"
    try:
        members = json.loads(path.read_text())
        read = read_settings(members["settings"])
        if members["format"] != FORMAT or read.faults:
            raise ValueError("; ".join(f.message for f in read.faults) or "another format")  # noqa: TRY301 - as others
        return InForce(read.settings, str(members["digest"]))
    except FileNotFoundError:
        return InForce()
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise StateError(
            "state.damaged",
            f"{path} can't be read as settings: {error}",
            remedy="start the broker again: it writes the file",
        ) from error


def write_in_force(root: Path, in_force: InForce) -> None:
    """Replace ``settings.json`` durably.

    Raises:
        StateError: the folder can't be written.
    """
    members = {"digest": in_force.digest, "settings": to_json(in_force.settings)}
    _write(root / "settings.json", {"format": FORMAT, **members})


def read_started_settings(path: Path) -> str:
    """Return the digest in a lock file, for a running process; '' without one, or without rights."""
    try:
        file = path.open("rb")
    except OSError:
        return ""
    with file:
        if try_lock(file.fileno()):  # nobody runs; a process that starts waits for the lock
            return ""
        return file.read(64).decode(errors="replace")


def bind_engine(root: Path, engine_id: str) -> None:
    """Bind a state folder to its engine.

    Raises:
        StateError: the folder belongs to another engine.
    """
    instance = read_instance(root)
    assert instance is not None, "an instance is made before its engine is asked"
    if instance.engine_id == engine_id:
        return
    if instance.engine_id:
        raise StateError(
            "state.other-engine",
            f"{root} belongs to engine {instance.engine_id}, and {engine_id} answers",
            remedy="name this engine's own state folder with --state, or the other engine with "
            "--engine",
        )
    write_instance(root, replace(instance, engine_id=engine_id))


def existing_instance(root: Path) -> tuple[Instance, StateFolder]:
    """Return the instance of a state folder, and the folder's layout.

    Raises:
        StateError: no broker has started there, or the instance's file can't be read.
    """
    instance = read_instance(root)
    if instance is None:
        raise StateError(
            "state.missing", f"no instance at {root}", remedy="start its broker first, or 'up'"
        )
    return instance, state_of(root, instance)


def state_of(root: Path, instance: Instance) -> StateFolder:
    """Return the layout of an instance's state folder.

    A moved or copied folder has its sockets in the new place, never in the original's.
    """
    run = Path(instance.run)
    if run.parent not in {root, SHORT_RUN}:
        run = run_folder(root, instance.id)
    return StateFolder(root=root, run=run)


class TargetsInForce:
    """The destinations of the settings in force, read again when the broker has replaced the file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamp: tuple[int, int] | None = None
        self._targets: tuple[NoticeTarget, ...] | None = None

    def __call__(self) -> tuple[NoticeTarget, ...]:
        """Return the destinations. A file that can't be read changes nothing."""
        return self.known() or ()

    def known(self) -> tuple[NoticeTarget, ...] | None:
        """Return the destinations; None while the file couldn't be read yet."""
        with suppress(OSError, TrimtabError):
            status = (self._root / "settings.json").stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp != self._stamp:
                settings = read_in_force(self._root).settings
                self._targets = targets_of(settings.notify_destinations)
                self._stamp = stamp
        return self._targets
