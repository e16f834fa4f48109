"""The prune guard's memory in the saved state."""

import json

import pytest

from controller.core.service.prune_memory import FORM, PruneMemory
from controller.model.names import service_key

WEB = service_key("shop", "web")


def test_a_memory_without_sources_is_as_before_sources_existed():
    assert sorted(FORM.to_json(PruneMemory())) == [
        *("device", "going", "passed", "settling", "settlingSinceMs", "standing"),
    ]
    assert FORM.from_json(FORM.to_json(PruneMemory())) == PruneMemory()


def test_the_sources_of_resources_survive_json():
    memory = PruneMemory(devices=(("team", 9),), sources=((WEB, "team"),))
    value = FORM.to_json(memory)
    assert (value["devices"], value["sources"]) == ({"team": 9}, [["Service/shop/web", "team"]])
    assert FORM.from_json(json.loads(json.dumps(value))) == memory


@pytest.mark.parametrize(
    "change",
    [
        {"device": "7"},
        {"settling": "x"},
        {"settling": ["x"]},
        {"settlingSinceMs": 1.5},
        {"going": None},
        {"standing": [1]},
        {"passed": {}},
        {"passed": [["Service/default/a"]]},
        {"passed": [["Service/default/a", "1"]]},
        {"passed": [[1, 1]]},
        {"devices": []},
        {"devices": {"team": "9"}},
        {"sources": "team"},
        {"sources": [["Service/shop/web"]]},
        {"sources": [["web", "team"]]},
    ],
)
def test_what_is_no_memory_is_refused(change):
    with pytest.raises(ValueError):
        FORM.from_json({**FORM.to_json(PruneMemory()), **change})


def test_an_empty_object_is_no_memory():
    with pytest.raises(ValueError, match="not the prune guard's memory"):
        FORM.from_json({})
