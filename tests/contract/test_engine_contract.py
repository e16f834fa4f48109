"""What the simulated engine claims, asked of it and of a dockerd: both must answer so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from controller.broker.handlers.networks_volumes import NO_QUOTA
from controller.core.engine_api.comparable_fields import Handling, handling
from tests.contract.sides import LABEL, WEB, WORKER, Asked, Conversation, RealSide, SimSide
from tests.engine import Engine

KEEP_RUNNING = ("always", "unless-stopped", "on-failure", "no")


def restart(name: str, count: int = 0) -> dict[str, Any]:
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": count}}


def command(text: str) -> dict[str, Any]:
    return {"Entrypoint": ["/bin/sh", "-c"], "Cmd": [text]}


# Names and existence


def test_a_taken_name_conflicts_and_names_the_holder(say: Conversation) -> None:
    identifier = say.create("contract-a")
    again = say.create_raw("contract-a")
    assert again.status == 409
    assert again.message == (
        'Conflict. The container name "/contract-a" is already in use by container '
        f'"{identifier}". You have to remove (or rename) that container to be able to reuse '
        "that name."
    )


@pytest.mark.parametrize("name", ["-a", "a", "a b", "a/b"])
def test_a_name_of_the_wrong_form_is_refused(say: Conversation, name: str) -> None:
    made = say.create_raw(name)
    assert made.status == 400
    assert made.message.startswith(f"Invalid container name ({name})")


def test_an_unknown_image_is_not_found(say: Conversation) -> None:
    made = say.create_raw("contract-a", "nowhere.local/x:1")
    assert (made.status, made.message) == (404, "No such image: nowhere.local/x:1")


def test_what_is_not_there_is_not_found_whatever_is_asked_of_it(say: Conversation) -> None:
    missing = "f" * 64
    for verb in ("start", "stop", "restart", "kill", "pause", "unpause"):
        answer = say.ask("POST", f"/containers/{missing}/{verb}")
        assert answer.status == 404, verb
        assert answer.message.endswith(f"No such container: {missing}")
    update = say.ask("POST", f"/containers/{missing}/update", restart("no"))
    assert (update.status, update.message) == (404, f"No such container: {missing}")
    assert say.ask("GET", f"/containers/{missing}/json").status == 404
    assert say.ask("DELETE", f"/containers/{missing}").status == 404
    assert say.ask("GET", "/networks/contract-x").message == "network contract-x not found"
    assert say.ask("DELETE", "/networks/contract-x").status == 404
    assert say.ask("GET", "/volumes/contract-x").message == "get contract-x: no such volume"
    assert say.ask("DELETE", "/volumes/contract-x").status == 404
    assert say.ask("GET", "/images/contract-x:1/json").message == "No such image: contract-x:1"
    assert say.ask("GET", "/images/sha256:" + "0" * 64 + "/json").status == 404
    assert say.ask("GET", "/contract-x").message == "page not found"


def test_a_container_is_found_by_name_and_by_the_beginning_of_its_id(say: Conversation) -> None:
    identifier = say.create("contract-a")
    for reference in ("contract-a", identifier[:12], identifier):
        assert say.inspect(reference)["Id"] == identifier


def test_a_renamed_container_gives_its_name_free(say: Conversation) -> None:
    first = say.create("contract-a")
    assert say.act(first, "rename", name="contract-b") == 204
    assert say.inspect(first)["Name"] == "/contract-b"
    second = say.create("contract-a")
    assert say.act(second, "rename", name="contract-b") == 409
    assert say.act(second, "rename", name="contract-a") == 400


# The life of a container


def test_a_new_container_shows_that_it_never_ran(say: Conversation) -> None:
    state = say.state(say.create("contract-a"))
    never = "0001-01-01T00:00:00Z"
    shown = {name: state[name] for name in ("Status", "Running", "Pid", "ExitCode", "Error")}
    assert shown == {"Status": "created", "Running": False, "Pid": 0, "ExitCode": 0, "Error": ""}
    assert (state["StartedAt"], state["FinishedAt"]) == (never, never)


def test_start_and_stop_are_not_modified_when_there_is_nothing_to_do(say: Conversation) -> None:
    identifier = say.create("contract-a")
    steps = ("stop", "start", "start", "stop", "stop", "start", "restart", "stop")
    answers = [say.act(identifier, verb) for verb in steps]
    assert answers == [304, 204, 304, 204, 304, 204, 204, 204]


def test_times_tell_when_it_was_started_and_stopped_last(say: Conversation) -> None:
    identifier = say.run("contract-a")
    first = say.state(identifier)
    say.act(identifier, "stop")
    stopped = say.state(identifier)
    assert stopped["StartedAt"] == first["StartedAt"] < stopped["FinishedAt"]
    assert (stopped["Status"], stopped["Running"]) == ("exited", False)
    # Whoever is stopped before its shell knows what to do at a signal is killed.
    assert stopped["ExitCode"] in {0, 137}
    say.act(identifier, "start")
    again = say.state(identifier)
    assert again["FinishedAt"] == stopped["FinishedAt"] < again["StartedAt"]


def test_a_running_container_is_not_removed_without_force(say: Conversation) -> None:
    identifier = say.run("contract-a")
    refused = say.ask("DELETE", f"/containers/{identifier}")
    assert refused.status == 409
    # Engines name it by name, or (since 28) by id.
    assert refused.message.endswith(
        '": container is running: stop the container before removing or force remove'
    )
    say.act(identifier, "pause")
    assert say.ask("DELETE", f"/containers/{identifier}").status == 409
    say.act(identifier, "unpause")
    assert say.ask("DELETE", f"/containers/{identifier}", force="1").status == 204
    assert say.ask("DELETE", f"/containers/{identifier}", force="1").status == 404


def test_a_stopped_and_a_never_started_container_are_removed(say: Conversation) -> None:
    stopped, created = say.run("contract-a"), say.create("contract-b")
    say.act(stopped, "stop")
    assert say.ask("DELETE", f"/containers/{stopped}").status == 204
    assert say.ask("DELETE", f"/containers/{created}").status == 204


def test_pause_freezes_and_a_paused_container_can_not_be_started(say: Conversation) -> None:
    identifier = say.run("contract-a")
    assert say.act(identifier, "unpause") == 500
    assert say.act(identifier, "pause") == 204
    assert say.act(identifier, "pause") == 409
    assert say.act(identifier, "start") == 409
    state = say.state(identifier)
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    assert say.act(identifier, "unpause") == 204
    say.act(identifier, "pause")
    assert say.act(identifier, "stop") == 204
    assert say.act(identifier, "pause") == 409
    assert say.status(identifier) == "exited"


def test_kill_ends_it_and_needs_something_to_kill(say: Conversation) -> None:
    identifier = say.create("contract-a")
    assert say.act(identifier, "kill") == 409
    assert say.act(identifier, "kill", signal="NOSUCH") == 400
    say.act(identifier, "start")
    assert say.act(identifier, "kill", signal="SIGKILL") == 204
    say.until(lambda: say.status(identifier) == "exited")
    assert say.state(identifier)["ExitCode"] == 137
    refused = say.ask("POST", f"/containers/{identifier}/kill")
    assert refused.status == 409
    assert refused.message.endswith(f"container {identifier} is not running")


def test_a_program_that_is_not_there_fails_the_start(say: Conversation) -> None:
    identifier = say.create("contract-a", Cmd=["/bin/nothing"])
    started = say.ask("POST", f"/containers/{identifier}/start")
    state = say.state(identifier)
    assert (started.status, state["Status"], state["ExitCode"]) == (400, "created", 127)
    assert state["Error"] == started.message
    assert state["StartedAt"] == "0001-01-01T00:00:00Z"


# Restart policies


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_what_exits_by_itself_is_restarted_and_counted(say: Conversation, policy: str) -> None:
    identifier = say.run("contract-a", **command("sleep 0.1; exit 3"), HostConfig=restart(policy))
    say.until(lambda: say.inspect(identifier)["RestartCount"] >= 2)


def test_a_restarting_container_counts_as_running_without_a_process(say: Conversation) -> None:
    identifier = say.run("contract-a", **command("exit 3"), HostConfig=restart("always"))
    say.until(lambda: say.status(identifier) == "restarting")
    say.until(lambda: say.inspect(identifier)["RestartCount"] >= 4)  # the pauses grow
    say.until(lambda: say.status(identifier) == "restarting")
    state = say.state(identifier)
    assert (state["Running"], state["Restarting"], state["Pid"]) == (True, True, 0)
    assert state["ExitCode"] == 3
    assert say.act(identifier, "start") == 304
    assert say.act(identifier, "pause") == 409
    assert say.ask("DELETE", f"/containers/{identifier}").status == 409
    assert say.act(identifier, "stop") == 204
    assert say.status(identifier) == "exited"


def test_a_restarting_container_leaves_no_network_until_it_is_stopped(say: Conversation) -> None:
    network = say.network("contract-n")
    host = {**restart("always"), "NetworkMode": "contract-n"}
    identifier = say.run("contract-a", **command("exit 3"), HostConfig=host)
    say.until(lambda: say.inspect(identifier)["RestartCount"] >= 5)  # the pauses grow
    say.until(lambda: say.status(identifier) == "restarting")
    body = {"Container": identifier}
    refused = say.ask("POST", f"/networks/{network}/disconnect", body)
    what = f"container {identifier} is not connected to network contract-n"
    assert (refused.status, refused.message) == (500, what)
    assert say.act(identifier, "stop") == 204
    assert say.ask("POST", f"/networks/{network}/disconnect", body).status == 200


def test_on_failure_gives_up_after_its_count_and_spares_a_good_end(say: Conversation) -> None:
    bad = say.run("contract-a", **command("exit 3"), HostConfig=restart("on-failure", 2))
    good = say.run("contract-b", **command("exit 0"), HostConfig=restart("on-failure", 2))
    say.until(lambda: say.status(bad) == say.status(good) == "exited")
    say.until(lambda: say.inspect(bad)["RestartCount"] == 2 and say.status(bad) == "exited")
    assert say.state(bad)["ExitCode"] == 3
    assert (say.inspect(good)["RestartCount"], say.state(good)["ExitCode"]) == (0, 0)


def test_what_was_stopped_or_killed_on_purpose_stays_down(say: Conversation) -> None:
    killed = say.run("contract-a", HostConfig=restart("always"))
    stopped = say.run("contract-b", HostConfig=restart("always"))
    say.act(killed, "kill")
    say.act(stopped, "stop")
    say.until(lambda: say.status(killed) == "exited")
    say.side.let_pass(0.5)
    assert (say.status(killed), say.status(stopped)) == ("exited", "exited")
    assert say.inspect(killed)["RestartCount"] == 0


def test_a_start_by_hand_forgets_the_count(say: Conversation) -> None:
    identifier = say.run(
        "contract-a", **command("sleep 0.2; exit 3"), HostConfig=restart("on-failure", 1)
    )
    say.until(lambda: say.status(identifier) == "exited" and _count(say, identifier) == 1)
    say.act(identifier, "start")
    assert _count(say, identifier) == 0


def _count(say: Conversation, identifier: str) -> int:
    return int(say.inspect(identifier)["RestartCount"])


@pytest.mark.owns_engine
@pytest.mark.parametrize("killed", [False, True])
def test_a_restarted_engine_starts_what_its_policies_say(say: Conversation, killed: bool) -> None:
    for policy in KEEP_RUNNING:
        for before in ("running", "stopped", "killed", "created"):
            name = f"contract-{policy}-{before}"
            identifier = say.create(name, HostConfig=restart(policy))
            if before != "created":
                say.start_worker(identifier)
            if before in {"stopped", "killed"}:
                say.act(identifier, before.removesuffix("ped").removesuffix("ed"))
    say.until(lambda: say.status("contract-no-killed") == "exited")
    say.side.restart(killed=killed)

    def up() -> set[str]:
        mine = say.ask("GET", "/containers/json", filters={"label": [LABEL]}).json
        return {each["Names"][0].removeprefix("/contract-") for each in mine}

    expected = {"always-running", "always-stopped", "always-killed", "on-failure-killed"}
    # An orderly stop isn't a stop by hand; a killed engine ends its containers as by hand.
    expected |= set() if killed else {"unless-stopped-running"}
    say.until(lambda: up() >= expected)
    say.side.let_pass(0.5)
    assert up() == expected
    assert say.state("contract-no-running")["ExitCode"] == 0


# What inspect and list show


def test_update_changes_what_it_names_and_nothing_else(say: Conversation) -> None:
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 50, "NanoCpus": 10**8}
    identifier = say.run("contract-a", HostConfig={**limits, **restart("always")})
    shown = ("Memory", "MemorySwap", "PidsLimit", "NanoCpus", "CpuShares", "RestartPolicy")

    def host() -> dict[str, Any]:
        told = say.inspect(identifier)["HostConfig"]
        return {name: told[name] for name in shown}

    before = host()
    assert before == {**limits, "CpuShares": 0, **restart("always")}
    assert say.act(identifier, "update", restart("no")) == 200
    assert host() == before | restart("no")
    grown = {"Memory": 128 << 20, "MemorySwap": 128 << 20, "PidsLimit": 20}
    assert say.act(identifier, "update", {**grown, "NanoCpus": 0}) == 200
    assert host() == before | restart("no") | grown
    assert say.act(identifier, "update", {"RestartPolicy": {"Name": ""}}) == 200
    assert host()["RestartPolicy"]["Name"] == "no"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (restart("bogus"), 400),
        (restart("always", 3), 400),
        ({"Memory": 1000}, 400),
        ({"Memory": 200 << 20, "MemorySwap": 100 << 20}, 400),
        ({"Memory": 200 << 20}, 409),  # above the swap that is set already
    ],
)
def test_an_update_that_can_not_be_is_refused(
    say: Conversation, body: dict[str, Any], status: int
) -> None:
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20}
    identifier = say.create("contract-a", HostConfig=limits)
    before = say.inspect(identifier)["HostConfig"]
    assert say.act(identifier, "update", body) == status
    assert say.inspect(identifier)["HostConfig"] == before


def test_every_member_that_an_engine_shows_has_its_handling(say: Conversation) -> None:
    """What nobody knows is told to users: of this engine there is nothing."""
    say.network("contract-n")
    identifier = say.run(
        "contract-a",
        WEB,
        HostConfig={"NetworkMode": "contract-n", "PidsLimit": 50, "CapDrop": ["ALL"], "Init": True},
        NetworkingConfig={"EndpointsConfig": {"contract-n": {"Aliases": ["me"]}}},
        StopTimeout=5,
    )
    shown = say.inspect(identifier)
    sections = {"": shown, **{name: shown[name] for name in ("HostConfig", "Config")}}
    sections["NetworkSettings"] = shown["NetworkSettings"]
    sections["Networks"] = shown["NetworkSettings"]["Networks"]["contract-n"]
    members = [(section, member) for section, told in sections.items() for member in told]
    assert [each for each in members if handling(*each) is Handling.REPORT] == []


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"CpuShares": 77}, "CpuShares"),
        ({"CpusetCpus": "0"}, "CpusetCpus"),
        ({"MemoryReservation": 32 << 20}, "MemoryReservation"),
    ],
)
def test_what_was_unset_can_not_be_unset_again(
    say: Conversation, body: dict[str, Any], name: str
) -> None:
    identifier = say.run("contract-a", HostConfig={"Memory": 64 << 20, "MemorySwap": 64 << 20})
    assert say.act(identifier, "update", body) == 200
    assert say.act(identifier, "update", {name: type(body[name])(), "PidsLimit": 9}) == 200
    assert say.inspect(identifier)["HostConfig"][name] == body[name]


def test_limits_and_networks_of_a_paused_container_can_be_changed(say: Conversation) -> None:
    network = say.network("contract-n")
    identifier = say.run("contract-a", HostConfig={"NetworkMode": "bridge"})
    say.act(identifier, "pause")
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 50}
    assert say.act(identifier, "update", limits) == 200
    for verb in ("connect", "disconnect"):
        path = f"/networks/{network}/{verb}"
        assert say.ask("POST", path, {"Container": identifier}).status == 200, verb
    assert say.act(identifier, "rename", name="contract-b") == 204
    assert say.act(identifier, "unpause") == 204
    assert say.inspect(identifier)["HostConfig"]["PidsLimit"] == 50


def test_the_image_and_its_config_show_through(say: Conversation) -> None:
    identifier = say.create("contract-a", Env=["A=1"], User="12:34", StopTimeout=7)
    shown = say.inspect(identifier)
    image = say.ask("GET", f"/images/{WORKER}/json").json
    assert shown["Image"] == image["Id"]
    assert shown["Config"]["Image"] == WORKER
    labels = shown["Config"]["Labels"]
    assert labels == {**image["Config"]["Labels"], LABEL: "contract-a"}
    assert sorted(shown["Config"]["Env"]) == ["A=1", "PATH=/bin"]
    assert (shown["Config"]["User"], shown["Config"]["StopTimeout"]) == ("12:34", 7)
    assert (shown["Path"], shown["Args"]) == ("/bin/work", [])
    by_id = say.create("contract-b", image["Id"])
    assert say.inspect(by_id)["Config"]["Image"] == image["Id"]


def test_a_health_check_starts_then_is_healthy(say: Conversation) -> None:
    identifier = say.create("contract-a", WEB)
    assert "Health" not in say.state(identifier)
    say.act(identifier, "start")
    assert say.state(identifier)["Health"]["Status"] == "starting"
    say.until(lambda: say.state(identifier)["Health"]["Status"] == "healthy")
    say.act(identifier, "stop")
    assert say.state(identifier)["Health"]["Status"] == "unhealthy"
    none = say.run("contract-b")
    assert "Health" not in say.state(none)


def test_what_is_not_probed_is_called_unhealthy_until_its_next_probe(say: Conversation) -> None:
    check = {"Test": ["CMD", "/bin/echo"], "Interval": 10**9, "StartPeriod": 0, "Retries": 2}
    identifier = say.run("contract-a", Healthcheck=check)

    def health() -> tuple[str, int]:
        told = say.state(identifier)["Health"]
        return told["Status"], told["FailingStreak"]

    say.until(lambda: health() == ("healthy", 0))
    say.act(identifier, "pause")
    assert health() == ("unhealthy", 0)
    say.act(identifier, "unpause")
    assert health() == ("unhealthy", 0)
    say.until(lambda: health() == ("healthy", 0))


def test_filters_narrow_a_list(say: Conversation) -> None:
    up = say.run("contract-up", Labels={"x": "1", "y": ""})
    down = say.create("contract-down", Labels={"x": "2"})

    def listed(**query: Any) -> set[str]:
        told = say.ask("GET", "/containers/json", **query).json
        return {each["Id"] for each in told} & {up, down}

    assert listed() == {up}
    assert listed(all="1") == {up, down}
    assert listed(all="0") == {up}
    for wanted, expected in (
        ({"label": ["x"]}, {up, down}),
        ({"label": ["x=1"]}, {up}),
        ({"label": {"x=2": True}}, {down}),
        ({"label": ["x=1", "y="]}, {up}),
        ({"label": ["x", "z"]}, set()),
        ({"label": [LABEL], "name": ["down"]}, {down}),
        ({"name": ["^/contract-up$"]}, {up}),
        ({"name": ["^contract-up$"]}, {up}),
        ({"id": [up[:10]]}, {up}),
        ({"id": [up, down]}, {up, down}),
        ({"status": ["created"]}, {down}),
        ({"status": ["exited"]}, set()),
    ):
        assert listed(all="1", filters=wanted) == expected, wanted
    assert listed(filters={"status": ["created"]}) == {down}
    unknown = say.ask("GET", "/containers/json", filters={"nope": ["x"]})
    assert (unknown.status, unknown.message) == (400, "invalid filter 'nope'")


def test_a_list_shows_what_a_glance_needs(say: Conversation) -> None:
    identifier = say.run("contract-a", Labels={"x": "1"})
    listed = say.ask("GET", "/containers/json", filters={"id": [identifier]}).json
    (shown,) = listed
    assert shown["Names"] == ["/contract-a"]
    assert (shown["State"], shown["Labels"]["x"], shown["Image"]) == ("running", "1", WORKER)
    assert list(shown["NetworkSettings"]["Networks"]) == ["none"]


# Networks


def test_a_network_keeps_what_it_was_made_with(say: Conversation) -> None:
    icc = {"com.docker.network.bridge.enable_icc": "false"}
    identifier = say.network("contract-n", Internal=True, Options=icc)
    for reference in (identifier, "contract-n"):
        shown = say.ask("GET", f"/networks/{reference}").json
        assert (shown["Id"], shown["Name"]) == (identifier, "contract-n")
        assert (shown["Driver"], shown["Internal"], shown["Options"]) == ("bridge", True, icc)
        assert (shown["Labels"], shown["Containers"]) == ({LABEL: ""}, {})
    again = say.ask("POST", "/networks/create", {"Name": "contract-n"})
    assert (again.status, again.message) == (409, "network with name contract-n already exists")
    assert say.ask("POST", "/networks/create", {"Name": ""}).status == 400
    assert say.ask("POST", "/networks/create", {"Name": "host"}).status == 403
    assert say.ask("DELETE", "/networks/bridge").status == 403


def test_networks_are_listed_by_label_and_by_part_of_a_name(say: Conversation) -> None:
    say.network("contract-n1", Labels={LABEL: "1"})
    say.network("contract-n2", Labels={LABEL: "2"})

    def listed(wanted: dict[str, Any]) -> set[str]:
        return {each["Name"] for each in say.ask("GET", "/networks", filters=wanted).json}

    assert listed({"label": [f"{LABEL}=1"]}) == {"contract-n1"}
    assert listed({"name": ["contract-n"]}) == {"contract-n1", "contract-n2"}
    assert {"bridge", "host", "none"} <= listed({})


def test_networks_named_at_the_create_are_joined_at_the_start(say: Conversation) -> None:
    first, second = say.network("contract-n1", Internal=True), say.network("contract-n2")
    wanted = {name: {"Aliases": ["me"]} for name in ("contract-n1", "contract-n2")}
    identifier = say.create(
        "contract-a",
        HostConfig={"NetworkMode": "contract-n1"},
        NetworkingConfig={"EndpointsConfig": wanted},
    )

    def joined() -> dict[str, Any]:
        return dict(say.inspect(identifier)["NetworkSettings"]["Networks"])

    before = joined()
    assert {name: end["NetworkID"] for name, end in before.items()} == {
        "contract-n1": "",
        "contract-n2": "",
    }
    assert say.ask("GET", f"/networks/{first}").json["Containers"] == {}
    say.act(identifier, "start")
    after = joined()
    assert {name: end["NetworkID"] for name, end in after.items()} == {
        "contract-n1": first,
        "contract-n2": second,
    }
    assert all(end["IPAddress"] and end["Aliases"] == ["me"] for end in after.values())
    members = say.ask("GET", f"/networks/{first}").json["Containers"]
    assert members[identifier]["Name"] == "contract-a"
    # A list never tells who is in a network.
    mine = say.ask("GET", "/networks", filters={"name": ["contract-n1"]}).json
    assert mine[0]["Containers"] == {}
    say.act(identifier, "stop")
    stopped = joined()
    assert {name: end["IPAddress"] for name, end in stopped.items()} == {
        "contract-n1": "",
        "contract-n2": "",
    }


def test_only_running_containers_keep_a_network_from_being_removed(say: Conversation) -> None:
    network = say.network("contract-n")
    running = say.run("contract-a", HostConfig={"NetworkMode": "contract-n"})
    refused = say.ask("DELETE", f"/networks/{network}")
    assert refused.status == 403
    # Since 28 with the endpoints in place of the network's id.
    assert "network contract-n " in refused.message
    assert " has active endpoints" in refused.message
    say.act(running, "stop")
    assert say.ask("DELETE", f"/networks/{network}").status == 204


def test_a_container_remembers_its_network_by_id_once_it_ran(say: Conversation) -> None:
    network = say.network("contract-n")
    ran = say.run("contract-a", HostConfig={"NetworkMode": "contract-n"})
    never = say.create("contract-b", HostConfig={"NetworkMode": "contract-n"})
    say.act(ran, "stop")
    assert say.ask("DELETE", f"/networks/{network}").status == 204
    for identifier in (ran, never):
        started = say.ask("POST", f"/containers/{identifier}/start")
        state = say.state(identifier)
        assert (started.status, state["ExitCode"], state["Error"]) == (404, 128, started.message)
        assert started.message.endswith("not found")
    say.network("contract-n")  # another one of the same name
    assert say.act(ran, "start") == 404
    assert say.act(never, "start") == 204
    # It starts again once it left the former network and joined the present one.
    for verb in ("disconnect", "connect"):
        answer = say.ask("POST", f"/networks/contract-n/{verb}", {"Container": ran})
        assert answer.status == 200
    assert say.act(ran, "start") == 204


def test_containers_join_and_leave_networks_while_they_run(say: Conversation) -> None:
    network = say.network("contract-n")
    identifier = say.run("contract-a", HostConfig={"NetworkMode": "bridge"})
    path, body = f"/networks/{network}", {"Container": identifier}
    assert say.ask("POST", f"{path}/connect", body).status == 200
    assert say.ask("POST", f"{path}/connect", body).status == 403
    joined = say.inspect(identifier)["NetworkSettings"]["Networks"]
    assert set(joined) == {"bridge", "contract-n"}
    assert say.ask("POST", f"{path}/disconnect", body).status == 200
    assert say.ask("POST", f"{path}/disconnect", body).status == 500
    assert set(say.inspect(identifier)["NetworkSettings"]["Networks"]) == {"bridge"}
    missing = {"Container": "f" * 64}
    assert say.ask("POST", f"{path}/connect", missing).status == 404
    assert say.ask("POST", "/networks/contract-x/connect", body).status == 404


POOL = {"Subnet": "10.208.0.0/21", "IPRange": "10.208.4.0/22", "Gateway": "10.208.0.1"}


def test_a_network_with_a_subnet_gives_the_addresses_that_are_asked_for(say: Conversation) -> None:
    network = say.network("contract-n", IPAM={"Driver": "default", "Config": [POOL]})
    assert say.ask("GET", f"/networks/{network}").json["IPAM"]["Config"] == [POOL]
    overlapping = {"Name": "contract-m", "IPAM": {"Config": [{"Subnet": "10.208.0.0/24"}]}}
    refused = say.ask("POST", "/networks/create", overlapping)
    assert refused.status == 403
    assert refused.message.endswith("Pool overlaps with other one on this address space")

    def made(name: str, address: str) -> Asked:
        end = {"IPAMConfig": {"IPv4Address": address}} if address else {}
        networking = {"EndpointsConfig": {"contract-n": end}}
        host = {"NetworkMode": "contract-n"}
        return say.create_raw(name, HostConfig=host, NetworkingConfig=networking)

    def end_of(name: str) -> tuple[Any, str]:
        found = say.inspect(name)["NetworkSettings"]["Networks"]["contract-n"]
        return found["IPAMConfig"], found["IPAddress"]

    chosen = {"IPv4Address": "10.208.0.9"}
    assert made("contract-a", "10.208.0.9").status == 201
    assert made("contract-b", "").status == 201
    for name in ("contract-a", "contract-b"):
        assert say.act(name, "start") == 204
    assert end_of("contract-a") == (chosen, "10.208.0.9")
    config, dynamic = end_of("contract-b")
    assert not config
    assert ip_address(dynamic) in ip_network(POOL["IPRange"])
    members = say.ask("GET", f"/networks/{network}").json["Containers"].values()
    assert sorted(each["IPv4Address"] for each in members) == ["10.208.0.9/21", f"{dynamic}/21"]
    # An address is anybody's to name, and nobody's to have twice.
    for name, taken in (("contract-c", "10.208.0.9"), ("contract-d", "10.208.0.1")):
        assert made(name, taken).status == 201
        started = say.ask("POST", f"/containers/{name}/start")
        assert started.status == 403
        # Since 28 with "failed to set up container networking: " before it.
        assert started.message.endswith("Address already in use")
        assert say.status(name) == "created"
    assert say.act("contract-a", "stop") == 204
    assert say.act("contract-c", "start") == 204
    assert say.act("contract-a", "start") == 403
    outside = made("contract-e", "10.209.0.9")
    assert (outside.status, outside.message.splitlines()) == (
        400,
        [
            "invalid config for network contract-n: invalid endpoint settings:",
            "no configured subnet or ip-range contain the IP address 10.209.0.9",
        ],
    )


def test_an_address_is_taken_over_by_leaving_and_joining(say: Conversation) -> None:
    say.network("contract-n", IPAM={"Driver": "default", "Config": [POOL]})
    plain = say.network("contract-m")
    chosen = {"IPAMConfig": {"IPv4Address": "10.208.0.9"}}
    old = say.run(
        "contract-a",
        HostConfig={"NetworkMode": "contract-n"},
        NetworkingConfig={"EndpointsConfig": {"contract-n": chosen}},
    )
    new = say.run("contract-b", HostConfig={"NetworkMode": "contract-n"})

    def ask(verb: str, container: str, network: str = "contract-n", **more: Any) -> Asked:
        return say.ask("POST", f"/networks/{network}/{verb}", {"Container": container, **more})

    def end() -> dict[str, Any]:
        return dict(say.inspect(new)["NetworkSettings"]["Networks"]["contract-n"])

    assert ask("disconnect", new).status == 200
    refused = ask("connect", new, EndpointConfig=chosen)
    assert (refused.status, refused.message) == (403, "Address already in use")
    # It is shown all the same, without a place.
    assert (end()["EndpointID"], end()["IPAddress"]) == ("", "")
    assert ask("disconnect", old).status == 200
    assert ask("connect", new, EndpointConfig=chosen | {"Aliases": ["web"]}).status == 200
    assert (end()["IPAddress"], end()["Aliases"]) == ("10.208.0.9", ["web"])
    refused = ask("connect", new, plain, EndpointConfig=chosen)
    assert refused.status == 400
    assert refused.message.endswith("only when connecting to networks with user configured subnets")


def test_one_host_port_is_for_one_running_container(say: Conversation) -> None:
    say.network("contract-n")
    port = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18433"}]}
    host = {"NetworkMode": "contract-n", "PortBindings": port}
    exposed: dict[str, Any] = {"8080/tcp": {}}
    first = say.run("contract-a", HostConfig=host, ExposedPorts=exposed)
    second = say.create("contract-b", HostConfig=host, ExposedPorts=exposed)
    started = say.ask("POST", f"/containers/{second}/start")
    assert started.status == 500
    assert started.message.endswith("port is already allocated")
    assert say.status(second) == "created"
    say.act(first, "stop")
    assert say.act(second, "start") == 204


def test_an_internal_network_publishes_no_port_and_says_nothing(say: Conversation) -> None:
    say.network("contract-n", Internal=True)
    port = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18434"}]}
    host = {"NetworkMode": "contract-n", "PortBindings": port}
    for name in ("contract-a", "contract-b"):
        say.run(name, HostConfig=host, ExposedPorts={"8080/tcp": {}})


def test_a_port_that_is_not_exposed_is_not_published_and_nobody_says_so(
    say: Conversation,
) -> None:
    say.network("contract-n")
    port = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18435"}]}
    host = {"NetworkMode": "contract-n", "PortBindings": port}
    for name in ("contract-a", "contract-b"):
        say.run(name, HostConfig=host)


def test_a_stopped_container_shares_its_network_with_nobody(say: Conversation) -> None:
    owner = say.run("contract-a")
    joined = {"NetworkMode": f"container:{owner}"}
    sidecar = say.run("contract-b", HostConfig=joined)
    assert say.inspect(sidecar)["NetworkSettings"]["Networks"] == {}
    say.act(owner, "stop")
    assert say.status(sidecar) == "running"
    say.act(sidecar, "stop")
    late = say.create("contract-c", HostConfig=joined)
    for identifier, status in ((sidecar, "exited"), (late, "created")):
        started, state = say.ask("POST", f"/containers/{identifier}/start"), say.state(identifier)
        assert started.status == 409
        # "cannot join network of …", and since 28 "cannot join network namespace of …".
        assert started.message.startswith("cannot join network")
        assert " of a non running container: " in started.message
        told = (state["Status"], state["ExitCode"], state["Error"])
        assert told == (status, 128, started.message)
    say.start_worker(owner)
    assert say.act(sidecar, "start") == 204
    assert say.ask("DELETE", f"/containers/{owner}", force="1").status == 204
    gone = say.ask("POST", f"/containers/{late}/start")
    # Since 28 with the status 500, and words before it.
    assert gone.status in {404, 500}
    assert gone.message.endswith(f"No such container: {owner}")


@pytest.mark.parametrize(
    ("field", "word", "stopped", "missing"),
    [("IpcMode", "IPC", 409, 400), ("PidMode", "PID", 500, 500)],
)
def test_a_stopped_container_shares_no_other_namespace(
    say: Conversation, field: str, word: str, stopped: int, missing: int
) -> None:
    owner = say.run("contract-a", HostConfig={"IpcMode": "shareable"})
    sidecar = say.create("contract-b", HostConfig={field: f"container:{owner}"})
    say.act(owner, "stop")
    failed = f"failed to join {word} namespace: "
    started = say.ask("POST", f"/containers/{sidecar}/start")
    assert (started.status, started.message) == (
        stopped,
        f"{failed}container {owner} is not running",
    )
    assert say.ask("DELETE", f"/containers/{owner}").status == 204
    gone = say.ask("POST", f"/containers/{sidecar}/start")
    assert (gone.status, gone.message) == (missing, f"{failed}No such container: {owner}")
    again = say.create_raw("contract-c", HostConfig={field: f"container:{owner}"})
    assert (again.status, again.message) == (400, f"No such container: {owner}")


# Volumes


def test_a_volume_is_made_once_and_stays_as_it_was(say: Conversation) -> None:
    first = say.ask("POST", "/volumes/create", {"Name": "contract-v", "Labels": {"l": "1"}})
    again = say.ask("POST", "/volumes/create", {"Name": "contract-v", "Labels": {"l": "2"}})
    assert (first.status, again.status) == (201, 201)
    shown = say.ask("GET", "/volumes/contract-v").json
    assert shown == first.json == again.json
    assert (shown["Name"], shown["Driver"], shown["Labels"]) == ("contract-v", "local", {"l": "1"})
    listed = say.ask("GET", "/volumes", filters={"label": ["l=1"]}).json["Volumes"]
    assert "contract-v" in {each["Name"] for each in listed}


def test_a_size_is_held_or_refused_in_the_words_that_the_gate_knows(say: Conversation) -> None:
    body = {"Name": "contract-v", "DriverOpts": {"size": "67108864"}}
    asked = say.ask("POST", "/volumes/create", body)
    there = say.ask("GET", "/volumes/contract-v").status
    if asked.status == 201:  # project quotas below the engine's folder
        assert (asked.json["Options"], there) == ({"size": "67108864"}, 200)
    else:
        assert (asked.status, there) == (400, 404)
        assert NO_QUOTA.decode() in asked.message


def test_a_mounted_volume_is_made_at_the_create_and_kept_at_the_removal(
    say: Conversation,
) -> None:
    mount = {"Type": "volume", "Source": "contract-v", "Target": "/data"}
    identifier = say.create("contract-a", HostConfig={"Mounts": [mount]})
    (shown,) = say.inspect(identifier)["Mounts"]
    assert (shown["Type"], shown["Name"], shown["Destination"], shown["RW"]) == (
        "volume",
        "contract-v",
        "/data",
        True,
    )
    assert say.ask("GET", "/volumes/contract-v").json["Labels"] is None
    assert say.ask("DELETE", "/volumes/contract-v").status == 409
    assert say.ask("DELETE", f"/containers/{identifier}", v="1").status == 204
    assert say.ask("GET", "/volumes/contract-v").status == 200
    assert say.ask("DELETE", "/volumes/contract-v").status == 204


def test_the_containers_with_a_volume_are_listed_and_it_keeps_its_time_of_creation(
    say: Conversation,
) -> None:
    made = say.ask("POST", "/volumes/create", {"Name": "contract-v"}).json["CreatedAt"]
    mount = {"Type": "volume", "Source": "contract-v", "Target": "/data"}
    identifier = say.create("contract-a", HostConfig={"Mounts": [mount]})

    def users(**query: str) -> list[str]:
        filters = {"volume": ["contract-v"]}
        return [e["Id"] for e in say.ask("GET", "/containers/json", filters=filters, **query).json]

    assert (users(), users(all="1")) == ([], [identifier])
    assert say.ask("POST", f"/containers/{identifier}/start").status == 204
    assert users() == [identifier]
    assert say.ask("DELETE", f"/containers/{identifier}", force="1").status == 204
    assert users(all="1") == []
    (listed,) = say.ask("GET", "/volumes", filters={"name": ["contract-v"]}).json["Volumes"]
    assert say.ask("GET", "/volumes/contract-v").json["CreatedAt"] == listed["CreatedAt"] == made


# Images, events, the engine itself


def test_an_image_is_known_by_reference_and_id(say: Conversation) -> None:
    shown = say.ask("GET", f"/images/{WORKER}/json").json
    assert shown["RepoTags"] == [WORKER]
    # Built here: no registry named it. With the containerd image store the id is such a name all the same.
    assert [name.partition("@")[2] for name in shown["RepoDigests"]] in ([], [shown["Id"]])
    assert say.ask("GET", f"/images/{shown['Id']}/json").json["Id"] == shown["Id"]
    listed = say.ask("GET", "/images/json").json
    assert {shown["Id"]} <= {each["Id"] for each in listed}


def test_a_pull_without_a_registry_fails_before_it_begins(say: Conversation) -> None:
    if isinstance(say.side, SimSide):
        say.side.engine.registry_up = False
    pulled = say.ask("POST", "/images/create", fromImage="127.0.0.1:9/x", tag="1")
    assert pulled.status == 500
    assert "connection refused" in pulled.message


def test_events_tell_what_happened_in_order(say: Conversation) -> None:
    identifier = say.run("contract-a", Labels={"x": "1"})
    say.act(identifier, "update", restart("no"))
    say.act(identifier, "rename", name="contract-b")
    say.act(identifier, "pause")
    say.act(identifier, "unpause")
    say.act(identifier, "stop")
    say.ask("DELETE", f"/containers/{identifier}")
    say.side.let_pass(1.0)  # `until` is in whole seconds
    events = _events_of(say, identifier)
    actions = [event["Action"] for event in events]
    assert set(actions) == {
        "create", "start", "update", "rename", "pause", "unpause", "kill", "die", "stop", "destroy",
    }  # fmt: skip
    assert actions[:6] == ["create", "start", "update", "rename", "pause", "unpause"]
    assert actions[-1] == "destroy"
    assert {event["Actor"]["ID"] for event in events} == {identifier}
    assert all(event["Actor"]["Attributes"]["x"] == "1" for event in events)
    times = [event["timeNano"] for event in events]
    assert times == sorted(times)


def _events_of(say: Conversation, identifier: str) -> list[dict[str, Any]]:
    wanted = {"type": ["container"], "container": [identifier]}
    told = say.ask("GET", "/events", since="1", until=str(int(say.side.now())), filters=wanted)
    return [json.loads(line) for line in told.body.splitlines()]


def test_only_who_is_asked_to_end_gets_a_signal_before_its_end(say: Conversation) -> None:
    killed, stopped = say.run("contract-a"), say.run("contract-b")
    ended = say.run("contract-c", **command("exit 3"))
    say.act(killed, "kill")
    say.act(stopped, "stop", t="1")
    for identifier in (killed, ended):
        say.until(lambda: say.status(identifier) == "exited")  # noqa: B023 - awaited at once
    say.side.let_pass(1.0)

    def end_of(identifier: str) -> list[tuple[str, str]]:
        told = _events_of(say, identifier)[2:]  # after create and start
        return [(e["Action"], e["Actor"]["Attributes"].get("signal", "")) for e in told]

    assert end_of(ended) == [("die", "")]
    assert end_of(killed) == [("kill", "9"), ("die", "")]
    asked, *rest = end_of(stopped)
    assert asked == ("kill", "15")
    # An engine tells its end, and the answer to the request, in either order.
    assert sorted(each for each in rest if each != ("kill", "9")) == [("die", ""), ("stop", "")]


def test_the_engine_says_who_it_is(say: Conversation) -> None:
    assert say.ask("GET", "/_ping").body == b"OK"
    version, info = say.ask("GET", "/version").json, say.ask("GET", "/info").json
    major, minor = version["ApiVersion"].split(".")
    assert (int(major), int(minor)) >= (1, 44)
    assert info["ID"]
    assert info["NCPU"] > 0 < info["MemTotal"]
    assert info["DockerRootDir"].startswith("/")
    assert (version["Os"], info["OSType"]) == ("linux", "linux")
    # With version 1 a container sees the host's cgroups unless it asks for its own.
    made = say.inspect(say.run("contract-a", WEB))
    seen = "host" if info["CgroupVersion"] == "1" else "private"
    assert made["HostConfig"]["CgroupnsMode"] == seen


def test_a_body_that_is_not_json_is_refused(say: Conversation) -> None:
    assert say.ask("POST", "/containers/create", b"{", name="contract-a").status == 400


# The simulation shows nothing that a real engine doesn't


def test_only_the_image_of_a_stopped_container_is_removed_by_force(engine: Engine) -> None:
    """A look relies on the engine for the image of a running container (decision 82)."""
    say = Conversation(RealSide(engine))
    say.clean()
    made = say.run("contract-a", WORKER)
    image = engine.docker("commit", made, "contract.local/own:1").stdout.strip()
    container = say.run("contract-b", image)
    refused = say.ask("DELETE", f"/images/{image}", force="1")
    assert (refused.status, "cannot be forced" in refused.message) == (409, True)
    assert say.ask("DELETE", "/images/contract.local/own:1", force="1").status == 200
    assert say.ask("GET", f"/images/{image}/json").status == 200, "the name alone went"
    assert say.ask("POST", f"/containers/{container}/stop", t="0").status == 204
    assert say.ask("DELETE", f"/images/{image}", force="1").status == 200
    assert say.ask("GET", f"/images/{image}/json").status == 404
    say.clean()


def test_the_simulation_shows_no_member_that_a_real_engine_has_not(engine: Engine) -> None:
    """Shapes, place by place: a member of the simulation's has the same type on the engine."""
    shapes = []
    for side in (SimSide(), RealSide(engine)):
        say = Conversation(side)
        say.clean()
        network = say.network("contract-n")
        container = say.run("contract-a", WEB, HostConfig={"NetworkMode": "contract-n"})
        paths = (
            f"/containers/{container}/json",
            f"/networks/{network}",
            f"/images/{WEB}/json",
            "/version",
            "/info",
        )
        looks = {path.split("/")[1]: say.ask("GET", path).json for path in paths}
        looks["list"] = say.ask("GET", "/containers/json", filters={"id": [container]}).json[0]
        shapes.append(looks)
        say.clean()
    simulated, real = shapes
    assert not list(_strangers(simulated, real, ""))


_KEYED = {"Containers", "Labels", "Networks"}  # members named by what is there


def _strangers(simulated: Any, real: Any, path: str) -> Iterator[str]:
    if isinstance(simulated, dict) and isinstance(real, dict):
        if path.rpartition(".")[2] in _KEYED:
            simulated, real = ({"*": next(iter(v.values()), None)} for v in (simulated, real))
        for name, member in simulated.items():
            if name not in real:
                yield f"{path}.{name} isn't shown by the engine"
            else:
                yield from _strangers(member, real[name], f"{path}.{name}")
    elif None not in (simulated, real) and type(simulated) is not type(real):
        yield f"{path} is {type(real).__name__} on the engine"
