"""Devices of the host for a service."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from controller.model.desired.spec.fields import Model, matching, satisfying

_PATH = re.compile(r"/dev(?:/[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}){1,4}", re.ASCII)
_CDI = re.compile(
    r"[A-Za-z][A-Za-z0-9._-]{0,62}/[A-Za-z][A-Za-z0-9._-]{0,62}=[A-Za-z0-9][A-Za-z0-9._:-]{0,62}",
    re.ASCII,
)
_PERMISSIONS = re.compile(r"(?=.)r?w?m?", re.ASCII)


def is_device_path(text: str) -> bool:
    """Return True if *text* is the path of a device: below /dev, in canonical spelling."""
    return _PATH.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))


def is_cdi_name(text: str) -> bool:
    """Return True if *text* names a device of a CDI specification: VENDOR/CLASS=NAME."""
    return _CDI.fullmatch(text) is not None


DevicePath = Annotated[
    str,
    satisfying(is_device_path, "is no device; expected a path below /dev, such as /dev/fuse"),
]
CdiName = Annotated[
    str,
    satisfying(is_cdi_name, "is no CDI name; expected VENDOR/CLASS=NAME, such as nvidia.com/gpu=0"),
]
Permissions = Annotated[
    str, matching(_PERMISSIONS, 3, "some of r, w and m, in that order, such as rw")
]


class Device(Model):
    """A device: a path of the host, or a CDI name. Also written as the path or the name alone."""

    #: The path on the host.
    path: DevicePath | None = None
    #: The name of a CDI specification, such as nvidia.com/gpu=all.
    cdi: CdiName | None = None
    #: The path in the container. Unset: the same path.
    target: DevicePath | None = None
    #: ``r`` reads, ``w`` writes, ``m`` makes nodes of the device.
    permissions: Permissions = "rw"

    @model_validator(mode="after")
    def _is_one(self) -> Device:
        if (self.path is None) == (self.cdi is None):
            fault = "has no device" if self.path is None else "has path and cdi"
            raise ValueError(f"{fault}; expected one of path and cdi")
        if self.cdi is not None and (self.target is not None or self.permissions != "rw"):
            raise ValueError("has cdi with target or permissions; expected cdi alone")
        return self

    @property
    def name(self) -> str:
        """The path on the host, or the CDI name."""
        return self.path or self.cdi or ""


def _short(value: object) -> object:
    if not isinstance(value, str):
        return value
    return {"cdi": value} if "=" in value else {"path": value}


DeviceEntry = Annotated[Device, BeforeValidator(_short)]
