"""The details of a service in a status report: ports, mounts, variables, containers.

Pure. Details are only shown; no decision depends on them. A report has the names of variables,
never their values.
"""

from __future__ import annotations

from controller.core.drift.failures import explain
from controller.core.rules.images.anonymous_volumes import slot_volumes
from controller.model.desired.desired import Service
from controller.model.desired.spec.mounts import BindMount, Mount, VolumeMount
from controller.model.desired.spec.network import SinglePort
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import Container

#: The status as JSON, or an object within it.
Report = dict[str, object]

#: Container ports on which images usually serve HTTP. Their addresses become links.
HTTP_PORTS = frozenset({80, 3000, 5000, 8000, 8008, 8080, 8081, 8088, 8888, 9090})
HTTPS_PORTS = frozenset({443, 8443})


def details_of(spec: ServiceSpec) -> Report:
    """Return the members ``ports``, ``mounts`` and ``env``, without the empty ones."""
    details = {
        "ports": [_port(port, spec) for each in spec.ports for port in each.each],
        "mounts": [_mount(mount) for mount in spec.mounts],
        "env": sorted(spec.env),
    }
    return {name: value for name, value in details.items() if value}


def volume_details(service: Service, replicas: int) -> Report:
    """Return the member ``volumes``: the volumes of slots for the VOLUMEs of the image."""
    volumes = [
        {"slot": number, "path": volume.path, "keeping": volume.keeping, "volume": name}
        for number in range(1, replicas + 1)
        for volume, name in slot_volumes(service, number)
    ]
    return {"volumes": volumes} if volumes else {}


def container_details(container: Container) -> Report:
    """Return the members of a slot's row about its container, without the unknown ones."""
    details = {
        "id": container.id,
        "started": container.started_at if container.running else "",
        "addresses": [
            {"network": network, "address": address}
            for network, address in container.addresses
            if address
        ],
        "cause": explain(container),
        "effective": container.effective,
        "violation": container.violation,
    }
    return {name: value for name, value in details.items() if value}


def _port(port: SinglePort, spec: ServiceSpec) -> Report:
    published = port.host is not None
    return {
        "container": port.container,
        "protocol": port.protocol,
        **({"host": port.host, "address": port.host_ip} if published else {}),
        **({"scheme": scheme} if (scheme := _scheme(port, spec)) else {}),
    }


def _scheme(port: SinglePort, spec: ServiceSpec) -> str:
    """Return ``http`` or ``https`` if the port most probably serves it; '' otherwise."""
    if port.protocol != "tcp":
        return ""
    check = spec.healthcheck.http if spec.healthcheck else None
    if (check and check.port == port.container) or port.container in HTTP_PORTS:
        return "http"
    return "https" if port.container in HTTPS_PORTS else ""


def _mount(mount: Mount) -> Report:
    source = mount.source if isinstance(mount, (BindMount, VolumeMount)) else ""
    read_only = isinstance(mount, (BindMount, VolumeMount)) and mount.read_only
    return {
        "type": mount.type,
        **({"source": source} if source else {}),
        "target": mount.target,
        **({"readOnly": True} if read_only else {}),
    }
