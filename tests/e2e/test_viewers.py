"""What a viewer of the policy reads of a real instance, by its uid alone, and what it is refused (G46)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.instance import Host, eventually, web
from tests.unprivileged import as_user

pytestmark = pytest.mark.needs_root
VIEWER, STRANGER, GROUP = 64_211, 64_212, 64_211
#: Asks on a Unix socket, and prints what comes until the other side ends.
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(60)
    connection.connect(sys.argv[1])
    connection.sendall(sys.argv[2].encode())
    connection.shutdown(socket.SHUT_WR)
    while part := connection.recv(65536):
        sys.stdout.buffer.write(part)
"""

#: The same, without an end of what is sent, which would end a stream.
FOLLOW = ASK.replace("    connection.shutdown(socket.SHUT_WR)\n", "").replace("60", "300")


class Reader:
    """A user of the host, in no group of trimtab's."""

    def __init__(self, host: Host, uid: int) -> None:
        self._host = host
        self._uid = uid

    def _ask(self, socket: str, text: str) -> tuple[int, str]:
        path = str(self._host.broker_socket.with_name(socket))
        argv = as_user([sys.executable, "-c", ASK, path, text], uid=self._uid, gid=GROUP)
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )
        return done.returncode, done.stdout

    def get(self, target: str, *, method: str = "GET") -> tuple[int, str]:
        """Return status and body of a request to the broker; 0 if its socket can't be opened."""
        head = f"{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        code, answer = self._ask("broker-viewer.sock", head)
        return (int(answer.split()[1]), answer) if code == 0 and answer else (0, "")

    def follow(self, target: str) -> subprocess.Popen[bytes]:
        """Begin a stream, and return its reader once the first line of the answer is there."""
        head = f"GET {target} HTTP/1.1\r\nHost: d\r\n\r\n"
        path = str(self._host.broker_socket.with_name("broker-viewer.sock"))
        argv = as_user([sys.executable, "-uc", FOLLOW, path, head], uid=self._uid, gid=GROUP)
        reader = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/")
        assert reader.stdout is not None and b"200" in reader.stdout.readline()
        return reader

    def tell(self, **question: object) -> dict[str, Any]:
        """Return the controller's answer; {} if its socket can't be opened."""
        code, answer = self._ask("controller.sock", json.dumps(question) + "\n")
        return dict(json.loads(answer)) if code == 0 and answer else {}


def with_viewer(host: Host, viewers: str) -> None:
    """Have a policy of the test's own, in which the uid is a viewer as said."""
    plain = Path(host.policy)
    policy = host.folder / "policy.yaml"
    text = (plain if plain != policy else host.folder / "plain.yaml").read_text()
    (host.folder / "plain.yaml").write_text(text)
    policy.write_text(f"{text}\nviewers: {viewers}\n")
    host.policy = str(policy)


def test_a_viewer_reads_its_owners_resources_alone_and_changes_nothing(host: Host) -> None:
    talks = 'entrypoint: [/bin/sh, -c, "echo said by shop; exec /bin/serve"]'
    host.write("web.yaml", web("shop", extra=talks).replace("owner: team", "owner: shop"))
    host.write("api.yaml", web("api"))
    with_viewer(host, f"[{{uid: {VIEWER}, owners: [shop], logs: [shop]}}]")
    viewer, stranger = Reader(host, VIEWER), Reader(host, STRANGER)
    with host.running():
        eventually(lambda: host.is_ready("shop") and host.is_ready("api"), what="both services")

        def names() -> list[str]:
            return [row["name"] for row in viewer.tell(do="view").get("resources", ())]

        eventually(lambda: names() == ["shop"], what="the view of the viewer's owner")
        assert "api" not in json.dumps(viewer.tell(do="view"))
        for refused in ("status", "plan", "stats"):
            assert "viewer.denied" in json.dumps(viewer.tell(do=refused)), refused

        status, records = viewer.get("/trimtab/v1/journal")
        assert (status, "shop" in records, "api.1" in records) == (200, True, False)
        own, other = (host.containers(name)[0]["Id"] for name in ("shop", "api"))
        status, output = viewer.get(f"/containers/{own}/logs?stdout=1&stderr=1")
        assert (status, "said by shop" in output) == (200, True)
        assert viewer.get(f"/containers/{other}/logs?stdout=1")[0] == 404
        lines = host.cli("journal", "list", "--json").stdout.splitlines()
        (read,) = [record for record in map(json.loads, lines) if record["stage"] == "read"]
        assert (read["actor"]["uid"], read["actor"]["role"]) == (VIEWER, "viewer")
        assert (read["request"]["route"], read["request"]["object"]) == ("container.logs", own)
        for target in ("/containers/json", f"/containers/{own}/json", "/info", "/events?until=1"):
            status, answer = viewer.get(target)
            assert (status, "role.denied" in answer) == (403, True), target
        assert viewer.get(f"/containers/{own}/kill", method="POST")[0] == 403
        assert viewer.get("/trimtab/v1/metrics")[0] == 403, "metrics count everybody's objects"

        assert stranger.get("/trimtab/v1/whoami")[0] == 0
        assert stranger.tell(do="view") == {}

        follows = [
            viewer.follow(target)
            for target in (
                "/trimtab/v1/journal/follow",
                f"/containers/{own}/logs?stdout=1&follow=1",
            )
        ]
        # A policy that changes nothing for the viewer leaves its streams alone.
        host.cli("policy", "reload")
        assert [each.poll() for each in follows] == [None, None]

        # Another viewer: who isn't listed any more opens nothing.
        with_viewer(host, f"[{{uid: {STRANGER}, owners: all}}]")
        host.cli("policy", "reload")
        eventually(lambda: stranger.get("/trimtab/v1/metrics")[0] == 200, what="the new viewer")
        for each in follows:
            each.communicate(timeout=30)
        assert viewer.get("/trimtab/v1/whoami")[0] == 0
        assert viewer.tell(do="view") == {}
        eventually(
            lambda: (
                {"api", "shop"}
                <= {row["name"] for row in stranger.tell(do="view").get("resources", ())}
            ),
            what="the view of all owners",
        )
