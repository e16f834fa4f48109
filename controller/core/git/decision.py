"""The decision which commit a source serves: an ordered table, first match wins.

A commit moves a source only forward. Everything else is held at the served commit, until a newer
commit is good, or an operator approves exactly the held one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from controller.core.git.tree_checks import Refusal
from controller.model.sources import CommitInfo


class Relation(StrEnum):
    """The relation of the newest commit to the served one."""

    #: No commit is served.
    FIRST = "first"
    SAME = "same"
    #: The served commit is an ancestor of the newest.
    NEWER = "newer"
    #: The newest commit is an ancestor of the served one.
    OLDER = "older"
    #: They have a common ancestor.
    REWRITTEN = "rewritten"
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True)
class CommitFindings:
    """The facts about the newest commit of a source."""

    newest: CommitInfo
    relation: Relation
    #: The served export is of another folder of the repository than the spec names now.
    moved: bool
    #: Why the tree can't be exported; None if it can.
    tree: Refusal | None
    #: Why the signatures aren't good; None if they are, or none is required.
    signature: Refusal | None
    #: The number of files that can declare a resource.
    documents: int


@dataclass(frozen=True, slots=True)
class Serve:
    """Export the newest commit, and serve it."""

    #: The approval that made it possible; '' for none.
    approved_by: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep serving the served commit."""

    reason: Refusal
    #: An operator can approve the commit.
    approvable: bool


@dataclass(frozen=True, slots=True)
class Keep:
    """The newest commit is served already."""


CommitDecision = Serve | Hold | Keep

_APPROVE = "check the commit, then 'trimtab source approve {name} {commit}'"


def decide(findings: CommitFindings, *, source: str, approved_by: str = "") -> CommitDecision:
    """Return what to do with the newest commit.

    *approved_by* is who approved exactly this commit; '' for nobody. An approval covers history,
    signature and an empty commit. It never covers a tree that can't be exported.
    """
    if findings.relation is Relation.SAME and not findings.moved:
        return Keep()
    if findings.tree is not None:
        return Hold(findings.tree, approvable=False)
    for holds in _HOLD_RULES:
        reason = holds(findings)
        if reason is None:
            continue
        if approved_by:
            return Serve(approved_by)
        remedy = _APPROVE.format(name=source, commit=findings.newest.commit[:12])
        remedy = f"{reason.remedy}; or {remedy}" if reason.remedy else remedy
        return Hold(Refusal(reason.code, reason.message, remedy), approvable=True)
    return Serve()


def _backward(findings: CommitFindings) -> Refusal | None:
    commit = findings.newest.commit[:12]
    match findings.relation:
        case Relation.OLDER:
            return Refusal(
                "source.older", f"the reference went back to the older commit {commit}", ""
            )
        case Relation.REWRITTEN:
            return Refusal(
                "source.rewritten",
                f"the history was rewritten: commit {commit} doesn't contain the served one",
                "",
            )
        case Relation.UNRELATED:
            return Refusal(
                "source.unrelated",
                f"commit {commit} has no common history with the served one",
                "check spec.git.url",
            )
        case Relation.FIRST | Relation.SAME | Relation.NEWER:
            return None


def _empty(findings: CommitFindings) -> Refusal | None:
    if findings.documents:
        return None
    return Refusal(
        "source.empty",
        f"commit {findings.newest.commit[:12]} has no document below the source's folder",
        "check spec.git.path",
    )


_HOLD_RULES: tuple[Callable[[CommitFindings], Refusal | None], ...] = (
    # Before all else: what nobody trusted has signed isn't worth a look at its history.
    lambda findings: findings.signature,
    # A force push redeployed everything elsewhere (doco-cd#1650).
    _backward,
    # An empty set would remove everything.
    _empty,
)
