"""A pinned revision runs its image under the repository of its pin, within the policy in force.

The controller names the revision of a create. A revision is pinned to the image of its first create,
and later creates of the revision need no further trust. So a pin must not lend an image to another
repository, with that repository's exceptions, and must not outlive a rule of the policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.model import names
from tests.gate.fixtures import IMAGE, Knobs, World, controller_labels
from tests.gate.wire import Answer
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
PROXY = "ghcr.io/platformnetwork/proxy"
REVISION = "v2:" + "7b" * 32
ABSENT_DIGEST = "0123456789abcdef" * 4
LOOSE: dict[str, object] = {"CapAdd": ["NET_BIND_SERVICE"], "Memory": 16 << 30}
EXCEPTION = {
    "owner": "carol",
    "namespace": "pins",
    "service": "proxy",
    "repository": PROXY,
    "reason": "it is the public entry",
    "expires": "2099-12-31",
    "loosens": {"capAdd": ["NET_BIND_SERVICE"], "memoryMax": "16Gi"},
}


def put_in_force(world: World, **images: object) -> None:
    """Put strict into force with an exception for the proxy, and these settings of images."""
    policy = yaml.safe_load(Knobs().policy())
    policy |= {"exceptions": [EXCEPTION], "images": {**policy["images"], **images}}
    before = world.policy_digest()
    world.gate.reload(yaml.safe_dump(policy))
    eventually(lambda: world.policy_digest() != before, what="the new policy")


def create(world: World, service: str, image: str, *, slot: int, **more: Any) -> Answer:
    """Have the controller create a slot of the revision; ``by`` names the image in the body."""
    labels = controller_labels(service, slot=slot, revision=REVISION, image=image)
    name = names.container_name("pins", service, slot=slot, revision=REVISION)
    asked = more.pop("by", image)
    body = {"Image": asked, "Labels": labels, "HostConfig": {"NetworkMode": "none", **more}}
    return world.ask("controller", "POST", f"/containers/create?name={name}", body)


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    """A world in which the revision is pinned to the image of another service's repository."""
    made = World(engine, [])
    try:
        put_in_force(made)
        made.must("operator", "GET", "/trimtab/v1/health")
        first = create(made, "plain", IMAGE, slot=1)
        assert first.status == 201, first.body
        yield made
    finally:
        made.close()


def test_a_pinned_image_gets_no_exception_of_another_repository(world: World) -> None:
    for by in (f"{PROXY}:1", world.tokens["IMG_ID"]):
        answer = create(world, "proxy", f"{PROXY}:1", slot=1, by=by, **LOOSE)
        assert (answer.status, answer.rule) == (403, "image.mismatch")
        assert "runs an image of ghcr.io/platformnetwork/web" in answer.body.decode()


def test_a_digest_rule_holds_for_a_pinned_revision(world: World) -> None:
    put_in_force(world, requireDigest=True)
    by = world.tokens["IMG_ID"]
    other = create(world, "proxy", f"{PROXY}@sha256:{ABSENT_DIGEST}", slot=2, by=by, **LOOSE)
    assert (other.status, other.rule) == (403, "image.mismatch")
    absent = f"ghcr.io/platformnetwork/web@sha256:{ABSENT_DIGEST}"
    assert create(world, "plain", absent, slot=2, by=by).rule == "image.moved"
    assert create(world, "plain", IMAGE, slot=2, by=by).rule == "image.mutable"
    put_in_force(world)


def test_a_banned_repository_is_banned_for_pinned_revisions(world: World) -> None:
    put_in_force(world, allow=[PROXY])
    by = world.tokens["IMG_ID"]
    assert create(world, "plain", IMAGE, slot=3, by=by).rule == "image.not-allowed"
    for asked in (f"{PROXY}:9", by):
        # Nobody ever pulled this reference.
        assert create(world, "plain", f"{PROXY}:9", slot=3, by=asked).rule == "image.mismatch"
    put_in_force(world)
    again = create(world, "plain", IMAGE, slot=3, by=by)
    assert again.status == 201, again.body
