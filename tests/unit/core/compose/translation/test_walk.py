"""No attribute of a project is ignored in silence."""

from __future__ import annotations

from dataclasses import replace

from controller.core.compose.project import TreePath
from controller.core.compose.translation.documents import translate
from controller.core.compose.translation.settings import ComposeSettings
from tests.unit.core.compose.canonical import FILE, canonical, problems


def test_unknown_attributes_are_errors_everywhere() -> None:
    text = (
        "services:\n  web:\n    image: x:1\n    deploy: {resources: {limits: {gpu: 1}}}\n"
        "networks:\n  n: {colour: red}\nvolumes:\n  v: {internal: true}\nextra: {}\n"
    )
    assert [line.split(":")[0] for line in problems(text)] == [
        "4 error compose.unknown",
        "6 error compose.unknown",
        "8 error compose.unknown",
        "9 error compose.unknown",
    ]


def test_names_that_users_choose_are_no_attributes() -> None:
    text = (
        "services:\n  web:\n    image: x:1\n    environment: {colour: red}\n    labels: {colour: red}\n"
        "    ulimits: {nproc: 5}\n"
    )
    assert problems(text) == []


def test_a_name_on_the_engine_is_announced_unless_it_is_the_usual_one() -> None:
    text = "volumes:\n  a: {name: shop_a}\n  b: {name: other}\n"
    (warning,) = problems(text)
    assert (
        warning
        == "3 warning compose.by-policy: volumes.b.name: the engine's name is NAMESPACE.VOLUME"
    )


def test_a_dependency_that_links_imply_is_not_announced() -> None:
    read = canonical(
        "services:\n  web:\n    image: x:1\n    links: [db]\n"
        "    depends_on: {db: {condition: service_started, restart: true, required: true}}\n"
        "  db:\n    image: x:1\n"
    )
    implied = read.places[("services", "web", "links")]
    base: TreePath = ("services", "web", "depends_on", "db")
    places = dict(read.places)
    for name in ("condition", "restart"):
        places[(*base, name)] = implied
    for project, expected in ((read, 1), (replace(read, places=places), 0)):
        made = translate(project, ComposeSettings(), lambda _path: FILE)
        assert len(made.problems) == expected
