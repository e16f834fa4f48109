"""Registry credentials, in the form of docker's config.json: which are sent to which registry.

Only what is written in the file counts: helper programs are refused by name, since none runs in
the broker. No message here repeats a value of the file.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.model.errors import CredentialsInvalid

BYTES_MAX = 256 * 1024
DOCKER_HUB = "docker.io"
#: What Docker Hub is called in docker's own files, and to itself.
_HUB_SERVER = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
#: What docker keeps beside, of its own logging in: not for registries.
_HUB_TOKENS = frozenset({"v1/access-token", "v1/refresh-token"})
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?", re.ASCII)
_PATHS = frozenset({"", "v1", "v2"})
_SHAPE = '{"auths": {"REGISTRY": {"auth": …}}}'
_ENTRY = "auth, or username and password, or identitytoken"


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """The values of X-Registry-Auth, by registry. Never shown."""

    _headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def hosts(self) -> frozenset[str]:
        """The registries that there are credentials for."""
        return frozenset(self._headers)

    def header(self, host: str) -> str:
        """Return what is sent with requests about images of a registry; '' for nothing."""
        return self._headers.get(host, "")


def read_auth(text: str, where: str) -> RegistryAuth:
    """Return the credentials in a file's text; *where* is the file, for messages.

    Raises:
        CredentialsInvalid: it isn't of the form, asks for a helper program, or names a registry
            twice.
    """
    told = _object(text, where)
    for helper in ("credsStore", "credHelpers"):
        if told.get(helper):
            raise CredentialsInvalid(
                "registry-auth.helper",
                f"{where}: {helper} asks for a helper program, and none runs in the broker",
                remedy=f"remove {helper}, and write the credentials under auths",
            )
    auths = told.get("auths", {})
    if not isinstance(auths, dict):
        raise _invalid(f"{where}: auths isn't an object", f"write {_SHAPE}")
    headers: dict[str, str] = {}
    for key, entry in auths.items():
        host = _host_of(key, where)
        if host is None:
            continue
        header = _header(host, entry, where)
        if headers.setdefault(host, header) != header:
            raise _invalid(f"{where}: auths names {host} twice, differently", "keep one of them")
    return RegistryAuth(headers)


def _object(text: str, where: str) -> Mapping[str, Any]:
    try:
        told = json.loads(text, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}:{error.colno}"
        raise _invalid(f"{place}: that isn't JSON", "mend it at that place") from None
    except RecursionError:
        raise _invalid(f"{where}: nested too deeply", f"write {_SHAPE}") from None
    except _RepeatedError:
        raise _invalid(f"{where}: a key stands twice", "keep one of them") from None
    if not isinstance(told, dict):
        raise _invalid(f"{where}: it isn't an object", f"write {_SHAPE}")
    return told


class _RepeatedError(Exception):
    """A key stands twice in one object: readers differ about which counts."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise _RepeatedError
    return told


def _host_of(key: str, where: str) -> str | None:
    """Return the registry that a key means, as references name it; None: none.

    As docker reads it: with or without a scheme, and what follows the host is the API's version.
    """
    rest = key.removeprefix("https://").removeprefix("http://")
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    hub = host.lower() in _HUB_HOSTS
    if hub and path in _HUB_TOKENS:
        return None
    if not _HOST.fullmatch(host) or path not in _PATHS:
        raise _invalid(
            f"{where}: a key of auths doesn't name a registry alone",
            "write its host, with the port if it has one (ghcr.io, registry.example:5000)",
        )
    return DOCKER_HUB if hub else host.lower()


def _header(host: str, entry: object, where: str) -> str:
    told = entry if isinstance(entry, dict) else {}
    secrets = {name: told.get(name) for name in ("username", "password", "identitytoken", "auth")}
    texts = {name: value for name, value in secrets.items() if value and isinstance(value, str)}
    if "auth" in texts:
        texts = {**_decoded(texts.pop("auth"), host, where), **texts}
    sent = {"serveraddress": _HUB_SERVER if host == DOCKER_HUB else host}
    if "identitytoken" in texts:
        sent["identitytoken"] = texts["identitytoken"]
    elif {"username", "password"} <= texts.keys():
        sent |= {name: texts[name] for name in ("username", "password")}
    else:
        raise _invalid(f"{where}: there are no credentials for {host}", f"write {_ENTRY}")
    return base64.urlsafe_b64encode(json.dumps(sent).encode()).decode()


def _decoded(auth: str, host: str, where: str) -> dict[str, str]:
    try:
        text = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise _invalid(
            f"{where}: auth of {host} isn't USERNAME:PASSWORD in base64", f"write {_ENTRY}"
        )
    return {"username": username, "password": password.rstrip("\0")}


def _invalid(message: str, remedy: str) -> CredentialsInvalid:
    return CredentialsInvalid("registry-auth.invalid", message, remedy=remedy)
