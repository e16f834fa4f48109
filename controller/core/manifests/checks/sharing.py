"""Checks of ``spec.shares``: settings of a namespace that the containers don't have, and the other service."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from controller.core.manifests.checks.metadata import valid_name
from controller.core.manifests.declaration import Declaration
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlPath
from controller.model.desired.spec.service import ServiceSpec
from controller.model.desired.spec.sharing import IpcMode, Shares
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, Key, is_dns_label

_SHARES = ("spec", "shares")


def check_shares(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    """Yield the problems of one document with shared namespaces."""
    shares = spec.shares
    if spec.observe is not None:
        network = spec.observe.network and "network" in spec.model_fields_set
        for field, is_wrong in (("shares", shares is not None), ("network", network)):
            if is_wrong:
                message = f"spec.{field} beside spec.observe: the namespaces are the host's"
                path: YamlPath = ("spec", field)
                yield problem_at(
                    document, path, "shares.own", message, remedy="remove it", at_key=True
                )
    if shares is None:
        return
    if not is_dns_label(shares.service, length=SERVICE_NAME_MAX):
        message = f"{json.dumps(shares.service[:80])} is not a valid name of a Service"
        remedy = valid_name(shares.service, SERVICE_NAME_MAX)
        yield problem_at(document, (*_SHARES, "service"), "shares.name", message, remedy=remedy)
    if not (shares.network or shares.ipc or shares.pid):
        message = "spec.shares names no namespace"
        remedy = "write network: true, ipc: true or pid: true"
        yield problem_at(document, _SHARES, "shares.nothing", message, remedy=remedy, at_key=True)
    for own_path, namespace in _own_settings(spec, shares):
        yield problem_at(
            document,
            own_path,
            "shares.own",
            f"{'.'.join(map(str, own_path))} belongs to the namespace {namespace}, which is that of {shares.service}",
            remedy=f"write it in the document of {shares.service}",
            at_key=True,
        )


def _own_settings(spec: ServiceSpec, shares: Shares) -> Iterator[tuple[YamlPath, str]]:
    """Yield the settings of the shared namespaces, with the name of the namespace."""
    check = spec.healthcheck
    if shares.network:
        for field, is_set in (
            ("network", "network" in spec.model_fields_set),
            ("ports", spec.ports),
            ("hostname", spec.hostname),
            ("domainname", spec.domainname),
            ("extraHosts", spec.extra_hosts),
            ("dns", "dns" in spec.model_fields_set),
        ):
            if is_set:
                yield ("spec", field), "network"
        if check is not None and check.probed:
            yield ("spec", "healthcheck", "http" if check.http is not None else "tcp"), "network"
    for name in spec.sysctls:
        of_network = name.startswith("net.")
        if shares.network if of_network else shares.ipc:
            yield ("spec", "sysctls", name), "network" if of_network else "ipc"
    if shares.ipc:
        if spec.ipc is not IpcMode.PRIVATE:
            yield ("spec", "ipc"), "ipc"
        if spec.resources.shm is not None:
            yield ("spec", "resources", "shm"), "ipc"


def check_shared_services(
    services: Iterable[tuple[Declaration, ServiceSpec]], broken: Collection[Key]
) -> Iterator[Problem]:
    """Yield the problems of services that share the namespaces of other services.

    An undeclared service is reported as an undeclared dependency.
    """
    known = {declaration.key: (declaration, spec) for declaration, spec in services}
    for declaration, spec in known.values():
        shares = spec.shares
        if shares is None or declaration.key in broken:
            continue
        found = known.get(Key("Service", declaration.key.namespace, shares.service))
        if found is not None:
            yield from _with_other(declaration, spec, shares, *found)


def _with_other(
    declaration: Declaration,
    spec: ServiceSpec,
    shares: Shares,
    other: Declaration,
    others: ServiceSpec,
) -> Iterator[Problem]:
    name, path = shares.service, (*_SHARES, "service")
    if other.owner != declaration.owner:
        message = f"{name} ({other.place}) has another owner"
        yield declaration.problem(
            path, "shares.owner", message, "share with a service of one owner"
        )
    if others.shares is not None and other.key != declaration.key:
        message = f"{name} ({other.place}) shares the namespaces of {others.shares.service} itself"
        remedy = f"write service: {others.shares.service}"
        yield declaration.problem(path, "shares.chain", message, remedy)
    if shares.ipc and others.ipc is not IpcMode.SHAREABLE:
        message = f"{name} ({other.place}) keeps its IPC to itself"
        remedy = f"write ipc: shareable for {name}"
        yield declaration.problem((*_SHARES, "ipc"), "shares.ipc", message, remedy)
    if spec.replicas > others.replicas > 0:
        message = f"{spec.replicas} replicas can't share with {others.replicas} of {name}"
        remedy = f"write replicas: {others.replicas}, or more replicas of {name}"
        yield declaration.problem(("spec", "replicas"), "shares.replicas", message, remedy)
