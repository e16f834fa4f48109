"""A container becomes a service of a Compose project, and nothing of it is lost in silence."""

from __future__ import annotations

from typing import Any

from controller.core.compose.from_container import (
    body_of_inspect,
    project_of_containers,
    service_of,
)

IMAGE = {
    "Env": ["PATH=/bin"],
    "Cmd": ["nginx"],
    "Labels": {"maintainer": "x"},
    "User": "101",
    "Healthcheck": {"Test": ["CMD", "x"]},
}
BODY: dict[str, Any] = {
    "Image": "nginx:1.27",
    "User": "101",
    "Env": ["PATH=/bin", "A=b", "C"],
    "Cmd": ["nginx"],
    "Labels": {"maintainer": "x", "a": "b", "com.docker.compose.project": "p"},
    "Healthcheck": {"Test": ["CMD", "x"]},
    "StopTimeout": 5,
    "HostConfig": {
        "Memory": 67108864,
        "MemorySwappiness": -1,
        "NanoCpus": 500_000_000,
        "PidsLimit": 0,
        "CapAdd": ["CHOWN"],
        "NetworkMode": "shop_back",
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        "Binds": ["data:/data", "/etc/x:/x:ro"],
        "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024}}],
        "Tmpfs": {"/run": "size=1m"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse"}],
        "ShmSize": 67108864,
    },
    "NetworkingConfig": {"EndpointsConfig": {"shop_back": {"Aliases": ["www"]}}},
}


def test_a_container_as_a_service() -> None:
    found = service_of("web", BODY, IMAGE)
    assert found.service == {
        "image": "nginx:1.27",
        "cap_add": ["CHOWN"],
        "mem_limit": 67108864,
        "environment": {"A": "b", "C": None},
        "labels": {"a": "b"},
        "stop_grace_period": "5s",
        "cpus": 0.5,
        "ulimits": {"nofile": {"soft": 1, "hard": 2}},
        "devices": [{"source": "/dev/fuse", "target": "/dev/fuse", "permissions": "rwm"}],
        "ports": [{"target": 80, "protocol": "tcp", "published": "8080", "host_ip": "127.0.0.1"}],
        "volumes": [
            {"type": "volume", "source": "data", "target": "/data", "read_only": False},
            {"type": "bind", "source": "/etc/x", "target": "/x", "read_only": True},
            {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1024}},
        ],
        "tmpfs": ["/run:size=1m"],
        "networks": {"shop_back": {"aliases": ["www"]}},
        "restart": "on-failure:3",
        "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
    }
    assert (found.volumes, found.networks, found.lost) == (("data",), ("shop_back",), ())


def test_a_setting_without_an_attribute_is_named() -> None:
    body = {"Image": "x", "HostConfig": {"BlkioWeight": 5}, "Novelty": True, "AttachStdin": True}
    assert service_of("x", body).lost == ("Novelty", "BlkioWeight")


def test_an_inspect_has_no_names_that_the_engine_chose() -> None:
    inspect = {
        "Id": "0123456789abcdef",
        "Config": {"Hostname": "0123456789ab", "Image": "x"},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {"bridge": {"Aliases": ["0123456789ab"]}}},
    }
    body = body_of_inspect(inspect)
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"bridge": {"Aliases": []}}}
    found = service_of("x", body)
    assert found.service == {"image": "x", "networks": {"default": None}}


def test_the_cgroup_namespace_that_an_engine_chooses_is_no_setting() -> None:
    inspect = {"Config": {"Image": "x"}, "HostConfig": {"CgroupnsMode": "host"}}
    chosen = body_of_inspect(inspect, cgroup_version="1")
    assert "cgroup" not in service_of("x", chosen).service
    assert service_of("x", body_of_inspect(inspect)).service["cgroup"] == "host"


def test_the_namespaces_of_others_are_kept_to_be_refused() -> None:
    for mode in ("host", "none", "container:abc"):
        found = service_of("x", {"Image": "x", "HostConfig": {"NetworkMode": mode}})
        assert found.service == {"image": "x", "network_mode": mode}


def test_containers_form_a_project() -> None:
    tree = project_of_containers("shop", (service_of("web", BODY, IMAGE),)).tree
    assert sorted(tree) == ["name", "networks", "services", "volumes"]
    assert (tree["volumes"], tree["networks"]) == ({"data": {}}, {"shop_back": {}})


def test_options_of_mounts_are_kept_or_named() -> None:
    body = {
        "Image": "x",
        "Volumes": {"/own": {}, "/of-image": {}, "/d": {}},
        "MacAddress": "02:42:ac:11:00:02",
        "HostConfig": {
            "Annotations": {"a": "b"},
            "CgroupnsMode": "host",
            "Links": ["/db:/x/db"],
            "PublishAllPorts": True,
            "Binds": ["d:/d:nocopy", "/etc/x:/x:ro,rshared,z", "/etc/y:/y:rprivate"],
            "Mounts": [
                {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Mode": 0o700}},
                {
                    "Type": "volume",
                    "Target": "/v",
                    "Source": "v",
                    "VolumeOptions": {"Subpath": "s", "DriverConfig": {"Name": "nfs"}},
                },
                {"Type": "bind", "Target": "/b", "BindOptions": {"NonRecursive": True}},
            ],
        },
    }
    found = service_of("web", body, {"Volumes": {"/of-image": {}}})
    assert found.service == {
        "image": "x",
        "mac_address": "02:42:ac:11:00:02",
        "annotations": {"a": "b"},
        "cgroup": "host",
        "volumes": [
            {
                "type": "volume",
                "source": "d",
                "target": "/d",
                "read_only": False,
                "volume": {"nocopy": True},
            },
            {
                "type": "bind",
                "source": "/etc/x",
                "target": "/x",
                "read_only": True,
                "bind": {"propagation": "rshared", "selinux": "z"},
            },
            {"type": "bind", "source": "/etc/y", "target": "/y", "read_only": False},
            {"type": "tmpfs", "target": "/t", "tmpfs": {"mode": 0o700}},
            {"type": "volume", "target": "/v", "source": "v", "volume": {"subpath": "s"}},
            {"type": "bind", "target": "/b"},
            {"type": "volume", "target": "/own"},
        ],
    }
    assert found.lost == (
        "Links",
        "PublishAllPorts",
        "VolumeOptions.DriverConfig of /v",
        "BindOptions.NonRecursive of /b",
    )
