"""A world with a signed source: each edit is a signed commit, and the broker wants its proof.

Somebody with the controller's user uploads every superseded commit after each start of a broker, and
whenever a story says so. The accepted commit never goes back, whoever dies when.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from controller.app.desired_state import DesiredFiles
from controller.broker.gate.commands import (
    Command,
    OpenSecret,
    ProofRefused,
    ProofVerified,
    SecretNotOpened,
    SecretOpened,
    VerifyProof,
)
from controller.core.proofs.proven_commit import InvalidProof, NotNewer, SignerFiles, Signers, prove
from controller.core.proofs.render import RenderScope, render
from controller.core.proofs.rendering import Rendering, join_parts, read_secrets
from controller.engine.adapter import BrokerEngine
from controller.engine.proof_uploads import BrokerProofs
from controller.model.desired.desired import GitSource
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.policy.document import Policy
from controller.model.records import Reply, Request
from controller.ports import DesiredSource
from controller.process.render_worker import parts_of
from controller.sources.directory import DirectorySource
from tests.signed_host import PASSING
from tests.sim.controller import OCTETS, request_of
from tests.sim.doomed import DoomedWorld
from tests.sim.faults import Action
from tests.sim.ground import POLICY
from tests.sim.people import CLAIM, USURPER
from tests.sim.sourced import NAME, NAMESPACES, SourcedFiles
from tests.sim.stories import Tale
from tests.sim.violation import Violation
from tests.unit.core.proofs.repository import Repository, signer_files

#: The invariant: the accepted commit never goes back.
SUPERSEDED = 15
_BEFORE_ANY = ""


def refuse_secrets(_command: OpenSecret) -> SecretNotOpened:
    return SecretNotOpened("secret.worker", "no Secrets in the simulation")


def _rendered(
    files: Mapping[str, bytes],
    scope: RenderScope,
    charts: Mapping[str, bytes],
    known: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the rendering of *files*. The same files are rendered once: they are proven often."""
    contents = None if known is None else frozenset(known.items())
    text = _rendered_text(frozenset(files.items()), scope, frozenset(charts.items()), contents)
    return dict(json.loads(text))


@lru_cache(maxsize=256)
def _rendered_text(
    files: frozenset[tuple[str, bytes]],
    scope: RenderScope,
    charts: frozenset[tuple[str, bytes]],
    contents: frozenset[tuple[str, str]] | None,
) -> str:
    known = None if contents is None else dict(contents)
    return json.dumps(render(dict(sorted(files)), scope, dict(sorted(charts)), known))


def verify_here(
    command: VerifyProof,
    keys: SignerFiles,
    now: float,
    open_secret: Callable[[OpenSecret], SecretOpened | SecretNotOpened] = refuse_secrets,
) -> ProofVerified | ProofRefused:
    """Verify and render a proof as the broker's prover does, in this process."""
    try:
        proven = prove(
            command.proof,
            command.rule,
            accepted=command.accepted,
            signers=Signers.read(keys),
            now=now,
        )
    except NotNewer as error:
        return ProofRefused(error.code, str(error), line=error.line)
    except InvalidProof as error:
        return ProofRefused(error.code, str(error))
    files = {path: bytes(file.content) for path, file in proven.files.items()}
    charts = {path: bytes(file.content) for path, file in proven.charts.items()}
    scope = RenderScope(
        proven.source,
        command.rule.namespaces,
        command.networks,
        command.rule.path,
        command.compose,
        command.formers,
    )
    rendered = join_parts([*parts_of(_rendered(files, scope, charts))])
    secrets = read_secrets(rendered["secrets"], command.rule.namespaces)
    asked = {key: OpenSecret(each.bound, each.source) for key, each in secrets.items()}
    results = {key: open_secret(each) for key, each in asked.items()}
    opened = {key: each for key, each in results.items() if isinstance(each, SecretOpened)}
    known = {key: each.content for key, each in opened.items()}
    answer = _rendered(files, scope, charts, known)
    new = tuple((secrets[key].bound, each) for key, each in opened.items() if each.is_new)
    return ProofVerified(Rendering.read(proven, {"rendered": answer}, known), new)


