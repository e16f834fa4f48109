"""Tokens of readers: random texts with a name, a scope and an end, in a file of their digests.

A token has 256 random bits, so a plain SHA-256 digest can't be reversed by guesses.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from controller.model.errors import StateError, UsageError, error_reason
from controller.system.durable_files import write_atomic

TOKENS_MAX: Final = 256
_FORMAT: Final = 1
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_LOGS: Final = "view+logs:"


@dataclass(frozen=True, slots=True)
class TokenScope:
    """What the holder of a token reads."""

    has_view: bool = False
    has_metrics: bool = False
    #: The owners whose containers' output is shown.
    logs: frozenset[str] = frozenset()


def read_scope(text: str) -> TokenScope:
    """Read ``view``, ``view+logs:OWNER[,OWNER]`` or ``metrics``.

    Raises:
        UsageError: it is none of them.
    """
    if text == "view":
        return TokenScope(has_view=True)
    if text == "metrics":
        return TokenScope(has_metrics=True)
    owners = text.removeprefix(_LOGS).split(",") if text.startswith(_LOGS) else []
    if not owners or not all(map(_NAME.fullmatch, owners)):
        raise UsageError(
            "web.scope",
            f"{text!r} is no scope of a token",
            remedy="write view, view+logs:OWNER[,OWNER] or metrics",
        )
    return TokenScope(has_view=True, logs=frozenset(owners))


@dataclass(frozen=True, slots=True)
class WebToken:
    """A token in the file. *expires* is Unix time."""

    name: str
    digest: str
    scope: str
    expires: int


def digest_of(secret: str) -> str:
    """Return the SHA-256 digest of a secret, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenFile:
    """The file of tokens. Its writer is root, or the owner of the state folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int], tuple[WebToken, ...]] | None = None

    def tokens(self) -> tuple[WebToken, ...]:
        """Return all tokens, in the order in which they were added; reads a changed file again.

        Raises:
            StateError: the file can't be read, or is damaged.
        """
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns)
            if self._read is None or self._read[0] != version:
                members = json.loads(self._path.read_text())
                if members["format"] != _FORMAT:
                    raise ValueError("another format")  # noqa: TRY301 - as other damage
                self._read = version, tuple(WebToken(**each) for each in members["tokens"])
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = error_reason(error) if isinstance(error, OSError) else str(error)
            raise StateError(
                "web.tokens",
                f"{self._path} can't be read as tokens: {reason}",
                remedy="run as root; if the file is damaged, remove it and add the tokens again",
            ) from error
        return self._read[1]

    def find(self, digest: str, now: float) -> WebToken | None:
        """Return the token with a digest; None if there is none, or if it has expired."""
        return next((t for t in self.tokens() if t.digest == digest and now < t.expires), None)

    def add(self, token: WebToken) -> None:
        """Add a token.

        Raises:
            UsageError: the name is taken or malformed, or the scope is none.
            StateError: there are ``TOKENS_MAX``, or the file can't be written.
        """
        read_scope(token.scope)
        if _NAME.fullmatch(token.name) is None:
            raise UsageError(
                "web.name",
                f"{token.name!r} is no name of a token",
                remedy="write a name such as ann-laptop",
            )
        tokens = self.tokens()
        if any(each.name == token.name for each in tokens):
            raise UsageError(
                "web.name",
                f"there is a token {token.name}",
                remedy=f"choose another name, or 'trimtab web token revoke {token.name}' first",
            )
        if len(tokens) >= TOKENS_MAX:
            raise StateError(
                "web.tokens-full",
                f"there are {TOKENS_MAX} tokens",
                remedy="revoke some: 'trimtab web token list'",
            )
        self._write((*tokens, token))

    def revoke(self, name: str) -> None:
        """Remove a token. The sessions that it began end.

        Raises:
            UsageError: there is none of that name.
            StateError: the file can't be written.
        """
        tokens = self.tokens()
        if all(each.name != name for each in tokens):
            raise UsageError(
                "web.name", f"there is no token {name}", remedy="see 'trimtab web token list'"
            )
        self._write(each for each in tokens if each.name != name)

    def _write(self, tokens: Iterable[WebToken]) -> None:
        members = {"format": _FORMAT, "tokens": [asdict(each) for each in tokens]}
        try:
            # The folder of the system's instance gives its group, trimtab-web, to the file.
            self._path.parent.mkdir(mode=0o750, exist_ok=True)
            write_atomic(self._path, f"{json.dumps(members, indent=2)}\n".encode(), mode=0o640)
        except OSError as error:
            raise StateError(
                "web.tokens",
                f"{self._path} can't be written: {error_reason(error)}",
                remedy="run as root, or as the owner of the state folder",
            ) from error
