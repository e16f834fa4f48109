"""Typed views of the parts of a record, for readers.

The parts of an ``Entry`` are JSON objects. A view names each member once, with its type, so that
the type checker finds a misspelt member. Example: ``RequestPart(entry.request).summary.image_id``.

A view copies nothing. A missing member, or a value of another type, reads as empty: older brokers
wrote fewer members. Golden files (``tests/golden/records``) hold every form of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.core.encoding.json_members import (
    list_of,
    mapping_member,
    mapping_of,
    text_member,
    texts_of,
)
from controller.core.records.inventory_json import settings_from_json
from controller.core.rules.confinement import confinement_from_json
from controller.model.confinement import Confinement
from controller.model.observed import Settings


@dataclass(frozen=True, slots=True)
class ActorPart:
    """The member ``actor``: the peer of the request."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """The role; '' if absent."""
        return text_member(self.members, "role")

    @property
    def uid(self) -> int | None:
        """The user; None if absent."""
        uid = self.members.get("uid")
        return uid if isinstance(uid, int) else None


@dataclass(frozen=True, slots=True)
class VerdictPart:
    """The member ``verdict``: the decision of admission."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def decision(self) -> str:
        """Allow, mutate or deny; '' if absent."""
        return text_member(self.members, "decision")

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the rules, the deciding one first."""
        return texts_of(self.members.get("rules"))

    @property
    def reason(self) -> str:
        """The reason of a denial."""
        return text_member(self.members, "reason")

    @property
    def policy(self) -> str:
        """The digest of the policy."""
        return text_member(self.members, "policy")


@dataclass(frozen=True, slots=True)
class ClaimsPart:
    """The member ``claims``: the controller's reasons, which prove nothing else."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cause(self) -> str:
        """The reason of the change."""
        return text_member(self.members, "cause")

    def line(self, path: str) -> int:
        """Return the line of a field (path under ``spec``), else the document's first line."""
        lines = mapping_member(self._source, "lines")
        line = lines.get(path, self._source.get("line", 0))
        return line if isinstance(line, int) else 0

    @property
    def _source(self) -> Mapping[str, Any]:
        return mapping_member(self.members, "source")


@dataclass(frozen=True, slots=True)
class MountPart:
    """An item of ``mounts`` in the summary of a create."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """One of bind, volume and tmpfs."""
        return text_member(self.members, "type")

    @property
    def source(self) -> str:
        """The host path, or the volume; '' for tmpfs."""
        return text_member(self.members, "source")

    @property
    def target(self) -> str:
        """The path in the container."""
        return text_member(self.members, "target")

    @property
    def read_only(self) -> bool:
        """True for a read-only mount."""
        return bool(self.members.get("readOnly"))

    @property
    def rule(self) -> str:
        """The policy rule that added the mount; '' if the request named it."""
        return text_member(self.members, "rule")


@dataclass(frozen=True, slots=True)
class SummaryPart:
    """The member ``request.summary``: facts for recovery, the inventory and queries, by route."""

    members: Mapping[str, Any] = field(default_factory=dict)

    # Of every object.

    @property
    def name(self) -> str:
        """The name of the object; the new name in a rename."""
        return text_member(self.members, "name")

    @property
    def namespace(self) -> str:
        """The namespace, in records without labels."""
        return text_member(self.members, "namespace")

    @property
    def service(self) -> str:
        """The service, in records without labels."""
        return text_member(self.members, "service")

    @property
    def owner(self) -> str:
        """The owner, in records without labels."""
        return text_member(self.members, "owner")

    def label(self, name: str) -> str:
        """Return a label that the broker wrote onto the object; '' if absent."""
        return text_member(mapping_member(self.members, "labels"), name)

    # Of creates, adoptions and updates.

    @property
    def kind(self) -> str:
        """The kind of an adopted object: container, network or volume."""
        return text_member(self.members, "kind")

    @property
    def image(self) -> str:
        """The reference of the image."""
        return text_member(self.members, "image")

    @property
    def image_id(self) -> str:
        """The id of the image."""
        return text_member(self.members, "imageId")

    @property
    def digest(self) -> str:
        """The digest of the image in its registry; '' if local."""
        return text_member(self.members, "digest")

    @property
    def settings(self) -> Settings:
        """The admitted settings of the container."""
        return settings_from_json(mapping_member(self.members, "settings"))

    @property
    def updated_members(self) -> tuple[str, ...]:
        """The members of an update's body; () in records of older brokers."""
        return texts_of(self.members.get("fields"))

    @property
    def aliases(self) -> tuple[str, ...]:
        """The container's DNS names; in a connect, the added ones."""
        return texts_of(self.members.get("answersTo"))

    @property
    def confinement(self) -> Confinement | None:
        """The confinement that the kernel must show; None in records of older brokers."""
        return confinement_from_json(self.members.get("confined"))

    @property
    def has_read_only_root(self) -> bool | None:
        """True for a read-only root file system; None without a confinement."""
        confined = self.members.get("confined")
        return bool(confined.get("read_only_root")) if isinstance(confined, Mapping) else None

    @property
    def mounts(self) -> tuple[MountPart, ...]:
        """The mounts of the container."""
        return tuple(MountPart(mapping_of(each)) for each in list_of(self.members.get("mounts")))

    @property
    def ports(self) -> tuple[str, ...]:
        """The published ports, as ADDRESS:PORT:PORT/PROTOCOL."""
        return texts_of(self.members.get("ports"))

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The added capabilities."""
        return texts_of(self.members.get("caps"))

    @property
    def environment(self) -> tuple[str, ...]:
        """The names of the environment variables."""
        return texts_of(self.members.get("env"))

    @property
    def healthcheck(self) -> tuple[str, ...]:
        """The command of the health check."""
        return texts_of(self.members.get("healthcheck"))

    @property
    def exceptions(self) -> tuple[str, ...]:
        """The policy exceptions used by the container."""
        return texts_of(self.members.get("exceptions"))

    @property
    def started(self) -> bool:
        """True if an adopted container was started before."""
        return bool(self.members.get("started"))

    @property
    def effective(self) -> str:
        """The verification result of an adopted, running container."""
        return text_member(self.members, "effective")

    # Of other mutations.

    @property
    def network(self) -> str:
        """The network of a connect or disconnect."""
        return text_member(self.members, "network")

    @property
    def signal(self) -> str:
        """The signal of a kill."""
        return text_member(self.members, "signal")

    @property
    def takes_down(self) -> str:
        """What a mutation of the controller takes down: slot, service, or ''."""
        return text_member(self.members, "takesDown")

    @property
    def exec(self) -> str:
        """The id of the exec session."""
        return text_member(self.members, "exec")

    # Of operators' acts.

    @property
    def act(self) -> str:
        """The name of the act."""
        return text_member(self.members, "act")

    @property
    def plan(self) -> str:
        """The digest of the approved plan."""
        return text_member(self.members, "plan")

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects that an approval covers."""
        return texts_of(self.members.get("objects"))

    @property
    def revision(self) -> str:
        """The revision of a service."""
        return text_member(self.members, "revision")

    @property
    def resolves_image(self) -> bool:
        """True if a restart resolves the image of the revision again."""
        return self.members.get("anew") is True

    @property
    def trusted_image(self) -> TrustedImagePart:
        """The image that an operator trusts."""
        return TrustedImagePart(self.members)


