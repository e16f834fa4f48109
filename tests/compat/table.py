"""What ordinary clients do at the broker's socket, and what becomes of it: one row, one command.

The same rows are run (``test_clients``), printed by ``make ring KIND=compat``, and are the page
``docs/compatibility.md``. Words in braces stand for objects that the world makes for the row:
``{running}``, ``{stopped}`` and ``{paused}`` are containers of its own, ``{talking}`` one that prints often,
and ``{shown}`` one that all rows look at. Refused rows share what they speak of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from tests.compat.home import HOME
from tests.compat.node_rows import DOCKERODE, NODE
from tests.compat.node_rows import TESTCONTAINERS as NODE_TESTCONTAINERS
from tests.compat.row import CLI, RUN, How, Row, refused, works
from tests.compat.sdk_rows import AIO, AIODOCKER, PY, SDK, TESTCONTAINERS

ENGINE = (
    *works(
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
    *refused(CLI, ("docker system df", "role.denied", "it is for operator")),
)
RUNNING = (
    *works(
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
    *refused(
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
        (RUN + " --device /dev/fuse {image} ls", "devices", "leave it out"),
        (RUN + " --gpus all {image} ls", "device.driver", "name each device by CDI"),
        (RUN + " --sysctl net.ipv4.ip_forward=1 {image} ls", "sysctls", "leave it out"),
        (RUN + " --dns 192.0.2.1 {image} ls", "network.dns", "leave it out"),
        (
            RUN + " --add-host a:192.0.2.1 {image} ls",
            "network.hosts",
            "leave it out",
        ),
        (RUN + " --link {shown} {image} ls", "network.links", "leave out Links"),
        (RUN + " -p 0.0.0.0:8081:8080 {served} ls", "port.address", r"use 127\.0\.0\.1"),
        (RUN + " -p 80:8080 {served} ls", "port.privileged", "publish on a higher port"),
        (RUN + " -P {served} ls", "port.publish-all", "publish each port"),
        (RUN + " --cidfile {home}/cid {image} ls", "body.client-only", "leave out"),
        (RUN + " --memory 64m --memory-swap 128m {image} ls", "resources.swap", "leave it out"),
        (RUN + " --uts host {image} ls", "namespace.uts", "leave out UTSMode"),
        (RUN + " --ipc container:{shown} {image} ls", "namespace.ipc", "leave it out"),
        (RUN + " --log-driver none {image} ls", "log.driver", "use json-file or local"),
        (RUN + " --cpu-rt-period 2000 {image} ls", "resources.realtime", "leave out"),
        (
            RUN + " --network name={network},driver-opt=a=b {image} ls",
            "network.options",
            "leave out DriverOpts",
        ),
        (RUN + " --network {network} --ip 192.0.2.9 {image} ls", "network.address", "leave it out"),
        (RUN + " --volume {home}:/app {image} ls", "mount.not-allowed", "use a path below"),
        (RUN + " --volume /tmp/nosuch:/app {image} ls", "mount.missing", "create it first"),
        (
            (
                "sh -c 'd=$(mktemp -d /tmp/compat-XXXXXX);"
                " docker run --rm --volume $d:/app {image} ls; e=$?; rmdir $d; exit $e'"
            ),
            "mount.parent",
            "use a volume, or let root list",
        ),
        (RUN + " --network nosuch {image} ls", "network.unknown", "create it first"),
        (RUN + " --group-add 5 {image} ls", "user.groups", "leave it out"),
        (
            RUN + " --health-cmd true --health-interval 200ms {image} ls",
            "healthcheck.bounds",
            "choose one in that range",
        ),
        (RUN + " --log-opt max-file=50 {image} ls", "log.option", "ask for fewer files"),
        (RUN + " --shm-size 4g {image} ls", "resources.shm", "ask for less"),
        (RUN + " --cpuset-cpus 0 {image} ls", "resources.cpuset", "leave it out"),
        (RUN + " --tmpfs /run:exec {image} ls", "mount.options", "leave exec out"),
        (RUN + " --hostname my_app {image} ls", "host.name", 'write "-" instead'),
        (RUN + " -p 18000-18002:80 {image} ls", "port.invalid", "publish each port by itself"),
        (RUN + " --label traefik.enable=true {image} ls", "label.denied", "remove it"),
        (RUN + " --memory 64g {image} ls", "resources.memory", "choose a size in that range"),
        (RUN + " alpine ls", "image.not-allowed", "use an image under one of them"),
        exits=125,
    ),
)
LOOKING = (
    *works(
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
    Row(CLI, "docker logs --follow {talking}", "piece 2", how=How.STREAMS),
    Row(CLI, "docker attach --no-stdin {talking}", "piece [23]", how=How.STREAMS),
    Row(CLI, "docker stats {shown}", "{shown}", how=How.STREAMS),
    Row(
        CLI,
        "docker events --since 10m --filter type=container",
        "container start",
        how=How.STREAMS,
    ),
    Row(CLI, "docker start --attach --interactive {reader}", "^got line$", stdin="line\n"),
    *refused(
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
    *refused(CLI, ("docker exec {shown} ls", "exec.client", "let an operator run it")),
    *refused(
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
    *refused(
        CLI,
        ("docker commit {shown} x", "route.denied", "build images from a Dockerfile"),
        ("docker update --pids-limit -1 {running}", "resources.pids", "give a number"),
        ("docker kill --signal NOSUCH {running}", "signal.invalid", "write SIGTERM"),
        ("docker rename {stopped} 0123456789ab", "name.like-an-id", "choose another name"),
    ),
)
NETWORKS = (
    Row(CLI, "docker network create {free}", "^[0-9a-f]{64}$"),
    *works(
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
    *works(
        CLI,
        ("docker volume ls --filter name={volume}", "{volume}"),
        ("docker volume inspect {volume}", '"Name": "{volume}"'),
        ("docker volume rm {volume}", "^{volume}$"),
    ),
    *refused(
        CLI,
        ("docker network create --driver macvlan {free}", "network.driver", "use bridge"),
        ("docker network create --ipv6 {free}", "network.ipv6", "leave it out"),
        ("docker network create 'a b'", "name.invalid", "choose another name"),
        ("docker network connect --alias db {network} {running}", "network.alias", "use its name"),
        ("docker volume create --driver x {free}", "volume.driver", "use local"),
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
        ("docker volume create --opt size=10g {free}", "resources.volume", "leave out the size"),
    ),
)
IMAGES = (
    *works(
        CLI,
        ("docker pull {remote}", r"Digest: sha256:[0-9a-f]{64}"),
        ("docker images", r"trimtab\.local/worker +1 "),
        ("docker image inspect {image}", r'"trimtab\.local/worker:1"'),
        ("docker history {image}", "trimtab tools/images"),
    ),
    Row(
        CLI,
        "docker tag {pulled} {pulled}-b",
        role=OPERATOR,
        then="docker rmi {pulled}-b",
        after="^Untagged: .*-b$",
    ),
    Row(CLI, "docker rmi {pulled}", "^Untagged: ", role=OPERATOR),
    *refused(CLI, ("docker rmi {image}", "role.denied", "it is for controller, operator")),
    Row(
        CLI,
        "docker build --tag trimtab.local/{free}:1 {home}/built",
        "^Successfully tagged trimtab",
        role=OPERATOR,
    ),
    *refused(
        CLI,
        ("docker build {home}/built", "build.tag", "name the image"),
        (
            "docker build --tag trimtab.local/{free}:1 --network {network} {home}/built",
            "build.network",
            "leave it out",
        ),
        (
            "sh -c 'docker create $(docker image inspect --format {{{{.Id}}}} {image})'",
            "image.invalid",
            "name the image as",
        ),
        (
            "sh -c 'docker create {pulled} ls && docker rmi {pulled}'",
            "image.used",
            "remove them first",
        ),
        role=OPERATOR,
    ),
    *refused(
        CLI,
        ("docker pull alpine", "image.not-allowed", "use an image under one of them"),
        ("docker build {home}", "role.denied", "it is for controller, operator"),
        ("docker tag {image} x", "role.denied", "it is for operator"),
        ("docker push {image}", "route.denied", "push where the image is built"),
        ("docker save {image}", "route.denied", "pull images by reference"),
        ("docker load --input {home}/small", "route.denied", "pull images by reference"),
        ("docker import {home}/small", "image.import", "pull it from a registry"),
        ("docker search x", "route.denied", "pull images by reference"),
        (
            "docker login --username a --password b {registry}",
            "route.denied",
            "/etc/trimtab/registry.json",
        ),
    ),
)
PRUNING = (
    *works(
        CLI,
        (
            (
                "sh -c 'docker create --label prune=c {image} &&"
                " docker container prune --force --filter label=prune=c'"
            ),
            r"^Deleted Containers:\s+[0-9a-f]{{64}}$",
        ),
        (
            (
                "sh -c 'docker network create --label prune=n {free} &&"
                " docker network prune --force --filter label=prune=n'"
            ),
            r"^Deleted Networks:\s+{free}$",
        ),
        (
            (
                "sh -c 'docker volume create --label prune=v {free} &&"
                " docker volume prune --all --force --filter label=prune=v'"
            ),
            r"^Deleted Volumes:\s+{free}$",
        ),
    ),
    Row(CLI, "docker service ls", "This node is not a swarm manager", exits=1),
    *refused(
        CLI,
        ("docker container prune --force --filter until=1h", "filters.unknown", "use label"),
        ("docker image prune --force", "route.denied", "an operator removes images one by one"),
        (
            "docker system prune --force --filter label=prune=s",
            "route.denied",
            "an operator removes images one by one",
        ),
        ("docker swarm init", "route.denied", "change the desired state instead"),
        ("docker plugin ls", "route.denied", "install engine plugins on the host, as root"),
    ),
)
COMPOSE = (
    *works(
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
    *works(
        "compose",
        ("docker compose stop --timeout 2 api", "shop-api-1 +Stopped"),
        ("docker compose start api", "shop-api-1 +Started"),
        ("docker compose restart --timeout 2 api", "shop-api-1 +Started"),
        ("docker compose pause api", "shop-api-1 +Paused"),
        ("docker compose unpause api", "shop-api-1 +Unpaused"),
    ),
    Row("compose", "docker compose exec -T db ls /data", role=OPERATOR),
    *refused("compose", ("docker compose exec -T db ls", "exec.client", "let an operator run it")),
    *works(
        "compose",
        ("docker compose down --timeout 2 --volumes", "Volume shop_data +Removed"),
    ),
)


CURL = (
    *works(
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
#: A container's settings, environment included, are compared with the task's.
ANSIBLE = tuple(
    Row(
        "Ansible",
        "{ansible} {home}/playbooks/twice.yaml",
        r"ok=[0-9]+ +changed=[34] +unreachable=0 +failed=0 ",
        role=role,
    )
    for role in ("client", "operator")
)
#: Clients whose rows are expressions, by the language of the process that evaluates them.
LANGUAGES = {
    PY: "python",
    "Testcontainers": "python",
    AIODOCKER: "python",
    DOCKERODE: "node",
    NODE_TESTCONTAINERS: "node",
}
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
    *HOME,
    *SDK,
    *TESTCONTAINERS,
    *AIO,
    *NODE,
    *ANSIBLE,
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
    "label.reserved": (
        "containers, networks and volumes have the gate's own labels, io.trimtab.*, beside those asked for",
        r"'io\.trimtab\.(instance|managed)': ",
    ),
    "prune.space": (
        "prune doesn't tell how many bytes it reclaimed",
        r"SpaceReclaimed",
    ),
}
#: Of these the last are no verdicts of their own: they hold for whatever is made, or removed.
ALWAYS = ("label.reserved", "prune.space")

#: How the words in braces read on the page.
SHOWN = {
    "ansible": "ansible-playbook",
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
#: Figures of `tests.compat.docker_py_suite`; `test_docker_py_suite` checks that they add up.
SUITE = """\
## docker-py's own tests

