"""Every member of an inspect has its handling, and every compared setting its row."""

from dataclasses import fields
from typing import Any

import pytest

from controller.core.engine_api.comparable_fields import (
    MEMBERS,
    SETTINGS,
    Handling,
    handling,
    unknown_members,
)
from controller.model.observed import Settings


@pytest.mark.parametrize(
    ("section", "member", "word"),
    [
        ("", "Name", "in place"),
        ("", "RestartCount", "ignored"),
        ("", "Image", "recreate"),
        ("State", "Paused", "in place"),
        ("State", "Whatever", "ignored"),
        ("HostConfig", "Memory", "in place"),
        ("HostConfig", "CpusetCpus", "in place"),
        ("HostConfig", "Privileged", "recreate"),
        ("HostConfig", "Whatever", "report"),
        ("Config", "Env", "recreate"),
        ("Config", "Whatever", "report"),
        ("NetworkSettings", "Networks", "in place"),
        ("Networks", "Aliases", "in place"),
        ("Networks", "IPAddress", "ignored"),
        ("Networks", "Whatever", "report"),
        ("Nowhere", "Memory", "report"),
    ],
)
def test_each_member_has_its_handling(section: str, member: str, word: str) -> None:
    assert handling(section, member).value == word


def test_the_first_row_wins_and_no_row_says_what_another_says() -> None:
    named = [(row.section, member) for row in MEMBERS for member in row.members.split()]
    assert len(named) == len(set(named))
    assert handling("State", "Dead") is Handling.RECREATE


def test_every_setting_is_compared() -> None:
    assert sorted(s.name for s in SETTINGS) == sorted(field.name for field in fields(Settings))


def test_what_nobody_knows_is_told_where_it_says_something() -> None:
    inspect: dict[str, Any] = {
        "Id": "c1",
        "Novel": "x",
        "State": {"Novel": True},
        "HostConfig": {"Memory": 5, "Novel": {"a": 1}, "Empty": None, "Zero": 0, "None": []},
        "Config": None,
        "NetworkSettings": {"Networks": {"n": {"Novel": 1, "Aliases": ["web"]}, "m": None}},
    }
    assert unknown_members(inspect) == (
        "HostConfig.Novel",
        "NetworkSettings.Networks.*.Novel",
        "Novel",
    )
