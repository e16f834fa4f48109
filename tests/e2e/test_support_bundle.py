"""Secrets are planted wherever one can stand: none is in a support bundle, nor in the log."""

from __future__ import annotations

import base64
import json
import pwd
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_secrets import Namespace, namespace
from tests.e2e.test_shipping import collector, positions
from tests.e2e.test_split import USER, started
from tests.e2e.test_web import Visitor, page_of
from tests.instance import TRIMTAB, Host, eventually, web
from tests.otlp import Collector

__all__ = ["collector", "namespace"]
pytestmark = pytest.mark.needs_root


class Plants(dict[str, str]):
    """A secret of its own for each place, by the place."""

    def __missing__(self, place: str) -> str:
        self[place] = f"S3cr3t.{len(self):02d}.{place}"
        return self[place]

    def found_in(self, text: str) -> list[str]:
        return [place for place, secret in self.items() if secret in text]


def service(plants: Plants) -> str:
    """Return a document with a secret in each of its texts."""
    say = f'echo "{plants["output"]}"; echo "{plants["standard-error"]}" >&2; exec sleep 1000'
    return f"# {plants['comment']}\n" + web(
        extra=f"""\
entrypoint: [/bin/sh, -c, '{say}', {plants["entrypoint"]}]
command: [{plants["command"]}]
env: {{PASSWORD: "{plants["env"]}", {plants["name-of-env"].replace(".", "_").replace("-", "_")}: "1"}}
containerLabels: {{team: "{plants["label"]}"}}
healthcheck: {{exec: [/bin/sh, -c, "true {plants["check"]}"], interval: 1s}}
lifecycle: {{postStart: [{{exec: [/bin/sh, -c, "true {plants["hook"]}"]}}]}}
mounts: [{{type: config, source: site, target: "/srv/{plants["target"]}"}}]
rollout: {{minHealthy: 1s}}
"""
    )


def write_documents(host: Host, plants: Plants, namespace: Namespace) -> None:
    host.write("web.yaml", service(plants))
    head = "apiVersion: trimtab/v1\n"
    host.write(
        "site.yaml",
        f"{head}kind: Config\nmetadata: {{name: site, owner: team}}\n"
        f'spec: {{data: {{{plants["config-key"]}: "{plants["config"]}"}}}}\n',
    )
    host.write(f"{plants['file-name']}.yaml", web("named"))
    host.write("broken.yaml", web("broken", extra=f"unknown: {plants['unknown-field']}"))
    host.write("syntax.yaml", f"{web('syntax')}\n  - {{{plants['syntax']}\n")
    host.write(
        "image.yaml",
        web("pulled").replace("trimtab.local/web:1", f"bot:{plants['image']}@ghcr.io/a/b:1"),
    )
    host.write(
        "absent.yaml",
        web("absent").replace("trimtab.local/web:1", f"trimtab.local/web:{plants['tag']}"),
    )
    host.write(
        "bind.yaml",
        web("bound", extra=f"mounts: [{{type: bind, source: /root/{plants['bind']}, target: /a}}]"),
    )
    host.write(
        "fails.yaml",
        web(
            "fails", extra=f"entrypoint: [/bin/sh, -c, 'echo {plants['last-output']} >&2; exit 3']"
        ),
    )
    host.write(
        "source.yaml",
        f"{head}kind: Source\nmetadata: {{name: remote, owner: team}}\n"
        f"spec: {{git: {{url: 'https://127.0.0.1:1/{plants['repository']}.git', "
        f"ref: {{branch: {plants['branch']}}}}}, namespaces: [remote]}}\n",
    )
    host.write(
        "credentials.yaml",
        f"{head}kind: Source\nmetadata: {{name: other, owner: team}}\n"
        f"spec: {{git: {{url: 'https://bot:{plants['url']}@127.0.0.1:1/x.git'}}, namespaces: [other]}}\n",
    )
    host.write("shop/.env", f"DB_PASSWORD={plants['dotenv']}\n")
    host.write(
        "shop/compose.yaml",
        f"# {plants['compose-comment']}\nservices:\n  api:\n    image: trimtab.local/web:1\n"
        f"    environment: {{A: '${{DB_PASSWORD}}', B: '{plants['compose-env']}'}}\n"
        f"    labels: {{x: '{plants['compose-label']}'}}\n    hostname: h\n"
        f"    extra_hosts: ['{plants['extra-host']}:10.0.0.1']\n",
    )
    values = namespace.sops({"password": plants["secret-value"]})
    host.write("db.sops", values)
    host.write("db.yaml", namespace.document("{sops: db.sops}"))


