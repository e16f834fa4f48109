"""``run-job``: ask for a run of a job.

The broker records the request, and its inventory keeps the request until the run is made. So the
request outlives a controller that dies, and is carried out once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import BrokerApi, ask_for_look
from controller.cli.clients.status_report import key_of, resource_of
from controller.cli.exit_codes import EXIT_NOT_CONVERGED
from controller.cli.options import command, note_option, open_state, print_result, timeout_option
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable, UsageError
from controller.settings import StateFolder

LOOK_AGAIN_S = 0.3


@command("""\b
Examples:
  trimtab run-job migrate
  trimtab run-job shop/backup --note "before the upgrade" --no-wait

\b
Exit codes: 0 the run succeeded (with --no-wait: is requested), 1 error or nothing runs, 5 the run
failed, or has not ended in time.
""")
@click.argument("name", shell_complete=complete_names)
@note_option
@click.option("--no-wait", is_flag=True, help="Don't wait until the run has ended.")
@timeout_option("How long to wait")
def run_job(
    name: str, note: str, no_wait: bool, timeout_s: float, state: Path | None, as_json: bool
) -> int:
    """Run a job now, also one that ran already.

    A failed run is followed by others, up to the job's backoffLimit. A job with completions has as
    many successful runs. 'trimtab logs NAME' shows the output.
    """
    folder, _ = open_state(state)
    key = key_of(folder, name, kind="Job")
    _raise_if_without_image(folder, key)
    deadline = time.monotonic() + timeout_s
    occasion = f"manual:{BrokerApi(folder.broker_socket).record('job.run', key, note)['id']}"
    ask_for_look(folder.controller_socket, key)
    resource: dict[str, Any] = {}
    while not no_wait:
        with suppress(EngineUnavailable):  # the controller is away: the request stays
            resource = resource_of(folder, key)
        if _is_over(resource, occasion) or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_AGAIN_S)
    runs, progress = _runs_of(resource, occasion), _progress_of(resource, occasion)
    succeeded = no_wait or bool(progress.get("complete"))
    report = {"object": key, "occasion": occasion, "runs": runs, "done": succeeded}
    text = f"{key}: {_describe(runs, progress, no_wait=no_wait)}"
    print_result(report, printable(text), as_json=as_json)
    return 0 if succeeded else EXIT_NOT_CONVERGED


def _raise_if_without_image(folder: StateFolder, key: str) -> None:
    """Raise UsageError if a job runs only with the image of a service that rolls out."""
    from controller.model.desired.spec.job import FROM_SERVICE  # a slow import

    if resource_of(folder, key).get("image") == FROM_SERVICE:
        raise UsageError(
            "job.from-service",
            f"{key} runs with the image of a service, during the service's rollout alone",
            remedy="'trimtab resume SERVICE' tries a failed rollout again, with its jobs",
        )


def _runs_of(resource: dict[str, Any], occasion: str) -> list[dict[str, Any]]:
    return [run for run in resource.get("runs", []) if run["occasion"] == occasion]


def _is_over(resource: dict[str, Any], occasion: str) -> bool:
    """Return True if no further run follows for an occasion."""
    runs = _runs_of(resource, occasion)
    if not runs or not all(run.get("ended") for run in runs):
        return False
    conditions = {c["type"] for c in resource["conditions"] if c["status"] == "True"}
    return bool(_progress_of(resource, occasion).get("complete")) or "Failed" in conditions


def _progress_of(resource: dict[str, Any], occasion: str) -> dict[str, Any]:
    """Return how far an occasion is; {} for an unknown one."""
    found = (o for o in resource.get("occasions", []) if o["occasion"] == occasion)
    return next(found, {})


def _describe(runs: list[dict[str, Any]], progress: dict[str, Any], *, no_wait: bool) -> str:
    if no_wait:
        return "a run is requested"
    if not runs:
        return "no run began within the timeout; see 'trimtab status'"
    last = max(runs, key=lambda run: run.get("ended") or "9")  # one in progress, or the last to end
    how = f"run {last['run']} {last['why'] if last.get('ended') else 'is in progress'}"
    wanted = progress.get("completions", 1)
    return how if wanted == 1 else f"{progress['succeeded']}/{wanted} completed; {how}"
