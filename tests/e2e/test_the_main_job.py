"""The main job, as users see it: files in, containers kept, everything said."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.instance import Host, eventually, has, web

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

#: Asked seldom: checks of many containers keep processors busy.
QUICK = (
    "rollout: {minHealthy: 1s}\nstopGracePeriod: 1s\n"
    "healthcheck: {exec: [/bin/echo], interval: 60s}"
)
STATE_FILE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: gateway, owner: team}
spec:
  image: trimtab.local/web:1
  ports: [{container: 8080, host: 18081}]
"""


@pytest.fixture(scope="module")
def running(engine: PrivateEngine | FoundEngine) -> Iterator[Host]:
    """One instance for several tests, each with services of names of its own, which stay.

    Names are the engine's: other tests run instances beside this one.
    """
    host = Host(engine)
    host.use_networks_of_its_own("main-job")
    try:
        host.write("first.yaml", web("first", extra=QUICK))
        with host.running():
            yield host
    finally:
        host.close()


def test_a_new_file_runs_and_a_removed_one_goes(running: Host) -> None:
    host = running
    host.write("fresh.yaml", web("fresh", replicas=2, extra=QUICK))
    host.await_ready("fresh")
    assert [n.rsplit("-", 1)[0] for n in host.names("fresh")] == ["fresh.1", "fresh.2"]
    host.write("more/added.yml", web("added", extra=QUICK))
    eventually(lambda: host.running_ids("added"), within_s=25)
    host.remove("more/added.yml")
    eventually(lambda: not host.containers("added"))
    assert len(host.running_ids("fresh")) == 2
    host.cli("plan", expect=0)


def test_what_is_killed_stopped_or_removed_runs_again(running: Host) -> None:
    host = running
    host.write("harmed.yaml", web("harmed", replicas=2, extra=QUICK))
    host.await_ready("harmed")

    def runs() -> dict[str, str]:
        found = (each for each in host.containers("harmed") if each["State"]["Running"])
        return {each["Id"]: each["State"]["StartedAt"] for each in found}

    _, other = runs()
    for harm in (("kill",), ("stop", "-t", "1"), ("rm", "-f")):
        before = runs()
        (victim,) = before.keys() - {other}
        host.engine.docker(*harm, victim)
        # Started again, or another one: a container that was killed is shown as running for a moment more.
        eventually(lambda: len(now := runs()) == 2 and now != before, within_s=25)  # noqa: B023
        host.await_ready("harmed")
        assert runs()[other] == before[other], "the other replica was left alone"


def test_a_container_altered_from_outside_is_replaced_by_an_unaltered_one(running: Host) -> None:
    host = running
    host.write("altered.yaml", web("altered", extra=f"resources: {{memory: 64Mi}}\n{QUICK}"))
    host.await_ready("altered")
    (before,) = host.containers("altered")
    assert before["HostConfig"]["Memory"] == 64 * 1024**2
    host.engine.docker("update", "--memory", "128m", "--memory-swap", "128m", before["Id"])

    def healed() -> bool:
        now = host.containers("altered")
        return [c["HostConfig"]["Memory"] for c in now] == [64 * 1024**2] and now[0]["State"][
            "Running"
        ]

    eventually(healed, within_s=25)
    told = host.journal("--service", "altered")
    causes = [r["claims"].get("cause", "") for r in told if r["stage"] == "intent"]
    assert any("memory" in cause for cause in causes), causes


