"""Requests to the broker: each action of a plan is a single request. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never
from urllib.parse import quote

from controller.core.engine_api import create_body, translate
from controller.engine.transport import TIMEOUT_S, OutgoingRequest
from controller.model.desired import plan as actions
from controller.model.desired.spec.lifecycle import HOOKS_S
from controller.model.names import NetworkNames

STOP_MARGIN_S = 15.0
#: A step of a build can be silent for long. The broker bounds the time of the whole build.
BUILD_IDLE_TIMEOUT_S = 86_400.0

CreateAction = (
    actions.CreateNetwork | actions.CreateVolume | actions.DeliverFiles | actions.CreateContainer
)
ChangeAction = actions.ContainerChange | actions.RemoveNetwork | actions.RemoveVolume


def create_request(action: CreateAction, networks: NetworkNames) -> OutgoingRequest:
    """Return the request that creates an object."""
    match action:
        case actions.CreateNetwork():
            body = translate.network_body(action)
            return OutgoingRequest("POST", "/networks/create", body=body, id_member="Id")
        case actions.CreateVolume():
            body = translate.volume_body(action)
            return OutgoingRequest("POST", "/volumes/create", body=body, id_member="Name")
        case actions.DeliverFiles():
            path = f"/trimtab/v1/files/{action.kind}/{action.object.namespace}/{action.target}"
            return OutgoingRequest("PUT", path, body=translate.files_body(action))
        case actions.CreateContainer():
            body = create_body.container_body(action, networks)
            query = {"name": action.target}
            return OutgoingRequest("POST", "/containers/create", query, body, id_member="Id")
        case _:
            assert_never(action)


def build_request(action: actions.BuildImage, archive: Iterator[bytes]) -> OutgoingRequest:
    """Return the request that builds an image from the archive of a context."""
    query = translate.build_query(action)
    return OutgoingRequest("POST", "/build", query, pieces=archive, timeout_s=BUILD_IDLE_TIMEOUT_S)


def move_request(action: actions.MoveService) -> OutgoingRequest:
    """Return the request to record a move. It changes the broker's inventory alone."""
    return OutgoingRequest("POST", "/trimtab/v1/records", body=translate.move_body(action))


def change_request(action: ChangeAction) -> OutgoingRequest:
    """Return the request that changes or removes the object with the precondition's id."""
    assert action.precondition.id, "an action on an existing object has its id"
    subject = quote(action.precondition.id, safe="")
    container = f"/containers/{subject}"
    match action:
        case actions.StartContainer():
            # The reply comes after the hooks of the start.
            return OutgoingRequest("POST", f"{container}/start", timeout_s=TIMEOUT_S + HOOKS_S)
        case actions.UpdateContainer():
            body = translate.update_body(action)
            return OutgoingRequest("POST", f"{container}/update", body=body)
        case actions.StopContainer():
            query = {"t": str(action.grace_s)}
            timeout_s = action.grace_s + STOP_MARGIN_S
            return OutgoingRequest("POST", f"{container}/stop", query, timeout_s=timeout_s)
        case actions.SignalContainer():
            return OutgoingRequest("POST", f"{container}/kill", {"signal": action.signal})
        case actions.UnpauseContainer():
            return OutgoingRequest("POST", f"{container}/unpause")
        case actions.RenameContainer():
            return OutgoingRequest("POST", f"{container}/rename", {"name": action.name})
        case actions.ConnectNetwork() | actions.DisconnectNetwork():
            return _membership_request(action)
        case actions.RemoveContainer():
            return OutgoingRequest("DELETE", container)
        case actions.RemoveNetwork() | actions.RemoveVolume():
            kind = "networks" if isinstance(action, actions.RemoveNetwork) else "volumes"
            return OutgoingRequest("DELETE", f"/{kind}/{subject}")
        case _:
            assert_never(action)


def split_reference(reference: str) -> tuple[str, str]:
    """Return the two parameters of a pull: the repository, and its digest or tag."""
    repository, at, digest = reference.partition("@")
    stem, colon, tag = repository.rpartition(":")
    tagged = bool(colon) and "/" not in tag
    if at:
        return (stem if tagged else repository, digest)
    return (stem, tag) if tagged else (repository, "latest")


def _membership_request(
    action: actions.ConnectNetwork | actions.DisconnectNetwork,
) -> OutgoingRequest:
    network, container = quote(action.network, safe=""), action.precondition.id
    if isinstance(action, actions.ConnectNetwork):
        body = translate.joining_body(container, action.aliases)
        return OutgoingRequest("POST", f"/networks/{network}/connect", body=body)
    body = translate.joining_body(container)
    return OutgoingRequest("POST", f"/networks/{network}/disconnect", body=body)
