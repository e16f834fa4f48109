"""What an admitted request makes of the engine: predicted from its meaning alone, by strict's words.

Nothing of the gate is used here. A prediction is a whole object as the engine shows it: what a
request doesn't speak of is as it was before, or as it is where nothing was asked for (*plain*),
so that whatever else came through would show. ``None`` predicts that the object is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from controller.model import names
from tests.gate.meanings import Asked

Shown = dict[str, Any]

GIB = 1024**3
#: By strict.yaml: what nobody asked for.
MEMORY, NANO_CPUS, PIDS = 2 * GIB, 10**9, 256
LOG = {"max-size": "10485760", "max-file": "3"}
TMPFS_BYTES = 64 * 1024**2
FLAGS = ["nosuid", "nodev", "noexec"]
_SIZES = {"1m": 1024**2, "64k": 64 * 1024}
_MODES = {
    "none": "none",
    "": "platform-network",
    "default": "platform-network",
    "bridge": "platform-bridge",
    "alice-isle": "alice-isle",
}


def container(told: Shown) -> Shown:
    """Return of a container's inspect what requests decide, in one form."""
    config, host = deepcopy(told["Config"]), deepcopy(told["HostConfig"])
    config["Labels"].pop(names.INTENT)
    host["CapAdd"] = [cap.removeprefix("CAP_") for cap in host["CapAdd"] or ()]
    host["Tmpfs"] = {at: sorted(how.split(",")) for at, how in (host.get("Tmpfs") or {}).items()}
    joined = told["NetworkSettings"]["Networks"]
    state = told["State"]
    return {
        "Name": told["Name"],
        "Image": told["Image"],
        "Config": config,
        "HostConfig": host,
        "Networks": {name: sorted(end["Aliases"] or ()) for name, end in joined.items()},
        "Mounts": sorted(
            [
                m["Type"],
                m.get("Name") or m.get("Source", ""),
                m["Destination"],
                m["RW"],
                m["Propagation"],
            ]
            for m in told["Mounts"]
        ),
        "State": {"Running": state["Running"], "Paused": state["Paused"]},
    }


def created(asked: Asked, plain: Shown, *, identifier: str, image: Shown, cpus: int) -> Shown:
    """Return the container that a create makes; *plain* is one that asked for nothing."""
    body = asked.body or {}
    # Whatever says "unset" says nothing, but of Init, where false is an answer.
    told = body.get("HostConfig") or {}
    host = {
        name: value for name, value in told.items() if value or (name, value) == ("Init", False)
    }
    shown = deepcopy(plain)
    shown["Name"] = f"/{asked.about}"
    meant = {**body, "HostConfig": host}
    shown["Config"] = _config(meant, plain["Config"], identifier, image)
    shown["HostConfig"] = _host(host, plain["HostConfig"], cpus)
    mode = _MODES[host.get("NetworkMode", "")]
    shown["HostConfig"]["NetworkMode"] = mode
    networks = [mode] + (["platform-ingress"] if host.get("PortBindings") else [])
    shown["Networks"] = {name: [] for name in networks}
    shown["Mounts"] = sorted(_shown_mounts(host))
    return shown


