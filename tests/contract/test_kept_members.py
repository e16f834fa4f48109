"""What an inspect shows of a create: for each member that the gate lets through, on both engines."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.enforcement.kept_settings import ignored_by_create, ignored_by_update
from controller.core.engine_api.field_reader import Posture
from controller.core.engine_api.field_tables import CONFIG, HOST_CONFIG, LEGACY_CPUSET
from controller.model.observed import Settings
from tests.contract.sides import WORKER, Conversation

MIB = 1024 * 1024
NETWORK = "contract-kept"
_HOST_NAMES = frozenset(entry.name for entry in HOST_CONFIG)
#: The value of each member of a create, and what the inspect shows if that is another value.
ROWS: dict[str, tuple[Any, ...]] = {
    "Hostname": ("here",),
    "Domainname": ("example.org",),
    "User": ("1000:1000",),
    "AttachStdin": (True,),
    "AttachStdout": (True,),
    "AttachStderr": (True,),
    "Tty": (True,),
    "OpenStdin": (True,),
    "StdinOnce": (True,),
    "ExposedPorts": ({"8081/tcp": {}},),
    "Env": (["COLOUR=blue"], ["COLOUR=blue", "PATH"]),
    "Cmd": (["one", "two"],),
    "Entrypoint": (["/bin/work"],),
    "Shell": (["/bin/sh", "-c"],),
    "Healthcheck": ({"Test": ["CMD", "check"], "Interval": 9_000_000_000, "Retries": 4},),
    "Image": (WORKER,),
    "Volumes": ({"/data": {}},),
    "WorkingDir": ("/tmp",),
    "Labels": ({"contract.test": "kept", "empty": ""},),
    "StopSignal": ("SIGINT",),
    "StopTimeout": (7,),
    "Memory": (64 * MIB,),
    "MemorySwap": (64 * MIB,),
    "MemoryReservation": (32 * MIB,),
    "MemorySwappiness": (10,),
    "NanoCpus": (500_000_000,),
    "CpuShares": (512,),
    "PidsLimit": (64,),
    "CpusetCpus": ("0",),
    "Devices": (
        [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/none", "CgroupPermissions": "rw"}],
    ),
    "Ulimits": ([{"Name": "nofile", "Soft": 64, "Hard": 64}],),
    "Binds": (["/tmp:/there:ro"],),
    "Mounts": ([{"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": MIB}}],),
    "LogConfig": ({"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},),
    "NetworkMode": (NETWORK,),
    "PortBindings": ({"8081/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18081"}]},),
    "RestartPolicy": ({"Name": "on-failure", "MaximumRetryCount": 3},),
    "CapAdd": (["CHOWN", "CAP_KILL"],),
    "CapDrop": (["ALL"],),
    "CgroupnsMode": ("private",),
    "Dns": (["192.0.2.1"],),
    "DnsOptions": (["ndots:2"],),
    "DnsSearch": (["example.org"],),
    "ExtraHosts": (["other:192.0.2.2"],),
    "GroupAdd": (["4000"],),
    "IpcMode": ("private",),
    "OomScoreAdj": (10,),
    "ReadonlyRootfs": (True,),
    "SecurityOpt": (["no-new-privileges:true"],),
    "Tmpfs": ({"/run": "rw,nosuid,nodev,noexec,size=1048576"},),
    "ShmSize": (MIB,),
    "Sysctls": ({"net.core.somaxconn": "64"},),
    "Runtime": ("runc",),
    "Init": (True,),
}
#: In place of the members of the same purpose.
OTHERS: dict[str, tuple[Any, ...]] = {
    "CpuQuota": (50_000,),
    "CpuPeriod": (100_000,),
    "AutoRemove": (True,),
}
#: Members without a row, each for its reason.
WITHOUT = {
    "HostConfig": "has a table of its own",
    "NetworkingConfig": "has a table of its own",
    "TrimtabEnv": "the gate's own",
    "TrimtabHooks": "the gate's own",
    "TrimtabShares": "the gate's own",
    "NetworkDisabled": "for containers without a network",
    "DeviceRequests": "needs a device that a specification describes",
    "StorageOpt": "needs a storage with quotas",
    "ConsoleSize": "of the first terminal",
    "Isolation": "Windows only",
}


def test_each_member_of_a_create_has_a_row() -> None:
    told = {
        entry.name
        for entry in (*CONFIG, *HOST_CONFIG)
        if entry.posture not in {Posture.DENY, Posture.DROP}
    }
    assert told == {*ROWS, *OTHERS, *WITHOUT} and LEGACY_CPUSET not in told


def _body(rows: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    sent = {name: row[0] for name, row in rows.items()}
    host = {name: sent.pop(name) for name in list(sent) if name in _HOST_NAMES}
    ends = {NETWORK: {"Aliases": ["web"]}} if "NetworkMode" in rows else {}
    return {**sent, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": ends}}


@pytest.mark.parametrize("rows", [ROWS, OTHERS], ids=["most", "others"])
def test_an_inspect_shows_every_member_of_a_create(
    say: Conversation, rows: dict[str, tuple[Any, ...]]
) -> None:
    if "NetworkMode" in rows:
        say.network(NETWORK)
    body = _body(rows)
    inspect = say.inspect(say.create("contract-kept", **body))
    shown = {**inspect["Config"], **inspect["HostConfig"]}
    expected = {name: row[-1] for name, row in rows.items()}
    seen = {name: _plain(name, shown[name], expected[name]) for name in rows}
    assert seen == expected
    assert ignored_by_create(body, Settings(name=""), inspect) == ()


def _plain(name: str, shown: Any, expected: Any) -> Any:
    """Return a shown value without what the engine or the image adds."""
    if name == "Env":
        return [text if text in expected else text.partition("=")[0] for text in shown]
    if name in {"Labels", "ExposedPorts", "Volumes"}:
        return {key: shown[key] for key in shown if key in expected}
    return shown


def test_an_inspect_shows_every_member_of_an_update(say: Conversation) -> None:
    host = {"Memory": 64 * MIB, "MemorySwap": 64 * MIB, "NanoCpus": 500_000_000}
    identifier = say.create("contract-kept", HostConfig=host)
    body = {
        "Memory": 32 * MIB,
        "MemorySwap": 32 * MIB,
        "MemoryReservation": 16 * MIB,
        "NanoCpus": 400_000_000,
        "CpuShares": 256,
        "CpusetCpus": "0",
        "PidsLimit": 32,
        "RestartPolicy": {"Name": "always"},
    }
    assert say.act(identifier, "update", body) == 200
    assert ignored_by_update(body, say.inspect(identifier)) == ()
