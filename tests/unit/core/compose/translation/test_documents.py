"""A project becomes documents; each problem names the line of the Compose file."""

from __future__ import annotations

import pytest

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.policy.refusals import place_of
from controller.model.names import Key, service_key
from tests.unit.core.compose.canonical import desired, problems, translation, trees

SHOP = """\
services:
  web_front:
    image: nginx:1.27
    depends_on:
      db: {condition: service_healthy, required: true}
      migrate: {condition: service_completed_successfully, required: true}
    networks: {default: null, back: {aliases: [www]}}
    volumes:
      - {type: volume, source: static_files, target: /static, read_only: true}
  migrate:
    image: app:1
    restart: "no"
  db:
    image: postgres:17
    healthcheck: {test: [CMD, pg_isready]}
    volumes:
      - {type: volume, source: static_files, target: /data}
    networks: {back: null}
networks:
  default: {name: shop_default}
  back: {name: shop_back, internal: true}
volumes:
  static_files: {name: shop_static_files}
x-trimtab: {owner: team}
"""


def test_services_jobs_networks_and_volumes_of_a_project() -> None:
    state = desired(SHOP)
    assert state.problems == ()
    assert [str(each.key) for each in state.workloads] == [
        "Service/shop/db",
        "Service/shop/web-front",
        "Job/shop/migrate",
    ]
    assert [str(each.key) for each in state.networks] == ["Network/shop/back"]
    assert [str(each.key) for each in state.volumes] == ["Volume/shop/static-files"]
    assert {each.owner for each in state.workloads} == {"team"}
    assert trees(SHOP)["Service/web-front"]["dependsOn"] == [
        {"name": "db", "condition": "Healthy"},
        {"kind": "Job", "name": "migrate", "condition": "Completed"},
    ]


def test_the_owner_is_the_settings_without_one_in_the_file() -> None:
    text = SHOP.replace("x-trimtab: {owner: team}\n", "")
    state = desired(text, settings=ComposeSettings(owner="ops"))
    assert {each.owner for each in state.services} == {"ops"}


def test_fields_have_the_places_of_the_compose_file() -> None:
    web = desired(SHOP).service(service_key("shop", "web-front"))
    assert web is not None
    assert (web.source.file, web.source.line) == ("compose.yaml", 2)
    at = place_of(web.source, ("spec", "mounts", 0, "target"))
    assert (at.file, at.line) == ("compose.yaml", 9)
    assert place_of(web.source, ("spec", "image")).line == 3
    assert dict(web.source.lines)["image"] == 3
    database = desired(SHOP).service(service_key("shop", "db"))
    assert database is not None
    assert dict(database.source.lines)["healthcheck"] == 15


def test_a_refused_attribute_leaves_its_service_alone_unchanged() -> None:
    state = desired(
        SHOP.replace("    image: postgres:17\n", "    image: postgres:17\n    privileged: true\n")
    )
    assert state.blind_keys >= {service_key("shop", "db")}
    assert not state.blind
    (problem,) = [each for each in state.problems if each.code == "compose.refused"]
    assert (problem.line, problem.field) == (15, "services.db.privileged")
    assert [each.key.name for each in state.services] == ["web-front"]


def test_names_that_normalise_to_one_name_are_errors() -> None:
    text = "services:\n  a_b: {image: x:1}\n  a-b: {image: y:1}\n"
    assert [line.split(":")[0] for line in problems(text)] == [
        "2 error compose.name-clash",
        "3 error compose.name-clash",
        "3 error document.duplicate",
    ]
    assert desired(text).services == ()


def test_drivers_of_networks_and_volumes_are_refused() -> None:
    text = "networks:\n  n: {driver: overlay}\nvolumes:\n  v: {driver: nfs}\n"
    state = desired(text)
    assert state.blind_keys == {
        Key("Network", "shop", "n"),
        Key("Volume", "shop", "v"),
    }


@pytest.mark.parametrize(
    ("written", "size"),
    [("10g", "10Gi"), ("512m", "512Mi"), ("1048576", "1Mi"), ("1.5g", "1536Mi")],
)
def test_a_volume_has_the_size_of_its_drivers_options(written: str, size: str) -> None:
    text = f"volumes:\n  v: {{driver: local, driver_opts: {{size: {written}}}}}\n"
    assert trees(text)["Volume/v"] == {"size": size}


@pytest.mark.parametrize("written", ["0", "'0'", "0g", "0.0"])
def test_a_size_of_0_is_no_size_as_for_the_engine(written: str) -> None:
    assert trees(f"volumes:\n  v: {{driver_opts: {{size: {written}}}}}\n")["Volume/v"] == {}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("{type: none, o: bind, device: /etc}", "compose.refused"),
        ("{size: 1g, o: uid=0}", "compose.refused"),
        ("{size: big}", "compose.value"),
        ("{size: 1500}", "compose.value"),
        ("{size: 1023}", "compose.value"),
        ("{size: -1}", "compose.value"),
    ],
)
def test_another_option_of_a_volume_is_refused(options: str, code: str) -> None:
    text = f"volumes:\n  v: {{driver_opts: {options}}}\n"
    assert {line.split()[2].rstrip(":") for line in problems(text)} == {code}
    assert desired(text).blind_keys == {Key("Volume", "shop", "v")}


