"""Secrets of the tests: opened as the decryption worker opens them, with files of the host in memory."""

from __future__ import annotations

from dataclasses import replace

from controller.broker.gate.commands import (
    Open,
    OpenSecret,
    ReadSecret,
    SecretNotOpened,
    SecretOpened,
    SecretValue,
)
from controller.core.secrets.declared import (
    AgeSource,
    HostFileSource,
    OpenRequest,
    SecretFiles,
    SopsSource,
    content_id,
    encode_declared,
)
from controller.core.secrets.sops import open_source
from controller.model.errors import SecretError
from tests.unit.core.secrets.oracle import Keys

SHOP = Keys()
_HASH_KEY = b"h" * 32


class Opener:
    """The broker's opener. Keeps plain text for the test alone."""

    def __init__(self) -> None:
        #: The files of the host.
        self.host = {"pw": b"of the host"}
        self._opened: dict[str, SecretFiles] = {}

    def read(self, command: ReadSecret) -> SecretValue | str:
        files = self._opened.get(command.content, {})
        return SecretValue(files[command.key]) if command.key in files else "it isn't stored"

    def open(self, command: OpenSecret) -> SecretOpened | SecretNotOpened:
        try:
            files = self._files(command)
        except SecretError as error:
            return SecretNotOpened(error.code, error.message, error.remedy)
        content = content_id(files, bound=command.bound, key=_HASH_KEY)
        self._opened[content] = files
        stored = encode_declared(command.source, command.bound.owner)
        return SecretOpened(content, tuple(sorted(files)), stored, content not in command.known)

    def _files(self, command: OpenSecret) -> SecretFiles:
        match command.source:
            case SopsSource() | AgeSource() as source:
                return open_source(OpenRequest(source, SHOP.private, "shop.age"))
            case HostFileSource(files=names):
                if missing := set(names.values()) - self.host.keys():
                    raise SecretError("secret.file", f"{min(missing)} isn't there")
                return {key: self.host[name] for key, name in names.items()}
            case source:
                return {key: b"x" * length for key, length in source.lengths.items()}


def new_once(opening: Open) -> Open:
    """Return an opener to which a content is new only once, as to the broker's own one."""
    seen = set[str]()

    def opened(command: OpenSecret) -> SecretOpened | SecretNotOpened:
        result = opening(command)
        if isinstance(result, SecretOpened):
            result = replace(result, is_new=result.content not in seen)
            seen.add(result.content)
        return result

    return opened


def armored(plain: bytes, keys: Keys = SHOP) -> str:
    """Return a new ciphertext, as one line of a YAML document."""
    text = keys.sealed(plain).replace("\n", "\\n")
    return f'"{text}"'
