"""Lost files of the state folder, on a real engine: one writer at most, and no password changed silently.

``make ring KIND=losses`` loses each file alone and each pair of parts, and adds a line to docs/operations/losses.md.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.losses import Database
from tests.instance import Host
from tests.sim.losses import part_of

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "losses.md"
#: What is lost in each run of the suite, one after another, and the codes that lead to the recovery.
SAMPLE: dict[tuple[str, ...], list[str]] = {
    ("broker/generated",): ["secret.generated-lost"],
    ("broker/journal", "broker/secrets.key"): [
        *("journal.damaged", "secret.generated-damaged", "container.foreign"),
        *("adopted", "image.registry"),
    ],
}


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = " with changes" if git("status", "--porcelain") else ""
    return git("rev-parse", "--short=10", "HEAD") + changed


@pytest.mark.timeout(0)
def test_no_lost_file_starts_a_second_writer_or_changes_a_password(
    host: Host, request: pytest.FixtureRequest
) -> None:
    database = Database(host)
    database.begin()
    strange = {path: part_of(path) for path in database.files() if len(part_of(path)) != 1}
    assert strange == {}, "the simulation loses every file of a state folder"
    if not request.config.getoption("every_loss"):
        for parts, codes in SAMPLE.items():
            assert database.lose(*parts) == codes, parts
        return
    commit, said = _commit(), Counter[str]()
    losses = [*database.losses()]
    for number, parts in enumerate(losses, 1):
        codes = database.lose(*parts)
        said.update(codes)
        print(f"{number}/{len(losses)} {' '.join(parts)}: {', '.join(codes) or '-'}", flush=True)
    told = ", ".join(f"{code} {count}" for code, count in sorted(said.items()))
    line = f"| {time.strftime('%Y-%m-%d')} | {commit} | {len(losses)} | all recovered | {told} |\n"
    with PAGE.open("a") as page:
        page.write(line)