def _config(body: Shown, plain: Shown, identifier: str, image: Shown) -> Shown:
    config = deepcopy(plain)
    config["Hostname"] = body.get("Hostname") or identifier[:12]
    for name in ("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"):
        config[name] = body.get(name, False)
    for name in ("Domainname", "WorkingDir", "StopSignal", "Shell"):
        if body.get(name):
            config[name] = body[name]
    if user := body.get("User"):
        # By number alone in the group of that number, not in one of the image's choice.
        number = user.replace("root", "0")
        config["User"] = number if ":" in number else f"{number}:{number}"
    if "StopTimeout" in body:
        config["StopTimeout"] = body["StopTimeout"]
    ports = {
        *body.get("ExposedPorts", {}),
        *body["HostConfig"].get("PortBindings", {}),
    }
    if ports:
        config["ExposedPorts"] = {port: {} for port in ports}
    own = {entry.partition("=")[0] for entry in body.get("Env", ())}
    config["Env"] = [
        *body.get("Env", ()),
        *(entry for entry in image.get("Env") or () if entry.partition("=")[0] not in own),
    ]
    if entrypoint := _listed(body.get("Entrypoint")):
        config |= {"Entrypoint": entrypoint, "Cmd": None}
    if command := _listed(body.get("Cmd")):
        config["Cmd"] = command
    check = {name: value for name, value in body.get("Healthcheck", {}).items() if value}
    if check:
        config["Healthcheck"] = check
    config["Labels"] = {**config["Labels"], **body["Labels"]}
    return config


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _host(host: Shown, plain: Shown, cpus: int) -> Shown:
    shown = deepcopy(plain)
    shown |= _limits(host, cpus)
    for name in ("AutoRemove", "ReadonlyRootfs", "OomScoreAdj", "Init"):
        if name in host:
            shown[name] = host[name]
    for name in ("IpcMode", "CgroupnsMode", "Runtime", "ShmSize", "Ulimits", "Isolation"):
        if host.get(name):
            shown[name] = host[name]
    if any(host.get("ConsoleSize", ())):
        shown["ConsoleSize"] = host["ConsoleSize"]
    caps = (cap.upper().removeprefix("CAP_") for cap in host.get("CapAdd", ()))
    shown["CapAdd"] = list(dict.fromkeys(caps))
    shown["LogConfig"] = _log(host.get("LogConfig", {}))
    shown |= _bindings(host.get("PortBindings", {}))
    if host.get("Binds"):
        shown["Binds"] = host["Binds"]
    shown["Tmpfs"] = {at: _tmpfs(how) for at, how in host.get("Tmpfs", {}).items()}
    if host.get("Mounts"):
        shown["Mounts"] = [_mount(mount) for mount in host["Mounts"]]
    return shown


def _limits(host: Shown, cpus: int) -> Shown:
    memory = host.get("Memory") or MEMORY
    quota = host.get("CpuQuota", 0)
    return {
        "Memory": memory,
        "MemorySwap": memory,
        "MemoryReservation": host.get("MemoryReservation", 0),
        "NanoCpus": 0 if quota else host.get("NanoCpus") or min(NANO_CPUS, cpus * 10**9),
        "CpuQuota": quota,
        "CpuPeriod": host.get("CpuPeriod", 0),
        "CpuShares": host.get("CpuShares", 0),
        "PidsLimit": host.get("PidsLimit") or PIDS,
        "RestartPolicy": _restart(host.get("RestartPolicy") or {"Name": "no"}),
    }


def _restart(restart: Shown) -> Shown:
    return {"Name": restart["Name"], "MaximumRetryCount": restart.get("MaximumRetryCount", 0)}


def _log(log: Shown) -> Shown:
    options = dict(log.get("Config", {}))
    if "max-size" not in options:
        options = {**LOG, **options}
    return {"Type": log.get("Type") or "json-file", "Config": options}


def _bindings(bindings: Shown) -> Shown:
    told = {
        port: [
            {
                "HostIp": each.get("HostIp") or "127.0.0.1",
                "HostPort": "" if each["HostPort"] == "0" else each["HostPort"],
            }
            for each in some
        ]
        for port, some in bindings.items()
    }
    return {"PortBindings": told} if told else {}


def _tmpfs(how: str) -> list[str]:
    asked = {part.partition("=")[0]: part.partition("=")[2] for part in how.split(",")}
    size = _SIZES[asked["size"]] if "size" in asked else TMPFS_BYTES
    mode = [f"mode={asked['mode']}"] if "mode" in asked else []
    return sorted(["ro" if "ro" in asked else "rw", *FLAGS, f"size={size}", *mode])


def _mount(mount: Shown) -> Shown:
    shown: Shown = {
        key: mount[key] for key in ("Type", "Source", "Target", "ReadOnly") if key in mount
    }
    if mount["Type"] == "tmpfs":
        options = {"SizeBytes": TMPFS_BYTES, **mount["TmpfsOptions"]}
        shown["TmpfsOptions"] = options
    for name in ("BindOptions", "VolumeOptions"):
        if name in mount:
            shown[name] = mount[name]
    return shown


def _shown_mounts(host: Shown) -> list[list[Any]]:
    found = []
    for bind in host.get("Binds", ()):
        source, target, *access = bind.split(":")
        bound = source.startswith("/")
        rw = access != ["ro"]
        found.append(
            ["bind" if bound else "volume", source, target, rw, "rprivate" if bound else ""]
        )
    for mount in host.get("Mounts", ()):
        if mount["Type"] == "tmpfs":
            found.append(["tmpfs", "", mount["Target"], True, ""])
        else:
            bound = mount["Type"] == "bind"
            rw = not mount.get("ReadOnly", False)
            found.append(
                [mount["Type"], mount["Source"], mount["Target"], rw, "rprivate" if bound else ""]
            )
    return found


