"""Bugs planted in rules and bounds that the simulation doesn't reach: a test of the suite finds each.

Others are beside their properties: what an image adds (``core/effective/test_merge.py``), what a connect
joins (``core/admission/test_networks_volumes_connects.py``), whose a request is
(``broker/signed/test_signed_acts_facts.py``), and in ``tests/sim`` (``planted*.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from controller.broker.engine import response
from controller.broker.engine.response import ListTooLong
from controller.core.charts import templates
from controller.core.enforcement import limits
from controller.core.rules import context, identity
from controller.model import names
from controller.model.records import Role
from tests.unit.broker.engine import test_response_rows as test_rows
from tests.unit.core.admission import test_create
from tests.unit.core.charts import test_templates
from tests.unit.core.enforcement import test_limits_quota_counts as test_quota_counts


@dataclass(frozen=True, slots=True)
class Planted:
    """A wrong variant of an attribute of a module or class, and a test that fails with it."""

    place: object
    name: str
    wrong: Callable[[Any], Any]
    found_by: Callable[[], object]


def _too_long(*_: object) -> Any:
    raise ListTooLong("a row is too long")


def _for_all(original: Any) -> Any:
    """Find the exceptions of documents and of clients for both."""
    return lambda policy, place, *, role: (
        *original(policy, place, role=Role.CONTROLLER),
        *original(policy, place, role=Role.CLIENT),
    )


PLANTED = {
    "a long row fails the whole list": Planted(
        response,
        "ObjectCutter",
        lambda _: _too_long,
        partial(test_rows.test_a_long_row_costs_its_long_members_only, 1 << 16),
    ),
    "shared parts of a chart's value are looked at unweighed": Planted(
        templates.Environment,
        "_weigh",
        lambda _: lambda *_values: None,
        partial(
            test_templates.test_no_template_takes_more_than_its_budget, *test_templates.DOUBLED
        ),
    ),
    "published ports are unbounded": Planted(
        identity,
        "judge_port_quota",
        lambda _: lambda *_args, **_new: (),
        test_create.test_published_ports_have_quotas_by_owner_and_in_all,
    ),
    "published ports of creates in progress count nothing": Planted(
        limits,
        "counted_of",
        lambda original: lambda *args: original(*args)._replace(ports=0),
        test_quota_counts.test_ports_of_a_container_count_from_its_reservation_to_its_end,
    ),
    "an exception for documents is for clients too": Planted(
        context,
        "exceptions_at",
        _for_all,
        partial(
            test_create.test_a_label_of_a_client_gives_it_no_exception_for_documents, names.SERVICE
        ),
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without the bug, the test that finds it passes."""
    planted = PLANTED[bug]
    planted.found_by()
    wrong = planted.wrong(getattr(planted.place, planted.name))
    monkeypatch.setattr(planted.place, planted.name, wrong)
    with pytest.raises((AssertionError, ListTooLong)):
        planted.found_by()
