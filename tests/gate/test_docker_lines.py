"""A docker line is explained as what the real command sends: both, read by the gate, are the same."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from controller.cli.docker_line.create import RUN_OPTIONS
from controller.cli.docker_line.line import Asked, LineError, Surroundings, requests_of
from controller.core.engine_api import parse
from controller.core.engine_api.requests import CreateRequest
from tests.gate.recorder import Recorder

INDEX = re.compile(r"\[[0-9]+\]")
CREATES = """
create alpine
run --rm -v /etc:/e -p 80:80 --cap-add SYS_ADMIN ghcr.io/a/b cmd
run -d --name x --network n1 --network-alias al --network n2 --ip 1.2.3.4 --mac-address 02:42:ac:11:00:02 alpine
create -it --mount type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700 alpine sh -c 'exit 1'
create --mount src=vol,target=/v,volume-nocopy,ro=true --mount type=bind,src=/a,dst=/b,readonly alpine
create --mount type=bind,source=/a,destination=/b,bind-propagation=rshared,bind-nonrecursive=true alpine
create --mount type=volume,src=v,dst=/v,volume-label=a=b,volume-driver=local,volume-opt=type=none alpine
create --mount '"type=bind","src=/a,b","dst=/b"' alpine
create --gpus all --device /dev/a:/dev/b:r --device-cgroup-rule 'c 1:3 mr' alpine
create --ulimit nofile=1:2 --ulimit core=0 --ulimit nproc=5 alpine
create --log-driver local --log-opt max-size=1m --log-opt max-file=3 alpine
create --health-cmd 'x y' --health-interval 1m30s --health-timeout 1.5s --health-retries 3 alpine
create --health-start-period 500ms --health-start-interval 2s alpine
create --no-healthcheck --entrypoint '' --stop-timeout 5 --stop-signal SIGINT alpine
create --restart on-failure:3 alpine
create --restart unless-stopped --init=false --tty=true alpine
create --memory 1.5g --memory-swap -1 --memory-reservation 10mb --memory-swappiness 5 alpine
create -m 512m --memory-swap 1073741824 --cpus 1.25 -c 5 --pids-limit 7 --shm-size 64k alpine
create --cpu-period 50000 --cpu-quota 25000 --cpuset-cpus 0 --cpuset-mems 0 alpine
create --read-only --tmpfs /t --tmpfs /u:size=1m,exec --init --runtime foo alpine
create --security-opt no-new-privileges --security-opt apparmor=unconfined alpine
create --security-opt systempaths=unconfined --security-opt label:disable alpine
create --cap-add chown --cap-add CAP_NET_RAW --cap-drop all --group-add 5 alpine
create --dns 1.1.1.1 --dns-option x --dns-search example.com --add-host a:1.2.3.4 alpine
create -v /data -v vol:/x:ro -v ./rel:/r -v ../up:/u:rw alpine
create -e A=1 -e A=2 -e HOME -e UNSET_HERE -e B= --env C=x=y alpine
create --env-file env.txt -e LAST=1 --label-file labels.txt --label a=b --label c alpine
create --expose 80 --expose 81-82/udp -p 127.0.0.1:90-91:90-91 -p 53/udp alpine
create -p 8000-8010:80 -p [::1]:81:81/tcp -p 127.0.0.1::82 -p 83 alpine
create -p published=84,target=84,protocol=udp -p target=85 alpine
create --link a:b --volumes-from z --pid host --ipc host --uts host --userns host alpine
create --cgroupns host --privileged -P --cgroup-parent /x alpine
create --storage-opt size=1g --annotation a=b --sysctl net.a=1 --isolation default alpine
create --blkio-weight 10 --blkio-weight-device /dev/a:50 alpine
create --oom-kill-disable --oom-score-adj 5 --kernel-memory 1m --volume-driver d -v v:/v alpine
create --domainname dom -h host -w /w -u 1:2 --platform linux/amd64 -a stdout alpine
create -a stdin -a STDERR -i alpine
create --net host alpine
create --net none alpine
create --net bridge alpine
create --net default alpine
create --net container:abc alpine
create --net name=foo,alias=web,ip=1.2.3.4,driver-opt=a=b alpine
create --network foo --link-local-ip 169.254.1.1 --ip6 ::1 alpine
create --mac-address 02:42:ac:11:00:02 alpine
create --cpu-rt-period 4 --cpu-rt-runtime 5 alpine
run -i alpine a -b --rm
run --detach -it --detach-keys ctrl-a --sig-proxy=false alpine
create -edA=5 -itl=x=y -w=/w alpine
create -itP alpine -- x
create -- alpine --rm
container run --rm --cidfile out.cid alpine
"""
#: Lines whose every request is compared, method, path and query.
OTHERS = """
rm -fv one two
stop -t 5 one
restart --time 5 --signal INT one
kill -s HUP one
pause one
unpause one
rename one two
start one
update --memory 1g --memory-swap 2g --cpus 2 --restart always --pids-limit 5 one
exec -e A=1 -u 1 -w /w one ls -l
network create --internal --label a=b -o com.docker.network.bridge.enable_icc=false net
network connect --alias a --ip 1.2.3.4 net one
network disconnect -f net one
network rm net
volume create --label a=b -d local vol
volume create -o type=none vol
volume rm -f vol
pull ghcr.io/a/b
pull ghcr.io/a/b:1
pull ghcr.io/a/b@sha256:1111111111111111111111111111111111111111111111111111111111111111
diff one
wait one
export one
rmi ghcr.io/a/b
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    found = Recorder(tmp_path_factory.mktemp("recorder") / "s")
    yield found
    found.close()


