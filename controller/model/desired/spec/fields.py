"""The base of all specs, and the types of their fields: patterns, bounds and names.

Unknown keys are errors. A field without an implementation is not part of a model:
``core.manifests.parse`` refuses it by name as "not supported yet" instead of ignoring it. Defaults
are the documented ones, except for limits: the policy provides unset limits.

Field types with a notation of their own: quantities and port numbers.

Separate from ``model.quantities``, which does not import pydantic.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    WrapSerializer,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from controller.model import quantities

#: ``model_dump(…, context=AS_WRITTEN)`` writes quantities as users do; without it, as numbers.
AS_WRITTEN = {"quantities": "as written"}


def _bytes_out(count: int, _: object, info: SerializationInfo) -> int | str:
    return quantities.format_bytes(count) if info.context == AS_WRITTEN else count


def _duration_out(count: int, _: object, info: SerializationInfo) -> int | str:
    return quantities.format_duration_ms(count) if info.context == AS_WRITTEN else count


class _Written:
    """The notation of a quantity, for the JSON Schema that editors use: bounds stay with the model."""

    def __init__(self, pattern: str, example: str) -> None:
        self._pattern, self._example = pattern, example

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {"type": "string", "pattern": self._pattern, "examples": [self._example]}


Bytes = Annotated[
    int,
    BeforeValidator(quantities.parse_bytes),
    WrapSerializer(_bytes_out),
    _Written("^[0-9]{1,18}(Ki|Mi|Gi)$", "512Mi"),
]
DurationMs = Annotated[
    int,
    BeforeValidator(quantities.parse_duration_ms),
    WrapSerializer(_duration_out),
    _Written("^[0-9]{1,12}(ms|s|m|h)$", "10s"),
]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


STOP_GRACE_MAX_MS = 300_000
TEXTS_MAX = 1_000  # items of a list, members of a mapping
URL_PATH_MAX = 1024
PATH_MAX = 4096
IMAGE_MAX = 512
SYSCTL_MAX = 256  # characters of the name and of the value of a setting of the kernel
LISTED_MAX = 64  # items of a list of names, addresses or groups
HOST_ADDRESSES_MAX = 8  # addresses of one name in /etc/hosts
#: The engine replaces this target of ``extraHosts`` by an address of the host.
HOST_GATEWAY = "host-gateway"

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?)*"
    r"(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
#: The namespaced settings: of the network, of message queues, and of System V IPC.
_LOG_OPTION = re.compile(r"[a-z][a-z-]*", re.ASCII)
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_SYSCTL = re.compile(
    r"net(?:\.[a-z0-9_-]+)+|fs\.mqueue\.[a-z_]+"
    r"|kernel\.(?:msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)",
    re.ASCII,
)
_URL_PATH = re.compile(r"/[!-\"$-~]*", re.ASCII)  # printable, without spaces and '#'
_HOST_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_HOST_PART}(?:\.{_HOST_PART})*", re.ASCII)
_SEARCH = re.compile(rf"\.|{_HOST_NAME.pattern}", re.ASCII)
DNS_OPTION = re.compile(r"[a-z][a-z0-9-]{0,30}(?::[0-9]{1,4})?", re.ASCII)
GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
CPUSET = re.compile(r"[0-9]{1,4}(?:-[0-9]{1,4})?(?:,[0-9]{1,4}(?:-[0-9]{1,4})?){0,63}", re.ASCII)
_MODE = re.compile(r"[01]?[0-7]{3}", re.ASCII)
_ENGINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,254}", re.ASCII)
_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z][A-Z_]*[A-Z]", re.ASCII)
_SIGNAL = re.compile(
    "SIG(?:HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE|ALRM|TERM|STKFLT|CHLD|CONT"
    "|STOP|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS"
    r"|RTMIN(?:\+(?:[1-9]|1[0-5]))?|RTMAX(?:-(?:[1-9]|1[0-4]))?)",
    re.ASCII,
)


def satisfying(is_valid: Callable[[str], object], fault: str) -> AfterValidator:
    """Return a validator of strings. It raises ValueError(*fault*) for an invalid string."""

    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(fault)
        return text

    return AfterValidator(check)


def normalized(read: Callable[[str], object], fault: str) -> AfterValidator:
    """Return a validator of strings. It returns the text of the value that *read* makes of a string.

    It raises ValueError(*fault*) for a string that *read* rejects.
    """

    def check(text: str) -> str:
        try:
            return str(read(text))
        except ValueError:
            raise ValueError(fault) from None

    return AfterValidator(check)


def matching(pattern: re.Pattern[str], length: int, expected: str) -> AfterValidator:
    """Return a validator of strings: they match *pattern*, and have at most *length* characters."""
    return satisfying(
        lambda text: len(text) <= length and pattern.fullmatch(text), f"expected {expected}"
    )


def clean_path(text: str) -> str:
    """Return *text* if it is an absolute path in canonical spelling, and not ``/``.

    Raises:
        ValueError: *text* is not such a path.
    """
    if fault := _path_fault(text):
        raise ValueError(fault)
    return text


def _path_fault(text: str) -> str:
    """Return the fault and the expectation for a path that is not canonical, or ''."""
    if not text.startswith("/"):
        return "is not an absolute path; expected an absolute path, such as /srv/data"
    if text == "/":
        return "is the root folder; expected a path below /"
    if text.endswith("/"):
        return "ends with a slash; expected a path without a slash at its end"
    for part in ("", ".", ".."):
        if part in text.split("/")[1:]:
            return f'contains "/{part}/"; expected a path without "//", "/./" and "/../"'
    if len(text) > PATH_MAX:
        return f"is too long; expected at most {PATH_MAX} characters"
    return "" if text.isprintable() else "has a control character; expected printable characters"


def _relative(text: str) -> str:
    if text.startswith("/"):
        raise ValueError("is an absolute path; expected a relative path, such as data/web")
    return clean_path(f"/{text}")[1:]


def _folder(text: str) -> str:
    return text if text == "/" else clean_path(text)


def _whole_seconds(count: int) -> int:
    if count % 1000:
        raise ValueError(
            "has a fraction of a second; expected whole seconds: the engine counts no smaller"
        )
    return count


def _cpus(count: float) -> float:
    if abs(count * 1000 - round(count * 1000)) > 1e-6:
        raise ValueError(
            "is too precise; expected thousandths of a CPU at the finest, such as 0.125"
        )
    return count


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text or address.is_multicast:
        raise ValueError("expected an IP address, such as 127.0.0.1")
    return str(address)


def _host_address(text: str) -> str:
    if text == HOST_GATEWAY:
        return text
    try:
        return _plain_address(text)
    except ValueError:
        raise ValueError(f"expected an IP address, or {HOST_GATEWAY}") from None


def _plain_address(text: str) -> str:
    address = ipaddress.ip_address(text)
    if "%" in text:
        raise ValueError("expected an IP address without a zone")
    return str(address)


def _network_range(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        network = None
    if network is None or not 16 <= network.prefixlen <= 29 or str(network) != text:
        raise ValueError("expected an IPv4 network of /16 to /29, such as 10.80.4.0/24")
    return text


def _ipv6_range(text: str) -> str:
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError:
        network = None
    if network is None or not 64 <= network.prefixlen <= 112:
        raise ValueError("expected an IPv6 network of /64 to /112, such as fd12:3456::/64")
    return str(network)


def is_sysctl(name: str) -> bool:
    """Return True if *name* is a setting of the kernel that each container has for itself."""
    return len(name) <= SYSCTL_MAX and _SYSCTL.fullmatch(name) is not None


def _is_sysctl_value(value: str) -> bool:
    return value.isprintable() and 0 < len(value) <= SYSCTL_MAX


def is_env_name(name: str) -> bool:
    """Return True if *name* is valid as the name of an environment variable."""
    return _ENV_NAME.fullmatch(name) is not None


def host_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses of a host name: they have commas between them."""
    return tuple(text.split(","))


