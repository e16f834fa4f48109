"""Facts of the observed state."""

import pytest

from controller.model.names import service_key
from controller.model.observed import HostPort
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
