"""The prover with a real render worker, and with workers that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.broker.gate.commands import (
    Open,
    OpenSecret,
    ProofRefused,
    ProofVerified,
    SecretNotOpened,
    SecretOpened,
    VerifyProof,
)
from controller.broker.prover import BOUNDS, COMMAND, OPENING_S, Prover
from controller.core.proofs.render import RenderScope, render
from controller.core.proofs.rendering import RenderedWorkload, join_parts
from controller.model.errors import SourceError
from controller.model.names import NetworkNames
from controller.process import render_worker
from controller.system.child_programs import PART_MAX, STEP_BYTES
from tests.unit.broker.signed.forged_requests import WEB
from tests.unit.broker.signed.instance import DOCUMENTS
from tests.unit.broker.signed.opened import Opener, armored, new_once
from tests.unit.broker.signed.rich import CIPHERTEXTS, RICH
from tests.unit.core.proofs.repository import Repository, rule, signer_files
from tests.unit.core.proofs.test_render_charts import CHART, RELEASE, validator
from tests.unit.core.proofs.test_render_compose import stack
from tests.unit.core.secrets.oracle import Keys

pytestmark = pytest.mark.slow

NOW = 1_790_000_000.0
#: One of each way to be wrong.
HOSTILE = (
    b"",
    b"\xff\xfe",
    b"- a\n" * 10_000,
    b"a: &a [x]\nb: *a\n",
    b"a: " + b"[" * 5000,
    b"apiVersion: trimtab/v1\nkind: Service\nmetadata: 7\nspec: []\n",
    b"apiVersion: trimtab/v1\nkind: Config\nmetadata: {name: a}\nspec: {files: {x: /etc/passwd}}\n",
    b"apiVersion: trimtab/v1\nkind: Source\nmetadata: {name: a}\nspec: {git: {url: x}}\n",
)
HOSTILE_TEMPLATES = (
    b"{{ ().__class__.__mro__ }}",
    b"{% include '/etc/passwd' %}",
    b"{% for a in range(1000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}",
    b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    b"{{ " + b"(" * 3000 + b"1" + b")" * 3000 + b" }}",
    b"\xff{{ 'a' * 999999999 }}",
)
#: Compose files, likewise.
HOSTILE_PROJECTS = (
    b"",
    b"\xff",
    b"services: {a: &a {image: x, extends: a}, b: *a}",
    b"include: [compose.yaml, ../../x, /etc/passwd]",
    b"services: {a: {image: '" + b"${A:-" * 3000 + b"'}}",
    b"services: {a: {image: x, env_file: /proc/self/environ, volumes: ['/:/h', '.:/c:ro']}}",
    b"x: &x [" + b"1," * 20_000 + b"]\nservices: {a: {image: y, command: *x, unknown: *x}}",
)


def proof_of(files: dict[str, bytes]) -> VerifyProof:
    repository = Repository()
    commit = repository.commit({f"deploy/{path}": content for path, content in files.items()})
    return VerifyProof(rule(commit), repository.proof(commit), commit, NetworkNames())


def prover(
    *command: str, opening: Open | None = None, monotonic: Callable[[], float] = time.monotonic
) -> Prover:
    return Prover(
        lambda _name: signer_files(),
        opening or Opener().open,
        now=lambda: NOW,
        monotonic=monotonic,
        command=command or COMMAND,
    )


@pytest.fixture(scope="module")
def real() -> Iterator[Prover]:
    made = prover()
    yield made
    made.stop()


def shapes_of(entry: RenderedWorkload) -> list[list[object]]:
    return [[each.shape, each.base, each.is_late] for each in entry.shapes]


def test_the_worker_renders_as_the_controller_does(real: Prover) -> None:
    result = real(proof_of({"all.yaml": DOCUMENTS.encode()}))
    assert isinstance(result, ProofVerified)
    here = render({"all.yaml": DOCUMENTS.encode()}, RenderScope("shop", ("shop",), NetworkNames()))
    entries = here["entries"]
    assert isinstance(entries, dict)
    made = result.rendering
    assert {key: shapes_of(entry) for key, entry in made.entries.items()} == {
        key: entry["shapes"] for key, entry in entries.items()
    }
    assert made.entries.keys() == {"Service/shop/web", "Service/shop/api", "Job/shop/once"}


def test_the_worker_renders_compose_projects_without_any_file(real: Prover) -> None:
    scope = RenderScope("shop", ("shop",), NetworkNames(), "deploy")
    for name in ("parts", "studio", "wiki", "blog"):
        own = f"name: {name}\n".encode()
        found = stack(name, "shop/").items()
        files = {path: content.replace(own, b"") for path, content in found}
        here: Any = render(files, scope)
        result = real(proof_of(files))
        assert isinstance(result, ProofVerified)
        made = result.rendering
        assert {key: shapes_of(entry) for key, entry in made.entries.items()} == {
            key: entry["shapes"] for key, entry in here["entries"].items()
        }
        assert made.entries
        assert made.objects.keys() == here["objects"].keys()


def test_the_contents_of_secrets_are_those_that_the_broker_opens(real: Prover) -> None:
    """A long source is sent in parts. A Secret that can't be opened holds its own services alone."""
    text = RICH.replace(f"cert: {CIPHERTEXTS['CERT}']}", f"cert: {armored(b'x' * 300_000)}")
    foreign = armored(b"x", Keys())
    broken = text.replace(CIPHERTEXTS["PASSWORD}"], foreign)
    for documents, unsupported in ((text, {}), (broken, {WEB: "the Secret db can't be opened"})):
        result = real(proof_of({"all.yaml": documents.encode()}))
        assert isinstance(result, ProofVerified)
        assert result.rendering.unsupported == unsupported
        opened = {f"Secret/{bound.namespace}/{bound.name}": each for bound, each in result.opened}
        contents = {key: each.content for key, each in opened.items()}
        assert result.rendering.contents == contents
        scope = RenderScope("shop", ("shop",), NetworkNames())
        here: Any = render({"all.yaml": documents.encode()}, scope, contents=contents)
        made = result.rendering.entries
        assert {key: shapes_of(each) for key, each in made.items()} == {
            key: each["shapes"] for key, each in here["entries"].items()
        }
        assert (WEB in made) is (not unsupported)


