"""Removal of a volume: after a dump, and only if nothing uses the volume."""

from __future__ import annotations

import pytest

from controller.cli.commands.volume import _raise_if_needed, removal_text, sizes_of
from controller.cli.commands.volume_data import confirm_loss
from controller.model.errors import StateError, UsageError

DUMPED = {"name": "data", "dumped": "2026-01-01T00:00:00.000Z"}


def test_a_dumped_volume_without_users_can_be_removed() -> None:
    _raise_if_needed(DUMPED, {"other": ["db"]}, without_dump=False)
    _raise_if_needed({"name": "data", "dumped": ""}, {}, without_dump=True)


@pytest.mark.parametrize(
    ("volume", "users", "code"),
    [
        (DUMPED, {"data": ["db.1-0a1b2c3d"]}, "volume.used"),
        ({"name": "data", "dumped": ""}, {}, "volume.not-dumped"),
        ({"name": "data"}, {}, "volume.not-dumped"),
    ],
)
def test_a_used_or_never_dumped_volume_stays(
    volume: dict[str, str], users: dict[str, list[str]], code: str
) -> None:
    with pytest.raises(StateError) as raised:
        _raise_if_needed(volume, users, without_dump=False)
    assert raised.value.code == code


def test_nothing_is_removed_without_a_confirmation() -> None:
    with pytest.raises(UsageError, match="isn't a terminal"):
        confirm_loss("data", "removed", "Remove it?")


def test_a_volume_has_the_size_of_its_options_or_none() -> None:
    listed = {
        "Volumes": [
            {"Name": "a", "Options": {"size": "1073741824"}},
            {"Name": "b", "Options": {"size": "10g"}},
            {"Name": "c", "Options": None},
            {"Name": "e", "Options": {"size": "1.5g"}},
            {"Name": "f", "Options": {"size": "0"}},
            {"Name": "d", "Options": {"type": "nfs"}},
        ]
    }
    assert sizes_of(listed) == {"a": 1 << 30, "b": 10 << 30, "e": 3 << 29}
    assert sizes_of({"Volumes": None}) == {}


def test_the_removal_of_a_volume_with_a_size_says_what_the_engine_forgets() -> None:
    assert removal_text("data", None) == "removed the volume data"
    assert "restarted" in removal_text("data", 1 << 30)
