"""A report of an adoption in words: gaps once each, and what clients notice."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.adoption.gaps import (
    KEEP,
    NOTHING,
    STALE,
    gap_lines,
    notice_lines,
    object_lines,
    run_lines,
)

LOGS = {"gap": "logs", "means": "its log isn't bounded", "fields": []}


def judged(name: str, **members: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {
        each: [] for each in ("gaps", "leaves", "joins", "rejoins", "findings")
    }
    return {"name": f"shop-{name}-1", "service": name, "publishes": False, **lists, **members}


def test_a_gap_is_listed_once_with_its_services_and_each_field() -> None:
    fields = ['it has "/srv/a.conf" of the host in place of the config "a"']
    files = {"gap": "files", "means": "it has files of the project", "fields": fields}
    containers = [judged("db", gaps=[LOGS]), *2 * [judged("web", gaps=[LOGS, files])]]
    assert list(gap_lines(containers)) == [
        "Gaps, until the next replacement of each container:",
        "  logs (db, web): its log isn't bounded",
        "  files (web): it has files of the project",
        f"    web: {fields[0]}",
    ]
    assert list(gap_lines([judged("db")])) == []


GAP = {"rule": "adopt.gap"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, ""),
        ({"findings": [GAP]}, ""),
        ({"joins": ["in"], "publishes": True},
         "joins in; its published ports don't answer for a moment"),
        ({"leaves": ["shop_default"], "joins": ["out"]},
         "leaves shop_default, joins out: its connections there end, and its address changes"),
        ({"rejoins": ["shop_default"]},
         ("joins shop_default again, for the names of its document: "
         "its connections there end, and its address changes")),
    ],
)  # fmt: skip
def test_what_clients_notice_is_said_of_each_container(members: dict[str, Any], said: str) -> None:
    lines = list(notice_lines([judged("web", **members), judged("db")], of_project=True))
    if not said:
        assert lines == [NOTHING]
        return
    assert lines[:2] == ["What clients notice:", f"  shop-web-1 {said}"]
    assert (f"  {STALE}" in lines) == ("address changes" in said)
    assert (f"  {KEEP}" in lines) == ("leaves" in said)


def test_nothing_is_said_of_containers_that_were_not_compared() -> None:
    refused = judged("web", leaves=["shop_default"], findings=[{"rule": "image.untrusted"}])
    assert list(notice_lines([refused], of_project=True)) == []
    assert list(notice_lines([], of_project=True)) == []


def test_a_network_with_a_way_out_names_the_line_of_the_policy() -> None:
    granted = "networks.modes: bridge, in /etc/p.yaml (line 7)"
    network: dict[str, Any] = {
        "kind": "network",
        "name": "shop_default",
        "findings": [],
        "granted": granted,
    }
    volume = {**network, "kind": "volume", "name": "shop_data", "granted": ""}
    refused = {**network, "findings": [{"rule": "network.internal"}]}
    assert list(object_lines([network, volume, refused])) == [
        f"network shop_default: adopted with them; it has a way out, granted by {granted}",
        "volume shop_data: adopted with them",
        "network shop_default: refused",
    ]


def test_jobs_that_do_not_run_again_and_jobs_that_are_held() -> None:
    run = {
        "job": "Job/shop/migrate",
        "name": "shop-migrate-1",
        "outcome": "succeeded",
        "reasons": [],
    }
    held = {**run, "outcome": "held", "reasons": ["State: shop-migrate-1 exited with 1"]}
    assert list(run_lines([run, held])) == [
        "shop/migrate: its run by docker compose counts (shop-migrate-1), and it doesn't run again",
        (
            "shop/migrate: is held, and runs by trimtab run-job shop/migrate alone "
            "(State: shop-migrate-1 exited with 1)"
        ),
    ]
