"""``policy check`` and ``policy explain``: what they print, for whom, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.test_main import GOOD, run

IMAGE = "ghcr.io/platformnetwork/web:1.2.3"


class Told:
    """Runs commands of ``policy`` in a folder without an instance."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, command: str, *words: str, rules: str = "strict") -> tuple[int, str, str]:
        options = ("--state", str(self.folder / "none"), "--policy", rules)
        code = run("policy", command, *options, *words)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, command: str, *words: str, rules: str = "strict") -> tuple[int, Any]:
        code, out, _ = self(command, "--json", *words, rules=rules)
        return code, json.loads(out)

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


@pytest.fixture
def told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Told:
    monkeypatch.chdir(tmp_path)
    return Told(tmp_path, capsys)


def test_show_prints_the_title_once(told: Told) -> None:
    code, out, _ = told("show", rules="home")
    assert code == 0
    assert out.splitlines()[0].startswith("policy home (home), digest ")
    assert out.count("digest") == 1


def test_a_docker_line_that_is_refused_is_told_with_every_rule_and_remedy(told: Told) -> None:
    line = f"docker run --rm -v /etc:/e -p 80:80 --cap-add SYS_ADMIN {IMAGE} cmd"
    code, out, _ = told("explain", "--", *line.split())
    assert code == 4
    # The docker command ends with the refusal of its first request.
    assert "container.start" not in out
    assert out.splitlines()[-1].startswith("not sent after that: POST /containers/CONTAINER/attach")
    for expected in (
        "container.create: create a container as the policy admits it",
        "HostConfig.CapAdd[0] = SYS_ADMIN: refused [capabilities]",
        "HostConfig.Binds[0] = /etc:/e: refused [mount.forbidden]",
        "HostConfig.NetworkMode = default: becomes platform-network",
        "HostConfig.CapDrop[0] = ALL: given",
        "HostConfig.PortBindings.80/tcp[0].HostPort = 80: refused [port.privileged]",
        "port.privileged: HostConfig.PortBindings.80/tcp[0].HostPort: host port 80 is below 1024",
        "    remedy: publish on a higher port",
        "  refused by strict",
    ):
        assert expected in out


def test_a_line_that_is_admitted_says_what_is_left_to_the_broker(told: Told) -> None:
    code, out, _ = told("explain", "--as", "client:alice", "--", "create", IMAGE)
    assert code == 0
    assert "asked as client:alice" in out
    assert "left to the broker: whether the name is free, and quotas" in out


def test_a_run_is_all_of_its_requests_up_to_the_first_that_is_refused(told: Told) -> None:
    code, found = told.json("explain", "--as", "client:alice", "--", "run", IMAGE)
    assert (code, found["admitted"], "notSent" in found) == (0, True, False)
    paths = [request["path"].rpartition("/")[2] for request in found["requests"]]
    assert paths == ["create", "attach", "wait", "start"]
    code, found = told.json("explain", "--as", "controller", "--", "run", IMAGE)
    assert (code, found["admitted"], len(found["requests"])) == (4, False, 1)
    unsent = [request.rpartition("/")[2] for request in found["notSent"]]
    assert unsent == ["attach", "wait", "start"]
    code, out, _ = told("explain", "--as", "controller", "POST", "/containers/x/attach")
    assert (code, "role.denied" in out) == (4, True)


