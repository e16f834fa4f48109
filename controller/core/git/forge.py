"""Forges without I/O: requests for commit statuses, their answers, and the authentication of webhooks.

Commit statuses of forges: the request for an outcome, and what an answer means. No I/O.

Sources: GitHub REST API "Create a commit status" and "Rate limits", GitLab "Commits API: set the
pipeline status of a commit", Gitea and Forgejo API ``POST /repos/{owner}/{repo}/statuses/{sha}``.

Authentication of webhooks. Of a webhook nothing but its authenticity is used.

Sources: GitHub "Validating webhook deliveries" (X-Hub-Signature-256), Gitea and Forgejo "Webhooks"
(X-Gitea-Signature, X-Forgejo-Signature), Gogs (X-Gogs-Signature), GitLab "Webhooks" (X-Gitlab-Token).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from controller.core.git.commit_objects import Refusal
from controller.model.desired.source_spec import Forge, GitSpec, StatusSpec, is_repository
from controller.model.errors import SourceError
from controller.model.sources import CommitOutcome, OutcomeState

#: The delay after the first failure; doubled after each further one.
RETRY_FIRST_S = 5.0
RETRY_LONGEST_S = 900.0
#: The longest wait that a forge is obeyed.
FORGE_WAIT_MAX_S = 3600.0
#: The failed attempts after which an outcome of an earlier commit is given up.
ATTEMPTS_MAX = 100
#: The statuses of one commit and namespace that are sent at once, and at all. GitHub takes 1000.
FREE_POSTS, POSTS_MAX = 4, 200
PACE_FIRST_S, PACE_LONGEST_S = 30.0, 1800.0

_GITHUB_HOST = "github.com"
#: Hosts for SSH on port 443; the group is the host of the API.
_SSH_HOST = re.compile(r"ssh\.(github\.com)|altssh\.(gitlab\.com)")
#: Below the host of a forge of one's own.
_API_PATHS = {Forge.GITHUB: "/api/v3", Forge.GITLAB: "/api/v4", Forge.GITEA: "/api/v1"}
_SCP_LIKE = re.compile(r"[^@/:]+@(?P<host>[^:/]+):(?P<path>.+)")
_STATES: Mapping[Forge, Mapping[OutcomeState, str]] = MappingProxyType(
    {
        Forge.GITHUB: {OutcomeState.HELD: "failure", OutcomeState.SUPERSEDED: "error"},
        Forge.GITEA: {OutcomeState.HELD: "failure", OutcomeState.SUPERSEDED: "error"},
        Forge.GITLAB: {
            OutcomeState.FAILURE: "failed",
            OutcomeState.ERROR: "failed",
            OutcomeState.HELD: "failed",
            OutcomeState.SUPERSEDED: "canceled",
        },
    }
)
NAMES = {Forge.GITHUB: "GitHub", Forge.GITLAB: "GitLab", Forge.GITEA: "the forge"}


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """A POST request without its token."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def request_of(spec: GitSpec, outcome: CommitOutcome, *, host: str) -> StatusRequest:
    """Return the request that tells an outcome. *host* names this host in the status' name.

    Raises:
        SourceError: the forge or the repository can't be derived from ``spec.git.url``.
    """
    status = spec.status
    assert status is not None, "only a source with spec.git.status has requests"
    base, repository = _place_of(spec, status)
    state = _STATES[status.forge].get(outcome.state, outcome.state.value)
    name = f"{_context_of(status, host)}/{outcome.namespace}"
    is_gitlab = status.forge is Forge.GITLAB
    body = {"state": state, "name" if is_gitlab else "context": name, "description": outcome.text}
    if status.target_url is not None:
        body["target_url"] = status.target_url
    path = (
        f"/projects/{quote(repository, safe='')}/statuses/{outcome.commit}"
        if is_gitlab
        else f"/repos/{repository}/statuses/{outcome.commit}"
    )
    headers = {
        "Accept": "application/vnd.github+json"
        if status.forge is Forge.GITHUB
        else "application/json",
        "Content-Type": "application/json",
        "User-Agent": "trimtab",
    }
    if status.forge is Forge.GITHUB:
        headers["X-GitHub-Api-Version"] = "2022-11-28"
    return StatusRequest(f"{base}{path}", headers, json.dumps(body).encode())


