"""Who reaches whom, before and after."""

from __future__ import annotations

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.compose.trial import ServiceReach, Side, reach_of
from tests.unit.core.compose.canonical import canonical, desired

SHOP = """\
services:
  web:
    image: x:1
    networks: {default: null, front: null}
    ports: [{target: 80, published: '8080'}]
  my_db:
    image: x:1
    networks: {default: null}
  proxy:
    image: x:1
    networks: {front: null}
  alone:
    image: x:1
    network_mode: none
  bad:
    image: x:1
    privileged: true
    networks: {default: null}
networks:
  front: {internal: true}
  default: {}
"""


def test_the_reach_of_each_service() -> None:
    found = {each.service: each for each in reach_of(canonical(SHOP), desired(SHOP))}
    assert found["web"] == ServiceReach(
        "web",
        Side(("bad", "my_db", "proxy"), True, ("0.0.0.0:8080",)),
        Side(("my_db", "proxy"), False, ("127.0.0.1:8080",)),
    )
    assert found["proxy"].before == found["proxy"].after == Side(("web",), False, ())
    assert found["alone"].before == found["alone"].after == Side((), False, ())
    assert found["bad"].after is None


def test_the_policy_can_open_the_default_network() -> None:
    state = desired(SHOP, settings=ComposeSettings(network="bridge"))
    (database,) = [each for each in reach_of(canonical(SHOP), state) if each.service == "my_db"]
    assert database.after is not None
    assert database.after.internet


def test_a_job_whose_name_was_cut_is_started() -> None:
    text = (
        "services:\n  web:\n    image: x:1\n    depends_on:\n"
        "      run-database-migrations: {condition: service_completed_successfully}\n"
        "  run-database-migrations: {image: 'x:1'}\n"
    )
    assert all(each.after is not None for each in reach_of(canonical(text), desired(text)))


def test_a_sidecar_reaches_whatever_its_service_reaches() -> None:
    text = (
        "services:\n  vpn:\n    image: x:1\n    networks: {back: null}\n"
        "  side:\n    image: x:1\n    network_mode: service:vpn\n"
        "  db:\n    image: x:1\n    networks: {back: null}\nnetworks: {back: {internal: true}}\n"
    )
    found = {each.service: each for each in reach_of(canonical(text), desired(text))}
    assert found["side"].before == found["side"].after == Side(("db", "vpn"), False, ())
