"""What the gate's tests are about: containers, networks and images of ours, and of others."""

from __future__ import annotations

from typing import Any

from controller.broker.gate.request_target import build_path
from controller.core.encoding.json_values import digest
from controller.model.inventory import ContainerItem, Inventory, OwnedObject, TrustedImage
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from tests.unit.broker.dialogue import INSTANCE, POLICY

WEB = "a1" * 32  # alice's
DB = "b2" * 32  # bob's
SLOT = "c3" * 32  # the controller's
STRAY = "d4" * 32  # nobody's
NETWORK = "e5" * 32
IMAGE = "sha256:" + "11" * 32
DIGEST = "sha256:" + "22" * 32
REFERENCE = "ghcr.io/platformnetwork/web:1.2.3"
REVISION = "v2:" + "0123456789abcdef" * 4
SERVICE = "web.1-01234567"
#: What the gate asks before the controller takes something down: what runs of the controller's.
LOOK_AT_ALL = build_path(
    "/containers/json",
    {
        "filters": (
            f'{{"label":["io.trimtab.instance={INSTANCE}","io.trimtab.origin=controller"],'
            '"status":["running"]}'
        )
    },
)

#: The lists of all objects of the instance.
_FILTERS = f'{{"label":["io.trimtab.instance={INSTANCE}"]}}'
ALL_CONTAINERS = build_path("/containers/json", {"all": "1", "filters": _FILTERS})
ALL_NETWORKS = build_path("/networks", {"filters": _FILTERS})
ALL_VOLUMES = build_path("/volumes", {"filters": _FILTERS})


def labels(
    owner: str, *, origin: str = "client", intent: str = "i0", **more: str
) -> dict[str, str]:
    """Return the labels of ours."""
    ours = {
        "managed": "true",
        "instance": INSTANCE,
        "intent": intent,
        "origin": origin,
        "owner": owner,
        "service": "web",
        **more,
    }
    return {f"io.trimtab.{key}": value for key, value in ours.items()}


def item(identifier: str, name: str, owner: str, **more: Any) -> ContainerItem:
    """Return a container of the inventory."""
    told: dict[str, Any] = {
        "namespace": "",
        "service": "web",
        "slot": 0,
        "revision": "",
        "origin": "client",
        "intent": "i0",
        "image": REFERENCE,
        **more,
    }
    return ContainerItem(id=identifier, owner=owner, admitted=Settings(name=name), **told)


def inspect(identifier: str, name: str, owner: str, **more: Any) -> dict[str, Any]:
    """Return the engine's inspect of a container."""
    return {
        "Id": identifier,
        "Name": f"/{name}",
        "Image": IMAGE,
        "State": {"Status": "running", "Running": True},
        "Config": {"Labels": labels(owner), "Env": ["TOKEN=hunter2", "A=1"], "StopTimeout": 7},
        "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": "no"}},
        "Mounts": [],
        "NetworkSettings": {"Networks": {}},
        **more,
    }


def image(**more: Any) -> dict[str, Any]:
    """Return the engine's inspect of the image."""
    return {
        "Id": IMAGE,
        "RepoTags": [REFERENCE],
        "RepoDigests": [f"ghcr.io/platformnetwork/web@{DIGEST}"],
        "Config": {"Labels": {"maintainer": "x"}},
        "Os": "linux",
        "Architecture": "amd64",
        **more,
    }


def network(identifier: str, name: str, owner: str, **more: Any) -> dict[str, Any]:
    """Return the engine's inspect of a network."""
    return {
        "Id": identifier,
        "Name": name,
        "Driver": "bridge",
        "Internal": True,
        "Options": {},
        "IPAM": {"Driver": "default", "Options": None},
        "Labels": labels(owner),
        "Containers": {},
        **more,
    }


def inventory(**more: Any) -> Inventory:
    """Return an inventory with one container of alice, bob and the controller each."""
    slot = item(
        SLOT,
        SERVICE,
        "team",
        origin="controller",
        namespace="default",
        slot=1,
        revision=REVISION,
        intent="i0",
    )
    told: dict[str, Any] = {
        "containers": {
            WEB: item(WEB, "alice-web", "alice"),
            DB: item(DB, "bob-db", "bob"),
            SLOT: slot,
        },
        "networks": {
            NETWORK: OwnedObject(NETWORK, "alice-net", "default", "alice", "client", "i0")
        },
        "volumes": {
            "alice-data": OwnedObject(
                "alice-data", "alice-data", "default", "alice", "client", "i0"
            )
        },
        "ledger": {REFERENCE: TrustedImage(REFERENCE, IMAGE, DIGEST)},
        **more,
    }
    return Inventory(seq=7, **told)


def policy(**more: Any) -> Policy:
    """Return the strict policy with two clients."""
    clients = [{"uid": 1000, "owner": "alice"}, {"uid": 1001, "owner": "bob"}]
    return Policy.from_json({"name": "strict", "clients": clients, **more})


def told(method: str, route: str, subject: str, summary: dict[str, object]) -> dict[str, object]:
    """Return a request as the journal should have it where the broker has no key."""
    return {
        "method": method,
        "route": route,
        "object": subject,
        "summary": summary,
        "digest": digest({"summary": summary, "body": {}}),
    }


ALLOWED: dict[str, object] = {
    "decision": "allow",
    "rules": [],
    "mutations": [],
    "policy": POLICY.digest,
}


def actor(uid: int, pid: int, role: str) -> dict[str, object]:
    """Return an actor as the journal should have it."""
    return {"uid": uid, "gid": uid, "pid": pid, "role": role, "separated": True}
