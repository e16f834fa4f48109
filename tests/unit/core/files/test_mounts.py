"""Mounts of Configs: their mistakes, their variants, and what they add to a revision."""

from __future__ import annotations

import pytest

from controller.core.manifests.check_together import desired_of
from controller.model.delivery import Variant

CONFIG = """\
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, owner: team}
spec: {data: {a.html: A, b.html: B}}
---
"""
SERVICE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: OWNER}
spec:
  image: web:1
  mounts: [{type: config, source: site, target: /srvREST}]
"""


def resolved(rest: str = "", *, config: str = CONFIG, owner: str = "team", spec: str = ""):
    text = SERVICE.replace("REST", rest).replace("OWNER", owner)
    return desired_of({"f.yaml": config + text + spec})


def test_the_revision_follows_the_content():
    one, other = resolved(), resolved(config=CONFIG.replace("b.html: B", "b.html: C"))
    assert not one.problems
    assert one.services[0].revision != other.services[0].revision
    assert one.digest != other.digest


def test_a_content_that_changes_in_place_is_no_part_of_the_revision():
    stable = ", onChange: {signal: SIGHUP}"
    one, other = resolved(stable), resolved(stable, config=CONFIG.replace("b.html: B", "b.html: C"))
    assert one.services[0].revision == other.services[0].revision
    assert one.services[0].deliveries[0].signal == "SIGHUP"
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("rest", "spec", "variant"),
    [
        ("", "", Variant(0, 0, 0o444)),
        ("", '  user: "1000:100"\n', Variant(1000, 100, 0o400)),
        ("", '  user: "1000"\n', Variant(1000, 0, 0o400)),
        ("", "  user: nginx\n", Variant(0, 0, 0o444)),
        (", uid: 5, gid: 6", "  user: nginx\n", Variant(5, 6, 0o400)),
        (', mode: "0440"', '  user: "7:8"\n', Variant(7, 8, 0o440)),
        (", keys: [b.html]", "", Variant(0, 0, 0o444, ("b.html",))),
    ],
)
def test_files_belong_to_the_numeric_user_unless_the_mount_says_otherwise(rest, spec, variant):
    (delivery,) = resolved(rest, spec=spec).services[0].deliveries
    assert delivery.variant == variant


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"config": ""}, "config.undeclared: Config/default/site is not declared"),
        (
            {"config": CONFIG.replace("{data: {", "{dat: {")},
            "config.broken: the document of Config/def",
        ),
        ({"owner": "other"}, "config.owner: Config/default/site belongs to team"),
        ({"rest": ", keys: [c.html]"}, 'config.key: Config/default/site has no file "c.html"'),
        ({"rest": ", key: c.html"}, 'config.key: Config/default/site has no file "c.html"'),
    ],
)
def test_a_mount_without_a_content_blinds_the_service_alone(change, problem):
    desired = resolved(**change)
    texts = [f"{p.code}: {p.message}" for p in desired.problems]
    assert any(text.startswith(problem) for text in texts), texts
    assert "Service/default/web" in {str(key) for key in desired.blind_keys}
    assert all(p.remedy for p in desired.problems)


@pytest.mark.parametrize(
    "rest",
    [
        ", key: a.html, keys: [a.html]",
        ", key: a.html, onChange: None",
        ", onChange: Reload",
        ", onChange: {signal: HUP}",
        ', mode: "400"',
        ', mode: "0000"',
        ", uid: -1",
        ", keys: []",
        ", key: ../a",
        ", readOnly: false",
    ],
)
def test_a_wrong_member_is_refused(rest):
    desired = resolved(rest)
    assert [p.key and str(p.key) for p in desired.problems] == ["Service/default/web"]


SECRET = """\
apiVersion: trimtab/v1
kind: Secret
metadata: {name: db, owner: team}
spec: {generate: {url: {length: 32}}}
---
"""
WITH_VARIABLE = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: OWNER}
spec:
  image: web:1
  env: {LEVEL: info, URL: {REFERENCE}}
"""


def with_variable(reference="secret: db, key: url", owner="team"):
    text = WITH_VARIABLE.replace("REFERENCE", reference).replace("OWNER", owner)
    return desired_of({"f.yaml": SECRET + text})


def test_a_variable_of_a_secret_is_a_delivery_with_a_warning():
    desired = with_variable()
    (service,) = desired.services
    (delivery,) = service.deliveries
    assert (delivery.kind, delivery.name, delivery.key) == ("secret", "db", "url")
    assert (delivery.variable, delivery.target) == ("URL", "")
    assert service.spec.texts_of_env == {"LEVEL": "info"}
    assert [(p.code, p.severity.value) for p in desired.problems] == [("env.secret", "warning")]


@pytest.mark.parametrize(
    ("reference", "owner", "code"),
    [
        ("secret: other, key: url", "team", "secret.undeclared"),
        ("secret: db, key: nothing", "team", "secret.key"),
        ("secret: db, key: url", "others", "secret.owner"),
        ("secret: DB, key: url", "team", "secret.name"),
        ("secret: db", "team", "field.missing"),
        ("secret: db, key: ../url", "team", "field.value"),
        ("secret: db, key: url, mode: 1", "team", "field.unknown"),
    ],
)
def test_a_variable_without_a_usable_value_is_a_problem(reference, owner, code):
    errors = [p for p in with_variable(reference, owner).problems if p.severity.value == "error"]
    assert [p.code for p in errors] == [code]
    assert errors[0].line == 11
