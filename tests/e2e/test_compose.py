"""A Compose file as it is, in the directory: it runs, a change is rolled out, its removal prunes."""

from __future__ import annotations

from pathlib import Path

from tests.instance import Host, eventually

SHOP = """\
services:
  web:
    image: trimtab.local/web:1
    ports: ["${WEB_PORT}:8080"]
    environment:
      GREETING: ${GREETING:-hello}
    volumes:
      - ./site.conf:/etc/site.conf:ro
    healthcheck:
      test: ["CMD", "/bin/sh", "-c", "true"]
      interval: 1s
    depends_on:
      the_store: {condition: service_started}
      seed: {condition: service_completed_successfully}
    post_start:
      - command: ["/bin/sh", "-c", "echo $$LEVEL > /tmp/started"]
        environment: {LEVEL: warm}
    pre_stop: [{command: ["/bin/sh", "-c", "exit 3"]}]
    pre_start:
      - command: ["/bin/sh", "-c", "cat /etc/site.conf; echo $$GREETING $$LEVEL"]
        environment: {LEVEL: first}
    volumes_from: ["the_store:ro"]
    configs: [greeting]
    extra_hosts: ["two=192.0.2.1", "two=192.0.2.2"]
  the_store:
    image: trimtab.local/web:1
    container_name: shop_store
    env_file: [store.env, {path: raw.env, format: raw}]
    volumes: [store_data:/data]
    networks: {default: , back: {}}
  seed:
    image: trimtab.local/web:1
    entrypoint: ["/bin/sh", "-c", "echo seeded"]
    volumes: [seeds:/data]
volumes: {store_data: , seeds: }
networks: {back: {internal: true}}
configs: {greeting: {environment: GREETING}}
x-trimtab: {owner: team}
"""
PORT = 18181


def env_of(host: Host, service: str, name: str) -> str:
    """Return a variable of the only running container of a service; '' while there is none."""
    found = [each for each in host.containers(service) if each["State"]["Running"]]
    if len(found) != 1:
        return ""
    values = dict(entry.partition("=")[::2] for entry in found[0]["Config"]["Env"])
    return str(values.get(name, ""))


def put(host: Host, variables: str) -> None:
    (host.directory / "shop").mkdir(exist_ok=True)
    (host.directory / "shop" / "site.conf").write_text("one\n")
    (host.directory / "shop" / ".env").write_text(variables)
    (host.directory / "shop" / "store.env").write_text("KEPT=always\n")
    (host.directory / "shop" / "raw.env").write_text("RAW='$KEPT' # as it is\n")
    host.write("shop/compose.yaml", SHOP)


def allow_aliases(host: Host) -> None:
    """Take a policy that lets services have further names, and entries of /etc/hosts."""
    aliases = "networks:\n  serviceAliases: true\n  extraHosts: [addresses]\n"
    text = Path(host.policy).read_text().replace("networks:\n", aliases, 1)
    host.policy = str(host.folder / "policy.yaml")
    Path(host.policy).write_text(text)


def check_what_is_taken(host: Host, web: str) -> None:
    """Check a raw env file, what another service mounts, a variable as a file, and two addresses."""
    assert env_of(host, "the-store", "RAW") == "'$KEPT' # as it is"
    (inspect,) = host.containers("web")
    taken = [(m["Name"], m["RW"]) for m in inspect["Mounts"] if m["Destination"] == "/data"]
    assert taken == [("shop.store-data", False)]
    told = host.engine.docker("exec", web, "cat", "/greeting", "/etc/hosts").stdout
    assert told.startswith("hello")
    assert {"192.0.2.1\ttwo", "192.0.2.2\ttwo"} <= {*told.splitlines()}


def test_an_unchanged_compose_file_runs_rolls_out_and_is_pruned(host: Host) -> None:
    put(host, f"WEB_PORT={PORT}\nGREETING=hello\n")
    allow_aliases(host)
    with host.running():
        host.await_ready("web", "the-store", "seed", within_s=60)
        (inspect,) = host.containers("web")
        bindings = inspect["HostConfig"]["PortBindings"]
        assert bindings == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]}
        planned = host.json("plan")
        assert planned["actions"] == []
        codes = {problem["code"] for problem in planned["problems"]}
        assert codes == {"compose.loopback", "compose.by-policy"}
        (web,) = host.running_ids("web")
        shown = host.engine.docker("exec", web, "cat", "/etc/site.conf").stdout
        assert (shown, env_of(host, "web", "GREETING")) == ("one\n", "hello")
        assert env_of(host, "the-store", "KEPT") == "always"
        check_what_is_taken(host, web)
        asked = ("exec", web, "wget", "-q", "-O", "/dev/null", "http://shop_store:8080/")
        assert host.engine.docker(*asked, check=False).returncode == 0, "container_name resolves"
        assert "shop/compose.yaml:2" in host.cli("describe", "web").stdout
        blamed = host.cli("journal", "blame", "web").stdout
        lines = {"image": 3, "env": 5, "healthcheck": 9}
        for field, line in lines.items() if host.names_lines else ():
            assert any(
                told.startswith(field) and told.endswith(f"shop/compose.yaml:{line}")
                for told in blamed.splitlines()
            ), (field, line, blamed)
        assert host.engine.docker("exec", web, "cat", "/tmp/started").stdout == "warm\n"
        # The step ran once, before the container, with the files and variables of the service.
        (step,) = host.containers("web-pre-start-1")
        assert host.engine.docker("logs", step["Id"]).stdout == "one\nhello first\n"
        assert step["State"]["FinishedAt"][:19] <= inspect["State"]["StartedAt"][:19]
        # A changed variable of .env is a rollout.
        put(host, f"WEB_PORT={PORT}\nGREETING=bye\n")
        eventually(lambda: env_of(host, "web", "GREETING") == "bye", within_s=40)
        assert len(host.containers("web-pre-start-1")) == 2
        # A changed file of the project reaches the container.
        before = host.running_ids("web")
        (host.directory / "shop" / "site.conf").write_text("two\n")
        eventually(lambda: host.running_ids("web") not in ([], before), within_s=40)
        host.await_ready("web")
        (web,) = host.running_ids("web")
        assert host.engine.docker("exec", web, "cat", "/etc/site.conf").stdout == "two\n"
        # A file that can't be read prunes nothing.
        kept = host.running_ids("web")
        host.write("shop/compose.yaml", "services: [\n")
        eventually(lambda: bool((host.status() or {"problems": []})["problems"]))
        assert host.running_ids("web") == kept
        host.write(
            "other.yaml",
            "apiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: kept, owner: team}\n",
        )
        host.remove("shop/compose.yaml")
        eventually(lambda: "PrunePending" in str(host.status()), within_s=30)
        host.cli("apply", "--approve-prune", expect=(0, 2))
        eventually(lambda: host.containers("web") == [], within_s=40, what="the removal")
        ended = host.cli("journal", "list", "--action", "hook.end", "--json").stdout
        assert '"outcome":"succeeded"' in ended.replace(" ", "")
        assert "preStop hook 1 (/bin/sh) exited with 3" in ended
        volumes = host.engine.docker("volume", "ls", "-q").stdout.split()
        assert {"shop.store-data", "shop.seeds"} <= set(volumes)
