"""The data of the page, as the user of the command is allowed to read it: from the controller and the broker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from controller.cli.clients.socket_client import BrokerApi, EngineApi, ask_controller
from controller.cli.commands.logs import read_log
from controller.cli.commands.metrics import read_metrics
from controller.cli.commands.replicas import VisibleContainer
from controller.model.container_output import LogLine
from controller.model.errors import (
    EngineUnavailable,
    Refused,
    StateError,
    TrimtabError,
)
from controller.settings import StateFolder
from controller.web.pages import Away, LogsNeeded, PageLogs, Records
from controller.web.server.port import Samples

#: Seconds for an answer, besides those that the controller waits for news.
ANSWER_S: Final = 15.0
#: The output that is read of a container: lines can be long.
OUTPUT_MAX: Final = 16 * 1024 * 1024


class OwnReader:
    """Reads an instance over its sockets (``controller.web.server.port``), with the rights of this user."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def view(self, have: str, *, wait_s: float) -> Mapping[str, Any]:
        """Return what changed in the view; raises as ``ask_controller``."""
        question: dict[str, object] = {"do": "view", "have": have, "wait_s": wait_s}
        answer = ask_controller(
            self._state.controller_socket, question, timeout_s=wait_s + ANSWER_S
        )
        assert isinstance(answer, dict), "ask_controller returns an object"
        return answer

    def records(self, query: Mapping[str, str]) -> Records | Away:
        """Return records that this user is allowed to read."""
        try:
            api = BrokerApi(self._state.broker_socket)
            body, _ = api.fetch("journal", query={**query, "about": "1"})
        except TrimtabError as error:
            return _away(error, Away.JOURNAL)
        return Records(tuple(json.loads(line) for line in body.splitlines()))

    def logs(self, needed: LogsNeeded) -> PageLogs | Away:
        """Return the last lines of a container. The journal records the read."""
        api = EngineApi(self._state.broker_socket)
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": str(needed.lines + 1)}
        _, namespace, service = needed.key.split("/")
        # By name: a viewer isn't allowed to list containers.
        container = VisibleContainer(
            needed.container, needed.container, namespace, service, slot=0, state=""
        )
        lines: list[LogLine] = []
        size = 0
        try:
            for _, line in read_log(api, container, query):
                lines.append(line)
                size += len(line.text)
                if size > OUTPUT_MAX:
                    return PageLogs(needed.container, tuple(lines[-needed.lines :]), is_cut=True)
        except TrimtabError as error:
            return _away(error, Away.OUTPUT)
        is_cut = len(lines) > needed.lines
        return PageLogs(needed.container, tuple(lines[-needed.lines :]), is_cut)

    def metrics(self) -> str | Away:
        """Return the metrics of broker and controller."""
        try:
            return read_metrics(self._state)
        except TrimtabError as error:
            return _away(error, Away.DENIED)

    def samples(self, key: str) -> Samples:
        """Return the samples of a service; () without a controller, and where it has no figures."""
        try:
            answer = ask_controller(
                self._state.controller_socket, {"do": "samples", "key": key}, timeout_s=ANSWER_S
            )
        except TrimtabError:
            return ()
        return tuple((at, cpus, size) for at, cpus, size in answer["samples"])


def _away(error: TrimtabError, otherwise: Away) -> Away:
    """Return why something couldn't be fetched."""
    match error:
        case Refused() | StateError():
            return Away.DENIED
        case EngineUnavailable():
            return Away.BROKER
        case _:
            return otherwise
