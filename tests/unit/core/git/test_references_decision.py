"""Which commit a source serves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.git.commit_objects import Refusal
from controller.core.git.references import (
    CommitDecision,
    CommitFindings,
    Hold,
    Keep,
    Relation,
    Serve,
    decide,
)
from controller.model.sources import CommitInfo

NEWEST = CommitInfo("a" * 40)
GOOD = CommitFindings(NEWEST, Relation.NEWER, moved=False, tree=None, signature=None, documents=3)
LINK = Refusal("source.link", "a.yaml is a symbolic link", "commit the file")
UNSIGNED = Refusal("source.unsigned", "it has no signature", "")


def word(decision: CommitDecision) -> str:
    match decision:
        case Serve():
            return "serve"
        case Keep():
            return "keep"
        case Hold():
            return decision.reason.code


@pytest.mark.parametrize(
    ("findings", "expected", "approved"),
    [
        (GOOD, "serve", "serve"),
        (replace(GOOD, relation=Relation.FIRST), "serve", "serve"),
        (replace(GOOD, relation=Relation.SAME), "keep", "keep"),
        (replace(GOOD, relation=Relation.SAME, moved=True), "serve", "serve"),
        (replace(GOOD, relation=Relation.SAME, moved=True, documents=0), "source.empty", "serve"),
        (replace(GOOD, relation=Relation.OLDER), "source.older", "serve"),
        (replace(GOOD, relation=Relation.REWRITTEN), "source.rewritten", "serve"),
        (replace(GOOD, relation=Relation.UNRELATED), "source.unrelated", "serve"),
        (replace(GOOD, documents=0), "source.empty", "serve"),
        (replace(GOOD, relation=Relation.FIRST, documents=0), "source.empty", "serve"),
        (replace(GOOD, signature=UNSIGNED), "source.unsigned", "serve"),
        (
            replace(GOOD, signature=UNSIGNED, relation=Relation.REWRITTEN),
            "source.unsigned",
            "serve",
        ),
        (replace(GOOD, tree=LINK), "source.link", "source.link"),
        (replace(GOOD, tree=LINK, relation=Relation.REWRITTEN), "source.link", "source.link"),
    ],
)
def test_a_commit_moves_a_source_only_forward(
    findings: CommitFindings, expected: str, approved: str
) -> None:
    assert word(decide(findings, source="shop")) == expected
    assert word(decide(findings, source="shop", approved_by="uid:0")) == approved


def test_a_held_commit_says_how_to_approve_it() -> None:
    held = decide(replace(GOOD, documents=0), source="shop")
    assert held == Hold(
        Refusal(
            "source.empty",
            "commit aaaaaaaaaaaa has no document below the source's folder",
            "check spec.git.path; or check the commit, then 'trimtab source approve shop "
            "aaaaaaaaaaaa'",
        ),
        approvable=True,
    )


def test_an_approval_is_named_only_if_it_was_needed() -> None:
    assert decide(GOOD, source="shop", approved_by="uid:0") == Serve("")
    rewritten = replace(GOOD, relation=Relation.REWRITTEN)
    assert decide(rewritten, source="shop", approved_by="uid:0") == Serve("uid:0")
