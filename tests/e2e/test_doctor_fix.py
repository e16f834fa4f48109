"""``doctor --fix`` mends what loses nothing, says so, and leaves what runs as it is."""

from __future__ import annotations

from tests.instance import Host, web


def test_files_that_are_open_to_others_are_closed_while_all_runs(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running():
        host.await_ready("web")
        before = host.running_ids("web")
        (host.state / "broker").chmod(0o755)
        (host.state / "broker" / "journal.key").chmod(0o644)
        told = {
            f["message"]: f for f in host.json("doctor", expect=(0, 1)) if f["check"] == "modes"
        }
        assert [each["level"] for each in told.values()] == ["warning", "warning"]
        fixed = host.json("doctor", "--fix", expect=(0, 1))
        acts = [each["message"] for each in fixed if each["check"] == "fix"]
        assert acts == [
            f"chmod 0700 {host.state}/broker",
            f"chmod 0600 {host.state}/broker/journal.key",
        ]
        assert [f["level"] for f in fixed if f["check"] == "modes"] == ["ok"]
        assert not [f for f in host.json("doctor", "--fix", expect=(0, 1)) if f["check"] == "fix"]
        host.cli("restart", "web")
        host.await_ready("web")
        assert host.running_ids("web") != before
    assert host.nothing_open()
