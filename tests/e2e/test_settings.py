"""The file of settings on a real engine: starts without options, reloads, another directory, a newer state."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.e2e.test_hard_times import refused
from tests.instance import Host, web
from tests.unit.journal.builders import newer


def settings(host: Host) -> Path:
    return host.state / "trimtab.yaml"


def in_force(host: Host) -> dict[str, object]:
    """Return the settings that the broker wrote for the other processes."""
    return dict(json.loads((host.state / "settings.json").read_text())["settings"])


def content(folder: Path) -> dict[str, bytes | None]:
    """Return all that is below a folder: the bytes of files, None for others."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_up_goes_on_with_its_former_options_and_options_win(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running("--quarantine", "24h"):
        before = host.running_ids("web")
    written = {
        "desiredState": str(host.directory),
        "engine": host.engine.host,
        "policy": host.policy,
        "quarantine": "24h",
    }
    assert yaml.safe_load(settings(host).read_text()) == written
    assert in_force(host) == {**written, "log": "WARNING"}
    commented = f"# mine\n{settings(host).read_text()}"
    settings(host).write_text(commented)
    host.up_as_before(DOCKER_HOST="")
    host.await_ready("web")
    assert host.running_ids("web") == before
    assert settings(host).read_text() == commented
    host.stop()
    host.up_as_before("--quarantine", "1h")
    host.await_ready("web")
    assert settings(host).read_text() == commented.replace("24h", "1h")
    assert in_force(host)["quarantine"] == "1h"
    host.stop()


def test_a_start_with_a_mistake_in_the_file_names_its_line(host: Host) -> None:
    settings(host).parent.mkdir()
    settings(host).write_text("quarantine: 24h\npolizy: home\n")
    said = refused(host)
    assert "[settings.invalid]" in said
    assert f"{settings(host)}:2: polizy is no setting" in said
    assert not (host.state / "instance.json").exists()


def test_a_folder_that_needs_a_newer_trimtab_is_left_as_it_is(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running():
        pass
    file = host.state / "instance.json"
    members = json.loads(file.read_text())
    file.write_text(json.dumps({**members, "format": {"written": 2, "readable": 2}}))
    before = content(host.state)
    for command in (("broker",), ("plan",), ("status",)):
        assert "[state.newer]" in host.cli(*command, expect=1).stderr
    assert "[state.newer]" in refused(host, "--quarantine", "1h")
    assert content(host.state) == before


def codes_of_status(host: Host) -> set[str]:
    told = host.json("status", expect=(0, 5))
    return {str(problem["code"]) for problem in told["problems"]}


def test_a_reload_puts_live_keys_in_force_and_names_the_restart_of_others(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running():
        before = host.running_ids("web")
        policy = host.folder / "mine.yaml"
        policy.write_text(Path(host.policy).read_text().replace("name: development", "name: mine"))
        edited = settings(host).read_text().replace(host.policy, str(policy))
        settings(host).write_text(f"{edited}quarantine: 24h\n")
        rows = host.json("settings", "diff", expect=2)["changes"]
        assert [row["key"] for row in rows] == ["policy", "quarantine"]
        assert codes_of_status(host) == set(), "nothing is in force yet"
        told = host.json("settings", "reload")
        assert told["restart"] == {"policy": [], "quarantine": ["trimtab-controller.service"]}
        assert in_force(host)["policy"] == str(policy)
        assert host.json("policy", "show")["name"] == "mine"
        host.cli("settings", "diff")
        assert codes_of_status(host) == {"settings.restart"}
        (record,) = [
            each
            for each in host.records("operator")
            if each["request"]["route"] == "settings.reloaded"
        ]
        assert record["request"]["summary"] == {
            "keys": ["policy", "quarantine"],
            "settingsDigest": told["digest"],
        }
        valid = settings(host).read_text()
        settings(host).write_text(f"{valid}registryAuth: elsewhere\npolizy: home\n")
        said = host.cli("settings", "reload", expect=4).stderr
        assert "[settings.invalid]" in said
        assert f"{settings(host)}:6: polizy is no setting" in said
        assert host.json("settings", "show")["digest"] == told["digest"]
        assert codes_of_status(host) == {"settings.invalid", "settings.restart"}
        host.cli("settings", "check", expect=1)
        settings(host).write_text(valid)
        assert host.json("settings", "reload")["restart"] == {}
        assert host.running_ids("web") == before
    host.up_as_before()
    host.await_ready("web")
    assert codes_of_status(host) == set()
    host.stop()


def test_another_directory_is_refused_until_the_instance_is_bound_to_it(host: Host) -> None:
    host.write("web.yaml", web())
    other = host.folder / "other"
    other.mkdir()
    with host.running():
        before = host.running_ids("web")
        bound = settings(host).read_text()
        settings(host).write_text(bound.replace(str(host.directory), str(other)))
        assert "[settings.rebind]" in host.cli("settings", "reload", expect=4).stderr
        assert "[state.held]" in host.cli("settings", "rebind", expect=1).stderr
        assert in_force(host)["desiredState"] == str(host.directory)
    host.up_as_before()
    assert host.process is not None
    assert host.process.wait(timeout=60) == 1
    assert "[settings.rebind]" in host.said()
    assert host.running_ids("web") == before
    (other / "web.yaml").write_text(web())
    told = host.json("settings", "rebind")
    assert told == {"before": str(host.directory), "after": str(other)}
    host.up_as_before()
    host.await_ready("web")
    assert host.running_ids("web") == before
    assert in_force(host)["desiredState"] == str(other)
    host.stop()


def test_a_journal_of_a_newer_trimtab_is_left_as_it_is(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running():
        pass
    segment = max((host.state / "broker" / "journal").glob("*.jsonl"))
    with segment.open("rb+") as file:
        last = file.read().splitlines()[-1]
        file.write(newer(last, stage="read") + b"\n")
    before = content(host.state)
    assert "[state.newer]" in refused(host)
    assert "[state.newer]" in host.cli("plan", expect=1).stderr
    told = host.json("journal", "verify", expect=18)
    assert (told["fault"], told["reason"]) == ("newer", "it is of a newer trimtab, with later")
    assert content(host.state) == before


def test_a_signal_does_what_the_command_does(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running():
        valid = settings(host).read_text()
        for text, codes in (("quarantine: no\n", {"settings.invalid"}), ("", set())):
            settings(host).write_text(valid + text)
            host.cli("policy", "reload")
            assert codes_of_status(host) == codes
        settings(host).write_text(f"{valid}quarantine: 24h\n")
        host.cli("policy", "reload")
        assert in_force(host)["quarantine"] == "24h"
        (record,) = [
            each
            for each in host.records("policy")
            if each["request"]["route"] == "settings.reloaded"
        ]
        assert record["request"]["summary"]["keys"] == ["quarantine"]
