"""The commands of a build to the driver: receive the context, and run the build on the engine."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReceiveContext:
    """Receive the body of the request, the context of a build. Result: ContextReceived or ContextRefused.

    The file stays with the request, for ``RunBuild``.
    """

    #: Bounds: bytes of all contents, and entries.
    bytes_max: int
    entries_max: int
    #: The name of the Dockerfile in the context.
    dockerfile: str
    within_s: float


@dataclass(frozen=True, slots=True)
class ContextReceived:
    """What admission and the record need to know of a context."""

    #: Of names, modes, targets of links and contents.
    digest: str
    #: Bytes of all contents, and entries.
    size: int
    entries: int
    #: None if the context has no such file.
    dockerfile: str | None = field(repr=False)
    #: The files that are archives or compressed, by name.
    archives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextRefused:
    """Why a body can't be the context of a build."""

    code: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class RunBuild:
    """Build an image from the received context, and send its log to the client as it comes.

    Result: a ``BuildEnded``. The build ends with the client, and beyond a bound.
    """

    #: Without the version prefix, with the query.
    path: str = field(repr=False)
    #: The name of the Dockerfile, and the text that the engine gets instead.
    dockerfile: str
    text: str = field(repr=False)
    within_s: float
    #: Bytes of the result with its base, and of the files of running commands.
    bytes_max: int
    pids_max: int
    #: Send only the id of the image.
    quiet: bool = False
