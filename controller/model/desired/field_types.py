"""Field types with a notation of their own: quantities and port numbers.

Separate from ``model.quantities``, which does not import pydantic.
"""

from __future__ import annotations

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


def _bytes_out(count: int, _: object, info: SerializationInfo) -> int | str:
    return format_bytes(count) if info.context == AS_WRITTEN else count


def _duration_out(count: int, _: object, info: SerializationInfo) -> int | str:
    return format_duration_ms(count) if info.context == AS_WRITTEN else count


Bytes = Annotated[int, BeforeValidator(parse_bytes), WrapSerializer(_bytes_out)]
DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), WrapSerializer(_duration_out)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
