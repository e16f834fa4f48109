"""Names of Compose as names of resources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.compose.translation.scope import dns_name, namespace_of
from controller.model.names import NAMESPACE_MAX, SERVICE_NAME_MAX, is_dns_label


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("web", "web"),
        ("My_Web.v2", "my-web-v2"),
        ("_x_", "x"),
        ("a__b", "a-b"),
        ("x" * 27, "x" * 27),
        ("x" * 28, "x" * 18 + "-f3b43939"),
        ("___", "x-bda25155"),
    ],
)
def test_a_name_is_a_label(original: str, name: str) -> None:
    assert dns_name(original) == name


def test_long_names_of_projects_end_with_a_digest() -> None:
    assert namespace_of("a-very-long-name-of-a-project") == "a-very-long-fcd37074"


@given(st.text(min_size=1))
def test_every_name_is_valid_and_bounded(original: str) -> None:
    assert is_dns_label(dns_name(original), length=SERVICE_NAME_MAX)
    assert is_dns_label(namespace_of(original), length=NAMESPACE_MAX)
