"""Logs: files on this host that rotate, and collectors that the policy names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from controller.core.engine_api.requests import Grant, LogConfig
from controller.core.policy.grants import apply_grant, grant_of
from controller.core.rules.logs import log_with_defaults
from controller.core.rules.verdict import AdmissionDecision
from controller.model.policy.document import Policy
from tests.unit.core.creates import STRICT, judged, policy

GELF = {"driver": "gelf", "address": "udp://10.0.0.9:12201"}
FLUENT = {"driver": "fluentd", "address": "tcp://127.0.0.1:24224"}
SYSLOG = {"driver": "syslog", "address": "unixgram:///dev/log"}
OPEN = policy(
    logs={"drivers": ["json-file", "local", "journald"], "collectors": [GELF, FLUENT, SYSLOG]}
)


def logged(driver: str, options: Mapping[str, str], rules: Policy = OPEN) -> AdmissionDecision:
    return judged(host={"LogConfig": {"Type": driver, "Config": dict(options)}}, rules=rules)


def places(decision: AdmissionDecision) -> set[tuple[str, str]]:
    return {(finding.rule, finding.path) for finding in decision.findings}


def config(driver: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Return the log configuration that the engine gets."""
    decision = logged(driver, options)
    assert decision.findings == ()
    body: Any = decision.body
    return dict(body["HostConfig"]["LogConfig"]["Config"])


@pytest.mark.parametrize("driver", ["journald", "syslog", "fluentd", "gelf"])
def test_no_other_driver_without_its_line_in_the_policy(driver: str) -> None:
    address = {"gelf-address": GELF["address"]} if driver == "gelf" else {}
    assert places(logged(driver, address, STRICT)) == {("log.driver", "HostConfig.LogConfig.Type")}
    assert logged(driver, address).findings == ()


@pytest.mark.parametrize("driver", ["gcplogs", "awslogs", "splunk", "etwlogs", "none", "SYSLOG"])
def test_no_policy_grants_a_driver_that_uses_the_hosts_identity_or_keeps_nothing(
    driver: str,
) -> None:
    assert ("log.driver", "HostConfig.LogConfig.Type") in places(logged(driver, {}))


@pytest.mark.parametrize(
    ("driver", "options", "option"),
    [
        ("gelf", {"gelf-address": "udp://10.0.0.8:12201"}, "gelf-address"),
        ("gelf", {"gelf-address": "tcp://10.0.0.9:12201"}, "gelf-address"),
        ("gelf", {"gelf-address": "udp://10.0.0.9:12201/"}, "gelf-address"),
        ("gelf", {}, "gelf-address"),
        ("fluentd", {"fluentd-address": "unix:///run/docker.sock"}, "fluentd-address"),
        ("fluentd", {"fluentd-address": "localhost:24224"}, "fluentd-address"),
        ("syslog", {"syslog-address": "tcp://10.0.0.9:514"}, "syslog-address"),
    ],
)
def test_a_log_goes_to_a_named_collector_alone(
    driver: str, options: dict[str, str], option: str
) -> None:
    assert places(logged(driver, options)) == {
        ("log.driver", f"HostConfig.LogConfig.Config.{option}")
    }


@pytest.mark.parametrize("address", ["127.0.0.1:24224", "tcp://127.0.0.1:24224"])
def test_a_collector_is_named_with_or_without_its_scheme(address: str) -> None:
    assert logged("fluentd", {"fluentd-address": address}).findings == ()


@pytest.mark.parametrize(
    ("driver", "option", "value"),
    [
        ("journald", "mode", "blocking"),
        ("journald", "max-buffer-size", "1g"),
        ("journald", "cache-disabled", "true"),
        ("journald", "cache-max-size", "1g"),
        ("journald", "env", "PASSWORD"),
        ("journald", "env-regex", ".*"),
        ("journald", "max-size", "10m"),
        ("journald", "tag", "sshd"),
        ("journald", "tag", "{{pad .Name 1000000000 0}}"),
        ("journald", "tag", "{{(.ExtraAttributes nil).PASSWORD}}"),
        ("syslog", "syslog-tls-ca-cert", "/etc/shadow"),
        ("syslog", "syslog-tls-skip-verify", "true"),
        ("fluentd", "fluentd-async", "false"),
        ("fluentd", "fluentd-buffer-limit", "1048576"),
        ("fluentd", "gelf-compression-level", "1"),
    ],
)
def test_no_option_holds_up_the_engine_or_reads_what_the_container_does_not(
    driver: str, option: str, value: str
) -> None:
    assert places(logged(driver, {option: value})) == {
        ("log.option", f"HostConfig.LogConfig.Config.{option}")
    }


def test_options_of_a_format_are_the_documents() -> None:
    assert (
        logged("syslog", {"syslog-facility": "daemon", "syslog-format": "rfc5424"}).findings == ()
    )
    assert logged("journald", {"tag": "{{.ImageName}}/{{.Name}}", "labels": "a,b.c"}).findings == ()
    named = {"gelf-address": GELF["address"], "gelf-compression-type": "none"}
    assert logged("gelf", named).findings == ()


def test_a_collector_that_does_not_answer_holds_up_no_container_and_takes_no_room() -> None:
    bounds = {"cache-max-file": "3", "cache-max-size": "10485760"}
    buffer = {"mode": "non-blocking", "max-buffer-size": "1m"}
    assert config("journald", {}) == {**bounds, **buffer}
    assert config("fluentd", {"cache-max-size": "5m"}) == {
        "cache-max-size": "5m",
        **buffer,
        "fluentd-address": "tcp://127.0.0.1:24224",
        "fluentd-async": "true",
        "fluentd-buffer-limit": "1024",
    }
    assert config("syslog", {}) == {**bounds, **buffer, "syslog-address": "unixgram:///dev/log"}


def test_defaults_are_admitted_again() -> None:
    for driver, given in (
        ("journald", ()),
        ("syslog", ()),
        ("fluentd", ()),
        ("gelf", (("gelf-address", GELF["address"]),)),
    ):
        once = log_with_defaults(LogConfig(driver, given), OPEN)
        assert log_with_defaults(once, OPEN) == once
        assert logged(driver, dict(once.options)).findings == ()


@pytest.mark.parametrize(
    ("driver", "options", "grant"),
    [
        ("journald", {}, Grant("add", "logs.drivers", "journald")),
        ("gelf", {"gelf-address": GELF["address"]}, Grant("add", "logs.collectors", GELF)),
        ("fluentd", {}, Grant("add", "logs.collectors", FLUENT)),
        ("syslog", {}, Grant("add", "logs.collectors", SYSLOG)),
        ("fluentd", {"fluentd-address": "unix:///run/docker.sock"}, None),
    ],
)
def test_the_refusal_names_the_line(
    driver: str, options: dict[str, str], grant: Grant | None
) -> None:
    (finding,) = logged(driver, options, STRICT).findings
    assert grant_of(finding, STRICT) == grant
    if grant is not None:
        loosened = apply_grant(STRICT, grant)
        assert loosened is not None
        assert logged(driver, options, loosened).findings == ()


@pytest.mark.parametrize(
    "collector",
    [
        {"driver": "syslog", "address": "unixgram:///run/docker.sock"},
        {"driver": "fluentd", "address": "unix:///run/fluent.sock"},
        {"driver": "gelf", "address": "udp://10.0.0.9"},
        {"driver": "gelf", "address": "http://10.0.0.9:80"},
        {"driver": "splunk", "address": "tcp://10.0.0.9:80"},
    ],
)
def test_a_collector_is_an_address_and_no_socket(collector: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="collectors"):
        policy(logs={"collectors": [collector]})
