"""Commands of docker's, each as the requests that it sends: tables of options, and their makers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.cli.docker_line.create import (
    CREATE_OPTIONS,
    RUN_OPTIONS,
    create_body,
    environment,
    memory_of,
    restart,
)
from controller.cli.docker_line.options import Given, LineError, Table, nano_cpus, pairs, table
from controller.cli.docker_line.values import Surroundings
from controller.core.engine_api.requests import RequestBody


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: ``path`` without a version, ``query`` decoded, ``body`` None for none."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: RequestBody | None = None


@dataclass(frozen=True, slots=True)
class DockerCommand:
    """How a command's line is read. ``make`` gives its requests, all of them in order."""

    options: Table
    make: Callable[[Given, Surroundings], Iterator[Asked]]
    anywhere: bool = True  # options may stand behind other words


def _words(given: Given, least: int, *, most: int | None = None) -> tuple[str, ...]:
    if len(given.words) < least or (most is not None and len(given.words) > most):
        bound = f"{least}" if most == least else f"at least {least}"
        raise LineError(f"expected {bound} arguments beside the options, not {len(given.words)}")
    return given.words


def _query(given: Given, names: Mapping[str, str]) -> dict[str, str]:
    """Return parameters of options: a flag that is set is 1."""
    told = {names[name]: given.text(name) for name in names if given.has(name)}
    words = {"true": "1", "false": ""}
    return {key: words.get(text, text) for key, text in told.items() if words.get(text, text)}


def _each(
    method: str,
    path: str,
    options: str = "",
    query: Mapping[str, str] | None = None,
    fixed: Mapping[str, str] | None = None,
) -> DockerCommand:
    """A command that sends one request for each object that it names."""

    def make(given: Given, _: Surroundings) -> Iterator[Asked]:
        for name in _words(given, 1):
            parameters = {**(fixed or {}), **_query(given, query or {})}
            yield Asked(method, path.replace("{}", name), parameters)

    return DockerCommand(table(options), make)


def _once(
    method: str, path: str, options: str = "", query: Mapping[str, str] | None = None
) -> DockerCommand:
    """A command that sends one request, whatever else it names."""

    def make(given: Given, _: Surroundings) -> Iterator[Asked]:
        yield Asked(method, path, _query(given, query or {}))

    return DockerCommand(table(options), make)


def _create(given: Given, around: Surroundings) -> Iterator[Asked]:
    query = {name: given.text(name) for name in ("name", "platform") if given.text(name)}
    body = create_body(given, around, detached=given.flag("detach"))
    yield Asked("POST", "/containers/create", query, body)


def _run(given: Given, around: Surroundings) -> Iterator[Asked]:
    yield from _create(given, around)
    container = f"/containers/{given.text('name') or 'CONTAINER'}"
    if not given.flag("detach"):
        streams = {"stream": "1", "stdout": "1", "stderr": "1"}
        streams |= {"stdin": "1"} if given.flag("interactive") else {}
        yield Asked("POST", f"{container}/attach", streams)
    condition = "removed" if given.flag("rm") else "next-exit"
    yield Asked("POST", f"{container}/wait", {"condition": condition})
    yield Asked("POST", f"{container}/start")


def _exec(given: Given, around: Surroundings) -> Iterator[Asked]:
    container, *command = _words(given, 2)
    detached = given.flag("detach")
    body: RequestBody = {
        "Cmd": command,
        "Env": environment(given, around),
        "User": given.text("user"),
        "WorkingDir": given.text("workdir"),
        "Privileged": given.flag("privileged"),
        "Tty": given.flag("tty"),
        "AttachStdin": given.flag("interactive") and not detached,
        "AttachStdout": not detached,
        "AttachStderr": not detached,
        "DetachKeys": given.text("detach-keys"),
    }
    yield Asked("POST", f"/containers/{container}/exec", {}, body)


_UPDATE_WHOLES = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "pids-limit": "PidsLimit",
}
_UPDATE_BYTES = {
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
}


def _update(given: Given, _: Surroundings) -> Iterator[Asked]:
    texts = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}
    body: RequestBody = {key: given.text(name) for name, key in texts.items() if given.has(name)}
    body |= {key: given.whole(name) for name, key in _UPDATE_WHOLES.items() if given.has(name)}
    body |= memory_of(given, _UPDATE_BYTES)
    body |= {"NanoCpus": nano_cpus(given.text("cpus"))} if given.has("cpus") else {}
    body |= {"RestartPolicy": restart(given.text("restart"))} if given.has("restart") else {}
    for container in _words(given, 1):
        yield Asked("POST", f"/containers/{container}/update", {}, body)


def _rename(given: Given, _: Surroundings) -> Iterator[Asked]:
    container, name = _words(given, 2, most=2)
    yield Asked("POST", f"/containers/{container}/rename", {"name": name})


def _top(given: Given, _: Surroundings) -> Iterator[Asked]:
    container, *options = _words(given, 1)
    query = {"ps_args": " ".join(options)} if options else {}
    yield Asked("GET", f"/containers/{container}/top", query)


