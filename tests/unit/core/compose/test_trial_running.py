"""Settings that trimtab completes or replaces."""

from __future__ import annotations

from controller.core.compose.trial import completed_settings
from tests.unit.core.compose.canonical import canonical, desired

SHOP = """\
services:
  plain:
    image: x:1
    healthcheck: {test: ["CMD", "true"]}
    tmpfs: ["/run", "/cache:size=8m"]
  my_db:
    image: x:1
    restart: unless-stopped
    healthcheck: {test: ["CMD", "true"], start_period: 5s}
    volumes: [{type: tmpfs, target: /scratch}]
    secrets: [{source: password}]
  worker:
    image: x:1
    restart: on-failure:3
  seed:
    image: x:1
  late:
    image: x:1
    restart: always
    links: ["my_db:store"]
    networks: {inner: }
    ports: [{target: 80, published: '8080'}]
    depends_on: {seed: {condition: service_completed_successfully}}
networks: {inner: {internal: true}}
secrets: {password: {file: ./password}}
"""


def test_each_completed_setting_names_its_services() -> None:
    found = {
        text.split(",")[0].partition(": ")[0]: names
        for text, names in completed_settings(canonical(SHOP), desired(SHOP))
    }
    assert found == {
        "restart isn't written": ("plain",),
        "the healthcheck is completed": ("plain",),
        "the tmpfs /run has no size": ("plain",),
        "restart unless-stopped becomes always": ("my_db",),
        "the tmpfs /scratch has no size": ("my_db",),
        "restart on-failure:3": ("worker",),
        "published ports lead through a network of their own": ("late",),
        "links": ("my_db",),
        "a Secret is mounted": ("my_db",),
        "a run of the job has a tmpfs at each VOLUME of its image that no mount covers": ("seed",),
    }


def test_only_the_missing_settings_of_a_health_check_are_named() -> None:
    found = dict(completed_settings(canonical(SHOP), desired(SHOP)))
    completed = "the healthcheck is completed, whatever the image's own has"
    assert found[f"{completed}: interval 30s, timeout 30s"] == ("my_db",)
    assert found[f"{completed}: interval 30s, timeout 30s, start_period 30s"] == ("plain",)
