"""What clients may mean, drawn from a seed: requests of each mutating route that strict admits.

A meaning is told apart from its spelling: ``body`` and ``query`` are what every reader should
understand, ``raw_body`` and ``raw_query`` are bytes for one of the many ways to say so. Where
``wrong`` isn't empty, the bytes say something that must be refused instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from controller.core.engine_api import field_tables
from controller.core.engine_api.field_reader import Field
from controller.model import names
from controller.model.mutations import Mutation
from tests.gate import spelling
from tests.gate.fixtures import IMAGE
from tests.gate.spelling import Pairs
from tests.gate.tap import DIGEST

MIB = 1024 * 1024
#: How often a request is made wrong.
WRONG_SHARE = 0.15
TEXTS = (
    "x",
    "a b",
    "",
    "\u00e9\u00df",
    "\u65e5\u672c",
    "\U0001f433",
    'q"\\/',
    "a=b&c;d",
    "%2F",
    "\u212a\u017f",
)
TARGETS = ("/data", "/srv/a b", "/mnt/\u00e9", "/opt/x.y-z", "/var/cache/\u65e5")
#: Signals that a process ignores unless it asked for them.
HARMLESS = ("SIGWINCH", "WINCH", "28", "SIGCONT", "CONT", "18", "CHLD", "SIGURG", "23")
KILLS = ("SIGKILL", "KILL", "9")


@dataclass(frozen=True, slots=True)
class Stage:
    """The objects that a worker's requests are about."""

    tag: str  # begins the names of what it makes
    loose: str  # a container that never runs, in a network of its owner's
    runners: Mapping[str, str]  # containers that are started and stopped, by the verb
    networks: tuple[str, ...]  # more networks of the owner's
    source: str  # a folder that may be mounted
    volume: str
    cpus: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    number: int
    route: str
    who: str
    method: str
    path: str
    query: Pairs = field(default_factory=list)
    body: dict[str, Any] | None = None
    raw_path: str = ""
    raw_query: str = ""
    raw_body: str | None = None
    wrong: str = ""
    about: str = ""  # the object that it changes, by its name or id
    state: str = ""  # in which the container must be

    @property
    def raw(self) -> bytes:
        """The whole request on the wire."""
        target = self.raw_path + (f"?{self.raw_query}" if self.raw_query else "")
        body = (self.raw_body or "").encode("utf-8", "surrogatepass")
        lines = [f"{self.method} {target} HTTP/1.1", "Host: docker"]
        if self.raw_body is not None:
            lines.append("Content-Type: application/json")
        if self.method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


Maker = Callable[[Random, Stage, int], Asked]


def draw(seed: int, number: int, stage: Stage) -> Asked:
    """Return input *number* of a seed."""
    dice = Random(f"{seed}:{number}")
    make = MAKERS[SLOTS[number % len(SLOTS)]]
    return _written(make(dice, stage, number), dice)


def _target(asked: Asked, dice: Random) -> tuple[str, str]:
    if asked.route == Mutation.CONTAINER_RELEASE:  # of trimtab's own: no version, no query
        return asked.path, ""
    path = dice.choice(["/v1.45", "/v1.44", ""]) + asked.path
    return path, spelling.query(_with_zeroes(asked, dice), dice)


def _completed(asked: Asked, table: Any, dice: Random) -> Any:
    if asked.route == Mutation.CONTAINER_RELEASE:  # no unknown member means nothing there
        return asked.body
    return spelling.with_zeroes(asked.body or {}, table, dice)


def _written(asked: Asked, dice: Random) -> Asked:
    """Choose a spelling, or a misspelling."""
    table = BODIES.get(asked.route, ())
    path, query = _target(asked, dice)
    body, wrong = None, ""
    if asked.body is not None:
        body = spelling.spelled(_completed(asked, table, dice), dice)
    elif asked.method == "POST" and dice.random() < 0.2:  # nobody reads it
        body = spelling.spelled({**dict(asked.query), "Privileged": True}, dice)
    if dice.random() < WRONG_SHARE:
        kind = dice.choice(["body", "body", "body", "query", "path"])
        if kind == "body" and asked.body is not None:
            body, wrong = spelling.misspelled(asked.body, dice)
        elif kind == "body":
            body, wrong = dice.choice(["x=1", '{"a":1,"A":1}', "\x00"]), "a body"
            if asked.method == "DELETE":
                body, kind = None, "path"
        if kind == "query":
            query, wrong = spelling.bad_query(asked.query, dice)
        elif kind == "path":
            path, wrong = spelling.bad_path(asked.path, dice)
    return _replace(asked, raw_path=path, raw_query=query, raw_body=body, wrong=wrong)


