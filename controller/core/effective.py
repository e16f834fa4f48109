"""The effective request: what the engine and its runtime make of a create and the image's config.

The user of a container, in numbers, as the engine's runtime reads it (libcontainer, ``user.go``).

A name means what the image's ``/etc/passwd`` and ``/etc/group`` say, so the image chooses the numbers,
and every further group. A pair of numbers means itself, without further groups.

The labels that only the gate writes, and those of an image that containers keep.

The effective request: a create completed from the image's config, as the engine completes it.

The engine merges the config after the gate has judged (moby, ``daemon/commit.go``, ``merge``). The gate
merges first, so that every rule judges what will run, and writes the result into the body: then there is
nothing left to merge.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.core.encoding.json_values import fold, mapping_member
from controller.core.encoding.text import shorten
from controller.core.engine_api.field_tables import HEALTHCHECK
from controller.core.engine_api.parse import parse_config
from controller.core.engine_api.requests import CreateRequest, Finding, HealthcheckRequest
from controller.model import names
from controller.model.policy.document import Policy

#: The characters of each file that are read.
FILE_MAX = 1024 * 1024
_ROOT = "0"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The texts of an image's ``/etc/passwd`` and ``/etc/group``; '' for a missing file."""

    passwd: str = ""
    group: str = ""


def is_number(text: str) -> bool:
    """Return True for an id in ASCII digits."""
    return text.isascii() and text.isdigit()


def is_named(user: str) -> bool:
    """Return True if only the image's files tell the numbers of a user: ``app``, ``1000:www-data``."""
    name, _, group = user.partition(":")
    return not (name in {"", "root"} or is_number(name)) or not (group == "" or is_number(group))


def in_numbers(user: str, accounts: Accounts | None) -> str:
    """Return a user as ``UID:GID``; '' if its files don't know it, or aren't known.

    A number without a group is in the group of the same number, whatever the image says of it. The
    engine would give it the group of the image's passwd, or root's.
    """
    name, _, group = user.partition(":")
    uid, gid = name, ""
    if name in {"", "root"}:
        uid, gid = _ROOT, _ROOT
    elif is_number(name):
        uid = gid = str(int(name))
    else:
        entry = _entry(accounts.passwd if accounts else "", name)
        uid, gid = (entry[2], entry[3]) if len(entry) > 3 else ("", "")
    if group:
        entry = _entry(accounts.group if accounts and not is_number(group) else "", group)
        gid = str(int(group)) if is_number(group) else entry[2] if len(entry) > 2 else ""
    return f"{uid}:{gid}" if is_number(uid) and is_number(gid) else ""


def _entry(text: str, name: str) -> list[str]:
    """Return the fields of the first line for a name, () for none."""
    return next((fields for fields in _lines(text) if fields[0] == name), [])


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        yield [field.strip() for field in line.split(":")]


RESERVED = fold(names.PREFIX)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_reserved(key: str) -> bool:
    """Return True if a label's key is reserved for trimtab, in any spelling."""
    folded = fold(key)
    return folded.startswith(RESERVED) or folded == RESERVED.removesuffix(".")


def inherits_label(key: str, value: str, policy: Policy) -> bool:
    """Return True if containers keep a label of their image.

    Others become empty: those that the gate writes, that grant rights in other tools, and that could
    forge a line of a log.
    """
    denied = tuple(fold(prefix) for prefix in policy.labels.denied_prefixes)
    if is_reserved(key) or fold(key).startswith(denied):
        return False
    return CONTROL.search(value) is None


#: The member of a health check for each attribute of ``HealthcheckRequest``.
_CHECK = {entry.attribute: entry.name for entry in HEALTHCHECK if entry.attribute is not None}
_PATH_MAX = 96


@dataclass(frozen=True, slots=True)
class EffectiveRequest:
    """A create with what its container inherits from the image."""

    request: CreateRequest
    #: The paths of the inherited members, as findings name them.
    inherited: frozenset[str] = frozenset()
    #: The labels of the image that the container has as ''.
    blanked: frozenset[str] = frozenset()


def needs_numbers(policy: Policy) -> bool:
    """Return True if the policy bounds a container's groups, so that the image can't choose them."""
    return policy.security.require_non_root or not policy.security.group_add


def needs_accounts(asked: CreateRequest, config: Mapping[str, Any], policy: Policy) -> bool:
    """Return True if the container's user has a name whose numbers the policy needs."""
    return needs_numbers(policy) and is_named(asked.user or str(config.get("User") or ""))


