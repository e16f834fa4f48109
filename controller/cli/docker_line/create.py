"""``docker run`` and ``docker create``: their options into the body that the command would send.

Held to the real command by a test that compares what both send. Options that the gate refuses
whatever they say are written with a value, and no more of them is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from controller.cli.docker_line.options import (
    Given,
    LineError,
    count_of_bytes,
    fields,
    nano_cpus,
    nanoseconds,
    pairs,
    table,
    whole,
)
from controller.cli.docker_line.values import (
    Surroundings,
    bind,
    bindings,
    exposed,
    is_anonymous,
    mount,
    ulimit,
)
from controller.core.engine_api.requests import RequestBody

CREATE_OPTIONS = table(
    """
    a attach list
    add-host list
    annotation list
    blkio-weight text
    blkio-weight-device list
    cap-add list
    cap-drop list
    cgroup-parent text
    cgroupns text
    cidfile text
    cpu-count text
    cpu-percent text
    cpu-period text
    cpu-quota text
    cpu-rt-period text
    cpu-rt-runtime text
    c cpu-shares text
    cpus text
    cpuset-cpus text
    cpuset-mems text
    device list
    device-cgroup-rule list
    device-read-bps list
    device-read-iops list
    device-write-bps list
    device-write-iops list
    disable-content-trust flag
    dns list
    dns-opt=dns-option list
    dns-option list
    dns-search list
    domainname text
    entrypoint text
    e env list
    env-file list
    expose list
    gpus list
    group-add list
    health-cmd text
    health-interval text
    health-retries text
    health-start-interval text
    health-start-period text
    health-timeout text
    h hostname text
    init flag
    i interactive flag
    io-maxbandwidth text
    io-maxiops text
    ip text
    ip6 text
    ipc text
    isolation text
    kernel-memory text
    l label list
    label-file list
    link list
    link-local-ip list
    log-driver text
    log-opt list
    mac-address text
    m memory text
    memory-reservation text
    memory-swap text
    memory-swappiness text
    mount list
    name text
    net=network list
    network list
    net-alias=network-alias list
    network-alias list
    no-healthcheck flag
    oom-kill-disable flag
    oom-score-adj text
    pid text
    pids-limit text
    platform text
    privileged flag
    p publish list
    P publish-all flag
    pull text
    q quiet flag
    read-only flag
    restart text
    rm flag
    runtime text
    security-opt list
    shm-size text
    stop-signal text
    stop-timeout text
    storage-opt list
    sysctl list
    tmpfs list
    t tty flag
    ulimit list
    u user text
    userns text
    uts text
    v volume list
    volume-driver text
    volumes-from list
    w workdir text
    """
)
RUN_OPTIONS = {
    **CREATE_OPTIONS,
    **table("d detach flag\ndetach-keys text\nsig-proxy flag"),
}

#: Options that are one member of the body as it is.
_CONFIG_TEXTS = {
    "domainname": "Domainname",
    "hostname": "Hostname",
    "stop-signal": "StopSignal",
    "user": "User",
    "workdir": "WorkingDir",
}
_HOST_TEXTS = {
    "cgroup-parent": "CgroupParent",
    "cgroupns": "CgroupnsMode",
    "cidfile": "ContainerIDFile",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "ipc": "IpcMode",
    "isolation": "Isolation",
    "pid": "PidMode",
    "runtime": "Runtime",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "volume-driver": "VolumeDriver",
}
_HOST_LISTS = {
    "add-host": "ExtraHosts",
    "cap-add": "CapAdd",
    "cap-drop": "CapDrop",
    "device-cgroup-rule": "DeviceCgroupRules",
    "dns": "Dns",
    "dns-option": "DnsOptions",
    "dns-search": "DnsSearch",
    "group-add": "GroupAdd",
    "link": "Links",
    "volumes-from": "VolumesFrom",
    # Refused whatever they name.
    "blkio-weight-device": "BlkioWeightDevice",
    "device": "Devices",
    "device-read-bps": "BlkioDeviceReadBps",
    "device-read-iops": "BlkioDeviceReadIOps",
    "device-write-bps": "BlkioDeviceWriteBps",
    "device-write-iops": "BlkioDeviceWriteIOps",
    "gpus": "DeviceRequests",
}
_HOST_FLAGS = {
    "oom-kill-disable": "OomKillDisable",
    "privileged": "Privileged",
    "publish-all": "PublishAllPorts",
    "read-only": "ReadonlyRootfs",
    "rm": "AutoRemove",
}
_HOST_WHOLES = {
    "blkio-weight": "BlkioWeight",
    "cpu-count": "CpuCount",
    "cpu-percent": "CpuPercent",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "io-maxiops": "IOMaximumIOps",
    "memory-swappiness": "MemorySwappiness",
    "oom-score-adj": "OomScoreAdj",
    "pids-limit": "PidsLimit",
}
_HOST_BYTES = {
    "io-maxbandwidth": "IOMaximumBandwidth",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "shm-size": "ShmSize",
}
_HOST_PAIRS = {"annotation": "Annotations", "storage-opt": "StorageOpt", "sysctl": "Sysctls"}
#: Networks of the engine's own: the command sends no endpoint for them.
_NO_ENDPOINT = ("default", "bridge", "none", "host")


def create_body(given: Given, around: Surroundings, *, detached: bool) -> RequestBody:
    """Return the body of a create.

    Raises:
        LineError: a value can't be read, or no image is named.
    """
    if not given.words:
        raise LineError("no image is named")
    image, *command = given.words
    stdin = given.flag("interactive")
    attached = [word.lower() for word in given.all("attach")]
    body: RequestBody = {
        "Image": image,
        "AttachStdin": not detached and (stdin or "stdin" in attached),
        "AttachStdout": not detached and (not attached or "stdout" in attached),
        "AttachStderr": not detached and (not attached or "stderr" in attached),
        "Tty": given.flag("tty"),
        "OpenStdin": stdin,
        "StdinOnce": not detached and stdin,
        **{key: given.text(name) for name, key in _CONFIG_TEXTS.items() if given.has(name)},
        "Env": environment(given, around),
        "Labels": _labels(given, around),
        "Volumes": {text: {} for text in given.all("volume") if is_anonymous(text)},
        "ExposedPorts": {f"{port}/{protocol}": {} for port, protocol in exposed(given)},
        "Healthcheck": _healthcheck(given),
    }
    body |= {"Cmd": command} if command else {}
    if given.has("entrypoint"):
        body["Entrypoint"] = [given.text("entrypoint")]
    if given.has("stop-timeout"):
        body["StopTimeout"] = given.whole("stop-timeout")
    body["HostConfig"] = _host_config(given, around)
    body["NetworkingConfig"] = {"EndpointsConfig": _endpoints(given)}
    return body


def _host_config(given: Given, around: Surroundings) -> RequestBody:
    host: RequestBody = {"NetworkMode": _networks(given)[0][0] or "default"}
    host |= {key: given.text(name) for name, key in _HOST_TEXTS.items() if given.has(name)}
    host |= {key: list(given.all(name)) for name, key in _HOST_LISTS.items() if given.has(name)}
    host |= {key: given.flag(name) for name, key in _HOST_FLAGS.items() if given.has(name)}
    host |= {key: given.whole(name) for name, key in _HOST_WHOLES.items() if given.has(name)}
    host |= {key: pairs(given.all(name)) for name, key in _HOST_PAIRS.items() if given.has(name)}
    host |= memory_of(given, _HOST_BYTES)
    if given.has("cpus"):
        host["NanoCpus"] = nano_cpus(given.text("cpus"))
    if given.has("init"):
        host["Init"] = given.flag("init")
    host["RestartPolicy"] = restart(given.text("restart"))
    host["LogConfig"] = {"Type": given.text("log-driver"), "Config": pairs(given.all("log-opt"))}
    host["Binds"] = [bind(text, around) for text in given.all("volume") if not is_anonymous(text)]
    host["Mounts"] = [mount(text, around) for text in given.all("mount")]
    host["Tmpfs"] = {path: options for path, _, options in _split(given.all("tmpfs"), ":")}
    host["PortBindings"] = bindings(given)
    host["Ulimits"] = sorted((ulimit(t) for t in given.all("ulimit")), key=lambda u: str(u["Name"]))
    host |= _security(given)
    return host


def memory_of(given: Given, names: Mapping[str, str]) -> RequestBody:
    """Return the sizes that were given, by the body's names."""
    found = {}
    for name, key in names.items():
        if given.has(name):
            text = given.text(name)
            unlimited = name == "memory-swap" and text == "-1"
            found[key] = -1 if unlimited else count_of_bytes(text, name)
    return found


