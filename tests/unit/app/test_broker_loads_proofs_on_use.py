"""Without signed sources in the policy, no code of proofs is loaded."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import controller.app.broker, controller.app.controller, controller.broker.dispatch
from tests.unit.broker.dialogue import CONTROLLER, request, state
from controller.broker import dispatch

known = state()
labels = {"io.trimtab.owner": "team", "io.trimtab.namespace": "shop"}
for method, path, body in (
    ("POST", "/volumes/create", {"Name": "shop.data", "Driver": "local", "Labels": labels}),
    ("POST", "/networks/create", {"Name": "shop.back", "Driver": "bridge", "Labels": labels}),
    ("POST", "/containers/create", {"Image": "trimtab.local/web:1", "Labels": labels}),
    ("GET", "/trimtab/v1/proofs", None),
    ("POST", "/trimtab/v1/proofs", None),
):
    flow = dispatch.handle(request(method, path, actor=CONTROLLER, body=body), known)
    try:
        next(flow)
    except StopIteration:
        pass  # answered without a command
loaded = sorted(name for name in sys.modules if name.startswith((
    "controller.core.proofs", "controller.broker.proofs", "controller.fetch",
    "controller.process.render_worker",
)))
print(loaded)
"""


def test_a_broker_and_a_controller_without_signed_sources_load_no_code_of_proofs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
