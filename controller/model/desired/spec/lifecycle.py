"""Hooks of a container's life: commands that the broker runs after a start and before a stop."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from controller.model.desired.field_types import DurationMs
from controller.model.desired.spec.fields import (
    TEXTS_MAX,
    Folder,
    Model,
    Texts,
    UserName,
    is_env_name,
)

#: Hooks of one event.
HOOKS_MAX = 8
#: The longest time of one hook, and of all hooks of one event.
HOOK_MAX_MS = 60_000
HOOKS_S = HOOK_MAX_MS / 1000
HOOK_MIN_MS = 1_000


def _names(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not is_env_name(name):
            raise ValueError(f"expected names of environment variables, not {name!r}")
    return values


class Hook(Model):
    """A command that the broker runs in the container. The output is discarded."""

    #: The command and its arguments. Exit code 0 is a success.
    exec: Texts
    #: USER or USER:GROUP, names or numbers. Unset: the container's.
    user: UserName | None = None
    #: The working directory. Unset: the container's.
    working_dir: Folder | None = None
    #: Variables in addition to the container's.
    env: Annotated[dict[str, str], Field(max_length=TEXTS_MAX), AfterValidator(_names)] = Field(
        default_factory=dict
    )
    #: The longest time of the command. All hooks of one event share 60 s.
    timeout: Annotated[DurationMs, Field(ge=HOOK_MIN_MS, le=HOOK_MAX_MS)] = HOOK_MAX_MS


Hooks = Annotated[tuple[Hook, ...], Field(max_length=HOOKS_MAX)]


class Lifecycle(Model):
    """Commands at the start and before the stop of each container, in their order."""

    #: After each start by trimtab. The container isn't ready before all have succeeded.
    post_start: Hooks = ()
    #: Before each stop by trimtab, within four fifths of the grace period.
    pre_stop: Hooks = ()
