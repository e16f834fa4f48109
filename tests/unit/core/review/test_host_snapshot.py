"""Snapshots of a host: whole for a plan, and without any value that can be secret."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.manifests.check_together import desired_of
from controller.core.manifests.revision_hash import slot_text
from controller.core.planning.deliveries import HostSecrets, bind_secrets
from controller.core.review.field_changes import SHOWN, content_changes, slot_changes
from controller.core.review.host_snapshot import (
    HIDDEN,
    HostSnapshot,
    find_source,
    from_text,
    hide,
    only_of,
    to_json,
)
from controller.core.review.plan_json import change_text
from controller.core.service import history
from controller.core.service.overrides import slots_of
from controller.model.delivery import FileSet, MountedFiles, StoredContent, StoredFiles
from controller.model.desired.desired import Desired, Overrides, Revision
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import UsageError
from controller.model.names import Key, job_key
from controller.model.observed import (
    Container,
    ContainerState,
    HostPort,
    JobMemory,
    JobOccasion,
    JobRun,
    Observed,
    Settings,
)
from tests.examples import examples

SECRET = "hunter2"
DOCUMENT = f"""
apiVersion: trimtab/v1
kind: Service
metadata: {{name: web, owner: web}}
spec:
  image: web:1
  entrypoint: [run, {SECRET}]
  command: [--password={SECRET}]
  env: {{TOKEN: {SECRET}, LEVEL: info}}
  containerLabels: {{note: {SECRET}}}
  healthcheck: {{exec: [check, {SECRET}]}}