def target_of(spec: GitSpec, *, host: str) -> str:
    """Return a digest of the place at the forge where the statuses of a source go.

    A status that was sent to another place doesn't count as sent. '' if no request can be made.
    """
    assert spec.status is not None, "only a source with spec.git.status has a target"
    try:
        place = _place_of(spec, spec.status)
    except SourceError:
        return ""
    parts = (spec.status.forge.value, *place, _context_of(spec.status, host))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _context_of(status: StatusSpec, host: str) -> str:
    return status.context or f"trimtab/{host}"


def token_header(forge: Forge, token: str) -> tuple[str, str]:
    """Return the name and the value of the header that has the token."""
    match forge:
        case Forge.GITHUB:
            return "Authorization", f"Bearer {token}"
        case Forge.GITLAB:
            return "PRIVATE-TOKEN", token
        case Forge.GITEA:
            return "Authorization", f"token {token}"


def _place_of(spec: GitSpec, status: StatusSpec) -> tuple[str, str]:
    """Return the base of the API, and the repository in the forge."""
    scp = None if "://" in spec.url else _SCP_LIKE.fullmatch(spec.url)
    parts = urlsplit(spec.url)
    host = scp["host"].lower() if scp else parts.hostname or ""
    if ssh := _SSH_HOST.fullmatch(host):
        host = ssh[1] or ssh[2]
    path = scp["path"] if scp else parts.path
    repository = status.repository or path.strip("/").removesuffix(".git")
    is_pair = repository.count("/") == 1
    if not is_repository(repository) or not (is_pair or status.forge is Forge.GITLAB):
        raise SourceError(
            "forge.repository",
            f"spec.git.url doesn't tell which repository of {NAMES[status.forge]} it is",
            remedy="name it in spec.git.status.repository, such as team/deploy",
        )
    if status.url is not None:
        return status.url.rstrip("/"), repository
    if not host:
        raise SourceError(
            "forge.repository",
            "spec.git.url doesn't tell where the forge is",
            remedy="name the base of its API in spec.git.status.url",
        )
    if status.forge is Forge.GITHUB and (host == _GITHUB_HOST or host.endswith(".ghe.com")):
        return f"https://api.{host}", repository
    # An SSH URL has no port of the web server's, and its API is on https.
    is_http = parts.scheme in {"http", "https"}
    origin = f"{parts.scheme}://{parts.netloc}" if is_http else f"https://{host}"
    return f"{origin}{_API_PATHS[status.forge]}", repository


class AnswerKind(StrEnum):
    """What follows from a forge's answer."""

    #: The forge has the status.
    TAKEN = "taken"
    #: The same request can succeed later.
    LATER = "later"
    #: The forge never takes this status.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ForgeAnswer:
    """The meaning of a forge's answer."""

    kind: AnswerKind
    #: Why the forge hasn't the status; None if it has.
    problem: Refusal | None = None
    #: How long the forge wants to be left alone.
    wait_s: float = 0.0


def meaning_of(
    forge: Forge,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    sent: OutcomeState,
    now: float,
) -> ForgeAnswer:
    """Return what an answer to an outcome of the state *sent* means.

    *headers* have lower-case names; *now* is in Unix seconds.

    Of the body nothing is shown: it is the forge's text.
    """
    name = NAMES[forge]
    if 200 <= status < 300:
        return ForgeAnswer(AnswerKind.TAKEN)
    is_repeated = forge is Forge.GITLAB and b"Cannot transition status" in body
    if status == 400 and is_repeated and sent is OutcomeState.PENDING:
        return ForgeAnswer(AnswerKind.TAKEN)
    wait_s = _wait_of(headers, now=now)
    if status == 429 or (status == 403 and wait_s):
        problem = Refusal(
            "forge.limited",
            f"{name} takes no more requests for now ({status})",
            "wait; the statuses are sent later",
        )
        return ForgeAnswer(AnswerKind.LATER, problem, wait_s)
    is_unknown = status == 422 and forge is Forge.GITHUB and b"No commit found" in body
    return ForgeAnswer(*_refusal(name, status, is_missing=status == 404 or is_unknown), wait_s)


