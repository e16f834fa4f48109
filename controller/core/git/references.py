"""Which reference a source follows, which commit it serves, and when it is fetched next.

References: the one to fetch for a Source, out of those that a repository lists.

Tags are semantic versions (semver.org 2.0.0), and ranges are written as in Flux and npm.

Examples: ``1.x``, ``^1.2.3``, ``~1.2``, ``>=1.2.0 <2.0.0``, ``1.2 - 1.4``, ``1.x || >=3``. A
pre-release is in a range only if a bound of the range names a pre-release, such as ``>=1.0.0-0``.

The decision which commit a source serves: an ordered table, first match wins.

A commit moves a source only forward. Everything else is held at the served commit, until a newer
commit is good, or an operator approves exactly the held one.

The time of a source's next fetch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import total_ordering
from typing import Self

from controller.core.git.commit_objects import Refusal
from controller.model.desired.source_spec import GitRef
from controller.model.names import short_commit
from controller.model.sources import CommitInfo

#: What ``git ls-remote`` is asked for if versions are followed.
ALL_TAGS = "refs/tags/*"
_LINE = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\t(refs/[\x21-\x7e]{1,250})")


def pattern_of(ref: GitRef) -> str | None:
    """Return the reference to list, or a pattern; None for a fixed commit, which needs no list."""
    if ref.branch is not None:
        return f"refs/heads/{ref.branch}"
    if ref.tag is not None:
        return f"refs/tags/{ref.tag}"
    return ALL_TAGS if ref.semver is not None else ref.name


def parse_listing(output: bytes) -> dict[str, str]:
    """Return reference and object id of each line of ``git ls-remote``; other lines are left out."""
    found = (_LINE.fullmatch(line) for line in output.split(b"\n"))
    return {line[2].decode(): line[1].decode() for line in found if line}


def select_reference(ref: GitRef, listed: Mapping[str, str]) -> str | None:
    """Return the full name of the listed reference that *ref* follows; None if there is none."""
    if ref.semver is not None:
        return _highest(ref.semver, listed)
    pattern = pattern_of(ref)
    return pattern if pattern in listed else None


def _highest(text: str, names: Iterable[str]) -> str | None:
    wanted = VersionRange.parse(text)
    tags = ((Version.parse(name.removeprefix("refs/tags/")), name) for name in names)
    fitting = [(version, name) for version, name in tags if version and wanted.has(version)]
    # Of "1.2.0" and "v1.2.0", the same one each time.
    return max(fitting, default=(None, None))[1]


_NUMBER = r"(?:0|[1-9]\d{0,8})"
_VERSION = re.compile(
    rf"v?(?P<numbers>{_NUMBER}\.{_NUMBER}\.{_NUMBER})"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)
_PART = rf"(?:{_NUMBER}|[xX*])"
_BOUND = re.compile(
    rf"(?P<operator>[<>]=?|=|\^|~|)v?(?P<numbers>{_PART}(?:\.{_PART}){{0,2}})"
    r"(?:-(?P<pre>[0-9.]+))?",
    re.ASCII,
)
#: An operator may stand apart from its version.
_APART = re.compile(r"([<>=^~])\s+(?=[v0-9xX*])")
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version. Versions compare by precedence, section 11 of the specification."""

    numbers: tuple[int, ...]
    #: The identifiers of a pre-release; empty for a release.
    pre: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the version of a tag such as ``v1.2.3-rc.1``; None if the tag isn't a version."""
        found = _VERSION.fullmatch(text)
        if found is None:
            return None
        pre = tuple(found["pre"].split(".")) if found["pre"] else ()
        return cls(tuple(map(int, found["numbers"].split("."))), pre)

    def __lt__(self, other: Version) -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
        identifiers = tuple(
            (False, int(text), "") if text.isdigit() else (True, 0, text) for text in self.pre
        )
        return self.numbers, not self.pre, identifiers


