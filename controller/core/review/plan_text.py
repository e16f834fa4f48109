"""A plan as text for a terminal: by object, with the changed fields and the steps.

Pure: the width and the function that colours are arguments. The same review gives the same text.
``core.review.flat_plan.render`` has the flat form, one line for each action.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal

from controller.core.drift.actions import TAKES_ADDRESS, TAKES_NAME, is_denied, refusals
from controller.core.drift.classify import short_revision
from controller.core.encoding.text import printable
from controller.core.review.flat_plan import INCOMPLETE, action_table, volume_lines
from controller.core.review.review import NOTHING_TO_DO, hold_word, is_different, summary_of
from controller.model.desired.field_changes import (
    Effect,
    FieldChange,
    Review,
    ReviewEntry,
    ServiceDifference,
)
from controller.model.desired.plan import (
    AnyAction,
    ConnectNetwork,
    CreateNetwork,
    CreateVolume,
    DeliverFiles,
    DisconnectNetwork,
    Plan,
    PullImage,
    QuarantineWait,
    RenameContainer,
    SignalContainer,
    StopContainer,
    UpdateContainer,
    Wait,
)
from controller.model.errors import NOTES, Problem, notes_text
from controller.model.quantities import format_bytes

Style = Literal["add", "change", "remove", "bad", "dim"]
Paint = Callable[[Style, str], str]
#: Returns the lines that show a problem in its file.
Excerpt = Callable[[Problem], Sequence[str]]

#: The first character of a line, and its colour.
SIGNS: Final[dict[Effect, tuple[str, Style]]] = {
    Effect.REMOVE: ("-", "remove"),
    Effect.REPLACE: ("~", "change"),
    Effect.CREATE: ("+", "add"),
    Effect.ADD: ("+", "add"),
    Effect.SCALE_DOWN: ("-", "remove"),
    Effect.STOP: ("~", "change"),
    Effect.RESTART: ("~", "change"),
    Effect.START: ("~", "change"),
    Effect.UPDATE: ("~", "change"),
    Effect.REFUSED: ("!", "bad"),
    Effect.WAIT: (".", "dim"),
    Effect.HELD: ("=", "dim"),
    Effect.NONE: ("=", "dim"),
}
#: The most causes shown for one object; the flat form has all of them.
CAUSES_MAX: Final = 4
_STYLES: Final[dict[str, Style]] = {"added": "add", "removed": "remove", "changed": "change"}
WIDTH_MIN: Final = 40


def nothing(_problem: Problem) -> Sequence[str]:
    """Return no lines, for output that leaves the host."""
    return ()


def plain(_style: Style, text: str) -> str:
    """Return a text without colour."""
    return text


def render_review(
    review: Review,
    *,
    width: int | None,
    paint: Paint = plain,
    verbose: bool = False,
    excerpt: Excerpt = nothing,
) -> str:
    """Return a reviewed plan as lines of at most *width* characters, where words allow it.

    Args:
        review: the reviewed plan.
        width: None for a pipe, in which no line is wrapped.
        paint: colours a text.
        verbose: add the flat form of all actions, with verdicts and the policy's defaults.
        excerpt: returns the lines around a problem in its file.
    """
    page = _Page(width, paint, excerpt)
    for entry in review.entries:
        changed = entry.differences and not entry.is_new
        if entry.actions or entry.holds or changed:
            page.entry(entry, verbose=verbose)
    page.rest(review.plan, verbose=verbose)
    for hint in review.hints:
        page.put(hint)
    summary = summary_of(review).text
    page.put(summary if summary.startswith(NOTHING_TO_DO) else f"Plan: {summary}")
    return "\n".join(page.lines) + "\n"


def render_differences(review: Review, *, width: int | None, paint: Paint = plain) -> str:
    """Return the different fields, object by object; a single newline if there is none."""
    page = _Page(width, paint)
    for entry in sorted(review.entries, key=lambda entry: entry.key):
        if is_different(entry):
            page.differences(entry)
    return "\n".join(page.lines) + "\n"


class _Page:
    """Lines filled up to a width."""

    def __init__(self, width: int | None, paint: Paint, excerpt: Excerpt = nothing) -> None:
        self.lines: list[str] = []
        self._excerpt = excerpt
        self._width = sys.maxsize if width is None else max(WIDTH_MIN, width)
        self._paint = paint

    def put(self, text: str, *, indent: str = "", style: Style | None = None) -> None:
        """Add a text, wrapped between words."""
        wrapped = textwrap.wrap(
            printable(text),
            self._width,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.lines += [line if style is None else self._paint(style, line) for line in wrapped]

    def entry(self, entry: ReviewEntry, *, verbose: bool) -> None:
        """Add an object with its fields and steps."""
        sign, style = SIGNS[entry.effect]
        self.put(f"{sign} {entry.key}  {headline(entry)}", style=style)
        for hold in entry.holds:
            self.put(hold.reason, indent="    ")
            if hold.remedy:
                self.put(f"remedy: {hold.remedy}", indent="    ")
        if verbose or not entry.is_new:
            self._fields(entry)
        for cause in _causes(entry):
            self.put(cause, indent="    ")
        if entry.new_addresses_on is not None:
            self.put(f"clients: {connections_text(entry.new_addresses_on)}", indent="    ")
        for steps in _steps(entry.actions):
            self.put(steps, indent="      ", style="dim")
        for action in entry.actions:
            for line in volume_lines(action):
                self.put(f"{action.target} gets {line}", indent="    ")
        self._verdicts(entry.actions)

    def differences(self, entry: ReviewEntry) -> None:
        """Add an object with its fields alone."""
        new = entry.is_new
        gone = entry.effect is Effect.REMOVE
        effect = Effect.REMOVE if gone else Effect.CREATE if new else Effect.REPLACE
        sign, style = SIGNS[effect]
        needed = "declared" if entry.key.kind == "Service" else "needed"
        said = f"  is no longer {needed}" if gone else "  is new" if new else ""
        self.put(f"{sign} {entry.key}{said}", style=style)
        self._fields(entry)

    def _fields(self, entry: ReviewEntry) -> None:
        several = sum(bool(each.containers) for each in entry.differences) > 1
        for difference in entry.differences:
            if title := _title(difference, several=several):
                self.put(title, indent="    ")
            for change in difference.changes:
                self.put(change_text(change), indent="    ", style=_STYLES[change.what])
            if difference.note is not None:
                self.put(f"note: {difference.note}", indent="    ")

    def _verdicts(self, actions: Sequence[AnyAction]) -> None:
        """Add the actions denied by the policy, or only warned about, once for each reason."""
        shown: set[tuple[str, ...]] = set()
        warned = [action for action in actions if action.verdict.decision == "audit-deny"]
        for action in (*refusals(actions), *warned):
            verdict = action.verdict
            known = (verdict.decision, *verdict.rules, verdict.reason)
            if known in shown:
                continue
            shown.add(known)
            word = "refused" if is_denied(action) else "warning, would be refused"
            rules = " ".join(verdict.rules)
            self.put(
                f"{word} by the policy: {action.verb} {action.target} [{rules}]",
                indent="    ",
                style="bad",
            )
            if verdict.problems:
                for problem in verdict.problems:
                    self.put(f"{problem.place}: {problem.code}: {problem.message}", indent="      ")
                    self.lines += self._excerpt(problem)
                    if problem.remedy:
                        self.put(f"remedy: {problem.remedy}", indent="          ")
                continue
            if verdict.reason:
                self.put(f"reason: {verdict.reason}", indent="      ")
            if verdict.remedy:
                self.put(f"remedy: {verdict.remedy}", indent="      ")

    def rest(self, plan: Plan, *, verbose: bool) -> None:
        """Add a plan's blocked removals, its problems and, if *verbose*, its flat form."""
        for blocked in plan.blocked:
            self.put(
                f"! {blocked.key}  removal blocked ({blocked.code}): {blocked.reason}", style="bad"
            )
            if blocked.remedy:
                self.put(f"remedy: {blocked.remedy}", indent="    ")
        shown = [problem for problem in plan.problems if problem.code not in NOTES]
        self.lines += [problem.render(self._excerpt(problem)) for problem in shown]
        if notes := notes_text(problem.code for problem in plan.problems):
            self.put(notes, style="dim")
        if not plan.complete:
            self.put(INCOMPLETE)
        if verbose and plan.actions:
            self.lines += ["", *action_table(plan.actions)]
            for seq, action in enumerate(plan.actions, 1):
                for mutation in action.verdict.mutations:
                    self.put(f"{seq}: the policy fills in {mutation}", indent="    ")
        if self.lines:
            self.lines.append("")


