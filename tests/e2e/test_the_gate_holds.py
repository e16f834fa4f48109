"""The gate, as clients, operators and containers meet it on a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.broker.host.capabilities import CAPABILITIES, KEPT_FOR, NOFILE
from tests.instance import POLICIES, Host, eventually, web

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine


def refused(host: Host, *arguments: str) -> str:
    """Run the docker CLI against the broker, and return why it was refused."""
    done = host.docker_through_broker(*arguments, check=False)
    assert done.returncode != 0, f"{arguments} was admitted: {done.stdout}"
    return done.stderr


@contextmanager
def opened(engine: PrivateEngine | FoundEngine, policy: str) -> Iterator[Host]:
    """Run an instance under a shipped policy, with networks of its own beside other instances."""
    host = Host(engine)
    try:
        host.policy = str(POLICIES / f"{policy}.yaml")
        host.use_networks_of_its_own(f"gate-{policy}")
        copy = Path(host.policy)
        # The tests' images have no digest: it would be refused for that alone.
        copy.write_text(copy.read_text().replace("requireDigest: true", "requireDigest: false"))
        with host.running():
            yield host
    finally:
        host.close()


@pytest.fixture(scope="module")
def development(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    with opened(engine, "development") as host:
        yield host


@pytest.fixture(scope="module")
def production(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    with opened(engine, "production") as host:
        yield host


@pytest.fixture(scope="module")
def strict(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    with opened(engine, "strict") as host:
        yield host


def test_the_docker_cli_works_against_the_broker(development: Host) -> None:
    host = development
    host.write("listed.yaml", web("listed"))
    host.await_ready("listed")
    assert "listed.1-" in host.docker_through_broker("ps").stdout
    name = host.names("listed")[0]
    assert host.docker_through_broker("inspect", "-f", "{{.Name}}", name).stdout.strip() == (
        f"/{name}"
    )
    image = ("--network", "none", "--entrypoint", "busybox", "trimtab.local/web:1")
    hello = host.docker_through_broker("run", "--name", "hi", *image, "echo", "hello")
    assert hello.stdout == "hello\n"
    assert host.docker_through_broker("logs", "hi").stdout == "hello\n"
    host.docker_through_broker("rm", "hi")
    assert "hi" not in host.docker_through_broker("ps", "-a").stdout.split()


def test_a_privileged_container_is_refused_with_a_rule_and_a_remedy(development: Host) -> None:
    told = refused(development, "run", "--privileged", "trimtab.local/web:1")
    assert "privileged" in told
    *_, record = eventually(lambda: development.records("refusal"))
    assert record["verdict"]["rules"][0] == "privileged"


@pytest.mark.parametrize(
    "image", ["alpine:latest", "ubuntu:22.04", "docker.io/malicious/miner:latest"]
)
def test_strict_refuses_other_images(strict: Host, image: str) -> None:
    assert "image." in refused(strict, "run", image)


@contextmanager
def tagged(host: Host, image: str, name: str) -> Iterator[str]:
    """Give a local image a name during the block."""
    host.engine.docker("tag", image, name)
    try:
        yield name
    finally:
        host.engine.docker("rmi", name)


def test_strict_hardens_a_local_image_that_an_operator_vouched_for(strict: Host) -> None:
    with tagged(strict, "trimtab.local/web:1", "ghcr.io/platformnetwork/web:1") as admitted:
        is_hardened(strict, admitted)


def is_hardened(host: Host, admitted: str) -> None:
    """Vouch for an image; a service and a client's container of it have what strict gives them."""
    assert "image." in refused(host, "create", admitted)
    host.cli("image", "trust", admitted)
    host.docker_through_broker("run", "-d", "--name", "plain", admitted)
    try:
        text = web(extra="security: {capAdd: [CHOWN]}").replace("trimtab.local/web:1", admitted)
        host.write("web.yaml", text)
        host.cli("apply", "--timeout", "60s")
        for name, caps in ((host.names("web")[0], 1), ("plain", 0)):
            (seen,) = json.loads(host.engine.docker("inspect", name).stdout)
            config, pid = seen["HostConfig"], seen["State"]["Pid"]
            assert (config["Memory"], config["MemorySwap"]) == (2 * 1024**3,) * 2
            assert (config["NanoCpus"], config["PidsLimit"]) == (10**9, 256)
            assert config["CapDrop"] == ["ALL"]
            assert config["Privileged"] is False
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            assert int(status["CapBnd"], 16) == caps  # CAP_CHOWN is bit 0
            assert int(status["CapEff"], 16) in (0, caps)
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
    finally:
        host.remove("web.yaml")
        host.docker_through_broker("rm", "-f", "plain", check=False)
        host.engine.docker("rm", "-f", *host.names("web"), check=False)


