import pytest

from controller.core.encoding.text import kind_of, path_text


def test_a_path_is_written_with_dots_and_indexes() -> None:
    assert path_text(("services", "web", "ports", 0, "target")) == "services.web.ports[0].target"
    assert path_text(()) == ""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1.5, "a number"),
        ("1", "a string"),
        ([], "a list"),
        ({}, "a mapping"),
    ],
)
def test_a_kind_is_named(value: object, kind: str) -> None:
    assert kind_of(value) == kind
