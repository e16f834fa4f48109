"""The rules of devices: a path or a CDI name that the policy grants to the owner, and nothing more.

A device of the host is a way to the host's kernel. Each one needs a grant of the policy to a listed
owner in a namespace. The host decides what a path is: a character device that is no console,
no pseudo-terminal, no disk and no memory. The rules are the same for documents, clients and operators.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from controller.core.engine_api.cdi import FOLDERS, CdiDevice
from controller.core.engine_api.requests import DeviceRequest, Finding, Findings, Grant
from controller.core.rules.context import Case
from controller.model.host_paths import PathFacts
from controller.model.policy.devices import DeviceGrant, why_never, why_never_number

_REMEDY = "leave it out"
#: For an owner to whom no device can be granted yet.
_UNLISTED = (
    "leave it out, or list the owner with the namespace in owners of the policy, and grant the device in "
    "devices.grants"
)
#: The kinds of a path behind which there is no known device: rule, reason and remedy.
_UNKNOWN = {
    "missing": ("device.missing", "isn't there", "plug the device in, or load its module"),
    "symlink": ("device.kind", "is a link, or lies behind one", "name the device itself"),
    "unreadable": ("device.kind", "couldn't be looked at", "try again"),
}


def granting(case: Case, device: DeviceRequest) -> DeviceGrant | None:
    """Return the grant of a device to the container's owner; None for none."""
    return next(
        (
            grant
            for grant in case.policy.devices.of(case.owner, case.namespace)
            if device.source in grant.devices
        ),
        None,
    )


def of_devices(case: Case) -> tuple[str, ...]:
    """Return the capabilities that come with the container's devices, for a network of its own."""
    if case.request.shares.network:
        return ()
    grants = (granting(case, device) for device in case.request.devices)
    return tuple(name for grant in grants if grant is not None for name in grant.cap_add)


def devices_granted(case: Case) -> Findings:
    """Each device is granted to the owner in the namespace, and is what its grant is about."""
    for device in case.request.devices:
        grant = granting(case, device)
        if grant is None:
            yield _not_granted(case, device)
        elif case.facts is not None:
            yield from _judge_name(case, device, grant) if device.cdi else _judge_path(case, device)


def _not_granted(case: Case, device: DeviceRequest) -> Finding:
    if not device.cdi and (why := why_never(device.source)):
        reason = f"{device.source}: {why}; no policy can grant it"
        return Finding("device.never", device.path, reason, _REMEDY)
    others = any(device.source in grant.devices for grant in case.policy.devices.grants)
    elsewhere = ", but to another owner or namespace" if others and case.by_controller else ""
    reason = (
        f"{device.source} is a device that the policy doesn't grant to owner {case.owner} in "
        f"namespace {case.namespace}{elsewhere}"
    )
    owner = next((each for each in case.policy.owners or () if each.name == case.owner), None)
    if owner is not None and case.namespace in owner.namespaces:
        permit = _permit_device(case, device)
        return Finding("devices", device.path, reason, _REMEDY, permit=permit)
    return Finding("devices", device.path, reason, _UNLISTED)


def _permit_device(case: Case, device: DeviceRequest) -> Grant:
    for index, grant in enumerate(case.policy.devices.grants):
        if (grant.owner, grant.namespace) == (case.owner, case.namespace):
            return Grant("add", f"devices.grants.{index}.devices", device.source)
    place = {"owner": case.owner, "namespace": case.namespace}
    return Grant("add", "devices.grants", {**place, "devices": [device.source]})


def _judge_path(case: Case, device: DeviceRequest) -> Findings:
    paths = case.facts.paths if case.facts else {}
    yield from _judge_node(paths.get(device.source, PathFacts(device.source, "unreadable")), device)


def _judge_node(facts: PathFacts, device: DeviceRequest) -> Findings:
    """Yield why an object of the host is no device that a grant can be about."""
    node = facts.path
    if facts.kind in _UNKNOWN:
        rule, what, remedy = _UNKNOWN[facts.kind]
        yield Finding(rule, device.path, f"{node} {what}", remedy)
    elif facts.device_type != "character":
        what = "a block device" if facts.device_type == "block" else "no device"
        yield Finding("device.never", device.path, f"{node} is {what}", _REMEDY)
    elif why := why_never_number(os.major(facts.number), os.minor(facts.number)):
        yield Finding("device.never", device.path, f"{node}: {why}", _REMEDY)
    elif facts.console:
        reason = f"{node} is a console of the host"
        yield Finding(
            "device.never", device.path, reason, "take it from the kernel's console= first"
        )


def _judge_name(case: Case, device: DeviceRequest, grant: DeviceGrant) -> Findings:
    assert case.facts is not None, "a name is judged by the specification"
    supported = case.facts.host.cdi_folders
    if not supported or not {*supported} <= {*FOLDERS}:
        read = ", ".join(supported)
        reason = (
            f"the engine reads CDI specifications in {read}, and only those in "
            f"{' and '.join(FOLDERS)} are checked"
            if supported
            else "the engine doesn't support CDI names"
        )
        remedy = 'write {"features": {"cdi": true}} into its daemon.json, and restart it'
        yield Finding("device.unsupported", device.path, reason, remedy)
        return
    found = case.facts.cdi.get(device.source)
    if found is None:
        reason = f"no CDI specification in {' or '.join(FOLDERS)} defines {device.source}"
        remedy = "write the specification with the vendor's tool, such as nvidia-ctk cdi generate"
        yield Finding("device.missing", device.path, reason, remedy)
        return
    if found.never:
        reason = f"{device.source} in {found.file}: {found.never}"
        yield Finding("device.never", device.path, reason, "correct the specification")
        return
    for node in found.nodes:
        paths = case.facts.paths
        yield from _judge_node(paths.get(node, PathFacts(node, "unreadable")), device)
    yield from _judge_edits(case, device, found, grant)


def _judge_edits(
    case: Case, device: DeviceRequest, found: CdiDevice, grant: DeviceGrant
) -> Findings:
    if found.digest in grant.specifications:
        return
    denied = [name for name in found.variables if name in case.policy.env.denied]
    further = [*found.further, *(f"the variable {name}" for name in denied)]
    if further:
        reason = (
            f"{found.file} gives {device.source} more than devices ({', '.join(further)}), and the "
            f"grant doesn't name its digest, {found.digest}"
        )
        remedy = "read the file, and name its digest in the grant"
        key = f"devices.grants.{case.policy.devices.grants.index(grant)}.specifications"
        permit = Grant("add", key, found.digest)
        yield Finding("device.edits", device.path, reason, remedy, permit=permit)


def paths_of(found: dict[str, CdiDevice], names: Iterator[str]) -> tuple[str, ...]:
    """Return the paths of the host that some named devices bring into a container."""
    devices = [found[name] for name in names if name in found]
    nodes = [node for device in devices for node in device.nodes]
    mounts = [mount.source for device in devices for mount in device.mounts]
    return tuple(sorted({*nodes, *mounts}))
