"""The engines that trimtab was tested on: versions of dockerd, and where images are kept.

docs/engines.md says what was seen on each. An untested engine is used, and named as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from controller.core.encoding.json_values import list_of, text_member

#: The containerd image store, whatever its snapshotter.
CONTAINERD: Final = "containerd"
#: The image stores of each tested version (MAJOR.MINOR); another name than containerd is a storage driver's.
TESTED: Final[Mapping[str, tuple[str, ...]]] = {
    "26.1": ("overlay2", CONTAINERD),
    "28.5": ("overlay2", CONTAINERD),
}
UNTESTED: Final = "engine.untested"
REMEDY: Final = (
    "docs/engines.md has the tested ones and what differs; `make ring KIND=engines` runs the tests"
)
_DRIVER_TYPE: Final = ["driver-type", "io.containerd.snapshotter.v1"]
_VERSION: Final = re.compile(r"(\d+\.\d+)(?:[.+-].*)?", re.ASCII | re.DOTALL)


def image_store(info: Mapping[str, Any]) -> str:
    """Return the image store in the ``/info`` of an engine: a storage driver such as ``overlay2``, or ``containerd``."""
    if _DRIVER_TYPE in list_of(info.get("DriverStatus")):
        return CONTAINERD
    return text_member(info, "Driver")


def untested(version: str, store: str) -> str:
    """Return a sentence about an engine that trimtab was not tested on; '' for a tested one.

    What an engine didn't say counts as tested.
    """
    found = _VERSION.fullmatch(version)
    stores = TESTED.get(found[1]) if found else ()
    if not version or (stores is not None and (not store or store in stores)):
        return ""
    known = ", ".join(f"{each} ({' and '.join(names)})" for each, names in TESTED.items())
    kept = f" with the image store {store}" if store else ""
    return f"Docker {version}{kept} is untested with this trimtab; tested are {known}"
