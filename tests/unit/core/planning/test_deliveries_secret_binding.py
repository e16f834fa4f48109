"""Secrets in the desired state: contents by the broker, and no replacement without them."""

from __future__ import annotations

from dataclasses import replace

from controller.core.manifests.check_together import desired_of
from controller.core.planning.deliveries import HostSecrets, SecretFault, bind_secrets
from controller.model.desired.desired import Desired
from controller.model.errors import Problem, Severity
from controller.model.names import Key

DB = Key("Secret", "default", "db")
WEB = Key("Service", "default", "web")
OTHER = Key("Service", "default", "other")


def desired(on_change: str = "") -> Desired:
    head = "apiVersion: trimtab/v1\n"
    service = "metadata: {name: NAME, owner: team}\nspec: {image: a.test/web:1.0"
    mount = f", mounts: [{{type: secret, source: db, target: /run/db{on_change}}}]}}\n"
    found = desired_of(
        {
            "db.yaml": f"{head}kind: Secret\nmetadata: {{name: db, owner: team}}\nspec: {{generate: {{pw: {{}}}}}}\n",
            "web.yaml": f"{head}kind: Service\n{service.replace('NAME', 'web')}{mount}",
            "other.yaml": f"{head}kind: Service\n{service.replace('NAME', 'other')}}}\n",
        }
    )
    assert found.problems == ()
    return found


def test_a_known_content_is_part_of_the_revision() -> None:
    one, two = (bind_secrets(desired(), {DB: f"hmac:{digit * 64}"}) for digit in "12")
    first, second = ({s.key: s for s in each.services} for each in (one, two))
    assert first[WEB].deliveries[0].content == f"hmac:{'1' * 64}"
    assert first[WEB].revision != second[WEB].revision
    assert first[OTHER] == second[OTHER]
    assert one.digest != two.digest
    assert [secret.content for secret in one.secrets] == [f"hmac:{'1' * 64}"]
    assert (one.problems, one.blind_keys) == ((), frozenset())


def test_a_content_that_changes_in_place_is_not_part_of_the_revision() -> None:
    one, two = (
        bind_secrets(desired(", onChange: None"), {DB: f"hmac:{digit * 64}"}) for digit in "12"
    )
    assert [s.revision for s in one.services] == [s.revision for s in two.services]
    assert one.digest != two.digest


def test_an_unknown_content_leaves_its_services_as_they_are() -> None:
    fault = SecretFault("secret.wrong-key", "not for this key", "encrypt it again")
    for contents, code in (({DB: fault}, "secret.wrong-key"), ({}, "secret.unknown")):
        found = bind_secrets(desired(), contents)
        assert [service.key for service in found.services] == [OTHER]
        assert found.blind_keys == {WEB, DB}
        (problem,) = found.problems
        assert (problem.code, problem.file, problem.key) == (code, "db.yaml", DB)
        assert problem.remedy


def test_a_file_that_was_copied_for_a_secret_needs_no_warning() -> None:
    warning = Problem("compose.secret-copy", "copy it", severity=Severity.WARNING, key=DB)
    other = replace(warning, key=Key("Secret", "default", "other"))
    found = replace(desired(), problems=(warning, other))
    assert bind_secrets(found, {DB: f"hmac:{'1' * 64}"}).problems == (other,)
    assert warning in bind_secrets(found, {}).problems


def test_a_state_without_secrets_is_left_alone() -> None:
    plain = desired_of({})
    assert bind_secrets(plain, {}) is plain


def test_services_with_secrets_boot_in_order_where_nothing_restores_the_secrets() -> None:
    contents = {DB: f"hmac:{'1' * 64}"}
    restored = bind_secrets(desired(), contents)
    late = bind_secrets(desired(), contents, restored_at_boot=False)
    assert {s.key for s in late.services if s.is_boot_ordered} == {WEB}
    assert not any(s.is_boot_ordered for s in restored.services)
    assert late.digest == restored.digest
    assert [s.revision for s in late.services] == [s.revision for s in restored.services]


CONTENT = f"hmac:{'1' * 64}"


def test_a_source_that_the_host_opened_has_its_content_and_a_changed_one_has_its_own() -> None:
    host = HostSecrets.of(bind_secrets(desired(), {DB: CONTENT}), restored_at_boot=False)
    planned = host.bind(desired())
    (delivery,) = planned.services[1].deliveries
    assert (delivery.content, delivery.is_unopened) == (CONTENT, False)
    assert planned == bind_secrets(desired(), {DB: CONTENT}, restored_at_boot=False)
    (secret,) = desired().secrets
    other = replace(desired(), secrets=(replace(secret, digest="another"),))
    changed = host.bind(other)
    (delivery,) = changed.services[1].deliveries
    assert delivery.is_unopened
    assert changed.problems == ()
    assert changed.services[1].revision != planned.services[1].revision
    assert host.bind(other) == changed


def test_a_source_that_the_host_can_not_open_leaves_its_services_as_they_are() -> None:
    host = HostSecrets.of(bind_secrets(desired(), {}), restored_at_boot=True)
    planned = host.bind(desired())
    assert planned.blind_keys == {WEB, DB}
    assert [problem.code for problem in planned.problems] == ["secret.unknown"]
