"""Bodies to the engine, and inspects from the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.core.engine_api import create_body, translate
from controller.model import observed
from controller.model.desired.desired import Service, SourceLocation
from controller.model.desired.plan import CreateNetwork, CreateVolume, UpdateContainer
from controller.model.desired.spec.service import ServiceSpec
from controller.model.inventory import ContainerItem, OwnedObject
from controller.model.names import NetworkNames, service_key
from controller.model.observed import ContainerState, Settings

NAMES = NetworkNames()
WEB = service_key("default", "web")
REVISION = "v2:" + "0123456789abcdef" * 4


def service(namespace: str = "default", **spec: object) -> Service:
    written = {"image": "trimtab.local/web:1", **spec}
    return Service(
        key=service_key(namespace, "web"),
        owner="team",
        spec=ServiceSpec.model_validate_json(json.dumps(written)),
        revision=REVISION,
        source=SourceLocation("web.yaml", 1),
    )


def check(spec: dict[str, object], body: dict[str, Any], *, namespace: str = "default") -> None:
    """Compare the body of slot 2, without what every service has in common."""
    made = create_body.create_body(
        service(namespace, **spec), slot=2, image="trimtab.local/web:1", networks=NAMES
    )
    common = create_body.create_body(
        service(namespace), slot=2, image="trimtab.local/web:1", networks=NAMES
    )
    differs = {key: value for key, value in made.items() if common.get(key) != value}
    if "HostConfig" in differs:
        before = common["HostConfig"]
        differs["HostConfig"] = {
            key: value for key, value in made["HostConfig"].items() if before.get(key) != value
        }
    assert differs == body


def test_a_plain_service_becomes_a_body_that_holds_only_what_is_set() -> None:
    body = create_body.create_body(service("prod"), slot=2, image="sha256:ab", networks=NAMES)
    assert body == {
        "Image": "sha256:ab",
        "Labels": {
            "io.trimtab.image": "trimtab.local/web:1",
            "io.trimtab.namespace": "prod",
            "io.trimtab.owner": "team",
            "io.trimtab.revision": REVISION,
            "io.trimtab.service": "web",
            "io.trimtab.slot": "2",
        },
        "StopTimeout": 10,
        "HostConfig": {
            "NetworkMode": "platform-network.prod",
            "RestartPolicy": {"Name": "always"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": "10485760", "max-file": "3"},
            },
        },
        "NetworkingConfig": {"EndpointsConfig": {"platform-network.prod": {"Aliases": ["web"]}}},
    }


def test_environment_is_sorted_and_commands_are_lists() -> None:
    check(
        {
            "env": {"B": "2", "A": "1=1"},
            "entrypoint": ["/bin/web"],
            "command": ["--listen", ":80"],
            "workingDir": "/srv",
            "user": "1000:1000",
            "stopSignal": "SIGINT",
            "stopGracePeriod": "2s",
            "init": True,
        },
        {
            "Env": ["A=1=1", "B=2"],
            "Entrypoint": ["/bin/web"],
            "Cmd": ["--listen", ":80"],
            "WorkingDir": "/srv",
            "User": "1000:1000",
            "StopSignal": "SIGINT",
            "StopTimeout": 2,
            "HostConfig": {"Init": True},
        },
    )


def test_limits_are_in_the_units_of_the_engine() -> None:
    check(
        {
            "resources": {"memory": "512Mi", "cpus": 0.29, "pids": 128, "shm": "64Mi"},
            "security": {"capAdd": ["CHOWN"], "readOnlyRootFilesystem": True},
        },
        {
            "HostConfig": {
                "Memory": 536870912,
                "NanoCpus": 290000000,
                "PidsLimit": 128,
                "ShmSize": 67108864,
                "CapAdd": ["CHOWN"],
                "ReadonlyRootfs": True,
            }
        },
    )


def test_a_volume_is_named_by_its_namespace() -> None:
    check(
        {
            "mounts": [
                {"type": "bind", "source": "/var/lib/x", "target": "/x", "readOnly": True},
                {"type": "volume", "source": "data", "target": "/data"},
                {"type": "tmpfs", "target": "/tmp", "size": "16Mi"},
            ]
        },
        {
            "HostConfig": {
                "Mounts": [
                    {"Type": "bind", "Source": "/var/lib/x", "Target": "/x", "ReadOnly": True},
                    {"Type": "volume", "Source": "prod.data", "Target": "/data"},
                    {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 16777216}},
                ]
            }
        },
        namespace="prod",
    )


def test_a_published_port_adds_the_ingress_network_beside_the_isolated_one() -> None:
    check(
        {"ports": [{"container": 80, "host": 8080}, {"container": 53, "protocol": "udp"}]},
        {
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "HostConfig": {
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
            },
            "NetworkingConfig": {
                "EndpointsConfig": {
                    "platform-network": {"Aliases": ["web"]},
                    "platform-ingress": {"Aliases": ["web"]},
                }
            },
        },
    )


def test_a_port_that_is_not_published_needs_no_way_in() -> None:
    assert create_body.joined_networks(service(ports=[{"container": 80}]), NAMES) == (
        "platform-network",
    )


def test_one_that_is_not_announced_joins_without_its_service_s_name() -> None:
    made = create_body.create_body(service(), slot=1, image="x", networks=NAMES, with_alias=False)[
        "NetworkingConfig"
    ]
    assert made == {"EndpointsConfig": {"platform-network": {}}}


def test_an_update_names_what_it_changes_and_nothing_else() -> None:
    def body(**fields: Any) -> dict[str, Any]:
        action = UpdateContainer(object=WEB, target="x", cause="", **fields)
        return translate.update_body(action)

    assert body() == {}
    assert body(restart="no") == {"RestartPolicy": {"Name": "no"}}
    assert body(restart="on-failure", restart_max=3, limits={"pids": 5}) == {
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "PidsLimit": 5,
    }
    limits = {"memory": 1, "memory_swap": 2, "memory_reservation": 3, "nano_cpus": 4}
    shares = {"cpu_quota": 5, "cpu_period": 6, "cpu_shares": 7}
    assert list(body(limits=limits | shares).values()) == [1, 2, 3, 4, 5, 6, 7]


def test_attached_networks_come_after_the_implied_one() -> None:
    wanted = service("prod", network={"mode": "bridge", "attach": ["db"]})
    assert create_body.joined_networks(wanted, NAMES) == ("platform-bridge.prod", "prod.db")


def test_a_bridge_joins_the_isolated_network_where_the_policy_says_so() -> None:
    wanted = service("prod", network={"mode": "bridge", "attach": ["db"]})
    joined = replace(NAMES, bridge_joins_isolated=True)
    assert create_body.joined_networks(wanted, joined) == (
        "platform-bridge.prod",
        "platform-network.prod",
        "prod.db",
    )
    assert create_body.joined_networks(service(), joined) == ("platform-network",)


def test_a_service_without_network_joins_none() -> None:
    body = create_body.create_body(
        service(network={"mode": "none"}), slot=1, image="x", networks=NAMES
    )
    assert body["HostConfig"]["NetworkMode"] == "none"
    assert "NetworkingConfig" not in body


def test_what_the_controller_probes_has_no_check_of_the_engines_nor_the_images_own() -> None:
    for kind in ("http", "tcp"):
        probed: dict[str, object] = {kind: {"port": 80}, "interval": "10s"}
        check({"healthcheck": probed}, {"Healthcheck": {"Test": ["NONE"]}})


def test_restart_policies_are_the_engines_and_a_health_check_is_in_nanoseconds() -> None:
    check(
        {
            "restart": {"policy": "OnFailure"},
            "healthcheck": {"exec": ["/bin/true"], "interval": "10s", "timeout": "500ms"},
        },
        {
            "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 10}},
            "Healthcheck": {
                "Test": ["CMD", "/bin/true"],
                "Interval": 10_000_000_000,
                "Timeout": 500_000_000,
                "Retries": 3,
                "StartPeriod": 30_000_000_000,
            },
        },
    )
    check(
        {"restart": {"policy": "Never"}},
        {"HostConfig": {"RestartPolicy": {"Name": "no"}}},
    )


def test_no_start_period_is_none_and_not_the_images() -> None:
    check(
        {"healthcheck": {"exec": ["/bin/true"], "startPeriod": "0s"}},
        {
            "Healthcheck": {
                "Test": ["CMD", "/bin/true"],
                "Interval": 30_000_000_000,
                "Timeout": 30_000_000_000,
                "Retries": 3,
                "StartPeriod": 1_000_000,
            },
        },
    )


def test_a_users_label_never_replaces_one_of_ours() -> None:
    body = create_body.create_body(
        service(containerLabels={"tier": "web"}), slot=1, image="x", networks=NAMES
    )
    assert body["Labels"]["tier"] == "web"
    assert body["Labels"]["io.trimtab.slot"] == "1"


def test_an_ingress_network_has_neither_masquerading_nor_traffic_between_containers() -> None:
    action = CreateNetwork(
        object=service_key("prod", "web"),
        target="platform-ingress.prod",
        cause="first use",
        owner="team",
        internal=False,
        masquerade=False,
        icc=False,
    )
    assert translate.network_body(action) == {
        "Name": "platform-ingress.prod",
        "Driver": "bridge",
        "Options": {
            "com.docker.network.bridge.enable_ip_masquerade": "false",
            "com.docker.network.bridge.enable_icc": "false",
        },
        "Labels": {"io.trimtab.owner": "team", "io.trimtab.namespace": "prod"},
    }


def test_a_volume_is_a_plain_local_one() -> None:
    action = CreateVolume(
        object=service_key("default", "db"), target="db-data", cause="first use", owner="team"
    )
    assert translate.volume_body(action) == {
        "Name": "db-data",
        "Driver": "local",
        "Labels": {"io.trimtab.owner": "team", "io.trimtab.namespace": "default"},
    }
    sized = translate.volume_body(replace(action, size=10 << 30))
    assert sized["DriverOpts"] == {"size": "10737418240"}


INSPECT: dict[str, Any] = {
    "Id": "c1",
    "Name": "/web.1-01234567",
    "Image": "sha256:ab",
    "RestartCount": 2,
    "State": {
        "Status": "running",
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "2026-01-01T00:00:00.5Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "Health": {"Status": "healthy"},
    },
    "Config": {
        "StopTimeout": 10,
        "Labels": {
            "io.trimtab.namespace": "default",
            "io.trimtab.service": "web",
            "io.trimtab.slot": "1",
            "io.trimtab.revision": REVISION,
            "io.trimtab.owner": "team",
            "io.trimtab.origin": "controller",
            "io.trimtab.intent": "i1",
            "io.trimtab.image": "trimtab.local/web:1",
        },
    },
    "HostConfig": {
        "Memory": 2147483648,
        "MemorySwap": 2147483648,
        "MemoryReservation": 0,
        "NanoCpus": 1000000000,
        "CpuQuota": 0,
        "CpuPeriod": 0,
        "CpuShares": 0,
        "CpusetCpus": "",
        "PidsLimit": 256,
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    },
    "NetworkSettings": {
        "Networks": {
            "platform-network": {"IPAddress": "172.20.0.2", "Aliases": ["web", "c1"]},
            "platform-ingress": {"IPAddress": "", "Aliases": None},
        }
    },
}
SETTINGS = Settings(
    name="web.1-01234567",
    memory=2147483648,
    memory_swap=2147483648,
    nano_cpus=1000000000,
    pids=256,
    restart="always",
    networks=("platform-ingress", "platform-network"),
)
ITEM = ContainerItem(
    id="c1",
    namespace="default",
    service="web",
    slot=1,
    revision=REVISION,
    owner="team",
    origin="controller",
    intent="i1",
    image="trimtab.local/web:1",
    admitted=SETTINGS,
    started=True,
)
CONTAINER = observed.Container(
    id="c1",
    key=service_key("default", "web"),
    slot=1,
    revision=REVISION,
    owner="team",
    origin="controller",
    intent="i1",
    image="trimtab.local/web:1",
    image_id="sha256:ab",
    state=ContainerState.RUNNING,
    settings=SETTINGS,
    admitted=SETTINGS,
    health="healthy",
    started_at="2026-01-01T00:00:00.5Z",
    restart_count=2,
    stop_grace_s=10,
    addresses=(("platform-network", "172.20.0.2"),),
    # An engine before API 1.45 adds the beginning of the id by itself.
    aliases=(("platform-ingress", ()), ("platform-network", ("web",))),
)


def test_a_container_is_what_the_engine_and_the_inventory_show() -> None:
    assert translate.container(INSPECT, ITEM) == CONTAINER


def test_who_a_container_is_comes_from_the_inventory_and_not_from_its_labels() -> None:
    labels = {**INSPECT["Config"]["Labels"], "io.trimtab.service": "victim"}
    forged = {**INSPECT, "Config": {"StopTimeout": 10, "Labels": labels}}
    assert translate.container(forged, ITEM) == CONTAINER


def test_a_container_that_the_inventory_does_not_know_is_admitted_as_nothing() -> None:
    seen = translate.container(INSPECT, None)
    assert (seen.key, seen.slot, seen.admitted) == (service_key("default", "web"), 1, None)


def test_unlimited_pids_are_one_thing_however_the_engine_writes_them() -> None:
    for shown in (None, 0, -1):
        inspect = {"HostConfig": {"PidsLimit": shown}, "Name": "/x"}
        assert translate.settings(inspect) == Settings(name="x")


def test_a_container_without_network_has_none() -> None:
    inspect = {"Name": "/x", "NetworkSettings": {"Networks": {"none": {"IPAddress": ""}}}}
    assert translate.settings(inspect).networks == ()


@pytest.mark.parametrize(
    ("status", "told", "retries", "health"),
    [
        ("running", {"Status": "healthy"}, 3, "healthy"),
        ("running", {"Status": "none"}, 3, ""),
        ("running", {"Status": "unhealthy", "FailingStreak": 3}, 3, "unhealthy"),
        ("running", {"Status": "unhealthy", "FailingStreak": 3}, 0, "unhealthy"),
        # The engine reports unhealthy after it stopped probing: the state is starting.
        ("running", {"Status": "unhealthy", "FailingStreak": 0}, 3, "starting"),
        ("running", {"Status": "unhealthy", "FailingStreak": 1}, 2, "starting"),
        ("paused", {"Status": "unhealthy", "FailingStreak": 0}, 3, "unhealthy"),
        ("exited", {"Status": "unhealthy", "FailingStreak": 0}, 3, "unhealthy"),
    ],
)
def test_only_probes_that_failed_make_a_container_unhealthy(
    status: str, told: dict[str, Any], retries: int, health: str
) -> None:
    config = {**INSPECT["Config"], "Healthcheck": {"Retries": retries}}
    shown = {**INSPECT, "State": {"Status": status, "Health": told}, "Config": config}
    assert translate.container(shown, ITEM).health == health


@pytest.mark.parametrize(
    ("status", "log", "complaint", "output"),
    [
        (
            "unhealthy",
            [(0, "fine"), (22, "curl: (22) 500\n")],
            "its check exited with 22",
            "curl: (22) 500",
        ),
        ("unhealthy", [(7, "refused"), (0, "fine")], "its check exited with 7", "refused"),
        (
            "unhealthy",
            [(-1, "Health check exceeded timeout (1s): half")],
            "its check took longer than its timeout",
            "Health check exceeded timeout (1s): half",
        ),
        (
            "unhealthy",
            [(-1, "OCI runtime exec failed")],
            "its check can't be run",
            "OCI runtime exec failed",
        ),
        ("unhealthy", [(1, "x" * 4096)], "its check exited with 1", "x" * 511 + "…"),
        ("unhealthy", [], "", ""),
        ("healthy", [(1, "no"), (0, "fine")], "", ""),
    ],
)
def test_an_unhealthy_container_has_the_answer_of_its_last_failed_check(
    status: str, log: list[tuple[int, str]], complaint: str, output: str
) -> None:
    rows = [{"ExitCode": code, "Output": text} for code, text in log]
    health = {"Status": status, "FailingStreak": 3, "Log": rows}
    shown = {**INSPECT, "State": {"Status": "running", "Health": health}}
    seen = translate.container(shown, ITEM)
    assert (seen.complaint, seen.check_output) == (complaint, output)


def test_a_network_is_ours_only_if_the_inventory_says_so() -> None:
    inspect = {
        "Id": "n1",
        "Name": "platform-network",
        "Driver": "bridge",
        "Internal": True,
        "Options": {},
        "Containers": {"c1": {}, "c2": {}},
        "Labels": {"io.trimtab.managed": "true"},
    }
    belonging = OwnedObject("n1", "platform-network", "default", "team", "controller", "i1")
    assert translate.network(inspect, belonging) == observed.ObservedNetwork(
        id="n1",
        name="platform-network",
        ours=True,
        origin="controller",
        namespace="default",
        internal=True,
        containers=2,
    )
    assert not translate.network(inspect, None).ours


def test_the_container_at_the_address_of_a_slot_is_known_by_name() -> None:
    inspect = {"Id": "n1", "Name": "net", "TrimtabHeld": {"10.208.0.2": "guest"}}
    network = translate.network(inspect, None)
    assert network.held == (("10.208.0.2", "guest"),)
    shown = {**INSPECT, "State": {"Status": "exited"}}
    mine = translate.container(shown, ITEM, slot_addresses={"net": "10.208.0.2", "lan": "10.0.0.2"})
    assert translate.with_holders(mine, [network]).holders == (("net", "10.208.0.2", "guest"),)
    other = translate.container(shown, ITEM, slot_addresses={"net": "10.208.0.3"})
    assert translate.with_holders(other, [network]) is other


def test_bridge_options_are_read_as_the_engine_writes_them() -> None:
    inspect = {
        "Id": "n1",
        "Name": "n",
        "Driver": "bridge",
        "Options": {
            "com.docker.network.bridge.enable_ip_masquerade": "false",
            "com.docker.network.bridge.enable_icc": "false",
        },
    }
    seen = translate.network(inspect, None)
    assert (seen.masquerade, seen.icc, seen.internal) == (False, False, False)


def test_a_volume_shows_its_driver_and_options() -> None:
    inspect = {"Name": "data", "Driver": "local", "Options": {"type": "none", "o": "bind"}}
    assert translate.volume(inspect, None) == observed.ObservedVolume(
        name="data", ours=False, driver="local", options=(("o", "bind"), ("type", "none"))
    )


def test_the_size_of_an_image_is_that_of_its_files() -> None:
    assert translate.layers_size([{"Size": 0}, {"Size": 104861696}, {"Size": 2043904}]) == 106905600
    odd: object
    for odd in (None, {}, [1], [{"Size": "1"}]):
        assert translate.layers_size(odd) == 0


def test_an_image_has_the_digest_of_the_repository_that_was_asked_for() -> None:
    inspect = {
        "Id": "sha256:1",
        "RepoDigests": ["other.example/x@sha256:aa", "reg.example:5000/web@sha256:bb"],
    }
    assert translate.image(inspect, "reg.example:5000/web:1") == observed.Image(
        "sha256:1", "sha256:bb"
    )
    assert translate.image({"Id": "sha256:1", "RepoDigests": None}, "web:1") == observed.Image(
        "sha256:1"
    )
