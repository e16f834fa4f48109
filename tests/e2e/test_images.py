"""Images from a registry: with credentials, and whatever goes wrong there, what serves goes on."""

from __future__ import annotations

import base64
import http.client
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.instance import Host, eventually
from tests.registry import Registry, admit, write_credentials
from tools import demo_images

HOST = "127.0.0.1:5055"
APP = f"{HOST}/team/app"
PORT = 18155
PASSWORD = "first-s3cr3t"
RENEWED = "second-s3cr3t"
SERVICE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: web, owner: team}}
spec:
  image: {image}
  pullPolicy: {policy}
  ports: [{{container: 8080, host: {port}, hostIP: 127.0.0.1}}]
  stopGracePeriod: 1s
  rollout: {{minHealthy: 0s}}
"""


WEB = SERVICE.format(image=f"{APP}:1", policy="Always", port=PORT)


def declare(host: Host, image: str, *, policy: str = "IfNotPresent") -> None:
    host.write("web.yaml", SERVICE.format(image=image, policy=policy, port=PORT))


def condition(host: Host, type_: str) -> dict[str, Any]:
    """Return a condition of the service while it holds, else {}."""
    found = [c for c in host.resource("web").get("conditions", []) if c["type"] == type_]
    return found[0] if found and found[0]["status"] == "True" else {}


def await_reason(host: Host, type_: str, code: str) -> str:
    """Wait until the service says so, and return its message."""

    def said() -> str:
        told = condition(host, type_)
        text = f"{told.get('reason')}: {told.get('message')}"
        return text if code in text else ""

    return eventually(said, what=f"{type_} with {code}")


class Hits:
    """A client that asks the service all the time, and counts what it got."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.good = 0
        self.bad: list[str] = []

    @contextmanager
    def counting(self) -> Iterator[Hits]:
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.1):
                try:
                    status = self._host.engine.http_get(PORT).status
                except (OSError, http.client.HTTPException) as error:
                    self.bad.append(str(error))
                else:
                    self.good += status == 200
                    if status != 200:
                        self.bad.append(str(status))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()


@pytest.fixture
def registry(host: Host) -> Iterator[Registry]:
    """A registry that lets everybody in."""
    made = Registry(host.folder, host.engine, host=HOST)
    try:
        yield made
    finally:
        made.stop()
        for tag in ("1", "2"):
            host.engine.docker("rmi", "-f", f"{APP}:{tag}", check=False)


def test_whatever_a_registry_does_wrong_what_serves_goes_on(host: Host, registry: Registry) -> None:
    registry.push(f"{APP}:1", demo_images.web("1"))
    registry.push(f"{APP}:2", demo_images.web("2"))
    registry.stop()
    registry.let_in(PASSWORD)
    registry.start()
    credentials = host.folder / "registry.json"
    write_credentials(credentials, HOST, PASSWORD)
    admit(host, HOST)
    declare(host, f"{APP}:1")
    host.up("--registry-auth", str(credentials))
    host.await_ready("web")
    assert host.resource("web")["digest"].startswith("sha256:")
    before = host.running_ids("web")
    eventually(lambda: host.engine.http_get(PORT).status == 200, what="it serves")

    with Hits(host).counting() as hits:
        declare(host, f"{APP}:nosuch")
        assert "its registry has no such image" in await_reason(host, "Stalled", "image.notfound")

        registry.let_in(RENEWED)
        declare(host, f"{APP}:2")
        assert f"{HOST} in {credentials}" in await_reason(host, "Stalled", "image.denied")

        registry.stop()
        declare(host, f"{APP}:2", policy="Always")
        await_reason(host, "Progressing", "image.registry")

        assert host.running_ids("web") == before
        asked = hits.good
        eventually(lambda: hits.good > asked, what="it is asked still")
    assert hits.bad == []

    # A renewed file is read at the next pull.
    registry.start()
    write_credentials(credentials, HOST, RENEWED)
    declare(host, f"{APP}:2")
    eventually(lambda: not set(before) & set(host.running_ids("web")), what="the new one runs")
    host.await_ready("web")
    host.stop()

    outcomes = [r for r in host.records() if r["stage"] == "outcome"]
    codes = {r["result"]["code"] for r in outcomes if r["result"].get("code")}
    assert codes == {"image.notfound", "image.denied", "image.registry"}
    mine = (*host.state.rglob("*"), host.log)
    texts = b"".join(path.read_bytes() for path in mine if path.is_file())
    pairs = [base64.b64encode(f"ann:{word}".encode()) for word in (PASSWORD, RENEWED)]
    for secret in (PASSWORD.encode(), RENEWED.encode(), *pairs):
        assert secret not in texts


