"""The reload of settings in the broker: what is read as a whole, and what is then in force."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.broker.gate.commands import SettingsFound, SettingsRefused
from controller.broker.gate.state import HealthState
from controller.broker.server.settings_reload import (
    SettingsReload,
    SettingsSource,
    UsableSettings,
)
from controller.model.errors import PolicyInvalid, SettingsInvalid, StateError
from controller.model.policy.document import Policy
from controller.model.settings import InForce, InstanceSettings

STARTED = InForce(InstanceSettings(engine="unix:///a"), "sha256:0")


@dataclass
class Bench:
    """A file of settings, and what a broker does with it."""

    file: InForce = STARTED
    health: HealthState = field(default_factory=HealthState)
    used: list[UsableSettings] = field(default_factory=list)
    published: list[InForce] = field(default_factory=list)
    mistake: SettingsInvalid | None = None
    full: bool = False

    def __post_init__(self) -> None:
        source = SettingsSource(STARTED, self.read, self.policy_file, self.policy, self.publish)
        self.reload = SettingsReload(source, self.health, self.used.append, own_uid=0)

    def read(self) -> InForce:
        if self.mistake is not None:
            raise self.mistake
        return self.file

    def policy_file(self, settings: InstanceSettings) -> Path:
        return Path(settings.policy)

    def policy(self, settings: InstanceSettings) -> Policy:
        if settings.policy == "/wrong":
            raise PolicyInvalid("policy.invalid", "/wrong:1: no")
        return Policy(name="p")

    def publish(self, in_force: InForce) -> None:
        if self.full:
            raise StateError("state.unwritable", "no space")
        self.published.append(in_force)

    def ask(self) -> SettingsFound | SettingsRefused:
        return asyncio.run(self.reload.read())

    def use(self, found: SettingsFound | SettingsRefused) -> SettingsRefused | None:
        assert isinstance(found, SettingsFound)
        return asyncio.run(self.reload.use(found))


def changed(**values: Any) -> InForce:
    return InForce(InstanceSettings(**{"engine": "unix:///a", **values}), "sha256:1")


def test_what_needs_a_restart_of_the_broker_is_told_until_it_is_as_at_the_start() -> None:
    bench = Bench(changed(engine="unix:///b", policy="home", quarantine="1h"))
    found = bench.ask()
    assert isinstance(found, SettingsFound)
    assert [key.name for key in found.changed] == ["engine", "policy", "quarantine"]
    assert bench.health.settings_digest == "sha256:0"
    assert bench.use(found) is None
    assert (bench.health.settings_digest, bench.health.settings_waiting) == (
        "sha256:1",
        ("engine",),
    )
    assert bench.published == [bench.file]
    assert [each.policy_file for each in bench.used] == [Path("home")]
    bench.file = STARTED
    assert bench.use(bench.ask()) is None
    assert bench.health.settings_waiting == ()


def test_credentials_are_read_with_the_settings_only_from_another_file(tmp_path: Path) -> None:
    bench = Bench(changed(policy="home"))
    assert bench.use(bench.ask()) is None
    auth = tmp_path / "auth.json"
    auth.write_text('{"auths": {}}')
    auth.chmod(0o600)
    bench.file = changed(registry_auth=str(auth))
    assert bench.use(bench.ask()) is None
    assert [each.credentials is None for each in bench.used] == [True, False]
    assert bench.used[1].registry_auth == auth


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (changed(policy="/wrong", quarantine="1h"), "policy.invalid"),
        (
            changed(registry_auth="/nonexistent/auth.json", policy="home"),
            "registry-auth.unreadable",
        ),
    ],
)
def test_one_mistake_refuses_all_and_what_was_stays(wanted: InForce, code: str) -> None:
    bench = Bench(wanted)
    refused = bench.ask()
    assert isinstance(refused, SettingsRefused)
    assert refused.code == code
    assert bench.health.settings_error == refused.message
    assert (bench.used, bench.published, bench.health.settings_digest) == ([], [], "sha256:0")
    bench.file = changed(policy="home")
    assert bench.use(bench.ask()) is None
    assert bench.health.settings_error == ""


def test_the_last_reload_wins_and_an_earlier_one_is_told_so() -> None:
    bench = Bench(changed(policy="home"))
    first = bench.ask()
    bench.file = changed(policy="production")
    assert bench.use(bench.ask()) is None
    refused = bench.use(first)
    assert refused is not None
    assert refused.code == "settings.changed"
    assert bench.published == [bench.file]


def test_settings_that_the_others_cannot_read_are_not_in_force() -> None:
    bench = Bench(changed(policy="home"), full=True)
    refused = bench.use(bench.ask())
    assert refused is not None
    assert (refused.code, bench.used) == ("state.unwritable", [])
    assert bench.health.settings_digest == "sha256:0"
