"""Field types with a notation of their own: quantities and port numbers.

Separate from ``model.quantities``, which does not import pydantic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, Field, SerializationInfo, WrapSerializer

from controller.model.quantities import (
    format_bytes,
    format_duration_ms,
    parse_bytes,
    parse_duration_ms,
)

#: ``model_dump(…, context=AS_WRITTEN)`` writes quantities as users do; without it, as numbers.
AS_WRITTEN = {"quantities": "as written"}


def _written(form: Callable[[int], str]) -> WrapSerializer:
    def serialize(count: int, _: object, info: SerializationInfo) -> int | str:
        return form(count) if info.context == AS_WRITTEN else count

    return WrapSerializer(serialize)


Bytes = Annotated[int, BeforeValidator(parse_bytes), _written(format_bytes)]
DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), _written(format_duration_ms)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
