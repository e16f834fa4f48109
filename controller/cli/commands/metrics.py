"""``metrics``: the metrics of broker and controller as one text for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.options import command, open_state, print_json
from controller.cli.output.terminal import echo
from controller.core.metrics.families import MetricsOwner, merged, series_of
from controller.model.errors import EngineUnavailable
from controller.settings import StateFolder


@command("""\b
Examples:
  trimtab metrics
  trimtab metrics > /tmp/t && mv /tmp/t /var/lib/prometheus/node-exporter/trimtab.prom
  trimtab metrics --json | jq -r '.series[] | select(.name == "trimtab_resource_condition").labels'

\b
Exit codes: 0 printed, also while broker or controller is away (trimtab_up is 0 then); 1 no instance;
4 the policy doesn't let this user read the broker's metrics.
""")
def metrics(state: Path | None, as_json: bool) -> None:
    """Print the metrics of broker and controller in the text format of Prometheus.

    The setting metrics.textfile has the controller write the same text every 15 seconds.
    """
    folder, _ = open_state(state)
    text = read_metrics(folder)
    if as_json:
        print_json({"series": series_of(text)})
    else:
        echo(text, nl=False)


def read_metrics(folder: StateFolder) -> str:
    """Return the metrics of broker and controller in the text format of Prometheus.

    Raises:
        Refused: the policy doesn't let this user read the broker's metrics.
        EngineFailed: the controller refuses.
        StateError: the user isn't allowed to connect.
    """

    def of_broker() -> str:
        return BrokerApi(folder.broker_socket).fetch("metrics")[0].decode(errors="replace")

    def of_controller() -> str:
        return str(ask_controller(folder.controller_socket, {"do": "metrics"})["text"])

    return merged(
        {
            MetricsOwner.BROKER: _answer(of_broker),
            MetricsOwner.CONTROLLER: _answer(of_controller),
        }
    )


def _answer(ask: Callable[[], str]) -> str | None:
    """Return an answer; None if the process is away."""
    try:
        return ask()
    except EngineUnavailable:
        return None
