"""Images like the official ones under the policy ``home``, by the documents of docs/images.md."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.instance import POLICIES, Host, eventually
from tests.pages import blocks, rows
from tools import debian_images, demo_images, image_archive
from tools.busybox import find_static_busybox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(900)]

PAGE = blocks("images.md")
ROWS = rows("images.md")
STACK = "A whole stack"
SHOP = "ghcr.io/example/shop:1"
#: Databases are made at a first start, several at once on a busy machine.
FIRST_START_S = 180.0
RECIPES = {recipe().reference: name for name, recipe in debian_images.RECIPES.items()}
ANONYMOUS = re.compile(r"[0-9a-f]{64}")

_SQL = ("psql", "-U", "postgres", "-tAc")
_MARIADB = ("mariadb", "-h127.0.0.1", "-uroot", "-pchange-me", "-e")
#: How to leave something in a service's data, and how to ask for it: commands in the container.
DATA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "postgres": ((*_SQL, "CREATE TABLE kept ()"), (*_SQL, "SELECT 'kept' FROM pg_class")),
    "redis": (("redis-cli", "SET", "a", "kept"), ("redis-cli", "GET", "a")),
    "mariadb": ((*_MARIADB, "CREATE DATABASE kept"), (*_MARIADB, "SHOW DATABASES")),
    "rabbitmq": (("rabbitmqctl", "add_vhost", "kept"), ("rabbitmqctl", "list_vhosts")),
    "prometheus": (("touch", "/prometheus/kept"), ("ls", "/prometheus")),
}
#: Where they listen once they answer.
PORTS = {"postgres": 5432, "redis": 6379, "mariadb": 3306, "rabbitmq": 5672}
#: A container's root may not read these users' files without more capabilities.
USERS = {"rabbitmq": ("--user", "rabbitmq")}


def load(host: Host, text: str) -> None:
    """Load the images that documents name, and start ``up`` with them trusted."""
    references = {document["spec"]["image"] for document in yaml.safe_load_all(text)}
    for reference in references:
        if reference == SHOP:
            busybox = find_static_busybox()
            assert busybox is not None, "the demo images were built with it"
            web = replace(demo_images.web("1"), reference=reference)
            archive = demo_images.archive(web, busybox.read_bytes())
            image_archive.load(host.engine.host, archive)
        else:
            debian_images.provide(host.engine.host, RECIPES[reference])
    host.policy = str(POLICIES / "home.yaml")
    host.up()
    eventually(host.broker_socket.exists, what="the broker's socket")
    for reference in references:
        host.cli("image", "trust", reference)


def inspects(host: Host) -> dict[str, dict[str, Any]]:
    """Return the running container of each service, by NAMESPACE/NAME."""
    return {
        f"{labels['io.trimtab.namespace']}/{labels['io.trimtab.service']}": inspect
        for inspect in host.containers()
        if (labels := inspect["Config"]["Labels"]) and inspect["State"]["Running"]
    }


def run_in(host: Host, key: str, command: tuple[str, ...], *, check: bool = True) -> str:
    user = USERS.get(key.partition("/")[2], ())
    identifier = inspects(host)[key]["Id"]
    return host.engine.docker("exec", *user, identifier, *command, check=check).stdout


def await_data(host: Host, keys: Iterable[str]) -> None:
    """Wait until each of these services answers with what was left in its data.

    One after the other, and only once it listens: RabbitMQ's command costs a second of processor time at
    each look.
    """

    def is_there(key: str) -> bool:
        return listens(host, key) and "kept" in run_in(
            host, key, DATA[key.partition("/")[2]][1], check=False
        )

    for key in keys:
        eventually(partial(is_there, key), within_s=FIRST_START_S, what=f"the data of {key}")


def listens(host: Host, key: str) -> bool:
    """Return True if a service listens on its port, by the tables of its network (proc(5))."""
    port, pid = PORTS.get(key.partition("/")[2]), inspects(host)[key]["State"]["Pid"]
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    listening = [line.split()[1] for text in tables for line in text.splitlines() if " 0A " in line]
    return port is None or any(each.endswith(f":{port:04X}") for each in listening)


def endings(host: Host, since: str) -> dict[str, list[str]]:
    """Return the exit codes of what ended since, by the name of the container."""
    form = "{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}"
    span = (f"--since={since}", "--until=0s")
    out = host.engine.docker("events", *span, "--filter=event=die", f"--format={form}").stdout
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        name, _, code = line.partition(" ")
        found.setdefault(name, []).append(code)
    return found


def anonymous_volumes(host: Host) -> list[str]:
    names = host.engine.docker("volume", "ls", "--quiet").stdout.split()
    return [name for name in names if ANONYMOUS.fullmatch(name)]


def violations(host: Host) -> list[dict[str, Any]]:
    return host.records("violation")


def changed(text: str, messages: Mapping[str, str]) -> str:
    """Return the documents with a MESSAGE by service, and with rollouts that don't dwell."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        if message := messages.get(document["metadata"]["name"]):
            document["spec"].setdefault("env", {})["MESSAGE"] = message
        document["spec"]["rollout"] = {"minHealthy": "1s"}
    return yaml.safe_dump_all(documents)


