"""What ordinary clients do at the broker's socket, and what becomes of it: one row, one command.

The same rows are run (``test_clients``), printed by ``make compat``, and are the page
``docs/compatibility.md``. Words in braces stand for objects that the world makes for the row:
``{running}``, ``{stopped}`` and ``{paused}`` are containers of its own, ``{shown}`` one that all
rows look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path


class How(Enum):
    """How a command is run."""

    ENDS = "it ends by itself"
    STREAMS = "it goes on until what was expected is seen, and is then interrupted"
    TERMINAL = "it has a terminal"


@dataclass(frozen=True, slots=True)
class Row:
    """One command of a client. ``refused`` is the rule, '' for what works.

    ``see`` is looked for in what it says, with its standard error; for a refusal that is the
    client's own words where the rule doesn't reach the person. ``instead`` must be there too.
    ``then`` is run after it, and must say ``after``.
    """

    client: str
    command: str
    see: str = ""
    refused: str = ""
    instead: str = ""
    role: str = "client"
    how: How = How.ENDS
    stdin: str = ""
    then: str = ""
    after: str = ""
    exits: int = 0

    @property
    def name(self) -> str:
        """A short name, for test ids."""
        return f"{self.client} {self.role} {re.sub(r'[^A-Za-z0-9_.-]+', '-', self.command)[:60]}"


RUN = "docker run --rm"
CLI = "docker CLI"


def _works(client: str, *rows: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(Row(client, command, see) for command, see in rows)


def _refused(
    client: str, *rows: tuple[str, str, str], role: str = "client", exits: int = 1
) -> tuple[Row, ...]:
    return tuple(
        Row(client, command, refused=rule, instead=instead, role=role, exits=exits)
        for command, rule, instead in rows
    )


ENGINE = (
    *_works(
        CLI,
        ("docker version", r"API version: +1\.45"),
        ("docker info --format 'c{{{{.ContainersRunning}}}} i{{{{.Images}}}}'", "^c[0-9]+ i[1-9]"),
        ("env DOCKER_API_VERSION=1.44 docker ps", "CONTAINER ID"),
    ),
    Row(
        CLI,
        "env DOCKER_API_VERSION=1.43 docker ps",
        "client version 1.43 is too old. Minimum supported API version is 1.44",
        refused="api.version",
        exits=1,
    ),
    Row(
        CLI,
        "env DOCKER_API_VERSION=1.51 docker ps",
        "client version 1.51 is too new. Maximum supported API version is 1.45",
        refused="api.version",
        exits=1,
    ),
    Row(CLI, "docker system df", "Local Volumes", role="operator"),
    *_refused(CLI, ("docker system df", "role.denied", "it is for operator")),
)
RUNNING = (
    *_works(
        CLI,
        ("docker run -d --label made=by-run {image}", r"^[0-9a-f]{64}$"),
        (RUN + " {image} echo hello", "^hello$"),
        (
            RUN + " --init --read-only --tmpfs /tmp:size=1m --cap-drop ALL --cap-add CHOWN"
            " --security-opt no-new-privileges --memory 64m --cpus 0.5 --pids-limit 20"
            " --ulimit nofile=100:100 --log-opt max-size=1m --env A=b --user 65534 --hostname h"
            " --stop-timeout 2 --stop-signal TERM --shm-size 8m {image} hostname",
            "^h$",
        ),
        (RUN + " --network none {image} echo hello", "^hello$"),
        (
            RUN + " --network {network} --label io.trimtab.service=db --network-alias db"
            " {image} echo hello",
            "^hello$",
        ),
        (RUN + " --volume {volume}:/data {image} ls -d /data", "^/data$"),
        (RUN + " --volume /data {image} ls -d /data", "^/data$"),
        (RUN + " --mount type=volume,dst=/data {image} ls -d /data", "^/data$"),
        (RUN + " --env NOSUCH {image} echo hello", "^hello$"),
        (RUN + " --mount type=volume,src={volume},dst=/data,readonly {image} ls -d /data", "/data"),
        (RUN + " --pull always {remote} echo hello", r"Digest: sha256:[0-9a-f]{64}[^$]*hello"),
        ("docker create {image}", r"^[0-9a-f]{64}$"),
    ),
    Row(CLI, RUN + " {image} sh -c 'exit 7'", exits=7),
    Row(CLI, RUN + " --interactive {image} cat", "^to the end$", stdin="to the end\n"),
    Row(CLI, RUN + " -it {image} sh -c 'test -t 0 && echo terminal'", "terminal", how=How.TERMINAL),
    Row(
        CLI,
        "docker run -d -p 8080:8080 --name {free} {served}",
        then="docker port {free}",
        after=r"8080/tcp -> 127\.0\.0\.1:8080",
    ),
    *_refused(
        CLI,
        (RUN + " --privileged {image} ls", "privileged", "ask for the capability that is needed"),
        (RUN + " -v /var/run/docker.sock:/s {image} ls", "mount.never", "remove the mount"),
        (RUN + " -v /etc:/host {image} ls", "mount.forbidden", "use a volume, or another folder"),
        (RUN + " -v nosuch:/data {image} ls", "volume.missing", "create it first"),
        (RUN + " --volumes-from {shown} {image} ls", "mount.volumes-from", "name each volume"),
        (RUN + " --network host {image} ls", "network.mode", "use none or bridge or isolated"),
        (RUN + " --network container:{shown} {image} ls", "network.mode", "use none"),
        (
            RUN + " --network {network} --network-alias db {image} ls",
            "network.alias",
            "use its name",
        ),
        (RUN + " --pid host {image} ls", "namespace.pid", "leave out PidMode"),
        (RUN + " --ipc host {image} ls", "namespace.ipc", "leave it out, or private, none"),
        (RUN + " --userns host {image} ls", "namespace.user", "leave out UsernsMode"),
        (RUN + " --cap-add SYS_ADMIN {image} ls", "capabilities", "remove it"),
        (RUN + " --security-opt seccomp=unconfined {image} ls", "security-opt", "leave it out"),
        (RUN + " --device /dev/null {image} ls", "devices", "leave out Devices"),
        (RUN + " --gpus all {image} ls", "devices", "leave out DeviceRequests"),
        (RUN + " --sysctl net.ipv4.ip_forward=1 {image} ls", "sysctls", "leave out Sysctls"),
        (RUN + " --dns 192.0.2.1 {image} ls", "network.dns", "leave out Dns"),
        (
            RUN + " --add-host a:192.0.2.1 {image} ls",
            "network.hosts",
            "leave it out, or add addresses",
        ),
        (RUN + " --link {shown} {image} ls", "network.links", "leave out Links"),
        (RUN + " -p 0.0.0.0:8081:8080 {served} ls", "port.address", r"use 127\.0\.0\.1"),
        (RUN + " -P {served} ls", "port.publish-all", "publish each port"),
        (RUN + " --cidfile {home}/cid {image} ls", "body.client-only", "leave out"),
        (RUN + " --memory 64g {image} ls", "resources.memory", "choose a size in that range"),
        (RUN + " alpine ls", "image.not-allowed", "use an image under one of them"),
        exits=125,
    ),
)
LOOKING = (
    *_works(
        CLI,
        ("docker ps", r"trimtab\.local/worker:1"),
        ("docker ps --all --size --no-trunc --last 5", "CONTAINER ID"),
        ("docker ps --all --quiet --filter status=running --filter name={shown}", "^[0-9a-f]{12}$"),
        ("docker ps --filter ancestor={image} --format {{{{.Image}}}}", r"trimtab\.local/worker:1"),
        ("docker inspect {shown}", '"Image": "trimtab.local/worker:1"'),
        ("docker inspect --size --type container {shown}", '"SizeRootFs": [0-9]'),
        ("docker logs --timestamps --tail 2 {shown}", r"Z worker did piece"),
        ("docker stats --no-stream {shown}", "{shown}"),
        ("docker top {shown}", "/bin/work"),
        ("docker diff {written}", "^A /tmp/written$"),
        ("docker port {shown}", "^$"),
        ("docker events --since 10m --until 0s --filter container={shown}", "container start"),
    ),
    Row(CLI, "docker logs --follow {running}", "piece 2", how=How.STREAMS),
    Row(CLI, "docker attach --no-stdin {running}", "piece [23]", how=How.STREAMS),
    Row(CLI, "docker stats {shown}", "{shown}", how=How.STREAMS),
    Row(
        CLI,
        "docker events --since 10m --filter type=container",
        "container start",
        how=How.STREAMS,
    ),
    Row(CLI, "docker start --attach --interactive {reader}", "^got line$", stdin="line\n"),
    *_refused(
        CLI,
        ("docker top {shown} -o pid", "query.invalid", "correct it"),
        ("docker cp {shown}:/bin/work {home}/x", "route.denied", "mount a volume instead"),
        ("docker cp {home}/. {shown}:/tmp", "route.denied", "mount a volume instead"),
        ("docker export {shown}", "route.denied", "mount a volume instead"),
    ),
)
OPERATOR = "operator"
EXECS = (
    Row(CLI, "docker exec {shown} ls /bin/work", "^/bin/work$", role=OPERATOR),
    Row(CLI, "docker exec {shown} sh -c 'exit 3'", role=OPERATOR, exits=3),
    Row(CLI, "docker exec --env A=b {shown} sh -c 'echo $A'", "^b$", role=OPERATOR),
    Row(CLI, "docker exec -i {shown} cat", "^to the end$", role=OPERATOR, stdin="to the end\n"),
    Row(
        CLI,
        "docker exec -it {shown} sh -c 'test -t 0 && echo terminal'",
        "terminal",
        role=OPERATOR,
        how=How.TERMINAL,
    ),
    Row(CLI, "docker exec --detach {shown} ls", role=OPERATOR),
    *_refused(CLI, ("docker exec {shown} ls", "role.denied", "it is for operator")),
    *_refused(
        CLI,
        ("docker exec --privileged {shown} ls", "exec.privileged", "leave"),
        role=OPERATOR,
    ),
)
CHANGING = (
    Row(
        CLI,
        "docker update --memory 64m --memory-swap 64m --restart always {running}",
        then="docker inspect --format {{{{.HostConfig.Memory}}}} {running}",
        after="^67108864$",
    ),
    Row(
        CLI, "docker rename {stopped} {free}", then="docker ps -aq -f name={free}", after="[0-9a-f]"
    ),
    Row(CLI, "docker pause {running}", then="docker ps -f status=paused", after="{running}"),
    Row(CLI, "docker unpause {paused}", then="docker ps -f status=running", after="{paused}"),
    Row(CLI, "docker start {stopped}", then="docker ps", after="{stopped}"),
    Row(
        CLI,
        "docker stop --time 2 {running}",
        then="docker ps -f status=exited -a",
        after="{running}",
    ),
    Row(CLI, "docker restart --time 2 {running}", then="docker ps", after="{running}"),
    Row(CLI, "docker kill --signal KILL {running}", then="docker wait {running}", after="^137$"),
    Row(CLI, "docker wait {stopped}", "^[0-9]+$"),
    Row(CLI, "docker rm {stopped}", then="docker ps -aq -f name={stopped}", after=r"\A\Z"),
    Row(CLI, "docker rm --force {running}", then="docker ps -aq -f name={running}", after=r"\A\Z"),
    # No removal takes volumes along, whatever is asked.
    Row(CLI, "docker rm --force --volumes {holding}", then="docker volume ls", after="{volume}"),
    *_refused(
        CLI,
        ("docker commit {shown} x", "route.denied", "build images elsewhere and pull them"),
        ("docker update --pids-limit -1 {running}", "resources.pids", "give a number"),
        ("docker kill --signal NOSUCH {running}", "signal.invalid", "write SIGTERM"),
        ("docker rename {stopped} 0123456789ab", "name.like-an-id", "choose another name"),
    ),
)
NETWORKS = (
    Row(CLI, "docker network create {free}", "^[0-9a-f]{64}$"),
    *_works(
        CLI,
        ("docker network ls --filter name={network}", "{network}"),
        ("docker network inspect {network}", '"Name": "{network}"'),
    ),
    Row(
        CLI,
        "docker network connect {network} {running}",
        then="docker inspect {running}",
        after='"{network}": ',
    ),
    Row(CLI, "docker network disconnect {network} {joined}"),
    Row(CLI, "docker network rm {network}", "^{network}$"),
    Row(CLI, "docker volume create --label a=b {free}", "^{free}$"),
    *_works(
        CLI,
        ("docker volume ls --filter name={volume}", "{volume}"),
        ("docker volume inspect {volume}", '"Name": "{volume}"'),
        ("docker volume rm {volume}", "^{volume}$"),
    ),
    *_refused(
        CLI,
        ("docker network create --driver macvlan {free}", "network.driver", "use bridge"),
        (
            "docker network create --subnet 192.0.2.0/24 {free}",
            "network.address",
            "leave out Config",
        ),
        (
            "docker volume create --opt type=none --opt o=bind --opt device=/ x",
            "volume.options",
            "leave out DriverOpts",
        ),
    ),
)
IMAGES = (
    *_works(
        CLI,
        ("docker pull {remote}", r"Digest: sha256:[0-9a-f]{64}"),
        ("docker images", r"trimtab\.local/worker +1 "),
        ("docker image inspect {image}", r'"trimtab\.local/worker:1"'),
        ("docker history {image}", "trimtab tools/images"),
    ),
    Row(CLI, "docker rmi {pulled}", "^Untagged: ", role=OPERATOR),
    *_refused(CLI, ("docker rmi {image}", "role.denied", "it is for controller, operator")),
    *_refused(
        CLI,
        ("docker pull alpine", "image.not-allowed", "use an image under one of them"),
        ("docker build {home}", "route.denied", "build images elsewhere and pull them"),
        ("docker tag {image} x", "route.denied", "tag and push where the image is built"),
        ("docker push {image}", "route.denied", "tag and push where the image is built"),
        ("docker save {image}", "route.denied", "pull images by reference"),
        ("docker load --input {home}/small", "route.denied", "pull images by reference"),
        ("docker import {home}/small", "image.import", "pull it from a registry"),
        ("docker search x", "route.denied", "pull images by reference"),
        (
            "docker login --username a --password b {registry}",
            "route.denied",
            "no client of ours needs it",
        ),
    ),
)
PRUNING = _refused(
    CLI,
    ("docker system prune --force", "route.denied", "remove objects one by one"),
    ("docker container prune --force", "route.denied", "remove objects one by one"),
    ("docker image prune --force", "route.denied", "remove objects one by one"),
    ("docker volume prune --force", "route.denied", "remove objects one by one"),
    ("docker network prune --force", "route.denied", "remove objects one by one"),
    ("docker swarm init", "route.denied", "change the desired state instead"),
    ("docker service ls", "route.denied", "change the desired state instead"),
    ("docker plugin ls", "route.denied", "install engine plugins on the host, as root"),
)
COMPOSE = (
    *_works(
        "compose",
        ("docker compose up --detach", "Container shop-proxy-1 +Started"),
        ("docker compose up --detach", "Container shop-proxy-1 +Running"),
        ("docker compose ps", r"shop-db-1 .*\(healthy\)"),
        ("docker compose logs", r"proxy-1 +\| web 2 serves on 8080"),
        ("docker compose images", "trimtab.local/worker"),
        ("docker compose top db", "/bin/work"),
        ("docker compose port proxy 8080", r"^127\.0\.0\.1:18080$"),
        ("docker compose ls", r"shop +running\(3\)"),
    ),
    Row("compose", "docker compose logs --follow db", "piece [0-9]+", how=How.STREAMS),
    *_works(
        "compose",
        ("docker compose stop --timeout 2 api", "shop-api-1 +Stopped"),
        ("docker compose start api", "shop-api-1 +Started"),
        ("docker compose restart --timeout 2 api", "shop-api-1 +Started"),
        ("docker compose pause api", "shop-api-1 +Paused"),
        ("docker compose unpause api", "shop-api-1 +Unpaused"),
    ),
    Row("compose", "docker compose exec -T db ls /data", role=OPERATOR),
    *_refused("compose", ("docker compose exec -T db ls", "role.denied", "it is for operator")),
    *_works(
        "compose",
        ("docker compose down --timeout 2 --volumes", "Volume shop_data +Removed"),
    ),
)
PY = "docker-py"
SDK = (
    *_works(
        PY,
        ("client.ping()", "^True$"),
        ("client.version()['ApiVersion']", r"1\.45"),
        ("client.info()['Name']", "trimtab"),
        (
            "client.info()['ContainersRunning'] >= 0, client.info()['ExperimentalBuild']",
            "True, False",
        ),
        ("client.api.images(quiet=True)[0]", "^'sha256:"),
        ("client.api.containers(trunc=True)", r"^\["),
        ("client.containers.run(IMAGE, ['echo', 'x'], environment={'MAYBE': None})", "x"),
        ("client.api.create_container(IMAGE, runtime='runc')['Id']", "[0-9a-f]{64}"),
        ("client.containers.run(IMAGE, ['echo', 'hello'], remove=True)", r"b'hello\\n'"),
        ("client.containers.run(IMAGE, detach=True, mem_limit='64m')", "^<Container: "),
        ("client.containers.run(IMAGE, ['ls', '-d', '/d'], volumes=[f'{volume}:/d'])", "/d"),
        ("client.containers.create(IMAGE).start()", "^None$"),
        ("client.containers.list(all=True, filters={'name': shown.name})", "^.<Container: "),
        ("client.containers.get(shown.id).image", r"trimtab\.local/worker:1"),
        ("shown.logs(tail=1)", "worker did piece"),
        ("next(shown.logs(stream=True, follow=True))", "worker did piece"),
        ("next(shown.stats(decode=True))['id'] == shown.id", "^True$"),
        ("shown.stats(stream=False)['id'] == shown.id", "^True$"),
        ("next(shown.attach(stream=True, logs=True))", "worker did piece"),
        ("shown.top()['Titles'][0]", "UID"),
        ("shown.diff()", "^None$"),
        ("container.rename(free)", "^None$"),
        ("container.update(mem_limit='64m', memswap_limit='64m')", "Warnings"),
        ("container.pause(), container.unpause()", r"\(None, None\)"),
        ("container.restart(timeout=2)", "^None$"),
        ("container.kill(), container.wait()['StatusCode']", r"\(None, 137\)"),
        ("container.stop(timeout=2), container.remove(v=True)", r"\(None, None\)"),
        ("client.networks.create(free, driver='bridge')", "^<Network: "),
        ("client.networks.list(names=[network.name], greedy=True)", "^.<Network: "),
        ("network.connect(container), network.disconnect(container)", r"\(None, None\)"),
        ("network.remove()", "^None$"),
        ("client.volumes.create(free, labels={'a': 'b'})", "^<Volume: "),
        ("client.volumes.list(filters={'name': volume})", "^.<Volume: "),
        ("client.volumes.get(volume).remove()", "^None$"),
        ("client.images.get(IMAGE)", r"trimtab\.local/worker:1"),
        ("client.images.list()", r"trimtab\.local/worker:1"),
        ("client.images.pull(*REMOTE)", "^<Image: "),
        ("list(client.api.pull(*REMOTE, stream=True, decode=True))[-1]", "Status: "),
        ("client.images.get_registry_data(':'.join(REMOTE)).id", "sha256:[0-9a-f]{64}"),
        ("next(client.events(since=1, decode=True))['Type']", "container|network|volume"),
    ),
    Row(PY, "shown.exec_run(['ls', '/bin/work']).output", r"b'/bin/work\\n'", role=OPERATOR),
    Row(
        PY,
        "shown.exec_run('cat', stdin=True, tty=True, socket=True).output",
        "Socket",
        role=OPERATOR,
    ),
    Row(PY, "client.df()['LayersSize'] >= 0", "^True$", role=OPERATOR),
    Row(PY, "client.swarm.leave(force=True)", "^True$", role=OPERATOR),
    *_refused(
        PY,
        ("shown.exec_run('ls')", "role.denied", "it is for operator"),
        ("shown.put_archive('/', b'')", "route.denied", "mount a volume instead"),
        ("shown.get_archive('/bin')", "route.denied", "mount a volume instead"),
        ("shown.top(ps_args='auxe')", "query.invalid", "correct it"),
        ("shown.commit('x')", "route.denied", "build images elsewhere"),
        ("network.connect(shown, aliases=['other'])", "network.alias", "use its name"),
        ("client.containers.run(IMAGE, privileged=True)", "privileged", "ask for the capability"),
        ("client.containers.prune()", "route.denied", "remove objects one by one"),
        ("client.images.load(b'')", "route.denied", "pull images by reference"),
        ("client.nodes.list()", "route.denied", "change the desired state instead"),
        ("client.images.get(IMAGE).tag('x')", "route.denied", "tag and push where"),
        ("client.login('a', 'b', registry=REGISTRY)", "route.denied", "no client of ours needs it"),
        ("client.df()", "role.denied", "it is for operator"),
    ),
)
TESTCONTAINERS = _works(
    "Testcontainers",
    ("logs_after(DockerContainer(IMAGE), 'piece 1')", "worker did piece 1"),
    ("logs_after(DockerContainer(SERVED).with_exposed_ports(8080), 'serves')", "web 1 serves"),
)
CURL = (
    *_works(
        "curl",
        ("curl --silent --unix-socket {socket} http://docker/_ping", "^OK$"),
        ("curl --silent --head --unix-socket {socket} http://docker/_ping", r"api-version: 1\.45"),
        ("curl --silent --unix-socket {socket} http://docker/containers/json", r"^\["),
    ),
    Row(
        "curl",
        "curl --silent --unix-socket {socket} --data '{{}}' http://docker/containers/create",
        refused="body.media-type",
        instead="send JSON as application/json",
    ),
)
TABLE = (
    *ENGINE,
    *RUNNING,
    *LOOKING,
    *EXECS,
    *CHANGING,
    *NETWORKS,
    *IMAGES,
    *PRUNING,
    *COMPOSE,
    *SDK,
    *TESTCONTAINERS,
    *CURL,
)

#: What is admitted and changed, by its rule: how a client sees that, and what its error then shows.
CHANGED = {
    "default.logs": (
        "the log's configuration has max-size and max-file",
        r"max-size|max-file",
    ),
    "hardening.tmpfs": (
        "the options of a tmpfs are written out, with nosuid, nodev and noexec",
        r"nosuid,nodev",
    ),
}

#: How the words in braces read on the page.
SHOWN = {
    "free": "NAME",
    "home": "DIR",
    "image": "IMAGE",
    "network": "NETWORK",
    "registry": "REGISTRY",
    "pulled": "REGISTRY/IMAGE",
    "remote": "REGISTRY/IMAGE",
    "served": "IMAGE",
    "socket": "SOCKET",
    "volume": "VOLUME",
}
_WORD = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")


def shown(row: Row) -> str:
    """Return a row's command as a person reads it."""
    if row.client in {PY, "Testcontainers"}:
        return row.command
    text = _WORD.sub(lambda found: SHOWN.get(found[1], "CONTAINER"), row.command)
    return text.replace("{{", "{").replace("}}", "}")


