"""Signed admission: what it costs a create, and what large and hostile proofs cost others.

One broker has a namespace that requires signed commits and a namespace that doesn't. The controller
creates and starts the same service in both in turn.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import sleep
from typing import TypeVar

import yaml

from controller.app.state_folder import trimtab_gid
from controller.engine.requests import OutgoingRequest
from controller.fetch.verify import KEYS
from controller.system.runtime import PERIOD_S
from tests import engine as engines
from tests.gate.fixtures import CONTEXT, IMAGE, RUNS, Gate, Knobs
from tests.gate.roles import CONTROLLER, Peer
from tests.instance import eventually
from tests.unit.broker.signed.instance import create_of
from tests.unit.core.proofs import hostile_files
from tests.unit.core.proofs.repository import ALICE, Repository, signer_files
from tools.benches.gate import Caller, vouch
from tools.benches.measure import Figure, milliseconds, percentile, row, taken

ROUNDS, COMMITS, LARGE, HOSTILE = 30, 5, 3, 200
STALL_MS = 20
SOURCE, PLAIN, GOAL_MS = "bench-signed", "bench-plain", 5
LARGE_BYTES, FILE_BYTES = 14 << 20, 1 << 20
PING_S = 0.001
_T = TypeVar("_T")


def document(namespace: str, version: int) -> str:
    """Return a service without networks, whose revision depends on a version."""
    head = f"apiVersion: trimtab/v1\nkind: Service\nmetadata: {{name: web, namespace: {namespace}, "
    spec = f"{{image: '{IMAGE}', network: {{mode: none}}, env: {{VERSION: '{version}'}}}}"
    return f"{head}owner: team}}\nspec: {spec}\n"


class Bench:
    """The controller's connection, and a signed repository."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._repository = Repository()
        self.first = self._head = self._repository.commit({})
        self._attempts = 0
        self._made: list[str] = []
        self.version = 0
        #: Uploads that were accepted, and refused.
        self.offered: Counter[bool] = Counter()

    def commit(self, more: dict[str, bytes] | None = None) -> bytes:
        """Commit another version of the service. Return the proof."""
        self.version += 1
        files = {"deploy/web.yaml": document(SOURCE, self.version).encode(), **(more or {})}
        self._head = self._repository.commit(files, self._head)
        proof = self._repository.proof(self._head)
        self._repository.objects = {
            name: each for name, each in self._repository.objects.items() if each[0] == "commit"
        }
        return proof

    def upload(self, proof: bytes) -> float:
        """Upload a proof. Return the time taken."""
        return taken(lambda: self._caller.send(f"/trimtab/v1/proofs?source={SOURCE}", proof))

    def offer_files(self, files: dict[str, bytes]) -> bytes:
        """Commit files that may break the reader after the accepted commit. Return the proof."""
        repository = Repository(objects=dict(self._repository.objects))
        folder = {f"deploy/{path}": content for path, content in files.items()}
        commit = repository.commit(folder, self._head)
        proof = repository.proof(commit)
        if self.offer(proof):
            self._head = self._repository.add(*repository.objects[commit])
        return proof

    def idle(self) -> None:
        """Ask for nothing that takes long."""
        self._caller.ask("GET", "/version")

    def offer(self, proof: bytes) -> bool:
        """Upload a proof. Return False if it is refused."""
        status, _ = self._caller.offer(f"/trimtab/v1/proofs?source={SOURCE}", proof)
        self.offered[status == 200] += 1
        return status == 200

    def create_and_start(self, namespace: str) -> tuple[float, float]:
        """Return the times of a create, and of the create with the start."""
        self._attempts += 1
        key, text = f"Service/{namespace}/web", document(namespace, self.version)
        request = create_of(key, text, attempt=self._attempts)
        create = taken(lambda: self._made.append(self._create(request)))
        start = taken(lambda: self._caller.ask("POST", f"/containers/{self._made[-1]}/start"))
        return create, create + start

    def _create(self, request: OutgoingRequest) -> str:
        query = "&".join(f"{name}={value}" for name, value in (request.query or {}).items())
        return str(self._caller.ask("POST", f"{request.path}?{query}", request.body)["Id"])

    def clear(self, operator: Caller) -> None:
        """Remove the containers."""
        for made in self._made:
            operator.ask("DELETE", f"/containers/{made}?force=1")
        self._made.clear()


def run() -> list[Figure]:
    """Measure creates in turn, then proofs."""
    if os.geteuid() != 0:
        print("  needs root: an engine of its own, and callers of other uids", file=sys.stderr)
        return []
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        gate = Gate(folder, engine=engine.socket)
        stack.callback(gate.close)
        eventually(gate.serves, within_s=30, what="the broker's socket")
        engine.docker("tag", RUNS, IMAGE)
        vouch(gate.socket)
        stack.enter_context(_keys())
        controller = stack.enter_context(Peer(CONTROLLER, [trimtab_gid()]))
        operator = Caller(stack.enter_context(Peer(0, [])).connect(gate.socket))
        bench = Bench(Caller(controller.connect(gate.socket), {"Trimtab-Context": CONTEXT}))
        _require_signed(gate, operator, bench.first)
        figures = [_creates(bench, operator, gate.pid), _first_creates(bench, operator)]
        ping = Caller(stack.enter_context(Peer(0, [])).connect(gate.socket))
        return [*figures, *_large_proofs(bench, ping), _hostile_proofs(bench, operator)]