The integration tests of docker-py (July 2026, after release 7.2.0), run as root on an engine, and through a broker
under `home`:

| outcome | tests |
|---|---|
| pass on the engine | 376 |
| pass through the broker too | 191 |
| refused by a rule that this page names | 178 |
| fail because of a change that this page names | 7 |
| fail for another reason | 0 |

134 of the refused tests use a route that is served to nobody: swarm, plugins, archives of files.
`make ring KIND=docker-py DIR=CHECKOUT` runs the comparison with a checkout of docker-py, and prints these figures.
"""
_WORD = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")


def shown(row: Row) -> str:
    """Return a row's command as a person reads it."""
    if row.client in LANGUAGES:
        return row.command
    text = _WORD.sub(lambda found: SHOWN.get(found[1], "CONTAINER"), row.command)
    return text.replace("{{", "{").replace("}}", "}")


def page(codes: str) -> str:
    """Return the page of the documentation; why something is refused is in the page of *codes*."""
    meanings = dict(re.findall(r"^\| `([a-z0-9.-]+)` \| (.*?) \| .* \|$", codes, re.MULTILINE))
    return "\n".join([HEAD, *_tables(meanings), SUITE, *_changes()])


def _changes() -> Iterator[str]:
    yield "## What is admitted and changed\n"
    yield "| | what a client sees |\n|---|---|"
    for rule, (text, _) in CHANGED.items():
        yield f"| changed: `{rule}` | {text} |"
    yield ""