def _replace(asked: Asked, **parts: Any) -> Asked:
    told = {name: getattr(asked, name) for name in Asked.__dataclass_fields__}
    return Asked(**{**told, **parts})


def _with_zeroes(asked: Asked, dice: Random) -> Pairs:
    """Return the query with some parameters that the route knows and that say nothing."""
    given = {name for name, _ in asked.query}
    silent = [
        (name, zero)
        for name, zeroes in SILENT.get(asked.route, ())
        if name not in given and dice.random() < 0.2
        for zero in (dice.choice(zeroes),)
    ]
    return [*asked.query, *silent]


# Parts of bodies.


def _some(dice: Random, share: float = 0.3) -> bool:
    return dice.random() < share


def _texts(dice: Random, most: int = 3) -> list[str]:
    return [dice.choice(TEXTS) for _ in range(dice.randrange(most + 1))]


def _labels(dice: Random) -> dict[str, str]:
    keys = ("com.example.a", "b", "Tier", "x/y", "k-1")
    return {key: dice.choice(TEXTS) for key in dice.sample(keys, dice.randrange(4))}


def _nanoseconds(dice: Random, least_ms: int, most_s: int) -> int:
    return dice.choice([0, dice.randrange(least_ms, most_s * 1000) * 1_000_000])


def _limits(dice: Random, stage: Stage, *, update: bool) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if _some(dice):
        limits["Memory"] = dice.choice(
            [64 * MIB, 512 * MIB, 8192 * MIB, dice.randrange(64 * MIB, 4096 * MIB)]
        )
        if _some(dice):
            limits["MemorySwap"] = limits["Memory"]
    if "Memory" in limits and _some(dice):
        limits["MemoryReservation"] = dice.randrange(6 * MIB, 64 * MIB)
    if _some(dice) and not update and stage.cpus:
        period = dice.choice([0, 1000, 50_000, 1_000_000])
        limits["CpuQuota"] = dice.randrange(1000, (period or 100_000) * min(stage.cpus, 4) + 1)
        limits |= {"CpuPeriod": period} if period else {}
    elif _some(dice):
        limits["NanoCpus"] = dice.randrange(10_000_000, min(stage.cpus, 4) * 10**9)
    if _some(dice):
        limits["CpuShares"] = dice.randrange(2, 4097)
    if _some(dice):
        limits["PidsLimit"] = dice.randrange(1, 513)
    if _some(dice):
        limits["RestartPolicy"] = _restart(dice)
    return limits


def _restart(dice: Random) -> dict[str, Any]:
    name = dice.choice(["no", "always", "unless-stopped", "on-failure"])
    if name == "on-failure" and _some(dice, 0.5):
        return {"Name": name, "MaximumRetryCount": dice.randrange(1, 11)}
    return {"Name": name} | ({"MaximumRetryCount": 0} if _some(dice) else {})


def _healthcheck(dice: Random) -> dict[str, Any]:
    test = dice.choice(
        [[], ["NONE"], ["CMD", "/check", *_texts(dice)], ["CMD-SHELL", "check || exit 1"]]
    )
    check = {
        "Test": test,
        "Interval": _nanoseconds(dice, 1000, 3600),
        "Timeout": _nanoseconds(dice, 1, 600),
        "Retries": dice.randrange(11),
        "StartPeriod": _nanoseconds(dice, 1, 3600),
        "StartInterval": _nanoseconds(dice, 1000, 3600),
    }
    return {key: check[key] for key in dice.sample(list(check), dice.randrange(1, 7))}