def test_secrets_that_take_longer_than_a_proof_are_opened_by_some_proofs() -> None:
    """Each proof opens one of them: the next proof goes on, and keeps what was opened before."""
    opener, late = Opener(), 0.0

    def slowly(command: OpenSecret) -> SecretOpened | SecretNotOpened:
        nonlocal late
        late += OPENING_S
        return opener.open(command)

    slow = prover(opening=slowly, monotonic=lambda: time.monotonic() + late)
    quick = prover(opening=opener.open)
    command = proof_of({"all.yaml": RICH.encode()})
    made: list[ProofVerified] = []
    for _ in range(8):
        result = slow(command)
        assert isinstance(result, ProofVerified)
        made.append(result)
        opener.host["pw"] = b"changed"  # seen as soon as its turn comes again
    complete = quick(command)
    slow.stop()
    quick.stop()
    assert isinstance(complete, ProofVerified)
    secrets = len(complete.opened)
    assert [len(each.rendering.contents) for each in made[:secrets]] == [*range(1, secrets + 1)]
    assert [len(each.opened) for each in made] == [1] * 8
    assert made[-1].rendering.contents == complete.rendering.contents


def test_the_contents_of_a_proof_at_which_the_worker_fails_are_told_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def kill(child: subprocess.Popen[bytes], deadline: float, most: int) -> dict[str, Any]:
        monkeypatch.undo()
        child.kill()
        return made._child._receive(child, deadline, most)

    def killing(command: OpenSecret) -> SecretOpened | SecretNotOpened:
        if not opened:
            # Between its two answers: a worker that is gone before the second request is replaced.
            assert made.pid is not None
            os.kill(made.pid, signal.SIGSTOP)
            monkeypatch.setattr(made._child, "_receive", kill)
        opened.append(command.bound.name)
        return opener(command)

    opener = new_once(Opener().open)
    made = prover(opening=killing)
    command = proof_of({"all.yaml": RICH.encode()})
    first, second, third = (made(command) for _ in range(3))
    made.stop()
    assert isinstance(first, ProofRefused)
    assert (first.code, len(opened)) == ("proof.worker", 3 * len(set(opened)))
    assert isinstance(second, ProofVerified)
    contents = {f"Secret/shop/{bound.name}": each.content for bound, each in second.opened}
    assert contents == second.rendering.contents
    assert isinstance(third, ProofVerified)
    assert third.opened == ()


def test_a_job_can_name_a_time_zone_although_the_worker_has_no_files(real: Prover) -> None:
    job = DOCUMENTS.replace("trigger: OnChange", 'schedule: "0 4 * * *", timeZone: %s')
    for zone, is_known in (("Europe/Berlin", True), ("Asia/Tokyo", True), ("Mars/Base", False)):
        result = real(proof_of({"all.yaml": (job % zone).encode()}))
        assert isinstance(result, ProofVerified)
        assert ("Job/shop/once" in result.rendering.entries) is is_known, zone


def test_the_worker_renders_releases_without_any_file(real: Prover) -> None:
    files, charts = validator()
    repository = Repository()
    listed = {f"deploy/{path}": content for path, content in files.items()}
    listed |= {f"configs/{path}": content for path, content in charts.items()}
    commit = repository.commit(listed)
    signed = rule(commit).model_copy(update={"namespaces": ("validators",)})
    result = real(VerifyProof(signed, repository.proof(commit), commit, NetworkNames()))
    assert isinstance(result, ProofVerified), result
    entries = result.rendering.entries
    assert len(entries) == 3
    names = {entry.path.removeprefix("../configs/") for entry in entries.values()}
    assert {result.rendering.proven.charts[name].blob for name in names} == {
        entry.blob for entry in entries.values()
    }


