"""A lazy dataclass behaves as one of the standard library, and is made without its methods."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import field
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import pytest

from controller.lazy_dataclass import dataclass

PACKAGE = Path(__file__).parents[2] / "controller"
#: The parameters of all dataclasses of trimtab.
FORMS: tuple[dict[str, bool], ...] = (
    *({}, {"eq": False}, {"frozen": True}, {"slots": True}, {"slots": True, "eq": False}),
    *({"frozen": True, "slots": True}, {"frozen": True, "slots": True, "eq": False}),
    *({"frozen": True, "slots": True, "kw_only": True}, {"frozen": True, "order": True}),
)


def of_both(**form: bool) -> list[tuple[type, type]]:
    """Return a class and its subclass, as the standard library makes them and as trimtab does."""
    makers: tuple[Callable[..., Any], ...] = (dataclasses.dataclass, dataclass)
    return [_classes(maker(**form)) for maker in makers]


def _classes(maker: Callable[[type], Any]) -> tuple[type, type]:
    @maker
    class Base:
        """A value."""

        count: ClassVar[int] = 0
        name: str
        size: int = 1
        tags: list[str] = field(default_factory=list, hash=False)
        secret: str = field(default="", repr=False, compare=False)
        later: int = field(default=3, kw_only=True)
        made: int = field(init=False, default=7)
        lines: list[str] = field(init=False, default_factory=list, hash=False)

        @property
        def area(self) -> int:
            return self.size**2

    @maker
    class Derived(Base):
        size: int = 2
        more: str = "more"

        def __post_init__(self) -> None:
            object.__setattr__(self, "made", self.size + 1)

    return Base, Derived


def outcome(act: Callable[[], object]) -> str:
    """Return what came of an act, as a text."""
    try:
        result = act()
    except (TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return re.sub(r"0x[0-9a-f]+", "0x", repr(result))


def copied(value: Any) -> Any:
    """Return a copy, and whether it is equal."""
    twin = copy.deepcopy(value)
    return twin, twin == value, twin.tags is value.tags


ACTS: tuple[Callable[[type], object], ...] = (
    lambda cls: cls(name="web"),
    lambda cls: cls("web", 3),
    lambda cls: cls(name="web", size=3, tags=["a"], secret="s", later=9),
    lambda cls: hasattr(cls(name="web"), "__dict__"),
    lambda cls: (cls(name="web").made, cls(name="web").lines, cls(name="web").secret),
    lambda cls: cls(),
    lambda cls: cls(name="web", other=1),
    lambda cls: cls(name="a") == cls(name="a"),
    lambda cls: cls(name="a") == cls(name="a", secret="b"),
    lambda cls: cls(name="a") == cls(name="b"),
    lambda cls: cls(name="a").__eq__(1),
    lambda cls: len({cls(name="a"), cls(name="a"), cls(name="b")}),
    lambda cls: hash(cls(name="a")) == hash(cls(name="a", tags=["b"])),
    lambda cls: cls(name="a") < cls(name="b"),
    lambda cls: setattr(cls(name="a"), "name", "b"),
    lambda cls: delattr(cls(name="a"), "name"),
    lambda cls: dataclasses.replace(cls(name="a", tags=["b"]), name="c"),
    lambda cls: dataclasses.asdict(cls(name="a")),
    lambda cls: copied(cls(name="a", tags=["b"])),
    lambda cls: cls.__match_args__,  # type: ignore[attr-defined]
    lambda cls: [*signature(cls).parameters],
    lambda cls: cls.__init__.__qualname__,  # type: ignore[misc]
)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_does_what_a_dataclass_of_the_standard_library_does(form: dict[str, bool]) -> None:
    for standard, ours in zip(*of_both(**form), strict=True):
        for act in ACTS:
            assert outcome(lambda: act(ours)) == outcome(lambda: act(standard))  # noqa: B023


@dataclass(frozen=True, slots=True)
class Kept:
    """A value of a module, as pickle needs it."""

    name: str
    twin: Any = None


def test_a_frozen_value_is_pickled() -> None:
    assert pickle.loads(pickle.dumps(Kept("a"))) == Kept("a")


def test_a_value_that_contains_itself_has_a_text() -> None:
    value = Kept("a")
    object.__setattr__(value, "twin", value)
    assert repr(value) == "Kept(name='a', twin=...)"


def test_methods_of_the_class_stay() -> None:
    @dataclass(frozen=True, slots=True)
    class Own:
        name: str

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 5

    assert (repr(Own("a")), Own("a") == Own("b"), hash(Own("a"))) == ("own", True, 5)


def test_a_method_is_generated_with_its_first_use_alone() -> None:
    @dataclass(frozen=True, slots=True)
    class Value:
        name: str

    generated = lambda: [  # noqa: E731 - beside the class
        name for name in ("__init__", "__eq__", "__hash__") if callable(vars(Value)[name])
    ]
    assert generated() == []
    assert Value("a") is not None
    assert generated() == ["__init__"]
    assert Value("a") == Value("a")
    assert generated() == ["__init__", "__eq__"]


def test_all_dataclasses_of_the_package_are_lazy() -> None:
    """The others cost each start of a process the compilation of their methods."""
    imports = re.compile(
        r"^\s*(from dataclasses import .*\bdataclass\b|import dataclasses)", re.MULTILINE
    )
    found = {p.name for p in PACKAGE.rglob("*.py") if imports.search(p.read_text("utf-8"))}
    assert found == {"lazy_dataclass.py"}


@pytest.mark.parametrize("module", ["controller.app.broker", "controller.app.controller"])
def test_a_process_starts_with_few_generated_methods(module: str) -> None:
    """Values of modules need some."""
    program = f"""
import gc, {module}
from dataclasses import is_dataclass
made = {{c for c in gc.get_objects() if isinstance(c, type) and is_dataclass(c)
        and c.__module__.startswith("controller.")}}
ready = [c for c in made if callable(vars(c).get("__init__"))]
print(len(made), len(ready))
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    made, ready = map(int, done.stdout.split())
    assert made > 200, made
    assert ready < made / 4, ready
