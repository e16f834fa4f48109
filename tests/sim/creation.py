"""What a create or an update of a container leads to, in the simulated engine."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from typing import Any

from tests.sim.objects import HOST_DEFAULTS, Body, Endpoint, SimContainer, SimImage

MEMORY_MIN = 6 << 20
_LIMITS = (
    "Memory",
    "MemorySwap",
    "MemoryReservation",
    "NanoCpus",
    "CpuShares",
    "CpuPeriod",
    "CpuQuota",
    "CpusetCpus",
    "PidsLimit",
)
_POLICIES = ("no", "always", "on-failure", "unless-stopped")
#: Members of a create's body that aren't members of the container's Config, as they stand.
_OWN = ("HostConfig", "NetworkingConfig", "Env", "Labels", "ExposedPorts", "Volumes")


class BadBody(Exception):
    """The engine's message for a body that it refuses, and the status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def container_of(
    identifier: str, name: str, image: SimImage, body: Body, *, now: float
) -> SimContainer:
    """Return the container that a create's body asks for; named volumes have no source yet.

    Raises:
        BadBody: the engine refuses it.
    """
    asked = dict(body.get("HostConfig") or {})
    host = HOST_DEFAULTS | {k: v for k, v in asked.items() if v is not None and v != ""}
    host["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0} | {
        k: v for k, v in (asked.get("RestartPolicy") or {}).items() if v
    }
    _check_restart(host["RestartPolicy"])
    _check_memory(host)
    if host["Memory"] and not host["MemorySwap"]:
        host["MemorySwap"] = 2 * host["Memory"]  # the engine's own default
    config = _config(image, body, identifier)
    return SimContainer(
        id=identifier,
        name=name,
        image=image,
        created=now,
        config=config,
        host=host,
        mounts=list(_mounts(image, host)),
        networks=dict(_endpoints(host["NetworkMode"], body)),
        argv=(*(config["Entrypoint"] or ()), *(config["Cmd"] or ())) or ("",),
    )


