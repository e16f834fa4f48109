"""Hostile files through a real render worker: bounded time and memory, and a verdict for each."""

from __future__ import annotations

import posixpath
import time
from pathlib import Path

import pytest

from controller.broker.gate.commands import ProofRefused, ProofVerified, VerifyProof
from controller.broker.prover import COMMAND, Prover
from controller.model.names import NetworkNames
from controller.process.render_worker import LIMITS
from tests.examples import examples
from tests.hostile.chart_bombs import BOMBS
from tests.unit.broker.signed.opened import Opener
from tests.unit.core.proofs import hostile_files
from tests.unit.core.proofs.repository import Repository, rule, signer_files

pytestmark = pytest.mark.slow

INPUTS = examples(3)


def verify(prover: Prover, files: dict[str, bytes]) -> ProofVerified | ProofRefused:
    repository = Repository()
    commit = repository.commit(
        {posixpath.normpath(f"deploy/{path}"): content for path, content in files.items()}
    )
    return prover(VerifyProof(rule(commit), repository.proof(commit), commit, NetworkNames()))


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def test_hostile_files_cost_a_real_worker_a_verdict_each() -> None:
    prover = Prover(
        lambda _name: signer_files(),
        Opener().open,
        now=lambda: 1.79e9,
        monotonic=time.monotonic,
        command=COMMAND,
    )
    try:
        inputs = {str(number): hostile_files.files_of(number) for number in range(INPUTS)}
        for what, files in {**inputs, **hostile_files.LARGEST}.items():
            begin = time.monotonic()
            result = verify(prover, files)
            taken = time.monotonic() - begin
            assert taken < 30.0, (what, taken)
            if isinstance(result, ProofRefused):
                assert result.code in {"proof.worker", "proof.tree", "proof.too-large"}, (
                    what,
                    result,
                )
                print(f"{what}: {result.code}: {result.reason}")
            elif prover.pid is not None:
                assert peak_bytes(prover.pid) <= LIMITS.memory_bytes, what
        honest = verify(prover, {"good.yaml": hostile_files.HONEST})
        assert isinstance(honest, ProofVerified)
        assert hostile_files.GOOD in honest.rendering.entries
    finally:
        prover.stop()


def test_a_chart_without_end_leaves_the_other_documents_of_its_commit() -> None:
    """The worker bounds the time of a Release, so that the proof has the rest of its own time."""
    prover = Prover(
        lambda _name: signer_files(),
        Opener().open,
        now=lambda: 1.79e9,
        monotonic=time.monotonic,
        command=COMMAND,
    )
    made = BOMBS["pattern"].write_to("pattern")
    files = {
        path.removeprefix("desired-state/").replace("configs/", "../configs/"): text.encode()
        for path, text in made.items()
    }
    try:
        result = verify(prover, {"good.yaml": hostile_files.HONEST, **files})
    finally:
        prover.stop()
    assert isinstance(result, ProofVerified), result
    assert list(result.rendering.entries) == [hostile_files.GOOD]
    assert result.rendering.blind
