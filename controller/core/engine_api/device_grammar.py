"""Devices of a create's body: paths (``Devices``) and CDI names (``DeviceRequests``).

Only the grammar is checked here. ``core.rules.devices`` decides whether a device is granted.
"""

from __future__ import annotations

import re

from controller.core.encoding.quoting import quote
from controller.core.engine_api.field_reader import FindingCollector, Values, read_object
from controller.core.engine_api.field_tables import DEVICE, DEVICE_REQUEST
from controller.core.engine_api.requests import DeviceRequest
from controller.model.desired.spec.devices import is_cdi_name, is_device_path

DEVICES_MAX = 64
#: The driver of device requests with CDI names.
CDI_DRIVER = "cdi"
_PERMISSIONS = re.compile(r"r?w?m?", re.ASCII)
#: Devices and folders that the runtime makes in every container.
_RUNTIME = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm")
_RUNTIME_PATHS = frozenset(
    [*(f"/dev/{name}" for name in _RUNTIME), "/dev/mqueue", "/dev/fd", "/dev/core"]
)


def devices(host: Values, findings: FindingCollector) -> tuple[DeviceRequest, ...]:
    """Return the devices: the paths first, then the CDI names."""
    found = [
        *(_by_path(item, index, findings) for index, item in enumerate(host.items("Devices"))),
        *(
            device
            for index, item in enumerate(host.items("DeviceRequests"))
            for device in _by_name(item, index, findings)
        ),
    ]
    result = tuple(device for device in found if device is not None)
    if len(result) > DEVICES_MAX:
        reason = f"{len(result)} devices: at most {DEVICES_MAX}"
        findings.add("devices", "HostConfig.Devices", reason, "ask for fewer")
    targets: set[str] = set()
    for device in result:
        if device.target in targets:
            findings.add("devices", device.path, f"{device.target} is asked for twice")
        targets.add(device.target)
    return result


def _by_path(item: object, index: int, findings: FindingCollector) -> DeviceRequest | None:
    path = f"HostConfig.Devices[{index}]"
    read = read_object(DEVICE, item, path, findings)
    source = read.text("PathOnHost")
    target = read.text("PathInContainer") or source
    permissions = read.text("CgroupPermissions") or "rwm"
    for name, text in (("PathOnHost", source), ("PathInContainer", target)):
        if not is_device_path(text):
            reason = f"{quote(text)} is not a path of a device below /dev"
            findings.add("devices", f"{path}.{name}", reason, "name a device, such as /dev/fuse")
            return None
    if target in _RUNTIME_PATHS or target.startswith("/dev/pts/"):
        reason = f"{target} is the runtime's own in every container"
        findings.add("devices", f"{path}.PathInContainer", reason, "choose another name")
    if not _PERMISSIONS.fullmatch(permissions):
        reason = f"{quote(permissions)}: some of r, w and m, in that order"
        findings.add("devices", f"{path}.CgroupPermissions", reason, "write rw")
    return DeviceRequest(source, target, permissions, path=path)


def _by_name(item: object, index: int, findings: FindingCollector) -> list[DeviceRequest]:
    path = f"HostConfig.DeviceRequests[{index}]"
    read = read_object(DEVICE_REQUEST, item, path, findings)
    if read.text("Driver") != CDI_DRIVER:
        reason = "devices are asked for by their CDI names, with the driver cdi"
        remedy = "write VENDOR/CLASS=NAME, such as --device nvidia.com/gpu=0 instead of --gpus"
        findings.add("device.driver", f"{path}.Driver", reason, remedy)
        return []
    names = read.texts("DeviceIDs")
    if not names:
        findings.add("devices", f"{path}.DeviceIDs", "no device is named", "name one")
    for name in names:
        if not is_cdi_name(name):
            reason = f"{quote(name)} is not a CDI name: VENDOR/CLASS=NAME"
            findings.add("devices", f"{path}.DeviceIDs", reason, "such as nvidia.com/gpu=0")
    return [
        DeviceRequest(name, name, cdi=True, path=f"{path}.DeviceIDs")
        for name in names
        if is_cdi_name(name)
    ]
