"""Snapshots: a look at one key put into the look at everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.loop.state import service_tracker
from controller.model.delivery import FileSet, StoredFiles
from controller.model.names import Key
from controller.model.observed import Container, Ending, HostPort, Image, ObservedNetwork
from controller.ports import ContainerSummary
from tests.worlds import ISOLATED, WEB, container, engine

WHOLE = engine(
    container(),
    container("api"),
    container(slot=0, origin="client", id="theirs"),
    networks=(
        ISOLATED,
        ObservedNetwork("n9", "platform-network.prod", ours=True, namespace="prod"),
    ),
)
PROD = WHOLE.networks[1]
PROD_KEY = Key("Service", "prod", "x")


def ids(containers: Iterable[Container]) -> list[str]:
    return [each.id for each in containers]


def test_one_services_look_replaces_its_containers_and_its_namespaces_networks() -> None:
    part = engine(
        container(slot=2),
        networks=(),
        images={"new:1": Image("sha256:2")},
        pins={"v2:x": Image("y")},
    )
    ended = Ending("c1", "container.remove", "operator", 0, "2026-01-01T00:00:00Z")
    stored = StoredFiles(FileSet("config", "default", "site"))
    part = replace(part, endings={"c1": ended}, taken_down="d1", files={"f": stored})
    merged = service_tracker.merge_snapshot(WHOLE, part, WEB)
    assert ids(merged.containers) == ["id:api.1-bbbbbbbb", "id:web.2-bbbbbbbb"]
    assert merged.networks == (PROD,)
    assert merged.images == {**WHOLE.images, "new:1": Image("sha256:2")}
    assert merged.pins == {"v2:x": Image("y")}
    assert (merged.endings, merged.taken_down) == ({"c1": ended}, "d1")
    assert merged.files == {"f": stored}


def test_a_part_without_ports_keeps_the_bound_ports() -> None:
    port = HostPort("0.0.0.0", 80, "tcp")
    whole = replace(WHOLE, listening=frozenset({port}))
    assert service_tracker.merge_snapshot(whole, engine(), WEB).listening == {port}


def test_a_look_at_a_network_leaves_containers_as_they_were() -> None:
    merged = service_tracker.merge_snapshot(
        WHOLE, engine(networks=()), Key("Network", "default", "x")
    )
    assert merged.containers == WHOLE.containers
    assert merged.networks == (PROD,)


def test_a_merged_snapshot_is_asked_anew() -> None:
    assert ids(WHOLE.of(WEB)) == ["id:web.1-bbbbbbbb"]
    assert service_tracker.merge_snapshot(WHOLE, engine(), WEB).of(WEB) == ()


def glimpses(*containers: Container) -> frozenset[ContainerSummary]:
    return frozenset(
        ContainerSummary(c.id, c.name, c.state.value, c.key, c.settings.networks)
        for c in containers
    )


def test_a_list_shows_which_services_differ_and_clients_containers_never_count() -> None:
    web, api = container(), container("api")
    theirs = replace(container("theirs"), key=Key("Service", "", "theirs"), origin="client")
    known = engine(web, api, theirs)

    def differ(*seen: Container) -> list[str]:
        return sorted(key.name for key in service_tracker.changed_services(known, glimpses(*seen)))

    assert differ(web, api, theirs) == []
    assert differ(web, api) == []
    assert differ(web, theirs) == ["api"]
    assert differ(web, api, container("new")) == ["new"]
    assert differ(container(state="exited"), api) == ["web"]
    assert differ(container(settings={"name": "renamed"}), api) == ["web"]
    assert differ(container(settings={"networks": ("other",)}), api) == ["web"]
    assert differ(container(id="id:another"), api) == ["web"]


def test_only_the_controllers_own_containers_are_somebodys() -> None:
    assert service_tracker.owner_of(WHOLE, "id:web.1-bbbbbbbb") == WEB
    assert service_tracker.owner_of(WHOLE, "theirs") is None
    assert service_tracker.owner_of(WHOLE, "nobody") is None


def test_moved_containers_are_no_longer_those_of_the_earlier_name() -> None:
    site = Key("Service", "default", "site")
    part = engine(replace(container("api"), key=site, former="api"))
    merged = service_tracker.merge_snapshot(WHOLE, part, site)
    assert ids(merged.of(site)) == ["id:api.1-bbbbbbbb"]
    assert merged.of(Key("Service", "default", "api")) == ()


def test_a_service_that_moved_there_and_back_has_its_containers_once() -> None:
    site = Key("Service", "default", "site")
    there = engine(replace(container("api"), key=site, former="api"))
    back = engine(container("api"))
    api = back.containers[0].key
    merged = service_tracker.merge_snapshot(
        service_tracker.merge_snapshot(WHOLE, there, site), back, api
    )
    assert ids(merged.of(api)) == ["id:api.1-bbbbbbbb"]
    assert merged.of(site) == ()


def test_a_late_look_at_the_earlier_name_shows_no_container_twice() -> None:
    site = Key("Service", "default", "site")
    there = engine(replace(container("api"), key=site, former="api"))
    before = engine(container("api"))
    merged = service_tracker.merge_snapshot(
        service_tracker.merge_snapshot(WHOLE, there, site), before, before.containers[0].key
    )
    assert sorted(ids(merged.containers)) == sorted(ids(WHOLE.containers))


def test_what_a_look_cant_read_of_its_key_is_known_and_of_others_stays() -> None:
    whole = replace(WHOLE, unread={WEB: "too long", PROD_KEY: "too long"})
    assert service_tracker.merge_snapshot(whole, engine(), WEB).unread == {PROD_KEY: "too long"}
    again = replace(engine(), unread={WEB: "still"})
    assert service_tracker.merge_snapshot(whole, again, WEB).unread == {
        WEB: "still",
        PROD_KEY: "too long",
    }
