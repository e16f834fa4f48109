"""The choices of a policy for Compose files."""

from __future__ import annotations

from controller.app.policy import policy_file, read_policy
from controller.core.compose.translation.scope import ComposeSettings, settings_of


def test_the_defaults_are_those_of_strict() -> None:
    assert settings_of(read_policy(policy_file("strict"))) == ComposeSettings()


def test_home_expects_the_internet_and_images_that_start_as_root() -> None:
    settings = settings_of(read_policy(policy_file("home")))
    assert (settings.network, settings.aliases) == ("bridge", True)
    assert {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"} <= set(settings.capabilities)
