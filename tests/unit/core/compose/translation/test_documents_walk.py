"""No attribute of a project is ignored in silence."""

from __future__ import annotations

from tests.unit.core.compose.canonical import problems


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