def test_hostile_charts_leave_the_worker_alive(real: Prover) -> None:
    real(proof_of({"a.yaml": b"a: 1\n"}))
    pid = real.pid
    for template in HOSTILE_TEMPLATES:
        repository = Repository()
        commit = repository.commit(
            {
                "deploy/all.yaml": DOCUMENTS.encode(),
                "deploy/release.yaml": RELEASE % b"{}",
                **{f"configs/{path}": content for path, content in CHART.items()},
                "configs/web/templates/all.yaml": template,
            }
        )
        command = VerifyProof(rule(commit), repository.proof(commit), commit, NetworkNames())
        result = real(command)
        assert isinstance(result, ProofVerified), (template[:40], result)
        assert "Service/shop/web" in result.rendering.entries
        assert "Service/shop/front" not in result.rendering.entries
    assert real.pid == pid


def test_a_proof_without_a_file_of_the_charts_is_refused(real: Prover) -> None:
    repository = Repository()
    files = {"deploy/a.yaml": b"a: 1\n", "configs/web/values.yaml": b"tag: '1'"}
    commit = repository.commit(files)
    blob = repository.add("blob", b"tag: '1'")
    proof = repository.proof(commit, without=[blob])
    result = real(VerifyProof(rule(commit), proof, commit, NetworkNames()))
    assert isinstance(result, ProofRefused)
    assert result.code == "proof.incomplete"


