"""Why a pull failed, as a person understands it: from what the engine says of it.

The engine passes on whatever a registry, a proxy or the network told it, as text. The first row
whose pattern is found in that text, the image's own name aside, says what it is, who acts next and
what to do. The patterns were seen on a real engine (Docker 26.1), but for those marked [docs].
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
#: What the broker says of a pull that it gave up.
NO_PROGRESS = "made no progress"


@dataclass(frozen=True, slots=True)
class Access:
    """Which registries the broker has credentials for, and from which file. Nothing secret."""

    file: str = ""
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PullFailure:
    """What a failed pull is: a code, who acts next, the reason and what would help."""

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
    # Before all else: a full disk is told in the middle of whatever was written.
    _kind(
        DISK,
        Act.STALLED,
        "there is no space for it on the engine's disk",
        "free space where the engine keeps its data (docker info tells the folder)",
        "no space left on device",
        "disk quota exceeded",
    ),
    # Registries word their limit as a refusal, too.
    _kind(
        RATE_LIMITED,
        Act.RETRY,
        "its registry limits how often it may be asked",
        "wait, or pull with an account that may more",
        "toomanyrequests",
        "too many requests",
        r"\brate limit",
    ),
    # "pull access denied" is also said of a repository that isn't there: only its registry knows.
    _kind(
        DENIED,
        Act.STALLED,
        "its registry refuses it to these credentials",
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
        "what its registry sends can't be used",
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


def explain(reference: str, text: str, *, access: Access = Access()) -> PullFailure:
    """Return what *text*, the engine's word on a failed pull of *reference* (canonical), means."""
    kind = _kind_of(reference, text)
    host = parse_reference(reference).host
    remedy = kind.remedy.format(host=host)
    if kind.code == DENIED:
        remedy = _credentials(host, access)
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
        return f"look whether the credentials for {host} in {access.file} are right and still valid"
    if access.file:
        return f"add credentials for {host} to {access.file}, or correct the image's name"
    return f"give the broker credentials for {host} (--registry-auth), or correct the image's name"
