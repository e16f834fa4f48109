"""The containers of an inventory: an index and counts that follow each change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.model.inventory import ContainerItem, ContainerItems
from controller.model.observed import Settings

ITEMS = st.builds(
    lambda identifier, service, owner, origin, networks: ContainerItem(
        identifier,
        "default",
        service,
        1,
        f"v1:{service}",
        owner,
        origin,
        "i",
        "image",
        Settings("x", networks=networks),
    ),
    st.sampled_from("abcdef"),
    st.sampled_from(["web", "api"]),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["controller", "client"]),
    st.sampled_from([(), ("lan",), ("lan", "wan")]),
)


@given(st.lists(ITEMS | st.sampled_from("abcdef"), max_size=20))
def test_the_index_is_that_of_the_containers_made_at_once(
    changes: list[ContainerItem | str],
) -> None:
    items, plain = ContainerItems(), dict[str, ContainerItem]()
    opened = itself = ContainerItems(is_open=True)
    for change in changes:
        before = ContainerItems(items)
        if isinstance(change, str):
            made = items.lacking(change)
            plain.pop(change, None)
        else:
            made = items.having(change)
            plain[change.id] = change
        assert items == before, "a change makes a copy"
        items = made
        opened = opened.lacking(change) if isinstance(change, str) else opened.having(change)
        assert opened is itself, "a change of open containers makes no copy"
    fresh = ContainerItems(plain)
    assert items == opened == fresh == plain
    # Compared as mappings: a counter equals another one with additional counts of 0.
    assert dict(items.groups) == dict(opened.groups) == dict(fresh.groups)
    assert dict(items.revisions) == dict(opened.revisions) == dict(fresh.revisions)
    assert dict(items.members) == dict(opened.members) == dict(fresh.members)
    for network, owner in (("lan", "alice"), ("wan", "alice"), ("wan", "bob")):
        others = [each for each in plain.values() if each.owner != owner]
        shared = any(network in each.admitted.networks for each in others)
        assert items.has_others({network}, owner) == opened.has_others({network}, owner) == shared
    for service in ("web", "api"):
        found, wanted = (each.of_service("default", service) for each in (items, fresh))
        assert {each.id for each in found} == {each.id for each in wanted}
        assert len(found) == len(wanted)
