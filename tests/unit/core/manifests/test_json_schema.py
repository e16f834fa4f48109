"""The JSON Schema of documents takes what the parser takes, and refuses what the parser refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from controller.core.manifests.json_schema import schema_of_all, schema_of_kind
from controller.core.manifests.parse import KINDS, manifest_of

ROOT = Path(__file__).parents[4]
VALIDATOR = Draft202012Validator(schema_of_all())
DOCUMENTS = [
    (path, document)
    for path in sorted((ROOT / "desired-state").rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text("utf-8"))
    if isinstance(document, dict) and document.get("apiVersion") == "trimtab/v1"
]


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(schema_of_all())


def test_the_shipped_documents_fit() -> None:
    assert DOCUMENTS
    assert [(p, e.message) for p, d in DOCUMENTS for e in VALIDATOR.iter_errors(d)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Servce"},
        {"spec": {"image": "a:1", "prots": []}},
        {"metadata": {"name": "a"}},
        {"spec": {}},
    ],
)
def test_mistakes_don_t_fit(change: dict[str, object]) -> None:
    document = {
        "apiVersion": "trimtab/v1",
        "kind": "Service",
        "metadata": {"name": "web", "owner": "me"},
        "spec": {"image": "a:1"},
    }
    assert VALIDATOR.is_valid(document)
    assert not VALIDATOR.is_valid(document | change)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_schema_with_its_name(kind: str) -> None:
    model = manifest_of(kind)
    assert model is not None
    schema = schema_of_kind(kind, model)
    assert schema["title"] == f"trimtab {kind}"
    assert schema["properties"]["kind"] == {"const": kind}


def test_every_field_of_a_service_has_a_description() -> None:
    model = manifest_of("Service")
    assert model is not None
    fields = schema_of_kind("Service", model)["$defs"]["ServiceSpec"]["properties"]
    assert [name for name, field in fields.items() if not field.get("description")] == []
