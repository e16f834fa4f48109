"""Rows under policies/home: what that policy grants and strict doesn't."""

from __future__ import annotations

from dataclasses import replace

from tests.compat.row import CLI, RUN, Row, refused, works
from tests.gate.roles import ALICE


def _compose(project: str, command: str) -> str:
    """Return a command of compose on a file of ``tests/compat/projects``, and what removes it."""
    compose = f"docker compose --file {{home}}/projects/{project}.yaml"
    steps = " && ".join(f"{compose} {step}" for step in command.split(" && "))
    return f"sh -c '{steps}; e=$?; {compose} down --timeout 0 --volumes 2>/dev/null; exit $e'"


#: As docker compose calls what ``run`` makes in a project of a company.
LONG_NAME = "mycompany-customer-portal-back-integration-tests-run-0123456789ab"
#: What ``home`` grants and strict doesn't.
HOME = tuple(
    replace(row, policy="home")
    for row in (
        *works(
            CLI,
            (RUN + " --volume {free}:/data {image} ls -d /data", "^/data$"),
            ("docker volume create", "^alice-[0-9a-f]{{12}}$"),
            (RUN + " --network {network} --network-alias db {image} echo hello", "^hello$"),
            ("docker network create --subnet 172.16.99.0/24 {free}", "^[0-9a-f]{64}$"),
            (RUN + " --add-host a:192.0.2.1 {image} cat /etc/hosts", r"^192\.0\.2\.1\s+a$"),
            (
                RUN + " --add-host host.docker.internal:host-gateway {image} cat /etc/hosts",
                r"^[0-9.]+\s+host\.docker\.internal$",
            ),
            (RUN + " --group-add 1234 {image} id -G", r"(^|\s)1234(\s|$)"),
            (RUN + " --cpuset-cpus 0 {image} cat /proc/self/status", r"^Cpus_allowed_list:\s+0$"),
            (
                RUN
                + " --tmpfs /run:exec {image} sh -c 'busybox cp /bin/busybox /run/busybox && /run/busybox echo ran'",
                "^ran$",
            ),
            (RUN + " --hostname my_app {image} hostname", "^my_app$"),
            (RUN + " --label traefik.enable=true {image} echo hello", "^hello$"),
            (RUN + " --cap-add NET_RAW --shm-size 512m {image} echo hello", "^hello$"),
            # busybox has no other way; the ping of iputils needs what the last row shows alone.
            (
                RUN + " --user 0 --cap-add NET_RAW {image} busybox ping -c 1 127.0.0.1",
                "1 packets received",
            ),
            (
                RUN + " {image} cat /proc/sys/net/ipv4/ping_group_range",
                r"^0\s+2147483647$",
            ),
            (
                RUN + " --health-cmd true --health-interval 200ms --health-retries 50"
                " --log-opt max-file=50 {image} echo hello",
                "^hello$",
            ),
            (
                f"docker create --name {LONG_NAME} {{image}}",
                r"^[0-9a-f]{{64}}$",
            ),
            (
                RUN + f" --user {ALICE}:{ALICE} --volume {{home}}/projects:/app {{image}} ls /app",
                r"^aliases\.yaml$",
            ),
        ),
        Row(
            CLI,
            "docker run -d -p 18100-18102:8080 --name {free} {served}",
            then="docker port {free}",
            after=r"8080/tcp -> 127\.0\.0\.1:1810[0-2]",
        ),
        Row(
            CLI,
            "docker network connect --alias other {network} {running}",
            then="docker inspect {running}",
            after='"other"',
        ),
        *refused(
            CLI,
            (
                "docker network create --subnet 192.168.99.0/24 {free}",
                "network.address",
                "choose a subnet of those",
            ),
        ),
        *refused(
            CLI,
            (RUN + " --volume /home:/host {image} ls", "mount.forbidden", "use a volume"),
            (RUN + " --sysctl net.ipv4.ip_forward=1 {image} ls", "sysctls", "leave it out"),
            (
                RUN + " --label com.centurylinklabs.watchtower.enable=true {image} ls",
                "label.denied",
                "remove it",
            ),
            exits=125,
        ),
        *works(
            "compose",
            (_compose("aliases", "run --rm client"), "^version 1$"),
            (
                _compose("anonymous", "up -d && up -d --force-recreate && logs"),
                r"\| kept$",
            ),
            (_compose("environment", "run --rm job"), "^unset=yes set=1$"),
            (_compose("hosts", "run --rm job"), r"^192\.0\.2\.1\s+backend$"),
            (_compose("limits", "run --rm job"), r"^ran as .*1234"),
            (_compose("ports", "up -d && port web 8080"), r"^127\.0\.0\.1:1820[5-9]$"),
            (_compose("profiles", "--profile debug up -d && ps"), "projects-debug-1"),
            (_compose("project", "run --rm job"), r"^# The project.s own folder"),
            (_compose("volumes", "run --rm reader"), "^written$"),
            (
                _compose("limits", "-p mycompany-customer-portal-integration-tests run --rm job"),
                r"^ran as .*1234",
            ),
        ),
        *refused(
            "compose",
            (_compose("secrets", "up"), "route.denied", "mount a volume instead"),
            (_compose("inline", "up"), "route.denied", "mount a volume instead"),
            (_compose("shared", "up -d"), "network.mode", "use none"),
            (_compose("links", "up -d"), "network.links", "leave out Links"),
            (_compose("inherited", "up -d"), "mount.volumes-from", "name each volume"),
        ),
    )
)