def _tables(meanings: Mapping[str, str]) -> Iterator[str]:
    for (client, policy), rows in groupby(TABLE, key=lambda row: (row.client, row.policy)):
        yield f"## {client}{', under home' if policy == 'home' else ''}\n"
        yield "| command | as | | why | what instead |\n|---|---|---|---|---|"
        for row in rows:
            outcome = f"refused: `{row.refused}`" if row.refused else "works"
            cells = (f"`{shown(row)}`", row.role, outcome, meanings.get(row.refused, ""))
            instead = row.instead.replace("\\", "")
            yield f"| {' | '.join(cell.replace('|', BAR) for cell in (*cells, instead))} |"
        yield ""


BAR = r"\|"
CODES = "".join(
    page.read_text()
    for page in sorted((Path(__file__).parents[2] / "docs" / "errors").glob("*.md"))
)
HEAD = """\
# What works through the broker's socket

Point a client at `STATE/run/broker.sock` (`DOCKER_HOST=unix://…`), and it is served as the policy has
it. Each row was run by the client itself through a broker on a real engine; `make ring KIND=compat` runs them again. They
hold under `configs/policies/development.yaml` with one more prefix in `images.allow` (the registry's) and
the caller in `clients`; where a heading says so under `configs/policies/home.yaml` with the caller in `clients`
and DIR/projects in `mounts.projects`, which has the files of `tests/compat/projects`. Versions: docker CLI and engine 26.1 (API 1.45), compose 2.26, docker-py 7,
aiodocker 0.27, dockerode 5, Testcontainers for Python 4 and for Node 10 with their reaper off (`TESTCONTAINERS_RYUK_DISABLED=true`: a reaper would need the
engine's socket), Ansible 12 with its collection community.docker. `twice.yaml` pulls an image, makes a network, a volume and a container with settings of
many kinds, and reads them, all twice: the second time nothing is changed.

*client*: a uid that the policy lists, in the group trimtab; it sees and changes what belongs to its owner.
*operator*: root, or whom the policy lists. What a client may do, an operator may too, for any owner.

A refusal reaches the person as `RULE: reason (what to do instead)`; [errors.md](errors.md) lists the rules.
What is admitted runs hardened: limits, no capabilities, no new privileges, rotated logs, ports on loopback.
API versions 1.44 and 1.45 are spoken: clients that negotiate find that out themselves.
Containers, networks and volumes that were made past the broker aren't there for clients: compose's `external: true`
needs a network or volume that was made through the same socket.
A client sees the values of variables only in containers that its own uid created, and names in others.

`docker build` with buildx, as newer commands have it, pulls `moby/buildkit` and asks for a privileged container: the refusal (`privileged`) says how
to build instead. `docker cp FILE CONTAINER:DIR/` says `no such directory`, since the command doesn't show why its HEAD is refused (`route.denied`): mount
a volume instead. After `docker login` is refused, credentials go into `/etc/trimtab/registry.json` ([operations/images.md](operations/images.md)).
"""

if __name__ == "__main__":
    print(page(CODES), end="")
