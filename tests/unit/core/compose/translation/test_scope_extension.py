"""Choices of ``x-trimtab``, and their mistakes."""

from __future__ import annotations

import pytest

from controller.core.engine_api.create_body import aliases_on, joined_networks
from controller.model.names import NetworkNames
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
        (
            "networks: keep",
            "x-trimtab.networks must be one of compose, trimtab",
            "write compose to keep the networks of Docker Compose",
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


SHOP = """\
name: shop
services:
  web: {image: x, ports: [{target: 80, published: "8080"}]}
  db: {image: x, networks: {back: {aliases: [sql]}}}
  both: {image: x, networks: [default, back, front]}
  away: {image: x, networks: [others]}
networks:
  default:
  back: {internal: true, ipam: {config: [{subnet: 10.1.0.0/24}]}}
  front: {name: edge}
  others: {external: true, name: theirs}
  unused: {}
x-trimtab: {networks: compose}
"""


def test_services_stay_on_the_networks_of_docker_compose_with_its_names() -> None:
    state = desired(SHOP)
    assert {each.key.name: (each.engine_name, each.spec.internal) for each in state.networks} == {
        "default": ("shop_default", False),
        "back": ("shop_back", True),
        "front": ("edge", False),
        "others": ("theirs", False),
    }
    joined = {each.key.name: joined_networks(each, NetworkNames()) for each in state.services}
    assert joined == {
        # A network with a way out publishes ports by itself.
        "web": ("shop_default",),
        "db": ("shop_back",),
        "both": ("shop_default", "shop_back", "edge"),
        "away": ("theirs",),
    }
    db = next(each for each in state.services if each.key.name == "db")
    assert aliases_on(db, "shop_back", NetworkNames()) == ("db", "sql")


def test_names_and_subnets_that_stay_need_no_warning() -> None:
    assert [p.message for p in desired(SHOP).problems if p.key and p.key.kind == "Network"] == []
    others = desired(SHOP.replace("networks: compose", "networks: trimtab"))
    assert {p.field for p in others.problems if p.key and p.key.kind == "Network"} == {
        "networks.back.ipam.config",
        "networks.front.name",
    }
