"""The comparison of two containers of a service."""

from __future__ import annotations

from typing import Any

from tools.stacks.compare import Renaming, differences, fields_of

NAMES = Renaming(
    networks=lambda name: name.removeprefix("shop_"),
    volumes={"shop_data": "data"}.get,
    made_up=lambda inspect: {inspect["Id"][:12]},
    content=lambda path: f"content of {path}",
)


def inspect(*, host: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """Return an inspect as the engine gives it, in short."""
    return {
        "Id": "0123456789abcdef",
        "Name": "/web",
        "Image": "sha256:1",
        "Mounts": [
            {"Type": "volume", "Name": "shop_data", "Destination": "/data", "RW": True},
            {"Type": "bind", "Source": "/srv/a", "Destination": "/a", "RW": False},
        ],
        "Config": {"Hostname": "0123456789ab", "Labels": {}, **config},
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}, **(host or {})},
        "NetworkSettings": {"Networks": {"shop_default": {"Aliases": ["0123456789ab", "cache"]}}},
    }


def check(one: dict[str, Any], two: dict[str, Any], *said: str) -> dict[str, str]:
    """Return the announcement of each field that differs."""
    found = differences("web", fields_of(one, NAMES), fields_of(two, NAMES), said)
    return {each.field: each.announced for each in found}


def test_ways_to_write_one_setting_are_equal() -> None:
    one = inspect(Env=["A=1", "B=2"], StopTimeout=None, host={"CapDrop": None, "Init": False})
    two = inspect(Env=["B=2", "A=1"], StopTimeout=10, host={"CapDrop": [], "Init": None})
    assert check(one, two) == {}


def test_names_of_the_programs_are_those_of_the_file() -> None:
    fields = fields_of(inspect(), NAMES)
    assert fields["Mounts./data"] == ("volume", "data", "rw")
    assert fields["Mounts./a"] == ("bind", "content of /srv/a", "ro")
    assert fields["Networks.default"] == ["cache", "web"]
    assert fields["Config.Hostname"] == ""


def test_a_difference_needs_words_that_cover_it() -> None:
    plain, limited = inspect(), inspect(host={"Memory": 2**31})
    assert check(plain, limited) == {"HostConfig.Memory": ""}
    assert check(plain, limited, "memory 2Gi") == {"HostConfig.Memory": "memory 2Gi"}
    # A written limit is no default that the policy completes.
    assert check(inspect(host={"Memory": 2**20}), limited, "memory 2Gi") == {
        "HostConfig.Memory": ""
    }
    assert check(inspect(User="1"), inspect(User="2"), "memory 2Gi") == {"Config.User": ""}


def test_a_shell_check_is_a_command_of_the_shell() -> None:
    one = inspect(Healthcheck={"Test": ["CMD-SHELL", "true"]})
    two = inspect(
        Healthcheck={"Test": ["CMD", "/bin/sh", "-c", "true"], "Interval": 30 * 10**9, "Retries": 3}
    )
    assert check(one, two) == {}


def test_two_ways_to_ask_for_a_tmpfs_are_equal() -> None:
    one = inspect(host={"Tmpfs": {"/run": "size=1024,mode=1777"}})
    options = {"SizeBytes": 1024, "Mode": 0o1777}
    two = inspect(host={"Mounts": [{"Type": "tmpfs", "Target": "/run", "TmpfsOptions": options}]})
    assert check(one, two) == {}
    bare = inspect(host={"Tmpfs": {"/run": ""}})
    words = "the tmpfs /run has no size, and holds at most 64Mi"
    assert check(bare, two, words) == {"Mounts./run": words}
