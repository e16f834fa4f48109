"""The prune guard's memory in the saved state."""

import json

import pytest

from controller.core.encoding.stored_form import StoredForm
from controller.core.service.prune_guard import PruneMemory
from controller.model.names import service_key

PRUNE_MEMORY_FORM = StoredForm(PruneMemory)

WEB = service_key("shop", "web")


def test_the_sources_of_resources_survive_json():
    memory = PruneMemory(devices=(("team", 9),), sources=((WEB, "team"),))
    value = PRUNE_MEMORY_FORM.to_json(memory)
    assert (value["devices"], value["sources"]) == ([["team", 9]], [["Service/shop/web", "team"]])
    assert PRUNE_MEMORY_FORM.from_json(json.loads(json.dumps(value))) == memory


@pytest.mark.parametrize(
    "change",
    [
        {"device": "x"},
        {"settling": "x"},
        {"settling": ["x"]},
        {"settling_since": None},
        {"going": None},
        {"standing": [1]},
        {"passed": {}},
        {"passed": [["Service/default/a"]]},
        {"passed": [[1, 1]]},
        {"devices": [["team"]]},
        {"sources": "team"},
        {"sources": [["web", "team"]]},
    ],
)
def test_what_is_no_memory_is_refused(change):
    with pytest.raises(ValueError):
        PRUNE_MEMORY_FORM.from_json({**PRUNE_MEMORY_FORM.to_json(PruneMemory()), **change})