def _config(dice: Random) -> dict[str, Any]:
    fields: dict[str, Callable[[], Any]] = {
        "Hostname": lambda: dice.choice(["web", "a.b.c", "X-1", "9"]),
        "Domainname": lambda: dice.choice(["example.org", "a"]),
        "User": lambda: dice.choice(["1000", "1000:1000", "65534:33", "root", "0"]),
        "AttachStdin": lambda: _some(dice, 0.5),
        "AttachStdout": lambda: _some(dice, 0.5),
        "AttachStderr": lambda: _some(dice, 0.5),
        "Tty": lambda: _some(dice, 0.5),
        "OpenStdin": lambda: _some(dice, 0.5),
        "StdinOnce": lambda: _some(dice, 0.5),
        "ExposedPorts": lambda: {
            f"{dice.randrange(1, 65536)}/{dice.choice(['tcp', 'udp', 'sctp'])}": {}
        },
        "Env": lambda: [f"V{n}={text}" for n, text in enumerate(_texts(dice))],
        "Cmd": lambda: dice.choice([["/app", *_texts(dice)], "/app"]),
        "Entrypoint": lambda: dice.choice([["/app", *_texts(dice)], "/init"]),
        "Shell": lambda: ["/bin/ash", "-c"],
        "Healthcheck": lambda: _healthcheck(dice),
        "WorkingDir": lambda: dice.choice(["/", "/work", "/a b/\u00e9"]),
        "StopSignal": lambda: dice.choice(["SIGTERM", "INT", "SIGRTMIN+3", "15"]),
        "StopTimeout": lambda: dice.choice([0, 1, 300]),
        "Runtime": lambda: "runc",  # where docker-py writes it
    }
    chosen = dice.sample(list(fields), dice.randrange(8))
    return {name: fields[name]() for name in chosen}


def _host(dice: Random, stage: Stage) -> dict[str, Any]:
    fields: dict[str, Callable[[], Any]] = {
        "AutoRemove": lambda: _some(dice, 0.5),
        "ReadonlyRootfs": lambda: True,
        "Init": lambda: _some(dice, 0.5),
        "IpcMode": lambda: dice.choice(["", "private", "none"]),
        "CgroupnsMode": lambda: dice.choice(["", "private"]),
        "OomScoreAdj": lambda: dice.choice([0, 1, 1000]),
        "ShmSize": lambda: dice.choice([0, MIB, 64 * MIB]),
        "Runtime": lambda: dice.choice(["", "runc"]),
        "Isolation": lambda: dice.choice(["", "default"]),
        "ConsoleSize": lambda: dice.choice([[0, 0], [24, 80]]),
        "CapAdd": lambda: dice.sample(
            ["CHOWN", "cap_setuid", "CAP_SETGID", "chown"], dice.randrange(4)
        ),
        "CapDrop": lambda: dice.choice([["ALL"], ["all"], ["NET_RAW"], "ALL"]),
        "SecurityOpt": lambda: dice.choice([[], ["no-new-privileges:true"], ["no-new-privileges"]]),
        "LogConfig": lambda: _log(dice),
        "Ulimits": lambda: [{"Name": "nofile", "Soft": 1024, "Hard": dice.choice([1024, 65536])}],
        "PortBindings": lambda: _ports(dice),
    }
    chosen = dice.sample(list(fields), dice.randrange(8))
    host = {name: fields[name]() for name in chosen}
    host |= _limits(dice, stage, update=False) | _mounts(dice, stage)
    if host.get("AutoRemove"):
        host.pop("RestartPolicy", None)
    return host


def _log(dice: Random) -> dict[str, Any]:
    options = {
        "max-size": dice.choice(["1m", "100k", "10M"]),
        "max-file": str(dice.randrange(1, 11)),
    }
    kept = {key: options[key] for key in dice.sample(list(options), dice.randrange(3))}
    return {"Type": dice.choice(["", "json-file", "local"]), "Config": kept}


def _ports(dice: Random) -> dict[str, Any]:
    bindings = [
        {"HostPort": dice.choice(["", "0", str(dice.randrange(20_000, 60_000))])}
        | ({"HostIp": dice.choice(["", "127.0.0.1", "::1"])} if _some(dice, 0.5) else {})
    ]
    return {f"{dice.randrange(1, 65536)}/{dice.choice(['tcp', 'udp'])}": bindings}


