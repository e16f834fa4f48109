"""Handle ``POST /trimtab/v1/settings``: an operator has the broker read its settings again.

The record is durable before they are in force. One mistake refuses the whole file.
"""

from __future__ import annotations

from controller.broker.gate.call import BROKER, Flow, GateRequest
from controller.broker.gate.commands import (
    ReadSettings,
    SettingsFound,
    SettingsRefused,
    UseSettings,
    WriteRecord,
)
from controller.broker.gate.journal_entries import actor_of, request_of, require_record
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.wire import json_reply
from controller.core.records.parts import LoadedSettingsPart
from controller.model.mutations import SETTINGS_RELOADED
from controller.model.records import Entry, Reply


def reload_settings(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle the request. The answer names each changed key, and the units that need a restart for it.

    Raises:
        Denied: ``settings.invalid``, ``settings.rebind`` and others: nothing changed.
    """
    found = yield ReadSettings()
    if isinstance(found, SettingsRefused):
        raise _denied(found)
    assert isinstance(found, SettingsFound), "what ReadSettings returns"
    yield from require_record("operator", call.by, _request(found))
    refused = yield UseSettings(found)
    if isinstance(refused, SettingsRefused):
        raise _denied(refused)
    keys = {
        key.name: [] if key.live else [f"{each}.service" for each in key.processes]
        for key in found.changed
    }
    digest = state.health.settings_digest
    return json_reply(200, {"id": call.id, "digest": digest, "restart": keys})


def reload_changed(state: GateState) -> Flow[None]:
    """Put changed settings in force, as SIGHUP asks for; the record is the broker's own."""
    found = yield ReadSettings()
    if not isinstance(found, SettingsFound):
        return
    if found.changed:
        entry = Entry(state.new_id(), "policy", actor=actor_of(BROKER), request=_request(found))
        if (yield WriteRecord(entry)) is None:
            return
    yield UseSettings(found)


def _request(found: SettingsFound) -> dict[str, object]:
    names = tuple(key.name for key in found.changed)
    summary = LoadedSettingsPart(keys=names, settings_digest=found.in_force.digest)
    return request_of("POST", SETTINGS_RELOADED, "settings", summary.members)


def _denied(refused: SettingsRefused) -> Denied:
    return Denied(refused.code, refused.message, refused.remedy, status=409)
