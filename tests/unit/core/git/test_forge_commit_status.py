"""Requests to forges, and what their answers mean."""

from __future__ import annotations

import json

import pytest

from controller.core.git.forge import (
    FORGE_WAIT_MAX_S,
    FREE_POSTS,
    PACE_LONGEST_S,
    RETRY_LONGEST_S,
    AnswerKind,
    meaning_of,
    pace_s,
    request_of,
    retry_delay_s,
    target_of,
    token_header,
)
from controller.model.desired.source_spec import Forge, GitSpec
from controller.model.errors import SourceError
from controller.model.sources import CommitOutcome, OutcomeState

COMMIT = "3fa2c81b90de" + "0" * 28
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def spec(git_url: str, forge: str, /, **more: str) -> GitSpec:
    status = {"forge": forge, "credentials": "shop", **more}
    return GitSpec.model_validate_json(json.dumps({"url": git_url, "status": status}))


def outcome(state: OutcomeState = OutcomeState.SUCCESS) -> CommitOutcome:
    return CommitOutcome("shop", COMMIT, "web", state, "3 services Ready")


@pytest.mark.parametrize(
    ("git", "expected"),
    [
        (
            spec("https://github.com/team/deploy.git", "github"),
            f"https://api.github.com/repos/team/deploy/statuses/{COMMIT}",
        ),
        (
            spec("git@github.com:team/deploy.git", "github"),
            f"https://api.github.com/repos/team/deploy/statuses/{COMMIT}",
        ),
        *(
            (spec(git, "github"), f"https://{api}/repos/team/deploy/statuses/{COMMIT}")
            for git, api in (
                ("git@GitHub.com:team/deploy.git", "api.github.com"),
                ("ssh://git@ssh.github.com:443/team/deploy.git", "api.github.com"),
                ("https://shop.ghe.com/team/deploy.git", "api.shop.ghe.com"),
                ("git@shop.ghe.com:team/deploy.git", "api.shop.ghe.com"),
            )
        ),
        (
            spec("ssh://git@altssh.gitlab.com:443/team/deploy.git", "gitlab"),
            f"https://gitlab.com/api/v4/projects/team%2Fdeploy/statuses/{COMMIT}",
        ),
        (
            spec("https://github.example.org/team/deploy", "github"),
            f"https://github.example.org/api/v3/repos/team/deploy/statuses/{COMMIT}",
        ),
        (
            spec("ssh://git@gitlab.example.org:2222/group/sub/deploy.git", "gitlab"),
            f"https://gitlab.example.org/api/v4/projects/group%2Fsub%2Fdeploy/statuses/{COMMIT}",
        ),
        (
            spec("https://gitea.example.org:3000/team/deploy.git", "gitea"),
            f"https://gitea.example.org:3000/api/v1/repos/team/deploy/statuses/{COMMIT}",
        ),
        (
            spec(
                "https://example.org/git/team/deploy.git",
                "gitea",
                url="https://example.org/git/api/v1/",
                repository="team/deploy",
            ),
            f"https://example.org/git/api/v1/repos/team/deploy/statuses/{COMMIT}",
        ),
    ],
)
def test_the_place_of_a_status(git: GitSpec, expected: str) -> None:
    assert request_of(git, outcome(), host="h").url == expected


@pytest.mark.parametrize(
    ("url", "forge"),
    [
        ("https://github.com/team", "github"),
        ("https://github.com/a/b/c.git", "github"),
        ("https://git.example.org/../x.git", "gitea"),
        ("https://git.example.org/a/b?c.git", "gitlab"),
        ("https://git.example.org/a/..", "gitlab"),
    ],
)
def test_a_repository_that_the_url_does_not_tell(url: str, forge: str) -> None:
    git = spec(url, forge)
    if url.endswith("b?c.git"):  # the query isn't part of the path
        assert "projects/a%2Fb/" in request_of(git, outcome(), host="h").url
        return
    with pytest.raises(SourceError) as caught:
        request_of(git, outcome(), host="h")
    assert caught.value.code == "forge.repository"


STATES = {
    "github": ["pending", "success", "failure", "error", "failure", "error"],
    "gitea": ["pending", "success", "failure", "error", "failure", "error"],
    "gitlab": ["pending", "success", "failed", "failed", "failed", "canceled"],
}


@pytest.mark.parametrize("forge", list(STATES))
def test_the_states_of_a_forge(forge: str) -> None:
    git = spec("https://git.example.org/team/deploy.git", forge)
    sent = [json.loads(request_of(git, outcome(s), host="h").body)["state"] for s in OutcomeState]
    assert sent == STATES[forge]


@pytest.mark.parametrize(("forge", "name"), [("github", "context"), ("gitlab", "name")])
def test_the_name_and_the_text_of_a_status(forge: str, name: str) -> None:
    url = "https://git.example.org/team/deploy.git"
    assert json.loads(request_of(spec(url, forge), outcome(), host="host-1").body) == {
        "state": "success",
        name: "trimtab/host-1/web",
        "description": "3 services Ready",
    }
    page = "https://status.example.org/host-1"
    git = spec(url, forge, context="prod", targetUrl=page)
    body = json.loads(request_of(git, outcome(), host="host-1").body)
    assert (body[name], body["target_url"]) == ("prod/web", page)


