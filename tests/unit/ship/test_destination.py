"""Where records are shipped to, as users write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.model.errors import UsageError
from controller.ship.destination import (
    Destination,
    TlsFiles,
    ToFile,
    ToNote,
    ToOtlp,
    ToSyslog,
    read_destination,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a=file:///var/log/x.jsonl", ToFile("a", Path("/var/log/x.jsonl"))),
        ("a=file:///x?only=checkpoints", ToFile("a", Path("/x"), checkpoints_only=True)),
        ("w-1=note:///mnt/x.checkpoint", ToNote("w-1", Path("/mnt/x.checkpoint"))),
        ("s=syslog+udp://siem", ToSyslog("s", "udp", "siem", 514)),
        ("s=syslog+tcp://10.0.0.5", ToSyslog("s", "tcp", "10.0.0.5", 601)),
        (
            "s=syslog+tcp://[::1]:1514?format=cef&facility=4",
            ToSyslog("s", "tcp", "::1", 1514, "cef", 4),
        ),
        (
            "s=syslog+tls://siem?ca=/ca.pem&cert=/c.pem&key=/k.pem&only=checkpoints",
            ToSyslog(
                "s",
                "tls",
                "siem",
                6514,
                trust=TlsFiles(Path("/ca.pem"), Path("/c.pem"), Path("/k.pem")),
                checkpoints_only=True,
            ),
        ),
        ("o=otlp+http://c:4318", ToOtlp("o", "http://c:4318/v1/logs")),
        (
            "o=otlp+https://c/otlp/v1/logs?ca=/ca.pem",
            ToOtlp("o", "https://c/otlp/v1/logs", TlsFiles(Path("/ca.pem"))),
        ),
    ],
)
def test_a_destination_is_a_name_and_a_url(text: str, meant: Destination) -> None:
    assert read_destination(text) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file:///x", "it has no name"),
        ("Upper=file:///x", "it has no name"),
        ("../a=file:///x", "it has no name"),
        ("a=x", "there is no way to ship by 'it'"),
        ("a=http://x", "there is no way to ship by 'http'"),
        ("a=file://x/y", "a file is named by its absolute path"),
        ("a=file:///x/", "a file is named by its absolute path"),
        ("a=file:///x?only=all", "only=checkpoints is all that can be chosen"),
        ("a=file:///x?format=cef", "'format' is no option of file"),
        ("a=syslog+tcp://", "it names no host"),
        ("a=syslog+tcp://me@x", "it names no host, or a user"),
        ("a=syslog+tcp://x:99999", "the port is a number"),
        ("a=syslog+tcp://x?format=xml", "format is json or cef"),
        ("a=syslog+tcp://x?facility=24", "facility is a number from 0 to 23"),
        ("a=syslog+tcp://x?ca=/ca.pem", "'ca' is no option of syslog+tcp"),
        ("a=syslog+tls://x?ca=ca.pem", "ca isn't an absolute path"),
        ("a=syslog+tls://x?cert=/c.pem", "cert and key belong together"),
        ("a=otlp+http://x?ca=/ca.pem", "'ca' is no option of otlp+http"),
        ("a=otlp+http:///v1/logs", "it names no host"),
        ("a=syslog+tcp://[::1", "Invalid IPv6 URL"),
        ("a=syslog+tcp://x:0", "the port is a number"),
        ("a=syslog+tcp://x/udp", "syslog knows no path"),
        ("a=file:///x#1.jsonl", "the part after # would be lost"),
    ],
)
def test_what_is_no_destination_is_refused_with_what_is(text: str, why: str) -> None:
    with pytest.raises(UsageError, match="is no destination") as raised:
        read_destination(text)
    assert why in raised.value.message
    assert "syslog+tls://HOST:PORT" in raised.value.remedy


SECRET = "hunter2"


@pytest.mark.parametrize("who", ["me:hunter2", "hunter2", "a@b:hunter2", "me:hun/hunter2"])
@pytest.mark.parametrize("scheme", ["otlp+https", "syslog+tcp", "http"])
def test_credentials_in_a_url_are_not_repeated(scheme: str, who: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_destination(f"a={scheme}://{who}@collector/v1/logs")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("scheme", ["otlp+http", "otlp+https", "syslog+tcp", "syslog+tls", "https"])
@pytest.mark.parametrize(
    "rest",
    [
        "/v1/hunter2?format=xml&facility=99",
        "/v1/logs?token=hunter2",
        "/v1/logs?hunter2",
        "/v1/logs#hunter2",
        "?token=hunter2#",
        "?ca=hunter2&only=hunter2",
    ],
)
def test_of_a_refused_url_the_address_is_repeated_alone(scheme: str, rest: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_destination(f"a={scheme}://collector:4318{rest}")
    assert SECRET not in str(raised.value)
    assert f"'a={scheme}://collector:4318…'" in raised.value.message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a=file:///x?format=hunter2", "'a=file:///x…'"),
        ("a=file:///x/#hunter2", "'a=file:///x/…'"),
        ("hunter2", "'…'"),
        ("a=hunter2", "'a=…'"),
        ("https://x/?t=hunter2", "'https://x…'"),
    ],
)
def test_what_can_be_a_credential_is_not_repeated(text: str, shown: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_destination(text)
    assert shown in raised.value.message
    assert SECRET not in raised.value.remedy


def test_a_collector_is_named_without_its_path() -> None:
    assert ToOtlp("o", "https://c:4318/hunter2/v1/logs").address == "https://c:4318"
