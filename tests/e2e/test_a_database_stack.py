"""A database with a Secret, a proxy with a Config, a migration and a nightly dump, through a reboot."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from controller.broker.secrets.opener import secret_folder
from tests.engine import PrivateEngine
from tests.instance import POLICIES, Host, eventually, has
from tools import debian_images

STACK = """\
apiVersion: trimtab/v1
kind: Secret
metadata: {name: db, owner: team}
spec: {generate: {password: {length: 32}}}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: data, owner: team}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: db, owner: team}
spec:
  image: <DATABASE>
  env: {POSTGRES_PASSWORD_FILE: /run/secrets/password}
  mounts:
    - {type: secret, source: db, key: password, target: /run/secrets/password}
    - {type: volume, source: data, target: /var/lib/postgresql/data}
  security: {capAdd: [CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]}
  healthcheck: {exec: [pg_isready, -h, 127.0.0.1, -U, postgres], interval: 1s}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: migrate, owner: team}
spec:
  image: <DATABASE>
  trigger: Rollout
  backoffLimit: 0
  user: "999:999"
  env: {PGPASSWORD: {secret: db, key: password}}
  entrypoint: [psql, -h, db, -U, postgres, -v, ON_ERROR_STOP=1, -c, "<SQL>"]
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: app, owner: team}
spec:
  image: trimtab.local/web:1
  env: {MESSAGE: "<VERSION>"}
  dependsOn: [{name: db, condition: Healthy}]
  rollout: {minHealthy: 0s, before: [migrate]}
---
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, owner: team}
spec:
  data:
    default.conf: |
      server { listen 80; location / { return 200 "<PAGE>"; } }
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: proxy, owner: team}
spec:
  image: <PROXY>
  ports: [{container: 80, host: 18600, hostIP: 127.0.0.1}]
  mounts: [{type: config, source: site, target: /etc/nginx/conf.d, onChange: {signal: SIGHUP}}]
  security: {capAdd: [CHOWN, DAC_OVERRIDE, NET_BIND_SERVICE, SETGID, SETUID]}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: dump, owner: team}
spec:
  image: <DATABASE>
  schedule: "* * * * *"
  timeZone: Asia/Kathmandu
  user: "999:999"
  env: {PGPASSWORD: {secret: db, key: password}}
  entrypoint: [/bin/sh, -c, "pg_dump -h db -U postgres >/dev/null && echo dumped"]
  dependsOn: [{name: db, condition: Healthy}]
"""
CREATE = "CREATE TABLE runs (at timestamptz); INSERT INTO runs VALUES (now())"
INSERT = "INSERT INTO runs VALUES (now())"
PORT = 18600


class Stack:
    """The documents of the stack, as somebody edits them."""

    def __init__(self, host: Host, images: dict[str, str]) -> None:
        self.host, self.images = host, images
        self.values = {"SQL": CREATE, "VERSION": "one", "PAGE": "first"}

    def write(self, **changed: str) -> None:
        """Write the documents with changed values."""
        self.values |= changed
        text = STACK
        for name, value in {**self.images, **self.values}.items():
            text = text.replace(f"<{name}>", value)
        self.host.write("stack.yaml", text)

    def outcomes(self, job: str) -> list[str]:
        return [run.get("outcome", "") for run in self.host.resource(job).get("runs", [])]

    def migrations(self) -> str:
        """Return how often a migration has written to the database; '' while the database starts."""
        count = ("psql", "-U", "postgres", "-tAc", "SELECT count(*) FROM runs")
        try:
            return self.run("db", *count).strip()
        except AssertionError:
            return ""

    def run(self, service: str, *command: str) -> str:
        (one,) = self.host.running_ids(service)
        return self.host.engine.docker("exec", one, *command).stdout

    def page(self) -> str:
        try:
            return self.host.engine.http_get(PORT).text
        except OSError:
            return ""


def ids(host: Host) -> dict[str, Any]:
    return {name: host.running_ids(name) for name in ("db", "app", "proxy")}


@pytest.mark.owns_engine
@pytest.mark.timeout(400)
def test_a_stack_with_a_database_lives_through_changes_and_a_reboot(host: Host) -> None:
    engine = host.engine
    assert isinstance(engine, PrivateEngine), "it owns its engine"
    images = {
        "DATABASE": debian_images.provide(engine.host, "postgres"),
        "PROXY": debian_images.provide(engine.host, "nginx"),
    }
    host.policy = str(POLICIES / "home.yaml")
    host.up()
    eventually(host.broker_socket.exists, what="the broker's socket")
    for image in (*images.values(), "trimtab.local/web:1"):
        host.cli("image", "trust", image)
    stack = Stack(host, images)
    stack.write()
    eventually(lambda: all(ids(host).values()), within_s=120, what="the stack")
    eventually(lambda: host.is_ready("app"), within_s=60)
    assert stack.outcomes("migrate") == ["succeeded"]
    assert stack.migrations() == "1"
    assert stack.page() == "first"
    first = ids(host)
    password = stack.run("db", "cat", "/run/secrets/password")

    # A changed Config reaches the proxy by a signal, without a restart.
    stack.write(PAGE="second")
    eventually(lambda: stack.page() == "second", within_s=60)
    assert ids(host) == first

    # A migration that fails stops nothing; a corrected one runs once.
    stack.write(SQL="SELECT 1/0", VERSION="two")
    eventually(lambda: has(host.resource("app"), "RolledBack"), within_s=60)
    assert ids(host) == first
    stack.write(SQL=INSERT, VERSION="three")
    eventually(lambda: host.running_ids("app") not in ([], first["app"]), within_s=60)
    eventually(lambda: host.is_ready("app"), within_s=60)
    assert stack.outcomes("migrate") == ["succeeded", "failed", "succeeded"]
    assert stack.migrations() == "2"
    eventually(lambda: "succeeded" in stack.outcomes("dump"), within_s=90, what="a dump by cron")

    # A reboot: the engine stops, and the memory with the delivered files is empty.
    before = ids(host)
    assert host.stop() == 0
    memory = secret_folder(host.instance)
    assert memory is not None
    engine.stop()
    shutil.rmtree(memory)
    host.cli("files", "restore")
    engine.start()
    host.up()
    eventually(lambda: ids(host) == before, within_s=90, what="the same containers run again")
    eventually(lambda: all(host.is_ready(name) for name in before), within_s=90)
    assert stack.run("db", "cat", "/run/secrets/password") == password
    # The status can be of the time before the reboot.
    eventually(lambda: stack.migrations() == "2", within_s=60, what="the database")
    eventually(lambda: stack.page() == "second", within_s=60, what="the page")
    assert stack.outcomes("migrate") == ["succeeded", "failed", "succeeded"]