@dataclass(frozen=True, slots=True)
class TrustedImagePart:
    """A trusted image: in the summary of a trust record, and in the result of a pull."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The reference of the image."""
        return text_member(self.members, "reference")

    @property
    def id(self) -> str:
        """The id of the image."""
        return text_member(self.members, "id")

    @property
    def digest(self) -> str:
        """The digest of the image; '' if local."""
        return text_member(self.members, "digest")


@dataclass(frozen=True, slots=True)
class RequestPart:
    """The member ``request``: the operation and its object."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def route(self) -> str:
        """The name of the route, such as ``container.create``."""
        return text_member(self.members, "route")

    @property
    def method(self) -> str:
        """The HTTP method."""
        return text_member(self.members, "method")

    @property
    def object(self) -> str:
        """The id of the object; in a create its name."""
        return text_member(self.members, "object")

    @property
    def summary(self) -> SummaryPart:
        """The facts about the request."""
        return SummaryPart(mapping_member(self.members, "summary"))


@dataclass(frozen=True, slots=True)
class ResultPart:
    """The member ``result``: the effect of a request."""

    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        """The engine's HTTP status; None without an answer."""
        status = self.members.get("status")
        return status if isinstance(status, int) else None

    @property
    def settled(self) -> str:
        """The conclusion of a recovery: applied, not-applied or unknown."""
        return text_member(self.members, "settled")

    @property
    def error(self) -> str:
        """The error of the engine or the broker; '' without an error."""
        return text_member(self.members, "error")

    @property
    def container(self) -> str:
        """The id of a created container."""
        return text_member(self.members, "container")

    @property
    def object(self) -> str:
        """The id of a created network or volume."""
        return text_member(self.members, "object")

    @property
    def effective(self) -> str:
        """The verification result of a start."""
        return text_member(self.members, "effective")

    @property
    def differences(self) -> tuple[str, ...]:
        """The differences that a violation found."""
        return texts_of(self.members.get("found"))

    @property
    def is_put_back(self) -> bool:
        """True if the broker undid a violation."""
        return self.members.get("putBack") is True

    @property
    def untagged(self) -> tuple[str, ...]:
        """The references that the removal of an image removed."""
        return texts_of(self.members.get("untagged"))

    @property
    def deleted(self) -> tuple[str, ...]:
        """The images that the removal of an image deleted."""
        return texts_of(self.members.get("deleted"))

    @property
    def trusted_image(self) -> TrustedImagePart:
        """The pulled image."""
        return TrustedImagePart(self.members)
