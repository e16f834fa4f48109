"""Progress and failure of pulls and builds, from the lines of the engine.

The log of a build, from the lines of the engine: the step it is at, and its last lines.

The reason of a failed pull, from the error text of the engine.

The engine forwards the text of a registry, a proxy or the network. The first row with a pattern in
that text decides on the code, the next actor and the remedy. The image's own name in the text is
ignored. The patterns come from a real engine (Docker 26.1), except for those marked [docs].

The progress of a pull, from the lines of the engine.

A line is progress if it changes the state of a layer or of the whole pull. The countdown to the
next retry is not progress. Otherwise a pull from an unresponsive registry would never be aborted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from controller.core.encoding.identifiers import parse_reference
from controller.core.encoding.json_values import parse_json
from controller.core.encoding.text import printable_name
from controller.model.errors import Act

#: Lines that are kept for an error, and letters of each.
KEPT_LINES: Final = 20
_LETTERS: Final = 200
_STEP: Final = re.compile(r"Step ([0-9]+/[0-9]+) : (.+)")
#: What the builder says of containers and layers.
_NOISE: Final = re.compile(r" ---> .*")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class BuildLog:
    """The log of a build so far."""

    #: Such as ``step 3/9, RUN make``; '' before the first one.
    step: str = ""
    lines: tuple[str, ...] = ()
    #: The last bytes without an end of a line.
    rest: str = ""


def advance_build(log: BuildLog, line: bytes) -> BuildLog:
    """Return the log after a line of the engine's answer."""
    try:
        told = parse_json(line)
    except ValueError:
        return log
    text = told.get("stream") if isinstance(told, dict) else None
    if not isinstance(text, str):
        return log
    *whole, rest = (log.rest + _COLOUR.sub("", text)).split("\n")
    step, lines = log.step, log.lines
    for each in whole:
        if match := _STEP.fullmatch(each.strip()):
            step = printable_name(f"step {match[1]}, {match[2]}"[:_LETTERS])
        if each.strip() and not _NOISE.fullmatch(each):
            lines = (*lines, printable_name(each.rstrip()[:_LETTERS]))[-KEPT_LINES:]
    return BuildLog(step, lines, rest[-_LETTERS:])


def describe_build(image: str, log: BuildLog) -> str:
    """Return how far a build is."""
    return f"{image}: {log.step or 'sending the context'}"


NOT_FOUND = "image.notfound"
DENIED = "image.denied"
RATE_LIMITED = "image.rate-limited"
REGISTRY = "image.registry"
DISK = "image.disk"
PLATFORM = "image.other-platform"
DAMAGED = "image.damaged"
PULL_ERROR_OTHER = "image.pull-failed"
#: The broker's error for a pull that it aborted.
NO_PROGRESS = "made no progress"


@dataclass(frozen=True, slots=True)
class Access:
    """The registries with credentials in the broker, and the file. No secrets."""

    file: str = ""
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PullFailure:
    """A failed pull: code, next actor, reason and remedy."""

    code: str
    act: Act
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Kind:
    code: str
    act: Act
    what: str
    remedy: str  # {host} and {image} are filled in
    pattern: re.Pattern[str]


def _kind(code: str, act: Act, what: str, remedy: str, *patterns: str) -> _Kind:
    return _Kind(code, act, what, remedy, re.compile("|".join(patterns), re.IGNORECASE))


_KINDS = (
    # First of all: the text about a full disk is in the middle of other texts.
    _kind(
        DISK,
        Act.STALLED,
        "there is no space for it on the engine's disk",
        "free space where the engine keeps its data (docker info shows the folder)",
        "no space left on device",
        "disk quota exceeded",
    ),
    # Before DENIED, because registries also phrase a limit as a denial.
    _kind(
        RATE_LIMITED,
        Act.RETRY,
        "its registry limits the rate of requests",
        "wait, or pull with an account that may more",
        "toomanyrequests",
        "too many requests",
        r"\brate limit",
    ),
    # "pull access denied" also stands for a missing repository: only the registry knows.
    _kind(
        DENIED,
        Act.STALLED,
        "its registry refuses these credentials",
        "",
        r"(?<!permission )\bdenied\b",
        r"\bunauthorized\b",
        "no basic auth credentials",
        "authentication required",
        "incorrect username or password",
        "status: 40[13]",
        r"token (?:has|is) expired",  # [docs]
    ),
    _kind(
        PLATFORM,
        Act.STALLED,
        "there is none for this host's platform",
        "build it for this platform, or name another image",
        "no matching manifest for",
        "does not match the specified platform",  # [docs]
    ),
    _kind(
        NOT_FOUND,
        Act.STALLED,
        "its registry has no such image",
        "push it, or correct the image's name",
        r"manifest unknown",
        r"\bnot found\b",
        r"name unknown",
        "repository name not known",
        "status: 404",
    ),
    _kind(
        DAMAGED,
        Act.RETRY,
        "its registry sends unusable data",
        "push the image again, or look at its registry",
        "verification failed",
        "unknown blob",
        r"mediatype in manifest",
        "media type",
        "invalid checksum",
        "failed to register layer",
    ),
    _kind(
        REGISTRY,
        Act.RETRY,
        "its registry can't be reached",
        "look at the registry {host}, and at this host's network and names",
        "connection refused",
        "connection reset",
        "no such host",
        r"\blookup\b",
        "i/o timeout",
        "timeout",
        "deadline exceeded",
        r"\bEOF\b",
        "unreachable",
        "no route to host",
        "x509:",
        r"\btls:",
        "HTTP response to HTTPS client",
        "unexpected HTTP status: 5",
        NO_PROGRESS,
    ),
    _kind(PULL_ERROR_OTHER, Act.RETRY, "the pull failed", "look at the engine's log", ""),
)
#: Who acts next, by code.
PULL_ERROR_ACTS = {kind.code: kind.act for kind in _KINDS}


