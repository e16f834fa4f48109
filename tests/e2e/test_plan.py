"""``plan``, ``diff`` and ``apply`` where nothing runs, on a real engine: what changes, and what was done."""

from __future__ import annotations

import re

from tests.instance import TRIMTAB, Host, web

STOP_FIRST = "rollout: {minHealthy: 0s, order: StopFirst}"


def document(memory: str, level: str) -> str:
    env = f"env: {{LOG_LEVEL: {level}, TOKEN: hunter2}}"
    return web(extra=f"{STOP_FIRST}\n{env}\nresources: {{memory: {memory}}}")


def test_a_plan_names_the_fields_that_change_and_apply_says_what_it_did(host: Host) -> None:
    """One life of one service, so that its seconds are spent once.

    Plans of a snapshot are made without engine, instance and policy file; no value of a variable is in it.
    """
    host.write("web.yaml", document("64Mi", "info"))
    new = host.cli("plan", str(host.directory), "--policy", host.policy, expect=2).stdout
    assert "+ Service/default/web  create 1 replica" in new
    done = host.cli("apply", str(host.directory), "--policy", host.policy, "--timeout", "60s")
    assert re.match(r"Applied in [\d.]+ m?s: 1 created, 0 replaced, .* 1 network", done.stdout)
    assert "web: created web.1-" in done.stderr and "web: started web.1-" in done.stderr

    host.write("web.yaml", document("96Mi", "debug"))
    plan = host.cli("plan", expect=2).stdout
    assert "~ Service/default/web  replace 1 replica (StopFirst)" in plan
    assert "    spec.env.LOG_LEVEL: changed\n    spec.resources.memory: 64Mi -> 96Mi\n" in plan
    assert "Plan: 0 to create, 1 to replace, " in plan
    assert "downtime expected: web until its new container is up (its stop may take 10 s)" in plan
    assert "hunter2" not in plan and "debug" not in plan

    reviewed = plan.rpartition("digest ")[2].strip()
    done = host.cli("apply", "--plan", reviewed, "--timeout", "60s")
    assert "0 created, 1 replaced" in done.stdout
    assert "web: spec.resources.memory: 64Mi -> 96Mi\n" in done.stderr
    assert "replaced replica 1 of 1" in done.stderr
    assert "LOG_LEVEL=debug" in host.containers("web")[0]["Config"]["Env"]

    snapshot = host.cli("snapshot").stdout
    assert "hunter2" not in snapshot
    file = host.state.parent / "host.json"
    file.write_text(snapshot)
    change = host.state.parent / "change"
    change.mkdir()
    (change / "web.yaml").write_text(document("128Mi", "trace"))
    here = host.cli("plan", "--against", str(change), expect=2).stdout
    assert re.search(r"downtime expected: web about [\d.]+ s\n", here), here
    host.cli("down")
    assert not host.containers()

    def elsewhere(*options: str, expect: int = 2) -> str:
        nowhere = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
        against = ("plan", "--against", str(change), "--snapshot", str(file))
        return host.cli(*against, *options, expect=expect, **nowhere).stdout

    there = elsewhere()
    assert "~ Service/default/web  replace 1 replica (StopFirst)" in there
    assert "    spec.resources.memory: 96Mi -> 128Mi\n" in there
    without_values = here.replace("    spec.env.LOG_LEVEL: changed\n", "")
    assert there.rpartition("digest")[0] == without_values.rpartition("digest")[0]
    assert "| `~` | `Service/default/web` | replace 1 replica (StopFirst) | web " in elsewhere(
        "--markdown"
    )
    (change / "web.yaml").write_text(document("128Mi", "debug"))
    in_place = elsewhere()
    assert "~ Service/default/web  update 1 replica in place" in in_place
    assert "    spec.resources.memory: 96Mi -> 128Mi\n" in in_place
    assert "no replica ends before its successor is available" in in_place


def on_a_terminal(host: Host, *arguments: str) -> str:
    """Return what a command prints on a terminal, without its colours."""
    command = " ".join([TRIMTAB, *arguments, "--state", str(host.state)])
    done = host.engine.run_inside(["script", "-qec", command, "/dev/null"], check=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).replace("\r\n", "\n")


#: Those that show most: each command without a controller starts one, and a broker.
FORMS = (("plan", "--json"), ("diff", "web", "--json"))


def test_a_plan_is_the_same_beside_a_controller_and_without_one(host: Host) -> None:
    """The running controller answers the first commands; the others look themselves."""
    host.write("web.yaml", document("64Mi", "info"))
    host.write("new.yaml", web("new"))
    with host.running():
        as_declared = host.json("plan")
        assert as_declared["summary"]["text"] == "nothing to do"
        host.cli("suspend", "web")
        host.cli("suspend", "new")
        host.write("web.yaml", document("96Mi", "debug"))
        host.cli("apply", "--plan", as_declared["digest"], expect=1)
        shown = on_a_terminal(host, "diff", "web", "--show-values")
        assert "spec.env.LOG_LEVEL: info -> debug" in shown
        reads = [record["request"]["route"] for record in host.records("read")]
        assert reads.count("values.show") == 1
        host.write("broken.yaml", "apiVersion: trimtab/v1\nkind: Service\nspec: {imag: nginx}\n")
        beside = printed(host)
    without = printed(host)
    assert beside == without
    assert "spec.resources.memory: 64Mi -> 96Mi" in without[-1]
    assert "broken.yaml:3" in without[-1] and "spec: {imag: " in without[-1]


def printed(host: Host) -> list[str]:
    """Return what commands print: as JSON on a pipe, and on a terminal."""
    done = [host.cli(*form, expect=2 if form[0] == "diff" else 3) for form in FORMS]
    return [*(f"{each.stdout}{each.stderr}" for each in done), on_a_terminal(host, "plan", "-v")]
