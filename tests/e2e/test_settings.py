"""The file of settings on a real engine: starts without options, reloads, another directory, a newer state."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.e2e.test_hard_times import refused
from tests.instance import Host, web


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
    assert in_force(host) == written
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
