"""The sections of ``describe``."""

from __future__ import annotations

from typing import Any

import click

from controller.cli.status.description import describe_resource
from controller.cli.status.table import TableView
from tests.unit.cli.reports import condition, report, resource, slot

NOW = 1_772_366_400.0  # 2026-03-01T12:00:00Z


def described(one: dict[str, Any], *others: dict[str, Any], **view: Any) -> list[str]:
    shown = describe_resource(
        one, report(one, *others), TableView(100, NOW, **view), events=["41  created"]
    )
    return click.unstyle(shown).split("\n")


def admitted(identifier: str, name: str, **members: Any) -> dict[str, Any]:
    limits = {"memory": 2 << 30, "nano_cpus": 500_000_000, "pids": 256, "networks": ["net"]}
    return {
        "id": identifier,
        "intent": "019a-7",
        "admitted": {"name": name, **limits, **members},
    }


WEB = resource(
    "web",
    condition("CrashLoop", "suspended by uid:0"),
    image="web:1.4",
    generation=3,
    observedGeneration=3,
    next="trimtab tries again by itself, after growing pauses",
    rollout={"order": "StopFirst", "why": "declared"},
    ports=[
        {"container": 8080, "host": 80, "address": "::", "protocol": "tcp", "scheme": "http"},
        {"container": 9000, "protocol": "udp"},
    ],
    mounts=[
        {"type": "volume", "source": "data", "target": "/data"},
        {"type": "bind", "source": "/srv", "target": "/srv", "readOnly": True},
        {"type": "tmpfs", "target": "/tmp"},
    ],
    volumes=[{"slot": 1, "path": "/var", "keeping": "slot", "volume": "web-1-var"}],
    env=["A", "PASSWORD"],
    nextTry={"at": "2026-03-01T12:00:40Z", "reason": "failed 3 times in a row"},
    slots=[
        slot(
            id="a" * 64,
            health="unhealthy",
            restarts=4,
            addresses=[{"network": "net", "address": "172.20.0.2"}],
            cause="exited with 1",
            nextTry={"at": "2026-03-01T12:00:40Z"},
            lastFailure={
                "container": "web.1-0c3ab8df",
                "cause": "exited with 1",
                "at": "2026-03-01T11:59:00Z",
                "lines": [{"line": "Permission denied"}],
            },
        )
    ],
    containers=[admitted("a" * 64, "web.1-2bdaa731"), admitted("b" * 64, "web.1-0c3ab8df")],
)


def test_a_service_is_described_in_sections() -> None:
    assert described(WEB) == [
        "Service default/web",
        "  Condition: CrashLoop",
        "  Ready:     1/1",
        "  Owner:     team",
        "  Image:     web:1.4",
        "  Revision:  2bdaa731, generation 3",
        "  Ports:     http://[::], 9000/udp (not published)",
        "  Rollout:   StopFirst (declared)",
        "  Next:      trimtab tries again by itself, after growing pauses",
        "  Next try:  again in 40 s: failed 3 times in a row",
        "",
        "Replicas",
        "  SLOT  CONTAINER       STATE    HEALTH     RESTARTS  AGE  ADDRESS     URL",
        "  1     web.1-2bdaa731  running  unhealthy  4         5m   172.20.0.2  http://172.20.0.2:8080",
        "      it exited with 1; again in 40 s",
        "",
        "Last output",
        "  web.1-0c3ab8df exited with 1 at 2026-03-01T11:59:00Z",
        "  | Permission denied",
        "",
        "Admitted",
        "  CONTAINER       MEMORY  CPUS  PIDS  NETWORKS",
        "  web.1-2bdaa731  2Gi     0.5   256   net",
        "",
        "Conditions",
        "  CONDITION  STATUS  SINCE    REASON  MESSAGE",
        "  CrashLoop  True    60m ago  -       suspended by root",
        "",
        "Mounts",
        "  /data: volume data",
        "  /srv: bind /srv (read-only)",
        "  /tmp: tmpfs",
        "  slot 1: /var: volume web-1-var (slot)",
        "",
        "Environment (names; values aren't shown)",
        "  A, PASSWORD",
        "",
        "Events",
        "  41  created",
    ]


def test_wide_has_the_ids_and_the_containers_that_are_gone() -> None:
    lines = "\n".join(described(WEB, wide=True))
    assert "aaaaaaaaaaaa  019a-7" in lines
    assert "bbbbbbbbbbbb  019a-7" in lines


def test_a_volume_names_the_services_that_use_it() -> None:
    volume = resource(
        "data", kind="Volume", engineName="trimtab-data", sizeBytes=10 << 30, slots=[], image=""
    )
    lines = described(volume, WEB)
    assert "  On the engine: trimtab-data" in lines
    assert "  Size:          10Gi" in lines
    assert lines[lines.index("Used by") + 1] == "  Service web at /data"


def test_a_network_names_the_containers_in_it() -> None:
    network = resource("net", kind="Network", engineName="net", slots=[], image="")
    lines = described(network, WEB)
    assert lines[lines.index("Used by") + 1] == "  web.1-2bdaa731 at 172.20.0.2"


def test_a_release_names_its_members_and_how_they_are() -> None:
    release = resource("shop", kind="Release", members=["Service/default/web"], slots=[])
    lines = described(release, WEB)
    assert lines[lines.index("Members") + 1] == "  Service/default/web  CrashLoop"


def test_a_task_that_ended_well_has_no_last_failure() -> None:
    ended = slot(state="exited", cause="exited with 0")
    assert "exited with 0" in str(described(resource("job", condition("Stalled"), slots=[ended])))
    assert "exited with 0" not in str(described(resource("job", slots=[ended])))


def test_the_log_of_a_failed_build_is_below_the_conditions() -> None:
    message = "build.failed: web:1: no\n  Step 1/1 : RUN no\n  no\x07such program"
    lines = described(resource("web", condition("Progressing", message)))
    found = [line.strip() for line in lines]
    assert "Step 1/1 : RUN no" in found
    assert [line for line in found if line.endswith("such program")] == ["no\\u0007such program"]