def _copy(given: Given, _: Surroundings) -> Iterator[Asked]:
    source, target = _words(given, 2, most=2)
    if (":" in source) == (":" in target):
        raise LineError("one of the two is CONTAINER:PATH")
    method, place = ("GET", source) if ":" in source else ("PUT", target)
    container, path = place.split(":", 1)
    yield Asked(method, f"/containers/{container}/archive", {"path": path})


def _logs(given: Given, _: Surroundings) -> Iterator[Asked]:
    (container,) = _words(given, 1, most=1)
    names = ("follow", "timestamps", "details", "since", "until", "tail")
    query = {"stdout": "1", "stderr": "1"} | _query(given, {name: name for name in names})
    yield Asked("GET", f"/containers/{container}/logs", query)


def _pull(given: Given, _: Surroundings) -> Iterator[Asked]:
    (reference,) = _words(given, 1, most=1)
    name, at, digest = reference.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    query = {"fromImage": f"{head}{slash}{last}"}
    if not given.flag("all-tags"):
        query["tag"] = digest if at else (tag if colon else "latest")
    query |= _query(given, {"platform": "platform"})
    yield Asked("POST", "/images/create", query)


def _network_create(given: Given, _: Surroundings) -> Iterator[Asked]:
    (name,) = _words(given, 1, most=1)
    ipam = [given.all(key) for key in ("subnet", "gateway", "ip-range", "aux-address")]
    body: RequestBody = {
        "Name": name,
        "Driver": given.text("driver") or "bridge",
        "Internal": given.flag("internal"),
        "Attachable": given.flag("attachable"),
        "Ingress": given.flag("ingress"),
        "ConfigOnly": given.flag("config-only"),
        "ConfigFrom": {"Network": given.text("config-from")} if given.has("config-from") else None,
        "EnableIPv6": given.flag("ipv6"),
        "Scope": given.text("scope"),
        "Options": pairs(given.all("opt")),
        "Labels": pairs(given.all("label")),
        "IPAM": {
            "Driver": given.text("ipam-driver") or "default",
            "Config": [list(values) for values in ipam if values],
            "Options": pairs(given.all("ipam-opt")),
        },
    }
    yield Asked("POST", "/networks/create", {}, body)


def _connect(given: Given, _: Surroundings) -> Iterator[Asked]:
    network, container = _words(given, 2, most=2)
    addresses = {k: given.all(k) for k in ("ip", "ip6", "link-local-ip") if given.has(k)}
    endpoint: RequestBody = {
        "Aliases": list(given.all("alias")),
        "Links": list(given.all("link")),
        "IPAMConfig": addresses,
        "DriverOpts": pairs(given.all("driver-opt")),
    }
    body = {"Container": container, "EndpointConfig": endpoint}
    yield Asked("POST", f"/networks/{network}/connect", {}, body)


def _disconnect(given: Given, _: Surroundings) -> Iterator[Asked]:
    network, container = _words(given, 2, most=2)
    body = {"Container": container, "Force": given.flag("force")}
    yield Asked("POST", f"/networks/{network}/disconnect", {}, body)


def _volume_create(given: Given, _: Surroundings) -> Iterator[Asked]:
    name = given.words[0] if given.words else given.text("name")
    body: RequestBody = {
        "Name": name,
        "Driver": given.text("driver") or "local",
        "DriverOpts": pairs(given.all("opt")),
        "Labels": pairs(given.all("label")),
    }
    yield Asked("POST", "/volumes/create", {}, body)


_C = "/containers/{}"
_STOP = "t time text\ntimeout=time text\ns signal text"
_FORMAT = "format text"
_PS = "a all flag\nf filter list\nformat text\nn last text\nl latest flag\nno-trunc flag\nq quiet flag\ns size flag"
_IMAGES = (
    "a all flag\ndigests flag\nf filter list\nformat text\nno-trunc flag\nq quiet flag\ntree flag"
)
_LS = "f filter list\nformat text\nno-trunc flag\nq quiet flag"
_START = DockerCommand(
    table(
        "a attach flag\ni interactive flag\ndetach-keys text\ncheckpoint text\ncheckpoint-dir text"
    ),
    _each(
        "POST", f"{_C}/start", "", {"checkpoint": "checkpoint", "checkpoint-dir": "checkpoint-dir"}
    ).make,
)
_PS_COMMAND = _once("GET", "/containers/json", _PS, {"all": "all", "size": "size", "last": "limit"})
_IMAGE_LIST = _once("GET", "/images/json", _IMAGES, {"all": "all", "digests": "digests"})
_PULL = DockerCommand(
    table("a all-tags flag\ndisable-content-trust flag\nplatform text\nq quiet flag"), _pull
)
_RMI = _each(
    "DELETE", "/images/{}", "f force flag\nno-prune flag", {"force": "force", "no-prune": "noprune"}
)
_HISTORY = _each(
    "GET", "/images/{}/history", "format text\nH human flag\nno-trunc flag\nq quiet flag"
)

