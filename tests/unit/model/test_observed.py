"""Facts of the observed state."""

import pytest

from controller.model.observed import HostPort


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