class SignedFiles(SourcedFiles):
    """DIR with a Source, whose commits are signed."""

    def __init__(self, folder: Path) -> None:
        self._repository = Repository()
        self.since = self._repository.commit({})
        #: From the oldest to the newest.
        self.commits: list[str] = []
        self._texts_served: dict[str, str] = {}
        self._send: Callable[..., list[Problem]] = lambda *_: []
        super().__init__(folder)

    def source(self, serving: Callable[[], Mapping[Key, str]]) -> DesiredSource:
        files = DirectorySource(self.root)
        return DesiredFiles(files, self._folder.parents[1], serving, proofs=self._prove)

    def reach_broker(self, engine: BrokerEngine, monotonic: Callable[[], float]) -> None:
        self._send = BrokerProofs(
            lambda: engine.read_own_route("proofs"),
            engine.ask_content,
            monotonic,
            now_accepted=lambda: None,
            read_again=lambda _delay_s: None,
        )

    def _prove(
        self, sources: Iterable[GitSource], commit_of: Callable[[str], str], folder: Path
    ) -> list[Problem]:
        return self._send(sources, commit_of, folder)

    def mishaps(self, _seed: int) -> Iterator[tuple[float, str, Callable[[], object]]]:
        """Yield no mishap: the stories are about commits."""
        yield from ()

    def proof(self, commit: str) -> bytes:
        return self._repository.proof(commit)

    def policy(self) -> Policy:
        """Return the simulated policy, which requires signed commits in the source's namespaces."""
        rule = {
            "source": NAME,
            "namespaces": NAMESPACES,
            "require": "signed",
            "keys": "release",
            "since": self.since,
        }
        whole = POLICY.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return Policy.model_validate_json(json.dumps({**whole, "sources": [rule]}))

    def _export(self, texts: dict[str, str]) -> None:
        if texts == self._texts_served:
            return
        self._texts_served = texts
        parent = self.commits[-1] if self.commits else self.since
        files = {name: text.encode() for name, text in texts.items()}
        commit = self._repository.commit(files, parent)
        self.commits.append(commit)
        folder, pointer = self._folder / commit, self._folder / "current"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (self._folder / f"{commit}.json").write_text(json.dumps({"version": 1, "path": "."}))
        (self._folder / f"{commit}.proof").write_bytes(self.proof(commit))
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(commit)


class SignedWorld(DoomedWorld):
    """A telling of a story whose namespaces of the source require signed commits."""

    files: SignedFiles

    def __init__(self, tale: Tale, at: int = -1) -> None:
        super().__init__(tale, at)
        self.broker.prove = lambda command: verify_here(command, signer_files(), self.clock.now())
        #: The newest commit that was ever accepted.
        self._newest = _BEFORE_ANY
        #: The controller's refused acts that no later upload mends.
        self.unproven: list[str] = []
        #: How many uploads of superseded commits were refused.
        self.refused = 0

    def make_files(self) -> SignedFiles:
        return SignedFiles(self.folder)

    def make_policy(self) -> Policy:
        return self.files.policy()

    def broker_died(self) -> None:
        self.note("broker died")
        self.at(self.random.uniform(0.1, 5.0), "restart broker", self._restart)

    def _restart(self) -> None:
        self.broker.start()
        usurp(self)

    def act(self, action: Action, request: Request) -> Reply:
        reply = super().act(action, request)
        if action is Action.PROVE and reply.status == 200:
            self._newest = str(json.loads(reply.body)["commit"])
        rule = dict(reply.headers).get("Trimtab-Rule", "")
        if rule.startswith("proof.") and rule not in PASSING:
            self.unproven.append(f"{action}: {rule}")
        return reply

    def after(self, command: Command) -> None:
        super().after(command)
        self._check_accepted()

    def happen(self) -> None:
        super().happen()
        self._check_accepted()

    def _check_accepted(self) -> None:
        if self.broker.state is None:
            return
        accepted = self.broker.state.inventory.accepted.get(NAME)
        commit = _BEFORE_ANY if accepted is None else accepted.commit
        if self._age(commit) > self._age(self._newest):
            told = f"commit {commit[:7] or 'none'} is accepted after {self._newest[:7]}"
            raise Violation(SUPERSEDED, told)
        self._newest = commit

    def _age(self, commit: str) -> int:
        """Return how many commits are newer."""
        line = [self.files.since, *self.files.commits]
        return len(line) if commit == _BEFORE_ANY else len(line) - 1 - line.index(commit)

    def superseded(self) -> list[str]:
        """Return the commits before the newest one that was ever accepted."""
        commits = self.files.commits
        return commits[: commits.index(self._newest)] if self._newest in commits else []


def usurp(world: SignedWorld) -> str:
    """Somebody with the controller's user uploads each superseded commit, the newest first."""
    old = world.superseded()
    for commit in reversed(old):
        sent = request_of(
            USURPER,
            "POST",
            "/trimtab/v1/proofs",
            query={"source": NAME},
            body=world.files.proof(commit),
            context=CLAIM,
            kind=OCTETS,
        )
        reply = world.ask(sent)
        if reply is not None and reply.status == 200:
            raise Violation(SUPERSEDED, f"the superseded commit {commit[:7]} is accepted")
        world.refused += reply is not None
    return f"somebody uploads {len(old)} superseded commits"