def _refusal(name: str, status: int, *, is_missing: bool) -> tuple[AnswerKind, Refusal]:
    if status in {401, 403}:
        return AnswerKind.LATER, Refusal(
            "forge.denied",
            f"{name} refuses the token ({status})",
            "put a token that may write commit statuses of the repository into the file token of "
            "spec.git.status.credentials",
        )
    if is_missing:
        return AnswerKind.LATER, Refusal(
            "forge.not-found",
            f"{name} has no such repository or commit for this token ({status})",
            "correct spec.git.status.repository or url; the token must reach the repository",
        )
    if 300 <= status < 400:
        return AnswerKind.LATER, Refusal(
            "forge.redirect",
            f"{name} sends to another address ({status}), which never gets the token",
            "name the new address in spec.git.status.url or repository",
        )
    # 409 from GitLab: another host reports the same commit.
    if status >= 500 or status in {408, 409, 425}:
        return AnswerKind.LATER, Refusal(
            "forge.failed",
            f"{name} failed ({status})",
            "wait; the statuses are sent again",
        )
    return AnswerKind.REFUSED, Refusal(
        "forge.rejected",
        f"{name} rejects a commit status ({status})",
        "compare spec.git.status with the forge: its software, url and repository",
    )


def _wait_of(headers: Mapping[str, str], *, now: float) -> float:
    """Return the seconds that the forge asks to wait; 0 if it doesn't."""
    asked = headers.get("retry-after", "")
    if _is_count(asked):
        return min(float(asked), FORGE_WAIT_MAX_S)
    if asked:
        return min(max(0.0, _instant_of(asked, now) - now), FORGE_WAIT_MAX_S)
    # GitHub's and GitLab's names.
    for prefix in ("x-ratelimit-", "ratelimit-"):
        reset = headers.get(f"{prefix}reset", "")
        if headers.get(f"{prefix}remaining") == "0" and _is_count(reset):
            return min(max(1.0, float(reset) - now), FORGE_WAIT_MAX_S)
    return 0.0


def _instant_of(date: str, now: float) -> float:
    """Return an HTTP date in Unix seconds; *now* for any other text."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return now


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def retry_delay_s(failures: int, *, wait_s: float, random: float) -> float:
    """Return the seconds until the next attempt after *failures* in a row; *random* is in [0, 1)."""
    doubled: float = RETRY_FIRST_S * 2 ** min(failures - 1, 16)
    return max(wait_s, min(doubled, RETRY_LONGEST_S) * (0.9 + 0.2 * random))


def pace_s(posts: int) -> float:
    """Return the least seconds after the last of *posts* statuses of one commit and namespace."""
    if posts < FREE_POSTS:
        return 0.0
    longer: float = PACE_FIRST_S * 2 ** min(posts - FREE_POSTS, 16)
    return min(longer, PACE_LONGEST_S)


#: The headers with an HMAC-SHA256 of the body in hex, with the prefix of the value.
SIGNATURE_HEADERS = {
    "x-hub-signature-256": "sha256=",
    "x-forgejo-signature": "",
    "x-gitea-signature": "",
    "x-gogs-signature": "",
}
_GITLAB = "x-gitlab-token"
SECRET_MIN = 16
_NAME = re.compile(r"/hooks/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)", re.ASCII)


def source_of_path(path: str) -> str:
    """Return the source that a request's path names; '' for another path."""
    found = _NAME.fullmatch(path)
    return found[1] if found else ""


def is_authentic(headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
    """Return True if a webhook was made with the secret. Takes the same time for every wrong value.

    *headers* have lower-case names. Each header for authentication that is present must be right.
    """
    if len(secret) < SECRET_MIN:
        return False
    digest = hmac.new(secret, body, "sha256").hexdigest()
    results = [
        hmac.compare_digest(f"{prefix}{digest}".encode(), headers[name].encode())
        for name, prefix in SIGNATURE_HEADERS.items()
        if name in headers
    ]
    if _GITLAB in headers:
        results.append(hmac.compare_digest(secret, headers[_GITLAB].encode()))
    return bool(results) and all(results)