def test_a_locked_worker_holds_two_pipes_and_no_privilege(real: Prover) -> None:
    real(proof_of({"a.yaml": b"a: 1\n"}))
    place = Path(f"/proc/{real.pid}")
    assert {path.name for path in (place / "fd").iterdir()} == {"0", "1"}
    status = dict(
        line.split(":\t", 1)
        for line in (place / "status").read_text().splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_hostile_documents_cost_nothing_but_their_own_keys(real: Prover) -> None:
    good = proof_of({"all.yaml": DOCUMENTS.encode()})
    assert isinstance(real(good), ProofVerified)
    pid = real.pid
    for content in HOSTILE:
        result = real(proof_of({"all.yaml": DOCUMENTS.encode(), "hostile.yaml": content}))
        assert isinstance(result, ProofVerified), (content[:40], result)
        assert "Service/shop/web" in result.rendering.entries or result.rendering.blind
    assert real.pid == pid


def test_hostile_compose_files_leave_the_worker_alive(real: Prover) -> None:
    real(proof_of({"a.yaml": b"a: 1\n"}))
    pid = real.pid
    for content in HOSTILE_PROJECTS:
        files = {"all.yaml": DOCUMENTS.encode(), "shop/compose.yaml": content}
        result = real(proof_of(files))
        assert isinstance(result, ProofVerified), (content[:40], result)
        assert "Service/shop/web" in result.rendering.entries or result.rendering.blind
    assert real.pid == pid


def test_a_worker_that_is_killed_costs_one_refusal_at_most(real: Prover) -> None:
    command = proof_of({"all.yaml": DOCUMENTS.encode()})
    assert isinstance(real(command), ProofVerified)
    assert real.pid is not None
    os.kill(real.pid, signal.SIGKILL)
    results = [real(command) for _ in range(2)]
    assert isinstance(results[-1], ProofVerified)


LIAR = """
import json, os, sys
def w(d): d = json.dumps(d).encode(); os.write(1, len(d).to_bytes(4, 'big') + d)
w({'ready': True})
while head := os.read(0, 4):
    length = int.from_bytes(head, 'big')
    while length: length -= len(os.read(0, length))
    %s
"""
#: A rendered service of a file: the commit doesn't have ``evil.yaml``.
ENTRY_OF_FILE = (
    "w({'parts': 1}), w({'entries': {'Service/shop/web': {'file': 'shop:FILE.yaml', 'shapes': [['x', 'b', False]], "
    "'reference': 'y', 'endpoints': {}, 'updates': {}, 'replicas': 1, 'occasions': [], 'schedule': None, "
    "'completions': ''}}, 'objects': {}, 'unsupported': {}, 'broken': [], 'blind': False})"
)

#: Secrets of other forms, of another kind, and of another namespace.
SECRETS = (
    "7",
    "{'Secret/shop/db': 7}",
    "{'Secret/shop/db': '{'}",
    "{'Secret/shop/db': '[' * 9000}",
    "{'Secret/shop/db': '7'}",
    *(
        f"{{'{key}': json.dumps({{'owner': {owner}, 'source': {source}}})}}"
        for key, owner, source in (
            ("Secret/shop/db", "7", "{'generate': {'a': 24}}"),
            ("Secret/shop/db", "'team'", "{'generate': {'a': 1}}"),
            ("Secret/shop", "'team'", "{'generate': {'a': 24}}"),
            ("Config/shop/db", "'team'", "{'generate': {'a': 24}}"),
            ("Secret/other/db", "'team'", "{'generate': {'a': 24}}"),
        )
    ),
)


def test_a_worker_in_the_place_of_the_liars_is_believed() -> None:
    made = prover(sys.executable, "-c", LIAR % ENTRY_OF_FILE.replace("FILE", "a"))
    result = made(proof_of({"a.yaml": b"a: 1\n"}))
    made.stop()
    assert isinstance(result, ProofVerified)


@pytest.mark.parametrize(
    "lie",
    [
        "sys.exit(0)",
        "os.write(1, b'\\xff\\xff\\xff\\xff')",
        "os.write(1, (3).to_bytes(4, 'big') + b'abc')",
        "w([])",
        "w({})",
        "w({'rendered': 7})",
        "w({'parts': 1}), w({'entries': [], 'objects': {}, 'unsupported': {}, 'broken': [], 'blind': 0}})",
        ENTRY_OF_FILE.replace("FILE", "evil"),
        ENTRY_OF_FILE.replace("FILE", "a").replace("[['x', 'b', False]]", "[]"),
        ENTRY_OF_FILE.replace("FILE", "a").replace(
            "[['x', 'b', False]]", "[['x', 'b', False]] * 77"
        ),
        ENTRY_OF_FILE.replace("FILE", "a").replace("[['x', 'b', False]]", "[['x', 'b']]"),
        *(f"w({{'parts': 1}}), w({{'secrets': {lie}}})" for lie in SECRETS),
    ],
)
def test_a_worker_that_lies_about_its_answer_costs_a_refusal(lie: str) -> None:
    made = prover(sys.executable, "-c", LIAR % lie)
    result = made(proof_of({"a.yaml": b"a: 1\n"}))
    made.stop()
    assert isinstance(result, ProofRefused)
    assert result.code == "proof.worker"


def test_keys_that_cannot_be_used_refuse_the_proof() -> None:
    def unusable(name: str) -> None:
        raise SourceError("source.keys", f"{name} is a link")

    now, monotonic = (lambda: NOW), time.monotonic
    made = Prover(unusable, Opener().open, now=now, monotonic=monotonic)  # type: ignore[arg-type]
    result = made(proof_of({"a.yaml": b"a: 1\n"}))
    assert isinstance(result, ProofRefused)
    assert (result.code, made.pid) == ("proof.keys", None)


def test_a_forged_proof_starts_no_worker() -> None:
    made = prover()
    command = proof_of({"a.yaml": b"a: 1\n"})
    result = made(VerifyProof(command.rule, command.proof[:-5], command.accepted))
    assert isinstance(result, ProofRefused)
    assert (result.code, made.pid) == ("proof.form", None)


def test_the_broker_renews_the_worker_before_it_ends_by_itself() -> None:
    assert BOUNDS.renewed_after < render_worker.REQUESTS_MAX


def test_a_large_proof_goes_to_the_worker_in_short_steps(
    real: Prover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's loop waits for no step of more bytes."""
    steps: list[int] = []
    write = os.write

    def counted(handle: int, data: memoryview) -> int:
        steps.append(len(data))
        return write(handle, data)

    monkeypatch.setattr(os, "write", counted)
    files = {"all.yaml": DOCUMENTS.encode(), "big.bin": bytes(7 << 20), "other.bin": bytes(7 << 20)}
    result = real(proof_of(files))
    assert isinstance(result, ProofVerified)
    assert "Service/shop/web" in result.rendering.entries
    assert max(steps) <= STEP_BYTES
    assert not any(len(file.content) for file in result.rendering.proven.files.values())


def test_a_long_rendering_comes_in_short_parts() -> None:
    entries = {f"Service/shop/s{n}": {"shape": "x" * 500} for n in range(2000)}
    rendered = {
        "entries": entries,
        "objects": {f"network:n{n}": {"x": ["Network/shop/n", "f"]} for n in range(900)},
        "unsupported": {f"Job/shop/j{n}": "why" for n in range(900)},
        "secrets": {"Secret/shop/long": "x" * 300_000, "Secret/shop/short": "y"},
        "broken": [f"Service/shop/b{n}" for n in range(900)],
        "blind": True,
    }
    parts = [*render_worker.parts_of(rendered)]
    lengths = [len(json.dumps(part)) for part in parts]
    assert max(lengths) < 2 * render_worker.PART_BYTES < PART_MAX
    assert join_parts(parts) == rendered