ENVIRON = {**os.environ, "HOME_OF": "x"}
FILES = {"env.txt": "# comment\nONE=1\n\n  TWO=2 3\nHOME_OF\n", "labels.txt": "l1=v1\nl2\n"}


def surroundings(folder: Path) -> Surroundings:
    environ = {**ENVIRON, "HOME": str(folder)}
    return Surroundings(environ, lambda name: FILES[name], str(folder))


def sent_by_docker(recorder: Recorder, line: str, folder: Path) -> list[tuple[str, str, Any]]:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return recorder.docker(*shlex.split(line), cwd=folder, environ=ENVIRON)


def read(body: object) -> CreateRequest:
    """Return what the gate understands of a body.

    Of variables, binds and findings the order is left out: the command itself has none.
    """
    request = parse.parse_create(body)
    mounts = sorted((replace(mount, path="") for mount in request.mounts), key=str)
    findings = [replace(f, path=INDEX.sub("[]", f.path)) for f in request.findings]
    return replace(
        request,
        env=tuple(sorted(request.env)),
        mounts=tuple(mounts),
        findings=tuple(sorted(findings, key=str)),
    )


@pytest.mark.parametrize("line", lines(CREATES))
def test_a_line_is_the_body_that_the_command_sends(
    line: str, recorder: Recorder, tmp_path: Path
) -> None:
    (method, target, body), *_ = sent_by_docker(recorder, line, tmp_path)
    path, _, query = target.partition("?")
    ours, *_ = requests_of(["docker", *shlex.split(line)], surroundings(tmp_path))
    assert (ours.method, ours.path, dict(ours.query)) == (method, path, dict(parse_qsl(query)))
    assert read(ours.body) == read(body)


def test_the_table_has_every_option_of_the_command() -> None:
    told = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True, check=True)
    known = {word for row in told.stdout.splitlines() for word in row.split() if word[:2] == "--"}
    assert sorted(known - {"--help"} - RUN_OPTIONS.keys()) == []


def understood(method: str, path: str, body: object) -> object:
    """Return a request as the gate reads it: its body by the route's schema."""
    name = path.rpartition("/")[2]
    match (path.split("/")[1], name):
        case ("containers", "update"):
            return parse.parse_update(body)
        case ("networks", "create"):
            return parse.parse_network(body)
        case ("networks", "connect"):
            return parse.parse_connect(body, network="net")
        case ("networks", "disconnect"):
            return parse.parse_disconnect(body, network="net")
        case ("volumes", "create"):
            return parse.parse_volume(body)
        case ("containers", "exec"):
            return parse.parse_exec(body)
        case _:
            return None


@pytest.mark.parametrize("line", lines(OTHERS))
def test_other_commands_are_the_requests_that_they_send(
    line: str, recorder: Recorder, tmp_path: Path
) -> None:
    sent = [
        r
        for r in sent_by_docker(recorder, line, tmp_path)
        if r[0] != "GET" or "diff" in line or "export" in line
    ]
    ours = requests_of(shlex.split(line), surroundings(tmp_path))
    # Several objects are worked at side by side: in any order.
    assert sorted(map(told, ours), key=str) == sorted(
        [
            (
                method,
                target.partition("?")[0],
                dict(parse_qsl(target.partition("?")[2])),
                understood(method, target.partition("?")[0], body),
            )
            for method, target, body in sent[: len(ours)]
        ],
        key=str,
    )


def told(asked: Asked) -> tuple[str, str, dict[str, str], object]:
    return (
        asked.method,
        asked.path,
        dict(asked.query),
        understood(asked.method, asked.path, asked.body),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --nonsense alpine", "unknown option --nonsense"),
        ("run -Z alpine", "unknown option -Z"),
        ("run -itZ alpine", "unknown option -Z"),
        ("run --rm=perhaps alpine", "the option --rm is true or false, not 'perhaps'"),
        ("run --memory", "the option --memory needs a value"),
        ("run", "no image is named"),
        ("create -d alpine", "unknown option -d"),
        ("frobnicate x", "unknown command docker frobnicate"),
    ],
)
def test_what_the_command_would_not_take_is_an_error_that_names_it(line: str, message: str) -> None:
    with pytest.raises(LineError) as error:
        requests_of(shlex.split(line), Surroundings())
    assert str(error.value) == message
