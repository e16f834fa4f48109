"""Runs of the git command with a closed environment.

No configuration of user or system, no prompts, hooks, helpers, submodules or filters; only the protocol
of the URL. A run has bounds on time, memory, output and the size of a file, and ends as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from controller.core.git.remote_failures import explain_failure
from controller.model.errors import SourceError
from controller.system.bounded_program import Bounds, Finished, run_program

GIT = "git"
_NOTHING: Mapping[str, str] = MappingProxyType({})

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "/bin/false",
    "GIT_SSH_VARIANT": "ssh",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PROTOCOL_FROM_USER": "0",
    #: No protocol has this name.
    "GIT_ALLOW_PROTOCOL": "none",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.attributesFile=/dev/null",
    "credential.helper=",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "transfer.bundleURI=false",
    "transfer.credentialsInUrl=die",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "fetch.writeCommitGraph=false",
    "fetch.showForcedUpdates=false",
    # A fetch makes one pack, which moves into the mirror as a whole (mirror.fetch).
    "fetch.unpackLimit=1",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.followRedirects=false",
    "http.sslVerify=true",
    "http.lowSpeedLimit=200",
    "http.lowSpeedTime=30",
    "protocol.version=2",
    # Memory: beyond this size a blob is streamed; a bomb never is in memory as a whole.
    "core.bigFileThreshold=8m",
    "core.packedGitWindowSize=16m",
    "core.packedGitLimit=256m",
    "core.deltaBaseCacheLimit=64m",
    "pack.threads=1",
)


#: Stands for a password.
WITHHELD = "(withheld)"
_AUTHORIZATION = re.compile(r"\b(Basic|Bearer) [A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """The access to one remote repository: its protocol, settings and variables. No secrets."""

    protocol: str
    settings: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The file with the password.
    password: Path | None = None

    def withhold(self, text: str) -> str:
        """Return a text of git without the password: a server can repeat what it got."""
        with suppress(OSError):
            if self.password is not None:
                secret = self.password.read_text("utf-8", "replace").partition("\n")[0]
                text = text.replace(secret, WITHHELD) if secret else text
        return _AUTHORIZATION.sub(rf"\1 {WITHHELD}", text)


@dataclass(frozen=True, slots=True)
class GitLimits:
    """The bounds of runs. Units: seconds, bytes."""

    fetch_time_s: float = 600.0
    list_time_s: float = 60.0
    read_time_s: float = 60.0
    #: Longest pack of one fetch.
    pack_max: int = 512 << 20
    #: Largest mirror.
    mirror_max: int = 2 << 30
    #: Most packs of a mirror, before one pack is made of them.
    packs_max: int = 40
    memory_max: int = 2 << 30
    #: Longest output of a run that lists or reads objects.
    output_max: int = 32 << 20


@dataclass(frozen=True, slots=True)
class GitCommand:
    """The git command on one bare repository."""

    folder: Path
    monotonic: Callable[[], float]
    limits: GitLimits = field(default_factory=GitLimits)

    def run(
        self,
        *arguments: str,
        access: RemoteAccess | None = None,
        time_s: float | None = None,
        given: bytes = b"",
        extra: Mapping[str, str] = _NOTHING,
        is_full: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """Run git and return its output. *is_full* as in ``run_program``.

        Raises:
            SourceError: git failed, or went beyond a bound.
        """
        finished = self.finish(
            *arguments, access=access, time_s=time_s, given=given, extra=extra, is_full=is_full
        )
        if not finished.is_success:
            errors = finished.errors if access is None else access.withhold(finished.errors)
            why = explain_failure(errors, exit_code=finished.code, exceeded=finished.exceeded)
            raise SourceError(why.code, why.message, remedy=why.remedy)
        return finished.output

    def finish(
        self,
        *arguments: str,
        access: RemoteAccess | None = None,
        time_s: float | None = None,
        given: bytes = b"",
        extra: Mapping[str, str] = _NOTHING,
        file_max: int | None = None,
        is_full: Callable[[], bool] = lambda: False,
    ) -> Finished:
        """Run git and return its result, also that of a failure.

        *file_max* is the longest file that git can write, by default a pack of one fetch.

        Raises:
            SourceError: there is no git command.
        """
        settings = (*_SETTINGS, *(access.settings if access else ()))
        environment = {**_ENVIRONMENT, "GIT_DIR": str(self.folder), **extra}
        if access is not None:
            environment |= {"GIT_ALLOW_PROTOCOL": access.protocol, **access.environment}
        argv = (GIT, *(part for setting in settings for part in ("-c", setting)), *arguments)
        bounds = Bounds(
            time_s=self.limits.read_time_s if time_s is None else time_s,
            output_max=self.limits.output_max,
            memory_max=self.limits.memory_max,
            file_max=self.limits.pack_max if file_max is None else file_max,
        )
        try:
            return run_program(
                argv,
                environment=environment,
                bounds=bounds,
                monotonic=self.monotonic,
                given=given,
                folder=Path("/"),
                is_full=is_full,
            )
        except OSError as error:
            raise SourceError(
                "source.git-missing",
                f"git can't be run: {error.strerror}",
                remedy="install git 2.40 or newer",
            ) from error
