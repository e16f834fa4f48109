"""The build of a service's image, as a Compose project declares it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from controller.model.desired.field_types import Bytes
from controller.model.desired.spec.fields import LISTED_MAX, PATH_MAX, TEXTS_MAX, Model, matching

#: The name of a Dockerfile that is no file of the context.
OTHER_DOCKERFILE = ".trimtab.Dockerfile"
#: Hex digits of the build's digest in the tag of its image.
TAG_DIGITS = 16

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_PATH = re.compile(r"[^\x00-\x1f\x7f]+")
#: A path below the root of a source; ``NAME:`` comes before it if a Git source has the files.
_Path = Annotated[str, matching(_PATH, PATH_MAX, "a path without control characters")]
_Texts = Annotated[dict[str, str], Field(max_length=TEXTS_MAX)]


class Build(Model):
    """A build. trimtab writes it for a Compose file's ``build``; a document can't have one of its own.

    The image's tag has a digest of the build. An image with that tag is never built again.
    """

    #: The folder of the files that the build gets.
    context: _Path
    #: The digest of these files: names, permissions and contents.
    digest: Annotated[str, matching(_DIGEST, 71, "sha256: and 64 hex digits")]
    #: The path of the Dockerfile in the context.
    dockerfile: _Path = "Dockerfile"
    #: The text of a Dockerfile that isn't in the context.
    dockerfile_inline: str | None = None
    #: The images that the build starts from or copies from.
    bases: Annotated[tuple[str, ...], Field(max_length=LISTED_MAX)] = ()
    #: Values of the Dockerfile's arguments. They are no secret.
    args: _Texts = Field(default_factory=dict)
    #: The stage that is built. Unset: the last one.
    target: str | None = None
    #: Labels of the image.
    labels: _Texts = Field(default_factory=dict)
    #: none leaves the commands of the build without a network. Unset: as the policy says.
    network: Literal["none", "default"] | None = None
    #: The size of /dev/shm for the commands of the build.
    shm: Bytes | None = None
    #: True pulls the bases anew at each build.
    pull: bool = False


def identity_of(spec: Mapping[str, object]) -> str:
    """Return hex digits that differ for builds with other files or other choices.

    *spec* is a build as a document has it. Where the files lie doesn't count.
    """
    made_of = {name: value for name, value in spec.items() if name not in {"context", "bases"}}
    text = json.dumps(made_of, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:TAG_DIGITS]