# Headlines


def headline(entry: ReviewEntry) -> str:
    """Return the effect on one object: ``replace 2 replicas, one at a time (StartFirst)``."""
    if entry.key.kind != "Service":
        return {Effect.CREATE: "create", Effect.REMOVE: "remove"}.get(
            entry.effect, entry.effect.value
        )
    parts = [*_parts(entry), *map(hold_word, entry.holds)]
    if parts:
        return ", ".join(parts)
    if entry.actions and all(isinstance(action, QuarantineWait) for action in entry.actions):
        return "quarantined"
    words = {Effect.REFUSED: "refused", Effect.WAIT: "waiting"}
    return words.get(entry.effect, "no container changes")


def _parts(entry: ReviewEntry) -> Iterator[str]:
    if entry.replaced:
        pace = "" if entry.replaced == 1 else f", {_pace(entry)}"
        yield f"replace {_replicas(entry.replaced)}{pace} ({entry.order})"
    if entry.added:
        yield f"create {_replicas(entry.added, entry.replicas)}"
    if entry.removed:
        yield f"remove {_replicas(entry.removed)}"
    if entry.stopped:
        yield f"stop {_replicas(entry.stopped)}"
    if entry.started:
        yield f"start {_replicas(entry.started)}"
    if entry.updated and not entry.replaced:
        yield f"update {_replicas(entry.updated)} in place"


