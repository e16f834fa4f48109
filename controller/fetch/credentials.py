"""Credentials of a Source: a folder of files, and the access to the repository made of them.

``/etc/trimtab/git/NAME/`` has, for HTTPS, ``password`` (or a token), ``username`` and ``ca.pem``; for
SSH ``id`` (a private key) and ``known_hosts``. The paths of the files go to git, never their content:
no secret is on a command line, in a variable, in a message or in the log. ``token`` is for the API of
a forge.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from controller.fetch.mirror import RemoteAccess
from controller.model.desired.source_spec import GitSpec
from controller.model.errors import SourceError

FOLDER = Path("/etc/trimtab/git")
TOKEN_MAX = 4096
_TOKEN = re.compile(rb"[!-~]+")
USERNAME_FILE, PASSWORD_FILE = "TRIMTAB_GIT_USERNAME", "TRIMTAB_GIT_PASSWORD"
#: Answers git's questions with the first lines of the files that the variables name. Each poll asks:
#: the shell reads without another program.
ASKPASS = f"""#!/bin/sh
case "$1" in
Username*) file="${USERNAME_FILE}" ;;
Password*) file="${PASSWORD_FILE}" ;;
*) exit 1 ;;
esac
IFS= read -r line <"$file"
[ -n "$line" ] || exit 1
printf '%s\\n' "$line"
"""
#: The user without a file ``username``.
_USERNAME = "git"
_SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ProxyCommand=none",
    "ControlPath=none",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)


@dataclass(frozen=True, slots=True)
class AccessFiles:
    """The files that accesses are made with."""

    #: The folder of the credentials' folders.
    credentials: Path
    #: The script ``ASKPASS``.
    askpass: Path
    #: The folder for settings that git takes from files alone.
    settings: Path


def access_of(name: str, spec: GitSpec, files: AccessFiles) -> RemoteAccess:
    """Return the access to the repository of the Source *name*.

    Raises:
        SourceError: a file is missing or readable by everybody, or the URL isn't permitted.
    """
    folder = None if spec.credentials is None else files.credentials / spec.credentials
    if spec.url.startswith("file://"):
        return _file_access(name, spec, files)
    if not spec.url.startswith(("http://", "https://")):
        return _ssh_access(folder)
    if spec.url.startswith("http://"):
        raise_if_insecure(spec.url, allowed=spec.allow_insecure_loopback)
    return _http_access(spec, folder, files)


def raise_if_insecure(url: str, *, allowed: bool) -> None:
    """Refuse plain HTTP, unless it is *allowed* and the server is of this host.

    Raises:
        SourceError: the URL isn't permitted.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or (allowed and _is_loopback(parts.hostname or "")):
        return
    raise SourceError(
        "source.insecure",
        "plain http can be read and changed on its way",
        remedy="use https, or for a server of this host 127.0.0.1 and allowInsecureLoopback: true",
    )


def _is_loopback(host: str) -> bool:
    """Return True if *host* can only be this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(folder: Path) -> str:
    """Return the token for the API of a forge.

    Raises:
        SourceError: the file is missing, readable by everybody, or has no token.
    """
    path = _secret(folder / "token")
    try:
        with path.open("rb") as file:
            text = file.read(TOKEN_MAX + 1).strip()
    except OSError as error:
        raise _missing(path) from error
    if len(text) > TOKEN_MAX or not _TOKEN.fullmatch(text):
        raise SourceError(
            "source.credentials",
            f"{path} has no token: one line of printable characters",
            remedy=f"write the token of the forge into {path}",
        )
    return text.decode("ascii")


def ca_file(folder: Path) -> Path | None:
    """Return the file of certificates of authorities; None for the system's."""
    authority = folder / "ca.pem"
    return authority if _exists(authority) else None


def _http_access(spec: GitSpec, folder: Path | None, files: AccessFiles) -> RemoteAccess:
    protocol = spec.url.partition(":")[0]
    if folder is None:
        return RemoteAccess(protocol)
    settings: tuple[str, ...] = ()
    environment = {"GIT_ASKPASS": str(files.askpass)}
    authority, user = ca_file(folder), folder / "username"
    if authority is not None:
        settings += (f"http.sslCAInfo={authority}",)
    password = _secret(folder / "password")
    environment[PASSWORD_FILE] = str(password)
    if _exists(user):
        environment[USERNAME_FILE] = str(user)
    else:
        settings += (f"credential.username={_USERNAME}",)
    return RemoteAccess(protocol, settings, environment, password)


def _ssh_access(folder: Path | None) -> RemoteAccess:
    if folder is None:
        raise SourceError(
            "source.credentials",
            "an SSH URL needs credentials: a private key and known_hosts",
            remedy=f"name a folder of {FOLDER} in spec.git.credentials, with the files id and "
            "known_hosts",
        )
    hosts = folder / "known_hosts"
    if not _exists(hosts):
        raise _missing(hosts)
    options = (
        *_SSH_OPTIONS,
        f"UserKnownHostsFile={_quoted(hosts)}",
        f"IdentityFile={_quoted(_secret(folder / 'id'))}",
    )
    words = ["ssh", "-F", "/dev/null", *(part for option in options for part in ("-o", option))]
    return RemoteAccess("ssh", environment={"GIT_SSH_COMMAND": shlex.join(words)})


def _quoted(path: Path) -> str:
    """Return a path as a value of ssh_config(5), where '%' begins a token."""
    text = str(path).replace("%", "%%")
    return f'"{text}"'


def _file_access(name: str, spec: GitSpec, files: AccessFiles) -> RemoteAccess:
    """Return the access to a local repository, which may belong to another user.

    ``git-upload-pack`` reads ``safe.directory`` from a file alone.
    """
    path = spec.url.removeprefix("file://").rstrip("/")
    paths = (path, f"{path}/.git", f"{path}.git")
    quoted = (each.replace("\\", "\\\\").replace('"', '\\"') for each in paths)
    text = "[safe]\n" + "".join(f'\tdirectory = "{each}"\n' for each in quoted)
    settings = files.settings / f"{name}.gitconfig"
    if not settings.is_file() or settings.read_text() != text:
        settings.write_text(text)
    return RemoteAccess("file", environment={"GIT_CONFIG_GLOBAL": str(settings)})


def _secret(path: Path) -> Path:
    """Return the path of a file that everybody else must not read.

    Raises:
        SourceError: the file is missing, or everybody can read it.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _missing(path) from error
    if status.st_mode & stat.S_IRWXO:
        raise SourceError(
            "source.credentials",
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: every user of the host can reach it",
            remedy=f"chmod 0640 {path}; chgrp trimtab-fetch {path}",
        )
    return path


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _missing(path: Path) -> SourceError:
    return SourceError(
        "source.credentials",
        f"{path} can't be read",
        remedy=f"create {path} with mode 0640 and the group trimtab-fetch",
    )