def _split(texts: Sequence[str], separator: str) -> Iterator[tuple[str, str, str]]:
    return (text.partition(separator) for text in texts)


def environment(given: Given, around: Surroundings) -> list[str]:
    """Return variables: those of files, then those of the line, the last of each name.

    A bare name has the value that it has here.
    """
    lines = [line for path in given.all("env-file") for line in _lines(around.read_file(path))]
    found = [_variable(text, around) for text in (*lines, *given.all("env"))]
    return list({text.partition("=")[0]: text for text in found}.values())


def _variable(text: str, around: Surroundings) -> str:
    if not text.partition("=")[0]:
        raise LineError(f"--env {text!r} names no variable")
    own = around.environ.get(text)
    return f"{text}={own}" if "=" not in text and own is not None else text


def _lines(text: str) -> list[str]:
    lines = (line.lstrip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _labels(given: Given, around: Surroundings) -> dict[str, str]:
    lines = [line for path in given.all("label-file") for line in _lines(around.read_file(path))]
    return pairs([*(line for line in lines if "=" in line), *given.all("label")])


def _healthcheck(given: Given) -> RequestBody | None:
    if given.flag("no-healthcheck"):
        return {"Test": ["NONE"]}
    names = {
        "health-interval": "Interval",
        "health-timeout": "Timeout",
        "health-start-period": "StartPeriod",
        "health-start-interval": "StartInterval",
    }
    check: RequestBody = {
        k: nanoseconds(given.text(n), n) for n, k in names.items() if given.has(n)
    }
    if given.has("health-retries"):
        check["Retries"] = given.whole("health-retries")
    if given.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", given.text("health-cmd")]
    return check or None


def restart(text: str) -> RequestBody:
    """Return a restart policy of ``NAME[:RETRIES]``."""
    name, colon, count = text.partition(":")
    return {"Name": name or "no", "MaximumRetryCount": whole(count, "restart") if colon else 0}


def _security(given: Given) -> RequestBody:
    options: list[str] = []
    found: RequestBody = {}
    for text in given.all("security-opt"):
        if text == "systempaths=unconfined":
            found = {"MaskedPaths": [], "ReadonlyPaths": []}
        else:
            options.append(text)
    return {"SecurityOpt": options, **found}


def _networks(given: Given) -> list[tuple[str, dict[str, list[str]]]]:
    """Return each network with its long form's fields; ('', {}) where none is named."""
    found: list[tuple[str, dict[str, list[str]]]] = []
    for text in given.all("network"):
        if "=" not in text:
            found.append((text, {}))
            continue
        members: dict[str, list[str]] = {}
        for key, value in fields(text, "network"):
            if key not in {
                "name",
                "alias",
                "ip",
                "ip6",
                "mac-address",
                "link-local-ip",
                "driver-opt",
            }:
                raise LineError(f"--network: unknown field {key!r}")
            members.setdefault(key, []).append(value)
        found.append((members.pop("name", [""])[-1], members))
    return found or [("", {})]


def _endpoints(given: Given) -> RequestBody:
    endpoints: RequestBody = {}
    for index, (name, long) in enumerate(_networks(given)):
        members = {key: list(values) for key, values in long.items()}
        if index == 0:  # the options beside --network mean the first one
            members.setdefault("alias", []).extend(given.all("network-alias"))
            for key in ("ip", "ip6", "mac-address", "link-local-ip"):
                members.setdefault(key, []).extend(given.all(key))
        endpoint = _endpoint(members)
        if endpoint or (name not in _NO_ENDPOINT and not name.startswith("container:")):
            endpoints[name or "default"] = endpoint
    return endpoints


def _endpoint(members: Mapping[str, list[str]]) -> RequestBody:
    addresses = {k: members[k] for k in ("ip", "ip6", "link-local-ip") if members.get(k)}
    endpoint: RequestBody = {"IPAMConfig": addresses} if addresses else {}
    endpoint |= {"Aliases": members["alias"]} if members.get("alias") else {}
    endpoint |= {"MacAddress": members["mac-address"][-1]} if members.get("mac-address") else {}
    if members.get("driver-opt"):
        endpoint["DriverOpts"] = pairs(members["driver-opt"])
    return endpoint
