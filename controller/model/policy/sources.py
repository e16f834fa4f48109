"""The policy's section ``sources``: namespaces with signed admission."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from controller.model.desired.spec.fields import Model, matching, satisfying
from controller.model.names import COMMIT_ID, is_dns_label
from controller.model.policy.values import Namespace, OwnerName

SOURCES_MAX = 64
_PATH_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._ -]{1,255}", re.ASCII)


def _path(text: str) -> str:
    if text != "." and not all(_PATH_PART.fullmatch(part) for part in text.split("/")):
        raise ValueError("expected a folder of the repository, such as deploy/production, or '.'")
    return text


Name = Annotated[str, satisfying(partial(is_dns_label, length=63), "expected a DNS label")]


class SignedSource(Model):
    """A Git source. Its signed commits alone decide the controller's changes in its namespaces."""

    #: The name of the Source.
    source: Name
    namespaces: Annotated[tuple[Namespace, ...], Field(min_length=1, max_length=100)]
    require: Literal["signed"]
    #: The folder of keys below /etc/trimtab/keys.
    keys: Name
    #: The documents' folder in the repository, as in ``spec.git.path``.
    path: Annotated[str, Field(max_length=255), AfterValidator(_path)] = "."
    #: The owner of Compose projects without ``x-trimtab.owner``: the single owner in the Source's
    #: ``spec.owners``. Without a value, the owner is the policy's single owner, or ``default``.
    owner: OwnerName | None = None
    #: The first commit to accept. Later ones must descend from the newest accepted commit. Another
    #: value begins a new line at that commit.
    since: Annotated[str, matching(COMMIT_ID, 64, "the full id of a commit: 40 or 64 hex digits")]
