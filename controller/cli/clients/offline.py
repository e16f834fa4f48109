"""Verdicts on documents without an engine, for ``validate``, ``render`` and ``policy check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli.clients.socket_client import BrokerApi
from controller.model.errors import EngineUnavailable
from controller.model.policy.shipped import DEFAULT_POLICY
from controller.settings import read_in_force, read_instance, state_of

if TYPE_CHECKING:
    from controller.core.engine_api.requests import Finding
    from controller.core.rules.verdict import AdmissionDecision
    from controller.model.desired.desired import Desired, Service
    from controller.model.desired.plan import CreateContainer
    from controller.model.errors import Problem
    from controller.model.names import Key
    from controller.model.policy.document import Policy
    from controller.model.records import Verdict

#: Stands for the content of a Secret: no rule depends on the id.
_UNKNOWN_CONTENT = f"hmac:{'0' * 64}"


def preview_creations(desired: Desired, policy: Policy) -> Iterator[tuple[Key, Verdict]]:
    """Yield the policy's verdict on the create of each declared resource.

    A service has the verdict on its first container: no rule reads a field that differs by slot.
    """
    from controller.core.admission.preview import check_network, check_volume
    from controller.core.engine_api.translate import network_body, volume_body
    from controller.core.planning.images_networks_volumes import network_creation, volume_creation
    from controller.core.policy.refusals import verdict_in_document
    from controller.core.rules.verdict import deny

    for action, admission in check_creations(desired, policy):
        found = check_built(action.service, policy)
        judged = deny((*found, *admission.findings)) if found else admission
        yield action.object, verdict_in_document(judged, action.service, policy)
    for network in desired.networks:
        body = network_body(network_creation(network, "as declared"))
        yield network.key, verdict_in_document(check_network(policy, body), network, policy)
    for volume in desired.volumes:
        body = volume_body(volume_creation(volume.engine_name, volume, "as declared"))
        yield volume.key, verdict_in_document(check_volume(policy, body), volume, policy)


def check_built(service: Service, policy: Policy) -> tuple[Finding, ...]:
    """Return why the image of a service can't be built; empty for an image that is pulled."""
    from controller.core.admission.preview import check_build
    from controller.core.planning.images_networks_volumes import image_action
    from controller.model.desired.plan import BuildImage

    action = image_action(service, service.spec.image, "as declared")
    return check_build(policy, action) if isinstance(action, BuildImage) else ()


def check_creations(
    desired: Desired, policy: Policy
) -> Iterator[tuple[CreateContainer, AdmissionDecision]]:
    """Yield the create of the first container of each service and job, with its admission and findings."""
    from controller.core.admission.preview import check_create
    from controller.core.engine_api.create_body import container_body
    from controller.core.planning.images_networks_volumes import Prerequisites
    from controller.core.planning.slot_plan import hypothetical_create
    from controller.core.rules.context import CONTROLLER
    from controller.model.observed import Observed

    networks = policy.networks.names
    prerequisites = Prerequisites(desired, Observed(instance=""), networks)
    for service in desired.workloads:
        action = hypothetical_create(_with_contents(service), prerequisites)
        body = container_body(action, networks)
        yield action, check_create(policy, body, name=action.target, actor=CONTROLLER)


def _with_contents(service: Service) -> Service:
    """Return a service with an id for each content that only a broker knows, such as a Secret's."""
    if all(delivery.content for delivery in service.deliveries):
        return service
    deliveries = (
        each if each.content else replace(each, content=_UNKNOWN_CONTENT)
        for each in service.deliveries
    )
    return replace(service, deliveries=tuple(deliveries))


def render_chart(
    chart: Path, values: Path | None, *, name: str, namespace: str
) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """Return the rendered texts of a chart by file, and the problems.

    The places of problems of the values are those in the file *values*.
    """
    from controller.core.manifests.parse import read_text
    from controller.sources.charts import ChartRenderer, load_chart

    names = {"name": name, "namespace": namespace, "owner": "render"}
    folder = chart.resolve()
    head = [
        *("apiVersion: trimtab/v1", "kind: Release", f"metadata: {json.dumps(names)}"),
        *("spec:", f"  chart: {json.dumps(folder.name)}"),
    ]
    file = str(values or chart)
    text = values.read_text() if values is not None else ""
    lines = ["" if line == "---" else line for line in text.splitlines()]
    if any(line.split("#")[0].strip() for line in lines):
        head.append("  values:")
    else:
        lines = []  # no value can stand below a key
    reading, *more = read_text("\n".join([*head, *(f"    {line}" for line in lines), ""]), file)

    def in_values(problem: Problem) -> Problem:
        if problem.file != file:
            return problem
        line = problem.line - len(head)
        column = problem.column - 4 if line > 0 else 0
        return replace(problem, line=max(line, 0), column=max(column, 0))

    if reading.declaration is None or more:
        problems = (problem for each in (reading, *more) for problem in each.problems)
        return {}, tuple(map(in_values, problems))
    with ChartRenderer().reading() as render:
        rendered = render(reading.declaration, load_chart(folder.parent, folder.name))
    return (rendered, ()) if isinstance(rendered, dict) else ({}, tuple(map(in_values, rendered)))


def policy_in_force(explicit: str | None, root: Path, directory: Path | None = None) -> Policy:
    """Return the given policy, else the running broker's, else *root*'s instance's, else strict.

    Exceptions that ended permit nothing. Without a running broker, *directory* or the instance's is the
    directory of the desired state.

    Raises:
        PolicyInvalid: the file isn't a valid policy.
        UsageError: no policy has the name.
    """
    from controller.app.policy import (
        policy_file,
        policy_from_route,
        policy_of_directory,
        read_policy,
    )
    from controller.app.process import SystemClock

    instance = read_instance(root)
    if explicit is None and instance is not None:
        try:
            body = BrokerApi(state_of(root, instance).broker_socket).get("policy")
            return policy_from_route(body).at(SystemClock().now())
        except EngineUnavailable:
            explicit = read_in_force(root).settings.policy
    policy = read_policy(policy_file(explicit or DEFAULT_POLICY)).at(SystemClock().now())
    folder = directory or (instance and instance.dir)
    return policy_of_directory(policy, folder) if folder else policy
