"""The rings that depend on the engine, on each set-up of `tools.engine_setups`.

``make ring KIND=engines`` runs them all and adds a line for each set-up to docs/engines.md. `make test` runs on a second
set-up what a different image store could change (``STORES``).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.engine_setups import SETUPS, EngineSetup

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines.md"
#: Up, rollout, heal, adopt, and what images decide.
MAIN_JOB = (
    *("the_main_job", "rollouts", "drift", "adoption", "images", "image_volumes", "real_images"),
    *("the_gate_holds", "moved", "builds"),
)
RINGS = {
    "contract": ("tests/contract",),
    "gate": ("tests/gate",),
    "main job": tuple(f"tests/e2e/test_{name}.py" for name in MAIN_JOB),
}
#: What another image store could change: ids, pins, trust, digests, rules about images, adoption, and one main job.
STORES = (
    "tests/contract/test_adapter_contract.py",
    "tests/contract/test_image_config.py",
    "tests/contract/test_engine_contract.py::test_an_image_is_known_by_reference_and_id",
    "tests/gate/test_pins.py",
    "tests/gate/test_image_config.py",
    "tests/e2e/test_the_main_job.py::test_a_changed_file_is_rolled_out_successor_first",
    "tests/e2e/test_images.py::test_a_revision_gets_its_own_image_back_wherever_the_tag_went_until_a_restart_is_asked_for",
    "tests/e2e/test_images.py::test_an_image_that_is_built_again_is_offered_and_taken_by_a_restart",
    "tests/e2e/test_adoption.py::test_what_docker_run_and_docker_compose_started_is_adopted_without_a_restart",
)
_COUNT = re.compile(r"(\d+) (passed|failed|error)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a ring said at its end."""

    passed: int
    #: Tests and set-ups that failed; 1 if the ring ended without a count.
    failed: int
    said: str


def run(setup: EngineSetup, tests: Iterable[str], *options: str) -> Outcome:
    """Run tests in a process of their own, on an engine of this set-up."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"--engine={setup.name}", *options, *tests),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=ROOT,
        env=kept,
    )
    last = done.stdout.rstrip().rpartition("\n")[2]
    counts = {word: int(count) for count, word in _COUNT.findall(last)}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if done.returncode and not failed:
        failed = 1
    return Outcome(counts.get("passed", 0), failed, done.stdout)


def main() -> int:
    """Run the rings of the chosen set-ups; return 1 if a test failed."""
    parser = ArgumentParser(prog="make ring KIND=engines", description=main.__doc__)
    parser.add_argument("setups", nargs="*", metavar="SETUP", help=f"of {', '.join(SETUPS)}")
    parser.add_argument("--ring", choices=RINGS, action="append", help="only this ring")
    parser.add_argument("--dry-run", action="store_true", help="add no line to docs/engines.md")
    chosen = parser.parse_args()
    bad = 0
    for setup in [SETUPS[name] for name in chosen.setups or SETUPS]:
        version, told, failed = setup.version(), [], 0
        for ring in chosen.ring or RINGS:
            outcome = run(setup, RINGS[ring])
            failed += outcome.failed
            told.append(f"{ring} {outcome.passed} of {outcome.passed + outcome.failed}")
            print(f"{setup.name} {told[-1]}", flush=True)
            if outcome.failed:
                print(outcome.said, flush=True)
        verdict = f"{failed} failed" if failed else "all passed"
        line = f"| {time.strftime('%Y-%m-%d')} | {_commit()} | `{setup.name}` | {version} | {', '.join(told)} | {verdict} |\n"
        if not chosen.dry_run:
            with PAGE.open("a") as page:
                page.write(line)
        bad += failed
    return 1 if bad else 0


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # The page has a line more after the first set-up.
    changed = [
        line
        for line in git("status", "--porcelain").splitlines()
        if not line.endswith("docs/engines.md")
    ]
    return git("rev-parse", "--short=10", "HEAD") + (" with changes" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
