"""Photographs the pages for docs/: ``make screens``. The same data gives the same pictures."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.page import worlds
from tests.page.conftest import FLAGS
from tests.page.server import World, serve

IMAGES = Path(__file__).parents[2] / "docs" / "images"
#: The name of a picture, its page, colours, width and height.
SCREENS = (
    ("start-light", "/", "light", 1200, 660),
    ("start-dark", "/", "dark", 1200, 660),
    ("service-light", "/Service/shop/web", "light", 1200, 800),
    ("journal-dark", "/journal", "dark", 1200, 480),
    ("phone-light", "/", "light", 390, 800),
)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    world = World(worlds.ordinary(), worlds.journal())
    with serve(world) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        for name, path, scheme, width, height in SCREENS:
            page = chromium.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(address + path)
            page.locator("#live").get_by_text("live").wait_for()
            page.screenshot(path=str(IMAGES / f"{name}.png"))
            page.close()
        chromium.close()


if __name__ == "__main__":
    main()
