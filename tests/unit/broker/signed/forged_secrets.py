"""Forged acts of a usurped controller with Secrets: other ciphertexts, places, services and ages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from controller.model import names
from controller.model.records import Reply
from tests.unit.broker.signed.forged_acts import OPEN, Act, in_open, rolled_back_with
from tests.unit.broker.signed.forged_requests import ONCE, PLAIN, POOL, WEB, body_of
from tests.unit.broker.signed.instance import create_of, desired_of, prerequisites
from tests.unit.broker.signed.opened import armored
from tests.unit.broker.signed.rich import CIPHERTEXTS, RICH, RichInstance

PASSWORD = CIPHERTEXTS["PASSWORD}"]
SECOND = RICH.replace(PASSWORD, armored(b"second"))
THIRD = RICH.replace(PASSWORD, armored(b"third"))
EVIL = RICH.replace(PASSWORD, armored(b"evil"))
_SHOP = "/trimtab/v1/secrets/shop/"
_FILES = "/trimtab/v1/files/secret/shop/"


def source_of(name: str, text: str = RICH) -> dict[str, Any]:
    """Return the controller's question about a declared Secret."""
    (secret,) = (each for each in desired_of(text).secrets if each.key.name == name)
    return {"owner": secret.owner, "source": dict(secret.declared)}


def content_of(name: str, text: str = RICH) -> str:
    (secret,) = (each for each in desired_of(text).secrets if each.key.name == name)
    return secret.content


def secret_acts(text: str, name: str, **changes: object) -> tuple[tuple[str, Act], ...]:
    """Return the question and the delivery of a source under a name."""
    body = {**source_of(changes.pop("of", name), text), **changes}  # type: ignore[arg-type]
    return (
        (f"opened as {name}", lambda i: i.ask("POST", f"{_SHOP}{name}", body)),
        (f"delivered as {name}", lambda i: i.ask("PUT", f"{_FILES}{name}", body)),
    )


def after(*texts: str, then: Act) -> Act:
    def act(instance: RichInstance) -> Reply:
        for text in texts:
            instance.prepare(text)
        return then(instance)

    return act


def mounting(key: str, mount: Mapping[str, Any], **options: object) -> Act:
    """Return the create of a declared service or job with a mount of a Secret more."""

    def act(instance: RichInstance) -> Reply:
        honest = create_of(key, RICH)
        body = body_of(honest)
        more = {"ReadOnly": True, **mount, "Trimtab": {**mount["Trimtab"], **options}}
        body["HostConfig"].setdefault("Mounts", []).append(more)
        return instance.send(replace(honest, body=body))

    return act


def db_mount(target: str = "/run/more", content: str = "") -> dict[str, Any]:
    options = {"Content": content or content_of("db"), "Mode": 0o444}
    return {"Type": "secret", "Source": "db", "Target": target, "Trimtab": options}


def with_mounts(change: Callable[[dict[str, Any]], object], key: str = WEB) -> Act:
    """Return the create of a service with a change of its body."""

    def act(instance: RichInstance) -> Reply:
        honest = create_of(key, RICH)
        body = copy.deepcopy(body_of(honest))
        change(body)
        return instance.send(replace(honest, body=body))

    return act


def _db(body: dict[str, Any]) -> dict[str, Any]:
    mounts = body["HostConfig"]["Mounts"]
    return next(each for each in mounts if each.get("Source") == "db")


def unproven_content(instance: RichInstance) -> Reply:
    """Create a service with a content that was delivered before the requirement."""
    instance.require(signed=False)
    for request in prerequisites(EVIL):
        instance.send(request)
    instance.require(signed=True)
    return instance.send(create_of(WEB, EVIL))


def unstarted_content(instance: RichInstance) -> Reply:
    """Start a container with the Secret of a commit that another one replaced before the start."""
    reply = instance.send(create_of(WEB, RICH))
    assert reply.status == 201, reply.body
    (identifier,) = instance.inventory.containers
    instance.prepare(SECOND)
    return instance.ask("POST", f"/containers/{identifier}/start")


def older_than_ten(instance: RichInstance) -> Reply:
    """Mount the first of twelve values again."""
    texts = [RICH.replace(PASSWORD, armored(f"value {number}".encode())) for number in range(12)]
    for text in texts:
        instance.prepare(text)
        instance.take_down(instance.run(create_of(WEB, text)))
    pin = next(iter(instance.inventory.pins.values())).id
    return instance.send(create_of(WEB, texts[0], attempt=2, image=pin))


def changed_on_the_host(instance: RichInstance) -> Reply:
    """Mount the content of a host's file from before its change."""
    instance.opener.host["pw"] = b"rotated"
    instance.ask("POST", f"{_SHOP}host", source_of("host"))
    assert instance.upload(instance.repository.proof(instance.head)).status == 200
    return instance.send(create_of(POOL, RICH))


