"""Rendering of templates: Jinja, reduced to a small language with bounded work.

Jinja's sandbox keeps a template away from Python, but doesn't bound time and memory. Here a
template can only call its own macros, ``range`` and the filters in ``FILTERS``. Loop items, calls,
comparisons and produced characters are counted against one budget. Powers and the repetition of
texts don't exist. The same inputs give the same text: templates have no clock and no randomness.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import SandboxedEnvironment

from controller.model.errors import Problem

MAX_OUTPUT = 1024 * 1024
MAX_TEMPLATE = 256 * 1024
#: Loop items, calls and compared items of one rendering.
MAX_STEPS = 50_000
MAX_RANGE = 1_000
#: Characters produced by operators and filters in one rendering.
MAX_CHARACTERS = 8 * MAX_OUTPUT
MAX_NUMBER = 2**63

_LOOP_WORDS = frozenset(
    "index index0 revindex revindex0 first last length depth depth0 previtem nextitem".split()  # noqa: SIM905
)
#: Characters that YAML in double quotes parses differently from JSON, or not at all.
_TO_ESCAPE = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_FORBIDDEN_NODES: tuple[tuple[type[nodes.Node], str], ...] = (
    (nodes.Include, "include"),
    (nodes.Extends, "extends"),
    (nodes.Import, "import"),
    (nodes.FromImport, "import"),
    (nodes.Pow, "**"),
    # These nodes collect text before it is counted, or change the meaning of text.
    (nodes.AssignBlock, "a block of set"),
    (nodes.FilterBlock, "a block of filter"),
    (nodes.ScopedEvalContextModifier, "autoescape"),
)
#: Names of macros that Jinja fills with a tuple. A tuple can be a key, whose hash is the hash of all parts.
_FORBIDDEN_NAMES = frozenset({"varargs"})


_COMPARISONS: dict[str, Callable[[Any, Any], object]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


class _OverBudgetError(SecurityError):
    """A template takes too many steps or produces too much text."""


def to_yaml(value: object) -> str:
    """Return a value as YAML in JSON's form, on one line, usable wherever YAML takes a value.

    Raises:
        SecurityError: the value has parts besides mappings, lists, strings, numbers, booleans and
            nulls.
    """
    if isinstance(value, Undefined):
        str(value)  # raises an error with the undefined name
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SecurityError("toyaml can't write this value") from error
    return _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def quote(value: object) -> str:
    """Return a scalar as a quoted YAML string, so that ``8080`` or ``yes`` stays a string.

    Raises:
        SecurityError: the value is a mapping or a list.
    """
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, str):
        return to_yaml(str(value))
    if value is None or isinstance(value, bool | int | float):
        return to_yaml("" if value is None else json.dumps(value))
    raise SecurityError("quote takes a text, a number or a truth value; use toyaml for others")


def _indent(text: object, width: int = 2) -> str:
    assert not isinstance(width, bool)
    pad = " " * max(0, min(int(width), 80))
    return str(text).replace("\n", "\n" + pad)


def _default(value: object, fallback: object = "", boolean: object = False) -> object:  # noqa: FBT002
    missing = isinstance(value, Undefined) or (bool(boolean) and not value)
    return fallback if missing else value


def _items(value: object) -> list[list[object]]:
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, Mapping):
        raise SecurityError("items takes a mapping")
    return [list(item) for item in sorted(value.items(), key=lambda item: str(item[0]))]


def _join(value: object, separator: object = "") -> str:
    if not isinstance(value, list):
        raise SecurityError("join takes a list")
    return str(separator).join(str(item) for item in value)


FILTERS: dict[str, Callable[..., object]] = {
    "default": _default,
    "first": lambda value: value[0],
    "indent": _indent,
    "int": lambda value: int(str(value)[:20]),
    "items": _items,
    "join": _join,
    "last": lambda value: value[-1],
    "length": len,
    "lower": lambda value: str(value).lower(),
    "quote": quote,
    "string": str,
    "toyaml": to_yaml,
    "trim": lambda value: str(value).strip(),
    "upper": lambda value: str(value).upper(),
}
#: The filters that look at no part of a list's items.
_SHALLOW = frozenset({"default", "first", "items", "last", "length"})
TESTS = ("defined", "undefined", "none", "string", "number", "mapping", "sequence", "boolean")


def _weight(value: object, known: dict[int, int]) -> int:
    """Return at most the length of a value's text: a part that occurs several times counts each time.

    *known* has the weights of lists and mappings by their ids, so each is looked at once.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, list | Mapping):
        return 1
    weight = known.get(id(value))
    if weight is None:
        parts = (*value, *value.values()) if isinstance(value, Mapping) else value
        weight = 1 + len(value) + sum(_weight(each, known) for each in parts)
        known[id(value)] = weight
    return weight


