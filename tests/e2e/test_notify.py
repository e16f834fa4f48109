"""Notifications of a real instance: one message for a cause and one for its end, and no secret anywhere else."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from controller.model.crashpoints import NOTIFIER_POINTS
from tests.git.forge import TOKEN, ForgeServer, Received
from tests.instance import Host, descendants, eventually, web

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
USER = "trimtab-notify"
NOTIFICATION = """\
apiVersion: trimtab/v1
kind: Notification
metadata: {{name: {name}, owner: team}}
spec: {{match: {{name: "{match}"}}, to: [{to}]}}
"""
BROKEN = "healthcheck: {exec: [/bin/false], interval: 1s, timeout: 1s, retries: 1, startPeriod: 1s}"
#: An incident is sent once it lasted 20 s, and over once it is gone for as long.
PATIENCE_S = 120.0


def configure(host: Host, **destinations: Mapping[str, object]) -> None:
    """Write the settings, and a policy in which the process's user is a viewer."""
    policy = host.folder / "viewed.yaml"
    viewer = f"viewers: [{{uid: {pwd.getpwnam(USER).pw_uid}, owners: all}}]"
    policy.write_text(f"{Path(host.policy).read_text()}\n{viewer}\n")
    host.policy = str(policy)
    host.state.mkdir(exist_ok=True)
    settings = {"notify": {"destinations": destinations}}
    (host.state / "trimtab.yaml").write_text(yaml.safe_dump(settings))


def token_file(host: Host) -> str:
    path = host.folder / "token"
    path.touch(mode=0o640)
    path.write_text(f"{TOKEN}\n")
    os.chown(path, 0, pwd.getpwnam(USER).pw_gid)
    return str(path)


def events(server: ForgeServer) -> list[str]:
    return [each.body["event"] for each in server.received]


def destinations(host: Host) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in host.json("notify", "list")["destinations"]}


