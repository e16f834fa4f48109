"""The policy: the rules of the gate as root writes them, closed and frozen."""

from __future__ import annotations

from controller.model.spec import Model


class Networks(Model):
    isolated: str = "platform-network"
    ingress: str = "platform-ingress"
    bridge: str = "platform-bridge"


class Policy(Model):
    name: str = "strict"
    networks: Networks = Networks()

    @property
    def digest(self) -> str:
        return ""
