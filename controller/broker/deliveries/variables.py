"""Variables with values of Secrets: read the values for an admitted create.

The values are added to the body that the engine receives, and are in no record.
"""

from __future__ import annotations

from controller.broker.deliveries.mounts import undelivered
from controller.broker.gate.call import Flow
from controller.broker.gate.commands import ReadSecret, SecretValue
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.core.engine_api.requests import CreateRequest
from controller.model.files.delivery import FileSet
from controller.model.quantities import format_bytes

#: The longest value, in bytes. The kernel refuses longer ones at 128 KiB.
VALUE_BYTES_MAX = 64 * 1024


def values_of(state: GateState, request: CreateRequest, namespace: str) -> Flow[tuple[str, ...]]:
    """Return the entries ``NAME=value`` of an admitted create's variables with values of Secrets.

    Raises:
        Denied: ``files.undelivered``: a value can't be read. ``env.secret``: a value can't be a
            variable.
    """
    entries = []
    for variable in request.variables:
        files = FileSet("secret", namespace, variable.secret)
        result = yield ReadSecret(files, variable.content, variable.key)
        if not isinstance(result, SecretValue):
            raise (yield from undelivered(state, files, variable.content, str(result), files.name))
        fault = _fault(result.value)
        if fault:
            reason = f"the value of {variable.key} in {files} {fault}, so it can't be a variable"
            raise Denied("env.secret", reason, "mount the Secret as a file", subject=files.name)
        entries.append(f"{variable.name}={result.value.decode()}")
    return tuple(entries)


def _fault(value: bytes) -> str:
    """Return why a value can't be a variable, '' if it can."""
    if len(value) > VALUE_BYTES_MAX:
        return f"is longer than {format_bytes(VALUE_BYTES_MAX)}"
    if b"\0" in value:
        return "has a zero byte"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "is no UTF-8 text"
    return ""