@pytest.mark.parametrize("policy", ["strict", "production", "development"])
def test_sockets_state_and_desired_state_are_no_bind_sources_under_any_policy(
    request: pytest.FixtureRequest, policy: str
) -> None:
    host: Host = request.getfixturevalue(policy)
    # Another image than that of other tests, which would find it vouched for.
    with tagged(host, "trimtab.local/web:2", "ghcr.io/platformnetwork/bound:1") as admitted:
        refuses_binds(host, admitted)


def refuses_binds(host: Host, admitted: str) -> None:
    # Only so that nothing but the bind is left to refuse.
    host.cli("image", "trust", admitted)
    sound = ("create", "--read-only", "--user", "1000", "--network", "none")
    host.docker_through_broker(*sound, "--name", "sound", admitted)
    engine_socket = host.engine.host.removeprefix("unix://")
    try:
        for source in (
            str(host.broker_socket.parent),
            str(host.broker_socket),
            engine_socket,
            str(Path(engine_socket).parent),
            str(host.state),
            str(host.state / "broker"),
            str(host.directory),
            str(host.folder),
            "/",
        ):
            told = refused(host, *sound, "-v", f"{source}:/mnt:ro", admitted)
            assert "mount." in told, (source, told)
    finally:
        host.docker_through_broker("rm", "sound")


def test_every_change_that_the_engine_saw_has_an_intent(development: Host) -> None:
    host = development
    host.write("web.yaml", web(replicas=2))
    eventually(lambda: len(host.running_ids("web")) == 2)
    host.engine.docker("rm", "-f", host.running_ids("web")[0])
    eventually(lambda: len(host.running_ids("web")) == 2)
    host.write("web.yaml", web(replicas=1))
    eventually(lambda: len(host.containers("web")) == 1)
    eventually(host.nothing_open)
    records = host.records()
    intents = {r["id"]: r for r in records if r["stage"] == "intent"}
    closings = [r["id"] for r in records if r["stage"] in ("outcome", "recovered")]
    assert sorted(closings) == sorted(intents), "each intent is closed exactly once"
    assert all(r["verdict"]["decision"] in ("allow", "mutate") for r in intents.values())
    created = {r["result"].get("container") for r in records if r["stage"] == "outcome"}
    events = host.engine.docker(
        *("events", "--since", "30m", "--until", "0s", "--format", "{{json .}}"),
        *("--filter", f"label=io.trimtab.instance={host.instance}", "--filter", "event=create"),
    ).stdout
    seen = {json.loads(line)["id"] for line in events.splitlines()}
    assert len(seen) >= 3
    assert seen <= created, "what the engine created, the journal recorded"


@pytest.mark.needs_root
def test_the_brokers_process_has_what_the_table_says_and_nothing_more(development: Host) -> None:
    mask = f"{sum(1 << CAPABILITIES[name] for name in KEPT_FOR):016x}"
    expected = {
        "CapEff": mask,
        "CapPrm": mask,
        "CapBnd": mask,
        "CapInh": "0" * 16,
        "CapAmb": "0" * 16,
        "NoNewPrivs": "1",
        "Umask": "0077",
    }
    proc = Path(f"/proc/{development.pid_of('broker')}")
    threads = list(proc.glob("task/*"))
    for thread in threads:  # rights belong to threads
        lines = (thread / "status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert {name: status[name] for name in expected} == expected, thread
        assert (thread / "children").read_text() == "", "no other program runs for it"
    assert len(threads) > 1
    limits = (proc / "limits").read_text()
    for name, most in (("Max core file size", "0"), ("Max open files", str(NOFILE))):
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[:2] == [most, most]
