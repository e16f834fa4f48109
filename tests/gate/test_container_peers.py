"""A container that gets hold of the broker's socket: refused, whatever uid it says that it has.

Containers are made with the engine's own socket, behind the broker's back, with the broker's
socket mounted into them and the group trimtab given to them: as a mistake or an escape would.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.app.state_folder import trimtab_gid
from tests.gate.fixtures import CONTEXT, IMAGE, RUNS, Knobs, World
from tests.gate.roles import ALICE, BOB, CONTROLLER
from tests.instance import eventually

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root

#: Sends each line's request over a connection of its own, and prints the answers as JSON lines.
CLIENT = """
import json, socket, sys
for line in json.loads(sys.argv[1]):
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect("/broker.sock")
            connection.sendall(line.encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        head, _, body = answer.partition(b"\\r\\n\\r\\n")
        print(json.dumps({"status": int(head.split()[1]), "body": json.loads(body or b"null")}))
    except OSError as error:
        print(json.dumps({"status": 0, "body": str(error)}))
"""
#: A uid that nobody else has, as observers have.
OBSERVER = 64001
#: What the client needs of the host to run: an interpreter and its libraries, read-only.
INTERPRETER = os.path.realpath(sys.executable)
BROUGHT = ("/usr", "/lib", "/lib64")


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [])
    try:
        yield made
    finally:
        made.close()


def line(method: str, path: str, body: object = None) -> str:
    """Return a request's text, with the word that makes a controller."""
    sent = "" if body is None else json.dumps(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n"
    head += f"Trimtab-Context: {CONTEXT}\r\n"
    if body is not None or method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    return f"{head}\r\n{sent}"


def ask_from_within(
    world: World, uid: int, *lines: str, network: str = "none", options: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Ask from a container without any capability that has the socket, this uid and the group."""
    mounts = [f"--volume={path}:{path}:ro" for path in BROUGHT if Path(path).exists()]
    done = world.engine.docker(
        *("run", "--rm", "--cap-drop=ALL", f"--network={network}", f"--user={uid}:{uid}"),
        *(f"--group-add={trimtab_gid()}", f"--volume={world.gate.socket}:/broker.sock", *mounts),
        *options,
        *("--entrypoint", INTERPRETER, RUNS, "-I", "-c", CLIENT, json.dumps(lines)),
    )
    return [json.loads(each) for each in done.stdout.splitlines()]


def refusals(world: World) -> list[dict[str, Any]]:
    lines: list[bytes] = []
    while more := world.ask(
        "operator",
        "GET",
        f"/trimtab/v1/journal?after={json.loads(lines[-1])['seq'] if lines else 0}",
    ).body.splitlines():
        lines += more
    return [record for each in lines if (record := json.loads(each))["stage"] == "refusal"]


def everything(world: World, target: str) -> list[str]:
    """Return one request of each kind, on somebody's container."""
    body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
    return [
        line("GET", "/_ping"),
        line("GET", "/trimtab/v1/whoami"),
        line("GET", "/v1.45/containers/json?all=1"),
        line("GET", f"/v1.45/containers/{target}/logs?stdout=1"),
        line("POST", "/v1.45/containers/create?name=from-within", body),
        line("POST", f"/v1.45/containers/{target}/stop?t=0"),
        line("DELETE", f"/v1.45/containers/{target}?force=1"),
        line("POST", f"/v1.45/containers/{target}/exec", {"Cmd": ["true"]}),
        line("POST", "/trimtab/v1/trust", {"reference": IMAGE}),
    ]


@pytest.mark.parametrize("uid", [0, ALICE, BOB, CONTROLLER])
def test_a_container_with_the_socket_can_do_nothing(world: World, uid: int) -> None:
    target = world.tokens["FOREIGN"]
    before, mark = len(refusals(world)), world.tap.mark()
    asked = everything(world, target)
    answers = ask_from_within(world, uid, *asked)
    assert [answer["status"] for answer in answers] == [403] * len(asked)
    assert {answer["body"]["trimtab"]["rule"] for answer in answers} == {"peer.namespace"}
    assert not any(request.changes for request in world.tap.since(mark))
    # Each is journaled, with the uid that the kernel told.
    told = refusals(world)[before:]
    assert [record["verdict"]["rules"] for record in told] == [["peer.namespace"]] * len(asked)
    assert {record["actor"]["uid"] for record in told} == {uid}
    assert world.must("bob", "GET", f"/containers/{target}/json")["State"]["Running"]


def test_an_observer_with_the_socket_can_do_nothing(world: World) -> None:
    """The host's PID namespace doesn't tell it from a user of the host: its uid does."""
    asked = everything(world, world.tokens["FOREIGN"])
    before, mark = len(refusals(world)), world.tap.mark()
    answers = ask_from_within(world, OBSERVER, *asked, network="host", options=("--pid=host",))
    assert [answer["status"] for answer in answers] == [403] * len(asked)
    assert {answer["body"]["trimtab"]["rule"] for answer in answers} == {"role.denied"}
    assert not any(request.changes for request in world.tap.since(mark))
    assert {record["actor"]["uid"] for record in refusals(world)[before:]} == {OBSERVER}


def test_a_container_that_the_policy_names_is_that_client_and_no_more(world: World) -> None:
    named = yaml.safe_load(Knobs().policy())
    named["containerPeers"] = [0, ALICE]
    first = world.policy_digest()
    world.gate.reload(yaml.safe_dump(named))
    try:
        eventually(lambda: world.policy_digest() != first, what="the new policy")
        bobs = world.tokens["FOREIGN"]
        body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}}
        who, made, listed, others, trusted = ask_from_within(
            world,
            ALICE,
            line("GET", "/trimtab/v1/whoami"),
            line("POST", "/v1.45/containers/create?name=from-within", body),
            line("GET", "/v1.45/containers/json?all=1"),
            line("DELETE", f"/v1.45/containers/{bobs}?force=1"),
            line("POST", "/trimtab/v1/trust", {"reference": IMAGE}),
        )
        assert (who["body"]["role"], who["body"]["owner"]) == ("client", "alice")
        assert made["status"] == 201
        assert [each["Id"] for each in listed["body"]] == [made["body"]["Id"]]
        assert (others["status"], trusted["status"]) == (404, 403)
        assert trusted["body"]["trimtab"]["rule"] == "role.denied"
        world.must("alice", "DELETE", f"/containers/{made['body']['Id']}")
        # The others aren't named; and no operator lives in a container, named or not.
        for uid in (0, BOB, CONTROLLER):
            (answer,) = ask_from_within(world, uid, line("GET", "/trimtab/v1/whoami"))
            assert (answer["status"], answer["body"]["trimtab"]["rule"]) == (403, "peer.namespace")
    finally:
        world.gate.reload(Knobs().policy())
        eventually(lambda: world.policy_digest() == first, what="the old policy")
