"""Images whose configuration is as large as an engine takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools import demo_images
from tools.demo_images import Image
from tools.busybox import find_static_busybox

if TYPE_CHECKING:
    from tools.image_archive import Archive

LABELS = {f"pad{number:04}": "x" * 4000 for number in range(1800)}


def nasty_image(reference: str) -> Archive:
    """Return an image with 7 MB of labels, and thousands of ports, volumes and variables."""
    busybox = find_static_busybox()
    assert busybox is not None, "the demo images were built with it"
    config = {
        "Cmd": ["/bin/sleep", "3600"],
        "Labels": LABELS,
        "ExposedPorts": {f"{port}/tcp": {} for port in range(20_000, 25_000)},
        "Env": [f"NAME{number}={'y' * 100}" for number in range(5000)],
        "Healthcheck": {"Test": ["CMD", "/bin/true", "z" * 500_000], "Interval": 1_000_000_000},
    }
    return demo_images.archive(Image(reference, {}, config), busybox.read_bytes())
