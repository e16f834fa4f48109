"""What an image's author writes into its config is judged: it gets nobody more than a request would."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from typing import Any

import pytest

from controller.core.engine_api.engine_objects import CONTAINERD, image_store
from controller.model import names
from tests import engine as engines
from tests.gate.fixtures import ALLOWED, Knobs, World
from tests.gate.test_effective_state import effective, start
from tests.gate.wire import Answer
from tools import debian_images, dockerd, image_archive
from tools.image_archive import Entry, file, layer_of

pytestmark = pytest.mark.needs_root
SECOND = 10**9
#: What would list users of many groups, among them groups of the host's.
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:0::/:/bin/sh\n"
GROUP = "root:x:0:\ndisk:x:6:app,root\nshadow:x:42:app\ndocker:x:999:app,root\n"

HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "labels of 7 MB": ({"Labels": {f"x.{n}": "y" * 7000 for n in range(1000)}}, "engine.garbled"),
    "labels of 200 KB": ({"Labels": {f"x.{n}": "y" * 7000 for n in range(30)}}, "label.size"),
    "labels of 200 KB that nobody keeps": (
        {"Labels": {f"io.trimtab.{n}.{'y' * 7000}": "" for n in range(30)}},
        "label.size",
    ),
    "a check each millisecond": (
        {
            "Healthcheck": {
                "Test": ["CMD-SHELL", "exit 1"],
                "Interval": 10**6,
                "Timeout": 86400 * SECOND,
                "Retries": 1_000_000,
            }
        },
        "healthcheck.bounds",
    ),
    "a check with 300 KB of arguments": (
        {"Healthcheck": {"Test": ["CMD", "x" * 300_000], "Interval": 30 * SECOND}},
        "command.size",
    ),
    "a folder of the runtime's": ({"WorkingDir": "/proc/self/fd/8"}, "workdir.forbidden"),
    "another loader": ({"Env": ["LD_PRELOAD=/evil.so"]}, "env.denied"),
    "variables of 200 KB": ({"Env": [f"V{n}={'x' * 4000}" for n in range(50)]}, "env.size"),
    "thousands of volumes": ({"Volumes": {f"/v{n}": {} for n in range(5000)}}, "body.type"),
    "thousands of ports": (
        {"ExposedPorts": {f"{n}/tcp": {} for n in range(1, 1000)}},
        "port.count",
    ),
    "a user that its files don't know": ({"User": "nobody-there"}, "user.groups"),
}


@pytest.fixture(scope="module")
def world(engine: engines.PrivateEngine | engines.FoundEngine) -> Iterator[World]:
    made = World(engine, ())
    try:
        yield made
    finally:
        made.close()


def image(world: World, name: str, config: dict[str, Any]) -> str:
    """Load an image with a config."""
    reference = f"{ALLOWED}config-{name}:1"
    files = (file("etc/passwd", PASSWD), file("etc/group", GROUP))
    archive = debian_images.layout("alpine", reference, *files, config=config)
    debian_images.ensure(world.engine.host, archive)
    return reference


def trust(world: World, reference: str) -> Answer:
    """Let the gate know an image; one whose config is too long can't be vouched for."""
    return world.ask("operator", "POST", "/trimtab/v1/trust", {"reference": reference})


def body(reference: str, **more: Any) -> dict[str, Any]:
    labels = {names.OWNER: "alice", names.SERVICE: "web"}
    return {"Image": reference, "Labels": labels, "HostConfig": {"NetworkMode": "none"}, **more}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_request_would_get_no_image_gets(world: World, what: str) -> None:
    config, rule = HOSTILE[what]
    reference = image(world, f"hostile-{list(HOSTILE).index(what)}", config)
    try:
        answer = trust(world, reference)
        if answer.good:
            create = "/containers/create?name=alice-hostile"
            answer = world.ask("alice", "POST", create, body(reference))
    finally:
        # Nobody who inspects all images of this engine later gets an answer for one so large.
        world.engine.docker("rmi", reference)
    assert (answer.good, answer.rule) == (False, rule)
    assert len(answer.body) < 4096


