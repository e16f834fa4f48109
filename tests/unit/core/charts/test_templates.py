"""Templates are a small language: the same inputs give the same text, within a budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.charts.templates import quote, render_template, to_yaml
from controller.core.yaml.documents import compose
from controller.model.errors import Problem
from tests.hostile.chart_bombs import BOMBS, TEMPLATE

CONTEXT = {
    "values": {"items": [1, 2], "keys": "k", "port": 8080, "on": True, "env": {"B": "2", "A": "1"}},
    "release": {"name": "r"},
}


def check(template: str, text: str) -> None:
    assert render_template(template, "t.yaml", CONTEXT) == text


def refused(template: str) -> str:
    """Return ``LINE message`` of a template's problem."""
    problem = render_template(template, "t.yaml", CONTEXT)
    assert isinstance(problem, Problem), problem
    assert (problem.code, problem.file) == ("chart.template", "t.yaml")
    return f"{problem.line} {problem.message}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ release.name }}-data", "r-data"),
        ("{{ values.items }} {{ values.keys }}", "[1, 2] k"),
        ("{{ values.port | quote }} {{ values.on | quote }} {{ none | quote }}", '"8080" "true" ""'),
        ("{{ values.env | toyaml }}", '{"B": "2", "A": "1"}'),
        ("{% for k, v in values.env | items %}\n{{ k }}: {{ v | quote }}\n{% endfor %}", 'A: "1"\nB: "2"\n'),
        ("{{ values.nope | default('d') }}", "d"),
        ("{% if values.nope is defined %}x{% else %}y{% endif %}", "y"),
        ("{% if values.port > 1024 and values.port <= 8080 and 1 in values.items %}x{% endif %}", "x"),
        ("{% if 1 < values.port < 9000 %}x{% endif %}", "x"),
        ("{% if 'A' in values.env and 'x' not in 'abc' %}x{% endif %}", "x"),
        ("{{ values.port + 1 }} {{ 'a' ~ values.port ~ 'b' }} {{ values.items[0] }}", "8081 a8080b 1"),
        ("{% for n in range(3) %}{{ n }}{{ ',' if not loop.last }}{% endfor %}", "0,1,2"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(1) }}{{ m(2) }}", "<1><2>"),
        ("{% set a = values.port %}{{ a }}", "8080"),
        ("{# nothing #}a\n", "a\n"),
    ],
)  # fmt: skip
def test_what_templates_can_say(template, text):
    check(template, text)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("a\nb\n{{ values.nope }}", "3 'dict object' has no attribute 'nope'"),
        ("a\n{{ values.nope | toyaml }}", "2 'dict object' has no attribute 'nope'"),
        ("a\n{{ values.nope | quote }}", "2 'dict object' has no attribute 'nope'"),
        ("a\n{{ nope.x }}", "2 'nope' is undefined"),
        ("a\n\n{% if x %}", "3 Unexpected end of template."),
        ("{% include '/etc/passwd' %}", "1 include isn't there"),
        ("{% extends 'x' %}", "1 extends isn't there"),
        ("{% import 'x' as y %}", "1 import isn't there"),
        ("{{ values.items | toyaml | nope }}", "1 No filter named 'nope'."),
        ("{{ values.env | quote }}", "1 quote takes a text, a number or a truth value; use toyaml for others"),
        ("{{ 'hunter2' | int }}", "1 the filter int can't take this"),
        ("{{ 1 // 0 }}", "1 the template fails with ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(template, problem):
    assert refused(template).startswith(problem)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ values.__class__ }}",
        "{{ self.__init__ }}",
        "{{ range.__globals__ }}",
        "{{ 'a'.upper() }}",
        "{{ 'a'.format(1) }}",
        "{{ lipsum() }}",
        "{{ cycler('a') }}",
        "{{ namespace(a=1) }}",
        "{{ dict(a=1) }}",
        "{{ environment }}",
        "{{ context }}",
        "{{ release | attr('name') }}",
        "{% for x in [1] %}{{ loop.cycle('a') }}{% endfor %}",
        "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
        "{% autoescape true %}{% endautoescape %}",
    ],
)
def test_nothing_of_python_is_reached(template):
    refused(template)


