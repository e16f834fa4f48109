"""Charts that would take time or memory without end, and where each of them is stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

RELEASE = """apiVersion: trimtab/v1
kind: Release
metadata: {name: %s, namespace: bombs, owner: team}
spec:
  chart: %s
  values: %s
"""
LEVELS = 60
SCHEMA, TEMPLATE = "values.schema.json", "templates/a.yaml"
COSTLY, COUNTED = "chart.too-costly", "chart.template"


@dataclass(frozen=True)
class Bomb:
    """A chart, and the problem of its Release: code, file in the chart, and line."""

    files: Mapping[str, str]
    code: str
    file: str
    line: int
    values: object = field(default_factory=dict)

    def write_to(self, name: str) -> dict[str, str]:
        """Return the files of the chart and of a Release, by their paths beside DIR's parent."""
        head = f"apiVersion: trimtab/v1\nname: {name}\nversion: 1.0.0\n"
        files = {"Chart.yaml": head, **self.files}
        charts = {f"configs/{name}/{path}": text for path, text in files.items()}
        release = RELEASE % (name, name, json.dumps(self.values))
        return {**charts, f"desired-state/{name}.yaml": release}


def _template(text: str, line: int, code: str = COUNTED) -> Bomb:
    return Bomb({TEMPLATE: text}, code, TEMPLATE, line)


def _schema(schema: object, values: object, *, files: Mapping[str, str] | None = None) -> Bomb:
    return Bomb({SCHEMA: json.dumps(schema), **(files or {})}, COSTLY, SCHEMA, 1, values)


def _doubled(last: str, first: str = "[1]", form: str = "[{0}, {0}]") -> Bomb:
    """Return a template with *LEVELS* lines of lists, each with the list before twice, and *last*."""
    lines = [f"{{% set a0 = {first} %}}{{% set b0 = {first} %}}"]
    for level in range(1, LEVELS):
        sets = (f"{{% set {name}{level} = {form.format(f'{name}{level - 1}')} %}}" for name in "ab")
        lines.append("".join(sets))
    return _template("\n".join([*lines, last, ""]), LEVELS + 1)


def _doubling_schema() -> dict[str, object]:
    levels: dict[str, object] = {
        f"l{level}": {"allOf": [{"$ref": f"#/$defs/l{level + 1}"}] * 2} for level in range(LEVELS)
    }
    return {"$defs": {**levels, f"l{LEVELS}": {}}, "$ref": "#/$defs/l0"}


_LAST = f"a{LEVELS - 1}"

BOMBS = {
    "in": _doubled(f"{{{{ {_LAST} in [b{LEVELS - 1}] }}}}"),
    "in-tuples": _doubled(f"{{{{ {_LAST} in [b{LEVELS - 1}] }}}}", first="(1,)", form="({0}, {0})"),
    "output": _doubled(f"{{{{ {_LAST} }}}}"),
    "toyaml": _doubled(f"{{{{ {_LAST} | toyaml }}}}"),
    "tilde": _doubled(f"{{{{ 'x' ~ {_LAST} }}}}"),
    "join": _doubled(f"{{{{ [{_LAST}] | join }}}}"),
    "string": _doubled(f"{{{{ {_LAST} | string | length }}}}"),
    "lower": _doubled(f"{{{{ {_LAST} | lower | length }}}}"),
    "int": _doubled(f"{{{{ {_LAST} | int }}}}"),
    "maps": _doubled(f"{{{{ {_LAST} | toyaml }}}}", form="{{'x': {0}, 'y': {0}}}"),
    "keys": _doubled(f"{{{{ {{{_LAST}: 1}} }}}}", first="(1,)", form="({0}, {0})"),
    "varargs": _template("{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% endif %}{% endmacro %}", 1),
    "concatenation": _template(
        "{% macro m(n, t) %}{% if n %}{{ m(n - 1, t ~ t) }}{% endif %}{% endmacro %}\n{{ m(60, 'x') }}", 1
    ),
    "growth": _template(
        "{% macro m(n, l) %}{% if n %}{{ m(n - 1, l + l) }}{% endif %}{% endmacro %}\n{{ m(60, [1]) }}", 1
    ),
    "lists": _template(
        # One line with its loops: a limit of time can end either.
        f"{{% for i in range(1000) %}}{{% for j in range(40) %}}{{% set a = [{'1, ' * 80_000}] %}}"
        "{% endfor %}{% endfor %}",
        1,
        COSTLY,
    ),
    "pattern": _schema(
        {"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 60 + "!"}
    ),
    "property-patterns": _schema(
        {"patternProperties": {"^(a|aa)+$": {}}}, {"a" * 100 + "!": 1}
    ),
    "allof": _schema(_doubling_schema(), {}),
    "unique": _schema(
        {"properties": {"a": {"uniqueItems": True}}},
        {"a": [{"b": number} for number in range(20_000)]},
    ),
    "messages": _schema(
        {"properties": {"a": {"anyOf": [{"const": number} for number in range(20_000)]}}},
        {"a": ["x" * 100] * 5_000},
    ),
}  # fmt: skip