def hardened(text: str) -> str:
    """Return documents with a read-only root, and a tmpfs where the page's table says."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        spec = document["spec"]
        if "namespace" in document["metadata"]:
            continue  # without root: hardened by itself, or another image
        spec.setdefault("security", {})["readOnlyRootFilesystem"] = True
        *_, writable, _ = ROWS[document["metadata"]["name"]]
        tmpfs = [{"type": "tmpfs", "target": path, "size": "64Mi"} for path in writable]
        spec["mounts"] = [*spec.get("mounts", ()), *tmpfs]
    return yaml.safe_dump_all(documents)


def served(host: Host, text: str) -> bool:
    """Return True if the proxy hands out a page with this text; it may meet a replica that went."""
    try:
        return text in host.engine.http_get(8080, path="/cgi-bin/info").text
    except (OSError, HTTPException):
        return False


def test_every_document_starts_restarts_and_keeps_its_data(host: Host) -> None:
    """Also without root; whatever is stopped ends by itself, within its grace."""
    config = host.folder / "conf.d"
    config.mkdir()
    (config / "default.conf").write_text("server { listen 80; return 200 'it works'; }\n")
    texts = {
        heading: text.replace("/srv/nginx/conf.d", str(config))
        for heading, text in PAGE.items()
        if heading != STACK
    }
    load(host, "---\n".join(texts.values()))
    for number, text in enumerate(texts.values()):
        host.write(f"{number}.yaml", text)
    host.await_ready(within_s=FIRST_START_S)
    services = inspects(host)
    assert services.keys() == {
        *(f"default/{name}" for name in (*DATA, "nginx")),
        *(f"no-root/{name}" for name in ("postgres", "redis", "nginx")),
    }
    kept = [key for key in services if key.partition("/")[2] in DATA]
    for key in kept:
        run_in(host, key, DATA[key.partition("/")[2]][0])
    assert host.engine.http_get(8080).text == "it works"

    def restart(inspect: dict[str, Any]) -> None:
        host.docker_through_broker("restart", "--time", "30", inspect["Id"])

    with ThreadPoolExecutor(len(services)) as pool:
        list(pool.map(restart, services.values()))
    eventually(host.all_ready, within_s=FIRST_START_S, what="everything Ready again")
    await_data(host, kept)

    before = {inspect["Id"] for inspect in services.values()}
    for number, text in enumerate(texts.values()):
        messages = dict.fromkeys((*DATA, "nginx"), "2")
        host.write(f"{number}.yaml", hardened(changed(text, messages)))

    def replaced() -> bool:
        now = inspects(host)
        return now.keys() == services.keys() and not before & {each["Id"] for each in now.values()}

    eventually(replaced, within_s=FIRST_START_S, what="new containers")
    eventually(host.all_ready, within_s=FIRST_START_S, what="everything Ready on its old data")
    await_data(host, kept)
    ended = endings(host, min(inspect["Created"] for inspect in services.values()))
    assert ended.keys() == {inspect["Name"].strip("/") for inspect in services.values()}
    assert {code for codes in ended.values() for code in codes} <= {"0", "143"}, ended
    assert violations(host) == []
    assert anonymous_volumes(host) == []


def test_a_stack_by_the_docs_is_ready_at_the_first_try_and_leaves_nothing_behind(
    host: Host,
) -> None:
    """After a rollout too, and it heals."""
    config = host.folder / "nginx"
    config.mkdir()
    (config / "shop.conf").write_text(blocks("images.md", "nginx")[STACK])
    text = PAGE[STACK].replace("/srv/shop/nginx", str(config))
    load(host, text)
    host.write("shop.yaml", text)
    host.await_ready(within_s=FIRST_START_S)
    started = [r for r in host.records("intent") if "start" in r["request"]["route"]]
    assert len(started) == 6, "each started once, at the first try"
    assert served(host, "message 1")
    assert violations(host) == []

    # The cache's image declares a volume that nothing is mounted at: a rollout could leave one.
    host.write("shop.yaml", changed(text, {"cache": "2", "web": "2"}))

    def done() -> bool:
        cache = inspects(host).get("shop/cache")
        return (
            cache is not None
            and "MESSAGE=2" in cache["Config"]["Env"]
            and served(host, "message 2")
            and host.all_ready()
        )

    eventually(done, within_s=FIRST_START_S, what="the rollout")
    assert anonymous_volumes(host) == []

    host.engine.docker("rm", "--force", host.running_ids("web")[0])
    eventually(lambda: len(host.running_ids("web")) == 2, what="the removed replica")
    eventually(host.all_ready, what="everything Ready again")
    assert violations(host) == []