def _mounts(dice: Random, stage: Stage) -> dict[str, Any]:
    targets = list(TARGETS)
    dice.shuffle(targets)
    found: dict[str, Any] = {}
    if _some(dice):
        access = dice.choice(["", ":ro", ":rw"])
        source = dice.choice([stage.source, stage.volume])
        found["Binds"] = [f"{source}:{targets.pop()}{access}"]
    if _some(dice):
        found["Tmpfs"] = {
            targets.pop(): dice.choice(["", "size=1m", "ro,size=64k,mode=700", "rw,noexec"])
        }
    mounts: list[dict[str, Any]] = []
    if _some(dice):
        mounts.append(
            {
                "Type": "tmpfs",
                "Target": targets.pop(),
                "TmpfsOptions": dice.choice([{}, {"SizeBytes": MIB, "Mode": 0o700}]),
            }
        )
    if _some(dice):
        mounts.append({"Type": "bind", "Source": stage.source, "Target": targets.pop()})
        mounts[-1] |= dice.choice(
            [
                {},
                {"ReadOnly": True},
                {"BindOptions": {"Propagation": "rprivate"}},
                {"Consistency": "cached"},
            ]
        )
    if _some(dice):
        mounts.append({"Type": "volume", "Source": stage.volume, "Target": targets.pop()})
        mounts[-1] |= dice.choice(
            [
                {},
                {"VolumeOptions": {"NoCopy": True}},
                {"VolumeOptions": {"DriverConfig": {"Name": "local"}}},
            ]
        )
    return found | ({"Mounts": mounts} if mounts else {})


# The routes.


def _create(dice: Random, stage: Stage, number: int) -> Asked:
    image = dice.choice([IMAGE, IMAGE, f"{IMAGE.rpartition(':')[0]}@sha256:{DIGEST}"])
    body = {"Image": image, "Labels": {names.SERVICE: "web", **_labels(dice)}, **_config(dice)}
    if _some(dice, 0.5):
        body["Labels"][names.OWNER] = "alice"
    if _some(dice, 0.8):
        host = _host(dice, stage)
        modes = ["none", "none", "", "default", "bridge", "alice-isle"]
        host["NetworkMode"] = "alice-isle" if "PortBindings" in host else dice.choice(modes)
        body["HostConfig"] = spelling.with_zeroes(host, field_tables.HOST_CONFIG, dice)
    name = f"{stage.tag}{number}"
    return Asked(
        number,
        Mutation.CONTAINER_CREATE,
        "alice",
        "POST",
        "/containers/create",
        [("name", name)],
        body,
        about=name,
    )


def _on_runner(
    route: str, verb: str, states: Sequence[str], pairs: Callable[[Random], Pairs]
) -> Maker:
    def make(dice: Random, stage: Stage, number: int) -> Asked:
        runner = stage.runners[verb]
        path = f"/containers/{runner}/{verb}"
        state = dice.choice(states)
        return Asked(
            number,
            route,
            dice.choice(["alice", "operator"]),
            "POST",
            path,
            pairs(dice),
            about=runner,
            state=state,
        )

    return make


def _no_pairs(_dice: Random) -> Pairs:
    return []


def _stop_pairs(dice: Random) -> Pairs:
    pairs = [("t", "0"), ("signal", dice.choice(KILLS))]
    return [pairs[0]] if _some(dice, 0.5) else pairs


def _kill_pairs(dice: Random) -> Pairs:
    return [("signal", dice.choice(KILLS if _some(dice, 0.05) else HARMLESS))]


def _rename(dice: Random, stage: Stage, number: int) -> Asked:
    name = f"{stage.tag}{number}" + dice.choice(["", ".a", "-B", "_c"])
    path = f"/containers/{stage.loose}/rename"
    return Asked(
        number,
        Mutation.CONTAINER_RENAME,
        "alice",
        "POST",
        path,
        [("name", name)],
        about=stage.loose,
    )


def _update(dice: Random, stage: Stage, number: int) -> Asked:
    body = _limits(dice, stage, update=True) or {"CpuShares": dice.randrange(2, 4097)}
    if "Memory" in body:
        body.setdefault("MemoryReservation", dice.randrange(6 * MIB, 64 * MIB))
    who = dice.choice(["alice", "operator"])
    path = f"/containers/{stage.loose}/update"
    return Asked(number, Mutation.CONTAINER_UPDATE, who, "POST", path, [], body, about=stage.loose)


