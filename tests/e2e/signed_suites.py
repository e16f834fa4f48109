"""The e2e suites whose honest acts signed admission must admit, and the tests that can't run so."""

from __future__ import annotations

import pytest

SUITES = frozenset(
    f"test_{name}.py"
    for name in (
        "a_database_stack",
        "boot",
        "compose",
        "configs",
        "dependencies",
        "down",
        "drift",
        "image_volumes",
        "images",
        "jobs",
        "limits",
        "networking",
        "plan",
        "probes",
        "rollout_jobs",
        "rollouts",
        "steering",
        "volumes",
    )
)
#: By the function's name: why a test of these suites doesn't run under signed admission.
LEFT_OUT = {
    "test_an_update_of_trimtab_replaces_no_container": "revisions of the rule v1: aren't supported",
    "test_a_foreign_volume_is_adopted_by_an_operator_and_mounted_by_its_name": (
        "adopted volumes and networks aren't supported"
    ),
}


def runs_signed(item: pytest.Item) -> bool:
    """Return True if a test runs under signed admission."""
    name = getattr(item, "originalname", item.name)
    fixtures = getattr(item, "fixturenames", ())
    is_of_suite = item.path.parent.name == "e2e" and item.path.name in SUITES
    return is_of_suite and "host" in fixtures and name not in LEFT_OUT
