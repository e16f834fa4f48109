"""The health check of a service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from controller.model.desired.field_types import DurationMs, PortNumber
from controller.model.desired.spec.fields import Model, Texts, UrlPath


class HttpCheck(Model):
    """A GET in plain HTTP.

    A status from 200 to 399 is healthy. Redirects are not followed.
    """

    #: The path of the URL.
    path: UrlPath = "/"
    #: The port of the container.
    port: PortNumber


class TcpCheck(Model):
    """A TCP connection, closed as soon as it is established."""

    #: The port of the container.
    port: PortNumber


class Healthcheck(Model):
    """A health check: a command run by the engine, or a probe sent by the controller.

    The engine runs ``exec`` in the container. The controller sends ``http`` and ``tcp`` probes to
    the container's own address.
    """

    #: The command and its arguments, run in the container: exit code 0 is healthy.
    exec: Texts | None = None
    #: A GET by the controller.
    http: HttpCheck | None = None
    #: A connection by the controller.
    tcp: TcpCheck | None = None
    # 0 is the engine's default, so 0 cannot be set.
    interval: Annotated[DurationMs, Field(ge=1)] = 30_000
    #: The longest time of one check.
    timeout: Annotated[DurationMs, Field(ge=1)] = 30_000
    #: Failures in a row until the container is unhealthy.
    retries: Annotated[int, Field(ge=1, le=10)] = 3
    #: The time to start, in which failures do not count.
    start_period: DurationMs = 30_000
    #: The interval during ``start_period`` with ``exec``. Unset: the engine's.
    start_interval: Annotated[DurationMs, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Healthcheck:
        checks = {"exec": self.exec, "http": self.http, "tcp": self.tcp}
        given = [name for name, check in checks.items() if check is not None]
        if len(given) != 1:
            fault = f"has {' and '.join(given)}" if given else "has no check"
            raise ValueError(f"{fault}; expected one of exec, http and tcp")
        return self

    @property
    def probed(self) -> bool:
        """Return True if the controller runs the check, not the engine."""
        return self.exec is None