def notifier_pid(host: Host) -> int:
    assert host.process is not None
    for pid in descendants(host.process.pid):
        if {b"notify", b"run"} <= {*Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")}:
            return pid
    return 0


@pytest.mark.timeout(400)
def test_a_broken_service_is_one_incident_and_its_end_one_message(host: Host) -> None:
    listeners = [host.engine.listen() for _ in range(5)]
    servers = [ForgeServer(listener=each) for each in listeners]
    oncall, failing, redirecting, elsewhere, slow = servers
    failing.answers.next = [(500, {})] * 100
    redirecting.answers.next = [(307, {"Location": f"{elsewhere.url}/"})] * 100
    slow.may_answer.clear()
    away = host.engine.listen()
    closed = f"http://127.0.0.1:{away.getsockname()[1]}/"
    away.close()
    private = {"private": True}
    configure(
        host,
        oncall={"webhook": f"{oncall.url}/oncall", "secretFile": token_file(host), **private},
        failing={"webhook": f"{failing.url}/hook-S3cr3t", **private},
        redirecting={"webhook": f"{redirecting.url}/", **private},
        slow={"webhook": f"{slow.url}/", **private},
        away={"webhook": closed, **private},
        inside={"webhook": f"https://127.0.0.1:{slow.server_address[1]}/"},
    )
    host.write("web.yaml", web(extra=BROKEN))
    with oncall, failing, redirecting, elsewhere, slow:
        host.up()
        try:
            eventually(lambda: events(oncall) == ["opened"], within_s=PATIENCE_S, what="incident")
            check_the_message(oncall.received[0])
            check_the_process(host)
            eventually(
                lambda: all(
                    destinations(host)[name]["error"] for name in ("failing", "away", "inside")
                ),
                what="failures",
            )
            seen = destinations(host)
            assert seen["oncall"]["error"] == "" and seen["oncall"]["deliveredAt"]
            assert "500 Internal Server Error" in seen["failing"]["error"]
            assert "a redirect, and none is followed" in seen["redirecting"]["error"]
            assert "Connection refused" in seen["away"]["error"]
            assert "its address 127.0.0.1 isn't public" in seen["inside"]["error"]
            (incident,) = host.json("notify", "list")["incidents"]
            assert incident["id"] == oncall.received[0].body["incident"]

            host.write("web.yaml", web())
            eventually(lambda: len(events(oncall)) == 2, within_s=PATIENCE_S, what="the end")
            assert events(oncall) == ["opened", "resolved"]
            assert len({each.body["incident"] for each in oncall.received}) == 1
            assert host.json("notify", "list")["incidents"] == []
            assert elsewhere.received == [], "no redirect is followed"
            tried = {each.body["message"] for each in slow.received}
            assert len(tried) == 1, "a message waits until the one before it is delivered"

            host.cli("notify", "test", "oncall")
            assert events(oncall)[-1] == "test"
            refused = host.cli("notify", "test", "inside", expect=1)
            assert "notify.not-sent" in refused.stderr and "isn't public" in refused.stderr
            assert "notify.unknown" in host.cli("notify", "test", "oncal", expect=64).stderr
            assert destinations(host)["slow"]["error"], "an answer that never comes is cut"
            check_secrets_are_nowhere(host)
        finally:
            host.stop()


def check_the_message(received: Received) -> None:
    body = received.body
    assert received.headers["authorization"] == f"Bearer {TOKEN}"
    assert received.headers["trimtab-incident"] == body["incident"]
    assert "Service default/web" in body["title"]
    assert body["affected"] == ["default/web"]


def check_the_process(host: Host) -> None:
    """The process is a viewer, without group and capability, and sees neither engine nor broker's state."""
    user = pwd.getpwnam(USER)
    pid = notifier_pid(host)
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(user.pw_uid)] * 4
    assert fields["Gid"].split() == [str(user.pw_gid)] * 4
    assert fields["Groups"].split() == []
    assert int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"].strip() == "1"
    seen = Path(f"/proc/{pid}/root")
    for folder in ("broker", "controller"):
        assert not any((seen / str(host.state / folder)[1:]).iterdir()), folder
    assert (host.state / "notify").stat().st_mode & 0o7777 == 0o700


def check_secrets_are_nowhere(host: Host) -> None:
    """No state, log, status, list or bundle has a token; none but the settings a URL."""
    for path in (*host.state.rglob("*"), host.log):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content, path
            is_settings = path.name in ("trimtab.yaml", "settings.json")
            assert is_settings or b"S3cr3t" not in content, path
    shown = "".join(
        host.cli(*words).stdout
        for words in (
            ("status", "--json"),
            ("support-bundle", "-"),
            ("notify", "list"),
            ("notify", "list", "--json"),
        )
    )
    assert TOKEN not in shown and "S3cr3t" not in shown


@pytest.mark.timeout(300)
def test_a_notification_sends_what_it_matches_where_it_says(host: Host) -> None:
    with (
        ForgeServer(listener=host.engine.listen()) as team,
        ForgeServer(listener=host.engine.listen()) as other,
    ):
        silent = {"everything": "nothing", "private": True}
        configure(
            host,
            team={"webhook": f"{team.url}/", **silent},
            other={"webhook": f"{other.url}/", **silent},
        )
        host.write("team.yaml", NOTIFICATION.format(name="team", match="we*", to="team"))
        host.write("other.yaml", NOTIFICATION.format(name="other", match="api", to="other"))
        host.write("typo.yaml", NOTIFICATION.format(name="typo", match="web", to="taem"))
        host.write("web.yaml", web(extra=BROKEN))
        host.up()
        try:
            eventually(lambda: events(team) == ["opened"], within_s=PATIENCE_S, what="incident")
            assert team.received[0].body["affected"] == ["default/web"]
            assert events(other) == []
            stalled = {
                each["name"]: condition["message"]
                for each in (host.status() or {})["resources"]
                for condition in each["conditions"]
                if condition["reason"] == "notification.destination"
            }
            assert [*stalled] == ["typo"]
            assert "no destination taem: they are other, team" in stalled["typo"]
            assert "no destination taem" in host.cli("describe", "typo").stdout
            host.write("typo.yaml", NOTIFICATION.format(name="typo", match="web", to="other"))
            eventually(lambda: events(other) == ["opened"], within_s=PATIENCE_S, what="corrected")
        finally:
            host.stop()


