"""The checker of pulls: nothing is pulled again before something was made of what was pulled.

This belongs to invariant 11: what is done is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from controller.broker.gate import journal_entries
from controller.model.records import Reply, Request
from tests.sim.faults import Action
from tests.sim.files import Truth
from tests.sim.violation import Violation


class Pulls:
    """The images that were pulled for a document, while no create was tried for it since."""

    def __init__(self, seen: Callable[[], Truth | None]) -> None:
        self._seen = seen
        #: The file, the reference, and the documents of then.
        self._unused: set[tuple[str, str, str]] = set()

    def forget(self) -> None:
        """The controller begins anew, or a person asks for a restart: all is pulled again."""
        self._unused.clear()

    def sent(self, action: Action, request: Request) -> None:
        """Note a create that is tried, whatever comes of it: the controller may not be told."""
        if action is Action.CREATE:
            file = _file_of(request)
            self._unused = {each for each in self._unused if each[0] != file}

    def answered(self, action: Action, request: Request, reply: Reply) -> None:
        """Check a pull of the controller's that no fault met.

        Raises:
            Violation: an image is pulled again for the same.
        """
        if action is not Action.PULL or reply.status >= 400 or b'"error"' in reply.body:
            return
        file = _file_of(request)
        truth = self._seen()
        docs = () if truth is None else truth.declared.values()
        spec = json.dumps([doc.spec for doc in docs if doc.file in file], sort_keys=True)
        pulled = (file, request.query, spec)
        if pulled in self._unused:
            raise Violation(11, f"{request.query} is pulled again, and nothing was made of it")
        self._unused.add(pulled)


def _file_of(request: Request) -> str:
    """Return the file that a request names as its source, '' for none."""
    values = [value for name, value in request.headers if name == journal_entries.CONTEXT_HEADER]
    return journal_entries.read_context(values[0]).file if values else ""