def test_a_broken_file_is_reported_by_place_and_all_else_keeps_running(running: Host) -> None:
    host = running
    host.write("sound.yaml", web("sound", extra=QUICK))
    host.write("broken.yaml", web("broken", extra=QUICK))
    host.await_ready("sound", "broken")
    before = host.running_ids("sound") + host.running_ids("broken")
    host.write("broken.yaml", web("broken", extra=QUICK).replace("image:", "imgae:"))

    def reported() -> list[tuple[str, int, int]]:
        status = host.status() or {"problems": []}
        return [(p["file"], p["line"], p["column"]) for p in status["problems"]]

    assert ("broken.yaml", 5, 3) in eventually(reported, within_s=25)
    host.write("more.yaml", web("more", extra=QUICK))
    eventually(lambda: host.running_ids("more"), within_s=25)
    assert host.running_ids("sound") + host.running_ids("broken") == before
    host.cli("validate", str(host.directory), expect=3)
    host.cli("plan", expect=3)
    host.write("broken.yaml", web("broken", extra=QUICK))
    eventually(lambda: not reported(), what="the file is whole again")


def test_a_changed_file_is_rolled_out_successor_first(running: Host) -> None:
    host = running
    host.write("changed.yaml", web("changed", extra=QUICK))
    host.await_ready("changed")
    (old,) = host.running_ids("changed")
    host.write("changed.yaml", web("changed", extra=f"env: {{COLOUR: blue}}\n{QUICK}"))
    eventually(lambda: host.running_ids("changed") not in ([], [old]), within_s=25)
    eventually(lambda: len(host.containers("changed")) == 1)
    order = [
        r["request"]["route"]
        for r in host.journal("--service", "changed", "--limit", "100")
        if r["stage"] == "intent"
    ]
    assert (
        order.index("container.stop")
        > [i for i, route in enumerate(order) if route == "container.start"][1]
    ), f"the successor starts before the old one stops: {order}"


def test_a_directory_swapped_by_a_link_is_followed(host: Host) -> None:
    one, two = host.folder / "one", host.folder / "two"
    one.mkdir()
    two.mkdir()
    (one / "web.yaml").write_text(web(extra=QUICK))
    (two / "web.yaml").write_text(web(extra=f"env: {{RELEASE: two}}\n{QUICK}"))
    host.directory.rmdir()
    host.directory.symlink_to("one")
    with host.running():
        fresh = host.folder / ".desired.new"
        fresh.symlink_to("two")
        fresh.rename(host.directory)

        def swapped() -> bool:
            return ["RELEASE=two" in c["Config"]["Env"] for c in host.containers("web")] == [True]

        eventually(swapped, within_s=25)


def test_an_emptied_or_vanished_directory_removes_nothing(host: Host) -> None:
    host.write("web.yaml", web())
    host.write("api.yaml", web("api"))
    with host.running():
        before = host.running_ids("web") + host.running_ids("api")
        last_services_that_stop_pass_the_same_guard(host)
        host.remove("web.yaml")
        host.remove("api.yaml")
        eventually(lambda: has(host.resource("web"), "PrunePending"), within_s=25)
        aside = host.folder / "aside"
        host.directory.rename(aside)
        eventually(lambda: (host.status() or {"problems": []})["problems"], within_s=25)
        assert host.running_ids("web") + host.running_ids("api") == before
        aside.rename(host.directory)
        host.cli("apply", "--approve-prune", "--timeout", "60s")
        assert not host.containers()


def last_services_that_stop_pass_the_same_guard(host: Host) -> None:
    def running() -> list[str]:
        return host.running_ids("web") + host.running_ids("api")

    before = running()
    for name in ("web", "api"):
        host.write(f"{name}.yaml", web(name, extra="state: Stopped"))
    eventually(lambda: has(host.resource("web"), "PrunePending"), within_s=25)
    assert running() == before
    host.cli("apply", "--approve-prune", "--timeout", "60s")
    assert not running()
    for name in ("web", "api"):
        host.write(f"{name}.yaml", web(name))
    eventually(lambda: running() == before, what="the same containers run again")
    host.await_ready("web", "api")