"""
KEY = Key("Service", "default", "web")
SERVICE = desired_of({"web.yaml": DOCUMENT}).services[0]
REVISION = Revision(
    revision=SERVICE.revision,
    generation=1,
    since="2026-01-01T00:00:00Z",
    owner="web",
    image="web:1",
    spec=slot_text(SERVICE.spec),
    source=SERVICE.source,
    reason=f"failed: {SECRET}",
)
CONTAINER = Container(
    *("0" * 64, KEY, 1, SERVICE.revision, "web", "controller", "i", "web:1", "sha256:0"),
    ContainerState.RUNNING,
    Settings("web.1", networks=("platform-network",)),
    Settings("web.1"),
    error=f"exec: {SECRET}",
    check_output=f"refused: {SECRET}",
    aliases=(("platform-network", ("web",)),),
)
SOURCE = desired_of(
    {
        "team.yaml": "apiVersion: trimtab/v1\nkind: Source\nmetadata: {name: team, owner: team}\n"
        "spec: {git: {url: 'file:///srv/deploy.git', interval: 90s}, namespaces: [default]}\n"
    }
).sources[0]
#: A container whose service moved here under another name.
MOVED = replace(CONTAINER, id="1" * 64, key=Key("Service", "shop", "api"), former="web")
JOB = job_key("default", "backup")
MEMORY = JobMemory(
    last=1,
    runs=(JobRun(1, SERVICE.revision, "change", "2" * 64, "2026-01-01T00:00:00Z"),),
    occasions=(JobOccasion(SERVICE.revision, "change", runs=1, last=1),),
)
SNAPSHOT = HostSnapshot(
    host="host",
    taken="2026-01-01T00:00:00Z",
    observed=Observed(
        instance="a" * 16,
        containers=(CONTAINER, MOVED),
        images={"web:1": None},
        listening=frozenset({HostPort("0.0.0.0", 80)}),
        jobs={JOB: MEMORY},
    ),
    policy={"digest": "d"},
    state={
        "version": 1,
        "slots": [[str(KEY), 1, {"count": 1, "cause": SECRET}, None]],
        "courses": {str(KEY): {"failed": SECRET}},
        "steerings": {str(KEY): history.FORM.to_json(Overrides((REVISION,)))},
    },
    sources=(SOURCE,),
)


def test_a_snapshot_has_no_value_that_can_be_secret() -> None:
    assert SECRET in SERVICE.source.text
    assert SECRET not in json.dumps(to_json(SNAPSHOT))


def test_every_field_of_a_service_is_shown_or_hidden() -> None:
    """A new field of ServiceSpec that is in neither list fails here."""
    empty = ServiceSpec(image="web:1")
    shown = {change.path for change in slot_changes(empty, SERVICE.spec, reveal=True)}
    hidden = {change.path for change in slot_changes(SERVICE.spec, hide(SERVICE.spec))}
    assert hidden <= shown
    secret = {path.split("[")[0].split(".env")[0] for path in shown - hidden}
    assert {path for path in secret if path.removeprefix("spec.") not in SHOWN} == set()


def test_what_was_observed_comes_back() -> None:
    again = from_text(json.dumps(to_json(SNAPSHOT)))
    assert again.observed == _without_errors(SNAPSHOT.observed)
    assert again.is_hidden
    assert [each.spec for each in again.sources] == [SOURCE.spec]


def _without_errors(observed: Observed) -> Observed:
    containers = tuple(replace(each, error="", check_output="") for each in observed.containers)
    return replace(observed, containers=containers)


def test_keys_are_written_as_text() -> None:
    """Snapshots are exchanged between versions of trimtab: another form needs another version."""
    written = json.loads(json.dumps(to_json(SNAPSHOT)))
    keys = [each["key"] for each in written["observed"]["containers"]]
    assert written["version"] == 1
    assert keys == ["Service/default/web", "Service/shop/api"]
    assert [*written["observed"]["jobs"]] == ["Job/default/backup"]


_NAMES = st.text("abc-09", min_size=1, max_size=5)
_KEYS = st.builds(Key, st.sampled_from(["Service", "Job"]), _NAMES, _NAMES)
_OBSERVED = st.builds(
    Observed,
    containers=st.lists(st.builds(Container, key=_KEYS), max_size=3).map(tuple),
    jobs=st.dictionaries(_KEYS, st.from_type(JobMemory), max_size=3),
)


@given(_OBSERVED)
@settings(max_examples=examples(20))
def test_every_observation_comes_back(observed: Observed) -> None:
    text = json.dumps(to_json(replace(SNAPSHOT, observed=observed)))
    assert from_text(text).observed == _without_errors(observed)


@pytest.mark.parametrize("key", [None, 7, "shop", [], ["a"], {}, {"kind": 1}, [*KEY, "more"]])
def test_another_key_is_refused(key: object) -> None:
    whole = json.loads(json.dumps(to_json(SNAPSHOT)))
    whole["observed"]["containers"][0]["key"] = key
    with pytest.raises(UsageError) as caught:
        from_text(json.dumps(whole))
    assert caught.value.code == "snapshot.damaged"


def test_an_earlier_revision_is_compared_without_its_values() -> None:
    state = from_text(json.dumps(to_json(SNAPSHOT))).state
    overrides = history.FORM.from_json(state["steerings"][str(KEY)])
    earlier = slots_of(overrides.revisions[0], SERVICE)
    assert earlier is not None
    assert earlier.revision == SERVICE.revision
    assert dict(earlier.spec.env) == {"TOKEN": HIDDEN, "LEVEL": HIDDEN}
    assert slot_changes(earlier.spec, hide(SERVICE.spec)) == ()


def test_a_kept_revision_must_hash_to_its_id() -> None:
    other = replace(REVISION, spec=slot_text(hide(SERVICE.spec)))
    assert slots_of(other, SERVICE) is None


def _without(name: str) -> dict[str, Any]:
    whole = to_json(SNAPSHOT)
    return {key: value for key, value in whole.items() if key != name}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 10_000, json.dumps(_without("observed")), json.dumps(_without("state"))],
)
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_text(text)
    assert caught.value.code == "snapshot.damaged"


def test_another_version_is_named() -> None:
    with pytest.raises(UsageError, match="version 9"):
        from_text(json.dumps({**to_json(SNAPSHOT), "version": 9}))


def test_a_source_is_found_by_its_name() -> None:
    assert find_source(SNAPSHOT, "team") == SOURCE
    with pytest.raises(UsageError) as caught:
        find_source(SNAPSHOT, "other")
    assert caught.value.remedy == "name one of its Sources: team"


def test_what_belongs_to_others_is_left_out() -> None:
    others = [replace(CONTAINER, key=Key("Service", "shop", "web")), CONTAINER]
    observed = replace(SNAPSHOT.observed, containers=tuple(others))
    assert only_of(observed, SOURCE, {}).containers == (CONTAINER,)
    assert only_of(observed, SOURCE, {KEY: ""}).containers == ()
    assert only_of(observed, SOURCE, {KEY: "team"}).containers == (CONTAINER,)


# Secrets

DB = Key("Secret", "default", "db")
#: A keyed digest of the plain text, and that of an earlier plain text.
CONTENT, EARLIER = (f"hmac:{digit * 64}" for digit in "ab")


def with_secret(*, image: str = "web:1", generate: str = "pw", extra: str = "") -> Desired:
    head = "apiVersion: trimtab/v1\n"
    found = desired_of(
        {
            "db.yaml": f"{head}kind: Secret\nmetadata: {{name: db, owner: team}}\n"
            f"spec: {{generate: {{{generate}: {{}}}}}}\n",
            "web.yaml": f"{head}kind: Service\nmetadata: {{name: web, owner: team}}\nspec:\n"
            f"  image: {image}\n  mounts: [{{type: secret, source: db, target: /run/db{extra}}}]\n",
        }
    )
    assert found.problems == ()
    return found


def snapshot_of(on_host: Desired, content: str = CONTENT) -> HostSnapshot:
    """Return the snapshot of a host on which *on_host* runs, with another content before."""
    bound = bind_secrets(on_host, {DB: content})
    (service,) = bound.services
    (delivery,) = service.deliveries
    container = replace(
        CONTAINER,
        revision=service.revision,
        files=(MountedFiles("secret", "db", content, delivery.target),),
    )
    kept = [
        replace(
            REVISION,
            revision=each.revision,
            owner="team",
            spec=slot_text(each.spec),
            deliveries=each.deliveries,
        )
        for known in (EARLIER, content)
        for each in bind_secrets(on_host, {DB: known}).services
    ]
    files = FileSet("secret", "default", "db")
    stored = StoredFiles(files, tuple(StoredContent(each, "team") for each in (EARLIER, content)))
    return replace(
        SNAPSHOT,
        observed=replace(SNAPSHOT.observed, containers=(container,), files={str(files): stored}),
        state={"steerings": {str(KEY): history.FORM.to_json(Overrides(tuple(kept)))}},
        secrets=HostSecrets.of(bound, restored_at_boot=True),
        workloads=bound.workloads,
    )


def read_secrets(snapshot: HostSnapshot) -> HostSecrets:
    return from_text(json.dumps(to_json(snapshot))).secrets


def test_a_snapshot_has_no_digest_of_a_plain_text() -> None:
    """Not even a keyed one: two hosts with other keys and plain texts have the same numbers."""
    one, two = snapshot_of(with_secret()), snapshot_of(with_secret(), f"hmac:{'c' * 64}")
    written = json.dumps(to_json(one))
    assert not {text for text in (CONTENT, EARLIER) if text[:20] in written}
    first, second = to_json(one), to_json(two)
    assert first["secrets"] != second["secrets"], "the host's revisions differ"
    assert first["observed"]["files"] == second["observed"]["files"]  # type: ignore[index]


def test_an_unchanged_secret_of_a_snapshot_has_the_revision_of_the_host() -> None:
    snapshot = snapshot_of(with_secret())
    read = from_text(json.dumps(to_json(snapshot)))
    (service,) = read.secrets.bind(with_secret()).services
    (container,) = read.observed.containers
    assert service.revision == container.revision
    assert [each.content for each in service.deliveries] == [c.content for c in container.files]
    (stored,) = read.observed.files.values()
    assert stored.current == service.deliveries[0].content


def test_a_changed_image_beside_an_unchanged_secret_is_the_only_change() -> None:
    (before,) = read_secrets(snapshot_of(with_secret())).bind(with_secret()).services
    (after,) = read_secrets(snapshot_of(with_secret())).bind(with_secret(image="web:2")).services
    assert content_changes(before, after) == ()
    assert [each.path for each in slot_changes(before.spec, after.spec)] == ["spec.image"]
    assert before.revision != after.revision


def test_a_changed_source_is_a_change_of_an_unknown_value() -> None:
    host = read_secrets(snapshot_of(with_secret()))
    (before,) = host.bind(with_secret()).services
    (after,) = host.bind(with_secret(generate="other")).services
    (change,) = content_changes(before, after)
    assert change_text(change) == "spec.mounts[/run/db].content: changed, value unknown"