def test_a_request_is_explained_with_its_body_and_query(told: Told) -> None:
    body = told.file("body.json", json.dumps({"Image": IMAGE, "HostConfig": {"Memory": 2**30}}))
    words = ("POST", "/containers/create?name=web", "--query", "platform=", "--body", body)
    code, found = told.json("explain", *words, "--as", "client:alice")
    assert code == 0
    (request,) = found["requests"]
    assert request["route"]["roles"] == ["client", "controller", "operator"]
    assert request["verdict"]["decision"] == "mutate"
    assert {"path": "HostConfig.Memory", "asked": 2**30, "outcome": "kept", "rules": []} in request[
        "fields"
    ]
    assert {"path": "HostConfig.MemorySwap", "value": 2**30} in request["given"]
    assert told("explain", "DELETE", "/containers/web?force=1")[0] == 0
    assert told("explain", "DELETE", "/containers/web", "--query", "link=1")[0] == 4


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("build .", "build.denied"),
        ("cp web:/etc/x .", "GET /containers/web/archive isn't served to any role"),
        ("cp x web:/etc", "HEAD /containers/web/archive isn't served to any role"),
        ("push a/b", "POST /images/a/b/push isn't served to any role"),
        ("swarm init", "POST /swarm/init isn't served to any role"),
        ("exec --privileged web sh", "exec.privileged"),
        ("volume create -o type=none vol", "volume.options"),
        ("pull alpine", "image.not-allowed"),
        ("update --memory 64g web", "resources.memory"),
    ],
)
def test_other_commands_are_refused_by_their_routes_or_rules(
    told: Told, line: str, text: str
) -> None:
    told.file("Dockerfile", "FROM scratch\n")
    code, out, _ = told("explain", "--", "docker", *line.split())
    assert (code, text in out) == (4, True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "expected METHOD PATH, or a docker command line behind --"),
        (("--", "run", "--nonsense", "x"), "unknown flag: --nonsense [line.invalid]"),
        (("--", "run"), "requires at least 1 argument. [line.invalid]"),
        (("--", "compose", "-f", "/nonexistent", "up"), "Debian: docker-compose"),
        (("--", "run", "--help"), "docker sends no request for this line [line.invalid]"),
        (("--", "frobnicate"), "isn't a command that only asks the engine [line.invalid]"),
        (("--as", "root", "--", "ps"), "'root' isn't a role of the gate [role.unknown]"),
        (("--as", "client", "--", "ps"), "[role.unknown]"),
        (("--query", "a=b", "--", "ps"), "[request.unclear]"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_64(
    told: Told, words: tuple[str, ...], text: str
) -> None:
    code, out, err = told("explain", *words)
    assert (code, out, text in err) == (64, "", True)


def test_requests_before_an_error_of_docker_are_explained_with_the_error(told: Told) -> None:
    code, out, err = told("explain", "--", "logs", "web")
    assert (code, "container.logs" in out) == (0, True)
    assert err == (
        "later requests are unknown, since docker failed here: "
        "Error response from daemon: no engine answers here\n"
    )


def test_a_compose_file_is_explained_up_to_the_create_that_is_refused(told: Told) -> None:
    told.file("compose.yaml", f"services: {{web: {{image: '{IMAGE}', privileged: true}}}}\n")
    code, found = told.json("explain", "--", "docker", "compose", "-p", "shop", "up", "-d")
    last = found["requests"][-1]
    assert (code, last["path"], last["verdict"]["rules"]) == (
        4,
        "/containers/create",
        ["privileged"],
    )
    assert found["notSent"][-1] == "POST /containers/shop-web-1/start"


def test_a_line_reads_variables_and_files_as_the_command_does(told: Told, monkeypatch) -> None:
    monkeypatch.setenv("FROM_HERE", "x")
    told.file("env.txt", "LD_PRELOAD=/x\n")
    words = ("--env-file", "env.txt", "-e", "FROM_HERE", IMAGE)
    code, found = told.json("explain", "--", "create", *words)
    assert code == 4
    fields = {field["path"]: field for field in found["requests"][0]["fields"]}
    assert fields["Env[0]"]["rules"] == ["env.denied"]
    assert fields["Env[1]"]["asked"] == "FROM_HERE=…"


def test_a_file_is_checked_with_all_that_is_wrong_in_each_document(
    told: Told, tmp_path: Path
) -> None:
    bad = GOOD.replace("web,", "api,").replace(
        'web:1.2.3"', 'web:1.2.3", resources: {memory: 32Gi, pids: 9999}'
    )
    code, found = told.json("check", told.file("a.yaml", f"{GOOD}---\n{bad}"))
    assert code == 4
    assert [(one["object"], one["verdict"]["decision"]) for one in found] == [
        ("Service/default/api", "deny"),
        ("Service/default/web", "mutate"),
    ]
    assert [f["rule"] for f in found[0]["findings"]] == ["resources.memory", "resources.pids"]
    code, out, _ = told("check", told.file("b.yaml", bad))
    assert code == 4
    assert (
        f"{tmp_path}/b.yaml:4:84: refused resources.pids: spec.resources.pids: 9999 is outside 1 to"
        in out
    )
    assert told("check", told.file("good.yaml", GOOD))[0] == 0
    assert told("check", told.file("c.yaml", "kind: Nonsense\n"))[0] == 3
    assert told("check", "/nonexistent.yaml")[0] in {1, 64}


def test_a_document_that_begins_with_a_brace_is_no_body(told: Told) -> None:
    service: dict[str, object] = {"apiVersion": "trimtab/v1", "kind": "Service"}
    service["metadata"] = {"name": "web", "owner": "team"}
    service["spec"] = {"image": IMAGE, "resources": {"cpus": 0.2}}
    flow = json.dumps(service).replace('"', "")
    for name, text in (("a.json", json.dumps(service)), ("a.yaml", flow)):
        code, found = told.json("check", told.file(name, text))
        assert (code, [each["object"] for each in found]) == (0, ["Service/default/web"]), name
    assert told("check", told.file("broken.json", '{"Image": '))[0] == 64


def test_a_body_is_checked_as_whoever_is_named(told: Told) -> None:
    body = {"Image": IMAGE, "Labels": {"io.trimtab.owner": "bob"}}
    file = told.file("body.json", json.dumps(body))
    assert told("check", file, "--as", "client:bob")[0] == 0
    code, found = told.json("check", file, "--as", "client:alice")
    assert (code, [f["rule"] for f in found[0]["findings"]]) == (4, ["label.reserved"])
    assert told("check", told.file("x.json", '{"a": 1, "A": 2}'))[0] == 64


def test_what_a_mode_lets_through_is_said_and_refuses_nothing(told: Told) -> None:
    rules = told.file("p.yaml", "name: p\nmodes: {resources.memory: warn, resources.pids: audit}\n")
    bad = GOOD.replace('web:1.2.3"', 'web:1.2.3", resources: {memory: 32Gi, pids: 9999}')
    code, found = told.json("check", told.file("a.yaml", bad), rules=rules)
    assert (code, found[0]["verdict"]["decision"]) == (0, "audit-deny")
    assert {f["rule"]: f["mode"] for f in found[0]["findings"]} == {
        "resources.memory": "warn",
        "resources.pids": "audit",
    }
    code, out, _ = told("explain", "--", "create", "-m", "32g", IMAGE, rules=rules)
    assert (code, "HostConfig.Memory = 34359738368: let through for now" in out) == (0, True)
    folder = told.folder / "state"
    folder.mkdir()
    (folder / "a.yaml").write_text(bad)
    code = run(
        "validate", str(folder), "--policy", rules, "--state", str(told.folder / "none"), "--json"
    )
    assert code == 0
    (warned,) = json.loads(told._capsys.readouterr().out)["warned"]
    assert warned["verdict"]["rules"][0] == "resources.memory"
    assert "resources.pids" not in warned["verdict"]["rules"]


def test_a_file_that_is_no_text_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "web.yaml").write_bytes(b"\xff\xfe")
    code, _, err = Told(tmp_path, capsys)("check", str(tmp_path / "web.yaml"))
    assert (code, err.split("\n")[0]) == (
        64,
        "error: invalid value for 'FILE': it isn't text in UTF-8 [usage.wrong]",
    )


ENDED = f"""
name: mine
profile: strict
images: {{allow: [ghcr.io/platformnetwork/]}}
exceptions:
  - owner: team
    namespace: default
    service: web
    repository: {IMAGE.rpartition(":")[0]}
    reason: it listened on a low port once
    expires: 2020-01-31
    loosens: {{capAdd: [NET_BIND_SERVICE]}}
"""


def test_an_exception_that_ended_permits_nothing(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = told.file("policy.yaml", ENDED)
    asked = "security: {capAdd: [NET_BIND_SERVICE]}"
    document = GOOD.replace('"}', f'", {asked}}}')
    (told.folder / "desired").mkdir()
    code, out, _ = told("check", told.file("desired/web.yaml", document), rules=rules)
    assert (code, "[capabilities]" in out) == (4, True)
    assert "the policy's exception for web ended on 2020-01-31" in out
    options = ("--state", str(told.folder / "none"), "--policy", rules)
    assert run("validate", str(told.folder / "desired"), *options) == 4
    assert "refused capabilities" in capsys.readouterr().out