#: Failures for which a local image of the same name is a way out.
_REMOTE = frozenset({REGISTRY, DENIED, NOT_FOUND, RATE_LIMITED})


def explain_pull_error(
    reference: str, text: str, *, access: Access = Access(), is_local: bool = False
) -> PullFailure:
    """Return the failure for the engine's error *text* on the pull of *reference* (canonical).

    *is_local*: the engine has a local image of this name, without trust.
    """
    kind = _kind_of(reference, text)
    host = parse_reference(reference).host
    remedy = kind.remedy.format(host=host)
    if kind.code == DENIED:
        remedy = _credentials(host, access)
    if is_local and kind.code in _REMOTE:
        remedy += f"; to use the engine's local image of this name: trimtab image trust {reference}"
    return PullFailure(kind.code, kind.act, f"{reference}: {kind.what}: {text}", remedy)


def pull_error_code(reference: str, text: str) -> str:
    """Return the code of a failed pull."""
    return _kind_of(reference, text).code


def _kind_of(reference: str, text: str) -> _Kind:
    # An image may be called "denied".
    for name in sorted(_names(reference), key=len, reverse=True):
        text = text.replace(name, "IMAGE")
    return next(kind for kind in _KINDS if kind.pattern.search(text))


def _names(reference: str) -> set[str]:
    parsed = parse_reference(reference)
    return {reference, parsed.repository, parsed.path}


def _credentials(host: str, access: Access) -> str:
    if host in access.hosts:
        return f"check that the credentials for {host} in {access.file} are right and still valid"
    if access.file:
        return f"add credentials for {host} to {access.file}, or correct the image's name"
    return f"give the broker credentials for {host} (--registry-auth), or correct the image's name"


#: Further layers are ignored.
LAYERS_MAX = 1024
_MEBIBYTE = 1024 * 1024
_DONE = frozenset({"Pull complete", "Already exists"})
_BEGINS = "Pulling from"
_RETRYING = "Retrying"
_DOWNLOADING = "Downloading"
_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete", "Extracting", "Pull complete"})


@dataclass(frozen=True, slots=True)
class Layer:
    """The last state of a layer, and its downloaded bytes."""

    status: str
    current: int = 0
    total: int = 0
    detail: int = 0  # the progress of the current step


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a pull so far."""

    layers: Mapping[str, Layer] = field(default_factory=lambda: MappingProxyType({}))
    said: str = ""  # the last line without a layer


def advance_pull(progress: PullProgress, line: bytes) -> PullProgress:
    """Return the progress after a line; the same object if the line shows none."""
    try:
        value = parse_json(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return _said(progress, line.decode("utf-8", "replace"))
    status, name = str(value.get("status") or ""), str(value.get("id") or "")
    if not name or status.startswith(_BEGINS):
        return _said(progress, str(value.get("error") or status))
    before = progress.layers.get(name)
    if before is None and len(progress.layers) >= LAYERS_MAX:
        return progress
    after = _layer(before or Layer(""), status, value.get("progressDetail"))
    if after == before:
        return progress
    return replace(progress, layers=MappingProxyType({**progress.layers, name: after}))


def describe_pull(progress: PullProgress) -> str:
    """Return the progress as text: ``3 of 7 layers, 41 of 120 MiB``."""
    layers = progress.layers.values()
    if not layers:
        return "asking its registry"
    done = sum(layer.status in _DONE for layer in layers)
    parts = [f"{done} of {len(layers)} layers"]
    total = sum(layer.total for layer in layers)
    if total:
        here = sum(min(layer.current, layer.total) for layer in layers)
        parts.append(f"{here // _MEBIBYTE} of {max(1, round(total / _MEBIBYTE))} MiB")
    if any(layer.status == _RETRYING for layer in layers):
        parts.append("its registry failed, trying again")
    return ", ".join(parts)


def _said(progress: PullProgress, what: str) -> PullProgress:
    return progress if what == progress.said else replace(progress, said=what)


def _layer(before: Layer, status: str, detail: object) -> Layer:
    if status.startswith(_RETRYING):
        return Layer(_RETRYING, total=before.total)
    current, total = _numbers(detail)
    if status == _DOWNLOADING:
        return Layer(status, current=current, total=total or before.total, detail=current)
    if status in _DOWNLOADED:
        return Layer(status, current=before.total, total=before.total, detail=current)
    return Layer(status, before.current, before.total, current)


def _numbers(detail: object) -> tuple[int, int]:
    if not isinstance(detail, dict):
        return 0, 0
    return _number(detail.get("current")), _number(detail.get("total"))


def _number(value: Any) -> int:
    known = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if known else 0
