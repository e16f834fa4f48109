"""Field types with a notation of their own: quantities and port numbers.

Separate from ``model.quantities``, which does not import pydantic.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    WrapSerializer,
)
from pydantic_core import CoreSchema

from controller.model import quantities

#: ``model_dump(…, context=AS_WRITTEN)`` writes quantities as users do; without it, as numbers.
AS_WRITTEN = {"quantities": "as written"}


def _bytes_out(count: int, _: object, info: SerializationInfo) -> int | str:
    return quantities.format_bytes(count) if info.context == AS_WRITTEN else count


def _duration_out(count: int, _: object, info: SerializationInfo) -> int | str:
    return quantities.format_duration_ms(count) if info.context == AS_WRITTEN else count


class _Written:
    """The notation of a quantity, for the JSON Schema that editors use: bounds stay with the model."""

    def __init__(self, pattern: str, example: str) -> None:
        self._pattern, self._example = pattern, example

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {"type": "string", "pattern": self._pattern, "examples": [self._example]}


Bytes = Annotated[
    int,
    BeforeValidator(quantities.parse_bytes),
    WrapSerializer(_bytes_out),
    _Written("^[0-9]{1,18}(Ki|Mi|Gi)$", "512Mi"),
]
DurationMs = Annotated[
    int,
    BeforeValidator(quantities.parse_duration_ms),
    WrapSerializer(_duration_out),
    _Written("^[0-9]{1,12}(ms|s|m|h)$", "10s"),
]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
