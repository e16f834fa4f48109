"""Settings of the kernel: the container's own alone, and only those that the policy lists."""

from __future__ import annotations

import pytest

from tests.unit.core.creates import denials, host_of, judged, policy

LISTED = policy(security={"sysctls": ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max"]})


def test_listed_settings_are_forwarded() -> None:
    asked = {"net.core.somaxconn": "1024", "kernel.shmmax": "1", "fs.mqueue.msg_max": "10"}
    assert host_of(judged(host={"Sysctls": asked}, rules=LISTED))["Sysctls"] == asked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),  # not listed
        ("kernel.core_pattern", "|/x"),
        ("kernel.shmmax/../core_pattern", "|/x"),
        ("net..ipv4", "1"),
        ("NET.CORE.SOMAXCONN", "1"),
        ("vm.overcommit_memory", "1"),
        ("net.core.somaxconn", ""),
        ("net.core.somaxconn", "1\n2"),
        ("net.core.somaxconn", "1" * 257),
    ],
)
def test_another_setting_or_value_is_refused(name: str, value: str) -> None:
    assert denials(judged(host={"Sysctls": {name: value}}, rules=LISTED)) == ("sysctls",)


@pytest.mark.parametrize("name", ["kernel.core_pattern", "vm.swappiness", "net", "net.a/b"])
def test_no_policy_lists_a_setting_of_the_host(name: str) -> None:
    with pytest.raises(ValueError, match="expected a setting of the kernel"):
        policy(security={"sysctls": [name]})
