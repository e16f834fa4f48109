"""Field types of a policy: prefixes, paths, addresses, quantities.

A policy is also written (``Policy.to_json``), so each type serialises to its notation in the file.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from datetime import date
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from controller.model.desired.spec.fields import matching, normalized, satisfying
from controller.model.names import CONTAINER_NAME_MAX, NAMESPACE_MAX, is_dns_label
from controller.model.quantities import (
    format_bytes,
    format_duration_ms,
    parse_bytes,
    parse_duration_ms,
)

NANO = 1_000_000_000
OWNER_MAX = 63
_BASE_NAME_MAX = CONTAINER_NAME_MAX - NAMESPACE_MAX - 1
_PREFIX = re.compile(
    r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9.-]+:[0-9]{1,5})"
    r"(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*/?",
    re.ASCII,
)
_CAPABILITY = re.compile(r"[A-Z][A-Z_]{1,30}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)
#: Of a log collector. The only socket is that of the host's own log.
COLLECTOR = re.compile(
    r"(?:udp|tcp|tcp\+tls|tls)://(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9a-f:.]{2,45}\]):[1-9][0-9]{0,4}"
    r"|unix(?:gram)?:///dev/log",
    re.ASCII,
)
_NETWORK = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)


def parse_cpus(value: object) -> int:
    """Return the nano-CPUs of a decimal number such as ``0.5``, given as number or text.

    Raises:
        ValueError: *value* is not a positive decimal number.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = format(value, "f").rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    if not (number or isinstance(value, str)) or not _DECIMAL.fullmatch(text):
        raise ValueError("expected a number of CPUs, such as 0.5 or 4")
    whole, _, fraction = text.partition(".")
    return int(whole) * NANO + int(fraction.ljust(9, "0"))


def format_cpus(nano: int) -> str:
    """Return nano-CPUs in the notation of ``parse_cpus``."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _clean_path(text: str) -> str:
    path = text if text == "/" else text.removesuffix("/")
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
        raise ValueError("expected an absolute path without .. or double slashes")
    return text


def _capability(text: str) -> str:
    if not _CAPABILITY.fullmatch(text) or text == "ALL" or text.startswith("CAP_"):
        raise ValueError("expected a capability in capitals without CAP_, and never ALL")
    return text


AnonymousVolumes = Literal["refuse", "slot", "scratch"]
#: A limit of every container that an engine may ignore.
IgnoredLimit = Literal["memory", "swap", "cpus", "pids"]
PolicyBytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(format_bytes)]
PolicyDurationMs = Annotated[
    int, BeforeValidator(parse_duration_ms), PlainSerializer(format_duration_ms)
]
Cpus = Annotated[int, BeforeValidator(parse_cpus), PlainSerializer(format_cpus), Field(gt=0)]
ImagePrefix = Annotated[
    str,
    satisfying(
        _PREFIX.fullmatch, "expected REGISTRY/PATH/ (or one repository), with the registry's host"
    ),
]
HostPath = Annotated[str, AfterValidator(_clean_path)]
Capability = Annotated[str, AfterValidator(_capability)]
Address = Annotated[
    str, normalized(ipaddress.ip_address, "expected an IP address, such as 127.0.0.1")
]
Subnet = Annotated[
    str, normalized(ipaddress.IPv4Network, "expected an IPv4 network, such as 172.16.0.0/12")
]
AddressRange = Annotated[
    str, normalized(ipaddress.ip_network, "expected a network, such as 10.0.0.0/8 or ::/0")
]
OwnerName = Annotated[
    str,
    satisfying(
        partial(is_dns_label, length=OWNER_MAX),
        "expected a name of lower-case letters, digits and dashes",
    ),
]
Namespace = Annotated[
    str,
    satisfying(
        partial(is_dns_label, length=NAMESPACE_MAX),
        f"expected a namespace: a DNS label, at most {NAMESPACE_MAX} characters",
    ),
]
BaseName = Annotated[
    str,
    matching(
        _NETWORK,
        _BASE_NAME_MAX,
        f"lower-case letters, digits and dashes, at most {_BASE_NAME_MAX}",
    ),
]
Day = Annotated[str, normalized(date.fromisoformat, "expected a date, such as 2027-01-31")]
Uid = Annotated[int, Field(ge=0, le=2**32 - 2)]
