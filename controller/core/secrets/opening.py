"""Opening a Secret's source with private keys. Only the decryption worker imports this module."""

from __future__ import annotations

from typing import assert_never

from controller.core.secrets.age import parse_identities
from controller.core.secrets.age_form import check_armored
from controller.core.secrets.contents import SecretFiles, check_contents
from controller.core.secrets.sops import contents_of, open_document
from controller.core.secrets.sources import AgeSource, OpenRequest, SopsSource
from controller.core.secrets.tree import SOURCE_MAX
from controller.model.errors import SecretError


def open_source(request: OpenRequest) -> SecretFiles:
    """Return the files of a Secret.

    Raises:
        SecretError: the source can't be decrypted with these keys, or is beyond the bounds.
    """
    identities = parse_identities(request.keys, request.place)
    match request.source:
        case SopsSource(text=text, form=form, name=name):
            return contents_of(open_document(text, form, identities), form, name)
        case AgeSource(files=files):
            if sum(map(len, files.values())) > SOURCE_MAX:
                raise SecretError(
                    "secret.bounds",
                    f"spec.age has more than {SOURCE_MAX} bytes",
                    remedy="split the Secret",
                )
            return check_contents(
                {
                    key: identities.open(check_armored(text, key), f"spec.age.{key}")
                    for key, text in files.items()
                }
            )
        case _:
            assert_never(request.source)