#: What documents of a kind need beside the field with the secret. None of them makes a container.
SPECS: dict[str, dict[str, object]] = {
    "Service": {"image": "trimtab.local/web:1", "suspend": True},
    "Job": {"image": "trimtab.local/web:1", "suspend": True},
    "Source": {"git": {"url": "https://127.0.0.1:1/x.git"}, "namespaces": ["fields"]},
}


def fields(
    schema: Mapping[str, Any], named: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field of a JSON Schema: ``{}`` is any key, ``[]`` an item."""
    if (name := schema.get("$ref", "").rpartition("/")[2]) in above:
        return
    if name:
        yield from fields(named[name], named, (*above, name))
        return
    below: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [
        ((), each) for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key, ())
    ]
    below += [((key,), each) for key, each in schema.get("properties", {}).items()]
    for step, key in (("{}", "additionalProperties"), ("[]", "items")):
        below += [((step,), schema[key])] if isinstance(schema.get(key), dict) else []
    if not below:
        yield ()
    for steps, each in below:
        yield from ((*steps, *rest) for rest in fields(each, named, above))


def value_with(path: tuple[str, ...], secret: str) -> Any:
    """Return a value with a secret in one field, and as the key of a mapping."""
    value: Any = secret
    for step in reversed(path):
        value = [value] if step == "[]" else {secret if step == "{}" else step: value}
    return value


def write_fields(host: Host, plants: Plants) -> None:
    """Write a document for each field of each kind, with a secret in the field."""
    schema = host.json("schema")
    for rule in schema["allOf"]:
        kind = rule["if"]["properties"]["kind"]["const"]
        for path in sorted({*fields(rule["then"], schema["$defs"])}):
            number = len(plants)
            document: dict[str, Any] = {
                "apiVersion": "trimtab/v1",
                "kind": kind,
                "metadata": {"name": f"field-{number}", "owner": "team", "namespace": "fields"},
                "spec": SPECS.get(kind, {}),
            }
            planted = value_with(path, plants[".".join((kind, *path))])
            for section, value in planted.items():
                both = isinstance(document.get(section), dict) and isinstance(value, dict)
                document[section] = {**document[section], **value} if both else value
            host.write(f"fields/{number}.yaml", json.dumps(document))


def act(host: Host, plants: Plants) -> None:
    """Do what operators and clients do, with secrets in every text."""
    docker = host.docker_through_broker
    image = "trimtab.local/web:1"
    docker(
        "run",
        "-d",
        "--name",
        plants["name"],
        "-e",
        f"A={plants['run-env']}",
        "--label",
        f"x={plants['run-label']}",
        "--hostname",
        "h",
        image,
        "sleep",
        plants["run-argument"],
        check=False,
    )
    docker("volume", "create", plants["volume"], check=False)
    docker("network", "create", plants["network"], check=False)
    docker("run", "--rm", "-v", f"/etc/{plants['run-bind']}:/a", image, check=False)
    docker("run", "--rm", "--privileged", "-e", f"A={plants['refused-env']}", image, check=False)
    docker("pull", f"ghcr.io/{plants['pull'].lower()}/x:1", check=False)
    (one,) = host.running_ids("web")
    host.cli("exec", "web", "--", "true", plants["exec-argument"], expect=(0, 1, 4, 127))
    docker("exec", "-e", f"A={plants['exec-env']}", one, "true", plants["docker-exec"], check=False)
    docker("rename", one, plants["rename"], check=False)
    docker("stop", plants["unknown-container"], check=False)
    folder = host.folder / "build"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {image}\nARG T\nLABEL x={plants['dockerfile']}\n")
    (folder / plants["context"]).write_text(plants["context-content"])
    docker(
        "build",
        "--build-arg",
        f"T={plants['build-argument']}",
        "-t",
        f"trimtab.local/{plants['built'].lower()}",
        str(folder),
        check=False,
    )
    host.cli("suspend", "web", "--note", plants["note"])
    host.cli("resume", "web", "--note", plants["second-note"])
    host.cli(
        "policy",
        "explain",
        "--",
        "docker",
        "run",
        "-e",
        f"A={plants['explain']}",
        image,
        expect=(0, 4),
    )
    host.cli("logs", "web", "--grep", plants["grep"], expect=(0, 1, 64))


def registry_file(path: Path, plants: Plants) -> None:
    auth = base64.b64encode(f"bot:{plants['registry']}".encode()).decode()
    path.write_text(
        json.dumps({"auths": {"ghcr.io": {"auth": auth, "x": plants["registry-comment"]}}})
    )
    path.chmod(0o600)


def break_files(host: Host, registry: Path, plants: Plants) -> None:
    """Break the files of root's while they are in force: the broker's log tells."""
    policy = Path(host.policy)
    whole = policy.read_text()
    for broken in (
        f"name: [{plants['policy-syntax']}",
        f"{whole}\nresources: {{memory: {{default: {plants['policy-value']}}}}}\n",
    ):
        policy.write_text(broken)
        host.cli("policy", "reload", expect=(1, 3, 4))
    policy.write_text(whole)
    registry.write_text(f'{{"auths": {plants["registry-syntax"]}')
    host.docker_through_broker("pull", "ghcr.io/a/b:2", check=False)


def has_more(host: Host, before: int) -> bool:
    """Return True if the log or the journal grew."""
    return host.log.stat().st_size + len(host.records()) > before


def break_settings(
    host: Host, broker: subprocess.Popen[bytes], plants: Plants, paths: Plants
) -> None:
    """Write a secret into each field of the settings, and ask for a reload each time: the broker's log tells."""
    file = host.state / "trimtab.yaml"
    whole = file.read_text() if file.exists() else ""
    schema = host.json("schema", "settings")
    texts = [f"quarantine: [{plants['settings-syntax']}", f"# {plants['settings-comment']}\nx: 1\n"]
    for path in sorted({*fields(schema, schema.get("$defs", {}))}):
        place = ".".join(("settings", *path))
        # The log names the path of a file that can't be used.
        values = (
            plants[place],
            f"siem=https://bot:{plants[place]}@127.0.0.1/x",
            f"/{paths[place]}",
        )
        texts += [json.dumps(value_with(path, value)) for value in values]
    for text in texts:
        file.write_text(text)
        answered = partial(has_more, host, host.log.stat().st_size + len(host.records()))
        broker.send_signal(signal.SIGHUP)
        eventually(answered, what=f"the answer to {text}")
    file.write_text(whole)


def test_no_planted_secret_is_in_a_bundle_nor_in_the_log(host: Host, namespace: Namespace) -> None:
    plants, paths = Plants(), Plants()
    text = Path(host.policy).read_text()
    policy = host.folder / "policy.yaml"
    policy.write_text(f"# {plants['policy-comment']}\n{text}")
    host.policy = str(policy)
    registry = host.folder / "registry.json"
    registry_file(registry, plants)
    write_documents(host, plants, namespace)
    write_fields(host, plants)
    bundle = host.folder / "bundle.json"
    user = pwd.getpwnam(USER)
    gate = [
        *("broker", str(host.directory), "--policy", host.policy, "--state", str(host.state)),
        *("--controller-uid", str(user.pw_uid), "--registry-auth", str(registry)),
    ]
    loop = ("run", str(host.directory), "--broker", str(host.broker_socket))
    with started(host, *gate) as broker:
        eventually(host.broker_socket.exists, what="the broker serves")
        with started(host, *loop, uid=user.pw_uid, gid=user.pw_gid):
            eventually(lambda: host.is_ready("web"), what="web is ready")
            act(host, plants)
            eventually(lambda: host.resource("fails").get("conditions"), what="it failed")
            break_files(host, registry, plants)
            break_settings(host, broker, plants, paths)
            host.cli("support-bundle", str(bundle))
            assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
            printed = host.cli("support-bundle", "-").stdout
    found: dict[str, Any] = json.loads(bundle.read_text())
    assert len(plants) >= 50
    log = host.log.read_text(errors="replace")
    told = bundle.read_text() + printed
    assert plants.found_in(told) + paths.found_in(told) == []
    assert plants.found_in(log) == []
    # They say something all the same.
    assert "policy" in log
    assert {"name": "fails"}.items() <= next(
        r for r in found["resources"] if r["name"] == "fails"
    ).items()
    assert found["records"]["kinds"]["outcome.container.create"] > 1
    assert found["records"]["rules"]["mount.not-allowed"] > 0
    assert {each["role"] for each in found["processes"]} == {"broker", "controller"}
    assert found["unavailable"] == {"verified": "unreadable"}  # nothing was verified yet


def visit(page: Visitor, plants: Plants) -> None:
    """Ask the page with a secret in each part of a request."""
    headers = {
        "Authorization": f"Bearer {plants['page-bearer']}",
        "User-Agent": plants["page-agent"],
        "Referer": f"http://{page.host}/{plants['page-referer']}",
        f"X-{plants['page-header']}": "x",
    }
    for path in (
        "/",
        f"/{plants['page-path']}",
        f"/login?token={plants['page-query']}",
        f"/Service/default/{plants['page-name']}",
        f"/journal?owner={plants['page-owner']}&before={plants['page-cursor']}",
    ):
        page.ask(path, **headers)
    page.ask("/login", "POST", Cookie=f"session={plants['page-cookie']}")
    page.ask("/", Host=plants["page-host"])
    name, _, port = page.host.rpartition(":")
    with closing(socket.create_connection((name, int(port)))) as client:
        client.sendall(f"{plants['page-method']} {plants['page-syntax']}\r\n\r\n".encode())
        client.recv(65536)


@contextmanager
def shipping(host: Host, plants: Plants, *targets: str) -> Iterator[None]:
    """Ship to *targets* during the block, with secrets in the exporter's variables."""
    argv = [TRIMTAB, "ship", "--state", str(host.state), *(f"--to={each}" for each in targets)]
    env = host.environment() | {
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={plants['ship-header']}",
        "OTEL_RESOURCE_ATTRIBUTES": f"team={plants['ship-attribute']}",
    }
    with (
        host.log.open("ab") as log,
        subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as ship,
    ):
        try:
            yield
        finally:
            ship.terminate()


def are_failing(host: Host, number: int) -> bool:
    """Return True if so many destinations have an error."""
    if not (host.state / "ship" / "status.json").exists():
        return False
    return [bool(sink["error"]) for sink in positions(host)] == [True] * number


def test_no_planted_secret_is_in_the_log_of_the_shipper_nor_of_the_page(
    host: Host, collector: Collector
) -> None:
    plants = Plants()
    host.write("web.yaml", web())
    targets = (
        f"wrong=otlp+{collector.url}/{plants['ship-path']}",
        f"away=otlp+http://127.0.0.1:1/v1/logs/{plants['ship-away']}",
    )
    refused = (
        f"a=otlp+https://bot:{plants['ship-password']}@127.0.0.1/x",
        f"a=ftp://127.0.0.1/{plants['ship-scheme']}",
        f"a=otlp+http://127.0.0.1/v1/logs?{plants['ship-option']}=1",
        f"a=syslog+tcp://{plants['ship-user']}@127.0.0.1:601",
    )
    with host.running(), page_of(host) as (_, page), shipping(host, plants, *targets):
        page.enter()
        visit(page, plants)
        eventually(lambda: are_failing(host, len(targets)), what="both destinations have failed")
        told = [
            *(host.cli("ship", "--to", each, expect=64).stderr for each in refused),
            *(host.cli(*words).stdout for words in (("support-bundle", "-"), ("status", "--json"))),
            host.cli("ship", "--status").stdout,
        ]
    states = [each for each in (host.state / "ship").rglob("*") if each.is_file()]
    for text in (*told, *(each.read_text(errors="replace") for each in (*states, host.log))):
        assert plants.found_in(text) == []
        assert page.link.rpartition("/")[2] not in text
