"""Creates to be judged, and the world around them: what a test doesn't say is plain and right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.core.admission.create import admit_create
from controller.core.effective import Accounts
from controller.core.engine_api.parse import parse_create
from controller.core.rules.context import (
    CreateFacts,
    HostFacts,
    ImageFacts,
    NetworkFacts,
    Stamp,
    VolumeFacts,
)
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.host_paths import PathFacts
from controller.model.inventory import TrustedImage
from controller.model.policy.document import Policy
from controller.model.records import Actor, Role

STRICT = Policy.from_json({"name": "strict"})
REFERENCE = "ghcr.io/platformnetwork/web:1.2.3"
IMAGE = ImageFacts("sha256:" + "1" * 64, digest="sha256:" + "d" * 64)


def image_of(*, accounts: Accounts | None = None, **config: Any) -> ImageFacts:
    """Return an image with a config; sets of keys can be given as their keys."""
    keys = ("Volumes", "ExposedPorts")
    members = {k: {key: {} for key in v} if k in keys else v for k, v in config.items()}
    return replace(IMAGE, config=members, accounts=accounts)


STAMP = Stamp(instance="i1", intent="01890000-0000-7000-8000-00000000abcd")
REVISION = "v2:" + "0123456789abcdef" * 4
GIB = 1024**3

CLIENT = Actor(1000, 1000, 7, Role.CLIENT, owner="alice")
OPERATOR = Actor(0, 0, 7, Role.OPERATOR)
CONTROLLER = Actor(990, 990, 7, Role.CONTROLLER)

ISOLATED = NetworkFacts("0" * 64, "platform-network", ours=True, internal=True)
INGRESS = NetworkFacts("1" * 64, "platform-ingress", ours=True, masquerade=False, icc=False)
BRIDGE = NetworkFacts("2" * 64, "platform-bridge", ours=True)
ALICES = NetworkFacts("3" * 64, "alice-net", ours=True, owner="alice", internal=True)
BOBS = NetworkFacts("4" * 64, "bob-net", ours=True, owner="bob", internal=True)
ENGINES = NetworkFacts("5" * 64, "bridge", ours=False)
NETWORKS = {n.name: n for n in (ISOLATED, INGRESS, BRIDGE, ALICES, BOBS, ENGINES)}
VOLUMES = {
    volume.name: volume
    for volume in (
        VolumeFacts("alice-data", ours=True, owner="alice", namespace="default"),
        VolumeFacts("bob-data", ours=True, owner="bob", namespace="team"),
        VolumeFacts("plain", ours=False),
        VolumeFacts("root", ours=False, options=(("device", "/"), ("o", "bind"))),
    )
}
FACTS = CreateFacts(
    host=HostFacts(cpus=8, memory_bytes=64 * GIB, platform="linux/amd64", now=1.0),
    image=IMAGE,
    trusted=TrustedImage(REFERENCE, IMAGE.id),
    networks=NETWORKS,
    volumes=VOLUMES,
)

CONTROLLER_LABELS = {
    names.OWNER: "alice",
    names.NAMESPACE: "default",
    names.SERVICE: "web",
    names.SLOT: "1",
    names.REVISION: REVISION,
    names.IMAGE: REFERENCE,
}
CONTROLLER_NAME = names.container_name("default", "web", slot=1, revision=REVISION)


def policy(**sections: Any) -> Policy:
    """Return ``strict`` with some sections changed, in the words of a file."""
    return Policy.from_json({"name": "test", **sections})


def looked_at(*paths: str, **changes: Any) -> CreateFacts:
    """Return the facts with plain folders at these paths."""
    found = {path: PathFacts(path, changes.get("kind", "dir")) for path in paths}
    return replace(FACTS, paths={p: replace(facts, **changes) for p, facts in found.items()})


def judged(
    body: dict[str, Any] | None = None,
    *,
    host: dict[str, Any] | None = None,
    name: str = "alice-web",
    actor: Actor = CLIENT,
    rules: Policy = STRICT,
    facts: CreateFacts | None = FACTS,
    platform: str = "",
) -> AdmissionDecision:
    """Judge a client's create; *host* is its HostConfig."""
    whole = {"Image": REFERENCE, **(body or {})} | ({"HostConfig": host} if host else {})
    return admit_create(
        parse_create(whole),
        name=name,
        actor=actor,
        policy=rules,
        facts=facts,
        stamp=STAMP,
        platform=platform,
    )


def judged_for_controller(
    body: dict[str, Any] | None = None,
    *,
    host: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    name: str = CONTROLLER_NAME,
    rules: Policy = STRICT,
    facts: CreateFacts | None = FACTS,
) -> AdmissionDecision:
    """Judge a create of the controller: service web of alice, on the isolated network."""
    whole = {
        "Labels": {**CONTROLLER_LABELS, **(labels or {})},
        "NetworkingConfig": {"EndpointsConfig": {"platform-network": {"Aliases": ["web"]}}},
        **(body or {}),
    }
    host = {"NetworkMode": "platform-network", **(host or {})}
    return judged(whole, host=host, name=name, actor=CONTROLLER, rules=rules, facts=facts)


def denials(admission: AdmissionDecision) -> tuple[str, ...]:
    """Return the rules that denied, () for an admission; a denial forwards nothing."""
    if admission.verdict.decision != "deny":
        assert admission.body is not None, "admitted without a body to forward"
        return ()
    assert admission.body is None, "denied with a body to forward"
    return admission.verdict.rules


def host_of(admission: AdmissionDecision) -> dict[str, Any]:
    """Return the HostConfig that is forwarded."""
    assert admission.verdict.decision != "deny", admission.verdict.reason
    assert admission.body is not None
    host = admission.body["HostConfig"]
    assert isinstance(host, dict)
    return host
