"""Whose containers are whose: instances side by side, copied state folders, a second controller."""

from __future__ import annotations

import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instance import TRIMTAB, Host, eventually, web
from tests.unprivileged import as_user

INTENT = "io.trimtab.intent"
PRUNED_AT_ONCE = web(extra="stopGracePeriod: 0s")


@pytest.fixture
def other(host: Host) -> Iterator[Host]:
    """Another instance on the same engine, with networks of its own; so has ``host``."""
    host.use_networks_of_its_own("ours")
    other = Host(host.engine)
    other.use_networks_of_its_own("theirs")
    try:
        yield other
    finally:
        other.close()


PAGE = Path(__file__).parents[2] / "docs" / "operations" / "state.md"


def typed(host: Host, section: str, *, expect: int = 0, instance: str = "") -> str:
    """Type the next commands of a section of the page, with the places and the id of a test."""
    body = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    told = ""
    for block in re.findall(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL):
        command = block.replace("/srv/desired", str(host.directory))
        command = command.replace("/var/lib/trimtab", str(host.state))
        command = command.replace("0123456789abcdef", instance)
        command = command.replace("--policy production", f"--policy {host.policy}")
        path = f"{Path(TRIMTAB).parent}:{host.environment()['PATH']}"
        done = subprocess.run(
            host.engine.inside("bash", "-euo", "pipefail", "-c", command),
            env=host.environment(PATH=path, TRIMTAB_STATE=str(host.state)),
            cwd=host.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        wanted = expect if "trimtab" in block.split()[0] else 0
        assert done.returncode == wanted, f"{command}\n{done.stdout}\n{done.stderr}"
        told += done.stdout
    return told


def in_quarantine(host: Host, name: str) -> str:
    """Return what is said of a resource in quarantine, '' if it isn't."""
    for condition in host.resource(name).get("conditions", []):
        if condition["type"] == "Quarantined":
            return str(condition["message"])
    return ""


def restart_policy(host: Host, service: str) -> str:
    (container,) = host.containers(service)
    return str(container["HostConfig"]["RestartPolicy"]["Name"])


def stalled(host: Host, name: str) -> str:
    """Return why a resource is stalled, '' if it isn't."""
    for condition in host.resource(name).get("conditions", []):
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return f"{condition['reason']}: {condition['message']}"
    return ""


def run(host: Host, labels: dict[str, str], *options: str) -> str:
    """Run a container past the gate, with labels of somebody's choice; return its id."""
    given = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    done = host.engine.docker("run", "-d", *given, *options, "trimtab.local/web:1")
    return done.stdout.strip()


def ids(host: Host, service: str) -> list[str]:
    return [each["Id"] for each in host.containers(service)]


def two_instances_never_touch_each_others_containers(host: Host, other: Host) -> None:
    """Both run; in the end the other one ends."""
    before = ids(other, "theirs")
    # What is declared here is another instance's there: nobody takes it over.
    host.write("theirs.yaml", web("theirs"))
    reason = eventually(lambda: stalled(host, "theirs"), what="the name is taken")
    assert reason.startswith("name.foreign: ")
    assert f"instance {other.instance}" in reason
    host.remove("theirs.yaml")
    host.remove("mine.yaml")
    eventually(lambda: not ids(host, "mine"), what="what isn't declared any more is pruned")
    assert ids(other, "theirs") == before
    other.stop()
    adopt = ("adopt", "--instance", host.instance, "--policy", other.policy, "--yes")
    # What is served isn't lost, and a folder that has something stays what it is.
    assert "[state.forked]" in other.cli(*adopt, expect=1).stderr


def test_a_copy_of_a_state_folder_is_noticed_on_its_own_engine(host: Host) -> None:
    """Before the copy is made, what is pruned goes through its quarantine."""
    host.use_networks_of_its_own("copied")
    host.write("stays.yaml", web("stays"))
    host.write("web.yaml", PRUNED_AT_ONCE)
    what_is_pruned_is_kept_for_its_quarantine_and_started_again_if_it_is_declared(host)
    copy = host.second()
    copy.state = host.folder / "copy"
    subprocess.run(["cp", "--archive", host.state, copy.state], check=True)
    with host.running():
        assert "each member is as it was written" in typed(host, "Back it up")
        second = second_controller(host)
        copy.up()
        assert copy.process is not None
        assert copy.process.wait(timeout=60) == 1
        said = copy.said()
        assert "[state.forked]" in said, said
        assert f"a broker on {host.state} is instance {host.instance}" in said
        assert "Traceback" not in said
        host.write("api.yaml", web("api"))
        host.await_ready("api")
        told = second.communicate(timeout=60)[1].decode()
        assert second.returncode == 1
        assert "another controller holds" in told
        assert "[state.held]" in told
    # Alone, it learns from what is there that it isn't the one that it was.
    mine = ids(host, "stays") + ids(host, "api")
    copy.up()
    try:
        copy.write("api.yaml", web("api", replicas=2))
        reason = eventually(lambda: stalled(copy, "api"), what="the copy is refused")
        assert reason.startswith("state.forked: "), reason
        assert [p["code"] for p in copy.json("status")["problems"]] == ["state.forked"]
        forked = [f for f in copy.json("doctor", expect=1) if f["check"] == "forked"]
        assert forked[0]["level"] == "error"
    finally:
        copy.stop()
    assert ids(host, "stays") + ids(host, "api") == mine


def what_is_pruned_is_kept_for_its_quarantine_and_started_again_if_it_is_declared(
    host: Host,
) -> None:
    with host.running("--quarantine", "1h"):
        (first,) = ids(host, "web")
        host.remove("web.yaml")
        told = eventually(lambda: in_quarantine(host, "web"), what="web is put away")
        assert re.fullmatch(r"quarantined until 20\S+Z, then removed", told)
        (kept,) = host.containers("web")
        assert kept["State"]["Status"] == "exited"
        assert restart_policy(host, "web") == "no"
        plan = host.plan() or {}
        assert [action["action"] for action in plan["actions"]] == ["wait"]
        assert "Quarantined" in host.cli("apply", "--timeout", "20s").stdout, (
            "it counts as converged"
        )
        host.write("web.yaml", PRUNED_AT_ONCE)
        host.await_ready("web")
        assert ids(host, "web") == [first]
        eventually(lambda: restart_policy(host, "web") == "always", what="it is given back")
    with host.running("--quarantine", "2s"):
        host.remove("web.yaml")
        eventually(lambda: in_quarantine(host, "web"), what="web is put away")
        eventually(lambda: not ids(host, "web"), what="its quarantine is over")
    found = [f["message"] for f in host.json("doctor", expect=(0, 1)) if f["check"] == "quarantine"]
    assert found == ["pruned containers are kept for 2s"]


def second_controller(host: Host) -> subprocess.Popen[bytes]:
    """Start another controller on the same folder; it waits for a while before it gives up."""
    user = pwd.getpwnam("trimtab")
    run = [TRIMTAB, "run", "--state", str(host.state), "--broker", str(host.broker_socket)]
    argv = as_user(run, uid=user.pw_uid, gid=user.pw_gid)
    return subprocess.Popen(
        host.engine.inside(*argv),
        env=host.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


RICH = """\
ports: [{container: 8080, host: 18300, hostIP: 127.0.0.1}]
mounts:
  - {type: volume, source: kept, target: /data}
  - {type: tmpfs, target: /scratch, size: 16Mi}
security: {capAdd: [CHOWN], readOnlyRootFilesystem: true}
env: {LEVEL: "1"}
resources: {memory: 64Mi, shm: 32Mi}
"""
VOLUME = """\
apiVersion: trimtab/v1
kind: Volume
metadata: {name: kept, owner: team}
spec: {}
"""


def is_taken_down_alone(host: Host, other: Host) -> None:
    """The other instance can't take this one's place, and its end costs this one nothing."""
    adopt = ("adopt", "--instance", host.instance, "--policy", other.policy, "--yes")
    assert "[state.other-instance]" in other.cli(*adopt, expect=1).stderr
    other.cli("down")
    assert other.containers() == []
    assert ids(host, "web")
    network = host.engine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert {"theirs", "theirs-in"}.isdisjoint(network)


def says_whose_what_is_in_its_way_is(host: Host, lost: str) -> None:
    """An instance that is begun anew names the one that is lost."""
    host.up()
    try:
        reason = eventually(lambda: stalled(host, "rich"), what="the names are taken")
        assert f"trimtab adopt --instance {lost}" in reason
    finally:
        host.stop()


def test_instances_leave_each_other_alone_and_a_lost_state_folder_is_taken_over(
    host: Host, other: Host
) -> None:
    """A second instance comes and goes before the folder is lost, and nothing is recreated then."""
    host.write("rich.yaml", web("rich", extra=RICH))
    host.write("kept.yaml", VOLUME)
    host.write("web.yaml", web())
    host.write("mine.yaml", web("mine", extra="stopGracePeriod: 0s"))
    other.write("theirs.yaml", web("theirs"))
    with host.running():
        with other.running():
            two_instances_never_touch_each_others_containers(host, other)
        lost = host.instance
        host.docker_through_broker("run", "-d", "--name", "guest", "trimtab.local/web:1")
        labels = host.containers("web")[0]["Config"]["Labels"]
        name = host.names("web")[0]
        before = {each["Id"]: each["State"]["StartedAt"] for each in host.containers()}
    is_taken_down_alone(host, other)
    shutil.rmtree(host.state)
    # Somebody has the engine's socket: a copy of labels, and one that reaches for the host.
    forged = {**labels, INTENT: "01a20ff1-f076-7e04-99b0-cb01fc6396d2"}
    forged |= {"io.trimtab.slot": "3"}
    evil = run(host, forged, "--privileged", "--name", name.replace(".1-", ".3-"))
    copy = run(host, labels, "--name", f"{name}.2")
    command = ("adopt", str(host.directory), "--instance", lost, "--policy", host.policy)

    shown = host.json(*command, expect=4)
    assert not host.state.exists(), "looking leaves nothing behind"
    judged = {each["id"]: each["verdict"]["rules"][:1] for each in shown["objects"]}
    original = next(each for each in shown["objects"] if each["intent"] == labels[INTENT])
    assert {key: rules[0] for key, rules in judged.items() if rules} == {
        evil: "privileged",
        copy: "adopt.copied",
        original["id"]: "adopt.copied",
    }

    says_whose_what_is_in_its_way_is(host, lost)
    host.engine.docker("rm", "-f", copy)
    told = typed(host, "When it is lost", expect=4, instance=lost)
    assert re.search(rf"^ +\d+ {lost}$", told, re.MULTILINE), told
    assert "Nothing was changed" in told
    assert told.count("stays foreign") == 2
    assert "Took over 6 of 7" in told, told
    assert host.instance == lost
    with host.running():
        after = {each["Id"]: each["State"]["StartedAt"] for each in host.containers()}
        assert after == before | {evil: after[evil]}, "nothing was made or started anew"
        assert host.json("plan")["actions"] == []
        host.docker_through_broker("inspect", "guest")
        assert "No such container" in host.docker_through_broker("logs", evil, check=False).stderr
        # What was adopted is looked after like everything else.
        host.engine.docker("rm", "-f", host.names("rich")[0])
        host.await_ready("rich", "web")
    acts = [r for r in host.records() if r["stage"] == "operator"]
    adoptions = [r for r in acts if r["request"]["route"] == "instance.adopt"]
    assert len(adoptions) == 7
    host.engine.docker("rm", "-f", evil)
