"""Namespaces of another service's containers: a sidecar."""

from __future__ import annotations

from enum import StrEnum

from controller.model.desired.spec import fields
from controller.model.names import Key, service_key


class IpcMode(StrEnum):
    """The System V and POSIX shared memory of a service's containers."""

    PRIVATE = "private"
    SHAREABLE = "shareable"  # a sidecar can join
    NONE = "none"  # no /dev/shm


class Observe(fields.Model):
    """Namespaces of the host, for an observer that the policy names."""

    #: True shares the host's network.
    network: bool = False
    #: True shares the host's processes.
    pid: bool = False


class Shares(fields.Model):
    """The service whose namespaces the containers share: slot 1 those of slot 1, and so on."""

    #: The name of a Service of the namespace, with the same owner.
    service: str
    #: True shares the network: localhost, ports, addresses and host name.
    network: bool = False
    #: True shares System V IPC and /dev/shm. The service needs ``ipc: shareable``.
    ipc: bool = False
    #: True shares the processes: each side sees and signals those of the other.
    pid: bool = False

    def key_in(self, namespace: str) -> Key:
        """Return the key of the service for a container of a namespace."""
        return service_key(namespace, self.service)
