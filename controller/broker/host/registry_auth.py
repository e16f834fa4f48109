"""Registry credentials in the form of docker's config.json: one X-Registry-Auth for each registry.

The file must have a required access mode, and is read again after a change.

Only credentials written in the file are used. A file that names a helper program is refused,
because the broker runs no such program. No message repeats a value of the file.

The broker reads the file at its start, after a change, and on SIGHUP. An unusable file never
replaces the credentials in use. Credentials leave the process only to the engine, and only with
requests about images of their registry.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.core.engine_api.streams import Access
from controller.model.errors import CredentialsInvalid

BYTES_MAX = 256 * 1024
DOCKER_HUB = "docker.io"
#: Names of Docker Hub in docker's own files and in requests to the engine.
_HUB_SERVER = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
#: Keys for tokens of docker's own login: no credentials of a registry.
_HUB_TOKENS = frozenset({"v1/access-token", "v1/refresh-token"})
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?", re.ASCII)
_PATHS = frozenset({"", "v1", "v2"})
_SHAPE = '{"auths": {"REGISTRY": {"auth": …}}}'
_ENTRY = "auth, or username and password, or identitytoken"


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """The values of X-Registry-Auth by registry. They never appear in a ``repr``."""

    _headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def hosts(self) -> frozenset[str]:
        """The registries with credentials."""
        return frozenset(self._headers)

    def header(self, host: str) -> str:
        """Return the header value for requests about images of a registry, '' for none."""
        return self._headers.get(host, "")


def read_auth(text: str, where: str) -> RegistryAuth:
    """Parse the text of a credentials file. *where* is the file name for messages.

    Raises:
        CredentialsInvalid: the form is wrong, a helper program is named, or one registry has two
            different entries.
    """
    config = _parse_object(text, where)
    for helper in ("credsStore", "credHelpers"):
        if config.get(helper):
            raise CredentialsInvalid(
                "registry-auth.helper",
                f"{where}: {helper} asks for a helper program, and none runs in the broker",
                remedy=f"remove {helper}, and write the credentials under auths",
            )
    auths = config.get("auths", {})
    if not isinstance(auths, dict):
        raise _invalid(f"{where}: auths isn't an object", f"write {_SHAPE}")
    headers: dict[str, str] = {}
    for key, entry in auths.items():
        host = _host_of(key, where)
        if host is None:
            continue
        header = _header(host, entry, where)
        if headers.setdefault(host, header) != header:
            raise _invalid(f"{where}: auths names {host} twice, differently", "keep one of them")
    return RegistryAuth(headers)


def _parse_object(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique_members)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}:{error.colno}"
        raise _invalid(f"{place}: that isn't JSON", "correct the file at this place") from None
    except RecursionError:
        raise _invalid(f"{where}: nested too deeply", f"write {_SHAPE}") from None
    except _RepeatedError:
        raise _invalid(f"{where}: a key is repeated", "keep one of them") from None
    if not isinstance(value, dict):
        raise _invalid(f"{where}: it isn't an object", f"write {_SHAPE}")
    return value


class _RepeatedError(Exception):
    """An object has a key twice: parsers differ in the value they use."""


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RepeatedError
    return members


def _host_of(key: str, where: str) -> str | None:
    """Return the registry of a key in the form of image references, None for a docker token.

    The rules are docker's: a key can have a scheme, and the API's version after the host.
    """
    rest = key.removeprefix("https://").removeprefix("http://")
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    hub = host.lower() in _HUB_HOSTS
    if hub and path in _HUB_TOKENS:
        return None
    if not _HOST.fullmatch(host) or path not in _PATHS:
        raise _invalid(
            f"{where}: a key of auths doesn't name a registry alone",
            "write its host, with the port if it has one (ghcr.io, registry.example:5000)",
        )
    return DOCKER_HUB if hub else host.lower()


def _header(host: str, entry: object, where: str) -> str:
    members = entry if isinstance(entry, dict) else {}
    secrets = {
        name: members.get(name) for name in ("username", "password", "identitytoken", "auth")
    }
    texts = {name: value for name, value in secrets.items() if value and isinstance(value, str)}
    if "auth" in texts:
        texts = {**_decode_auth(texts.pop("auth"), host, where), **texts}
    header = {"serveraddress": _HUB_SERVER if host == DOCKER_HUB else host}
    if "identitytoken" in texts:
        header["identitytoken"] = texts["identitytoken"]
    elif {"username", "password"} <= texts.keys():
        header |= {name: texts[name] for name in ("username", "password")}
    else:
        raise _invalid(f"{where}: there are no credentials for {host}", f"write {_ENTRY}")
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode()


def _decode_auth(auth: str, host: str, where: str) -> dict[str, str]:
    try:
        text = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise _invalid(
            f"{where}: auth of {host} isn't USERNAME:PASSWORD in base64", f"write {_ENTRY}"
        )
    return {"username": username, "password": password.rstrip("\0")}


def _invalid(message: str, remedy: str) -> CredentialsInvalid:
    return CredentialsInvalid("registry-auth.invalid", message, remedy=remedy)


LOG = logging.getLogger(__name__)
_Stamp = tuple[int, ...]


class Credentials:
    """The credentials of one broker.

    With ``required=False`` the file is allowed to be missing: then no credentials exist.
    """

    def __init__(self, path: Path | None = None, *, required: bool = True, own_uid: int) -> None:
        self._path = path
        self._required = required
        self._trusted = frozenset({0, own_uid})
        self._auth = RegistryAuth()
        self._stamp: _Stamp = ()
        #: Why the last load failed, and the previous credentials stay; '' after a good load.
        self.error = ""

    @property
    def access(self) -> Access:
        """The file and its registries, without secrets."""
        return Access("" if self._path is None else str(self._path), self._auth.hosts)

    def load(self) -> None:
        """Read the file, whether it changed or not.

        Raises:
            CredentialsInvalid: the file is unusable. The previous credentials stay.
        """
        if self._path is None:
            return
        # Taken before the read, so that a change during the read is noticed the next time.
        self._stamp = _stamp_of(self._path)
        try:
            text = self._read(self._path)
            self._auth = RegistryAuth() if text is None else read_auth(text, str(self._path))
        except CredentialsInvalid as error:
            self.error = str(error)
            raise
        self.error = ""

    def refresh(self) -> bool:
        """Read a changed file. Return True for a changed file. Never raises."""
        if self._path is None or _stamp_of(self._path) == self._stamp:
            return False
        try:
            self.load()
        except CredentialsInvalid as error:
            LOG.error("registry-auth.invalid error=%s: the last good one stays", error)  # noqa: TRY400
        else:
            LOG.info("registry-auth.loaded registries=%d", len(self._auth.hosts))
        return True

    def header(self, host: str) -> str:
        """Return the value of X-Registry-Auth for a registry, '' for none."""
        return self._auth.header(host)

    def _read(self, path: Path) -> str | None:
        """Return the content of the file, None for a missing file that is not required."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._required and not self._auth.hosts:
                return None
            raise _unreadable(path, "it isn't there") from None
        except OSError as error:
            raise _unreadable(path, error.strerror or "it can't be opened") from None
        try:
            self._check_access(path, os.fstat(handle))
            with open(handle, "rb", closefd=False) as file:
                content = file.read(BYTES_MAX + 1)
        finally:
            os.close(handle)
        if len(content) > BYTES_MAX:
            raise _unreadable(path, f"it is longer than {BYTES_MAX} bytes")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise _unreadable(path, "it isn't UTF-8") from None

    def _check_access(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "it isn't a file")
        if status.st_uid not in self._trusted:
            raise CredentialsInvalid(
                "registry-auth.exposed",
                f"{path} belongs to uid {status.st_uid}, who could change it",
                remedy=f"chown root {path}",
            )
        if status.st_mode & 0o077:
            raise CredentialsInvalid(
                "registry-auth.exposed",
                f"{path} can be read or written by others than its owner",
                remedy=f"chmod 600 {path}",
            )


def _stamp_of(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as error:
        return (-(error.errno or 1),)
    owner = (status.st_uid, status.st_gid, status.st_mode)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, *owner)


def _unreadable(path: Path, why: str) -> CredentialsInvalid:
    return CredentialsInvalid(
        "registry-auth.unreadable",
        f"{path}: {why}",
        remedy="name a file that the broker can read with --registry-auth",
    )
