"""The judge of the gate's cases, on made-up traffic: what it must find wrong, it finds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.gate import meant, words
from tests.gate.fixtures import Knobs
from tests.gate.tap import Tapped
from tests.gate.wire import Answer, dechunked

OWN = "ab" * 32
IMAGE = "sha256:" + "cd" * 32


def tapped(body: object, target: str = "/v1.45/containers/create?name=a") -> Tapped:
    return Tapped("POST", target, b"POST x\r\n\r\n" + json.dumps(body).encode())


@pytest.mark.parametrize(
    ("sent", "got", "wrong"),
    [
        ({"Cmd": ["a"]}, {"Cmd": ["a"]}, []),
        ({"Cmd": "a"}, {"Cmd": ["a"]}, []),
        ({"Cmd": ["a"]}, {}, ["Cmd: ['a'] became None"]),
        ({"Cmd": ["a"]}, {"Cmd": ["a", "b"]}, ["Cmd: ['a'] became ['a', 'b']"]),
        ({"Tty": False, "Env": None, "HostConfig": {"Memory": 0}}, {}, []),
        ({"Image": "web:1"}, {"Image": IMAGE}, []),
        ({"Image": "web:1"}, {"Image": "web:1"}, []),
        ({"Image": "web:1"}, {"Image": "other:1"}, ["Image: 'web:1' became 'other:1'"]),
        ({}, {"Labels": {"io.trimtab.owner": "alice"}}, []),
        ({}, {"Labels": {"x": "y"}}, ["Labels.x: 'y' was added"]),
        ({}, {"HostConfig": {"Privileged": True}}, ["HostConfig.Privileged: True was added"]),
        ({}, {"HostConfig": {"CapAdd": ["CHOWN"]}}, ["HostConfig.CapAdd: ['CHOWN'] was added"]),
        (
            {"HostConfig": {"CapAdd": ["cap_chown"]}},
            {"HostConfig": {"CapAdd": ["CHOWN"]}},
            [],
        ),
        (
            {"HostConfig": {"Memory": 64}},
            {"HostConfig": {"Memory": 65}},
            ["HostConfig.Memory: 64 became 65"],
        ),
        (
            {"HostConfig": {"Mounts": [{"Target": "/a", "ReadOnly": True}]}},
            {"HostConfig": {"Mounts": [{"Target": "/a"}]}},
            ["HostConfig.Mounts.0.ReadOnly: True became None"],
        ),
        ({"Container": "web"}, {"Container": OWN}, []),
        ({"Container": "web"}, {"Container": "web2"}, ["Container: 'web' became 'web2'"]),
    ],
)
def test_what_was_meant_is_compared_field_by_field(sent: Any, got: Any, wrong: list[str]) -> None:
    assert meant.differences(sent, tapped(got), own=OWN) == wrong


@pytest.mark.parametrize(
    ("sent", "target", "wrong"),
    [
        ("signal=SIGHUP", "/x?signal=SIGHUP", []),
        ("signal=SIGHUP", "/x", ["?signal=SIGHUP became None"]),
        ("force=1&v=1", "/x?force=1", []),
        ("force=1&v=1", "/x?force=1&v=1", ["?v was passed on"]),
        ("force=true", "/x?force=1", []),
        ("follow=0", "/x", []),
        ('filters={"type":["a"]}', '/x?filters={"type":["a"],"label":["b"]}', []),
        (
            'filters={"type":["a"]}',
            '/x?filters={"label":["b"]}',
            ['?filters={"type":["a"]} became \'{"label":["b"]}\''],
        ),
    ],
)
def test_parameters_reach_the_engine_as_they_were_meant(
    sent: str, target: str, wrong: list[str]
) -> None:
    assert meant.query_differences(sent, Tapped("POST", target, b"")) == wrong


@pytest.mark.parametrize(
    ("sent", "target", "wrong"),
    [
        ("limit=-1", "/containers/json", []),
        ("limit=-1", "/images/json", ["?limit=-1 became None"]),
        ("detachKeys=ctrl-c", "/containers/x/start", []),
        ("detachKeys=ctrl-c", "/containers/x/attach", ["?detachKeys=ctrl-c became None"]),
        ('filters={"reference":["a"]}', "/images/json?filters={}", []),
    ],
)
def test_parameters_that_say_nothing_may_stay_behind(
    sent: str, target: str, wrong: list[str]
) -> None:
    assert meant.query_differences(sent, Tapped("GET", target, b"")) == wrong


@pytest.mark.parametrize(
    ("path", "sent", "got", "wrong"),
    [
        ("/networks/create", {"CheckDuplicate": True, "IPAM": {"Driver": "default"}}, {}, []),
        ("/networks/create", {"IPAM": {"Driver": "x"}}, {}, ["IPAM.Driver: 'x' became None"]),
        ("/containers/create", {"HostConfig": {"MemorySwappiness": -1}}, {}, []),
        ("/containers/create", {"HostConfig": {"ConsoleSize": [0, 0]}}, {}, []),
        (
            "/containers/create",
            {"HostConfig": {"ConsoleSize": [1, 0]}},
            {},
            ["HostConfig.ConsoleSize: [1, 0] became None"],
        ),
        (
            "/containers/create",
            {"HostConfig": {"Tmpfs": {"/run": "size=1m"}}},
            {"HostConfig": {"Tmpfs": {"/run": "rw,size=1048576"}}},
            [],
        ),
        (
            "/containers/create",
            {"HostConfig": {"Tmpfs": {"/run": "size=1m"}}},
            {"HostConfig": {"Tmpfs": {"/run": "rw,size=1048577"}}},
            ["HostConfig.Tmpfs./run: 'size=1m' became 'rw,size=1048577'"],
        ),
    ],
)
def test_what_the_engine_does_anyhow_needn_t_be_passed_on(
    path: str, sent: object, got: object, wrong: list[str]
) -> None:
    raw = b"POST / HTTP/1.1\r\n\r\n" + json.dumps(got).encode()
    assert meant.differences(sent, Tapped("POST", path, raw), own="") == wrong


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("allowed_restart_policies=[no]", ["no"]),
        ("allowed_restart_policies=no,on-failure", ["no", "on-failure"]),
        ("require_non_root=true", True),
        ("allow_public_ports=['::1', 127.0.0.1]", ["::1", "127.0.0.1"]),
    ],
)
def test_the_values_of_knobs(knob: str, value: object) -> None:
    ((_, setting),) = Knobs.read(knob, permit=False).settings
    assert json.loads(setting) == value


OUTCOME = words.Outcome(
    answer=Answer(200, b'[{"Name": "alice-store"}]'),
    path="/v1.45/info",
    tapped=tapped(
        {
            "Image": IMAGE,
            "Labels": {"io.trimtab.owner": "alice"},
            "HostConfig": {
                "NetworkMode": "platform-network",
                "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1"}]},
                "SecurityOpt": ["no-new-privileges:true"],
                "Tmpfs": {"SizeBytes": 64},
                "LogConfig": {"max-size": "10485760"},
            },
        }
    ),
    sent={"Env": ["PASSWORD=hunter2"]},
    journal='{"env":["PASSWORD"]}',
    owner="alice",
    network="platform-network",
    others=("bob-store",),
    secrets=("hidden-of-",),
)
LABELLED = replace(OUTCOME, answer=Answer(200, b'{"Labels": {}}'))
BOBS = replace(OUTCOME, answer=Answer(200, b'[{"Name": "bob-store"}]'))


@pytest.mark.parametrize(
    ("path", "word", "outcome", "holds"),
    [
        ("Image", "digest or image ID", OUTCOME, True),
        ("Image", "set", OUTCOME, True),
        ("Image", "None", OUTCOME, False),
        ("Cmd", "set", OUTCOME, False),
        ("Cmd", "None", OUTCOME, True),
        ("Labels.io.trimtab.owner", "from peer identity", OUTCOME, True),
        ("Labels.io.trimtab.owner", "from peer identity", replace(OUTCOME, owner="bob"), False),
        ("HostConfig.NetworkMode", "policy default", OUTCOME, True),
        ("HostConfig.NetworkMode", "policy default", replace(OUTCOME, network="x"), False),
        ("HostConfig.PortBindings.8080/tcp.0.HostIp", "127.0.0.1", OUTCOME, True),
        ("/HostConfig/PortBindings/8080~1tcp/0/HostIp", "127.0.0.1", OUTCOME, True),
        ("HostConfig.PortBindings.8080/tcp.1.HostIp", "127.0.0.1", OUTCOME, False),
        ("HostConfig.SecurityOpt", "contains no-new-privileges", OUTCOME, True),
        ("HostConfig.SecurityOpt", "contains no-new", OUTCOME, False),
        ("HostConfig.Tmpfs.SizeBytes", "<= limit", OUTCOME, True),
        ("HostConfig.NanoCpus", 0, OUTCOME, True),
        ("HostConfig.NanoCpus", 1, OUTCOME, False),
        ("response", "filtered", OUTCOME, True),
        ("response", "filtered", BOBS, False),
        ("response", "redacted", OUTCOME, True),
        ("response", "redacted", replace(OUTCOME, answer=Answer(200, b"hidden-of-bob")), False),
        ("response", "redacted", LABELLED, False),
        ("response", "redacted", replace(LABELLED, path="/v1.45/containers/x/json"), True),
        ("HostConfig.LogConfig.max-size", "10m", OUTCOME, True),
        ("HostConfig.LogConfig.max-size", "11m", OUTCOME, False),
        ("journal", "no plaintext secret", OUTCOME, True),
        ("journal", "no plaintext secret", replace(OUTCOME, journal='"x=hunter2"'), False),
    ],
)
def test_the_words_of_mutations(
    path: str, word: object, outcome: words.Outcome, holds: bool
) -> None:
    assert (words.failures({path: word}, outcome) == []) is holds


def test_chunks_are_put_together_as_far_as_they_came() -> None:
    assert dechunked(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n") == b"abcde"
    assert dechunked(b"3\r\nabc\r\n5\r\nde") == b"abcde"
