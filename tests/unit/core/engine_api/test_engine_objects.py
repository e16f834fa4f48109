"""Members of unexpected types are named by their place; absent and null ones fit."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.engine_api.engine_objects import ENGINE_OBJECT, misfit


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({}, ""),
        ({"Config": None, "Labels": None, "Unknown": 3}, ""),
        (
            {"Config": {"Labels": {"Config": "x"}, "Env": ["A=1"], "ExposedPorts": {"1/tcp": {}}}},
            "",
        ),
        ({"NetworkSettings": {"Networks": {"n": None}, "Ports": {"1/tcp": None}}}, ""),
        ([], "the value"),
        ({"Id": 3}, "Id"),
        ({"Config": []}, "Config"),
        ({"Config": {"Labels": {"a": "b", "c": 3}}}, "Config.Labels.c"),
        ({"Config": {"Env": "A=1"}}, "Config.Env"),
        ({"Config": {"Env": ["A=1", 3]}}, "Config.Env"),
        ({"State": {"Pid": True}}, "State.Pid"),
        ({"State": {"ExitCode": 1.5}}, "State.ExitCode"),
        ({"State": {"Running": 1}}, "State.Running"),
        ({"Mounts": [{}, 3]}, "Mounts"),
        (
            {"NetworkSettings": {"Networks": {"n": {"Aliases": "x"}}}},
            "NetworkSettings.Networks.n.Aliases",
        ),
    ],
)
def test_the_first_member_of_another_type_is_named(value: Any, place: str) -> None:
    assert misfit(value, ENGINE_OBJECT) == place