#: Compared part by part in some 50 ms, where nobody weighs it.
DOUBLED = (
    "{% set a = [1] %}{% set b = [1] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 20
    + "{{ a in [b] }}",
    "too many parts",
)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        DOUBLED,
        ("{% for i in range(99999999) %}{% endfor %}", "range gives at most"),
        ("{{ 5.5 in range(1000000000000) }}", "range gives at most"),
        ("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", "more than 50000 steps"),
        ("{{ 'a' * 1000000000 }}", "takes numbers"),
        ("{{ [1] * 1000000000 }}", "takes numbers"),
        ("{{ '%999999999d' % 1 }}", "takes numbers"),
        ("{{ 10 ** 1000000000 }}", "** isn't there"),
        ("{{ 'x' | center(999999999) }}", "No filter"),
        ("{% macro d(s, n) %}{% if n %}{{ d(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ d('xxxxxxxx', 60) }}", "too much text"),
        ("{% macro d(s, n) %}{% if n %}{{ d(s + s, n - 1) }}{% endif %}{% endmacro %}{{ d('xxxxxxxx', 60) }}", "too much text"),
        ("{% macro d(s, n) %}{% if n %}{{ d(s + s, n - 1) }}{% endif %}{% endmacro %}{{ d([1], 60) }}", "more than 50000 steps"),
        ("{% macro d(n) %}{% if n %}{{ d(n - 1) }}{{ d(n - 1) }}{% endif %}{% endmacro %}{{ d(100) }}", "more than 50000 steps"),
        ("{% macro d(m, n) %}{% if n %}{{ d(m * m, n - 1) }}{% endif %}{% endmacro %}{{ d(7, 90) }}", "too large"),
        ("{% macro d() %}{{ d() }}{% endmacro %}{{ d() }}", "too deeply"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "too deeply"),
        ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "SyntaxError"),
        ("{% set x %}a{% endset %}", "a block of set isn't there"),
        ("{% filter upper %}a{% endfilter %}", "a block of filter isn't there"),
        ("{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}", "recursive isn't there"),
        ("{% macro m() %}{% for i in range(900) %}" + "a" * 2000 + "{% endfor %}{% endmacro %}"
         "{% for j in range(900) %}{{ m() | length }}{% endfor %}", "too much text"),
        ("{% for i in range(900) %}" + "a" * 2000 + "{% endfor %}", "more than 1024 KiB"),
        ("a" * 300_000, "over 256 KiB"),
    ],
)  # fmt: skip
def test_no_template_takes_more_than_its_budget(template, why):
    assert why in refused(template)


_TEXTS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=10)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_TEXTS.filter(bool), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=_VALUES)
def test_toyaml_writes_what_yaml_reads_back(value):
    documents, problems = compose(f"a:\n  b: {to_yaml(value)}\n", "f.yaml")
    assert (problems, [one.value for one in documents]) == ([], [{"a": {"b": value}}])


@given(text=_TEXTS)
def test_quote_makes_a_text_of_any_text(text):
    documents, problems = compose(f"a: {quote(text)}\n", "f.yaml")
    assert (problems, [one.value for one in documents]) == ([], [{"a": text}])


_WORDS = [
    "{{",
    "}}",
    "{%",
    "%}",
    " for x in ",
    " if ",
    " endfor ",
    " endif ",
    " macro m(a) ",
    "m(1)",
]
_PIECES = st.sampled_from(
    [*_WORDS, "range(9)", "values", ".env", "|toyaml", "|items", *"a()[]'~+*\n\0"]
)


@given(pieces=st.lists(_PIECES, max_size=25))
def test_no_template_makes_it_raise(pieces):
    outcome = render_template("".join(pieces), "t.yaml", CONTEXT)
    assert isinstance(outcome, str | Problem)


COUNTED = {name: bomb for name, bomb in BOMBS.items() if bomb.code == "chart.template"}


@pytest.mark.parametrize("name", COUNTED)
def test_a_value_with_shared_parts_is_weighed_before_it_is_looked_at(name: str) -> None:
    bomb = COUNTED[name]
    problem = render_template(bomb.files[TEMPLATE], "a.yaml", {"values": {}})
    assert isinstance(problem, Problem)
    assert (problem.code, problem.line) == (bomb.code, bomb.line)
