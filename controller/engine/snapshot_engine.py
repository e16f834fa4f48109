"""The engine as a snapshot shows it: it can be observed, and nothing can be changed."""

from __future__ import annotations

from typing import NoReturn

from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineUnavailable
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context
from controller.ports import ContainerSummary, EngineFacts, Events


class SnapshotEngine:
    """A ``ports.Engine`` that returns one recorded observation."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:  # noqa: ARG002
        """Return the observation; an image that wasn't looked up then counts as missing."""
        return self._observed

    def facts(self) -> EngineFacts:
        _refuse()

    def list_containers(self) -> frozenset[ContainerSummary]:
        _refuse()

    def perform(self, action: AnyAction, context: Context) -> str:  # noqa: ARG002
        _refuse()

    def events(self, *, since_ns: int) -> Events:  # noqa: ARG002
        _refuse()


def _refuse() -> NoReturn:
    raise EngineUnavailable("engine.snapshot", "a snapshot of a host has no engine")
