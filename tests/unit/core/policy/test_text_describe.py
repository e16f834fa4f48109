"""A policy as text: one line for each of its settings."""

from controller.core.policy.text import describe
from controller.model.policy.document import Policy

STRICT = """\
  images             ghcr.io/platformnetwork/
  anonymous volumes  refused
  capabilities       all dropped; may be asked for: CHOWN, SETUID, SETGID
  forced             no new privileges
  unverified         what can't be compared with what was admitted runs, and status says so
  memory             2Gi by default, at most 8Gi
  CPUs               1 by default, at most 4
  processes          256 by default, at most 512
  tmpfs              64Mi by default, at most 256Mi
  oomScoreAdj        0 to 1000
  shared memory      at most 256Mi
  mounts             below /tmp/, /var/lib/platform/, /var/lib/docker/volumes/
                     not /etc/passwd, /etc/shadow, /etc/sudoers, /root, /home, /proc, /sys, /dev
  network modes      none, bridge, isolated
  networks           platform-network, platform-ingress, platform-bridge
  ports              1024 and above on 127.0.0.1, ::1
  devices            none
  logs               json-file, local; 10Mi x 3 by default, at most 100Mi x 10
  restart            no, always, on-failure, unless-stopped; at most 10 retries
  removed at exit    may be asked for
  health checks      every 1s at most
  environment        512 variables, 64Ki
                     not LD_PRELOAD, LD_AUDIT
  names              at most 63 characters
  exec               operators, for at most 1h, not as root by name
  quotas             100 containers a service, 200 an owner
                     500 volumes an owner, 20 networks of its clients, 250 published ports
                     documents of all owners together: 1000 containers, 1000 volumes, 100 networks, 500 published ports
                     clients of all owners together: 1000 containers, 1000 volumes, 20 networks, 250 published ports
                     a client: 20 changes a second, 64Mi of records a day
  owners             any
  never              privileged containers, namespaces and sysctls of the host
  never              disks, consoles, terminals, memory and ports of the host as devices
  never              sockets as mounts, and folders of the engine and the gate
  never              volumes with options that no grant names, anonymous references (ids), local images without trust
"""
OTHER = Policy.from_json(
    {
        "name": "team",
        "profile": "development",
        "images": {
            "allow": ["ghcr.io/team/", "docker.io/library/redis"],
            "trustLocal": ["ghcr.io/team/"],
            "requireDigest": True,
            "anonymousVolumes": "slot",
        },
        "capabilities": {"allowed": []},
        "security": {
            "requireNonRoot": True,
            "requireReadOnlyRoot": True,
            "unverified": "stop",
        },
        "resources": {
            "memory": {"default": "1Gi", "max": "4Gi"},
            "cpus": {"default": 0.5, "max": 2},
            "pids": {"default": 10, "max": 20},
        },
        "mounts": {"allowed": [], "forbidden": ["/etc"]},
        "networks": {
            "modes": ["none", "isolated"],
            "ports": {"granted": [443, 53], "minHost": 2000},
        },
        "restart": {"policies": ["no"], "maxRetries": 2},
        "autoRemove": False,
        "healthcheck": {"shell": False},
        "env": {"denied": [], "max": 5},
        "exec": {"root": True},
        "owners": [
            {"name": "alice", "namespaces": ["team", "x"], "sources": ["/srv/"], "quota": 5},
            {"name": "bob"},
        ],
        "operators": [0, 1001],
        "clients": [{"uid": 1000, "owner": "alice"}],
        "modes": {"restart": "warn", "env.size": "audit", "user.root": "enforce"},
        "exceptions": [
            {
                "owner": "alice",
                "namespace": "team",
                "service": "web",
                "repository": "ghcr.io/team/web",
                "reason": "it binds a low port",
                "expires": "2027-01-31",
                "loosens": {"hostPorts": [443], "memoryMax": "16Gi"},
            },
            {
                "owner": "alice",
                "namespace": "team",
                "service": "old",
                "repository": "ghcr.io/team/old",
                "for": "clients",
                "reason": "it moves its files at the start",
                "expires": "2027-02-28",
                "loosens": {"capAdd": ["CHOWN"]},
            },
        ],
    }
)
OTHER_TEXT = """\
  images             ghcr.io/team/, docker.io/library/redis
  trusted as found   ghcr.io/team/
  references         only with a digest
  anonymous volumes  a named volume of the slot, which is kept
  capabilities       all dropped; may be asked for: none
  forced             no new privileges, never root, read-only root filesystem
  unverified         what can't be compared with what was admitted is ended
  memory             1Gi by default, at most 4Gi
  CPUs               0.5 by default, at most 2
  processes          10 by default, at most 20
  tmpfs              64Mi by default, at most 256Mi
  oomScoreAdj        0 to 1000
  shared memory      at most 256Mi
  mounts             below none
                     not /etc
  network modes      none, isolated
  networks           platform-network, platform-ingress, platform-bridge
  ports              2000 and above, and 443, 53 on 127.0.0.1, ::1
  devices            none
  logs               json-file, local; 10Mi x 3 by default, at most 100Mi x 10
  restart            no; at most 2 retries
  removed at exit    refused
  health checks      every 1s at most, no shell
  environment        5 variables, 64Ki
  names              at most 63 characters
  exec               operators, for at most 1h
  quotas             100 containers a service, 200 an owner
                     500 volumes an owner, 20 networks of its clients, 250 published ports
                     documents of all owners together: 1000 containers, 1000 volumes, 100 networks, 500 published ports
                     clients of all owners together: 1000 containers, 1000 volumes, 20 networks, 250 published ports
                     a client: 20 changes a second, 64Mi of records a day
  owner              alice: namespaces team, x; mounts below /srv/; 5 containers
  owner              bob: namespaces default
  operators          uid 0, 1001
  client             uid 1000 for alice
  audit only         env.size
  warn only          restart
  exception          alice/team/web from ghcr.io/team/web until 2027-01-31: hostPorts 443, memoryMax 16Gi
  exception          alice/team/old of clients from ghcr.io/team/old until 2027-02-28: capAdd CHOWN
  never              privileged containers, namespaces and sysctls of the host
  never              disks, consoles, terminals, memory and ports of the host as devices
  never              sockets as mounts, and folders of the engine and the gate
  never              volumes with options that no grant names, anonymous references (ids), local images without trust
"""


def check(policy: Policy, *, title: str, text: str) -> None:
    first, *lines = describe(policy)
    assert first == f"{title}, digest {policy.digest}"
    assert "\n".join([*lines, ""]) == text


def test_what_nobody_wrote_is_told_as_well() -> None:
    check(Policy.from_json({"name": "strict"}), title="policy strict (strict)", text=STRICT)


def test_what_was_written_otherwise_is_told_as_it_was_written() -> None:
    check(OTHER, title="policy team (development)", text=OTHER_TEXT)


def test_an_exec_that_nobody_may_is_told_as_refused() -> None:
    policy = Policy.from_json({"name": "strict", "exec": {"enabled": False}})
    assert "  exec               refused" in describe(policy)
