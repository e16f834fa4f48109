"""Names are derived from their resource, final, and within the limits of engine and DNS."""

import pytest

from controller.model.names import (
    CONTAINER_NAME_MAX,
    NAMESPACE_MAX,
    REPLICAS_MAX,
    SERVICE_NAME_MAX,
    Key,
    container_name,
    is_dns_label,
    namespaced_network,
    qualified,
    service_key,
)

REVISION = "v2:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("namespace", "slot", "attempt", "name"),
    [
        ("default", 1, 1, "web.1-01234567"),
        ("default", 12, 1, "web.12-01234567"),
        ("default", 1, 2, "web.1-01234567.2"),
        ("shop", 1, 1, "shop.web.1-01234567"),
        ("shop", 3, 10, "shop.web.3-01234567.10"),
    ],
)
def test_a_container_is_called_after_service_slot_revision_and_attempt(
    namespace: str, slot: int, attempt: int, name: str
) -> None:
    assert container_name(namespace, "web", slot=slot, revision=REVISION, attempt=attempt) == name


def test_the_longest_names_leave_room_for_another_attempt() -> None:
    longest = container_name(
        "n" * NAMESPACE_MAX, "s" * SERVICE_NAME_MAX, slot=REPLICAS_MAX, revision=REVISION, attempt=9
    )
    assert len(longest) <= CONTAINER_NAME_MAX


def test_what_is_no_revision_names_nothing() -> None:
    with pytest.raises(AssertionError, match="not a revision"):
        container_name("default", "web", slot=1, revision="v2:012")


def test_the_default_namespace_doesnt_show_in_names() -> None:
    assert [qualified(ns, "data") for ns in ("default", "shop")] == ["data", "shop.data"]
    assert [namespaced_network("platform-network", ns) for ns in ("default", "shop")] == [
        "platform-network",
        "platform-network.shop",
    ]


@pytest.mark.parametrize("text", ["a", "a-b", "0", "a1", "a" * 20])
def test_labels_of_dns_are_names(text: str) -> None:
    assert is_dns_label(text, length=20)


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "a\n", "a" * 21, "\u0661"]
)
def test_what_is_no_label_of_dns_is_no_name(text: str) -> None:
    assert not is_dns_label(text, length=20)


def test_a_key_reads_back_what_it_wrote() -> None:
    key = service_key("shop", "web")
    assert str(key) == "Service/shop/web"
    assert Key.parse(str(key)) == key
    with pytest.raises(ValueError, match="unpack"):
        Key.parse("Service/web")
