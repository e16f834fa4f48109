"""Host ports that somebody else holds, by what the kernel shows."""

from controller.core.drift.contention import parse_sockets, port_taken
from controller.model.observed import HostPort
from tests.worlds import container, service

# proc(5): local_address is the address in the machine's byte order, and the port, in hex.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:46A1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:46A2 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: nonsense
   4: 01:46A1 00000000:0000 0A
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0
"""
UDP = """\
   sl  local_address rem_address   st
    1: 0100007F:0035 00000000:0000 07 00000000:00000000
"""
OWN, NEW = HostPort("127.0.0.1", 18081), HostPort("127.0.0.1", 18082)


def test_what_listens_is_read_from_the_kernels_tables():
    assert parse_sockets(TCP, "tcp") == {HostPort("127.0.0.1", 18081), HostPort("0.0.0.0", 22)}
    assert parse_sockets(TCP6, "tcp") == {HostPort("::1", 8080)}
    assert parse_sockets(UDP, "udp") == {HostPort("127.0.0.1", 53, "udp")}
    assert parse_sockets("", "tcp") == frozenset()


def wanting(port: int):
    return service(ports=[{"container": 80, "host": port}])


def test_a_port_of_somebody_else_is_taken():
    mine = [container(ports=(OWN,))]
    assert port_taken(wanting(18082), mine, frozenset({OWN, NEW})) == NEW
    everywhere = HostPort("0.0.0.0", 18082)
    assert port_taken(wanting(18082), mine, frozenset({OWN, everywhere})) == NEW
    assert port_taken(wanting(18082), mine, frozenset({OWN})) is None


def test_ones_own_port_is_not_taken_nor_is_that_of_another_protocol_or_address():
    mine = [container(ports=(OWN,))]
    assert port_taken(wanting(18081), mine, frozenset({OWN})) is None
    others = {HostPort("127.0.0.1", 18082, "udp"), HostPort("10.0.0.1", 18082)}
    assert port_taken(wanting(18082), mine, frozenset({OWN, *others})) is None


def test_where_the_engines_ports_are_not_seen_nobody_can_tell():
    assert port_taken(wanting(18082), [container(ports=(OWN,))], frozenset({NEW})) is None
    assert port_taken(wanting(18082), [container()], frozenset({NEW})) is None


def test_a_socket_of_both_families_takes_a_port_of_either():
    mine, other = [container(ports=(OWN,))], HostPort("::", 18082)
    assert port_taken(wanting(18082), mine, frozenset({OWN, other})) == NEW
    own = HostPort("::", 18082)
    assert port_taken(wanting(18082), [container(ports=(own,))], frozenset({own})) is None
