"""A client that makes as much as a loose policy lets it: nobody else's services suffer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml

from controller.app.state_folder import trimtab_gid
from controller.model import names
from tests.gate import wire
from tests.gate.roles import Peer
from tests.instance import Host, eventually, web
from tests.nasty_images import nasty_image
from tools import image_archive

ALICE = 61001
VOLUMES, CONTAINERS = 300, 24
#: What the engine's answer may have: the lists below are longer.
ANSWER_MAX = 16 * 1024 * 1024
#: Of a volume, whose request may have 64 KiB, and of a container, with 1 MiB.
LABELS = {f"pad{n:02}": "x" * 3900 for n in range(16)}
MORE_LABELS = {f"pad{n:03}": "x" * 3900 for n in range(200)}
IMAGE, NASTY = "trimtab.local/web:1", "trimtab.local/nasty:1"


@pytest.fixture
def loose(host: Host) -> Iterator[Host]:
    """A host whose policy lets a client make lists beyond what the broker reads at once."""
    policy = yaml.safe_load(Path(host.policy).read_text())
    policy["clients"] = [{"uid": ALICE, "owner": "alice"}]
    policy["quotas"] = {"volumesPerOwner": VOLUMES, "perOwner": CONTAINERS}
    policy["labels"] = {"max": 256, "maxBytes": "1Mi", "clientMaxBytes": "1Mi"}
    file = host.folder / "loose.yaml"
    file.write_text(yaml.safe_dump(policy))
    host.policy = str(file)
    yield host
    volumes = [f"alice-v{n}" for n in range(VOLUMES)]
    host.engine.docker("volume", "rm", "--force", *volumes, check=False)


class Client:
    """Asks as a uid, each time over a new connection."""

    def __init__(self, host: Host, peer: Peer, headers: dict[str, str | None]) -> None:
        self._socket, self._peer, self._headers = host.broker_socket, peer, headers

    def ask(self, method: str, path: str, body: object = None) -> wire.Answer:
        sent = None if body is None else json.dumps(body).encode()
        raw = wire.request(method, f"/v1.45{path}".encode(), sent, self._headers)
        return wire.ask(self._peer.connect(self._socket), raw)

    def create(self, kind: str, bodies: dict[str, dict[str, object]]) -> None:
        """Create objects by name, several at a time."""

        def create_one(name: str) -> int:
            query = f"?name={name}" if kind == "containers" else ""
            return self.ask("POST", f"/{kind}/create{query}", bodies[name]).status

        with ThreadPoolExecutor(4) as pool:
            assert {*pool.map(create_one, bodies)} == {201}


def test_lists_that_a_client_makes_long_blind_nobody(loose: Host) -> None:
    host = loose
    host.write("s0.yaml", web("s0"))
    with host.running(), Peer(ALICE, [trimtab_gid()]) as peer, Peer(0, []) as root:
        alice, operator = Client(host, peer, {}), Client(host, root, {})
        names = [f"alice-v{number}" for number in range(VOLUMES)]
        alice.create("volumes", {name: {"Name": name, "Labels": LABELS} for name in names})
        large: dict[str, object] = {"Image": IMAGE, "Labels": MORE_LABELS, "Cmd": ["x" * 4000] * 15}
        alice.create("containers", {f"alice-c{number}": large for number in range(CONTAINERS)})
        for who in (alice, operator):
            volumes = who.ask("GET", "/volumes")
            assert len(volumes.json["Volumes"]) == VOLUMES
            containers = who.ask("GET", "/containers/json?all=1")
            assert len(containers.json) == CONTAINERS + (who is operator)
            assert max(len(volumes.body), len(containers.body)) < ANSWER_MAX
        (before,) = host.running_ids("s0")
        host.engine.docker("rm", "--force", before)
        eventually(lambda: host.running_ids("s0") not in ([], [before]), what="the healed service")
        host.write("s1.yaml", web("s1"))
        host.await_ready("s0", "s1")
        host.cli("plan", expect=0)


def is_healed(host: Host, gone: str) -> bool:
    return host.running_ids("s0") not in ([], [gone])


def test_an_image_with_labels_beyond_every_list_blinds_nobody(host: Host) -> None:
    host.write("s0.yaml", web("s0"))
    image_archive.load(host.engine.host, nasty_image(NASTY))
    with host.running(), Peer(0, []) as root:
        operator = Client(host, root, {})
        labels = {names.INSTANCE: host.instance, names.MANAGED: "true", names.SERVICE: "nasty"}
        marks = [f"--label={name}={value}" for name, value in labels.items()]
        host.engine.docker("run", "--detach", "--name=nasty", "--network=none", *marks, NASTY)
        try:
            for _ in range(2):
                listed = operator.ask("GET", "/containers/json?all=1")
                assert listed.status == 200, listed.body[:1000]
                (before,) = host.running_ids("s0")
                assert [each["Id"] for each in listed.json] == [before]
                images = operator.ask("GET", "/images/json")
                assert NASTY in [name for each in images.json for name in each["RepoTags"]]
                assert operator.ask("GET", "/system/df").status == 200
                assert operator.ask("GET", "/info").status == 200
                host.engine.docker("rm", "--force", before)
                eventually(partial(is_healed, host, before), what="the healed service")
                # Each event of the container repeats its labels.
                host.engine.docker("restart", "--time=0", "nasty")
            host.await_ready("s0")
            host.cli("plan", expect=0)
        finally:
            host.engine.docker("rm", "--force", "nasty")
            host.engine.docker("rmi", "--force", NASTY)