def test_published_ports_answer_on_loopback_and_isolated_names_only_inside(running: Host) -> None:
    host = running
    host.write("gateway.yaml", STATE_FILE)
    host.write("inside.yaml", web("inside", extra=QUICK))
    host.await_ready("gateway", "inside")
    page = host.engine.http_get(18081)
    assert page.status == 200
    gateway = host.running_ids("gateway")[0]
    reached = host.engine.docker(
        "exec", gateway, "busybox", "wget", "-qO-", "-T", "3", "http://inside:8080/healthz"
    )
    assert reached.stdout == "ok\n"
    # docker0 is no network of ours: from there the name means nothing, the address nowhere.
    address = host.containers("inside")[0]["NetworkSettings"]["Networks"]
    for network in address.values():
        refused = host.engine.docker(
            *("run", "--rm", "--entrypoint", "busybox", "trimtab.local/web:1"),
            *("wget", "-qO-", "-T", "2", f"http://{network['IPAddress']}:8080/"),
            check=False,
        )
        assert refused.returncode != 0


def test_state_stopped_stops_and_running_starts_again(running: Host) -> None:
    host = running
    host.write("rests.yaml", web("rests", extra=QUICK))
    host.await_ready("rests")
    (container,) = host.running_ids("rests")
    host.write("rests.yaml", web("rests", extra=f"state: Stopped\n{QUICK}"))
    eventually(lambda: not host.running_ids("rests"), within_s=25)
    assert [c["Id"] for c in host.containers("rests")] == [container]
    host.write("rests.yaml", web("rests", extra=QUICK))
    eventually(lambda: host.running_ids("rests") == [container], within_s=25)


def test_a_renamed_service_starts_on_its_volume_once_what_was_there_has_ended(
    running: Host,
) -> None:
    host = running
    data = "mounts: [{type: volume, source: data, target: /data}]\nports: [{container: 8080, host: 18085}]"
    host.write("db.yaml", web("old", extra=f"{data}\n{QUICK}"))
    host.await_ready("old")
    (old,) = host.running_ids("old")
    host.write("db.yaml", web("new", extra=f"{data}\n{QUICK}"))
    host.await_ready("new")
    eventually(lambda: not host.containers("old"))
    (new,) = host.running_ids("new")
    journal = host.records()
    closed = {record["id"]: record["seq"] for record in journal if record["stage"] == "outcome"}
    begun = [
        (record["request"]["route"], record["request"]["object"], record["seq"], record["id"])
        for record in journal
        if record["stage"] == "intent"
    ]
    (stopped,) = (closed[i] for r, o, _, i in begun if (r, o) == ("container.stop", old))
    # Once, too: none was tried in vain.
    (started,) = (seq for r, o, seq, _ in begun if (r, o) == ("container.start", new))
    assert stopped < started


def test_children_end_with_their_parent_and_down_alone_removes_containers(host: Host) -> None:
    host.write("web.yaml", web())
    host.up()
    host.await_ready("web")
    pids = [host.pid_of("broker"), host.pid_of("controller")]
    assert host.process is not None
    os.kill(host.process.pid, signal.SIGKILL)
    host.process.wait()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=25)
    host.up()
    host.await_ready("web")
    # Ctrl-C leaves containers running.
    assert host.stop(signal.SIGINT) == 0
    assert "down" in host.said()
    assert len(host.running_ids("web")) == 1
    assert host.cli("status", expect=1).stderr
    host.cli("down")
    assert not host.containers()
    host.cli("journal", "verify")


@pytest.mark.needs_root
def test_the_controller_has_a_user_of_its_own_and_no_way_to_the_engine(running: Host) -> None:
    host = running
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{host.pid_of('controller')}/status").read_text().splitlines()
        if ":\t" in line
    )
    uid, gid = int(status["Uid"].split()[0]), int(status["Gid"].split()[0])
    assert uid not in (0, 65534)
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Groups"].strip() == ""
    assert {status[n] for n in ("CapEff", "CapBnd", "CapPrm", "CapInh")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    script = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({gid}); os.setuid({uid})\n"
        "socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
    )
    path = host.engine.host.removeprefix("unix://")
    done = host.engine.run_inside(["python3", "-c", script, path], check=False)
    assert "PermissionError" in done.stderr
