"""The reload of settings, by SIGHUP or a request: read and checked as a whole, then in force as far as live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.broker.gate import redact
from controller.broker.gate.commands import (
    ReadSettings,
    SettingsFound,
    SettingsRefused,
    UseSettings,
)
from controller.broker.gate.state import HealthState
from controller.broker.host.registry_auth import Credentials
from controller.model.errors import TrimtabError
from controller.model.policy.document import Policy
from controller.model.settings import (
    REGISTRY_AUTH,
    InForce,
    InstanceSettings,
    Process,
    changed_keys,
)

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """The file of settings, for the broker. Each function blocks."""

    #: What the broker started with.
    started: InForce
    #: Reads the file. Raises SettingsInvalid, or StateError for another directory.
    read: Callable[[], InForce]
    policy_file: Callable[[InstanceSettings], Path]
    #: Reads the policy that the settings name. Raises PolicyInvalid.
    load_policy: Callable[[InstanceSettings], Policy]
    #: Tells the other processes. Raises StateError.
    publish: Callable[[InForce], None]


@dataclass(frozen=True, slots=True)
class UsableSettings(SettingsFound):
    """Settings of the file, with the policy and the credentials that the settings name."""

    policy_file: Path
    #: Of another file than before; None: those in use stay.
    credentials: Credentials | None

    @property
    def registry_auth(self) -> Path:
        """The file of registry credentials."""
        return Path(self.in_force.settings.registry_auth or REGISTRY_AUTH)


class SettingsReload:
    """Reads the settings again, and hands those that were read last to *use*."""

    def __init__(
        self,
        source: SettingsSource | None,
        health: HealthState,
        use: Callable[[UsableSettings], None],
        *,
        own_uid: int,
    ) -> None:
        self._source = source
        self._health = health
        self._use = use
        self._own_uid = own_uid
        self._current = InForce() if source is None else source.started
        self._last: UsableSettings | None = None
        health.settings_digest = self._current.digest

    async def execute(
        self, command: ReadSettings | UseSettings
    ) -> SettingsFound | SettingsRefused | None:
        """Execute a command of the gate."""
        if isinstance(command, ReadSettings):
            return await self.read()
        return await self.use(command.found)

    async def read(self) -> SettingsFound | SettingsRefused:
        """Return the settings of the file, or why they aren't used: one mistake refuses them all."""
        source = self._source
        if source is None:
            return SettingsRefused("settings.invalid", "this broker has no file of settings", "")
        try:
            found = await asyncio.to_thread(self._read, source)
        except TrimtabError as error:
            message = redact.lines(error.message)
            self._health.settings_error = message
            LOG.error("%s error=%s: the last good ones stay", error.code, message)  # noqa: TRY400
            return SettingsRefused(error.code, message, error.remedy)
        self._last = found
        return found

    def _read(self, source: SettingsSource) -> UsableSettings:
        in_force = source.read()
        settings = in_force.settings
        policy = source.load_policy(settings)
        current = self._current.settings
        credentials = None
        if settings.registry_auth != current.registry_auth:
            credentials = Credentials(
                Path(settings.registry_auth or REGISTRY_AUTH),
                required=bool(settings.registry_auth),
                own_uid=self._own_uid,
            )
            credentials.load()
        file = source.policy_file(settings)
        return UsableSettings(in_force, changed_keys(current, settings), policy, file, credentials)

    async def use(self, found: SettingsFound) -> SettingsRefused | None:
        """Put settings in force. Return why not: others were read meanwhile, or the disk is full."""
        source, last = self._source, self._last
        if source is None or last is None or found is not last:
            return SettingsRefused("settings.changed", "another reload came first", "try again")
        try:
            if found.in_force != self._current:
                await asyncio.to_thread(source.publish, found.in_force)
        except TrimtabError as error:
            return SettingsRefused(error.code, error.message, error.remedy)
        self._current = found.in_force
        waiting = changed_keys(source.started.settings, found.in_force.settings)
        self._health.settings_digest, self._health.settings_error = found.in_force.digest, ""
        self._health.settings_waiting = tuple(
            key.name for key in waiting if Process.BROKER in key.processes and not key.live
        )
        self._use(last)
        LOG.info("settings.loaded digest=%s", found.in_force.digest)
        return None