def _remove(dice: Random, stage: Stage, number: int) -> Asked:
    pairs = [("force", dice.choice(["1", "true", "0", "false"])), ("v", dice.choice(["0", "1"]))]
    pairs = dice.sample(pairs, dice.randrange(3))
    name = f"{stage.tag}{number}"
    return Asked(
        number,
        Mutation.CONTAINER_REMOVE,
        "alice",
        "DELETE",
        f"/containers/{name}",
        pairs,
        about=name,
    )


def _release(dice: Random, stage: Stage, number: int) -> Asked:
    body: dict[str, Any] = {"container": "0" * 64}  # until there is one: ``of_container``
    fields = {
        "files": {},
        "keepRestart": _some(dice, 0.5),
        "dryRun": False,
        "note": dice.choice(TEXTS),
    }
    body |= {key: fields[key] for key in dice.sample(list(fields), dice.randrange(5))}
    return Asked(
        number,
        Mutation.CONTAINER_RELEASE,
        "operator",
        "POST",
        "/trimtab/v1/releases",
        [],
        body,
        about=f"{stage.tag}{number}",
        state=dice.choice(["running", "running", "stopped"]),
    )


def of_container(asked: Asked, identifier: str) -> Asked:
    """Return a release of the container that was made for it."""
    raw = re.sub(r"(?:0|\\u0030){64}", identifier, asked.raw_body or "")
    body = {**(asked.body or {}), "container": identifier}
    return _replace(asked, body=body, raw_body=raw)


def _pull(dice: Random, _stage: Stage, number: int) -> Asked:
    repository, _, tag = IMAGE.rpartition(":")
    pairs = dice.choice(
        [
            [("fromImage", repository), ("tag", tag)],
            [("fromImage", IMAGE)],
            [("fromImage", repository), ("tag", f"sha256:{DIGEST}")],
            [("fromImage", f"{repository}@sha256:{DIGEST}")],
        ]
    )
    who = dice.choice(["alice", "operator"])
    return Asked(number, Mutation.IMAGE_PULL, who, "POST", "/images/create", pairs)


def _network(dice: Random, stage: Stage, number: int) -> Asked:
    body: dict[str, Any] = {"Name": f"{stage.tag}{number}", "Labels": _labels(dice)}
    fields: dict[str, Any] = {
        "Driver": "bridge",
        "Internal": _some(dice, 0.5),
        "CheckDuplicate": True,
        "EnableIPv4": True,
        "Scope": "local",
        "IPAM": dice.choice([{}, {"Driver": "default", "Config": [], "Options": {}}]),
        "Options": {},
    }
    body |= {key: fields[key] for key in dice.sample(list(fields), dice.randrange(5))}
    return Asked(
        number,
        Mutation.NETWORK_CREATE,
        "alice",
        "POST",
        "/networks/create",
        [],
        body,
        about=body["Name"],
    )


def _network_remove(_dice: Random, stage: Stage, number: int) -> Asked:
    name = f"{stage.tag}{number}"
    return Asked(
        number, Mutation.NETWORK_REMOVE, "alice", "DELETE", f"/networks/{name}", about=name
    )


def _connect(dice: Random, stage: Stage, number: int) -> Asked:
    network = dice.choice(stage.networks)
    body: dict[str, Any] = {"Container": stage.loose}
    if _some(dice, 0.5):
        config = {"Aliases": dice.choice([[], ["web"]])}
        body["EndpointConfig"] = spelling.with_zeroes(config, field_tables.ENDPOINT, dice)
    path = f"/networks/{network}/connect"
    return Asked(
        number,
        Mutation.NETWORK_CONNECT,
        "alice",
        "POST",
        path,
        [],
        body,
        about=network,
        state="apart",
    )


def _disconnect(dice: Random, stage: Stage, number: int) -> Asked:
    network = dice.choice(stage.networks)
    body: dict[str, Any] = {"Container": stage.loose}
    body |= {"Force": True} if _some(dice) else {}
    path = f"/networks/{network}/disconnect"
    return Asked(
        number,
        Mutation.NETWORK_DISCONNECT,
        "alice",
        "POST",
        path,
        [],
        body,
        about=network,
        state="joined",
    )