def connections_text(new_addresses_on: tuple[str, ...]) -> str:
    """Return what clients of replaced replicas notice."""
    if not new_addresses_on:
        return "open connections to a replaced replica end, and its address stays"
    where = " and ".join(new_addresses_on)
    return (
        f"open connections to a replaced replica end, and its address on {where} changes: clients that "
        "resolve names once need a reload"
    )


def _pace(entry: ReviewEntry) -> str:
    return "one at a time" if entry.at_once == 1 else f"{entry.at_once} at a time"


def _replicas(count: int, of: int = 0) -> str:
    if count < of:
        return f"{count} of {of} replicas"
    return f"{count} replica" if count == 1 else f"{count} replicas"


# Fields


def change_text(change: FieldChange) -> str:
    """Return one changed field as a line: ``spec.resources.memory: 64Mi -> 96Mi``."""
    if change.old is None and change.new is None:
        text = f"{change.path}: {change.what}{', value unknown' if change.unknown else ''}"
    elif change.path.endswith("]") and change.what != "changed":  # an item of a list
        item = change.new or change.old
        text = f"{change.path}: {change.what}{f' ({item})' if item else ''}"
    elif change.what == "added":
        text = f"{change.path}: unset -> {change.new}"
    elif change.what == "removed":
        text = f"{change.path}: {change.old} -> unset"
    else:
        text = f"{change.path}: {change.old} -> {change.new}"
    return f"{text} (changed outside trimtab)" if change.kind == "drift" else text


def _title(difference: ServiceDifference, *, several: bool) -> str:
    if difference.held:
        return "in its document, and not applied:"
    if several and difference.origin is not None:
        return f"{', '.join(difference.containers)} (revision {short_revision(difference.origin)}):"
    return ""


# Steps


def _causes(entry: ReviewEntry) -> list[str]:
    """Return the causes, once each. A cause visible in the changed fields is left out."""
    told_by_fields = any(each.changes for each in entry.differences)
    changed = {change.path for each in entry.differences for change in each.changes}
    wanted = entry.effect is Effect.CREATE or "spec.replicas" in changed
    causes = dict.fromkeys(
        action.cause
        for action in entry.actions
        if not isinstance(
            action, Wait | ConnectNetwork | CreateNetwork | CreateVolume | DeliverFiles | PullImage
        )
        and not _makes_way(action)
        and not action.cause.endswith(TAKES_ADDRESS)
        and not (told_by_fields and action.cause.startswith("revision is "))
        and not (told_by_fields and ", admitted " in action.cause)
        and not (wanted and action.cause.endswith(" is missing"))
    )
    shown = [*causes][:CAUSES_MAX]
    more = len(causes) - len(shown)
    return [f"why: {cause}" for cause in shown] + ([f"why: {more} more"] if more else [])


def _steps(actions: Iterable[AnyAction]) -> Iterator[str]:
    """Yield the actions, one line for successive actions on a target. Denied ones are left out."""
    target, words = "", list[str]()
    sequence = [a for a in actions if not is_denied(a) and not _makes_way(a)]
    for index, action in enumerate(sequence):
        follower = sequence[index + 1] if index + 1 < len(sequence) else None
        word = _word(action, follower)
        if action.target != target and words:
            yield f"{target}: {', '.join(words)}"
            words = []
        target = action.target
        if word and word not in words[-1:]:
            words.append(word)
    if words:
        yield f"{target}: {', '.join(words)}"


def _makes_way(action: AnyAction) -> bool:
    """Return True if an action belongs to a connect that takes a name and an address over."""
    leaves = isinstance(action, DisconnectNetwork) and action.cause.startswith(TAKES_NAME)
    return leaves or (isinstance(action, ConnectNetwork) and TAKES_ADDRESS in action.cause)


def _size(action: AnyAction) -> str:
    size = action.size if isinstance(action, CreateVolume) else None
    return "" if size is None else f" of {format_bytes(size)}"


def _word(action: AnyAction, follower: AnyAction | None) -> str:
    """Return a short word for an action; '' for a part of the following action."""
    same = follower is not None and follower.target == action.target
    match action:
        case UpdateContainer() if same and isinstance(follower, StopContainer):
            return ""
        case DisconnectNetwork() if same and isinstance(follower, ConnectNetwork):
            return ""
        case DisconnectNetwork():
            return f"leave {action.network}"
        case ConnectNetwork() if action.cause.startswith(TAKES_NAME):
            return action.cause.replace("takes", "take", 1)
        case ConnectNetwork():
            return f"join {action.network}"
        case SignalContainer():
            return f"send {action.signal}"
        case RenameContainer():
            return f"rename to {action.name}"
        case Wait():
            return f"wait ({action.cause})"
        case CreateNetwork() | CreateVolume() | DeliverFiles():
            return f"{action.verb.replace('-', ' ')}{_size(action)}"
        case _:
            return action.verb.partition("-")[0]
