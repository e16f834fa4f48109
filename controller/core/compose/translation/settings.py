"""The choices of the policy that complete a Compose file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from controller.model.policy.document import Policy

#: The capabilities that Docker gives to every container, without those that endanger other
#: containers or that few images need: NET_RAW, MKNOD, AUDIT_WRITE, SETFCAP, SYS_CHROOT.
USUAL_CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
    *("SETGID", "SETPCAP", "SETUID"),
)
#: The owner of projects, if nothing names an owner.
DEFAULT_OWNER: Final = "default"
#: The code of the warning that a file must be copied for a Secret. It ends when the Secret is opened.
SECRET_COPY: Final = "compose.secret-copy"  # noqa: S105 — a code


@dataclass(frozen=True, slots=True)
class ComposeSettings:
    """The policy's choices. The defaults are those of the policy ``strict``."""

    #: The owner of projects without ``x-trimtab.owner``.
    owner: str = DEFAULT_OWNER
    #: The network ``default`` of a project.
    network: Literal["isolated", "bridge"] = "isolated"
    #: The host address of a port without an address.
    address: str = "127.0.0.1"
    #: The policy admits ports on all addresses of the host.
    everywhere: bool = False
    #: The capabilities of a service that drops none.
    capabilities: tuple[str, ...] = ("CHOWN", "SETGID", "SETUID")
    #: The policy allows further names of services.
    aliases: bool = False
    #: The policy grants builds. Otherwise an image beside a build is run as it is.
    builds: bool = False
    #: The size of a tmpfs without a size, in bytes.
    tmpfs: int = 64 * 1024**2
    #: The absolute path of the source's root, '' for none: files of a Git source have no place that lasts.
    directory: str = ""
    #: The observers of the policy: NAMESPACE/SERVICE.
    observers: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The home of a user around the directory, which ``~`` means; '' if there is none."""
        parts = self.directory.split("/")
        if parts[:2] == ["", "root"]:
            return "/root"
        return "/".join(parts[:3]) if parts[:2] == ["", "home"] and len(parts) > 2 else ""


def settings_of(policy: Policy) -> ComposeSettings:
    """Return the choices of a policy."""
    networks, owners = policy.networks, policy.owners or ()
    allowed = policy.capabilities.allowed
    return ComposeSettings(
        owner=owners[0].name if len(owners) == 1 else DEFAULT_OWNER,
        network=networks.compose_default,
        address=networks.ports.host_ips[0],
        everywhere="0.0.0.0" in networks.ports.host_ips,  # noqa: S104 - what the policy admits
        capabilities=tuple(name for name in USUAL_CAPABILITIES if name in allowed),
        aliases=networks.service_aliases,
        builds=policy.images.build is not None,
        tmpfs=policy.resources.tmpfs.default,
        directory=policy.directory,
        observers=tuple(
            f"{each.namespace}/{each.service}"
            for each in policy.exceptions
            if each.loosens.observer is not None
        ),
    )


def owned_by(
    owners: Sequence[str], settings: Callable[[], ComposeSettings]
) -> Callable[[], ComposeSettings]:
    """Return the settings of a Git source: with its only owner, if it lists one alone."""

    def own() -> ComposeSettings:
        chosen = settings()
        owner = owners[0] if len(owners) == 1 else chosen.owner
        return replace(chosen, owner=owner, directory="")

    return own
