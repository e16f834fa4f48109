"""Dataclasses whose methods are generated when they are first used.

``dataclass`` of the standard library compiles the methods of a class when the class is made. A process
of trimtab makes some 370 dataclasses and uses few of their methods. Generating all of them took a
quarter of the processor time to start a process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError
from functools import partial
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

#: Globals of generated methods. The name of a field can't shadow them.
_SET, _UNSET, _DEFAULT = "__set__", "__unset__", "__default_{}__"


class _Pending:
    """The place of a method: the first look at it generates the method and replaces the place."""

    __slots__ = ("_cls", "_generate", "_name")

    def __init__(self, cls: type, name: str, generate: Callable[[type], Any]) -> None:
        self._cls, self._name, self._generate = cls, name, generate

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        method = self._generate(self._cls)
        method.__qualname__ = f"{self._cls.__qualname__}.{self._name}"
        # Two threads may generate the method at once. Their methods are alike.
        setattr(self._cls, self._name, method)
        return method.__get__(instance, owner)


def _lazy_dataclass(
    cls: type | None = None,
    /,
    *,
    eq: bool = True,
    order: bool = False,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
) -> Any:
    """Make a dataclass that behaves as one of ``dataclasses.dataclass``."""
    options = {"order": order, "frozen": frozen, "slots": slots, "kw_only": kw_only}
    if cls is None:
        return partial(_lazy_dataclass, eq=eq, **options)
    if order:  # rare
        return dataclasses.dataclass(cls, **options)
    own = dict(vars(cls))
    # Without a text, the standard library makes one of the signature of __init__.
    cls.__doc__ = cls.__doc__ or cls.__name__
    made: Any = dataclasses.dataclass(
        cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
    )
    if "__init__" not in own:
        generate = partial(_generate_init, set_field=f"{_SET}(self, '{{0}}', {{1}})")
        made.__init__ = _Pending(made, "__init__", generate if frozen else _generate_init)
    if "__repr__" not in own:
        made.__repr__ = _repr
    if frozen:
        made.__setattr__, made.__delattr__ = _refuse_to_set, _refuse_to_delete
    if frozen and slots:
        # Otherwise copy and pickle set the attributes.
        made.__getstate__, made.__setstate__ = _get_state, _set_state
    if eq and "__eq__" not in own:
        made.__eq__ = _Pending(made, "__eq__", _generate_eq)
    # A class with an own __eq__ has the hash None, too.
    if eq and own.get("__hash__") is None:
        made.__hash__ = _Pending(made, "__hash__", _generate_hash) if frozen else None
    return made


# mypy knows the dataclasses of the standard library best.
if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _lazy_dataclass

__all__ = ["dataclass"]


def _generate_init(cls: type, set_field: str = "self.{0} = {1}") -> Any:
    names = {_UNSET: MISSING, _SET: object.__setattr__}
    lines = []
    for each in dataclasses.fields(cls):
        default = _DEFAULT.format(each.name)
        value = each.name if each.init else default
        if each.default_factory is not MISSING:
            names[default] = each.default_factory
            value = f"{default}()"
            if each.init:
                value += f" if {each.name} is {_UNSET} else {each.name}"
        elif each.default is not MISSING:
            names[default] = each.default
        elif not each.init:
            continue
        lines.append(set_field.format(each.name, value))
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join(["self", *_parameters(cls)])
    return _define(cls, f"def __init__({parameters}):", lines or ["pass"], names)


def _parameters(cls: type) -> Iterator[str]:
    given = [each for each in dataclasses.fields(cls) if each.init]
    yield from (_parameter(each) for each in given if not each.kw_only)
    if named := [_parameter(each) for each in given if each.kw_only]:
        yield from ("*", *named)


def _parameter(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"{field.name}={_UNSET}"
    if field.default is not MISSING:
        return f"{field.name}={_DEFAULT.format(field.name)}"
    return field.name


def _generate_eq(cls: type) -> Any:
    names = [each.name for each in dataclasses.fields(cls) if each.compare]
    lines = [
        "if self is other: return True",
        "if other.__class__ is not self.__class__: return NotImplemented",
        f"return {' and '.join(f'self.{name} == other.{name}' for name in names) or True}",
    ]
    return _define(cls, "def __eq__(self, other):", lines)


def _generate_hash(cls: type) -> Any:
    fields = dataclasses.fields(cls)
    hashed = (each for each in fields if (each.compare if each.hash is None else each.hash))
    values = "".join(f"self.{each.name}, " for each in hashed)
    return _define(cls, "def __hash__(self):", [f"return hash(({values}))"])


def _define(cls: type, head: str, body: list[str], names: Mapping[str, Any] = {}) -> Any:
    made: dict[str, Any] = {}
    text = "\n ".join([head, *body])
    exec(text, {"__name__": cls.__module__, **names}, made)  # noqa: S102 - only names of fields are put in
    return made.popitem()[1]


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (each.name for each in dataclasses.fields(self) if each.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"


def _refuse_to_set(self: object, name: str, value: object) -> None:  # noqa: ARG001 - Python calls the method
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:  # noqa: ARG001 - as above
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
