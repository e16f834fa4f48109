"""Rules of logs: files on this host that rotate, and the collectors that the policy names.

The engine sends a container's log, as root and from the host's network. So each address is the policy's.
A collector that doesn't answer neither holds up the container nor fills the engine's memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from controller.core.encoding.text import quote
from controller.core.engine_api.requests import Finding, Findings, Grant, LogConfig, new_bound
from controller.core.rules.context import Case
from controller.model.policy.document import Policy
from controller.model.quantities import format_bytes, parse_size

#: Log drivers that store logs on this host, in files of the engine.
LOCAL_LOGS = ("json-file", "local")
LOG_FILES_MAX = 9999
_PATH = "HostConfig.LogConfig"
#: What holds up neither container nor engine. A fluentd limit counts messages of up to 16 KiB.
_BUFFERED = {"mode": "non-blocking", "max-buffer-size": "1m"}
_ASYNC = {"fluentd-async": "true", "fluentd-buffer-limit": "1024"}
_BUFFER_MAX = 16 * 1024**2
#: The collector of a driver whose options name none, as the engine chooses it.
_USUAL = {"syslog": "unixgram:///dev/log", "fluentd": "tcp://127.0.0.1:24224"}
#: A tag is a template that the engine runs. It names the container, so that nobody takes its lines for
#: those of a program of the host.
_FIELD = r"\{\{ ?\.(?:ID|FullID|Name|ImageName|ImageID|ImageFullID|DaemonName) ?\}\}"
_PLAIN = r"[A-Za-z0-9_.:/@-]{0,63}"
_BOOLEAN = "true|false"
_COUNT = "[1-9][0-9]{0,3}"
#: The options of each driver beside ``_sizes``, with the form of their values.
_LOCAL = {"compress": _BOOLEAN}
_SENT = {
    "mode": "non-blocking",
    "tag": rf"(?={_PLAIN}{_FIELD})(?:{_PLAIN}{_FIELD}){{1,8}}{_PLAIN}",
    "labels": r"[A-Za-z0-9_.,/-]{1,512}",
    "cache-compress": _BOOLEAN,
}
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "json-file": _LOCAL,
    "local": _LOCAL,
    "journald": _SENT,
    "syslog": _SENT
    | {
        "syslog-address": ".*",
        "syslog-facility": "kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local[0-7]",
        "syslog-format": "rfc3164|rfc5424|rfc5424micro",
    },
    "fluentd": _SENT
    | {
        "fluentd-address": ".*",
        "fluentd-async": "true",
        "fluentd-buffer-limit": "[1-9][0-9]{0,2}|1[0-9]{3}|[2-3][0-9]{3}|40[0-8][0-9]|409[0-6]",
        "fluentd-max-retries": _COUNT,
        "fluentd-retry-wait": "[1-9][0-9]{0,3}(?:ms|s)",
        "fluentd-sub-second-precision": _BOOLEAN,
        "fluentd-request-ack": _BOOLEAN,
    },
    "gelf": _SENT
    | {
        "gelf-address": ".*",
        "gelf-compression-type": "gzip|zlib|none",
        "gelf-compression-level": "-1|[0-9]",
        "gelf-tcp-max-reconnect": _COUNT,
        "gelf-tcp-reconnect-delay": _COUNT,
    },
}


def logs_kept(case: Case) -> Findings:
    """Logs stay on this host, in files that rotate, or go to a collector that the policy names."""
    yield from judge_log(case.request.log, case.policy)


def address_of(log: LogConfig) -> str:
    """Return the collector of a log in the notation of a policy; '' for none."""
    given = dict(log.options).get(f"{log.type}-address", "") or _USUAL.get(log.type, "")
    return f"tcp://{given}" if log.type == "fluentd" and "://" not in given else given


def log_with_defaults(log: LogConfig, policy: Policy) -> LogConfig:
    """Return a log configuration that rotates, and waits for no collector."""
    limits, options = policy.logs, dict(log.options)
    usual = "json-file" if "json-file" in limits.drivers else limits.drivers[0]
    driver = log.type or usual
    cache = "" if driver in LOCAL_LOGS else "cache-"
    if f"{cache}max-size" not in options:
        # A configuration with max-size is bounded already: only others get the policy's numbers.
        options.setdefault(f"{cache}max-file", str(limits.default_files))
        options[f"{cache}max-size"] = str(limits.default_size)
    if cache:
        needed = _BUFFERED | (_ASYNC if driver == "fluentd" else {})
        named = {f"{driver}-address": _USUAL[driver]} if driver in _USUAL else {}
        options = named | needed | options
    return LogConfig(driver, tuple(sorted(options.items())))


def judge_log(log: LogConfig, policy: Policy) -> Findings:
    """Yield the faults of a log configuration."""
    limits, driver = policy.logs, log.type or "json-file"
    if log.type and log.type not in {*limits.drivers, *(each.driver for each in limits.collectors)}:
        reason = f"the driver {log.type!r} would send the log elsewhere, or nowhere"
        remedy, here = f"use {' or '.join(limits.drivers)}", log.type in LOCAL_LOGS
        yield Finding("log.driver", f"{_PATH}.Type", reason, remedy, here, _permit_driver(log))
        if not here:
            return
    elif log.type not in {"", *limits.drivers} and not any(
        (each.driver, each.address) == (log.type, address_of(log)) for each in limits.collectors
    ):
        where = f"{_PATH}.Config.{log.type}-address"
        reason = f"{quote(address_of(log))} is no collector of {log.type} that the policy names"
        named = (each.address for each in limits.collectors if each.driver == log.type)
        remedy, permit = f"use {' or '.join(named)}", _permit_driver(log)
        yield Finding("log.driver", where, reason, remedy, permit=permit)
    for key, value in log.options:
        yield from _judge_option(driver, key, value, policy)


def _permit_driver(log: LogConfig) -> Grant:
    if log.type not in {"syslog", "fluentd", "gelf"}:
        return Grant("add", "logs.drivers", log.type)
    return Grant("add", "logs.collectors", {"driver": log.type, "address": address_of(log)})


def _judge_option(driver: str, key: str, value: str, policy: Policy) -> Findings:
    limits, where = policy.logs, f"{_PATH}.Config.{key}"
    cache = "" if driver in LOCAL_LOGS else "cache-"
    size, files, form = f"{cache}max-size", f"{cache}max-file", _OPTIONS[driver].get(key)
    buffer = {"max-buffer-size": _BUFFER_MAX} if cache else {}
    sizes = {size: limits.max_size, **buffer}
    if key in sizes:
        found, most = parse_size(value), sizes[key]
        if not 0 < (found or 0) <= most:
            asked = format_bytes(found) if found else quote(value)
            reason = f"{asked} is not a size of at most {format_bytes(most)}"
            more = bool(found) and key == size
            permit = new_bound("logs.maxSize", asked, is_beyond=more)
            yield Finding("log.option", where, reason, "choose a smaller size", more, permit)
    elif key == files:
        if not _is_count(value, limits.max_files):
            reason = f"{quote(value)} is not a number of files from 1 to {limits.max_files}"
            more = _is_count(value, LOG_FILES_MAX)
            permit = new_bound("logs.maxFiles", int(value), is_beyond=True) if more else None
            yield Finding("log.option", where, reason, "ask for fewer files", more, permit)
    elif form is None:
        options = ", ".join(sorted({*sizes, files, *_OPTIONS[driver]}))
        yield Finding("log.option", where, f"the option {key!r}: {options}", "leave it out")
    elif not re.fullmatch(form, value, re.ASCII):
        remedy = "write true or false" if form == _BOOLEAN else _REMEDIES.get(key, "leave it out")
        yield Finding("log.option", where, quote(value), remedy)


_REMEDIES = {
    "mode": "leave it out: logs are sent without blocking, so that no collector holds up a container",
    "tag": "name the container: {{.Name}}, {{.ID}} or {{.ImageName}}, with letters, digits and _.:/@-",
}


def _is_count(text: str, most: int) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,3}", text, re.ASCII) is not None and int(text) <= most
