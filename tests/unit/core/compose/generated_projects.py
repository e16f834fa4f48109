"""Compose projects that Hypothesis makes from the JSON schema of the Compose Specification.

Strings are drawn from texts that mean something for the attribute, so that many projects are valid;
the rest is refused for one reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from controller.core.compose.schema import schema

Strategy = st.SearchStrategy[Any]
NAMES = ("a", "b", "c")
#: Attributes that are newer than the reference, and attributes with their own tests.
LEFT_OUT = {"pre_start", "extends", "include", "version", "name", "develop", "credential_spec"}
#: Attributes that Docker Compose 2.26 doesn't know.
LEFT_OUT |= {"models", "provider", "use_api_socket", "pull_refresh_after", "interface_name"}
_ANY = ["a", "b", "a b", "1", "true", "$A", "${A:-d}", "x-${B-e}", "$$A", "a=b", "é"]
#: Texts by the last key of the path.
_TEXTS: dict[str, list[str]] = {
    "image": ["x", "x:1", "r.example/x@sha256:aa", "x:${A:-1}"],
    "ports": ["80", "8080:80", "127.0.0.1:81:80/udp", "9000-9002:9000-9002", "[::1]:5:6", "1-2:3"],
    "env_file": ["a.env"],
    "path": ["a.env", "./b"],
    "label_file": ["a.env"],
    "port": ["80", "${A:-81}"],
    "pull_policy": ["always", "never", "if_not_present", "build", "missing"],
    "published": ["80", "80-90", "${A:-5}"],
    "volumes": ["a:/a", "b:/b:ro", "./c:/c", "/d:/d:rw,z", "/e", "../f:/f:rshared", "a:/x:nocopy"],
    "source": ["a", "b", "./s", "/s"],
    "target": ["/t", "/u/../v", "80", "t"],
    "devices": ["/dev/a", "/dev/a:/dev/b", "/dev/a:/dev/b:r"],
    "extra_hosts": ["a:1.1.1.1", "b=::1", "c:[::1]"],
    "test": ["NONE", "CMD"],
    "condition": ["service_started", "service_healthy"],
    "network_mode": ["none", "host", "service:c", "bridge"],
    "pid": ["host", "service:c"],
    "ipc": ["host", "service:c", "shareable"],
    "command": ["a b", "a 'b c'", "a && b", "", "$A", "a\\ b", "`x y`"],
    "context": [".", "./a", "https://e.org/r.git"],
    "build": [".", "../b"],
    "additional_contexts": ["x=./y", "z=docker-image://i"],
    "restart": ["no", "always", "on-failure:3"],
    "links": ["c", "c:d"],
    "volumes_from": ["c:ro", "container:c"],
    "depends_on": ["c"],
    "networks": ["a", "b", "default"],
    "secrets": ["a", "b"],
    "configs": ["a", "b"],
    "profiles": ["p", "q"],
    "ssh": ["default", "k=./k"],
    "environment": ["A=1", "B", "C=", "A", "D=$A", "E==x"],
    "labels": ["a=1", "b", "c=", "a=2"],
    "args": ["A=1", "B", "A"],
    "gpus": ["all"],
    "type": ["bind", "volume", "tmpfs"],
    "expose": ["80", "81/udp", "82-83"],
    "file": ["./f", "/f", "../f"],
    "device": ["./d", "/d"],
    "o": ["bind", "x"],
    "driver": ["local", "d"],
}
_SIZES = ["1g", "64m", "1024", "0.5gb", "2 KiB"]
_DURATIONS = ["10s", "1m30s", "1.5h", "500ms", "0s", "100us"]
_NUMBERS = ["1", "0", "5", "${A:-2}"]
for _name in [
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "shm_size",
    "memory",
    "size",
    "rate",
]:
    _TEXTS[_name] = _SIZES
for _name in [
    "interval",
    "timeout",
    "start_period",
    "start_interval",
    "stop_grace_period",
    "delay",
    "monitor",
    "window",
]:
    _TEXTS[_name] = _DURATIONS
for _name in [
    "cpus",
    "cpu_shares",
    "cpu_quota",
    "cpu_period",
    "cpu_count",
    "cpu_percent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "replicas",
    "scale",
    "parallelism",
    "retries",
    "max_attempts",
    "pids_limit",
    "oom_score_adj",
    "nofile",
    "nproc",
    "soft",
    "hard",
    "mode",
    "count",
    "weight",
    "pids",
    "max_failure_ratio",
    "max_replicas_per_node",
    "mem_swappiness",
    "ulimits",
]:
    _TEXTS[_name] = _NUMBERS
for _name in [
    "tty",
    "privileged",
    "init",
    "read_only",
    "stdin_open",
    "oom_kill_disable",
    "internal",
    "attachable",
    "enable_ipv4",
    "enable_ipv6",
    "external",
    "disable",
    "nocopy",
    "no_cache",
    "pull",
    "create_host_path",
    "attach",
]:
    _TEXTS[_name] = ["true", "false", "yes", "${E:-no}"]
_NAMES = {
    "ulimits": ("nofile", "nproc"),
    "depends_on": ("c",),
    "networks": ("a", "b", "default"),
}
#: Members that Docker Compose requires without the schema.
_NEEDED = {
    "ports": {"target"},
    "volumes": {"target"},
    "devices": {"target"},
    "secrets": {"source"},
    "configs": {"source"},
}
#: Attributes that name another service.
_REFERENCES = {"depends_on", "links", "volumes_from", "network_mode", "pid", "ipc"}


def _text(key: str) -> Strategy:
    return st.sampled_from(_TEXTS.get(key, _ANY))


def _value(part: dict[str, Any], key: str, depth: int) -> Strategy:
    """Return the values of a part of the schema below a key."""
    if "$ref" in part:
        return _value(schema()["definitions"][part["$ref"].rpartition("/")[2]], key, depth)
    if "oneOf" in part:
        return st.one_of([_value(each, key, depth) for each in part["oneOf"]])
    if key == "external":
        return st.sampled_from([True, False, "true"])
    if key in {"expose", "driver_opts"} and part.get("type") == ["string", "number"]:
        part = {"type": ["string", "integer"]}
    if "enum" in part:
        return st.sampled_from(part["enum"])
    types = part.get("type", "object")
    kinds = [types] if isinstance(types, str) else types
    return st.one_of([_KINDS[kind](part, key, depth) for kind in kinds])


def _key(parent: str, name: str) -> str:
    """Return the key by which the texts of a member are found."""
    if name == "target" and parent == "ports":
        return "port"
    if name == "source" and parent in {"secrets", "configs"}:
        return "secrets"
    return name


def _list(part: dict[str, Any], key: str, depth: int) -> Strategy:
    # Docker Compose refuses an empty list of a first file, once an override is read.
    unique = part.get("uniqueItems") or key in {"ports", "volumes", "secrets", "configs"}
    return st.lists(
        _value(part["items"], key, depth + 1),
        min_size=1,
        max_size=3,
        unique_by=json.dumps if unique else None,
    )


def _mapping(part: dict[str, Any], key: str, depth: int) -> Strategy:
    known = {
        name: _value(each, _key(key, name), depth + 1)
        for name, each in part.get("properties", {}).items()
        if name not in LEFT_OUT
    }
    needed = {*part.get("required", ()), *(_NEEDED.get(key, ()))}
    required = {name: known.pop(name) for name in sorted(needed) if name in known}
    if known:
        # Few attributes at a time, so that a value out of bounds is the only one.
        chosen = st.lists(st.sampled_from(sorted(known)), max_size=5, unique=True)
        return chosen.flatmap(
            lambda names: st.fixed_dictionaries(
                {**required, **{name: known[name] for name in names}}
            )
        )
    for pattern, each in part.get("patternProperties", {}).items():
        if pattern != "^x-":
            names = _NAMES.get(key, NAMES)
            return st.dictionaries(st.sampled_from(names), _value(each, key, depth + 1), max_size=3)
    return st.dictionaries(st.sampled_from(NAMES), _text(key), max_size=2)


_KINDS: dict[str, Callable[[dict[str, Any], str, int], Strategy]] = {
    "string": lambda _part, key, _depth: _text(key),
    "integer": lambda _part, _key, _depth: st.sampled_from([0, 1, 2, 80]),
    "number": lambda _part, _key, _depth: st.sampled_from([0, 1, 2, 80]),
    "boolean": lambda _part, _key, _depth: st.booleans(),
    "null": lambda _part, _key, _depth: st.none(),
    "array": _list,
    "object": _mapping,
}


def _section(name: str) -> Strategy:
    part = schema()["definitions"][name]

    def plausible(own: dict[str, Any] | None) -> dict[str, Any] | None:
        external = own is not None and own.get("external") in {True, "true"}
        return (
            {key: own[key] for key in ("external", "name") if key in own}
            if own and external
            else own
        )

    return st.fixed_dictionaries({each: _value(part, name, 1).map(plausible) for each in NAMES[:2]})


def _service(name: str) -> Strategy:
    def plausible(service: dict[str, Any]) -> dict[str, Any]:
        if name == "c":
            service = {key: value for key, value in service.items() if key not in _REFERENCES}
        if "network_mode" in service:
            service.pop("networks", None)
        service.pop("container_name", None)
        return service if "build" in service else {"image": "x", **service}

    return _mapping(schema()["definitions"]["service"], "service", 1).map(plausible)


def _file_object(own: dict[str, Any]) -> dict[str, Any]:
    """Return a config or secret with one source."""
    sources = [key for key in ("file", "environment", "content") if key in own]
    kept = {key: value for key, value in own.items() if key not in sources[1:]}
    return kept if sources or "external" in own else {**kept, "file": "./f"}


def trees() -> Strategy:
    """Return projects with three services and two of each resource."""
    files = st.fixed_dictionaries
    return st.fixed_dictionaries(
        {
            "services": files({name: _service(name) for name in NAMES}),
            "networks": _section("network"),
            "volumes": _section("volume"),
            "secrets": _section("secret").map(
                lambda all_: {k: _file_object(v) for k, v in all_.items()}
            ),
            "configs": _section("config").map(
                lambda all_: {k: _file_object(v) for k, v in all_.items()}
            ),
        }
    )


def services_alone() -> Strategy:
    """Return overrides: attributes of two services, without required ones."""
    part = schema()["definitions"]["service"]
    services = {name: _mapping(part, "service", 1).map(_merging) for name in NAMES[:2]}
    return st.fixed_dictionaries({"services": st.fixed_dictionaries(services)})


def _merging(service: dict[str, Any]) -> dict[str, Any]:
    alone = {"network_mode", "container_name", "networks"}
    return {key: value for key, value in service.items() if key not in alone}


def projects() -> Strategy:
    """Return the files of a project by path."""

    def texts(pair: tuple[Any, Any]) -> dict[str, str]:
        first, override = pair
        files = {
            "shop/compose.yaml": json.dumps(first),
            "shop/.env": "A=1\nE=\n",
            "shop/a.env": "F=$A\n",
        }
        if override is not None:
            files["shop/compose.override.yaml"] = json.dumps(override)
        return files

    return st.tuples(trees(), st.one_of(st.none(), services_alone())).map(texts)


def mutations() -> Strategy:
    """Return broken texts: pieces of YAML in any order."""
    pieces = [
        "services:",
        "\n",
        "  ",
        "a",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&x ",
        "*x",
        "<<: ",
        "!reset ",
    ]
    pieces += [
        "!override ",
        "'",
        '"',
        "$A",
        "${A",
        "ports",
        "image",
        "extends",
        "include",
        "null",
        "0x1",
        "---\n",
    ]
    return st.lists(st.sampled_from(pieces), max_size=40).map("".join)
