"""Devices that a policy grants, and the devices that no policy can grant."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from controller.model.desired.spec.devices import is_cdi_name, is_device_path
from controller.model.desired.spec.fields import Model, matching
from controller.model.policy.values import Namespace, OwnerName

#: The folder of the host's devices.
FOLDER = "/dev/"
#: The device of virtual private networks.
TUN = "/dev/net/tun"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
#: Names below /dev that no policy can grant, with the reason. The numbers decide in the end.
_NEVER = (
    (
        "it is the memory, the ports or the log of the host",
        re.compile(r"(?:mem|kmem|port|oldmem|kmsg|nvram)"),
    ),
    (
        "it is a terminal of the host",
        re.compile(
            r"(?:tty(?!(?:ACM|USB|S|AMA)[0-9]{1,3}\Z).*|console|ptmx|pts(?:/.*)?|vcs.*|hvc.*|pty.*)"
        ),
    ),
    (
        "it is a disk of the host, or a way to the blocks of one",
        re.compile(
            r"(?:[shv]d[a-z].*|xvd.*|nvme.*|mmcblk.*|loop.*|dm-.*|md[0-9].*|sr[0-9].*|ram[0-9].*"
            r"|zram.*|nbd.*|drbd.*|bcache.*|rbd.*|fd[0-9].*|sg[0-9].*|pmem.*|cdrom|dvd|raw.*"
            r"|(?:mapper|disk|block|bsg|ng.*)(?:/.*)?)"
        ),
    ),
)
#: Major numbers of serial ports: ttyS, ttyACM, ttyUSB and ttyAMA.
SERIAL = frozenset({4, 166, 188, 204})
#: Numbers of character devices that no policy can grant: the major number, and the minor ones.
#: None stands for all minor numbers (Documentation/admin-guide/devices.txt of Linux).
_NEVER_NUMBERS: tuple[tuple[str, frozenset[int], frozenset[int] | None], ...] = (
    (_NEVER[0][0], frozenset({1}), frozenset({1, 2, 4, 6, 11, 12})),
    (_NEVER[0][0], frozenset({10}), frozenset({144})),
    (
        _NEVER[1][0],
        frozenset({2, 3, 5, 7, *range(128, 144), 205, 229}),
        None,
    ),
    # 64 and above are serial ports (ttyS, ttyAMA): no terminal, unless the kernel has its console there.
    (_NEVER[1][0], frozenset({4, 204}), frozenset(range(64))),
    (_NEVER[2][0], frozenset({21, 162}), None),
)


def why_never(path: str) -> str:
    """Return why no policy can grant a path below /dev; '' for any other path."""
    name = path.removeprefix(FOLDER)
    return next((why for why, names in _NEVER if names.fullmatch(name)), "")


def why_never_number(major: int, minor: int) -> str:
    """Return why no policy can grant the character device with these numbers, or ''."""
    for why, majors, minors in _NEVER_NUMBERS:
        if major in majors and (minors is None or minor in minors):
            return why
    return ""


def _device(text: str) -> str:
    if is_cdi_name(text):
        return text
    if not is_device_path(text):
        raise ValueError("expected a path below /dev, or a CDI name such as nvidia.com/gpu=0")
    if why := why_never(text):
        raise ValueError(f"no policy can grant it: {why}")
    return text


DeviceName = Annotated[str, AfterValidator(_device)]
SpecificationDigest = Annotated[str, matching(_DIGEST, 71, "sha256: and 64 hexadecimal digits")]


class DeviceGrant(Model):
    """Devices for the containers of a listed owner in one of its namespaces."""

    owner: OwnerName
    namespace: Namespace
    #: Paths of character devices, and CDI names.
    devices: Annotated[tuple[DeviceName, ...], Field(min_length=1, max_length=64)]
    #: Digests of CDI specifications that may mount files, run hooks on the host or do more.
    specifications: Annotated[tuple[SpecificationDigest, ...], Field(max_length=64)] = ()
    #: Capabilities for the containers that have one of the devices, and a network of their own.
    cap_add: Annotated[tuple[Literal["NET_ADMIN"], ...], Field(max_length=1)] = ()


class DeviceRules(Model):
    """Devices of the host. All others are refused."""

    grants: Annotated[tuple[DeviceGrant, ...], Field(max_length=256)] = ()

    def of(self, owner: str, namespace: str) -> tuple[DeviceGrant, ...]:
        """Return the grants of an owner in a namespace."""
        return tuple(
            grant for grant in self.grants if (grant.owner, grant.namespace) == (owner, namespace)
        )