@dataclass(frozen=True, slots=True)
class _Span:
    """The versions from *low* up to, without, *high*."""

    low: Version
    high: Version | None
    #: True if a bound names a pre-release.
    names_pre: bool = False

    def has(self, version: Version) -> bool:
        above = self.low <= version
        return above and (self.high is None or version < self.high)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Alternatives; each is a list of spans that a version must all be in."""

    alternatives: tuple[tuple[_Span, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a range.

        Raises:
            ValueError: *text* isn't a range.
        """
        return cls(tuple(_spans(part) for part in text.split("||")))

    def has(self, version: Version) -> bool:
        """Return True if *version* is in the range."""
        return any(_all_have(spans, version) for spans in self.alternatives)


def _all_have(spans: tuple[_Span, ...], version: Version) -> bool:
    if version.pre and not any(span.names_pre for span in spans):
        return False
    return all(span.has(version) for span in spans)


def _spans(text: str) -> tuple[_Span, ...]:
    text = _APART.sub(r"\1", text.strip())
    hyphen = _HYPHEN.fullmatch(text)
    words = (f">={hyphen[1]}", f"<={hyphen[2]}") if hyphen else tuple(text.split()) or ("*",)
    return tuple(_span(word) for word in words)


def _span(word: str) -> _Span:
    found = _BOUND.fullmatch(word)
    if found is None:
        raise ValueError(f"{word!r} is not a version with an operator, such as >=1.2.0")
    given: list[int] = []
    for part in found["numbers"].split("."):
        if not part.isdigit():
            break
        given.append(int(part))
    pre = tuple(found["pre"].split(".")) if found["pre"] and len(given) == 3 else ()
    low = Version((*given, *(0,) * (3 - len(given))), pre)
    after = _after(given)
    names_pre = bool(pre)
    match found["operator"]:
        case ">=":
            return _Span(low, None, names_pre)
        case ">":
            return _Span(_next(low) if len(given) == 3 else after or _LAST, None, names_pre)
        case "<":
            return _Span(_FIRST, low, names_pre)
        case "<=":
            return _Span(_FIRST, _next(low) if len(given) == 3 else after, names_pre)
        case "^":
            kept = next((at for at, number in enumerate(given) if number), len(given) - 1)
            return _Span(low, _after(given[: kept + 1]), names_pre)
        case "~":
            return _Span(low, _after(given[:2]), names_pre)
        case _:
            return _Span(low, _next(low) if len(given) == 3 else after, names_pre)


def _after(given: list[int]) -> Version | None:
    """Return the first version beyond all that begin with *given*; None for all versions."""
    if not given:
        return None
    raised = [*given[:-1], given[-1] + 1]
    # The lowest pre-release: 2.0.0-rc.1 is not in 1.x.
    return Version((*raised, *(0,) * (3 - len(raised))), ("0",))


def _next(version: Version) -> Version:
    """Return the version directly after *version*."""
    if version.pre:
        return Version(version.numbers, (*version.pre, "0"))
    return Version((*version.numbers[:2], version.numbers[2] + 1), ("0",))


_FIRST = Version((0, 0, 0), ("0",))
_LAST = Version((10**9, 0, 0))


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
        remedy = _APPROVE.format(name=source, commit=short_commit(findings.newest.commit))
        remedy = f"{reason.remedy}; or {remedy}" if reason.remedy else remedy
        return Hold(Refusal(reason.code, reason.message, remedy), approvable=True)
    return Serve()


def _backward(findings: CommitFindings) -> Refusal | None:
    commit = short_commit(findings.newest.commit)
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
        f"commit {short_commit(findings.newest.commit)} has no document below the source's folder",
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


#: The delay after the first failure; doubled after each further one.
RETRY_FIRST_S = 10.0
RETRY_LONGEST_S = 300.0
#: The share of a delay that is drawn, so that sources of one server don't meet.
JITTER = 0.1


def next_delay_s(*, interval_s: float, failures: int, random: float) -> float:
    """Return the seconds until the next fetch. *random* is a number in [0, 1).

    A failing source is tried again soon, then more and more seldom, but never more seldom than a
    healthy source.
    """
    delay = interval_s
    if failures:
        doubled = RETRY_FIRST_S * 2 ** min(failures - 1, 16)
        delay = min(doubled, max(RETRY_LONGEST_S, interval_s))
    return delay * (1 - JITTER + 2 * JITTER * random) if failures else delay * (1 - JITTER * random)
