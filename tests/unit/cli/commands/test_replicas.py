"""Which containers a NAME means."""

from __future__ import annotations

import pytest

from controller.cli.commands.exec import first_running
from controller.cli.commands.replicas import ContainerTarget, VisibleContainer, select
from controller.model.errors import StateError


def replica(
    name: str, service: str = "", slot: int = 0, namespace: str = "default", state: str = "running"
) -> VisibleContainer:
    return VisibleContainer(f"id:{name}", name, namespace, service, slot, state)


WEB_1 = replica("web.1-aaaaaaaa", "web", 1)
WEB_2 = replica("web.2-aaaaaaaa", "web", 2)
SHOP = replica("shop.web.1-aaaaaaaa", "web", 1, "shop")
CLIENTS = replica("tool", namespace="")
ALL = (WEB_1, WEB_2, SHOP, CLIENTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default/web", [WEB_1, WEB_2]),
        ("default/web.2", [WEB_2]),
        ("shop/web", [SHOP]),
        ("web.1-aaaaaaaa", [WEB_1]),
        ("shop.web.1-aaaaaaaa", [SHOP]),
        ("tool", [CLIENTS]),
    ],
)
def test_a_name_means_a_service_a_slot_or_a_container(
    name: str, expected: list[VisibleContainer]
) -> None:
    assert select(ALL, ContainerTarget.parse(name)) == expected


@pytest.mark.parametrize("name", ["web", "web.1"])
def test_a_name_of_two_namespaces_must_have_one(name: str) -> None:
    with pytest.raises(StateError, match="means default/web, shop/web") as caught:
        select(ALL, ContainerTarget.parse(name))
    assert caught.value.remedy == "write NAMESPACE/NAME"


@pytest.mark.parametrize("name", ["nobody", "web.3", "shop/tool", "web.0", "we"])
def test_what_is_not_there_is_an_error_that_leads_to_what_is_kept(name: str) -> None:
    with pytest.raises(StateError, match="there is no container of") as caught:
        select(ALL, ContainerTarget.parse(name))
    assert f"'trimtab logs --previous {name}'" in caught.value.remedy


def test_a_label_can_be_given_as_a_name() -> None:
    assert [each.label for each in ALL] == ["web.1", "web.2", "shop/web.1", "tool"]
    assert select(ALL, ContainerTarget.parse(SHOP.label)) == [SHOP]


def test_a_command_runs_in_the_first_replica_that_runs() -> None:
    down = replica("web.1-bbbbbbbb", "web", 1, state="exited")
    assert first_running([down, WEB_2], "web") == WEB_2
    with pytest.raises(StateError, match=r"no container of web runs: web\.1-bbbbbbbb is exited"):
        first_running([down], "web")
