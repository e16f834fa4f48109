"""Stored forms: values as JSON by the types of their fields, for files and for answers of the broker.

A member has the name of its field. A field with its default value has no member::

    @dataclass(frozen=True)
    class Course:
        revision: str
        idle_s: float = 0.0

    FORM = StoredForm(Course)
    FORM.to_json(Course("v2:1", 1.5))      # {"revision": "v2:1", "idle_s": 1.5}
    FORM.from_json({"revision": "v2:1"})   # Course("v2:1", 0.0)
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from controller.core.encoding.text import printable, shorten

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class StoredForm(Generic[T]):
    """The JSON of a type: a dataclass, or a list or mapping of such."""

    def __init__(self, kind: type[T], *, is_whole: bool = False) -> None:
        self._kind = kind
        #: All fields have members, for other programs.
        self._is_whole = is_whole

    def to_json(self, value: T) -> Any:
        """Return a value as JSON."""
        return self._adapter.dump_python(value, mode="json", exclude_defaults=not self._is_whole)

    def from_json(self, value: object) -> T:
        """Parse the output of ``to_json``. Unknown members are ignored.

        Numbers are read from strings too: canonical JSON has numbers beyond 2^53 as strings.

        Raises:
            ValueError: *value* has another form. The message has one line, and no part of a member's value.
        """
        adapter = self._adapter
        from pydantic import ValidationError

        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the value"
            raise ValueError(printable(f"{shorten(place)}: {shorten(first['msg'])}")) from None

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        # Made on first use: commands that ask the journal use no form, and pydantic doubles their start.
        from pydantic import TypeAdapter

        return TypeAdapter(self._kind)