def _volume(dice: Random, stage: Stage, number: int) -> Asked:
    body: dict[str, Any] = {"Name": f"{stage.tag}{number}", "Labels": _labels(dice)}
    body |= {"Driver": "local"} if _some(dice, 0.5) else {}
    return Asked(
        number,
        Mutation.VOLUME_CREATE,
        "alice",
        "POST",
        "/volumes/create",
        [],
        body,
        about=body["Name"],
    )


def _volume_remove(dice: Random, stage: Stage, number: int) -> Asked:
    name = f"{stage.tag}{number}"
    pairs: Pairs = [("force", dice.choice(["0", "1", "true"]))] if _some(dice, 0.5) else []
    return Asked(
        number, Mutation.VOLUME_REMOVE, "alice", "DELETE", f"/volumes/{name}", pairs, about=name
    )


_RUN = ("running",) * 7

#: Every mutating route that changes the engine.
MAKERS: dict[str, Maker] = {
    Mutation.CONTAINER_CREATE: _create,
    Mutation.CONTAINER_START: _on_runner(
        Mutation.CONTAINER_START, "start", (*_RUN, "stopped"), _no_pairs
    ),
    Mutation.CONTAINER_STOP: _on_runner(
        Mutation.CONTAINER_STOP, "stop", ("running", *("stopped",) * 7), _stop_pairs
    ),
    Mutation.CONTAINER_RESTART: _on_runner(
        Mutation.CONTAINER_RESTART, "restart", ("running",), _stop_pairs
    ),
    Mutation.CONTAINER_KILL: _on_runner(Mutation.CONTAINER_KILL, "kill", ("running",), _kill_pairs),
    Mutation.CONTAINER_PAUSE: _on_runner(
        Mutation.CONTAINER_PAUSE, "pause", ("running",), _no_pairs
    ),
    Mutation.CONTAINER_UNPAUSE: _on_runner(
        Mutation.CONTAINER_UNPAUSE, "unpause", ("paused",), _no_pairs
    ),
    Mutation.CONTAINER_RENAME: _rename,
    Mutation.CONTAINER_UPDATE: _update,
    Mutation.CONTAINER_REMOVE: _remove,
    Mutation.CONTAINER_RELEASE: _release,
    Mutation.IMAGE_PULL: _pull,
    Mutation.NETWORK_CREATE: _network,
    Mutation.NETWORK_REMOVE: _network_remove,
    Mutation.NETWORK_CONNECT: _connect,
    Mutation.NETWORK_DISCONNECT: _disconnect,
    Mutation.VOLUME_CREATE: _volume,
    Mutation.VOLUME_REMOVE: _volume_remove,
}
#: Inputs take their routes in this order, so that each gets its share.
SLOTS = (*MAKERS, Mutation.CONTAINER_CREATE, Mutation.CONTAINER_UPDATE)
BODIES: dict[str, tuple[Field, ...]] = {
    Mutation.CONTAINER_CREATE: tuple(
        each for each in field_tables.CONFIG if each.name != "HostConfig"
    ),
    Mutation.CONTAINER_UPDATE: field_tables.UPDATE,
    Mutation.NETWORK_CREATE: field_tables.NETWORK,
    Mutation.NETWORK_CONNECT: field_tables.CONNECT,
    Mutation.NETWORK_DISCONNECT: field_tables.DISCONNECT,
    Mutation.VOLUME_CREATE: field_tables.VOLUME,
}
_FLAG = ("", "0", "false", "False")
#: Parameters that ordinary clients send empty or off.
SILENT: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    Mutation.CONTAINER_CREATE: (("platform", ("",)),),
    Mutation.CONTAINER_START: (
        ("checkpoint", ("",)),
        ("checkpoint-dir", ("",)),
        ("detachKeys", ("",)),
    ),
    Mutation.CONTAINER_STOP: (("signal", ("",)),),
    Mutation.CONTAINER_RESTART: (("signal", ("",)),),
    Mutation.CONTAINER_REMOVE: (("force", _FLAG), ("v", _FLAG), ("link", _FLAG)),
    Mutation.IMAGE_PULL: (
        ("platform", ("",)),
        ("fromSrc", ("",)),
        ("repo", ("",)),
        ("message", ("",)),
    ),
    Mutation.VOLUME_REMOVE: (("force", _FLAG),),
}
