"""Images whose configuration is as large as an engine takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools import demo_images
from tools.busybox import find_static_busybox
from tools.demo_images import Image

if TYPE_CHECKING:
    from tools.image_archive import Archive

#: Bytes of the config of an image: beyond what a broker reads, and just within.
BEYOND, WITHIN = 7_000_000, 400_000


def nasty_image(reference: str, size: int = BEYOND) -> Archive:
    """Return an image with thousands of labels, ports and variables, and a long check."""
    busybox = find_static_busybox()
    assert busybox is not None, "the demo images were built with it"
    config = {
        "Cmd": ["/bin/sleep", "3600"],
        "Labels": {f"pad{number:04}": "x" * (size // 2000) for number in range(1600)},
        "ExposedPorts": {f"{port}/tcp": {} for port in range(20_000, 23_000)},
        "Env": [f"NAME{number}={'y' * (size // 50_000)}" for number in range(1000)],
        "Healthcheck": {
            "Test": ["CMD", "/bin/true", "z" * (size // 20)],
            "Interval": 1_000_000_000,
        },
    }
    return demo_images.archive(Image(reference, {}, config), busybox.read_bytes())
