"""The spec of a Source: what a document can name, and what never reaches a git command."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from controller.model.desired.source_spec import SourceSpec


def parse(git: str, more: str = "") -> SourceSpec:
    return SourceSpec.model_validate_json(f'{{"namespaces": ["shop"], "git": {{{git}}}{more}}}')


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/team/deploy.git",
        "http://127.0.0.1:8080/deploy.git",
        "ssh://git@example.org:2222/deploy.git",
        "git@example.org:team/deploy.git",
        "file:///srv/git/deploy.git",
    ],
)
def test_the_urls_of_git_are_accepted(url: str) -> None:
    spec = parse(f'"url": "{url}"')
    assert spec.git.url == url
    assert str(spec.git.ref) == "branch main"


@pytest.mark.parametrize(
    "git",
    [
        '"url": "ext::sh -c id"',
        '"url": "--upload-pack=id"',
        '"url": "ssh://-oProxyCommand=id/x"',
        '"url": "ssh://-u@host/x"',
        '"url": "-oProxyCommand=id@host:x"',
        '"url": "https://user:secret@example.org/x"',
        '"url": "file://host/srv/x"',
        '"url": "/srv/git/x"',
        '"url": "file:///x", "ref": {"branch": "-x"}',
        '"url": "file:///x", "ref": {"branch": "a..b"}',
        '"url": "file:///x", "ref": {"branch": "a:b"}',
        '"url": "file:///x", "ref": {"name": "heads/main"}',
        '"url": "file:///x", "ref": {"commit": "abc"}',
        '"url": "file:///x", "ref": {"branch": "a", "tag": "b"}',
        '"url": "file:///x", "ref": {}',
        '"url": "file:///x", "path": "../x"',
        '"url": "file:///x", "path": "/etc"',
        '"url": "file:///x", "path": ".git/hooks"',
        '"url": "file:///x", "credentials": "../key"',
        '"url": "file:///x", "interval": "1s"',
    ],
)
def test_a_value_that_git_could_misread_is_refused(git: str) -> None:
    with pytest.raises(ValidationError):
        parse(git)


def test_a_verification_names_its_keys() -> None:
    with pytest.raises(ValidationError, match="expected keys"):
        parse('"url": "file:///x"', ', "verify": {"mode": "head"}')


STATUS = '"forge": "gitea", "credentials": "shop"'


def test_a_forge_is_named_with_its_credentials() -> None:
    status = parse(f'"url": "https://x/a/b", "status": {{{STATUS}}}').git.status
    assert status is not None
    assert (status.forge, status.credentials, status.url, status.context) == (
        *("gitea", "shop"),
        *(None, None),
    )


@pytest.mark.parametrize(
    "status",
    [
        '"forge": "gitea"',
        '"forge": "bitbucket", "credentials": "shop"',
        '"forge": "gitea", "credentials": "../shop"',
        f'{STATUS}, "url": "ftp://example.org"',
        f'{STATUS}, "url": "https://user:secret@example.org/api"',
        f'{STATUS}, "url": "https://example.org/api?x=1"',
        f'{STATUS}, "url": "https://example.org/a b"',
        f'{STATUS}, "repository": "deploy"',
        f'{STATUS}, "repository": "../deploy"',
        f'{STATUS}, "repository": "team/deploy?x"',
        f'{STATUS}, "repository": "team//deploy"',
        f'{STATUS}, "context": "a b"',
        f'{STATUS}, "context": ""',
        f'{STATUS}, "targetUrl": "javascript:alert(1)"',
        f'{STATUS}, "token": "secret"',
    ],
)
def test_a_forge_that_a_request_could_be_led_astray_by_is_refused(status: str) -> None:
    with pytest.raises(ValidationError):
        parse(f'"url": "https://example.org/a/b", "status": {{{status}}}')