def without(body: Body, discarded: Collection[str]) -> Body:
    """Return a body without the members that the engine drops, wherever they are."""
    if not discarded:
        return body
    # A kernel without a memory cgroup has none for swap.
    gone = {*discarded, *(["MemorySwap"] if "Memory" in discarded else [])}
    left = {name: value for name, value in body.items() if name not in gone}
    if left.get("HostConfig"):
        left["HostConfig"] = {k: v for k, v in left["HostConfig"].items() if k not in gone}
    ends = (left.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    if ends:
        kept = {
            network: {k: v for k, v in end.items() if k not in gone}
            for network, end in ends.items()
        }
        left["NetworkingConfig"] = {"EndpointsConfig": kept}
    return left


def merged(own: Body, body: Body) -> Body:
    """Return a create's members of Config, completed by an image's (moby, ``daemon/commit.go``)."""
    asked = {key: value for key, value in body.items() if value and key not in _OWN}
    names = {entry.partition("=")[0] for entry in body.get("Env") or ()}
    env = [
        *(body.get("Env") or ()),
        *(e for e in own.get("Env") or () if e.partition("=")[0] not in names),
    ]
    config: Body = {
        **own,
        **asked,
        "Labels": {**(own.get("Labels") or {}), **(body.get("Labels") or {})},
        "Env": env,
    }
    for member in ("ExposedPorts", "Volumes"):
        if own.get(member) or body.get(member):
            config[member] = {**(own.get(member) or {}), **(body.get(member) or {})}
    if own.get("Healthcheck") and asked.get("Healthcheck"):
        given = {key: value for key, value in asked["Healthcheck"].items() if value}
        config["Healthcheck"] = {**own["Healthcheck"], **given}
    if asked.get("Entrypoint"):
        config["Cmd"] = asked.get("Cmd")  # an entrypoint of one's own drops the image's command
        if asked["Entrypoint"] == [""]:
            config["Entrypoint"] = None
    return config


def _config(image: SimImage, body: Body, identifier: str) -> Body:
    config: Body = {
        "Hostname": body.get("Hostname") or identifier[:12],
        "User": "",
        "Tty": False,
        "OpenStdin": False,
        **merged(image.inspect()["Config"], body),
        "Image": body.get("Image"),
    }
    if body.get("StopTimeout") is not None:
        config["StopTimeout"] = body["StopTimeout"]
    return config


def _mounts(image: SimImage, host: Body) -> Iterator[Body]:
    taken = set()
    for mount in host.get("Mounts") or ():
        taken.add(mount["Target"])
        shown: Body = {
            "Type": mount["Type"],
            "Source": mount.get("Source", ""),
            "Destination": mount["Target"],
            "Mode": "",
            "RW": not mount.get("ReadOnly", False),
            "Propagation": "",
        }
        if mount["Type"] == "volume":
            shown |= {"Name": mount.get("Source", ""), "Driver": "local", "Mode": "z"}
        yield shown
    for path in image.volumes:
        if path not in taken:
            yield {
                "Type": "volume",
                "Name": "",
                "Source": "",
                "Destination": path,
                "Driver": "local",
                "Mode": "",
                "RW": True,
                "Propagation": "",
            }


def _endpoints(mode: str, body: Body) -> Iterator[tuple[str, Endpoint]]:
    wanted = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    if mode.startswith("container:"):
        return
    main = "bridge" if mode == "default" else mode
    yield main, endpoint_of(wanted.get(main))
    for name, config in wanted.items():
        if name != main:
            yield name, endpoint_of(config)


def endpoint_of(config: Body | None) -> Endpoint:
    """Return a place in a network that is still to be taken."""
    config = config or {}
    chosen = (config.get("IPAMConfig") or {}).get("IPv4Address", "")
    return Endpoint(aliases=config.get("Aliases"), chosen=chosen)


def _check_restart(policy: Body) -> None:
    if policy["Name"] not in _POLICIES:
        choice = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        raise BadBody(f"invalid restart policy: unknown policy '{policy['Name']}'; {choice}")
    if policy["MaximumRetryCount"] and policy["Name"] != "on-failure":
        raise BadBody(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )


def _check_memory(limits: Body) -> None:
    memory, swap = limits.get("Memory") or 0, limits.get("MemorySwap") or 0
    if 0 < memory < MEMORY_MIN:
        raise BadBody("Minimum memory limit allowed is 6MB")
    if swap > 0 and not memory:
        raise BadBody("You should always set the Memory limit when using Memoryswap limit")
    if 0 < swap < memory:
        raise BadBody("Minimum memoryswap limit should be larger than memory limit, see usage")


def updated_host(host: Body, body: Body) -> Body:
    """Return a container's HostConfig after an update: 0 and '' mean "leave it".

    Raises:
        BadBody: the engine refuses it.
    """
    asked: dict[str, Any] = {k: body[k] for k in _LIMITS if body.get(k)}
    if "PidsLimit" in body and body["PidsLimit"] is not None:
        asked["PidsLimit"] = body["PidsLimit"] if body["PidsLimit"] > 0 else -1
    _check_memory(asked if "MemorySwap" in asked else {"Memory": asked.get("Memory")})
    grown = asked.get("Memory", 0)
    if grown and "MemorySwap" not in asked and 0 <= host["MemorySwap"] < grown:
        raise BadBody(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time",
            409,
        )
    changed = host | asked
    policy = body.get("RestartPolicy") or {}
    if policy.get("Name"):
        wanted = {"Name": policy["Name"], "MaximumRetryCount": policy.get("MaximumRetryCount") or 0}
        _check_restart(wanted)
        changed["RestartPolicy"] = wanted
    return changed


def anonymous_name(source: random.Random) -> str:
    """Return a name as the engine gives it to a volume without one."""
    return f"{source.getrandbits(256):064x}"
