"""A container of the service default/web as a snapshot has it, by id and state alone."""

from __future__ import annotations

from controller.model.names import service_key
from controller.model.observed import Container, ContainerState, Settings

WEB = service_key("default", "web")


def container(identifier: str, state: ContainerState = ContainerState.RUNNING) -> Container:
    return Container(
        id=identifier,
        key=WEB,
        slot=1,
        revision="v2:0",
        owner="team",
        origin="controller",
        intent="",
        image="",
        image_id="",
        state=state,
        settings=Settings(name=identifier),
        admitted=None,
    )
