"""Without signed sources in the policy, no code of proofs is loaded."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import controller.app.broker, controller.app.controller, controller.broker.dispatch
from tests.unit.broker.dialogue import CONTROLLER, request, state
from controller.broker import dispatch

body = {"Name": "shop.data", "Driver": "local"}
flow = dispatch.handle(request("POST", "/volumes/create", actor=CONTROLLER, body=body), state())
next(flow)
loaded = sorted(name for name in sys.modules if name.startswith(
    ("controller.core.proofs", "controller.broker.proofs", "controller.fetch")))
print(loaded)
"""


def test_a_broker_and_a_controller_without_signed_sources_load_no_code_of_proofs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