def page(codes: str) -> str:
    """Return the page of the documentation; why something is refused is in the page of *codes*."""
    meanings = dict(re.findall(r"^\| `([a-z0-9.-]+)` \| (.*?) \| .* \|$", codes, re.MULTILINE))
    return "\n".join([HEAD, *_tables(meanings), *_changes()])


def _changes() -> Iterator[str]:
    yield "## What is admitted and changed\n"
    yield "| | what a client sees |\n|---|---|"
    for rule, (text, _) in CHANGED.items():
        yield f"| changed: `{rule}` | {text} |"
    yield ""


def _tables(meanings: Mapping[str, str]) -> Iterator[str]:
    for client, rows in groupby(TABLE, key=lambda row: row.client):
        yield f"## {client}\n"
        yield "| command | as | | why | what instead |\n|---|---|---|---|---|"
        for row in rows:
            outcome = f"refused: `{row.refused}`" if row.refused else "works"
            cells = (f"`{shown(row)}`", row.role, outcome, meanings.get(row.refused, ""))
            instead = row.instead.replace("\\", "")
            yield f"| {' | '.join(cell.replace('|', BAR) for cell in (*cells, instead))} |"
        yield ""


BAR = r"\|"
CODES = Path(__file__).parents[2] / "docs" / "errors.md"
HEAD = """\
# What works through the broker's socket

Point a client at `STATE/run/broker.sock` (`DOCKER_HOST=unix://…`), and it is served as the policy has
it. Each row was run by the client itself through a broker on a real engine; `make compat` runs them again. They
hold under `configs/policies/development.yaml` with one more prefix in `images.allow` (the registry's) and
the caller in `clients`. Versions: docker CLI and engine 26.1 (API 1.45), compose 2.26, docker-py 7,
Testcontainers for Python 4 with its reaper off (`TESTCONTAINERS_RYUK_DISABLED=true`: a reaper would need the
engine's socket).

*client*: a uid that the policy lists, in the group trimtab; it sees and changes what belongs to its owner.
*operator*: root, or whom the policy lists. What a client may do, an operator may too, for any owner.

A refusal reaches the person as `RULE: reason (what to do instead)`; [errors.md](errors.md) lists the rules.
What is admitted runs hardened: limits, no capabilities, no new privileges, rotated logs, ports on loopback.
API versions 1.44 and 1.45 are spoken: clients that negotiate find that out themselves.
"""

if __name__ == "__main__":
    print(page(CODES.read_text()), end="")
