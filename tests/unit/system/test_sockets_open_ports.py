"""Open ports: those of listening sockets on all addresses, and no others."""

from pathlib import Path

from controller.system.sockets import open_ports

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000
   2: 00000000:1F92 0100007F:0016 01 00000000:00000000
"""


def test_only_listening_sockets_on_all_addresses_count(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(TABLE)
    assert list(open_ports((str(table), str(tmp_path / "missing")))) == [8080]
