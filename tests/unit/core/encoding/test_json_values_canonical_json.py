"""Canonical JSON, encoded at once and item by item."""

from __future__ import annotations

import pytest

from controller.core.encoding.json_values import canonical, canonical_by_item


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "text",
        None,
        {"b": [], "a": {}, "\U0001f600": 1, "\ufb33": 2},
        {"inventory": {"seq": 2**60, "containers": [{"id": "b", "a": [1, "é"]}, {"id": "c"}]}},
        {"open": {"one": {"object": "web", "labels": ["x", ["y"]]}}, "taken": [True, None]},
        [[1], {"z": 1, "a": (2, 3)}],
    ],
)
def test_a_value_has_the_same_bytes_item_by_item(value: object) -> None:
    assert canonical_by_item(value) == canonical(value)


def test_a_float_is_refused_item_by_item() -> None:
    with pytest.raises(TypeError):
        canonical_by_item({"containers": [{"load": 0.5}]})
