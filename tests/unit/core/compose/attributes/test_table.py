"""The table of attributes: every row says what becomes of the attribute."""

from __future__ import annotations

from controller.core.compose.attributes.table import ATTRIBUTES, Treatment, attribute_at


def test_every_refused_attribute_has_a_reason_and_a_remedy() -> None:
    refused = [row for row in ATTRIBUTES.values() if row.treatment is Treatment.REFUSED]
    assert [row.path for row in refused if not row.text or not row.instead] == []


def test_every_attribute_by_policy_says_what_becomes_of_it() -> None:
    by_policy = [row for row in ATTRIBUTES.values() if row.treatment is Treatment.POLICY]
    assert [row.path for row in by_policy if not row.text] == []


def test_a_row_can_cover_the_attributes_below() -> None:
    row = attribute_at("services.*.build.secrets.source")
    assert row is not None
    assert row.path == "services.*.build.secrets"
    assert attribute_at("services.*.healthcheck.colour") is None
    assert attribute_at("colour") is None
