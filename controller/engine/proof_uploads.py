"""Uploads of proofs: the broker gets the proof of each served commit of a signed source, once.

The broker is asked for its accepted commits at each reading of the documents, as it forgets proofs at
its end. A refused proof is uploaded again after a while, or with another commit. After an error that
ends by itself, such as a journal that can't be written, the documents are read again soon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from controller.engine.requests import OutgoingRequest
from controller.model.desired.desired import GitSource
from controller.model.errors import Act, EngineError, Problem, Severity
from controller.model.names import short_commit

#: Seconds until a refused proof is uploaded again.
RETRY_S = 60.0
#: Seconds until the proof is uploaded again after an error that ends by itself. The documents are then
#: read again.
READ_AGAIN_S = 10.0
PROOF_MAX = 16 << 20
_TIMEOUT_S = 60.0


class BrokerProofs:
    """Uploads the proofs of served commits.

    *now_accepted* is called after each accepted proof, *read_again* with the seconds until the next
    reading of the documents.
    """

    def __init__(
        self,
        accepted: Callable[[], Mapping[str, Any]],
        upload: Callable[[OutgoingRequest, str], str],
        monotonic: Callable[[], float],
        now_accepted: Callable[[], None],
        read_again: Callable[[float], object],
    ) -> None:
        self._accepted = accepted
        self._upload = upload
        self._monotonic = monotonic
        self._now_accepted = now_accepted
        self._read_again = read_again
        self._lock = threading.Lock()
        #: By source: the commit of a failed upload, when to try again, and the error.
        self._failed: dict[str, tuple[str, float, EngineError]] = {}

    def __call__(
        self, sources: Iterable[GitSource], commit_of: Callable[[str], str], folder: Path
    ) -> list[Problem]:
        """Upload the missing proofs. Return a problem for each that isn't accepted.

        *commit_of* returns the served commit of a source, '' for none; *folder* has the exports.
        """
        with self._lock:
            try:
                listed = self._accepted().get("sources") or ()
            except EngineError:
                return []  # the pass reports a broker that doesn't answer
            rendered = {str(each["source"]): str(each["rendered"]) for each in listed}
            problems = []
            for source in sources:
                name = source.key.name
                commit = commit_of(name) if name in rendered else ""
                if commit and rendered[name] != commit:
                    problem = self._send(source, commit, folder / name / f"{commit}.proof")
                    problems += [problem] if problem is not None else []
            return problems

    def _send(self, source: GitSource, commit: str, file: Path) -> Problem | None:
        name = source.key.name
        before = self._failed.get(name)
        if before is not None and before[0] == commit and self._monotonic() < before[1]:
            return _problem(source, commit, before[2].message, before[2].remedy)
        try:
            with file.open("rb") as handle:
                proof = handle.read(PROOF_MAX)
        except OSError as failure:
            reason = f"its proof can't be read: {failure.strerror}"
            return _problem(source, commit, reason, "set spec.verify of the Source: head and keys")
        if not proof:
            reason = f"its files have more than {PROOF_MAX >> 20} MiB"
            remedy = "put the documents into a folder without big files"
            return _problem(source, commit, reason, remedy)
        try:
            self._upload(_request(name, proof), f"the proof of commit {short_commit(commit)}")
        except EngineError as error:
            is_temporary = error.act is not Act.STALLED
            delay_s = READ_AGAIN_S if is_temporary else RETRY_S
            self._failed[name] = (commit, self._monotonic() + delay_s, error)
            if is_temporary:
                self._read_again(delay_s)
            return _problem(source, commit, error.message, error.remedy)
        self._failed.pop(name, None)
        self._now_accepted()
        return None


def _request(name: str, proof: bytes) -> OutgoingRequest:
    query = {"source": name}
    return OutgoingRequest("POST", "/trimtab/v1/proofs", query, data=proof, timeout_s=_TIMEOUT_S)


def _problem(source: GitSource, commit: str, reason: str, remedy: str) -> Problem:
    return Problem(
        "source.unproven",
        f"the broker accepts no change by commit {short_commit(commit)} of Source {source.key.name}: {reason}",
        source.source.file,
        source.source.line,
        remedy=remedy,
        severity=Severity.WARNING,
        key=source.key,
    )
