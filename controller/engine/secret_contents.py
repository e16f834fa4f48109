"""The content ids of Secrets, asked from the broker once for each source and remembered.

A source with files of the host, or with generated values, is asked for at each reading of the
documents: files can change, and an operator can forget values. So is a source whose key or file
on the host was missing or unsafe: a person can repair it at any time. An answer holds no plain text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus

from controller.core.planning.deliveries.secret_binding import SecretContents, SecretFault
from controller.engine.transport import OutgoingRequest
from controller.model.desired.desired import Secret
from controller.model.errors import EngineError
from controller.model.names import Key

#: Seconds until a source that can't be opened is asked for again.
RETRY_S = 60.0
#: The faults of keys and files on the host (``broker.secrets.key_files``), cheap to look for.
OF_HOST = frozenset(
    f"secret.{name}" for name in ("file-missing", "file-open", "key-missing", "key-invalid")
)
#: The longest time for the questions of one reading, in seconds. Further ones are asked by the next.
READING_S = 20.0
LATE = SecretFault(
    "secret.late",
    f"other Secrets took {READING_S:g} s to open",
    "nothing: the next reading asks again; check the Secrets that can't be opened",
)


class BrokerSecrets:
    """Answers for the declared Secrets."""

    def __init__(
        self, ask: Callable[[OutgoingRequest, str], str], monotonic: Callable[[], float]
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[tuple[Key, str], str] = {}
        self._failed: dict[tuple[Key, str], tuple[float, SecretFault]] = {}

    def __call__(self, secrets: Iterable[Secret]) -> SecretContents:
        """Return the content id of each Secret, or why it isn't known. Forgets all others."""
        with self._lock:
            wanted = {(secret.key, secret.digest): secret for secret in secrets}
            self._known = {each: found for each, found in self._known.items() if each in wanted}
            self._failed = {each: found for each, found in self._failed.items() if each in wanted}
            until = self._monotonic() + READING_S
            return {secret.key: self._answer(secret, until) for secret in wanted.values()}

    def forget(self) -> None:
        """Ask for every source again at the next reading.

        For the time after the proof of a signed source. A Secret that the broker couldn't open for the
        proof holds services back, until a later answer has the content of the Secret.
        """
        with self._lock:
            self._known = {}

    def _answer(self, secret: Secret, until: float) -> str | SecretFault:
        place = (secret.key, secret.digest)
        changes = secret.spec.file is not None or secret.spec.generate is not None
        if (known := self._known.get(place)) is not None and not changes:
            return known
        failed_at, fault = self._failed.get(place, (None, None))
        if failed_at is not None and fault is not None and self._monotonic() < failed_at + RETRY_S:
            return fault
        if self._monotonic() >= until:
            return LATE if known is None else known
        try:
            content = self._ask(_question(secret), f"the content of {secret.key}")
        except EngineError as error:
            fault = SecretFault(error.code, error.message, error.remedy)
            # A conflict passes by itself: the proof of a signed source isn't accepted yet. Generated
            # values cost no decryption, and an operator who forgets lost ones waits for the answer.
            passes = error.status == HTTPStatus.CONFLICT or error.code in OF_HOST
            if not passes and secret.spec.generate is None:
                self._failed[place] = (self._monotonic(), fault)
            return fault
        self._failed.pop(place, None)
        self._known[place] = content
        return content


def _question(secret: Secret) -> OutgoingRequest:
    path = f"/trimtab/v1/secrets/{secret.key.namespace}/{secret.key.name}"
    body: dict[str, object] = {"owner": secret.owner, "source": dict(secret.declared)}
    return OutgoingRequest("POST", path, body=body, id_member="Content")
