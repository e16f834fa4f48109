"""Facts of the observed state."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.names import Key, service_key
from controller.model.observed import Container, ContainerGroups, HostPort
from tests import worlds

API = service_key("default", "api")


@pytest.mark.parametrize(
    ("one", "two", "overlap"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "::1", True),
        ("::", "127.0.0.1", False),
        ("::", "0.0.0.0", False),
    ],
)
def test_ports_overlap_on_one_address_or_on_all_of_its_family(one, two, overlap):
    assert HostPort(one, 80).overlaps(HostPort(two, 80)) is overlap
    assert HostPort(two, 80).overlaps(HostPort(one, 80)) is overlap
    assert not HostPort(one, 80).overlaps(HostPort(two, 81))
    assert not HostPort(one, 80).overlaps(HostPort(two, 80, "udp"))


def test_a_changed_group_of_containers_leaves_the_others() -> None:
    theirs = worlds.container(slot=0, origin="client", id="theirs")
    before = worlds.engine(worlds.container(), worlds.container("api"), theirs).grouped
    web = worlds.container(slot=2)
    after = before.having(worlds.WEB, (web,))
    assert after.of(worlds.WEB) == (web,)
    assert after.of(API) == before.of(API)
    assert after.keys == {worlds.WEB, API}
    assert len(before.having(worlds.WEB, ())) == 1
    assert not before.having(worlds.WEB, ()).has(worlds.WEB)
    assert after.find(web.id) == web
    assert after.find("nobody") is None
    assert web in after
    assert after == tuple(after) == after[:]
    assert after[0] in {*after}
    assert list(before) == sorted(before, key=lambda each: each.id)


def test_only_the_groups_of_removed_containers_are_made_again() -> None:
    web, second = worlds.container(), worlds.container(slot=2)
    before = worlds.engine(web, second, worlds.container("api"), worlds.container("db")).grouped
    after = before.without({web.id, "id:db.1-bbbbbbbb", "nobody"})
    assert after.all_of(worlds.WEB) == (second,)
    assert after.all_of(API) is before.all_of(API)
    assert after.keys == {worlds.WEB, API}
    assert before.all_of(worlds.WEB) == (web, second)


class Counted(tuple[Container, ...]):
    """A group that counts how often somebody goes through its containers."""

    __slots__ = ()
    seen = 0

    def __iter__(self) -> Iterator[Container]:
        Counted.seen += 1
        return super().__iter__()


def test_after_the_first_search_no_search_goes_through_all_groups() -> None:
    services = [service_key("default", f"s{number}") for number in range(50)]
    all_groups = {key: Counted((worlds.container(key.name),)) for key in services}
    groups = ContainerGroups(all_groups)
    assert groups.find("nobody") is None
    Counted.seen = 0
    for name in ("new", "newer"):
        made = worlds.container(name)
        assert groups.without({made.id}) is groups
        groups = groups.having(made.key, (made,))
        assert groups.find(made.id) == made
    assert Counted.seen == 0


GROUPS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["web", "api", "db"]), GROUPS), max_size=12))
def test_containers_are_found_by_their_ids_after_each_change(
    changes: list[tuple[str, list[str]]],
) -> None:
    groups, plain = ContainerGroups.of_all(()), dict[Key, list[str]]()
    assert groups.find("a") is None
    for name, identifiers in changes:
        key = service_key("default", name)
        made = [worlds.container(name, slot=n, id=i) for n, i in enumerate(identifiers, 1)]
        groups = groups.without(set(identifiers)).having(key, made)
        plain = {k: [i for i in ids if i not in identifiers] for k, ids in plain.items()}
        plain[key] = identifiers
        for identifier in "abcdef":
            found = groups.find(identifier)
            owners = [k for k, ids in plain.items() if identifier in ids]
            assert ([] if found is None else [found.key]) == owners
