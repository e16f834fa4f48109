"""What a report says of Configs and Secrets: the content of the document, and the content of each slot."""

from __future__ import annotations

from dataclasses import replace

from controller.core.manifests.check_together import desired_of
from controller.core.status.facts import (
    FactsMemo,
    StatusInputs,
    all_facts,
    container_details,
    details_of,
)
from controller.model.delivery import MountedFiles
from controller.model.desired.plan import Plan
from controller.model.observed import Observed
from tests.worlds import NAMES, container

TEXT = """\
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, owner: team}
spec: {data: {b: B, a: A}}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, owner: team}
spec:
  image: web:1
  mounts: [{type: config, source: site, target: /srv, onChange: {signal: SIGHUP}}]
"""


def test_a_config_has_its_content_and_the_names_of_its_files() -> None:
    desired = desired_of({"f.yaml": TEXT})
    inputs = StatusInputs(desired, Observed("i"), Plan(), NAMES)
    (facts,) = (each for each in all_facts(inputs, FactsMemo()) if each.key.kind == "Config")
    assert facts.details == {
        "content": desired.configs[0].content,
        "files": ["a", "b"],
        "fileCount": 2,
    }


def test_a_secret_is_ready_once_its_content_is_known() -> None:
    text = (
        "apiVersion: trimtab/v1\nkind: Secret\nmetadata: {name: db, owner: team}\n"
        "spec: {generate: {password: {length: 24}}}\n"
    )
    desired = desired_of({"f.yaml": text})
    (unopened,) = desired.secrets
    opened = replace(desired, secrets=(replace(unopened, content="hmac:1"),))
    for given, ready, content in ((desired, 0, ""), (opened, 1, "hmac:1")):
        (facts,) = all_facts(StatusInputs(given, Observed("i"), Plan(), NAMES), FactsMemo())
        assert (facts.key, facts.ready, facts.details) == (
            unopened.key,
            ready,
            {"content": content},
        )


def test_a_mount_has_its_content_and_each_slot_the_one_that_its_container_sees() -> None:
    desired = desired_of({"f.yaml": TEXT})
    (web,) = desired.services
    assert details_of(web.spec, web.deliveries)["mounts"] == [
        {
            "type": "config",
            "source": "site",
            "target": "/srv",
            "content": web.deliveries[0].content,
            "onChange": "SIGHUP",
        }
    ]
    late = MountedFiles("config", "site", "sha256:old", "/srv", is_stable=True, shown="sha256:new")
    shown = container_details(replace(container(), files=(late,)))["files"]
    assert shown == [
        {"source": "config/site", "target": "/srv", "content": "sha256:new", "before": "sha256:old"}
    ]
