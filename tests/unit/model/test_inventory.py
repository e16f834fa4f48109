"""The containers of an inventory: an index and counts that follow each change."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.model.inventory import ContainerItem, ContainerItems
from controller.model.observed import Settings

ITEMS = st.builds(
    lambda identifier, service, revision, owner, origin, networks: ContainerItem(
        identifier,
        "default",
        service,
        1,
        revision,
        owner,
        origin,
        "i",
        "image",
        Settings("x", networks=networks),
    ),
    st.sampled_from("abcdef"),
    st.sampled_from(["web", "api"]),
    st.sampled_from(["v2:a", "v2:b"]),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["controller", "client"]),
    st.sampled_from([(), ("lan",), ("lan", "wan")]),
)


def index_of(items: ContainerItems) -> tuple[dict[Any, Any], ...]:
    """Return index and counts as mappings: a counter equals another one with additional counts of 0."""
    members = {place: frozenset(ids) for place, ids in items.by_service.items()}
    return members, dict(items.groups), dict(items.ports), dict(items.members)


@given(st.lists(ITEMS | st.sampled_from("abcdef"), max_size=20))
def test_the_index_is_that_of_the_containers_made_at_once(
    changes: list[ContainerItem | str],
) -> None:
    items, plain = ContainerItems(), dict[str, ContainerItem]()
    for change in changes:
        former, before, index = items, dict(items), index_of(items)
        if isinstance(change, str):
            made = items.lacking(change)
            plain.pop(change, None)
        else:
            made = items.having(change)
            plain[change.id] = change
        assert former == before, "a change makes a copy"
        assert index_of(former) == index
        items = made
    fresh = ContainerItems(plain)
    assert items == fresh == plain
    assert index_of(items) == index_of(fresh)
    for network, owner in (("lan", "alice"), ("wan", "alice"), ("wan", "bob")):
        others = [each for each in plain.values() if each.owner != owner]
        shared = any(network in each.admitted.networks for each in others)
        assert items.has_others({network}, owner) == shared
    for service in ("web", "api"):
        found, wanted = (each.of_service("default", service) for each in (items, fresh))
        assert {each.id for each in found} == {each.id for each in wanted}
        assert len(found) == len(wanted)