@pytest.mark.timeout(400)
def test_a_restart_of_the_engine_is_one_incident_of_50_services(host: Host) -> None:
    for number in range(50):
        name = f"web-{number}"
        host.write(f"{name}.yaml", web(name, extra="network: {mode: none}"))
    with ForgeServer(listener=host.engine.listen()) as oncall:
        configure(host, oncall={"webhook": f"{oncall.url}/", "private": True})
        with host.running():
            host.await_ready(within_s=PATIENCE_S)
            host.engine.stop()
            eventually(lambda: events(oncall) == ["opened"], within_s=PATIENCE_S, what="incident")
            host.engine.start()
            eventually(lambda: len(events(oncall)) > 1, within_s=PATIENCE_S, what="its end")
            host.await_ready(within_s=PATIENCE_S)
            assert host.json("notify", "list")["incidents"] == []
            # Messages of a destination keep their order.
            host.cli("notify", "test", "oncall")
            assert events(oncall) == ["opened", "resolved", "test"]
            opened, resolved, _ = (each.body for each in oncall.received)
            assert "engine" in opened["title"]
            assert opened["incident"] == resolved["incident"]


@pytest.fixture(scope="module")
def killed(engine: PrivateEngine | FoundEngine) -> Iterator[dict[str, Any]]:
    """An instance for each point at which its sender is killed once, all under way."""
    with ThreadPoolExecutor(len(NOTIFIER_POINTS)) as pool:
        yield {
            point: pool.submit(kill_the_sender, engine, point, number)
            for number, point in enumerate(NOTIFIER_POINTS)
        }


@pytest.mark.timeout(400)
@pytest.mark.parametrize("point", NOTIFIER_POINTS)
def test_a_sender_killed_at_a_point_loses_nothing(killed: dict[str, Any], point: str) -> None:
    received: list[Received] = killed[point].result()
    by_message: dict[str, set[str]] = {}
    for each in received:
        by_message.setdefault(each.body["message"], set()).add(json.dumps(each.body))
    assert all(len(bodies) == 1 for bodies in by_message.values()), "an id is one message"
    assert len(received) - len(by_message) <= 1, "a kill repeats one message at most"
    assert {each.body["event"] for each in received} == {"opened", "resolved"}
    assert len({each.body["incident"] for each in received}) == 1


def kill_the_sender(engine: PrivateEngine | FoundEngine, point: str, number: int) -> list[Received]:
    host = Host(engine)
    try:
        host.use_networks_of_its_own(f"notify{number}")
        name = f"web-{number}"
        with ForgeServer(listener=engine.listen()) as server:
            configure(host, oncall={"webhook": f"{server.url}/", "private": True})
            host.write("web.yaml", web(name, extra=BROKEN))
            host.up(TRIMTAB_CRASH_AT=f"{point}:{1 if point.startswith('notice.send') else 2}")
            try:
                eventually(
                    lambda: "notifier" in host.said() and "SIGKILL" in host.said(),
                    within_s=PATIENCE_S,
                    what=f"a kill at {point}",
                )
                eventually(lambda: "opened" in events(server), within_s=PATIENCE_S, what="incident")
                host.write("web.yaml", web(name))
                eventually(lambda: "resolved" in events(server), within_s=PATIENCE_S, what="end")
            finally:
                host.stop()
            return server.received
    finally:
        host.close()
