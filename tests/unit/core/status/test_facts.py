"""Each setting of a container comes from its image or from its document, and `describe` says which."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.status.description import _origins
from controller.core.engine_api.translate import image_settings
from controller.core.status.facts import DROPPED, FactsMemo, origins_of
from controller.loop.state import service_tracker
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import Image, Observed
from tests.worlds import container, engine, service

ID = "sha256:" + "1" * 64
BROUGHT = ("entrypoint", "command", "user", "healthcheck")


def origins(*brought: str, volumes: tuple[str, ...] = (), **spec: object) -> dict[str, object]:
    """Return the origins of a service whose image brings some settings."""
    written = ServiceSpec.model_validate_json(json.dumps({"image": "web:1", **spec}))
    seen = Observed("i", image_settings={ID: brought}, image_volumes={ID: volumes})
    found = origins_of(written, seen, ID)["origins"]
    assert isinstance(found, dict)
    return found


def test_what_the_document_leaves_out_is_the_image_s() -> None:
    assert origins(*BROUGHT) == {
        "entrypoint": "image",
        "command": "image",
        "user": "image",
        "workingDir": "none",
        "healthcheck": "image",
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"command": ["x"]}, {"command": "document", "entrypoint": "image"}),
        ({"entrypoint": ["x"]}, {"command": DROPPED, "entrypoint": "document"}),
        ({"user": "1"}, {"user": "document"}),
        ({"workingDir": "/"}, {"workingDir": "document"}),
        ({"healthcheck": {"tcp": {"port": 1}}}, {"healthcheck": "document"}),
    ],
)
def test_a_document_overrides_its_image(spec: dict[str, Any], expected: dict[str, str]) -> None:
    assert origins(*BROUGHT, **spec).items() >= expected.items()


def test_a_mount_covers_a_volume_of_the_image() -> None:
    mounts = [{"type": "tmpfs", "target": "/a", "size": "1Mi"}]
    found = origins(volumes=("/a", "/b/"), mounts=mounts)
    assert found["volumes"] == {"/a": "document", "/b": "image"}
    assert [*_origins({"origins": found})][-2:] == ["volume /a:   document", "volume /b:   image"]


def test_an_unknown_image_says_nothing() -> None:
    spec = ServiceSpec.model_validate_json(json.dumps({"image": "web:1", "command": ["x"]}))
    assert origins_of(spec, None, ID) == origins_of(spec, Observed("i"), ID) == {}
    assert [*_origins({})] == []


def test_an_image_without_a_check_of_its_own_brings_none() -> None:
    def brought(**config: object) -> tuple[str, ...]:
        return image_settings({"Config": config})

    assert brought(Cmd=["x"], User="", Healthcheck={"Test": ["NONE"]}) == ("command",)
    assert brought(WorkingDir="/", Healthcheck={"Test": ["CMD", "x"]}) == (
        "workingDir",
        "healthcheck",
    )
    assert image_settings({}) == ()


WEB_SERVICE, OTHER_SERVICE = service(), service("other")
SEEN = engine(container())
PINS = [{WEB_SERVICE.revision: Image(id=each)} for each in (ID, "sha256:" + "2" * 64)]
SNAPSHOTS = (
    None,
    engine(),
    SEEN,
    engine(container(state="exited", exit_code=3)),
    engine(container(health="unhealthy")),
    engine(container(), container(slot=2)),
    *(replace(SEEN, pins=pins) for pins in PINS),
    replace(SEEN, pins=PINS[0], image_settings={ID: BROUGHT}),
    replace(SEEN, pins=PINS[0], image_settings={ID: BROUGHT}, image_volumes={ID: ("/a",)}),
)


@given(st.lists(st.sampled_from(SNAPSHOTS), min_size=2, max_size=6))
def test_remembered_facts_are_those_of_the_snapshot(snapshots: list[Observed | None]) -> None:
    services, memo = (WEB_SERVICE, OTHER_SERVICE), FactsMemo()
    for seen in snapshots:
        found = [*memo.facts_of(services, seen)]
        assert found == [*FactsMemo().facts_of(services, seen)]
        again = [*memo.facts_of(services, seen)]
        assert all(one is other for one, other in zip(found, again, strict=True))


def test_a_reading_of_unchanged_files_costs_no_facts() -> None:
    """Each reading makes new services; each observation of everything new containers."""
    memo, services = FactsMemo(), (WEB_SERVICE, OTHER_SERVICE)
    first = [*memo.facts_of(services, engine(container(), container("other")))]
    read = [replace(service) for service in services]
    again = [*memo.facts_of(read, engine(container(), container("other")))]
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_one_change_costs_the_facts_of_one_service() -> None:
    memo, before = FactsMemo(), engine(container(), container("other"))
    first = [*memo.facts_of((WEB_SERVICE, OTHER_SERVICE), before)]
    part = engine(container(health="unhealthy"))
    after = service_tracker.merge_snapshot(before, part, WEB_SERVICE.key)
    second = [*memo.facts_of((WEB_SERVICE, OTHER_SERVICE), after)]
    assert second[0] != first[0]
    assert second[1] is first[1]
