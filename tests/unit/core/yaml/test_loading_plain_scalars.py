import pytest

from controller.core.yaml.loading import is_date, resolve_compose


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("", None),
        ("010", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("08", 8.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.2.3", "1.2.3"),
        ("190:20", "190:20"),
        ("18446744073709551616", 18446744073709551616.0),
        ("9" * 60, "9" * 60),
    ],
)
def test_a_plain_scalar_has_its_value(text, value):
    found = resolve_compose(text)
    assert (found, type(found)) == (value, type(value))


def test_dates_are_known():
    assert all(map(is_date, ["2024-01-01", "2024-1-1 10:00:00", "2024-01-01T10:00:00.5Z"]))
    assert not any(map(is_date, ["2024-13-01", "2024-01", "1.2.3", "", "2024-01-01x"]))
