"""The details of a service in a status report: ports, mounts, variables, containers.

Pure. Details are only shown; no decision depends on them. A report has the names of variables,
never their values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.core.drift.failures import explain
from controller.core.rules.images.anonymous_volumes import slot_volumes
from controller.model.confinement import Gap
from controller.model.desired.desired import Service, SourceLocation
from controller.model.desired.spec.files import FileMount
from controller.model.desired.spec.mounts import BindMount, Mount, TmpfsMount, VolumeMount
from controller.model.desired.spec.network import SinglePort
from controller.model.desired.spec.service import ServiceSpec
from controller.model.files.delivery import Delivery, MountedFiles
from controller.model.observed import Container

#: The status as JSON, or an object within it.
Report = dict[str, object]

#: Container ports on which images usually serve HTTP. Their addresses become links.
HTTP_PORTS = frozenset({80, 3000, 5000, 8000, 8008, 8080, 8081, 8088, 8888, 9090})
HTTPS_PORTS = frozenset({443, 8443})


def details_of(
    spec: ServiceSpec, deliveries: Iterable[Delivery] = (), containers: Iterable[Container] = ()
) -> Report:
    """Return the members ``ports``, ``mounts`` and ``env``, without the empty ones.

    *deliveries* are the files of the mounts. A container of *containers* that was adopted with the gap
    ``ports`` publishes them on other addresses than the document's.
    """
    wider = [port for each in containers if Gap.PORTS in each.gaps for port in each.ports]
    found = {(port.port, port.protocol): port.address for port in reversed(wider)}
    contents = {each.target: each.content for each in deliveries if not each.variable}
    details = {
        "ports": [_port(port, spec, found) for each in spec.ports for port in each.each],
        "mounts": [_mount(mount, contents.get(mount.target, "")) for mount in spec.mounts],
        "env": sorted(spec.env),
    }
    return {name: value for name, value in details.items() if value}


def place_details(source: SourceLocation) -> Report:
    """Return the member ``declared``, the place of a resource that was made from another file's values."""
    return {"declared": f"{source.file}:{source.line}"} if source.places is not None else {}


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
        "files": [_files(mounted) for mounted in container.files],
        "adopted": container.adopted,
        "gaps": list(container.gaps),
    }
    return {name: value for name, value in details.items() if value}


def _files(mounted: MountedFiles) -> Report:
    """Return the content that a container sees at a target."""
    signalled = mounted.content if mounted.shown not in ("", mounted.content) else ""
    return {
        "source": f"{mounted.kind}/{mounted.name}",
        "target": mounted.target,
        "content": mounted.shown or mounted.content,
        # The container has had no signal for the content that it sees.
        **({"before": signalled} if signalled else {}),
    }


def _port(port: SinglePort, spec: ServiceSpec, found: Mapping[tuple[int, str], str]) -> Report:
    published = port.host is not None
    address = found.get((port.host or 0, port.protocol), port.host_ip)
    return {
        "container": port.container,
        "protocol": port.protocol,
        **({"host": port.host, "address": address} if published else {}),
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


def _mount(mount: Mount, content: str) -> Report:
    source = "" if isinstance(mount, TmpfsMount) else mount.source
    read_only = isinstance(mount, (BindMount, VolumeMount)) and mount.read_only
    files: Report = {}
    if isinstance(mount, FileMount):
        files = {"content": content, "onChange": mount.reaction}
        files |= {"key": mount.key} if mount.key else {}
    return {
        "type": mount.type,
        **({"source": source} if source else {}),
        "target": mount.target,
        **({"readOnly": True} if read_only else {}),
        **files,
    }
