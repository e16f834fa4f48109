"""The e2e suites whose honest acts signed admission must admit, and the tests that can't run so."""

from __future__ import annotations

import pytest

SUITES = frozenset(
    f"test_{name}.py"
    for name in (
        "a_database_stack",
        "adoption",
        "approvals",
        "boot",
        "compose",
        "configs",
        "dependencies",
        "down",
        "drift",
        "hard_times",
        "image_volumes",
        "images",
        "jobs",
        "limits",
        "logs",
        "moved",
        "networking",
        "parity",
        "plan",
        "probes",
        "real_images",
        "rollout_jobs",
        "rollouts",
        "secrets",
        "steering",
        "the_main_job",
        "volumes",
    )
)
#: By the function's name: why a test of these suites doesn't run under signed admission.
LEFT_OUT = {
    "test_an_update_of_trimtab_replaces_no_container": "its container is from before the requirement",
    "test_a_lost_folder_comes_back_and_bad_files_leave_the_service_as_it_is": "a commit has no links",
    "test_an_engine_that_is_down_is_waited_for_and_nothing_is_made_twice_when_it_is_back": (
        "looks before the source is served"
    ),
    "test_a_policy_that_is_missing_or_invalid_starts_no_broker": "its policy is missing",
    "test_a_closed_folder_that_holds_dir_is_refused_with_the_chmod": "the source lies elsewhere",
    "test_dir_and_state_in_a_closed_folder_work_as_a_clone_in_roots_home_does": "as above",
    "test_an_emptied_or_vanished_directory_removes_nothing": "no fetcher serves such a commit",
    "test_a_plan_is_the_same_beside_a_controller_and_without_one": "compares texts about files of DIR",
    "test_a_pull_request_with_secrets_is_planned_in_four_ways": "a Git source can't declare its Source",
}


def runs_signed(item: pytest.Item) -> bool:
    """Return True if a test runs under signed admission."""
    name = getattr(item, "originalname", item.name)
    fixtures = getattr(item, "fixturenames", ())
    is_of_suite = item.path.parent.name == "e2e" and item.path.name in SUITES
    return is_of_suite and "host" in fixtures and name not in LEFT_OUT