def _creates(bench: Bench, operator: Caller, broker: int) -> Figure:
    """Create and start in both namespaces in turn, by a known commit."""
    bench.upload(bench.commit())
    found: dict[str, list[tuple[float, ...]]] = {SOURCE: [], PLAIN: []}
    for at in range(ROUNDS + 1):
        for namespace in (SOURCE, PLAIN) if at % 2 else (PLAIN, SOURCE):
            before = _loop_s(broker)
            times = bench.create_and_start(namespace)
            # The first ones fill caches.
            found[namespace] += [(*times, _loop_s(broker) - before)] if at else []
        bench.clear(operator)
    more_ms = []
    for place, act in enumerate(("create", "create + start", "processor of the loop")):
        with_proof, without = (sorted(each[place] for each in found[n]) for n in (SOURCE, PLAIN))
        more = percentile(with_proof, 0.5) - percentile(without, 0.5)
        more_ms.append(f"{more * 1000:.1f} ms")
        for share in (0.5, 0.9):
            mine, theirs = percentile(with_proof, share), percentile(without, share)
            row(
                f"{act}, p{share * 100:.0f}",
                signed=milliseconds(mine),
                unsigned=milliseconds(theirs),
                more=milliseconds(mine - theirs),
            )
    measured = f"{more_ms[1]}; of the loop's processor time {more_ms[2]}"
    return Figure("signed create + start, more at p50", measured, f"at most {GOAL_MS} ms")


def _loop_s(broker: int) -> float:
    """Return the processor time of the broker's loop, the main thread (``/proc/PID/schedstat``)."""
    return int(Path(f"/proc/{broker}/schedstat").read_text().split()[0]) / 1e9


def _first_creates(bench: Bench, operator: Caller) -> Figure:
    """Upload a small proof, then create by its commit."""
    uploads, wholes = [], []
    for _ in range(COMMITS):
        uploads.append(bench.upload(bench.commit()))
        wholes.append(uploads[-1] + bench.create_and_start(SOURCE)[1])
        bench.clear(operator)
    upload, whole = statistics.median(uploads), statistics.median(wholes)
    row("first create + start", upload=milliseconds(upload), whole=milliseconds(whole))
    return Figure("first create + start of a commit, p50", milliseconds(whole), "-")


def _large_proofs(bench: Bench, ping: Caller) -> Iterator[Figure]:
    """Ask the broker for its version all the time, at rest and during uploads of large proofs."""
    rest, _ = _slowest_ping(ping, partial(sleep, 1.0))
    slowest, times = 0.0, list[float]()
    for _ in range(LARGE):
        names = range(LARGE_BYTES // FILE_BYTES)
        proof = bench.commit({f"deploy/{name}.bin": os.urandom(FILE_BYTES) for name in names})
        wait, upload = _slowest_ping(ping, partial(bench.upload, proof))
        slowest = max(slowest, wait)
        times.append(upload)
    size = f"{LARGE_BYTES >> 20} MiB"
    row(
        f"upload of {size}",
        median=milliseconds(statistics.median(times)),
        slowest_ping=milliseconds(slowest),
        at_rest=milliseconds(rest),
    )
    measured = f"{milliseconds(slowest)}, at rest {milliseconds(rest)}"
    yield Figure(f"slowest ping beside an upload of {size}", measured, "within 20 ms of rest")


def _hostile_proofs(bench: Bench, operator: Caller) -> Figure:
    """Upload signed commits with hostile files, and bytes that are no proof; ask the loop's own meter.

    The meter knows one to two minutes, so stalls of the uploads before are let pass first.
    """
    for _ in range(round(2 * PERIOD_S)):
        sleep(1.0)  # the connections stay in use: the broker ends idle ones
        rest = _longest_stall_ms(operator)
        bench.idle()
    longest = 0
    inputs = [hostile_files.files_of(number) for number in range(HOSTILE)]
    for number, files in enumerate((*inputs, *hostile_files.LARGEST.values())):
        proof = bench.offer_files(files)
        bench.offer(proof[: len(proof) * (number % 7) // 7])
        longest = max(longest, _longest_stall_ms(operator))
    for junk in (os.urandom(LARGE_BYTES), b"0" * LARGE_BYTES):
        bench.offer(junk)
    longest = max(longest, _longest_stall_ms(operator))
    row(
        "hostile proofs",
        accepted=str(bench.offered[True]),
        refused=str(bench.offered[False]),
        longest_stall=f"{longest} ms",
        at_rest=f"{rest} ms",
    )
    measured = f"{longest} ms, at rest {rest} ms"
    goal = f"within {STALL_MS} ms of rest"
    return Figure("longest stall of the loop under hostile proofs", measured, goal)


def _longest_stall_ms(operator: Caller) -> int:
    return int(operator.own("/trimtab/v1/health")["loop"]["longestStallMs"])


def _slowest_ping(ping: Caller, act: Callable[[], _T]) -> tuple[float, _T]:
    waits, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(PING_S):
            waits.append(taken(lambda: ping.ask("GET", "/version")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = act()
    finally:
        over.set()
        watcher.join()
    return max(waits), result


def _require_signed(gate: Gate, operator: Caller, since: str) -> None:
    before = operator.own("/trimtab/v1/policy")["digest"]
    policy = yaml.safe_load(Knobs().policy())
    rule = {"source": SOURCE, "namespaces": [SOURCE], "require": "signed", "keys": SOURCE}
    policy["sources"] = [{**rule, "path": "deploy", "since": since}]
    gate.reload(yaml.safe_dump(policy))
    eventually(
        lambda: operator.own("/trimtab/v1/policy")["digest"] != before, what="the new policy"
    )


@contextmanager
def _keys() -> Iterator[None]:
    folder = KEYS / SOURCE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "allowed_signers").write_bytes(signer_files(ALICE).allowed)
        yield
    finally:
        shutil.rmtree(folder)
