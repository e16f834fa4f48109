"""Configs, as users see them: files in containers, and what happens when the files change."""

from __future__ import annotations

from tests.instance import Host, eventually, web


def config(text: str, name: str = "site") -> str:
    return f"""\
apiVersion: trimtab/v1
kind: Config
metadata: {{name: {name}, owner: team}}
spec:
  data: {{page.html: {text}}}
"""


def mounting(change: str = "") -> str:
    return web(extra=f"mounts: [{{type: config, source: site, target: /srv/site{change}}}]")


def page(host: Host, path: str = "/srv/site/page.html") -> str:
    (one,) = host.running_ids("web")
    return host.engine.docker("exec", one, "cat", path).stdout.strip()


def test_a_config_is_mounted_and_a_changed_one_is_rolled_out(host: Host) -> None:
    host.write("site.yaml", config("first"))
    host.write("web.yaml", mounting())
    with host.running():
        host.await_ready("web")
        (old,) = host.running_ids("web")
        assert page(host) == "first"
        host.write("site.yaml", config("second"))
        eventually(lambda: host.running_ids("web") not in ([], [old]), within_s=30)
        host.await_ready("web")
        eventually(lambda: len(host.running_ids("web")) == 1, within_s=30)
        assert page(host) == "second"
        told = host.journal()
        ids = [r["id"] for r in told if r.get("request", {}).get("route") == "files.deliver"]
        assert len(ids) == 2
        assert [r["stage"] for r in told if r["id"] in ids] == ["intent", "outcome"] * 2
        assert "first" not in str(told)
        host.cli("rollback", "web")
        eventually(lambda: page(host) == "first", within_s=30)