def test_a_revision_gets_its_own_image_back_wherever_the_tag_went_until_a_restart_is_asked_for(
    host: Host, registry: Registry
) -> None:
    registry.push(f"{APP}:1", demo_images.web("1"))
    admit(host, HOST)
    declare(host, f"{APP}:1", policy="Always")
    with host.running():
        before = host.resource("web")["digest"]
        first = host.containers("web")[0]["Image"]

        registry.push(f"{APP}:1", demo_images.web("2"))  # the tag moves
        host.cli("suspend", "web")  # else it is healed before its image is gone
        host.engine.docker("rm", "-f", *host.running_ids("web"))
        host.engine.docker("rmi", "-f", first)
        host.cli("resume", "web", "--timeout", "60s")
        assert [c["Image"] for c in host.containers("web")] == [first]
        assert host.resource("web")["digest"] == before

        host.cli("restart", "web", "--timeout", "60s")
        assert [c["Image"] for c in host.containers("web")] != [first]
        assert host.resource("web")["digest"] not in ("", before)
        it_is_pulled_once_and_started_beside_its_predecessor(host)


def it_is_pulled_once_and_started_beside_its_predecessor(host: Host) -> None:
    # Nothing keeps two containers of a slot of this one apart, so the next one starts first.
    lines = "".join(line for line in WEB.splitlines(keepends=True) if "ports" not in line)
    host.write("beside.yaml", lines.replace("name: web", "name: beside"))
    host.cli("apply", "--timeout", "60s")
    begun = pulls(host)
    host.cli("restart", "beside", "--timeout", "60s")
    assert host.containers("beside")[0]["Image"] == host.containers("web")[0]["Image"]
    assert pulls(host) == begun + 1
    host.write("beside.yaml", (host.directory / "beside.yaml").read_text() + "  env: {A: b}\n")
    host.cli("apply", "--timeout", "60s")
    assert "A=b" in host.containers("beside")[0]["Config"]["Env"]
    assert pulls(host) == begun + 2


def pulls(host: Host) -> int:
    """Return how often an image was pulled."""
    return sum(each["request"]["route"] == "image.pull" for each in host.records("intent"))


#: Takes connections and never says a word.
SILENT = """
import socket
listener = socket.create_server(("127.0.0.1", 5056))
held = []
while True:
    held.append(listener.accept())
"""


def test_a_registry_that_hangs_delays_nothing_else(host: Host) -> None:
    admit(host, "127.0.0.1:5056")
    hanging = subprocess.Popen(host.engine.inside("python3", "-c", SILENT))
    try:
        host.write(
            "ok.yaml", SERVICE.format(image="trimtab.local/web:1", policy="Never", port=PORT)
        )
        names = [f"slow-{number}" for number in range(6)]
        for name in names:
            text = SERVICE.format(image="127.0.0.1:5056/x:1", policy="Always", port=PORT)
            lines = text.replace("name: web", f"name: {name}").splitlines()
            host.write(f"{name}.yaml", "\n".join(line for line in lines if "ports" not in line))
        host.up()
        eventually(lambda: host.is_ready("web"), what="what needs no registry runs")

        def pulling() -> bool:
            found = [host.resource(name).get("conditions", []) for name in names]
            return all(any(c["reason"] == "Pulling" for c in each) for each in found)

        eventually(pulling, what="the others pull")
        host.engine.docker("rm", "-f", *host.running_ids("web"))
        eventually(lambda: host.running_ids("web"), what="it is healed meanwhile")
        assert pulling()
    finally:
        hanging.kill()
        hanging.wait()
        host.stop()


LOCAL = ("ghcr.io/platformnetwork/shop:1", "ghcr.io/platformnetwork/shop:2")
BUILT = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: shop, owner: team}}
spec: {{image: "{image}", rollout: {{minHealthy: 0s}}}}
"""


def build(host: Host, content: str) -> str:
    """Build both images on the host; return the id of the first."""
    file = f"FROM trimtab.local/web:1\nLABEL content={content}\n"
    (host.folder / "Dockerfile").write_text(file)
    tags = [word for name in LOCAL for word in ("--tag", name)]
    host.engine.docker("build", "--quiet", *tags, str(host.folder))
    return host.engine.docker("inspect", "--format", "{{.Id}}", LOCAL[0]).stdout.strip()


def test_an_image_that_is_built_again_is_offered_and_taken_by_a_restart(host: Host) -> None:
    host.policy = "strict"
    first = build(host, "old")
    try:
        host.write("shop.yaml", BUILT.format(image=LOCAL[0]))
        host.up()
        eventually(lambda: host.resource("shop"), what="the document is read")
        trusted = host.cli("image", "trust", *LOCAL).stdout
        assert [f"{name} is trusted as {first}" in trusted for name in LOCAL] == [True, True]
        host.await_ready("shop")
        second = build(host, "new")
        host.cli("restart", "shop", "--timeout", "60s")
        assert [each["Image"] for each in host.containers("shop")] == [first], "without trust"
        told = host.cli("image", "trust", LOCAL[0]).stdout
        assert "shop runs an earlier image: trimtab restart shop takes the new one" in told
        planned = host.cli("plan").stdout
        assert f"image {LOCAL[0]} was rebuilt: {first[:19]} -> {second[:19]}" in planned
        assert [each["Image"] for each in host.containers("shop")] == [first]
        host.cli("restart", "shop", "--timeout", "60s")
        assert [each["Image"] for each in host.containers("shop")] == [second]
        assert "was rebuilt" not in host.cli("plan").stdout
    finally:
        host.stop()
        host.engine.docker("rmi", "-f", *LOCAL, check=False)