def effective(
    asked: CreateRequest,
    config: Mapping[str, Any],
    policy: Policy,
    *,
    accounts: Accounts | None = None,
    existing: bool = False,
) -> EffectiveRequest:
    """Return what will run: the request, completed by the image's config.

    The user is written in numbers where the policy bounds groups. An *existing* container keeps its
    user's name, and of its image only user and volumes count: the rest runs already, by an older gate.
    """
    if existing:
        config = {member: config.get(member) for member in ("User", "Volumes")}
    labels = _inherited_labels(asked, config)
    kept = {key: value for key, value in labels.items() if inherits_label(key, str(value), policy)}
    body = _inherited_body(asked, config, kept)
    part = parse_config(body)
    request = replace(
        asked,
        user=asked.user or part.user,
        exposed_ports=_united(asked.exposed_ports, part.exposed_ports),
        env=(*asked.env, *part.env),
        command=asked.command or part.command,
        entrypoint=asked.entrypoint or part.entrypoint,
        healthcheck=_with_check(asked.healthcheck, part.healthcheck),
        volumes=_united(asked.volumes, part.volumes),
        working_dir=asked.working_dir or part.working_dir,
        labels=tuple(sorted({**dict(part.labels), **dict(asked.labels)}.items())),
        stop_signal=asked.stop_signal or part.stop_signal,
        findings=(*asked.findings, *(_of_image(each) for each in part.findings)),
    )
    if needs_numbers(policy) and not existing:
        request = replace(request, user=in_numbers(request.user, accounts) or request.user)
    return EffectiveRequest(
        request, frozenset(_paths(asked, body)), frozenset(labels.keys() - kept.keys())
    )


def named_by_image(findings: Iterable[Finding], inherited: frozenset[str]) -> list[Finding]:
    """Return findings. A finding about an inherited member names the image's config."""
    return [_of_image(each) if each.path in inherited else each for each in findings]


def _of_image(finding: Finding) -> Finding:
    path = f"Image.Config.{shorten(finding.path, _PATH_MAX)}"
    reason = f"{finding.reason}, by the image's config"
    remedy = (
        f"{finding.remedy or 'choose another value'}: what you set yourself overrides the image's"
    )
    return replace(finding, path=path, reason=reason, remedy=remedy)


def _inherited_body(
    asked: CreateRequest, config: Mapping[str, Any], labels: Mapping[str, object]
) -> dict[str, Any]:
    """Return the members of the image's config that the container inherits, as a create's body.

    *labels* are the labels of the image that the container keeps.
    """
    body: dict[str, Any] = {}
    for member, given in (("User", asked.user), ("StopSignal", asked.stop_signal)):
        if not given:
            body[member] = config.get(member)
    if (folder := config.get("WorkingDir")) and not asked.working_dir:
        body["WorkingDir"] = posixpath.normpath(folder) if isinstance(folder, str) else folder
    if isinstance(signal := body.get("StopSignal"), str):
        body["StopSignal"] = signal.upper()
    # The ports of a container that shares a network are its target's: the engine refuses others.
    if not asked.shares.network:
        ports, known = mapping_member(config, "ExposedPorts"), {*asked.exposed_ports}
        body["ExposedPorts"] = {port: {} for port in ports if _with_protocol(port) not in known}
    paths, own_paths = map(_normal, mapping_member(config, "Volumes")), {*asked.volumes}
    body["Volumes"] = {path: {} for path in paths if path not in own_paths}
    body["Env"] = _inherited_env(asked, config.get("Env"))
    body["Labels"] = labels
    body |= _inherited_command(asked, config)
    if check := mapping_member(config, "Healthcheck"):
        own = asked.healthcheck or HealthcheckRequest()
        body["Healthcheck"] = {
            member: check[member]
            for attribute, member in _CHECK.items()
            if check.get(member) and not getattr(own, attribute)
        }
    return {member: value for member, value in body.items() if value}


def _inherited_labels(asked: CreateRequest, config: Mapping[str, Any]) -> dict[str, object]:
    """Return the labels of the image that the request doesn't set."""
    own = dict(asked.labels)
    labels = mapping_member(config, "Labels")
    return {key: value for key, value in labels.items() if key not in own}


def _inherited_env(asked: CreateRequest, listed: object) -> object:
    """Return the image's variables that the request neither sets nor unsets."""
    if not isinstance(listed, list):
        return listed
    own = {entry.partition("=")[0] for entry in asked.env} | {each.name for each in asked.variables}
    return [entry for entry in listed if str(entry).partition("=")[0] not in own]


def _inherited_command(asked: CreateRequest, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return entrypoint and arguments. A request's entrypoint drops the image's arguments, too."""
    if asked.entrypoint:
        return {}
    body = {"Entrypoint": config.get("Entrypoint")}
    return body if asked.command else {**body, "Cmd": config.get("Cmd")}


def _with_check(
    asked: HealthcheckRequest | None, image: HealthcheckRequest | None
) -> HealthcheckRequest | None:
    if asked is None or image is None:
        return asked or image
    return HealthcheckRequest(
        **{name: getattr(asked, name) or getattr(image, name) for name in _CHECK}
    )


def _paths(asked: CreateRequest, body: Mapping[str, Any]) -> Iterable[str]:
    """Yield the paths of inherited members."""
    for member, value in body.items():
        match member:
            case "Env":
                first = len(asked.env)
                yield from (f"Env[{first + index}]" for index in range(len(value)))
            case "Healthcheck" | "Volumes" | "ExposedPorts":
                yield from (f"{member}.{name}" for name in value)
            case "Labels":
                yield from (f"Labels.{key}" for key in value)
            case _:
                yield member


def _united(asked: tuple[str, ...], image: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*asked, *image}))


def _with_protocol(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"


def _normal(path: str) -> str:
    """Return a path of an image's VOLUME as the engine takes it."""
    return posixpath.normpath(path) if path.startswith("/") else path
