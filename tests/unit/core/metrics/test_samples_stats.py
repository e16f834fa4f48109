"""The answer to ``stats``: which containers are in it, and what is unknown."""

from __future__ import annotations

from controller.core.metrics.samples import Use, UseLook, stats
from tests import worlds

WEB = worlds.container(slot=2)


def test_running_containers_are_listed_by_key_and_slot_with_limits_and_use() -> None:
    first, stopped = worlds.container(restart_count=3), worlds.container("api", state="exited")
    look = UseLook(1_000_000.0, containers={WEB.id: Use(9.0, 1 << 20, 7, cpus=0.25)})
    told = stats(worlds.engine(WEB, stopped, first), look)
    assert told["at"] == "1970-01-12T13:46:40Z"
    one, two = told["containers"]
    assert two == {
        "key": "Service/default/web",
        "slot": 2,
        "container": WEB.name,
        "owner": "team",
        "cpus": 0.25,
        "cpuLimit": 1.0,
        "memoryBytes": 1 << 20,
        "memoryLimitBytes": 512 << 20,
        "pids": 7,
        "pidsLimit": 256,
        "restarts": 0,
    }
    unknown = {"cpus": None, "memoryBytes": None, "pids": None}
    assert one == two | unknown | {"slot": 1, "container": first.name, "restarts": 3}


def test_a_container_without_limits_has_none() -> None:
    free = worlds.container(settings={"memory": 0, "nano_cpus": 0, "pids": -1})
    (row,) = stats(worlds.engine(free), UseLook(0.0))["containers"]
    assert (row["cpuLimit"], row["memoryLimitBytes"], row["pidsLimit"]) == (None, None, None)


def test_nothing_is_listed_before_the_first_observation() -> None:
    assert stats(None, UseLook(0.0))["containers"] == []
