"""Registry credentials: docker's form, its refused parts, and messages without secrets."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from controller.broker.host.registry_auth import read_auth
from controller.model.errors import CredentialsInvalid

WHERE = "registry.json"
SECRET = "hunter2-s3cr3t"
PAIR = base64.b64encode(f"ann:{SECRET}".encode()).decode()


def sent(auths: dict[str, Any], host: str) -> dict[str, Any]:
    header = read_auth(json.dumps({"auths": auths}), WHERE).header(host)
    return dict(json.loads(base64.urlsafe_b64decode(header))) if header else {}


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://GHCR.io/v2/", "ghcr.io"),
        ("http://registry.example:5000/v1", "registry.example:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_a_key_means_the_registry_that_references_name(key: str, host: str) -> None:
    told = read_auth(json.dumps({"auths": {key: {"auth": PAIR}}}), WHERE)
    assert told.hosts == {host}
    assert told.header("other.example") == ""


def test_what_is_sent_is_of_that_registry() -> None:
    pair = {"username": "ann", "password": SECRET}
    assert sent({"ghcr.io": {"auth": PAIR}}, "ghcr.io") == {"serveraddress": "ghcr.io", **pair}
    assert sent({"ghcr.io": pair}, "ghcr.io") == {"serveraddress": "ghcr.io", **pair}
    hub = sent({"https://index.docker.io/v1/": pair}, "docker.io")
    assert hub == {"serveraddress": "https://index.docker.io/v1/", **pair}
    token = sent({"ghcr.io": {"auth": PAIR, "identitytoken": "t"}}, "ghcr.io")
    assert token == {"serveraddress": "ghcr.io", "identitytoken": "t"}
    assert sent({"ghcr.io": {**pair, "email": "a@b.example"}}, "quay.io") == {}


def test_a_password_may_have_colons_and_what_docker_pads() -> None:
    auth = base64.b64encode(b"ann:a:b\0\0").decode()
    assert sent({"ghcr.io": {"auth": auth}}, "ghcr.io")["password"] == "a:b"


def test_what_docker_keeps_beside_is_left_alone() -> None:
    hub = "https://index.docker.io/v1/"
    auths = {hub: {"auth": PAIR}, f"{hub}access-token": {}, f"{hub}refresh-token": {"auth": "x"}}
    told = read_auth(json.dumps({"auths": auths, "HttpHeaders": {}, "psFormat": "x"}), WHERE)
    assert told.hosts == {"docker.io"}
    assert read_auth("{}", WHERE).hosts == read_auth('{"credHelpers":{}}', WHERE).hosts == set()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "invalid", f"{WHERE}:1:1: that isn't JSON"),
        ('{"auths":\n {"a": hunter2-s3cr3t}}', "invalid", f"{WHERE}:2:8: that isn't JSON"),
        ("[" * 100_000, "invalid", f"{WHERE}: nested too deeply"),
        ("[]", "invalid", f"{WHERE}: it isn't an object"),
        ('{"auths": []}', "invalid", f"{WHERE}: auths isn't an object"),
        ('{"auths":{"a":{},"a":{}}}', "invalid", f"{WHERE}: a key is repeated"),
        (
            '{"credsStore": "pass"}',
            "helper",
            f"{WHERE}: credsStore asks for a helper program, and none runs in the broker",
        ),
        (
            '{"credHelpers": {"ghcr.io": "gh"}}',
            "helper",
            f"{WHERE}: credHelpers asks for a helper program, and none runs in the broker",
        ),
        ('{"auths":{"a.b":{}}}', "invalid", f"{WHERE}: there are no credentials for a.b"),
        ('{"auths":{"a.b":3}}', "invalid", f"{WHERE}: there are no credentials for a.b"),
        (
            f'{{"auths":{{"a.b":{{"pasword":"{SECRET}"}}}}}}',
            "invalid",
            f"{WHERE}: there are no credentials for a.b",
        ),
        (
            f'{{"auths":{{"a.b":{{"auth":"{SECRET}"}}}}}}',
            "invalid",
            f"{WHERE}: auth of a.b isn't USERNAME:PASSWORD in base64",
        ),
        (
            f'{{"auths":{{"quay.io/{SECRET}":{{"auth":"{PAIR}"}}}}}}',
            "invalid",
            f"{WHERE}: a key of auths doesn't name a registry alone",
        ),
        (
            f'{{"auths":{{"{SECRET} ":{{"auth":"{PAIR}"}}}}}}',
            "invalid",
            f"{WHERE}: a key of auths doesn't name a registry alone",
        ),
        (
            (
                f'{{"auths":{{"docker.io":{{"auth":"{PAIR}"}},'
                f'"index.docker.io":{{"identitytoken":"{SECRET}"}}}}}}'
            ),
            "invalid",
            f"{WHERE}: auths names docker.io twice, differently",
        ),
    ],
)
def test_an_unusable_value_is_refused_and_not_repeated(text: str, code: str, message: str) -> None:
    with pytest.raises(CredentialsInvalid) as raised:
        read_auth(text, WHERE)
    error = raised.value
    assert (error.code, error.message) == (f"registry-auth.{code}", message)
    assert error.remedy
    assert SECRET not in str(error)
    assert error.__cause__ is None


def test_credentials_are_not_shown() -> None:
    told = read_auth(json.dumps({"auths": {"ghcr.io": {"auth": PAIR}}}), WHERE)
    assert repr(told) == "RegistryAuth()"
