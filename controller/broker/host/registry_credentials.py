"""The file of registry credentials: who may have it, and when it is read.

Read at the start, when it changes, and on SIGHUP. A file that can't be used never replaces one
that could. What it holds leaves this process to the engine alone, and only with requests about
images of its registry.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.broker.host.registry_auth import BYTES_MAX, RegistryAuth, read_auth
from controller.core.engine_api.pull_errors import Access
from controller.model.errors import CredentialsInvalid

LOG = logging.getLogger(__name__)
_Stamp = tuple[int, ...]


class Credentials:
    """The credentials of one broker. ``error`` says why the last ones stay, '' where all is well.

    A file that isn't *required* may be absent: then there are none.
    """

    def __init__(self, path: Path | None = None, *, required: bool = True, own_uid: int) -> None:
        self._path = path
        self._required = required
        self._trusted = frozenset({0, own_uid})
        self._known = RegistryAuth()
        self._stamp: _Stamp = ()
        self.error = ""

    @property
    def access(self) -> Access:
        """What may be told of them."""
        return Access("" if self._path is None else str(self._path), self._known.hosts)

    def load(self) -> None:
        """Read the file, whether it changed or not.

        Raises:
            CredentialsInvalid: it can't be used; what was known before stays.
        """
        if self._path is None:
            return
        # Before it is read: what changes while it is read is seen the next time.
        self._stamp = _stamp_of(self._path)
        try:
            text = self._text(self._path)
            self._known = RegistryAuth() if text is None else read_auth(text, str(self._path))
        except CredentialsInvalid as error:
            self.error = str(error)
            raise
        self.error = ""

    def refresh(self) -> bool:
        """Read the file if it changed; tell whether it did. It never raises."""
        if self._path is None or _stamp_of(self._path) == self._stamp:
            return False
        try:
            self.load()
        except CredentialsInvalid as error:
            LOG.error("registry-auth.invalid error=%s: the last good one stays", error)  # noqa: TRY400
        else:
            LOG.info("registry-auth.loaded registries=%d", len(self._known.hosts))
        return True

    def header(self, host: str) -> str:
        """Return what is sent for a registry; '' for nothing."""
        return self._known.header(host)

    def _text(self, path: Path) -> str | None:
        """Return what is in the file; None where it is absent, and may be."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._required and not self._known.hosts:
                return None
            raise _unreadable(path, "it isn't there") from None
        except OSError as error:
            raise _unreadable(path, error.strerror or "it can't be opened") from None
        try:
            self._check(path, os.fstat(handle))
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

    def _check(self, path: Path, status: os.stat_result) -> None:
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


class Registrar:
    """What a pull needs of the credentials: the present ones. ``told`` is called after a change."""

    def __init__(self, credentials: Credentials, told: Callable[[], Awaitable[None]]) -> None:
        self._credentials = credentials
        self._told = told

    async def __call__(self, host: str) -> str:
        """Return what is sent for a registry; '' for nothing, or for none."""
        if not host:
            return ""
        if await asyncio.to_thread(self._credentials.refresh):
            await self._told()
        return self._credentials.header(host)


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
