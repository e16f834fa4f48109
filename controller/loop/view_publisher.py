"""Versions of the view for readers. Without a reader in the last minutes, nothing is made, and nothing loaded."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from controller.core.status.facts import Report
from controller.model.records import ViewerScope

if TYPE_CHECKING:
    from controller.core.view.view import FieldsMemo, View, ViewInputs

#: How long after a reader's last request views are made with each status.
WATCHED_S = 180.0
#: The answers that are kept about one version: readers can name any version as theirs.
RENDERED_MAX = 16
EVERYBODY: Final = ViewerScope(owners=None)


class Views:
    """The view of everything, and a view for each scope that viewers read. Thread-safe."""

    def __init__(self, run: str, make: Callable[[str, ViewerScope], ViewPublisher]) -> None:
        self._run = run
        self._make = make
        #: The number of views made for scopes: a version of one means nothing in another.
        self._made = 0
        self._lock = threading.Lock()
        self._facts: Callable[[], ViewInputs] | None = None
        self._by_owners = {EVERYBODY.owners: make(run, EVERYBODY)}

    def publish(self, facts: Callable[[], ViewInputs]) -> None:
        """Take the facts of a new status. Forget the scopes that nobody reads any more."""
        with self._lock:
            self._facts = facts
            self._by_owners = {
                owners: view
                for owners, view in self._by_owners.items()
                if owners is None or view.is_watched()
            }
            views = [*self._by_owners.values()]
        for view in views:
            view.publish(facts)

    def answer(
        self, have: str, *, wait_s: float, owners: frozenset[str] | None = None
    ) -> bytes | None:
        """Return what a reader about *owners* (None: all) lacks, as ``ViewPublisher.answer``."""
        with self._lock:
            view = self._by_owners.get(owners)
            if view is None:
                self._made += 1
                view = self._make(f"{self._run}.{self._made}", ViewerScope(owners))
                self._by_owners[owners] = view
                if self._facts is not None:
                    view.publish(self._facts)
        return view.answer(have, wait_s=wait_s)


class ViewPublisher:
    """Makes versions of the view of a scope, and renders what readers lack: once for all of them. Thread-safe.

    *run* names the life of this process. *host* returns the member ``host``, and *verified* the content of
    ``verified.json``.
    """

    def __init__(
        self,
        run: str,
        monotonic: Callable[[], float],
        *,
        host: Callable[[], Report] = dict,
        verified: Callable[[], object] = lambda: None,
        scope: ViewerScope = EVERYBODY,
    ) -> None:
        self._scope = scope
        self._run = run
        self._monotonic = monotonic
        self._host = host
        self._verified = verified
        self._hidden = frozenset[str]()
        self._changed = threading.Condition()
        self._memo: FieldsMemo | None = None
        #: Returns the facts of the last status; None before the first one.
        self._facts: Callable[[], ViewInputs] | None = None
        self._view: View | None = None
        #: The view was made of the last facts.
        self._is_current = False
        #: The answers about the present view, by the version that readers have.
        self._rendered: dict[str, bytes] = {}
        self._asked_at: float | None = None

    def publish(self, facts: Callable[[], ViewInputs]) -> None:
        """Take the facts of a new status, and make a version of the view if anybody reads it."""
        with self._changed:
            self._facts, self._is_current = facts, False
            if self.is_watched():
                self._make(facts)

    def is_watched(self) -> bool:
        """Return True if a reader asked within the last minutes."""
        asked = self._asked_at
        return asked is not None and self._monotonic() - asked < WATCHED_S

    def answer(self, have: str, *, wait_s: float) -> bytes | None:
        """Return what a reader with the version *have* lacks, as JSON; None before the first status.

        A reader of the present version waits for the next one, at most *wait_s* seconds.
        """
        with self._changed:
            self._asked_at = self._monotonic()
            if self._facts is None:
                return None
            view = self._make(self._facts)
            if view.version == have:
                self._changed.wait_for(lambda: self._is_over(have), wait_s)
                self._asked_at = self._monotonic()
                view = self._make(self._facts)
            if have not in self._rendered:
                from controller.core.view.scope import blanked
                from controller.core.view.view import answer

                if len(self._rendered) >= RENDERED_MAX:
                    self._rendered.clear()
                lacks = answer(view, have)
                shown = blanked(lacks, self._hidden) if self._hidden else lacks
                self._rendered[have] = json.dumps(shown).encode()
            return self._rendered[have]

    def _is_over(self, have: str) -> bool:
        """Return True if a reader with the version *have* waits no longer."""
        return self._view is None or self._view.version != have

    def _make(self, facts: Callable[[], ViewInputs]) -> View:
        """Return the view of the last facts, made at most once."""
        if self._view is not None and self._is_current:
            return self._view
        from controller.core.view.scope import hidden_names, scoped
        from controller.core.view.view import FieldsMemo, next_view

        self._memo = self._memo or FieldsMemo()
        inputs = facts()
        inputs = replace(inputs, host={**self._host(), **inputs.host}, verified=self._verified())
        if self._scope.owners is not None:
            self._hidden = hidden_names(inputs, self._scope)
            inputs = replace(scoped(inputs, self._scope), verified=None)
        self._view = next_view(self._view, inputs, self._memo, run=self._run)
        self._is_current, self._rendered = True, {}
        self._changed.notify_all()
        return self._view
