"""Identifiers: image references in canonical form, and the time in a UUIDv7.

Image references by the grammar of distribution/reference, in canonical form.

Two references have the same name only if host and path are the same text. Hosts are not guessed,
case-folded or resolved. Prefixes match whole components: ``ghcr.io/platformnetwork/`` covers
neither ``ghcr.io/platformnetworkevil/x`` nor ``ghcr.io.evil.com/platformnetwork/x``.
Source: https://github.com/distribution/reference (regexp.go, normalize.go).

The time in a UUIDv7, such as the id of an intent (RFC 9562, section 5.7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

NAME_MAX = 255

_HOST = re.compile(
    r"(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])(?:\.(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]))*"
    r"(?::[0-9]{1,5})?",
    re.ASCII,
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
#: The text up to the last @ without a digest after it. The @ can be URL-escaped several times.
_CREDENTIALS = re.compile(
    r".*(?:@|%(?:25)*40)(?!sha[0-9]+(?::|%(?:25)*3a))", re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A complete image reference: always with a tag or a digest."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """``HOST/PATH``."""
        return f"{self.host}/{self.path}"

    @property
    def canonical(self) -> str:
        """``HOST/PATH[:TAG][@DIGEST]``."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def is_image_id(text: str) -> bool:
    """Return True if *text* is the full id of an image (``sha256:`` and 64 hex digits)."""
    return _DIGEST.fullmatch(text) is not None


def without_credentials(text: str) -> str:
    """Return *text*, an invalid reference or a path with one, without credentials.

    Some users write ``USER:PASSWORD@`` before the host, as in a URL. No valid reference has a user,
    so all text before such an ``@`` is cut from the journal, problems and responses.
    """
    match = _CREDENTIALS.match(text)
    return f"…@{text[match.end() :]}" if match else text


#: A new service has its image's reference parsed 40 times, by rules, looks and previews. A reference
#: has fewer than 500 characters; a text that is no reference is not kept.
_REFERENCES_KEPT = 256


@lru_cache(_REFERENCES_KEPT)
def parse_reference(text: str) -> Reference:
    """Return the canonical form of a reference.

    Raises:
        ValueError: *text* is not a reference, or the engine could take it for an id. The message
            repeats the text without credentials.
    """
    if not text:
        raise ValueError("no image is named")
    shown = without_credentials(text)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{shown!r} has characters that no image reference has")
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{shown!r}: after @ comes sha256: and 64 lower-case hex digits")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{shown!r} has no valid tag")
    if not slash and _is_possible_id(last, tag):
        raise ValueError(f"{shown!r} could be the id of an image: name the image in full")
    host, path = _split(f"{head}{slash}{last}", shown)
    return Reference(host, path, tag or ("" if digest else "latest"), digest)


def repository_of(text: str) -> str | None:
    """Return ``HOST/PATH`` of a reference, or None if *text* is not a reference."""
    try:
        return parse_reference(text).repository
    except ValueError:
        return None


def matches(reference: Reference, prefixes: Iterable[str]) -> bool:
    """Return True if one of the prefixes covers the reference.

    A prefix with a final / covers all repositories below it; any other prefix is one repository.
    """
    return any(
        reference.repository.startswith(prefix)
        if prefix.endswith("/")
        else reference.repository == prefix
        for prefix in prefixes
    )


def _is_possible_id(name: str, tag: str) -> bool:
    # The engine first takes a bare word of hex digits for the start of an id, then for a name.
    return name in {"sha256", "scratch"} or (not tag and _HEX.fullmatch(name) is not None)


def _split(name: str, shown: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    has_host = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    host, path = (first, rest) if has_host else ("docker.io", name)
    host = "docker.io" if host == "index.docker.io" else host
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if not _HOST.fullmatch(host):
        host = without_credentials(host)
        raise ValueError(f"{shown!r}: {host!r} is no registry's host in lower case")
    if not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        path = without_credentials(path)
        raise ValueError(f"{shown!r}: {path!r} is no path of an image (lower case, no . or ..)")
    if len(host) + 1 + len(path) > NAME_MAX:
        raise ValueError(f"the name of the image is longer than {NAME_MAX} characters")
    return host, path


_UUID7 = re.compile(
    r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)


def timestamp_s(identifier: str) -> float | None:
    """Return the time of a UUIDv7 in seconds since the epoch; None for any other text."""
    match = _UUID7.fullmatch(identifier)
    return int(match[1] + match[2], 16) / 1000 if match else None
