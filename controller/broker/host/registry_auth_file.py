"""The file of registry credentials: its required access mode, and its reloads.

The broker reads the file at its start, after a change, and on SIGHUP. An unusable file never
replaces the credentials in use. Credentials leave the process only to the engine, and only with
requests about images of their registry.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from controller.broker.host.registry_auth import BYTES_MAX, RegistryAuth, read_auth
from controller.core.engine_api.streams.pull_errors import Access
from controller.model.errors import CredentialsInvalid

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
        """Read the file if it changed. Return True if it changed. Never raises."""
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
