"""What a Secret is made of, as the decryption worker gets it, and the files that come of it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, assert_never

from controller.core.secrets.contents import SecretFiles, check_contents
from controller.core.secrets.formats import SopsForm


@dataclass(frozen=True, slots=True)
class SopsSource:
    """A SOPS file."""

    text: bytes
    form: SopsForm
    #: The file's name, which is the key of a binary document.
    name: str


@dataclass(frozen=True, slots=True)
class AgeSource:
    """Keys with armored age files."""

    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request to the decryption worker."""

    source: SopsSource | AgeSource
    #: The text of the namespace's key file.
    keys: str = field(repr=False)
    #: The path of the key file, for messages.
    place: str


# --- the form between broker and worker


def request_to_json(request: OpenRequest) -> dict[str, Any]:
    """Return a request as JSON."""
    match request.source:
        case SopsSource(text=text, form=form, name=name):
            source: dict[str, Any] = {
                "sops": base64.b64encode(text).decode(),
                "form": form.value,
                "name": name,
            }
        case AgeSource(files=files):
            source = {"age": files}
        case _:
            assert_never(request.source)
    return {"source": source, "keys": request.keys, "place": request.place}


def request_from_json(data: dict[str, Any]) -> OpenRequest:
    """Return the request of a JSON value that ``request_to_json`` made."""
    source = data["source"]
    parsed: SopsSource | AgeSource = (
        AgeSource(source["age"])
        if "age" in source
        else SopsSource(base64.b64decode(source["sops"]), SopsForm(source["form"]), source["name"])
    )
    return OpenRequest(parsed, data["keys"], data["place"])


def contents_to_json(files: SecretFiles) -> dict[str, str]:
    """Return files as JSON."""
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def contents_from_json(data: object) -> SecretFiles:
    """Return the files of a JSON value, within the bounds.

    Raises:
        ValueError: not the form of ``contents_to_json``.
        SecretError: beyond the bounds.
    """
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise ValueError("no mapping of texts")
    try:
        return check_contents(
            {str(name): base64.b64decode(text, validate=True) for name, text in data.items()}
        )
    except binascii.Error as error:
        raise ValueError("no base64") from error
