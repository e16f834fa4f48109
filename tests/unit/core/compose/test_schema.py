"""The vendored schema."""

import hashlib
from importlib import resources

from controller.core.compose.schema import SCHEMA_VERSION

#: The SHA-256 of ``schema/compose-spec.json`` of compose-go 2.4.8.
SHA_256 = "0c3df943a2fbf4e543fb32de7974c96467efd70a8eda903c7250f6a4f094904f"


def test_the_schema_is_the_recorded_one_with_its_licence():
    package = resources.files("controller.core.compose")
    content = package.joinpath("compose-spec.json").read_bytes()
    assert (SCHEMA_VERSION, hashlib.sha256(content).hexdigest()) == ("2.4.8", SHA_256)
    licence = package.joinpath("compose-spec.LICENSE").read_text("utf-8")
    assert f"compose-go {SCHEMA_VERSION}" in licence
    assert "Apache License" in licence
