"""Requests for GPUs become devices with CDI names, or a problem."""

from __future__ import annotations

import json

import pytest

from tests.unit.core.compose.canonical import desired, trees

HEAD = 'services:\n  model:\n    image: "ollama:1"\n'


def gpus(*requests: object) -> str:
    return f"{HEAD}    gpus: {json.dumps(requests)}\n"


def reserved(*requests: object) -> str:
    tree = {"resources": {"reservations": {"devices": requests}}}
    return f"{HEAD}    deploy: {json.dumps(tree)}\n"


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"count": -1}, ["all"]),
        ({"driver": "nvidia"}, ["all"]),
        ({"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}, ["0", "1"]),
        ({"device_ids": ["0", "GPU-1a"], "capabilities": ["gpu", "utility"]}, ["0", "GPU-1a"]),
    ],
)
def test_a_request_names_devices(request_: object, names: list[str]) -> None:
    wanted = [{"cdi": f"nvidia.com/gpu={name}"} for name in names]
    assert trees(gpus(request_))["Service/model"]["devices"] == wanted
    assert trees(reserved(request_))["Service/model"]["devices"] == wanted


def test_names_of_the_driver_cdi_are_taken_as_written_and_each_once() -> None:
    request = {"driver": "cdi", "device_ids": ["amd.com/gpu=1", "amd.com/gpu=1"]}
    assert trees(gpus(request))["Service/model"]["devices"] == [{"cdi": "amd.com/gpu=1"}]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"driver": "intel"}, "a device of the driver intel has no known name"),
        ({"capabilities": ["tpu"]}, "a device with the capabilities tpu has no known name"),
        ({"driver": "cdi"}, "the driver cdi needs the names of devices in device_ids"),
        ({"options": {"a": "b"}}, "options of a device driver are not supported"),
        ({"count": 65}, "65 devices are more than 64"),
    ],
)
def test_a_request_without_known_names_is_refused_by_its_line(
    request_: object, message: str
) -> None:
    state = desired(gpus(request_))
    assert state.services == ()
    (problem,) = state.problems
    assert (problem.code, problem.line) == ("compose.refused", 4)
    assert message in problem.message
