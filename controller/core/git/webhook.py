"""Authentication of webhooks. Of a webhook nothing but its authenticity is used.

Sources: GitHub "Validating webhook deliveries" (X-Hub-Signature-256), Gitea and Forgejo "Webhooks"
(X-Gitea-Signature, X-Forgejo-Signature), Gogs (X-Gogs-Signature), GitLab "Webhooks" (X-Gitlab-Token).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

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
