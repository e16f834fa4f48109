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


def test_containers_are_found_by_service_and_by_id() -> None:
    theirs = worlds.container(slot=0, origin="client", id="theirs")
    web, second = worlds.container(), worlds.container(slot=2)
    seen = worlds.engine(second, web, worlds.container("api"), theirs)
    assert seen.of(worlds.WEB) == (web, second)
    assert seen.groups[worlds.WEB] == (theirs, web, second)
    assert seen.services == {worlds.WEB, API}
    assert seen.find("theirs") == theirs
    assert seen.find("nobody") is None
    assert seen.of(service_key("default", "db")) == ()
