from __future__ import annotations

from typing import Any

import pytest

from controller.core.enforcement.kept_settings import (
    admitted_ignored,
    ignored_by_create,
    ignored_by_engine,
    ignored_by_update,
    ignored_limits,
    judge_ignored,
    required_and_ignored,
)
from controller.model.observed import Settings
from controller.model.policy.document import Policy
from controller.model.policy.sections import EngineRules

STRICT = Policy(name="strict")
NOTHING = Settings(name="")


def admitting(*limits: Any) -> Policy:
    return Policy(name="strict", engine=EngineRules(ignores=limits))


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"PidsLimit": 64}, {"PidsLimit": None}),
        ({"PidsLimit": 64}, {}),
        ({"Memory": 64}, {"Memory": 0}),
        ({"MemorySwap": 64}, {"MemorySwap": -1}),
        ({"MemorySwap": 64}, {"MemorySwap": 0}),
        ({"CpusetCpus": "0-1"}, {"CpusetCpus": ""}),
        ({"Init": True}, {"Init": None}),
        ({"CapDrop": ["ALL"]}, {"CapDrop": None}),
        ({"Sysctls": {"a": "1", "b": "2"}}, {"Sysctls": {"a": "1"}}),
        ({"RestartPolicy": {"Name": "always"}}, {"RestartPolicy": {"Name": "no"}}),
        ({"Ulimits": [{"Name": "nofile"}]}, {"Ulimits": []}),
    ],
)
def test_a_member_that_the_inspect_does_not_show_is_dropped(
    sent: dict[str, Any], shown: dict[str, Any]
) -> None:
    inspect = {"HostConfig": shown}
    assert ignored_by_create({"HostConfig": sent}, NOTHING, inspect) == tuple(sent)
    assert ignored_by_update(sent, inspect) == tuple(sent)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"Init": False, "Binds": [], "Memory": 0}, {}),
        ({"CapAdd": ["CHOWN"]}, {"CapAdd": ["CAP_CHOWN"]}),
        ({"PidsLimit": 64}, {"PidsLimit": 65}),  # set by somebody meanwhile: an alteration
        ({"LogConfig": {"Type": "local", "Config": {}}}, {"LogConfig": {"Type": "local"}}),
        ({"Mounts": [{"Type": "tmpfs"}]}, {"Mounts": [{"Type": "tmpfs", "Source": ""}]}),
        ({"RestartPolicy": {"Name": "no"}}, {"RestartPolicy": {"Name": "no", "More": 1}}),
    ],
)
def test_what_an_engine_adds_is_no_difference(sent: dict[str, Any], shown: dict[str, Any]) -> None:
    shown = {"LogConfig": {"Config": {}}, **shown}
    if "LogConfig" in sent:
        shown["LogConfig"] = {"Type": "local", "Config": {"compress": "true"}}
    assert ignored_by_create({"HostConfig": sent}, NOTHING, {"HostConfig": shown}) == ()


def test_members_of_an_image_do_not_stand_for_those_of_a_create() -> None:
    body = {"Cmd": ["mine"], "Env": ["A=1"], "Labels": {"a": "", "b": "1"}, "User": "1000"}
    image = {"Cmd": ["theirs"], "Env": ["PATH=/"], "Labels": {"b": "1"}, "User": "0"}
    found = ignored_by_create(body, NOTHING, {"Config": image})
    assert found == ("Cmd", "Env", "Labels", "User")
    both = {**body, "Env": ["A=1", "PATH=/"], "Labels": {"a": "", "b": "1", "c": "2"}}
    assert ignored_by_create(body, NOTHING, {"Config": both}) == ()


def test_a_network_that_was_not_joined_and_a_name_there_are_dropped() -> None:
    ends = {"web": {"Aliases": ["a", "b"]}}
    body = {"NetworkingConfig": {"EndpointsConfig": ends}}

    def found(joined: dict[str, Any]) -> tuple[str, ...]:
        return ignored_by_create(body, NOTHING, {"NetworkSettings": {"Networks": joined}})

    assert found({"web": {"Aliases": ["a", "b", "0123"]}}) == ()
    assert found({"web": {"Aliases": ["a"]}}) == ("Aliases",)
    assert found({}) == ("NetworkingConfig",)


def test_the_engines_own_default_of_swap_is_none_that_was_asked_for() -> None:
    sent, shown = {"Memory": 64, "MemorySwap": 64}, {"Memory": 64, "MemorySwap": 128}
    assert ignored_by_create({"HostConfig": sent}, NOTHING, {"HostConfig": shown}) == (
        "MemorySwap",
    )


def test_an_admitted_limit_that_was_not_sent_is_dropped() -> None:
    admitted = Settings(name="", nano_cpus=10**9, pids=9)
    shown = {"HostConfig": {"PidsLimit": 9}}
    assert ignored_by_create({"HostConfig": {}}, admitted, shown) == ("NanoCpus",)


def test_an_engine_says_what_its_kernel_lacks() -> None:
    able = dict.fromkeys(("MemoryLimit", "SwapLimit", "CpuCfsQuota", "PidsLimit"), True)
    assert ignored_by_engine(able) == ()
    assert ignored_by_engine({}) == (), "an engine that says nothing may keep all"
    assert ignored_by_engine({**able, "PidsLimit": False}) == ("PidsLimit",)
    lacking = {**able, "MemoryLimit": False, "CpuCfsQuota": False}
    assert ignored_by_engine(lacking) == (
        *("CpuQuota", "Memory", "MemoryReservation", "MemorySwap", "NanoCpus"),
    )


def test_a_required_limit_needs_the_policys_leave_to_be_ignored() -> None:
    ignored = ("CpuShares", "MemorySwap", "PidsLimit")
    assert required_and_ignored(ignored, STRICT) == ("swap", "pids")
    assert required_and_ignored(ignored, admitting("swap")) == ("pids",)
    assert admitted_ignored(ignored, admitting("swap", "memory")) == frozenset({"MemorySwap"})
    (finding,) = judge_ignored(ignored, admitting("swap"))
    assert (finding.rule, finding.path) == ("engine.ignores", "HostConfig.PidsLimit")
    assert finding.reason == (
        "the engine ignores the limit of processes: a container would run without it"
    )
    assert list(judge_ignored(("CpuShares",), STRICT)) == []


def test_no_policy_lets_an_engine_drop_hardening() -> None:
    everything = admitting("memory", "swap", "cpus", "pids")
    found = [f.path for f in judge_ignored(("CapDrop", "Labels", "PidsLimit"), everything)]
    assert found == ["CapDrop", "Labels"]


def test_a_finding_of_doctor_names_the_limits_and_what_keeps_them() -> None:
    message, remedy = ignored_limits(("CpuShares", "PidsLimit"))
    assert message == (
        "the engine ignores CpuShares, PidsLimit: engine.ignores of the policy decides what runs "
        "without"
    )
    assert remedy == "enable the kernel's pids cgroup; give a rootless engine its controllers"