def updated(asked: Asked, before: Shown) -> Shown | None:
    """Return a container after an update; None where that must be refused."""
    body = asked.body or {}
    shown = deepcopy(before)
    host = shown["HostConfig"]
    if "Memory" in body:
        host |= {"Memory": body["Memory"], "MemorySwap": body["Memory"]}
    for name in ("MemoryReservation", "NanoCpus", "CpuShares", "PidsLimit"):
        if name in body:
            host[name] = body[name]
    if "RestartPolicy" in body:
        host["RestartPolicy"] = _restart(body["RestartPolicy"])
    return shown


def released(asked: Asked, before: Shown) -> Shown:
    """Return a container after its release: what runs is restarted by the engine from now on."""
    shown = deepcopy(before)
    keeps = (asked.body or {}).get("keepRestart", False)
    if (
        asked.state == "running"
        and not keeps
        and before["HostConfig"]["RestartPolicy"]["Name"] == "no"
    ):
        shown["HostConfig"]["RestartPolicy"] = _restart({"Name": "unless-stopped"})
    return shown


def after_signal(asked: Asked, before: Shown) -> Shown:
    """Return a container after start, stop, restart, kill, pause or unpause."""
    verb = asked.path.rpartition("/")[2]
    fatal = ("signal", "SIGKILL"), ("signal", "KILL"), ("signal", "9")
    state = dict(before["State"])
    match verb:
        case "start" | "restart":
            state["Running"] = True
        case "stop":
            state["Running"] = False
        case "kill":
            state["Running"] = not any(pair in fatal for pair in asked.query)
        case _:
            state["Paused"] = verb == "pause"
    return {**before, "State": state}


def renamed(asked: Asked, before: Shown) -> Shown:
    """Return a container after a rename."""
    return {**before, "Name": f"/{dict(asked.query)['name']}"}


def connected(asked: Asked, before: Shown) -> Shown:
    """Return a container after it joined a network."""
    config = (asked.body or {}).get("EndpointConfig", {})
    return {
        **before,
        "Networks": {**before["Networks"], asked.about: sorted(config.get("Aliases") or ())},
    }


def disconnected(asked: Asked, before: Shown) -> Shown:
    """Return a container after it left a network."""
    rest = {name: aliases for name, aliases in before["Networks"].items() if name != asked.about}
    return {**before, "Networks": rest}


def network(told: Shown) -> Shown:
    """Return of a network's inspect what requests decide."""
    shown = {key: value for key, value in told.items() if key not in {"Id", "Created"}}
    shown["Labels"] = {k: v for k, v in told["Labels"].items() if k != names.INTENT}
    # Which addresses it gets is the engine's to choose.
    shown["IPAM"] = {**told["IPAM"], "Config": len(told["IPAM"]["Config"])}
    return shown


def network_made(asked: Asked, plain: Shown) -> Shown:
    """Return the network that a create makes: like a plain one, and internal whatever is asked."""
    body = asked.body or {}
    return {
        **plain,
        "Name": body["Name"],
        "Internal": True,
        "Labels": {**plain["Labels"], **body["Labels"]},
    }


def volume(told: Shown) -> Shown:
    """Return of a volume's inspect what requests decide."""
    labels = {k: v for k, v in told["Labels"].items() if k != names.INTENT}
    kept = {key: value for key, value in told.items() if key not in {"CreatedAt", "Mountpoint"}}
    return {**kept, "Labels": labels}


def volume_made(asked: Asked, plain: Shown) -> Shown:
    """Return the volume that a create makes: a plain one, with the labels that were asked for."""
    body = asked.body or {}
    return {**plain, "Name": body["Name"], "Labels": {**plain["Labels"], **body["Labels"]}}


def sent_query(asked: Asked) -> Mapping[str, str]:
    """Return the parameters that should reach the engine: those that mean something, rewritten."""
    given = dict(asked.query)
    match asked.route:
        case "image.pull":
            repository, _, digest = given["fromImage"].partition("@")
            at, colon, tag = repository.rpartition(":")
            named = digest or given.get("tag") or (tag if colon else "")
            return {"fromImage": at if colon and not digest else repository, "tag": named}
        case "container.remove":
            return {"force": "1"} if given.get("force") in {"1", "true"} else {}
        case "volume.remove":
            return {}
        case _:
            return given
