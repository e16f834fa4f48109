"""A new policy: the text of ``home.yaml`` with the answers of the operator.

The comments of the template stay, so the file explains each of its lines. Only values change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from controller.core.policy.load import load_policy
from controller.model.names import DEFAULT_NAMESPACE
from controller.model.policy.values import AnonymousVolumes

Publish = Literal["asked", "all", "loopback"]

#: The allowed addresses of published ports; the first is the default.
ADDRESSES: dict[Publish, tuple[str, ...]] = {
    "asked": ("127.0.0.1", "::1", "0.0.0.0", "::"),  # noqa: S104 - what the policy admits
    "all": ("0.0.0.0", "::", "127.0.0.1", "::1"),  # noqa: S104 - likewise
    "loopback": ("127.0.0.1", "::1"),
}
#: The public registries of ``home``.
REGISTRIES = (
    "docker.io/",
    "ghcr.io/",
    "quay.io/",
    "lscr.io/",
    "gcr.io/",
    "registry.k8s.io/",
    "mcr.microsoft.com/",
    "docker.elastic.co/",
    "public.ecr.aws/",
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*|[0-9]+(\.[0-9]+){3}", re.ASCII)
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?P<comment>#.*)?")
_COMMENT_COLUMN = 34


@dataclass(frozen=True, slots=True)
class TemplateAnswers:
    """The answers of the operator."""

    name: str = "own"
    images: tuple[str, ...] = REGISTRIES
    publish: Publish = "asked"
    low_ports: tuple[int, ...] = (80, 443)
    owners: tuple[tuple[str, tuple[str, ...]], ...] = ()  # with namespaces; empty admits any owner
    clients: tuple[tuple[int, str], ...] = ()  # uids with their owners
    anonymous_volumes: AnonymousVolumes = "slot"


def policy_text(template: str, answers: TemplateAnswers, *, file: str) -> str:
    """Return the text of a new policy.

    Args:
        template: the text of ``home.yaml``.
        file: the name of the new file.

    Raises:
        PolicyInvalid: an answer is not valid in a policy.
    """
    owners = [
        f"{{name: {_yaml_word(name)}, namespaces: {_yaml_list(namespaces or (DEFAULT_NAMESPACE,))}}}"
        for name, namespaces in answers.owners
    ]
    clients = [f"{{uid: {uid}, owner: {_yaml_word(owner)}}}" for uid, owner in answers.clients]
    body = template[template.index("\nname: ") + 1 :]
    for key, value in (
        ("name", _yaml_word(answers.name)),
        ("images.allow", [_yaml_word(prefix) for prefix in answers.images]),
        ("images.anonymousVolumes", answers.anonymous_volumes),
        ("networks.ports.hostIPs", _yaml_list(ADDRESSES[answers.publish])),
        ("networks.ports.minHost", "1024"),
        ("networks.ports.granted", _yaml_list(answers.low_ports)),
        ("owners", owners or "null"),
        ("clients", clients or "[]"),
    ):
        body = _replace_value(body, key, value)
    text = _head(file) + body
    load_policy(text, file)
    return text


def _head(file: str) -> str:
    return f"""\
# The policy of this machine, made by `trimtab policy init`: a copy of `home` with a few answers.
#
# Use it with `trimtab up DIR --policy {file}`.
# After an edit, `trimtab policy reload` puts it in force; a mistake leaves the rules before it.
#
# A key that isn't written here has the value of `strict` (`trimtab policy show --policy strict`),
# but the quotas of volumes, networks and ports are those of `home`.
# No policy can grant privileged containers, host namespaces, devices, the host's sysctls, the engine's socket
# or the broker's folders. Keep this file root's own: whoever can write it decides what may run.
"""


def _replace_value(text: str, path: str, value: str | list[str]) -> str:
    """Return the text of a policy with another value of an existing key."""
    lines = text.splitlines()
    index = _line_of(lines, path.split("."))
    match = _KEY.fullmatch(lines[index])
    assert match is not None, f"{path} is written in a way that can't be replaced"
    indent, key, comment = match["indent"], match["key"], match["comment"]
    end = index + 1
    while end < len(lines) and lines[end].startswith(f"{indent}  - "):
        end += 1
    items = value if isinstance(value, list) else []
    head = f"{indent}{key}:" if items else f"{indent}{key}: {value}"
    if comment:
        head = f"{head.ljust(_COMMENT_COLUMN - 1)} {comment}"
    new = [head, *(f"{indent}  - {item}" for item in items)]
    return "\n".join([*lines[:index], *new, *lines[end:]]) + "\n"


def _line_of(lines: list[str], path: list[str]) -> int:
    """Return the index of the line of a key in block style."""
    start = 0
    for depth, part in enumerate(path):
        wanted = f"{'  ' * depth}{part}:"
        start = next(n for n in range(start, len(lines)) if lines[n].startswith(wanted))
    return start


def _yaml_word(value: str | int) -> str:
    """Return a value as YAML, in quotes if it could be read as a number or a boolean."""
    if isinstance(value, int):
        return str(value)
    plain = _PLAIN.fullmatch(value) and value.lower() not in ("true", "false", "null")
    return value if plain else json.dumps(value)


def _yaml_list(values: Iterable[str | int]) -> str:
    return f"[{', '.join(_yaml_word(value) for value in values)}]"
