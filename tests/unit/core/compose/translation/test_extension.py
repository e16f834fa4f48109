"""Choices of ``x-trimtab``, and their mistakes."""

from __future__ import annotations

import pytest

from tests.unit.core.compose.canonical import desired, trees

BLOG = """\
services:
  web: {image: "nginx:1.27", volumes: [{type: volume, source: data, target: /data}]}
volumes:
  data: {name: shop_data}
  cache: {}
x-trimtab: {volumes: compose, suspend: true}
"""


def test_volumes_keep_the_names_of_docker_compose() -> None:
    assert {each.key.name: each.engine_name for each in desired(BLOG).volumes} == {
        "data": "shop_data",
        "cache": "shop_cache",
    }


def test_suspended_services_keep_the_line_of_the_choice() -> None:
    assert trees(BLOG)["Service/web"]["suspend"] is True
    text = BLOG.replace(", suspend: true", "")
    assert "suspend" not in trees(text)["Service/web"]


@pytest.mark.parametrize(
    ("member", "message", "remedy"),
    [
        ("ower: team", "x-trimtab has no member ower", "did you mean owner?"),
        ("owner: 5", "x-trimtab.owner must be a name", "write the name of an owner"),
        ('suspend: "yes"', "x-trimtab.suspend must be true or false", "write true or false"),
        (
            "volumes: keep",
            "x-trimtab.volumes must be one of compose, trimtab",
            "write compose to keep the volumes of Docker Compose",
        ),
    ],
)
def test_a_mistake_leaves_the_whole_project_as_it_is(
    member: str, message: str, remedy: str
) -> None:
    text = BLOG.replace("volumes: compose, suspend: true", member)
    state = desired(text)
    assert state.services == ()
    (problem,) = state.problems
    assert (problem.code, problem.message, problem.remedy) == ("compose.value", message, remedy)
    assert problem.line == 6
    assert state.blind


@pytest.mark.parametrize("value", ["suspend", "[suspend]", "true"])
def test_choices_that_are_no_mapping_leave_the_whole_project_as_it_is(value: str) -> None:
    state = desired(BLOG.replace("{volumes: compose, suspend: true}", value))
    assert state.blind
    assert state.services == ()
    assert [p.message for p in state.problems] == ["x-trimtab must be a mapping"]


def test_jobs_wait_while_the_project_is_suspended() -> None:
    text = """\
services:
  web: {image: x, depends_on: {migrate: {condition: service_completed_successfully}}}
  migrate: {image: x}
x-trimtab: {suspend: true}
"""
    assert trees(text)["Job/migrate"]["suspend"] is True