@pytest.mark.parametrize(
    ("config", "asked", "user", "groups"),
    [
        ({"User": "1000"}, {}, "1000:1000", {1000}),
        ({}, {"User": "1000"}, "1000:1000", {1000}),
        ({"User": "app"}, {}, "1000:0", {0}),
        ({}, {"User": "1000:1000"}, "1000:1000", {1000}),
        ({}, {}, "0:0", {0}),
    ],
)
def test_no_image_chooses_groups_of_the_hosts(
    world: World, config: dict[str, Any], asked: dict[str, Any], user: str, groups: set[int]
) -> None:
    """The policy admits no further groups: the image's files give a user some.

    In the containerd image store nothing tells where these files are: a name is refused there.
    """
    reference = image(world, f"user-{config.get('User', 'none')}", config)
    assert trust(world, reference).good
    create = "/containers/create?name=alice-user"
    is_named = config.get("User") == "app"
    if is_named and image_store(world.engine.must("GET", "/info")) == CONTAINERD:
        refused = world.ask("alice", "POST", create, body(reference, **asked))
        assert (refused.status, refused.rule) == (403, "user.groups")
        return
    made = world.must("alice", "POST", create, body(reference, **asked))
    identifier = str(made["Id"])
    try:
        assert start(world, identifier).status == 204
        assert effective(world, identifier) == ["verified"]
        assert world.engine.inspect(identifier)["Config"]["User"] == user
        seen = world.engine.docker("exec", identifier, "id", "-G").stdout.split()
        assert {int(group) for group in seen} == groups
    finally:
        world.engine.remove(identifier)


def test_another_platform_of_an_image_is_not_run_by_the_config_of_the_shown_one(
    world: World,
) -> None:
    """In the containerd image store, platforms share the id of the image. The other one runs as root here."""
    if image_store(world.engine.must("GET", "/info")) != CONTAINERD:
        return  # it takes no such archive
    shown = image_archive.ARCHITECTURES[platform.machine()]
    other = "arm64" if shown != "arm64" else "amd64"
    reference = f"{ALLOWED}config-platforms:1"
    configs = {shown: {"User": "1000:1000"}, other: {"User": "0:6"}}
    load_index(world.engine.host, reference, configs)
    assert trust(world, reference).good
    create = "/containers/create?name=alice-platform"
    world.set_knobs(Knobs((("images.platforms", json.dumps([f"linux/{other}"])),)))
    try:
        refused = world.ask("alice", "POST", f"{create}&platform=linux/{other}", body(reference))
        assert (refused.status, refused.rule) == (403, "image.platform")
        asked = f"{create}&platform=linux/{shown}"
        made = world.must("alice", "POST", asked, body(reference))
        assert world.engine.inspect(made["Id"])["Config"]["User"] == "1000:1000"
        world.engine.remove(made["Id"])
    finally:
        world.set_knobs(Knobs())


def load_index(host: str, reference: str, configs: dict[str, dict[str, Any]]) -> None:
    """Load an image of several platforms, each with a config of its own."""
    kind, blobs = "application/vnd.oci.image", dict[str, bytes]()

    def put(content: bytes | dict[str, Any], media: str) -> dict[str, Any]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        name = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{name}"] = data
        return {"mediaType": f"{kind}.{media}", "digest": f"sha256:{name}", "size": len(data)}

    manifests = []
    for architecture, config in configs.items():
        layer = layer_of((file("bin/serve", architecture),))
        of = {"architecture": architecture, "os": "linux"}
        files = {"type": "layers", "diff_ids": [f"sha256:{layer.digest}"]}
        told = {**of, "config": {"Cmd": ["/bin/serve"], **config}, "rootfs": files}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": put(told, "config.v1+json"),
            "layers": [put(b"".join(layer.chunks()), "layer.v1.tar")],
        }
        manifests.append({**put(manifest, "manifest.v1+json"), "platform": of})
    index = {"schemaVersion": 2, "mediaType": f"{kind}.index.v1+json", "manifests": manifests}
    named = {
        **put(index, "index.v1+json"),
        "annotations": {"io.containerd.image.name": reference},
    }
    entries = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
        **blobs,
    }
    tar = layer_of([Entry(path, content) for path, content in entries.items()])
    status, answer = dockerd.call(
        host, "POST", "/images/load?quiet=1", body=tar.chunks(), content_type="application/x-tar"
    )
    assert status == 200, answer
    assert b"errorDetail" not in answer, answer
