"""Images that declare a VOLUME, on a real engine: no volume without a name, and the data stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.cli.commands.doctor import is_unnamed
from tests.instance import Host, eventually

IMAGE = "trimtab.local/keeper:1"
REPLICAS, ROLLOUTS = 2, 2
#: It counts its starts on the volume that the image declares.
COUNT = "echo start >> /data/starts; exec /bin/work"
SERVICE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {{name: {name}, owner: team}}
spec:
  image: {image}
  entrypoint: [/bin/sh, -c, "{count}"]
  env: {{GENERATION: "{generation}"}}
  stopGracePeriod: 1s
  replicas: {replicas}
  rollout: {{minHealthy: 0s, maxUnavailable: 5}}
---
"""
SCRATCH = """
exceptions:
  - owner: team
    namespace: default
    service: scratch
    repository: trimtab.local/keeper
    reason: its volume is a cache that may be empty
    expires: 2099-12-31
    loosens: {anonymousVolumes: scratch}
"""


@pytest.fixture
def keeper(host: Host) -> Host:
    """A host whose engine has an image that declares a VOLUME at /data."""
    dockerfile = host.folder / "Dockerfile"
    # The folder is the image's user's, and a new volume takes that over.
    dockerfile.write_text("FROM trimtab.local/worker:1\nVOLUME /data\nUSER 0\n")
    host.engine.docker("build", "--quiet", "--tag", IMAGE, str(host.folder))
    policy = host.folder / "policy.yaml"
    policy.write_text(Path(host.policy).read_text() + SCRATCH)
    host.policy = str(policy)
    return host


def write(host: Host, generation: int, names: tuple[str, ...] = ("kept", "scratch")) -> None:
    told = (
        SERVICE.format(
            name=name,
            image=IMAGE,
            count=COUNT,
            generation=generation,
            replicas=REPLICAS if name == "kept" else 1,
        )
        for name in names
    )
    host.write("services.yaml", "".join(told))


def volumes(host: Host) -> set[str]:
    return set(host.engine.docker("volume", "ls", "--quiet").stdout.split())


def starts(host: Host, service: str) -> list[int]:
    """Return how many starts each container of a service finds noted on its volume."""
    return [
        host.engine.docker("exec", name, "cat", "/data/starts").stdout.count("start")
        for name in host.names(service)
    ]


def await_rollout(host: Host, generation: int) -> None:
    wanted = f"GENERATION={generation}"

    def rolled_out() -> bool:
        found = host.containers()
        there = all(wanted in each["Config"]["Env"] for each in found)
        return len(found) == REPLICAS + 1 and there and host.all_ready()

    eventually(rolled_out, what=f"both services at {wanted}")


def test_replacements_leave_no_volume_without_a_name_and_lose_nothing(keeper: Host) -> None:
    host, before = keeper, volumes(keeper)
    write(host, 0)
    planned = host.cli("plan", str(host.directory), "--policy", host.policy, expect=2).stdout
    kept = set(re.findall(r"/data: volume (kept\.\d\.data-[0-9a-f]{6}) \(slot\)", planned))
    assert len(kept) == REPLICAS
    assert "/data: tmpfs (scratch)" in planned
    with host.running():
        for generation in range(1, ROLLOUTS + 1):
            write(host, generation)
            await_rollout(host, generation)
        assert starts(host, "kept") == [ROLLOUTS + 1] * REPLICAS, "what was written is there"
        assert starts(host, "scratch") == [1], "a tmpfs is empty at each start"
        assert volumes(host) - before == kept
        described = host.cli("describe", "kept").stdout
        assert all(f": /data: volume {name} (slot)" in described for name in kept)
        assert host.resource("kept")["rollout"]["order"] == "StopFirst"
        assert host.resource("scratch")["rollout"]["order"] == "StartFirst"
        assert not [record for record in host.records() if record["stage"] == "violation"]
        a_clients_volume_is_named_after_its_container(host, before | kept)
        a_policy_is_reloaded_by_a_command(host)
        write(host, ROLLOUTS, ("scratch",))
        eventually(lambda: not host.containers("kept"), what="kept is pruned")
        assert kept <= volumes(host), "a volume is never removed implicitly"
    doctor_counts_what_docker_left(host)


def a_clients_volume_is_named_after_its_container(host: Host, before: set[str]) -> None:
    run = ("run", "--user", "0", "--entrypoint", "/bin/sh")
    line = (IMAGE, "-c", "echo start >> /data/starts; cat /data/starts")
    for seen in (1, 2):
        shown = host.docker_through_broker(*run, "--name", "mine", *line).stdout
        assert shown.count("start") == seen
        host.docker_through_broker("rm", "--volumes", "mine")
    # With --rm nobody would ever look at its volume again.
    assert host.docker_through_broker(*run, "--rm", *line).stdout.count("start") == 1
    (made,) = volumes(host) - before
    assert re.fullmatch(r"mine\.data-[0-9a-f]{6}", made)
    assert host.docker_through_broker("volume", "ls", "--quiet").stdout.count(made) == 1


def a_policy_is_reloaded_by_a_command(host: Host) -> None:
    file = Path(host.policy)
    good = file.read_text()
    assert "is unchanged, digest" in host.cli("policy", "reload").stdout
    file.write_text(good.replace("root: true", "root: false"))
    changed = host.json("policy", "reload")
    assert (changed["changed"], changed["error"]) == (True, "")
    file.write_text(f"{good}nonsense: 1\n")
    refused = host.cli("policy", "reload", expect=1).stderr
    assert "nonsense: no key of a policy" in refused
    assert "the policy development stays in force" in refused
    what_a_policy_refused_is_tried_at_the_reload(host, file, good)
    file.write_text(good)
    host.cli("policy", "reload")


def what_a_policy_refused_is_tried_at_the_reload(host: Host, file: Path, good: str) -> None:
    def stalled() -> list[str]:
        found = host.resource("large").get("conditions", [])
        return [c["reason"] for c in found if c["type"] == "Stalled" and c["status"] == "True"]

    text = SERVICE.format(name="large", image=IMAGE, count=COUNT, generation=0, replicas=1)
    host.write("large.yaml", text.replace("  replicas", "  resources: {memory: 9Gi}\n  replicas"))
    eventually(lambda: stalled() == ["resources.memory"], what="the policy refuses it")
    file.write_text(f"{good}resources: {{memory: {{default: 1Gi, max: 9Gi}}}}\n")
    host.cli("policy", "reload")
    # The command has waited until the controller looked: nothing is refused any more.
    assert stalled() == []
    host.await_ready("large")
    (host.directory / "large.yaml").unlink()
    eventually(lambda: not host.containers("large"), what="it goes")


def doctor_counts_what_docker_left(host: Host) -> None:
    clean = [f for f in host.json("doctor", expect=(0, 1)) if f["check"] == "volumes"]
    unnamed = host.engine.docker("volume", "create").stdout.strip()
    assert is_unnamed(unnamed)
    try:
        (found,) = [f for f in host.json("doctor", expect=(0, 1)) if f["check"] == "volumes"]
        assert found["level"] == "warning"
        assert re.match(
            r"\d+ volumes? without a name, used by no container, [\d.]+ MiB", found["message"]
        )
        assert "docker volume prune" in found["remedy"]
        assert clean != [found]
    finally:
        host.engine.docker("volume", "rm", unnamed)
