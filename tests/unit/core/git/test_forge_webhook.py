"""Authentic webhooks of each forge, and everything else."""

from __future__ import annotations

import hmac

import pytest

from controller.core.git.forge import is_authentic, source_of_path

SECRET = b"a secret of enough bytes"
BODY = b'{"ref": "refs/heads/main"}'
DIGEST = hmac.new(SECRET, BODY, "sha256").hexdigest()
AUTHENTIC = {
    "GitHub": {"x-hub-signature-256": f"sha256={DIGEST}"},
    "Gitea": {"x-gitea-signature": DIGEST, "x-hub-signature-256": f"sha256={DIGEST}"},
    "Forgejo": {"x-forgejo-signature": DIGEST},
    "Gogs": {"x-gogs-signature": DIGEST},
    "GitLab": {"x-gitlab-token": SECRET.decode()},
}


@pytest.mark.parametrize("forge", AUTHENTIC)
def test_a_webhook_with_the_secret_is_authentic(forge: str) -> None:
    assert is_authentic(AUTHENTIC[forge], BODY, SECRET)


@pytest.mark.parametrize("forge", AUTHENTIC)
def test_a_webhook_with_another_secret_is_not(forge: str) -> None:
    assert not is_authentic(AUTHENTIC[forge], BODY, b"another secret of enough bytes")


@pytest.mark.parametrize("forge", [forge for forge in AUTHENTIC if forge != "GitLab"])
def test_a_signature_of_another_body_is_not_authentic(forge: str) -> None:
    assert not is_authentic(AUTHENTIC[forge], BODY + b" ", SECRET)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-hub-signature": DIGEST},
        {"x-hub-signature-256": DIGEST},
        {"x-hub-signature-256": "sha256="},
        {"x-gitlab-token": ""},
        {"x-gitlab-token": "\xff"},
        {"x-forgejo-signature": DIGEST, "x-gitea-signature": "0" * 64},
    ],
)
def test_other_headers_are_not_authentic(headers: dict[str, str]) -> None:
    assert not is_authentic(headers, BODY, SECRET)


def test_a_source_without_a_long_secret_has_no_webhook() -> None:
    for secret in (b"", b"short"):
        digest = hmac.new(secret, BODY, "sha256").hexdigest()
        assert not is_authentic({"x-gitea-signature": digest}, BODY, secret)
        assert not is_authentic({"x-gitlab-token": secret.decode()}, BODY, secret)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/hooks/shop", "shop"),
        ("/hooks/shop-2", "shop-2"),
        ("/hooks/shop/", ""),
        ("/hooks/../shop", ""),
        ("/hooks/Shop", ""),
        ("/hooks/" + "a" * 64, ""),
        ("/", ""),
    ],
)
def test_a_path_names_a_source(path: str, name: str) -> None:
    assert source_of_path(path) == name
