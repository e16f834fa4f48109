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

ADMITTED = "ghcr.io/platformnetwork/web:1"


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
        with host.running():
            yield host
    finally:
        host.close()


@pytest.fixture(scope="module")
def development(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    with opened(engine, "development") as host:
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


def test_a_local_image_under_an_admitted_name_needs_an_operators_word(strict: Host) -> None:
    host = strict
    host.engine.docker("tag", "trimtab.local/web:1", ADMITTED)
    try:
        assert "image." in refused(host, "create", ADMITTED)
        host.cli("image", "trust", ADMITTED)
        host.docker_through_broker("create", "--name", "vouched", ADMITTED)
        host.docker_through_broker("rm", "vouched")
    finally:
        host.engine.docker("rmi", ADMITTED)


def test_strict_hardens_what_it_admits(host: Host) -> None:
    host.policy = "strict"
    host.engine.docker("tag", "trimtab.local/web:1", ADMITTED)
    try:
        host.write(
            "web.yaml",
            web(extra="security: {capAdd: [CHOWN]}").replace("trimtab.local/web:1", ADMITTED),
        )
        host.up()
        eventually(host.status)
        host.cli("image", "trust", ADMITTED)
        host.cli("apply", "--timeout", "60s")
        host.docker_through_broker("run", "-d", "--name", "plain", ADMITTED)
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
        host.docker_through_broker("rm", "-f", "plain")
        assert host.stop() == 0
    finally:
        if host.process is not None and host.process.poll() is None:
            host.stop()
        host.close()
        host.engine.docker("rmi", ADMITTED, check=False)


@pytest.mark.parametrize("policy", ["strict", "production", "development"])
def test_sockets_state_and_desired_state_are_no_bind_sources_under_any_policy(
    host: Host, policy: str
) -> None:
    text = (POLICIES / f"{policy}.yaml").read_text()
    # Only so that nothing but the bind is left to refuse.
    text = text.replace("[ghcr.io/platformnetwork/]", "[ghcr.io/platformnetwork/, trimtab.local/]")
    text = text.replace("requireDigest: true", "requireDigest: false")
    (host.folder / "policy.yaml").write_text(text)
    host.policy = str(host.folder / "policy.yaml")
    with host.running():
        host.cli("image", "trust", "trimtab.local/web:1")
        sound = ("create", "--read-only", "--user", "1000", "--network", "none")
        host.docker_through_broker(*sound, "--name", "sound", "trimtab.local/web:1")
        engine_socket = host.engine.host.removeprefix("unix://")
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
            told = refused(host, *sound, "-v", f"{source}:/mnt:ro", "trimtab.local/web:1")
            assert "mount." in told, (source, told)


def test_every_change_that_the_engine_saw_has_an_intent(host: Host) -> None:
    host.write("web.yaml", web(replicas=2))
    with host.running():
        host.engine.docker("rm", "-f", host.running_ids("web")[0])
        eventually(lambda: len(host.running_ids("web")) == 2)
        host.write("web.yaml", web(replicas=1))
        eventually(lambda: len(host.containers("web")) == 1)
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
    assert seen
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
