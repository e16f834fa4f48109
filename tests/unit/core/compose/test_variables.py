import pytest

from controller.core.compose.variables import InvalidTemplate, RequiredVariable, substitute

VARIABLES = {"A": "a", "EMPTY": ""}


def expand(text: str) -> tuple[str, list[str]]:
    missing: list[str] = []
    return substitute(text, VARIABLES, missing.append), missing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A-${A}", "a-a"),
        ("$$A", "$A"),
        ("$5 $ ${A}", "$5 $ a"),
        ("${N:-d}${EMPTY:-d}${EMPTY-d}${N-d}", "ddd"),
        ("${A:+r}${EMPTY:+r}${EMPTY+r}${N+r}", "rr"),
        ("${A:?m}${EMPTY?m}", "a"),
        ("${N:-${A}}", "a"),
        ("${N:-x${A}y} and ${A}", "xay and a"),
        ("${N:-${M:-z}}", "z"),
        ("${N:-{}}", "{}"),
    ],
)
def test_a_form_is_replaced(text, expected):
    assert expand(text)[0] == expected


def test_an_unset_variable_is_empty_and_named():
    assert expand("x$N-${M}") == ("x-", ["N", "M"])


@pytest.mark.parametrize("text", ["${A", "${1}", "${}", "${A!b}"])
def test_an_invalid_form_is_refused(text):
    with pytest.raises(InvalidTemplate):
        expand(text)


@pytest.mark.parametrize("text", ["${N:?why}", "${N?why}", "${EMPTY:?why}"])
def test_a_required_variable_without_a_value_has_its_reason(text):
    with pytest.raises(RequiredVariable) as caught:
        expand(text)
    assert caught.value.reason == "why"


def test_deep_nesting_is_bounded():
    with pytest.raises(InvalidTemplate):
        expand("${N:-" * 100 + "x" + "}" * 100)
