"""Volumes of other machines: NFS and CIFS by the engine's driver ``local``, with options by name and form.

The engine mounts them as root. Every other option of the driver can make a volume any path of the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.model.desired.spec.mounts import RemoteFolder

#: The driver's option for the largest size of a volume.
VOLUME_SIZE = "size"
_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]{0,254}){1,32}|/", re.ASCII)
_NUMBER, _ID = "[0-9]{1,7}", "[0-9]{1,10}"
_COMMON = dict.fromkeys(("ro", "rw", "soft", "hard", "noatime", "nodiratime", "noexec"), "")
#: The options of each type, with the form of the value; '' for none. All else is refused.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "nfs": _COMMON
    | dict.fromkeys(("nolock", "lock", "noac", "ac", "softerr", "intr", "nointr", "noresvport"), "")
    | dict.fromkeys(("timeo", "retrans", "rsize", "wsize", "actimeo", "port", "mountport"), _NUMBER)
    | {"vers": r"3|4|4\.[0-2]", "nfsvers": r"3|4|4\.[0-2]", "proto": "tcp|udp"}
    | {"nconnect": "[1-9]|1[0-6]"},
    "cifs": _COMMON
    | dict.fromkeys(("guest", "nobrl", "noperm", "serverino", "noserverino", "mfsymlinks"), "")
    | {"vers": r"2\.[01]|3|3\.0|3\.02|3\.1\.1", "uid": _ID, "gid": _ID, "iocharset": "utf8"}
    | {"file_mode": "0?[0-7]{3}", "dir_mode": "0?[0-7]{3}", "cache": "strict|none|loose"}
    | {"username": "guest", "password": "", "sec": "none|ntlmssp"},
}
#: Set on each remote volume, so that the other machine's files give no rights here.
_FORCED = ("nosuid", "nodev")
_KEPT_IN_THE_OPEN = (
    "a password among the options: the engine shows it in every inspect. Mount the share on the host, with its "
    "credentials in a file of root's, and mount that folder"
)


@dataclass(frozen=True, slots=True)
class RemoteVolume:
    """A folder of another machine."""

    type: str  # nfs or cifs
    server: str
    path: str
    #: In the order of their names, without those that the gate sets.
    options: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The source of the mount, as the kernel shows it."""
        return (
            f"//{self.server}{self.path}" if self.type == "cifs" else f"{self.server}:{self.path}"
        )

    @property
    def driver_options(self) -> dict[str, str]:
        """The options of the engine's driver."""
        options = ",".join((f"addr={self.server}", *_FORCED, *self.options))
        return {"type": self.type, "o": options, "device": self.device}


def remote_of(folder: RemoteFolder | None) -> RemoteVolume | None:
    """Return the remote volume of a document, in the gate's form if it has one."""
    if folder is None:
        return None
    written = RemoteVolume(folder.type, folder.server, folder.path, tuple(folder.options))
    found = read_remote(written.driver_options)
    return found if isinstance(found, RemoteVolume) else written


def read_remote(driver_options: Mapping[str, str]) -> RemoteVolume | str:
    """Return the remote volume of the driver's options, or why they are none, without any value."""
    options = {name: value for name, value in driver_options.items() if name != VOLUME_SIZE}
    kind = {"nfs": "nfs", "nfs4": "nfs", "cifs": "cifs"}.get(options.get("type", ""), "")
    if not kind or not options.keys() <= {"type", "o", "device"} or VOLUME_SIZE in driver_options:
        return "a local volume with options other than size can mount anything of the host"
    named = [part.partition("=") for part in options.get("o", "").split(",") if part]
    servers = {value for name, _, value in named if name in {"addr", "ip"}}
    server, path = _split(kind, options.get("device", ""))
    servers |= {server} if server else set()
    rest = [(name, value) for name, _, value in named if name not in {"addr", "ip", *_FORCED}]
    if options.get("type") == "nfs4" and not any(name in {"vers", "nfsvers"} for name, _ in rest):
        rest.append(("vers", "4"))
    if any(name in {"password", "pass", "credentials", "cred"} and value for name, value in rest):
        return _KEPT_IN_THE_OPEN
    if len(servers) != 1 or not _SERVER.fullmatch(next(iter(servers))) or not _PATH.fullmatch(path):
        return "device and addr name no single server, or no plain path there"
    for name, value in rest:
        form = _OPTIONS[kind].get(name)
        if form is None or not re.fullmatch(form, value, re.ASCII):
            known = ", ".join(sorted(_OPTIONS[kind]))
            return f"an option of the mount that isn't admitted, or its value; admitted are {known}"
    if len({name for name, _ in rest}) < len(rest):
        return "an option of the mount is named twice"
    texts = sorted(
        f"{name}={value}" if value or name == "password" else name for name, value in rest
    )
    return RemoteVolume(kind, servers.pop(), path, tuple(texts))


def _split(kind: str, device: str) -> tuple[str, str]:
    """Return the server, '' for none, and the path of a device."""
    if kind == "cifs":
        server, slash, path = device.removeprefix("//").partition("/")
        return (server, slash + path) if device.startswith("//") else ("", "")
    server, _, path = device.partition(":")
    return server, path
