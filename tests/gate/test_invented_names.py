"""Who writes a file may write any owner, namespace or service into it, and gains nothing by that.

An exception is for one owner, namespace, service and repository together; owners are listed by
root. The same is judged twice: offline by ``validate``, and by the broker with authority when the
controller asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.cli.main import main
from controller.model import names
from tests.gate.fixtures import IMAGE, Knobs, World
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

REPOSITORY = "ghcr.io/platformnetwork/web"
#: May open low ports, although strict lets nobody.
EXCEPTED = {
    "owner": "edge",
    "namespace": "front",
    "service": "proxy",
    "repository": REPOSITORY,
    "reason": "it answers on port 443 itself",
    "expires": "2099-12-31",
    "loosens": {"capAdd": ["NET_BIND_SERVICE"]},
}
OWNERS = [
    {"name": "edge", "namespaces": ["front", "back"]},
    {"name": "guest", "namespaces": ["front"]},
    {"name": "alice"},
    {"name": "bob"},
]
IT = {"owner": "edge", "namespace": "front", "service": "proxy", "image": IMAGE}
#: What somebody writes instead, and the rule that refuses it.
INVENTED: dict[str, tuple[dict[str, str], str]] = {
    "another owner takes the service's name": ({"owner": "guest"}, "capabilities"),
    "an owner that nobody listed": ({"owner": "edge-two"}, "owner.unknown"),
    "the owner in another namespace of its own": ({"namespace": "back"}, "capabilities"),
    "the owner in a namespace that isn't its own": ({"namespace": "rear"}, "owner.namespace"),
    "another service of that owner": ({"service": "proxy-two"}, "capabilities"),
    "another image under that service": (
        {"image": "ghcr.io/platformnetwork/team/sub/app:2"},
        "capabilities",
    ),
}


def policy() -> str:
    told = yaml.safe_load(Knobs().policy())
    return yaml.safe_dump({**told, "owners": OWNERS, "exceptions": [EXCEPTED]})


def validated(
    capsys: pytest.CaptureFixture[str], folder: Path, wanted: dict[str, str]
) -> list[str]:
    """Return the rules by which ``validate`` finds a file with this service refused."""
    (folder / "policy.yaml").write_text(policy())
    desired = folder / "desired-state"
    desired.mkdir()
    service = {
        "apiVersion": "trimtab/v1",
        "kind": "Service",
        "metadata": {
            "name": wanted["service"],
            "namespace": wanted["namespace"],
            "owner": wanted["owner"],
        },
        "spec": {
            "image": wanted["image"],
            "security": {"capAdd": ["NET_BIND_SERVICE"]},
            "network": {"mode": "none"},
        },
    }
    (desired / "proxy.yaml").write_text(yaml.safe_dump(service))
    options = ["--policy", str(folder / "policy.yaml"), "--state", str(folder / "state"), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(desired), *options])
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == [], told
    assert ended.value.code == (4 if told["denied"] else 0)
    return [rule for each in told["denied"] for rule in each["verdict"]["rules"]]


def test_what_root_excepted_is_admitted_offline(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert validated(capsys, tmp_path, IT) == []


@pytest.mark.parametrize(("change", "rule"), INVENTED.values(), ids=INVENTED)
def test_an_invented_name_gains_nothing_offline(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, str], rule: str
) -> None:
    rules = validated(capsys, tmp_path, {**IT, **change})
    # Whatever else is wrong with it, the grant is nobody's but the one's.
    assert rule in rules
    assert "capabilities" in rules


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, ["ghcr.io/platformnetwork/team/sub/app:2"])
    first = made.policy_digest()
    made.gate.reload(policy())
    try:
        eventually(lambda: made.policy_digest() != first, what="the new policy")
        yield made
    finally:
        made.close()


def ask(world: World, wanted: dict[str, str]) -> Any:
    """Have the controller ask for it, as for what a file declares."""
    revision = "v2:" + "0123456789abcdef" * 4
    labels = {
        names.OWNER: wanted["owner"],
        names.NAMESPACE: wanted["namespace"],
        names.SERVICE: wanted["service"],
        names.SLOT: "1",
        names.REVISION: revision,
        names.IMAGE: wanted["image"],
    }
    name = names.container_name(wanted["namespace"], wanted["service"], slot=1, revision=revision)
    body = {
        "Image": wanted["image"],
        "Labels": labels,
        "HostConfig": {"NetworkMode": "none", "CapAdd": ["NET_BIND_SERVICE"]},
    }
    return world.ask("controller", "POST", f"/containers/create?name={name}", body)


@pytest.mark.needs_root
def test_what_root_excepted_is_admitted_by_the_broker(world: World) -> None:
    made = ask(world, IT)
    assert made.status == 201, made.body
    told = world.engine.inspect(made.json["Id"])
    assert told["HostConfig"]["CapAdd"] in (["NET_BIND_SERVICE"], ["CAP_NET_BIND_SERVICE"])
    world.must("operator", "DELETE", f"/containers/{made.json['Id']}")


@pytest.mark.needs_root
@pytest.mark.parametrize(("change", "rule"), INVENTED.values(), ids=INVENTED)
def test_an_invented_name_gains_nothing_from_the_broker(
    world: World, change: dict[str, str], rule: str
) -> None:
    mark = world.tap.mark()
    refused = ask(world, {**IT, **change})
    assert (refused.status, refused.rule) == (403, rule)
    assert not any(request.changes for request in world.tap.since(mark))
