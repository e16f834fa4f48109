"""What a report says of a service's ports, mounts, variables and containers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.status.facts import container_details, details_of, place_details
from controller.model.desired.desired import SourceLocation
from controller.model.errors import SourcePosition, ValuePlaces
from controller.model.observed import ContainerState
from tests.worlds import container, service


def ports(*declared: dict[str, Any], **more: Any) -> Any:
    return details_of(service(ports=list(declared), **more).spec).get("ports")


@pytest.mark.parametrize(
    ("port", "scheme"),
    [
        ({"container": 8080, "host": 18080}, "http"),
        ({"container": 8443, "host": 443}, "https"),
        ({"container": 5432, "host": 5432}, None),
        ({"container": 80, "host": 80, "protocol": "udp"}, None),
        ({"container": 80}, "http"),
    ],
)
def test_a_port_of_a_web_server_has_a_scheme(port: dict[str, Any], scheme: str) -> None:
    assert ports(port)[0].get("scheme") == scheme


def test_a_port_that_is_asked_by_http_speaks_http() -> None:
    check = {"http": {"path": "/", "port": 7777}}
    (found,) = ports({"container": 7777, "host": 17777}, healthcheck=check)
    assert found == {
        "container": 7777,
        "protocol": "tcp",
        "host": 17777,
        "address": "127.0.0.1",
        "scheme": "http",
    }


def test_mounts_and_the_names_of_variables_are_shown_and_never_values() -> None:
    mounts = [
        {"type": "volume", "source": "data", "target": "/data"},
        {"type": "bind", "source": "/srv/conf", "target": "/conf", "readOnly": True},
        {"type": "tmpfs", "target": "/tmp", "size": "64Mi"},
    ]
    details = details_of(service(mounts=mounts, env={"PASSWORD": "hunter2", "A": "b"}).spec)
    assert details == {
        "mounts": [
            {"type": "volume", "source": "data", "target": "/data"},
            {"type": "bind", "source": "/srv/conf", "target": "/conf", "readOnly": True},
            {"type": "tmpfs", "target": "/tmp"},
        ],
        "env": ["A", "PASSWORD"],
    }
    assert details_of(service().spec) == {}


def test_a_container_has_the_addresses_and_the_start_of_one_that_runs() -> None:
    running = container(
        addresses=(("net", "172.20.0.2"), ("other", "")), started_at="2026-03-01T12:00:00Z"
    )
    assert container_details(running) == {
        "id": running.id,
        "started": "2026-03-01T12:00:00Z",
        "addresses": [{"network": "net", "address": "172.20.0.2"}],
    }
    ended = replace(running, state=ContainerState.EXITED, exit_code=3, addresses=())
    assert container_details(ended) == {"id": running.id, "cause": "exited with 3"}


def test_a_service_of_a_compose_file_says_where_it_is_declared() -> None:
    place = SourcePosition(2, 3, "shop/compose.yaml")
    source = SourceLocation("shop/compose.yaml", 2, places=ValuePlaces((((), place),)))
    assert place_details(source) == {"declared": "shop/compose.yaml:2"}
    assert place_details(SourceLocation("web.yaml", 2)) == {}
