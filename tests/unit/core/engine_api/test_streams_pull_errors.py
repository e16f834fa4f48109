"""Reasons of failed pulls: the engine's texts and the resulting messages."""

from __future__ import annotations

import pytest

from controller.core.engine_api.streams import (
    PULL_ERROR_ACTS,
    Access,
    explain_pull_error,
    pull_error_code,
)
from controller.model.errors import Act

IMAGE = "127.0.0.1:5000/team/web:1.2"
FILE = "/etc/trimtab/registry.json"

#: As a Docker 26.1.5 said it of Debian's docker-registry, of registries made to fail, of a full disk.
TEXTS = [
    ("manifest for 127.0.0.1:5000/team/web:1.2 not found: manifest unknown", "image.notfound"),
    ("manifest unknown", "image.notfound"),
    ("name unknown: repository name not known to registry", "image.notfound"),
    (
        (
            "pull access denied for 127.0.0.1:5000/team/web, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied"
        ),
        "image.denied",
    ),
    ('Head "http://127.0.0.1:5000/v2/team/web/manifests/1.2": denied', "image.denied"),
    (
        'Head "http://127.0.0.1:5000/v2/team/web/manifests/1.2": no basic auth credentials',
        "image.denied",
    ),
    ("unauthorized: authentication required", "image.denied"),
    ("toomanyrequests: You have reached your pull rate limit.", "image.rate-limited"),
    ("no matching manifest for linux/amd64 in the manifest list entries", "image.other-platform"),
    (
        'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused',
        "image.registry",
    ),
    (
        (
            'Get "https://nosuch.example/v2/": dial tcp: lookup nosuch.example on 10.0.0.2:53: no such '
            "host"
        ),
        "image.registry",
    ),
    ('Get "http://127.0.0.1:5122/v2/": context deadline exceeded', "image.registry"),
    ('Head "http://127.0.0.1:5116/v2/a/b/manifests/1": EOF', "image.registry"),
    (
        (
            'Get "https://10.9.9.9:5301/v2/": tls: failed to verify certificate: x509: certificate '
            "signed by unknown authority"
        ),
        "image.registry",
    ),
    ("received unexpected HTTP status: 503 Service Unavailable", "image.registry"),
    ("the engine's answer was lost: the pull made no progress for 120 s", "image.registry"),
    (
        (
            "filesystem layer verification failed for digest "
            "sha256:0a60e064fb9be40c004a85ea8899de7a842f4b2c124061b3f0c70f2fe97e3e5a"
        ),
        "image.damaged",
    ),
    ("unknown blob", "image.damaged"),
    (
        (
            "mediaType in manifest should be 'application/vnd.docker.distribution.manifest.v2+json' "
            "not ''"
        ),
        "image.damaged",
    ),
    ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "image.disk"),
    ("failed to register layer: write /x: no space left on device", "image.disk"),
    ("failed to register layer: lchown /x: permission denied", "image.damaged"),
    ("something else", "image.pull-failed"),
    ("", "image.pull-failed"),
]


@pytest.mark.parametrize(("text", "code"), TEXTS)
def test_what_the_engine_says_has_a_code(text: str, code: str) -> None:
    assert pull_error_code(IMAGE, text) == code
    told = explain_pull_error(IMAGE, text)
    assert (told.code, told.act) == (code, PULL_ERROR_ACTS[code])
    assert told.remedy


def test_the_name_of_an_image_says_nothing_of_its_pull() -> None:
    image = "timeout.example/denied/unauthorized:1"
    assert (
        pull_error_code(image, f"manifest for {image} not found: manifest unknown")
        == "image.notfound"
    )
    assert pull_error_code(image, f"{image}: something else") == "image.pull-failed"


def test_who_must_act_is_told() -> None:
    stalled = {code for code, act in PULL_ERROR_ACTS.items() if act is Act.STALLED}
    assert stalled == {"image.notfound", "image.denied", "image.disk", "image.other-platform"}


@pytest.mark.parametrize(
    ("access", "remedy"),
    [
        (
            Access(),
            (
                "give the broker credentials for 127.0.0.1:5000 (--registry-auth), or correct the "
                "image's name"
            ),
        ),
        (
            Access(FILE, frozenset({"ghcr.io"})),
            f"add credentials for 127.0.0.1:5000 to {FILE}, or correct the image's name",
        ),
        (
            Access(FILE, frozenset({"127.0.0.1:5000"})),
            f"check that the credentials for 127.0.0.1:5000 in {FILE} are right and still valid",
        ),
    ],
)
def test_a_refusal_names_the_file_of_credentials(access: Access, remedy: str) -> None:
    assert explain_pull_error(IMAGE, "unauthorized", access=access).remedy == remedy


def test_a_reason_names_the_image_and_what_was_said() -> None:
    assert explain_pull_error(IMAGE, "manifest unknown").reason == (
        f"{IMAGE}: its registry has no such image: manifest unknown"
    )
