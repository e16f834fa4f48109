"""Which engines count as tested, and that the page of engines has each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core.engine_api.engine_objects import TESTED, image_store, untested
from tools.engine_setups import SETUPS

PAGE = Path(__file__).parents[4] / "docs" / "engines.md"


@pytest.mark.parametrize(
    ("version", "store", "tested"),
    [
        ("26.1.5+dfsg1", "overlay2", True),
        ("26.1.5", "containerd", True),
        ("28.5.2+dfsg4", "containerd", True),
        ("26.1.5", "", True),
        ("", "", True),  # not asked yet
        ("26.1.5", "btrfs", False),
        ("26.10.0", "overlay2", False),
        ("29.0.1", "containerd", False),
        ("master", "overlay2", False),
    ],
)
def test_other_versions_and_stores_are_untested(version: str, store: str, *, tested: bool) -> None:
    assert (untested(version, store) == "") is tested


def test_the_store_is_read_from_what_the_engine_says() -> None:
    snapshotter = [["driver-type", "io.containerd.snapshotter.v1"]]
    assert image_store({"Driver": "overlayfs", "DriverStatus": snapshotter}) == "containerd"
    assert image_store({"Driver": "overlay2", "DriverStatus": [["Backing", "x"]]}) == "overlay2"
    assert image_store({"DriverStatus": "odd"}) == ""


def test_each_tested_engine_is_a_set_up_of_the_tests_and_on_the_page() -> None:
    stores = {
        (setup.name.split("-")[1], "containerd" if setup.containerd else "overlay2")
        for setup in SETUPS.values()
    }
    assert stores == {(v.split(".")[0], each) for v, names in TESTED.items() for each in names}
    page = PAGE.read_text()
    assert [name for name in SETUPS if f"`{name}`" not in page] == []
    assert [version for version in TESTED if version not in page] == []
