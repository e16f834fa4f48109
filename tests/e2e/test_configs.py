"""Configs, as users see them: files in containers, and what happens when the files change."""

from __future__ import annotations

import os
import re
import shutil
import signal

import pytest

from tests.instance import Host, eventually, web

#: A program that reads its file at its start, and again when it gets SIGHUP.
READER = (
    "take() { cat /srv/site/page.html >> /tmp/seen; }; trap take HUP; take; "
    "while true; do sleep 0.1; done"
)

HEALTHY = 'healthcheck: {exec: [/bin/sh, -c, "true"], interval: 1s}'


def config(text: str, name: str = "site") -> str:
    return f"""\
apiVersion: trimtab/v1
kind: Config
metadata: {{name: {name}, owner: team}}
spec:
  data: {{page.html: "{text};"}}
"""


def mounting(change: str = "", extra: str = "") -> str:
    mount = f"mounts: [{{type: config, source: site, target: /srv/site{change}}}]"
    return web(extra=f"rollout: {{minHealthy: 1s}}\n{mount}\n{extra}")


def said(host: Host, path: str = "/srv/site/page.html") -> str:
    """Return what a file says in the one running container; '' while there is none."""
    running = host.running_ids("web")
    if len(running) != 1:
        return ""
    return host.engine.docker("exec", running[0], "cat", path, check=False).stdout.strip()


@pytest.mark.also_signed
def test_a_changed_config_is_rolled_out_and_a_rollback_has_the_old_files(host: Host) -> None:
    host.write("site.yaml", config("first"))
    host.write("web.yaml", mounting())
    with host.running():
        host.await_ready("web")
        (old,) = host.running_ids("web")
        assert said(host) == "first;"
        revision = host.resource("web")["revision"]
        host.write("site.yaml", config("second"))
        eventually(lambda: host.running_ids("web") != [old], within_s=40)
        eventually(lambda: said(host) == "second;", within_s=40)
        assert host.running_ids("web") != [old]
        told = host.journal()
        ids = [r["id"] for r in told if r.get("request", {}).get("route") == "files.deliver"]
        stages = sorted(r["stage"] for r in told if r["id"] in ids)
        assert stages == ["intent", "intent", "outcome", "outcome"]
        assert "first;" not in str(told)
        host.await_ready("web")
        second = host.running_ids("web")
        host.cli("rollback", "web", "--to", revision.partition(":")[2][:8])
        eventually(lambda: host.running_ids("web") != second, within_s=40)
        eventually(lambda: said(host) == "first;", within_s=40)
        shown = host.cli("describe", "web").stdout
        assert "/srv/site: config site, content " in shown


def test_a_signal_changes_files_in_place_and_the_broker_may_die_in_between(host: Host) -> None:
    host.write("site.yaml", config("first"))
    command = f"entrypoint: [/bin/sh, -c, '{READER}']\n" + HEALTHY
    host.write("web.yaml", mounting(", onChange: {signal: SIGHUP}", command))
    with host.running():
        host.await_ready("web")
        before = host.running_ids("web")
        os.kill(host.pid_of("broker"), signal.SIGKILL)
        host.write("site.yaml", config("second"))
        eventually(lambda: said(host, "/tmp/seen") == "first;second;", within_s=60)
        assert re.search(
            r" up WARNING the broker was killed by SIGKILL; it starts again in 0.5 s\n"
            r".* up WARNING the broker was started again as pid \d+\n",
            host.log.read_text(),
            re.DOTALL,
        )
        assert host.running_ids("web") == before, "nothing was restarted"
        host.engine.docker("restart", "-t", "1", *before)
        eventually(lambda: said(host, "/tmp/seen").endswith("second;"), within_s=30)
        host.await_ready("web")


def test_a_lost_folder_comes_back_and_bad_files_leave_the_service_as_it_is(host: Host) -> None:
    (host.directory / "page.html").write_text("from a file")
    declared = config("x").replace('data: {page.html: "x;"}', "files: {page.html: page.html}")
    host.write("site.yaml", declared)
    host.write(
        "web.yaml", mounting(', key: page.html, mode: "0444"').replace("/srv/site", "/etc/page")
    )
    with host.running():
        host.await_ready("web")
        before = host.running_ids("web")
        assert said(host, "/etc/page") == "from a file"
        (host.directory / "page.html").unlink()
        (host.directory / "page.html").symlink_to("/etc/hostname")
        codes = lambda: [p["code"] for p in (host.status() or {"problems": []})["problems"]]  # noqa: E731
        eventually(lambda: "config.outside" in codes(), within_s=20)
        assert host.running_ids("web") == before
    (host.directory / "page.html").unlink()
    (host.directory / "page.html").write_text("from a file")
    shutil.rmtree(host.state / "files")
    host.cli("files", "restore")
    host.engine.docker("restart", "-t", "1", *before)
    with host.running():
        host.await_ready("web")
        assert said(host, "/etc/page") == "from a file"