def _host_addresses(text: str) -> str:
    listed = host_addresses(text)
    if len(listed) > HOST_ADDRESSES_MAX:
        raise ValueError(f"expected at most {HOST_ADDRESSES_MAX} addresses of a name")
    if len(set(listed)) < len(listed):
        raise ValueError("expected each address of a name once")
    return ",".join(map(_host_address, listed))


def _capabilities(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _CAPABILITY.fullmatch(name):
            raise ValueError(f"expected capabilities in capitals, such as CHOWN, not {name!r}")
    if len({name.removeprefix("CAP_") for name in names}) != len(names):
        raise ValueError("a capability is named twice")
    return names


def image_reference(text: str) -> str:
    """Return an image reference.

    Raises:
        ValueError: the text is none.
    """
    if len(text) > IMAGE_MAX or not _REFERENCE.fullmatch(text):
        raise ValueError(
            "expected an image reference such as ghcr.io/team/api:1.4.2, in lower case"
        )
    return text


ImageReference = Annotated[str, AfterValidator(image_reference)]
UrlPath = Annotated[str, matching(_URL_PATH, URL_PATH_MAX, "the path of a URL, such as /healthz")]
UserName = Annotated[
    str, matching(_USER, 128, 'USER or USER:GROUP, names or numbers, such as "1000:1000"')
]
HostName = Annotated[str, matching(_HOST_NAME, 63, "a host name, such as web-1")]
DomainName = Annotated[str, matching(_HOST_NAME, 253, "a domain name, such as example.com")]
SearchDomain = Annotated[str, matching(_SEARCH, 253, "a domain name, or '.' for none")]
DnsOption = Annotated[str, matching(DNS_OPTION, 36, "an option of resolv.conf, such as ndots:2")]
DnsServer = Annotated[
    str, normalized(_plain_address, "expected an IP address, such as 192.168.0.1")
]
HostAddresses = Annotated[str, AfterValidator(_host_addresses)]
GroupName = Annotated[str, matching(GROUP, 64, "the name or the number of a group")]
CpuSet = Annotated[str, matching(CPUSET, 640, "numbers of CPUs, such as 0-2,4")]
RuntimeName = Annotated[str, matching(_RUNTIME, 64, "the name of a runtime, such as runc")]
SignalName = Annotated[str, matching(_SIGNAL, 16, "the name of a signal, such as SIGTERM")]
RelativePath = Annotated[str, AfterValidator(_relative)]
FileMode = Annotated[str, matching(_MODE, 4, 'octal digits in quotes, such as "1777"')]
SysctlName = Annotated[
    str,
    satisfying(
        is_sysctl,
        "expected a setting of the kernel that a container has for itself: net.*, fs.mqueue.*, or one "
        "of System V IPC, such as kernel.shmmax",
    ),
]
SysctlValue = Annotated[
    str, satisfying(_is_sysctl_value, f"expected one line of at most {SYSCTL_MAX} characters")
]
LogOption = Annotated[
    str, matching(_LOG_OPTION, 64, "the engine's name of an option, such as gelf-address")
]
CleanPath = Annotated[str, AfterValidator(clean_path)]
#: A path of the host. The root folder is for observers alone.
HostSource = Annotated[str, AfterValidator(lambda text: text if text == "/" else clean_path(text))]
Size = Annotated[Bytes, Field(ge=1024, le=2**50)]
Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=TEXTS_MAX)]
Folder = Annotated[str, AfterValidator(_folder)]
GracePeriod = Annotated[DurationMs, Field(le=STOP_GRACE_MAX_MS), AfterValidator(_whole_seconds)]
CpuCount = Annotated[float, Field(ge=0.01, le=1024), AfterValidator(_cpus)]
CapabilityNames = Annotated[tuple[str, ...], AfterValidator(_capabilities)]
ContainerAddress = Annotated[
    str, normalized(ipaddress.IPv4Address, "expected an IPv4 address, such as 10.80.4.10")
]
NetworkRange = Annotated[str, AfterValidator(_network_range)]
ContainerRange = Annotated[
    str, normalized(ipaddress.IPv4Network, "expected an IPv4 network, such as 192.168.1.192/27")
]
Ipv6Range = Annotated[str, AfterValidator(_ipv6_range)]
InterfaceName = Annotated[
    str, matching(_INTERFACE, 15, "the name of an interface of the host, such as eth0")
]
PublishAddress = Annotated[str, AfterValidator(_address)]


class Model(BaseModel):
    """Base of all models: closed, frozen, strict, with camelCase aliases.

    Validate with ``model_validate_json``. In JSON mode, strict validation accepts lists for tuples
    and strings for enums, and no other conversion.

    The validator of a model is built when it is first used: a process reads few of the kinds. So the
    default of a field is made with ``model_construct``: a call would build the validator at import.
    """

    model_config = ConfigDict(
        # Threads may use a model first at once: pydantic locks the build since 2.14.
        defer_build=True,
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=False,
    )


EngineName = Annotated[
    str,
    matching(
        _ENGINE_NAME,
        255,
        "a name of the engine: letters, digits and _ . - after the first, 2 to 255 characters",
    ),
]
