"""Drawn configs of images, requests and policies: honest ones, and ones that reach for more."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from controller.model.policy.document import Policy
from tests.unit.core.creates import policy

SECOND = 10**9
_NAMES = ["A", "B", "PATH", "LD_PRELOAD", "LD_AUDIT", "TOKEN"]
ENV = st.lists(
    st.builds(
        lambda name, value: f"{name}={value}", st.sampled_from(_NAMES), st.sampled_from("xy")
    ),
    max_size=4,
    unique_by=lambda entry: entry.partition("=")[0],
)
ARGUMENTS = st.lists(st.sampled_from(["/bin/serve", "--all", "x y", "x" * 200_000]), max_size=3)
CHECKS = st.fixed_dictionaries(
    {},
    optional={
        "Test": st.sampled_from(
            [["NONE"], ["CMD", "/ok"], ["CMD-SHELL", "exit 0"], ["CMD", "x" * 200_000]]
        ),
        "Interval": st.sampled_from([10**6, SECOND, 30 * SECOND, 7200 * SECOND]),
        "Timeout": st.sampled_from([10**6, SECOND, 3600 * SECOND]),
        "Retries": st.sampled_from([1, 3, 10**6]),
        "StartPeriod": st.sampled_from([SECOND, 10**6, 10 * 3600 * SECOND]),
        "StartInterval": st.sampled_from([10**6, 2 * SECOND]),
    },
)
USERS = st.sampled_from(
    ["", "0", "root", "00", "1000", "1000:1000", "1000:0", "app", "app:disk", "nobody", "1:app"]
)
FOLDERS = st.sampled_from(["", "/", "/app", "/proc/self/fd/8", "/dev", "/sys/kernel"])
PORTS: st.SearchStrategy[dict[str, Any]] = st.lists(
    st.sampled_from(["80/tcp", "53/udp", "8080/tcp"]), max_size=3, unique=True
).map(lambda ports: {port: {} for port in ports})
PATHS: st.SearchStrategy[dict[str, Any]] = st.lists(
    st.sampled_from(["/data", "/var/lib/x"]), max_size=2, unique=True
).map(lambda paths: {path: {} for path in paths})
LABELS = st.dictionaries(
    st.sampled_from(
        ["maintainer", "traefik.enable", "io.trimtab.owner", "com.docker.compose.service", "x"]
    ),
    st.sampled_from(["", "bob", "two\nlines", "y" * 900]),
    max_size=4,
)
SIGNALS = st.sampled_from(["", "SIGTERM", "SIGQUIT", "15", "SIGNOTHING"])
CONFIGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "User": USERS,
        "Env": ENV,
        "Cmd": ARGUMENTS,
        "Entrypoint": ARGUMENTS,
        "Healthcheck": CHECKS,
        "WorkingDir": FOLDERS,
        "ExposedPorts": PORTS,
        "Volumes": PATHS,
        "Labels": LABELS,
        "StopSignal": SIGNALS,
    },
)
#: Of a client: labels of its own, and no member that the gate refuses by itself.
BODIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "User": USERS,
        "Env": ENV,
        "Cmd": ARGUMENTS,
        "Entrypoint": st.sampled_from([[""], ["/mine"], ["/mine", "x"]]),
        "Healthcheck": CHECKS,
        "WorkingDir": FOLDERS,
        "ExposedPorts": PORTS,
        "Volumes": PATHS,
        "Labels": st.dictionaries(st.sampled_from(["x", "tier"]), st.sampled_from("ab")),
        "StopSignal": SIGNALS,
    },
)
POLICIES: st.SearchStrategy[Policy] = st.builds(
    lambda root, groups, shell, volumes, unset: policy(
        security={"requireNonRoot": root, "groupAdd": groups},
        healthcheck={"shell": shell},
        images={"allow": ["ghcr.io/platformnetwork/"], "anonymousVolumes": volumes},
        env={"unset": unset},
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["refuse", "scratch"]),
    st.booleans(),
)
