"""A cache of the broker's policy: parsed again only when its digest changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from controller.model.names import NetworkNames


class ParsedPolicy(Protocol):
    """The members of a parsed policy that the cache reads."""

    @property
    def digest(self) -> str: ...

    @property
    def networks(self) -> NetworkNames: ...


P = TypeVar("P", bound=ParsedPolicy)


class PolicyCache(Generic[P]):
    """The policy in force, as of the last update.

    *parse* makes a policy from the payload of the broker's route ``/trimtab/v1/policy``.
    """

    def __init__(self, parse: Callable[[Mapping[str, Any]], P]) -> None:
        self._parse = parse
        self._policy: P | None = None

    def update(self, payload: Mapping[str, Any]) -> P:
        """Return the policy of *payload*, the cached object if the digest is the same."""
        if self._policy is None or self._policy.digest != payload["digest"]:
            self._policy = self._parse(payload)
        return self._policy

    def networks(self) -> NetworkNames:
        """Return the network names of the policy; the defaults before the first update."""
        return NetworkNames() if self._policy is None else self._policy.networks