def _variable(text: str) -> Act:
    return with_mounts(lambda body: body.update(TrimtabEnv=[text]))


ACTS: tuple[tuple[str, Act], ...] = (
    *secret_acts(EVIL, "db"),
    *secret_acts(RICH, "db", of="other"),
    *secret_acts(RICH, "other", of="db"),
    *secret_acts(RICH, "spy", of="db"),
    *secret_acts(RICH, "db", owner="other"),
    *secret_acts(RICH, "host", source={"file": {"pw": "shadow"}}),
    *secret_acts(RICH, "host", source={"file": {"pw": "pw", "more": "pw"}}),
    *secret_acts(RICH, "made", source={"generate": {"token": 8}}),
    *secret_acts(RICH, "made", source={"generate": {"token": 24, "more": 24}}),
    *secret_acts(RICH, "db", source={"file": {"password": "pw"}}),
    *secret_acts(RICH, "db", source={"generate": {"password": 24}}),
    *((what, after(SECOND, then=act)) for what, act in secret_acts(RICH, "db")),
    ("a Secret that nothing mounts", secret_acts(RICH, "other")[1][1]),
    ("a Secret of lab", lambda i: i.ask("POST", "/trimtab/v1/secrets/lab/db", source_of("db"))),
    ("a Secret in a service without", mounting(PLAIN, db_mount())),
    ("a Secret in a job without", mounting(ONCE, db_mount())),
    ("the Secret of another service", mounting(POOL, db_mount())),
    ("a Secret twice", mounting(WEB, db_mount())),
    ("a Secret twice for everybody", mounting(WEB, db_mount(), Uid=0, Gid=0)),
    ("a Secret that stays", with_mounts(lambda b: _db(b)["Trimtab"].update(Stable=True))),
    ("a Secret elsewhere", with_mounts(lambda b: _db(b).update(Target="/srv"))),
    ("a Secret in the data", with_mounts(lambda b: _db(b).update(Target="/data/db"))),
    ("another Secret there", with_mounts(lambda b: _db(b).update(Source="other"))),
    (
        "another Secret with its content",
        with_mounts(
            lambda b: (
                _db(b)["Trimtab"].update(Content=content_of("tls")),
                _db(b).update(Source="tls"),
            )
        ),
    ),
    ("one file alone", with_mounts(lambda b: _db(b)["Trimtab"].update(Key="password"))),
    ("readable for all", with_mounts(lambda b: _db(b)["Trimtab"].update(Mode=0o444))),
    ("of another user", with_mounts(lambda b: _db(b)["Trimtab"].update(Uid=1))),
    ("of another group", with_mounts(lambda b: _db(b)["Trimtab"].update(Gid=1))),
    ("a Secret as a Config", with_mounts(lambda b: _db(b).update(Type="config"))),
    (
        "another content",
        with_mounts(lambda b: _db(b)["Trimtab"].update(Content=content_of("db", EVIL))),
    ),
    ("another variable", _variable(f"OTHER=db/password@{content_of('db')}")),
    ("another file in a variable", _variable(f"PASSWORD=tls/key@{content_of('tls')}")),
    ("another Secret in a variable", _variable(f"PASSWORD=other/password@{content_of('other')}")),
    ("another content in a variable", _variable(f"PASSWORD=db/password@{content_of('db', EVIL)}")),
    (
        "a variable more in a service without",
        with_mounts(
            lambda body: body.update(TrimtabEnv=[f"A=db/password@{content_of('db')}"]), key=PLAIN
        ),
    ),
    ("a value that never ran", after(SECOND, THIRD, then=lambda i: i.send(create_of(WEB, SECOND)))),
    ("a value that nobody signed", lambda i: i.send(create_of(WEB, EVIL))),
    ("a value from before the requirement", unproven_content),
    ("a value that was replaced before the start", unstarted_content),
    ("a value older than ten others", older_than_ten),
    ("a file of the host from before its change", changed_on_the_host),
    (
        "a rollback with another variable",
        rolled_back_with(TrimtabEnv=[f"MODE=db/password@{content_of('db')}"]),
    ),
    ("a Secret of shop in open", in_open(host={"Mounts": [db_mount()]})),
    (
        "a Secret of shop in open as shop",
        in_open(labels={names.NAMESPACE: "shop"}, host={"Mounts": [db_mount()]}),
    ),
    (
        "a value of shop in open",
        in_open(body={"TrimtabEnv": [f"A=db/password@{content_of('db')}"]}),
    ),
    (
        "a ciphertext of shop in open, as shop",
        lambda i: i.ask(
            "PUT", f"{_FILES}db", {**source_of("db", EVIL), "owner": OPEN[names.OWNER]}
        ),
    ),
)
