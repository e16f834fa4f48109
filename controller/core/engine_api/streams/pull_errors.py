"""The reason of a failed pull, from the error text of the engine.

The engine forwards the text of a registry, a proxy or the network. The first row with a pattern in
that text decides on the code, the next actor and the remedy. The image's own name in the text is
ignored. The patterns come from a real engine (Docker 26.1), except for those marked [docs].
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from controller.core.encoding.image_reference import parse_reference
from controller.model.errors import Act

NOT_FOUND = "image.notfound"
DENIED = "image.denied"
RATE_LIMITED = "image.rate-limited"
REGISTRY = "image.registry"
DISK = "image.disk"
PLATFORM = "image.other-platform"
DAMAGED = "image.damaged"
OTHER = "image.pull-failed"
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
    _kind(OTHER, Act.RETRY, "the pull failed", "look at the engine's log", ""),
)
#: Who acts next, by code.
ACTS = {kind.code: kind.act for kind in _KINDS}


#: Failures for which a local image of the same name is a way out.
_REMOTE = frozenset({REGISTRY, DENIED, NOT_FOUND, RATE_LIMITED})


def explain(
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


def code_of(reference: str, text: str) -> str:
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
