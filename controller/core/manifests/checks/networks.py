"""Checks of the ports and networks of a Service."""

from __future__ import annotations

import json
from collections.abc import Iterator

from controller.core.manifests.checks.metadata import valid_name
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlPath
from controller.model.desired.spec.network import NetworkMode, Port, SinglePort
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, is_dns_label


def check_ports(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    """Yield the problems of ports: twice in the list, without a network, or with several replicas."""
    if spec.ports and spec.network.mode is NetworkMode.NONE:
        yield problem_at(
            document,
            ("spec", "ports"),
            "port.no-network",
            "a container on network mode none can't have ports",
            remedy="use mode isolated, or remove the ports",
            at_key=True,
        )
    seen: set[SinglePort] = set()
    for index, entry in enumerate(spec.ports):
        path: YamlPath = ("spec", "ports", index)
        ports = [_identity(port) for port in entry.each]
        if twice := [port for port in ports if port in seen]:
            message = f"port {twice[0].container}/{entry.protocol} is listed twice"
            yield problem_at(document, path, "port.duplicate", message, remedy="remove one of them")
        seen.update(ports)
        if entry.host is not None and spec.replicas > 1:
            yield _replicas(document, (*path, "host"), entry, spec.replicas)


def _identity(port: SinglePort) -> SinglePort:
    """Return a port without its address, if the address has no effect."""
    return port if port.host else SinglePort(port.container, None, "", port.protocol)


def _replicas(document: Document, path: YamlPath, entry: Port, replicas: int) -> Problem:
    what = "host port" if isinstance(entry.host, int) else "host ports"
    return problem_at(
        document,
        path,
        "port.replicas",
        f"{what} {entry.host} can belong to one replica only, and replicas is {replicas}",
        remedy="set replicas: 1, or publish a single service in front of this one",
    )


def names_of(spec: ServiceSpec) -> Iterator[tuple[str, YamlPath]]:
    """Yield the names that a service's containers answer to besides the service's own name."""
    network: YamlPath = ("spec", "network")
    if spec.hostname is not None:
        yield spec.hostname, ("spec", "hostname")
    for index, alias in enumerate(spec.network.aliases):
        yield alias, (*network, "aliases", index)
    for number, attached in enumerate(spec.network.attach):
        for index, alias in enumerate(attached.aliases):
            yield alias, (*network, "attach", number, "aliases", index)


def check_networks(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    """Yield the problems of a network mode with the names and the attached networks."""
    path: YamlPath = ("spec", "network", "attach")
    yield from _check_mode(document, spec)
    seen: set[str] = set()
    for index, attached in enumerate(spec.network.attach):
        name = attached.name
        if "/" in name:
            message = "attaching to a network of another namespace is not supported yet"
            remedy = "name a Network of this namespace, without a slash"
            yield problem_at(document, (*path, index), "unsupported", message, remedy=remedy)
        elif not is_dns_label(name, length=SERVICE_NAME_MAX):
            message = f"{json.dumps(name[:80])} is not a valid name of a Network"
            remedy = valid_name(name, SERVICE_NAME_MAX)
            yield problem_at(document, (*path, index), "network.name", message, remedy=remedy)
        elif name in seen:
            message, remedy = f"network {name} is listed twice", "remove one of them"
            yield problem_at(document, (*path, index), "network.duplicate", message, remedy=remedy)
        if attached.address and spec.replicas > 1:
            yield problem_at(
                document,
                (*path, index, "address"),
                "address.replicas",
                f"{attached.address} can belong to one replica only, and replicas is {spec.replicas}",
                remedy="set replicas: 1, or leave the address out and use the service's name",
            )
        seen.add(name)


def _check_mode(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    network, path = spec.network, ("spec", "network")
    if network.mode is NetworkMode.NONE:
        if network.attach:
            yield problem_at(
                document,
                (*path, "attach"),
                "network.none",
                "a container on network mode none can't be attached to other networks",
                remedy="use mode isolated, or remove attach",
                at_key=True,
            )
        if network.aliases:
            yield problem_at(
                document,
                (*path, "aliases"),
                "network.none",
                "a container on network mode none has no names on networks",
                remedy="use mode isolated, or remove aliases",
                at_key=True,
            )
    if network.mode is NetworkMode.DECLARED:
        if not network.attach:
            yield problem_at(
                document,
                (*path, "mode"),
                "network.nothing-declared",
                "mode declared joins the networks in attach only, and attach is empty",
                remedy="write attach: [NAME] with a declared Network, or mode: none",
            )
        if network.aliases:
            yield problem_at(
                document,
                (*path, "aliases"),
                "network.nothing-implied",
                "mode declared implies no network on which aliases could resolve",
                remedy="write the names at a network: attach: [{name: NETWORK, aliases: [NAME]}]",
                at_key=True,
            )