def test_each_change_of_the_place_at_the_forge_is_another_target() -> None:
    url = "https://git.example.org/team/deploy.git"
    targets = [
        target_of(spec(url, "gitea"), host="h"),
        target_of(spec(url, "github"), host="h"),
        target_of(spec(url, "gitea"), host="other"),
        target_of(spec(url, "gitea", context="prod"), host="h"),
        target_of(spec(url, "gitea", repository="team/other"), host="h"),
        target_of(spec(url, "gitea", url="https://example.org/api/v1"), host="h"),
        target_of(spec("file:///srv/deploy.git", "gitea"), host="h"),
    ]
    assert len(set(targets)) == len(targets)
    assert targets[0] == target_of(spec(url, "gitea", credentials="other"), host="h")


def test_the_token_is_in_the_header_of_each_forge() -> None:
    assert {forge: token_header(forge, "t0k3n") for forge in Forge} == {
        Forge.GITHUB: ("Authorization", "Bearer t0k3n"),
        Forge.GITLAB: ("PRIVATE-TOKEN", "t0k3n"),
        Forge.GITEA: ("Authorization", "token t0k3n"),
    }


@pytest.mark.parametrize(
    ("forge", "status", "headers", "expected"),
    [
        ("github", 201, {}, ("taken", "", 0.0)),
        ("gitlab", 200, {}, ("taken", "", 0.0)),
        ("gitea", 401, {}, ("later", "forge.denied", 0.0)),
        ("github", 403, {}, ("later", "forge.denied", 0.0)),
        ("github", 403, {"retry-after": "60"}, ("later", "forge.limited", 60.0)),
        (
            "github",
            403,
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 90:.0f}"},
            ("later", "forge.limited", 90.0),
        ),
        ("github", 403, {"x-ratelimit-remaining": "9"}, ("later", "forge.denied", 0.0)),
        ("gitlab", 429, {"retry-after": "30"}, ("later", "forge.limited", 30.0)),
        (
            "gitlab",
            429,
            {"ratelimit-remaining": "0", "ratelimit-reset": f"{NOW + 5:.0f}"},
            ("later", "forge.limited", 5.0),
        ),
        ("gitea", 429, {}, ("later", "forge.limited", 0.0)),
        ("gitea", 429, {"retry-after": "9" * 9}, ("later", "forge.limited", FORGE_WAIT_MAX_S)),
        ("gitea", 429, {"retry-after": "soon"}, ("later", "forge.limited", 0.0)),
        (
            "gitea",
            503,
            {"retry-after": "Thu, 01 Jan 2026 00:02:00 GMT"},
            ("later", "forge.failed", 120.0),
        ),
        ("github", 404, {}, ("later", "forge.not-found", 0.0)),
        ("github", 301, {"location": "https://evil"}, ("later", "forge.redirect", 0.0)),
        ("github", 500, {}, ("later", "forge.failed", 0.0)),
        ("gitlab", 409, {}, ("later", "forge.failed", 0.0)),
        ("github", 422, {}, ("refused", "forge.rejected", 0.0)),
        ("gitea", 400, {}, ("refused", "forge.rejected", 0.0)),
    ],
)
def test_the_meaning_of_an_answer(
    forge: str, status: int, headers: dict[str, str], expected: tuple[str, str, float]
) -> None:
    answer = meaning_of(Forge(forge), status, headers, b"{}", sent=OutcomeState.SUCCESS, now=NOW)
    code = answer.problem.code if answer.problem else ""
    assert (answer.kind, code, answer.wait_s) == expected


def test_gitlab_has_a_pending_status_that_it_refuses_to_repeat() -> None:
    body = b'{"message": "Cannot transition status via :enqueue from :pending"}'
    for forge, state, kind in (
        (Forge.GITLAB, OutcomeState.PENDING, AnswerKind.TAKEN),
        (Forge.GITLAB, OutcomeState.SUCCESS, AnswerKind.REFUSED),
        (Forge.GITEA, OutcomeState.PENDING, AnswerKind.REFUSED),
    ):
        assert meaning_of(forge, 400, {}, body, sent=state, now=NOW).kind is kind


def test_a_commit_that_github_does_not_find_is_tried_again() -> None:
    body = b'{"message": "No commit found for SHA: 3fa2c81b90de"}'
    answer = meaning_of(Forge.GITHUB, 422, {}, body, sent=OutcomeState.SUCCESS, now=NOW)
    assert answer.problem is not None
    assert (answer.kind, answer.problem.code) == (AnswerKind.LATER, "forge.not-found")


def test_nothing_of_the_body_is_shown() -> None:
    answer = meaning_of(Forge.GITHUB, 401, {}, b"bad t0k3n", sent=OutcomeState.SUCCESS, now=NOW)
    assert "t0k3n" not in repr(answer)


def test_delays_grow_and_are_bounded() -> None:
    delays = [retry_delay_s(n, wait_s=0.0, random=0.5) for n in (1, 2, 3, 100)]
    assert delays == [5.0, 10.0, 20.0, RETRY_LONGEST_S]
    assert retry_delay_s(1, wait_s=60.0, random=0.5) == 60.0
    assert [pace_s(n) for n in (0, FREE_POSTS - 1, FREE_POSTS, 100)] == [0, 0, 30, PACE_LONGEST_S]
