"""Closed schemas of the Engine API's bodies: parsed JSON in, typed requests out."""

from __future__ import annotations

from controller.core.bodies import (
    ConnectRequest,
    CreateRequest,
    Finding,
    NetworkRequest,
    UpdateRequest,
    VolumeRequest,
)


def parse_create(body: object) -> CreateRequest:
    """Return what a create asks for; what is wrong with it is in ``findings``."""
    return CreateRequest(image=str(body))


def parse_update(body: object) -> UpdateRequest:
    """Return what an update asks for."""
    return UpdateRequest()


def parse_network(body: object) -> NetworkRequest:
    """Return what a network create asks for."""
    return NetworkRequest()


def parse_volume(body: object) -> VolumeRequest:
    """Return what a volume create asks for."""
    return VolumeRequest()


def parse_connect(body: object, *, network: str) -> ConnectRequest:
    """Return what a network connect asks for; *network* is the one of the path."""
    return ConnectRequest()


def parse_disconnect(body: object, *, network: str) -> ConnectRequest:
    """Return what a network disconnect asks for."""
    return ConnectRequest()


def parse_empty(body: object) -> tuple[Finding, ...]:
    """Refuse whatever a body says where the engine expects none; *body* None is no body."""
    return ()
