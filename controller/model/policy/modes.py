"""Modes of rules: how a policy's bounds are introduced without stopping running containers.

A rule is enforced unless the policy's ``modes`` has another mode for it. In ``warn`` and ``audit``,
a request beyond the bound is admitted unchanged, with all other hardening, and journaled as
``audit-deny``. The client gets a warning in ``warn`` and none in ``audit``. Only rules in
``ROLLABLE`` can have a mode. They bound a share of the host or a habit, never a right over the host
or over others.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["enforce", "warn", "audit"]

#: Each rule with the excess tolerated in ``warn`` and ``audit``, and why nobody gains a right. Other
#: faults, such as a negative number or contradictory limits, stay denied.
ROLLABLE: dict[str, str] = {
    "auto-remove": "removal at exit; only the container's own evidence goes",
    "env.size": "more variables than the policy's bound; the body is bounded all the same",
    "healthcheck.bounds": "checks more often or longer than the policy's; they run in the container",
    "healthcheck.shell": "a check by the container's own shell, in the container",
    "image.mutable": "a tag instead of a digest; it is still the image that was let in under it",
    "label.size": "more labels than the policy's bound; the body is bounded all the same",
    "log.driver": "the other driver that keeps logs on this host",
    "log.option": "larger or more log files; they still rotate and have a size",
    "mount.tmpfs": "a larger memory filesystem; it is charged to the container's memory",
    "resources.cpus": "more CPUs than the policy's, never more than the host has",
    "resources.memory": "more memory than the policy's; still a limit, and no swap",
    "resources.pids": "more processes than the policy's; still a limit",
    "resources.shm": "more shared memory than the policy's, never more than the memory",
    "resources.ulimits": "a higher value of an ulimit that the policy lists",
    "restart": "another of the engine's restart policies, or more retries",
    "root-filesystem": "a writable root filesystem; the image's files are the container's copy",
    "user.root": "root in the container: without the capabilities that aren't listed",
    "volume.anonymous": "a volume without a name; it is the engine's own, and its data is lost",
}
