"""The extension ``x-trimtab`` of a project: choices for trimtab that Docker Compose ignores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, cast

from controller.core.compose.project import EXTENSION, ComposeProject

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The reader of projects takes ``files`` and ``profiles``.
_MEMBERS: Final = ("files", "networks", "owner", "profiles", "suspend", "volumes")
#: Members that choose between the objects of Docker Compose and those of trimtab.
_KEEPING: Final = ("networks", "volumes")
_CHOICES: Final = ("compose", "trimtab")


@dataclass(frozen=True, slots=True)
class Extension:
    """The valid choices of ``x-trimtab``; the defaults for all others."""

    owner: str = ""  # '' for the owner of the settings
    is_suspended: bool = False  # services are left as they are, and no job runs
    keeps_volumes: bool = False  # volumes have the names that Docker Compose gives
    keeps_networks: bool = False  # the services join the networks that Docker Compose made


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in ``x-trimtab``."""

    #: The member with the mistake; None for all of ``x-trimtab``.
    member: str | None
    message: str
    remedy: str


def extension_of(project: ComposeProject) -> Extension:
    """Return the choices of a project."""
    tree = _tree(project)
    owner = tree.get("owner")
    return Extension(
        owner=owner if isinstance(owner, str) else "",
        is_suspended=tree.get("suspend") is True,
        keeps_volumes=tree.get("volumes") == "compose",
        keeps_networks=tree.get("networks") == "compose",
    )


def mistakes_of(project: ComposeProject) -> Iterator[Mistake]:
    """Yield the mistakes in ``x-trimtab``."""
    whole = project.tree.get(EXTENSION)
    if whole is not None and not isinstance(whole, Mapping):
        yield Mistake(None, f"{EXTENSION} must be a mapping", f"write {EXTENSION}: {{owner: NAME}}")
    for name, value in _tree(project).items():
        if name not in _MEMBERS:
            near = get_close_matches(name, _MEMBERS, 1)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(_MEMBERS)}"
            yield Mistake(name, f"{EXTENSION} has no member {name}", remedy)
        elif name == "owner" and not (isinstance(value, str) and value):
            yield Mistake(name, f"{EXTENSION}.owner must be a name", "write the name of an owner")
        elif name == "suspend" and not isinstance(value, bool):
            yield Mistake(name, f"{EXTENSION}.suspend must be true or false", "write true or false")
        elif name in _KEEPING and value not in _CHOICES:
            message = f"{EXTENSION}.{name} must be one of {', '.join(_CHOICES)}"
            yield Mistake(name, message, f"write compose to keep the {name} of Docker Compose")


def _tree(project: ComposeProject) -> Mapping[str, object]:
    tree = project.tree.get(EXTENSION)
    return cast("Mapping[str, object]", tree) if isinstance(tree, Mapping) else {}