COMMANDS: dict[str, DockerCommand] = {
    "run": DockerCommand(RUN_OPTIONS, _run, anywhere=False),
    "create": DockerCommand(CREATE_OPTIONS, _create, anywhere=False),
    "exec": DockerCommand(
        table(
            "d detach flag\ndetach-keys text\ne env list\nenv-file list\ni interactive flag\n"
            "privileged flag\nt tty flag\nu user text\nw workdir text"
        ),
        _exec,
        anywhere=False,
    ),
    "update": DockerCommand(
        table(
            "blkio-weight text\ncpu-period text\ncpu-quota text\ncpu-rt-period text\n"
            "cpu-rt-runtime text\nc cpu-shares text\ncpus text\ncpuset-cpus text\ncpuset-mems text\n"
            "kernel-memory text\nm memory text\nmemory-reservation text\nmemory-swap text\n"
            "pids-limit text\nrestart text"
        ),
        _update,
    ),
    "start": _START,
    "stop": _each("POST", f"{_C}/stop", _STOP, {"time": "t", "signal": "signal"}),
    "restart": _each("POST", f"{_C}/restart", _STOP, {"time": "t", "signal": "signal"}),
    "kill": _each("POST", f"{_C}/kill", "s signal text", {"signal": "signal"}),
    "pause": _each("POST", f"{_C}/pause"),
    "unpause": _each("POST", f"{_C}/unpause"),
    "rename": DockerCommand({}, _rename),
    "rm": _each(
        "DELETE",
        _C,
        "f force flag\nl link flag\nv volumes flag",
        {"force": "force", "link": "link", "volumes": "v"},
    ),
    "wait": _each("POST", f"{_C}/wait"),
    "attach": _each(
        "POST",
        f"{_C}/attach",
        "detach-keys text\nno-stdin flag\nsig-proxy flag",
        fixed={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"},
    ),
    "logs": DockerCommand(
        table(
            "details flag\nf follow flag\nsince text\nn tail text\nt timestamps flag\nuntil text"
        ),
        _logs,
    ),
    "inspect": _each(
        "GET", f"{_C}/json", "f format text\ns size flag\ntype text", {"size": "size"}
    ),
    "port": DockerCommand(
        {}, lambda given, _: iter([Asked("GET", f"/containers/{_words(given, 1)[0]}/json")])
    ),
    "top": DockerCommand({}, _top, anywhere=False),
    "stats": _each(
        "GET",
        f"{_C}/stats",
        "a all flag\nformat text\nno-stream flag\nno-trunc flag",
        fixed={"stream": "1"},
    ),
    "diff": _each("GET", f"{_C}/changes"),
    "export": _each("GET", f"{_C}/export", "o output text"),
    "cp": DockerCommand(table("a archive flag\nL follow-link flag\nq quiet flag"), _copy),
    "ps": _PS_COMMAND,
    "container ls": _PS_COMMAND,
    "container list": _PS_COMMAND,
    "container ps": _PS_COMMAND,
    "images": _IMAGE_LIST,
    "image ls": _IMAGE_LIST,
    "pull": _PULL,
    "image pull": _PULL,
    "rmi": _RMI,
    "image rm": _RMI,
    "history": _HISTORY,
    "image history": _HISTORY,
    "image inspect": _each("GET", "/images/{}/json", "f format text"),
    "network ls": _once("GET", "/networks", _LS),
    "network create": DockerCommand(
        table(
            "attachable flag\naux-address list\nconfig-from text\nconfig-only flag\nd driver text\n"
            "gateway list\ningress flag\ninternal flag\nip-range list\nipam-driver text\n"
            "ipam-opt list\nipv6 flag\nlabel list\no opt list\nscope text\nsubnet list"
        ),
        _network_create,
    ),
    "network rm": _each("DELETE", "/networks/{}", "f force flag"),
    "network inspect": _each(
        "GET", "/networks/{}", "f format text\nv verbose flag", {"verbose": "verbose"}
    ),
    "network connect": DockerCommand(
        table("alias list\ndriver-opt list\nip text\nip6 text\nlink list\nlink-local-ip list"),
        _connect,
    ),
    "network disconnect": DockerCommand(table("f force flag"), _disconnect),
    "volume ls": _once("GET", "/volumes", f"cluster flag\n{_LS}"),
    "volume create": DockerCommand(
        table("d driver text\nlabel list\nname text\no opt list"), _volume_create
    ),
    "volume rm": _each("DELETE", "/volumes/{}", "f force flag", {"force": "force"}),
    "volume inspect": _each("GET", "/volumes/{}", "f format text"),
    "version": _once("GET", "/version", "f format text"),
    "info": _once("GET", "/info", "f format text"),
    "system info": _once("GET", "/info", "f format text"),
    "system df": _once("GET", "/system/df", "format text\nv verbose flag"),
    "events": _once(
        "GET",
        "/events",
        f"f filter list\n{_FORMAT}\nsince text\nuntil text",
        {"since": "since", "until": "until"},
    ),
}
COMMANDS["system events"] = COMMANDS["events"]
