"""Proofs to renderings: keys are read, the commit is verified, and the render worker renders it.

The verification is done here, with memory-safe code, and parses no document. The worker parses the
documents, of verified commits only.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from controller.broker.gate.commands import (
    Open,
    OpenSecret,
    ProofRefused,
    ProofVerified,
    SecretOpened,
    VerifyProof,
)
from controller.core.proofs.proven_commit import (
    InvalidProof,
    NotNewer,
    ProvenCommit,
    ProvenFile,
    SignerFiles,
    Signers,
    prove,
)
from controller.core.proofs.rendering import (
    RENDERED_MAX,
    ProvenSecret,
    Rendering,
    join_parts,
    read_secrets,
)
from controller.core.secrets.declared import SecretName
from controller.model.delivery import FileSet, contents_of
from controller.model.errors import SourceError
from controller.system.child_programs import ChildBounds, FramedChild, WorkerFailed

#: -I: nothing of the environment adds code. The child gets no environment anyway.
COMMAND = (sys.executable, "-I", "-m", "controller.process.render_worker")
BOUNDS = ChildBounds(request_s=20.0, answer_max=16 << 20, renewed_after=90)
#: Seconds for the Secrets of a proof. The controller uploads the proof again for the further ones.
OPENING_S = 20.0
_APPROVE = "after a rewritten history: trimtab source accept NAME COMMIT"
_REMEDY = "sign the commit with a key of the policy's folder of keys, and let it be fetched"

#: Returns the files of a folder of keys by its name; raises SourceError.
ReadKeys = Callable[[str], SignerFiles]


class Prover:
    """Verifies and renders proofs. Threads take turns."""

    def __init__(
        self,
        read_keys: ReadKeys,
        open_secret: Open,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        command: Sequence[str] = COMMAND,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._read_keys = read_keys
        self._open = open_secret
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        #: By source: the Secrets that were opened, or couldn't be, the longest ago first.
        self._opened: dict[str, dict[str, tuple[ProvenSecret, SecretOpened | None]]] = {}
        #: Contents that were new as they were opened, and that no result has told yet.
        self._untold: set[tuple[SecretName, str]] = set()
        self._child = FramedChild(command, BOUNDS, monotonic=monotonic, wait=wait)

    @property
    def pid(self) -> int | None:
        """The render worker's pid; None while there is no worker."""
        return self._child.pid

    def stop(self) -> None:
        """End the render worker."""
        self._child.stop()

    def __call__(self, command: VerifyProof) -> ProofVerified | ProofRefused:
        """Verify and render a proof."""
        with self._lock:
            try:
                signers = Signers.read(self._read_keys(command.rule.keys))
                proven = prove(
                    command.proof,
                    command.rule,
                    accepted=command.accepted,
                    signers=signers,
                    now=self._now(),
                )
                return self._render(proven, command)
            except NotNewer as error:
                return ProofRefused(error.code, str(error), _APPROVE, error.line)
            except InvalidProof as error:
                return ProofRefused(error.code, str(error), _REMEDY)
            except SourceError as error:
                return ProofRefused("proof.keys", error.message, error.remedy)
            except (WorkerFailed, ValueError) as error:
                reason = f"the render worker failed: {error}"
                return ProofRefused("proof.worker", reason, "check the documents: trimtab validate")

    def _render(self, proven: ProvenCommit, command: VerifyProof) -> ProofVerified:
        folder = command.rule.path
        # A longer file is a mistake of its document, whatever follows.
        contents = [
            {name: file.content[:RENDERED_MAX] for name, file in listed.items()}
            for listed in (proven.files, proven.charts)
        ]
        files, charts = ({name: len(each) for name, each in found.items()} for found in contents)
        request = {
            "source": proven.source,
            "namespaces": list(command.rule.namespaces),
            "networks": asdict(command.networks),
            "folder": proven.commit if folder == "." else folder.rpartition("/")[2],
            "compose": asdict(command.compose),
            "contents": None,
            "formers": {key: list(names) for key, names in command.formers.items()},
            "files": files,
            "charts": charts,
        }
        # The contents aren't needed later, and would be in memory as long as the rendering.
        proven = replace(proven, files=_blobs(proven.files), charts=_blobs(proven.charts))
        with self._child.turn() as ask:
            raw = [each for found in contents for each in found.values()]
            rendered = join_parts(ask(request, raw).get("parts"))
            secrets = read_secrets(rendered["secrets"], command.rule.namespaces)
            opened = self._open_secrets(secrets, command)
            known = {key: each.content for key, each in opened.items()}
            if known:
                answer = ask({**request, "contents": known}, raw)
                rendered = join_parts(answer.get("parts"))
            rendering = Rendering.read(proven, {"rendered": rendered}, known)
            found = ((secrets[key].bound, each) for key, each in opened.items())
            new = [(bound, each) for bound, each in found if (bound, each.content) in self._untold]
            self._untold.difference_update((bound, each.content) for bound, each in new)
            return ProofVerified(rendering, tuple(new))

    def _open_secrets(
        self, secrets: Mapping[str, ProvenSecret], command: VerifyProof
    ) -> dict[str, SecretOpened]:
        """Return the opened Secrets: opened for this proof, or for an earlier proof.

        Opening many Secrets takes longer than the time of a proof. New Secrets are opened first, then
        the Secrets with the longest wait; the remaining ones keep their last values. So each Secret is
        opened after some proofs, and changed values are found.
        """
        tried = self._opened.get(command.rule.source, {})
        tried = {key: each for key, each in tried.items() if secrets.get(key) == each[0]}
        until = self._monotonic() + OPENING_S
        for key in [*(each for each in secrets if each not in tried), *tried]:
            if self._monotonic() >= until:
                break
            secret = secrets[key]
            files = FileSet("secret", secret.bound.namespace, secret.bound.name)
            known = contents_of(command.stored, files)
            doubted = secret.bound.namespace in command.doubted
            result = self._open(OpenSecret(secret.bound, secret.source, known, doubted))
            tried.pop(key, None)
            tried[key] = (secret, result if isinstance(result, SecretOpened) else None)
            if isinstance(result, SecretOpened) and result.is_new:
                # The worker can still fail at this proof: a later one tells the content then.
                self._untold.add((secret.bound, result.content))
        self._opened[command.rule.source] = tried
        return {key: opened for key, (_, opened) in tried.items() if opened is not None}


def _blobs(files: Mapping[str, ProvenFile]) -> dict[str, ProvenFile]:
    """Return files without their contents."""
    return {name: ProvenFile(file.blob) for name, file in files.items()}