class Environment(SandboxedEnvironment):
    """The reduced language, with the budget of one rendering."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            # No constant folding: computations at compile time would escape the budget.
            optimized=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            finalize=self._count_output,
        )
        self.steps = 0
        self.characters = 0
        self.globals = {"range": self.range}
        self.filters = {
            name: self._count_filter(name, function) for name, function in FILTERS.items()
        }
        self.tests = {name: self.tests[name] for name in TESTS}

    def range(self, *bounds: int) -> list[int]:
        """Return the numbers of Python's range, ``MAX_RANGE`` at most."""
        numbers = range(*bounds)
        if len(numbers[: MAX_RANGE + 1]) > MAX_RANGE:
            raise SecurityError(f"range gives at most {MAX_RANGE} numbers")
        self._step(len(numbers))
        return list(numbers)

    def bounded(self, items: Iterable[object]) -> Iterator[object]:
        """Yield the items of a loop. Each item costs a step."""
        for item in items:
            self._step()
            yield item

    def concatenated(self, *parts: object) -> str:
        """Return the joined parts (the operator ``~``)."""
        self._weigh(*parts)
        return self._count_text("".join(str(part) for part in parts))

    def compared(self, word: str, left: object, right: object) -> bool:
        """Return the result of a comparison. Lists and mappings only support ``in``."""
        for side in (left, right):
            if isinstance(side, Undefined):
                str(side)  # raises an error with the undefined name
        if word in {"in", "notin"}:
            if not isinstance(right, str | list | Mapping):
                raise SecurityError("in takes a text, a list or a mapping")
            self._step(1 + len(right) // (1000 if isinstance(right, str) else 1))
            if isinstance(right, list):
                self._weigh(right)
            return (left in right) == (word == "in")
        if isinstance(left, list | Mapping) or isinstance(right, list | Mapping):
            raise SecurityError("lists and mappings can't be compared")
        self._step()
        return bool(_COMPARISONS[word](left, right))

    def call_binop(self, context: Context, sign: str, left: object, right: object) -> object:
        """Return the result of an operator, within bounds. Only ``+`` takes non-numbers."""
        both_numbers = all(isinstance(side, int | float) for side in (left, right))
        if not both_numbers and sign != "+":
            raise SecurityError(f"the operator {sign} takes numbers")
        if sign == "**":
            raise SecurityError("the operator ** isn't there")
        if sign == "+" and isinstance(left, list) and isinstance(right, list):
            self._step(len(left) + len(right))
        result: object = super().call_binop(context, sign, left, right)
        if isinstance(result, int | float) and abs(result) >= MAX_NUMBER:
            raise SecurityError("a number becomes too large")
        return self._count_text(result) if isinstance(result, str) else result

    def is_safe_callable(self, obj: object) -> bool:
        """Return True for macros and the functions of this environment. Each call costs a step."""
        self._step()
        functions = (self.range, self.bounded, self.concatenated, self.compared)
        return isinstance(obj, Macro) or obj in functions

    def getattr(self, obj: object, attribute: str) -> object:
        """Return a member of a mapping or of ``loop``. Other objects have no attributes."""
        if isinstance(obj, LoopContext) and attribute in _LOOP_WORDS:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        """Return a member of a mapping, or an item or slice of a list or string."""
        if isinstance(obj, Undefined):
            str(obj)  # raises an error with the undefined name
        if isinstance(obj, Mapping | list | tuple | str):
            try:
                item: object = obj[argument]  # type: ignore[index,call-overload]
            except (LookupError, TypeError):
                return self.undefined(obj=obj, name=str(argument))
            return item
        return self.undefined(obj=obj, name=str(argument))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for kind, word in _FORBIDDEN_NODES:
            node = tree.find(kind)
            if node is not None:
                raise TemplateSyntaxError(f"{word} isn't there", node.lineno, name, filename)
        for each in tree.find_all(nodes.Name):
            if each.name in _FORBIDDEN_NAMES:
                raise TemplateSyntaxError(f"{each.name} isn't there", each.lineno, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            if loop.recursive:
                raise TemplateSyntaxError("recursive isn't there", loop.lineno, name, filename)
            loop.iter = _call("bounded", [loop.iter], loop.lineno)
        _replace_below(tree)
        return tree

    @pass_context
    def _count_output(self, _context: object, value: object) -> object:
        """Count output: text of the template, or a value."""
        if isinstance(value, Undefined):
            return value
        self._weigh(value)
        return self._count_text(str(value))

    def _count_filter(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            self._step(1 + sum(len(each) for each in arguments if isinstance(each, list | Mapping)))
            if name not in _SHALLOW:
                self._weigh(*arguments)
            try:
                result = function(*arguments)
            except (TypeError, ValueError, LookupError) as error:
                # Without the error's message: the message repeats the value, possibly a secret.
                raise SecurityError(f"the filter {name} can't take this") from error
            return self._count_text(result) if isinstance(result, str) else result

        return counted

    def _weigh(self, *values: object) -> None:
        """Count the parts of lists and mappings before something looks at all of them."""
        known: dict[int, int] = {}
        weight = sum(_weight(each, known) for each in values if isinstance(each, list | Mapping))
        self.characters += weight
        if weight > MAX_OUTPUT or self.characters > MAX_CHARACTERS:
            raise _OverBudgetError("the template makes a value with too many parts")

    def _step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > MAX_STEPS:
            raise _OverBudgetError(f"the template takes more than {MAX_STEPS} steps")

    def _count_text(self, text: str) -> str:
        self.characters += len(text)
        if len(text) > MAX_OUTPUT or self.characters > MAX_CHARACTERS:
            raise _OverBudgetError("the template makes too much text")
        return text


def _call(name: str, arguments: Sequence[nodes.Node], line: int) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(function, list(arguments), [], None, None, lineno=line)


def _replace_below(node: nodes.Node) -> None:
    """Replace the operations without a count below *node* by calls that count."""
    for name in node.fields:
        value = getattr(node, name)
        if isinstance(value, list):
            setattr(node, name, [_with_count(item) for item in value])
        else:
            setattr(node, name, _with_count(value))


def _with_count(value: object) -> object:
    if not isinstance(value, nodes.Node):
        return value
    _replace_below(value)
    match value:
        case nodes.Concat():
            return _call("concatenated", value.nodes, value.lineno)
        case nodes.TemplateData():
            return nodes.Const(value.data, lineno=value.lineno)
        case nodes.Compare():
            return _comparison(value)
        case nodes.Tuple(ctx="load"):
            return nodes.List(value.items, lineno=value.lineno)
        case _:
            return value


def _comparison(node: nodes.Compare) -> nodes.Expr:
    """Return ``a < b < c`` as calls joined by ``and``."""
    left = node.expr
    result: nodes.Expr | None = None
    for operand in node.ops:
        word = nodes.Const(operand.op, lineno=node.lineno)
        call = _call("compared", [word, left, operand.expr], node.lineno)
        result = call if result is None else nodes.And(result, call, lineno=node.lineno)
        left = operand.expr
    assert result is not None, "a comparison has an operator"
    return result


def render_template(text: str, file: str, context: Mapping[str, object]) -> str | Problem:
    """Render a template. Return the text, or the problem at its line. Never raises."""
    if len(text) > MAX_TEMPLATE:
        message = f"the template is over {MAX_TEMPLATE // 1024} KiB"
        return Problem("chart.template", message, file, remedy="split it")
    try:
        output = "".join(Environment().from_string(text).generate(**context))
    except TemplateSyntaxError as error:
        return Problem("chart.template", error.message or "not a template", file, error.lineno, 1)
    except UndefinedError as error:
        remedy = "give it a value in values.yaml, or use the filter default"
        message = error.message or "undefined"
        return Problem("chart.template", message, file, line_of(error), 1, remedy=remedy)
    except (TemplateError, RecursionError, MemoryError) as error:
        return Problem("chart.template", _message_of(error), file, line_of(error), 1)
    except Exception as error:  # noqa: BLE001 - no template is allowed to stop the controller
        message = f"the template fails with {type(error).__name__}"
        return Problem("chart.template", message, file, line_of(error), 1)
    if len(output) > MAX_OUTPUT:
        message = f"the template gives more than {MAX_OUTPUT // 1024} KiB"
        return Problem("chart.template", message, file)
    return output


def _message_of(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "the template nests or calls itself too deeply"
    if isinstance(error, MemoryError):
        return "the template takes too much memory, or nests too deeply"
    return str(error)[:500] or type(error).__name__


def line_of(error: BaseException) -> int:
    """Return the line of the template at which an error was raised, or 0."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            # Jinja puts the template's own lines into the traces of an Exception only.
            made = trace.tb_frame.f_globals.get("__jinja_template__")
            line = made.get_corresponding_lineno(trace.tb_lineno) if made else trace.tb_lineno
        trace = trace.tb_next
    return line
