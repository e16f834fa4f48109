"""The reload of settings: recorded before it is in force, and refused as a whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.call import BROKER
from controller.broker.gate.commands import (
    ReadSettings,
    SettingsFound,
    SettingsRefused,
    UseSettings,
)
from controller.broker.gate.journal_entries import actor_of
from controller.broker.handlers.trimtab_api import reload_changed
from controller.core.records.parts import LoadedSettingsPart, RequestPart
from controller.model.settings import BY_NAME, InForce
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    POLICY,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    converse,
    request,
    state,
)

FOUND = SettingsFound(
    InForce(digest="sha256:1"), (BY_NAME["policy"], BY_NAME["quarantine"]), POLICY
)
WRONG = SettingsRefused("settings.invalid", "f:1: polizy is no setting", "correct the file")


def ask(*steps: Step, actor: Any = OPERATOR) -> Told:
    knows = state()
    return converse(
        handle(request("POST", "/trimtab/v1/settings", actor=actor), knows), steps, knows
    )


def test_settings_are_recorded_and_then_in_force_and_each_key_is_told() -> None:
    told = ask((ReadSettings(), FOUND), ("operator", RECORDED), (UseSettings(FOUND), None))
    assert told.json == {
        "id": "id-1",
        "digest": "",
        "restart": {"policy": [], "quarantine": ["trimtab-controller.service"]},
    }
    (entry,) = told.entries
    asked = RequestPart.read(entry.request)
    summary = asked.summary.part(LoadedSettingsPart)
    assert (asked.route, asked.object) == ("settings.reloaded", "settings")
    assert (summary.keys, summary.settings_digest) == (("policy", "quarantine"), "sha256:1")
    assert entry.actor == actor_of(OPERATOR)


def test_a_file_with_a_mistake_is_refused_with_it() -> None:
    told = ask((ReadSettings(), WRONG), ("refusal", RECORDED))
    assert (told.status, told.rule) == (409, "settings.invalid")
    assert "f:1: polizy is no setting" in told.json["message"]


def test_nothing_is_in_force_without_a_record() -> None:
    told = ask((ReadSettings(), FOUND), ("operator", UNRECORDED))
    assert told.status == 503


def test_settings_that_cannot_be_used_after_all_are_told() -> None:
    busy = SettingsRefused("settings.changed", "another reload came first", "try again")
    told = ask(
        (ReadSettings(), FOUND),
        ("operator", RECORDED),
        (UseSettings(FOUND), busy),
        ("refusal", RECORDED),
    )
    assert (told.status, told.rule) == (409, "settings.changed")


@pytest.mark.parametrize("actor", [ALICE, CONTROLLER])
def test_settings_are_reloaded_by_operators_alone(actor: Any) -> None:
    assert ask(("refusal", RECORDED), actor=actor).rule == "role.denied"


def test_a_signal_puts_changed_settings_in_force_by_a_record_of_the_brokers() -> None:
    knows = state()
    steps = ((ReadSettings(), FOUND), ("policy", RECORDED), (UseSettings(FOUND), None))
    (entry,) = converse(reload_changed(knows), steps, knows).entries
    assert entry.actor == actor_of(BROKER)
    assert entry.request["route"] == "settings.reloaded"
    same = replace(FOUND, changed=())  # the digest can differ, and an earlier mistake is mended
    converse(reload_changed(knows), [(ReadSettings(), same), (UseSettings(same), None)], knows)
    converse(reload_changed(knows), [(ReadSettings(), WRONG)], knows)
    unrecorded = ((ReadSettings(), FOUND), ("policy", UNRECORDED))
    converse(reload_changed(knows), unrecorded, knows)