def test_external_volumes_and_networks_have_their_name_on_the_engine() -> None:
    found = trees(
        "services:\n  web: {image: 'x:1', networks: {default: null}}\n"
        "volumes:\n  v: {external: true, name: shop_v}\n  w: {external: true}\n"
        "networks:\n  default: {external: true, name: proxy}\n"
    )
    assert found["Volume/v"] == {"engineName": "shop_v"}
    assert found["Volume/w"] == {"engineName": "w"}
    assert found["Network/default"] == {"engineName": "proxy", "internal": False}
    assert found["Service/web"]["network"] == {"mode": "declared", "attach": ["default"]}


def test_configs_and_secrets_become_resources() -> None:
    found = trees(
        "configs:\n  app: {file: ./app.conf}\n  text: {content: hello}\n  other: {external: true, name: o}\n"
        "secrets:\n  db: {file: ./secrets/db.txt}\n"
    )
    assert found == {
        "Config/app": {"files": {"app": "app.conf"}},
        "Config/text": {"data": {"text": "hello"}},
        "Secret/db": {"file": {"db": "db.txt"}},
    }


def test_files_of_secrets_with_one_base_name_are_a_problem() -> None:
    text = (
        "services:\n  web: {image: 'x:1', secrets: [{source: api}]}\n"
        "secrets:\n  db: {file: ./db/key}\n  same: {file: ./db/key}\n  api: {file: ./api/key}\n"
    )
    state = desired(text)
    errors = [f"{p.line} {p.code}: {p.message}" for p in state.problems if p.severity == "error"]
    assert (
        "6 compose.name-clash: ./api/key and ./db/key of db are one file, key, for the broker"
        in errors
    )
    assert Key("Secret", "shop", "api") in state.blind_keys
    assert {each.key.name for each in state.secrets} == {"db", "same"}


def test_a_plain_secret_names_the_command_that_puts_it_in_place() -> None:
    (warning,) = translation("secrets:\n  db: {file: ./secrets/db.txt}\n").problems
    assert "read from /etc/trimtab/secrets/shop/db.txt by the broker" in warning.message
    assert (
        "sudo install -m 600 -D ./secrets/db.txt /etc/trimtab/secrets/shop/db.txt" in warning.remedy
    )
    assert "trimtab secret encrypt" in warning.remedy
    assert translation("secrets:\n  db: {file: /etc/trimtab/secrets/shop/db.txt}\n").problems == ()


def test_warnings_are_bounded_and_errors_are_not() -> None:
    services = "".join(
        f"  s{n}: {{image: 'x:1', mac_address: 'a', platform: linux/amd64}}\n" for n in range(300)
    )
    found = translation(f"services:\n{services}").problems
    assert sum(p.severity == "error" for p in found) == 300
    warnings = [p for p in found if p.severity == "warning"]
    assert len(warnings) == 201
    assert warnings[-1].message == "100 more warnings of the project are not listed"


def test_addresses_and_subnets_that_count_are_translated() -> None:
    text = """
services:
  dns: {image: x, networks: {lan: {ipv4_address: 192.168.1.200}}}
  db: {image: x, networks: {back: {ipv4_address: 10.80.4.10, aliases: [data]}, six: {}}}
networks:
  lan:
    driver: macvlan
    driver_opts: {parent: eth0}
    ipam: {config: [{subnet: 192.168.1.0/24, gateway: 192.168.1.1}]}
  back: {ipam: {config: [{subnet: 10.80.4.0/24, gateway: 10.80.4.1}]}}
  six: {enable_ipv6: true, ipam: {config: [{subnet: "fd12:3::/64"}, {subnet: 10.80.5.0/24}]}}
"""
    made = trees(text)
    assert made["Network/lan"] == {
        "internal": False,
        "macvlan": "eth0",
        "subnet": "192.168.1.0/24",
        "ipRange": "192.168.1.200/32",
        "gateway": "192.168.1.1",
    }
    assert made["Network/back"] == {"internal": False, "subnet": "10.80.4.0/24"}
    assert made["Network/six"] == {"internal": False, "ipv6Subnet": "fd12:3::/64"}
    assert made["Service/dns"]["rollout"] == {"order": "StopFirst"}
    assert made["Service/dns"]["network"]["attach"] == [{"name": "lan", "address": "192.168.1.200"}]
    assert made["Service/db"]["network"]["attach"] == [
        {"name": "back", "aliases": ["data"], "address": "10.80.4.10"},
        "six",
    ]


def test_options_of_a_networks_driver_are_refused() -> None:
    for network in ("{driver_opts: {parent: eth0}}", "{driver: macvlan, driver_opts: {mode: x}}"):
        assert desired(f"networks:\n  n: {network}\n").blind_keys == {Key("Network", "shop", "n")}


def test_a_volume_on_another_machine_is_translated() -> None:
    text = """
volumes:
  films:
    driver_opts: {type: nfs, o: "addr=10.0.0.9,nfsvers=4.1,ro", device: ":/export/films"}
"""
    remote = {"type": "nfs", "server": "10.0.0.9", "path": "/export/films"}
    assert trees(text)["Volume/films"] == {"remote": {**remote, "options": ["nfsvers=4.1", "ro"]}}
    wrong = text.replace("ro", "bind")
    assert {line.split()[2].rstrip(":") for line in problems(wrong)} == {"compose.refused"}
