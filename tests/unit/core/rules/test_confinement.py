"""What a container is admitted as for good: recorded with its create, and read back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from controller.broker.gate import redact
from controller.core.encoding.json_values import canonical
from controller.core.rules.confinement import confinement_from_json, confinement_to_json, data_path
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.host_paths import PathFacts
from tests.unit.core.creates import FACTS, denials, image_of, judged, policy

BIG = 2**63 - 1
CONFINED = Confinement(
    capabilities=("CHOWN", "SETUID"),
    read_only_root=True,
    non_root=True,
    private_cgroup=True,
    shm=BIG,
    runtime="runc",
    mounts=(
        ExpectedMount(
            "bind", "/a", "/srv/a", read_only=True, device=BIG, inode=BIG, place="/a b/ä"
        ),
        ExpectedMount("volume", "/b", "store", subpath="x/y", device=1, inode=2),
        ExpectedMount("tmpfs", "/c", size=BIG),
        ExpectedMount("volume", "/d"),
    ),
)


def through_the_journal(confinement: Confinement) -> Confinement | None:
    """Return what is read of a record: redacted, canonical, and folded."""
    told = redact.summary({"confined": confinement_to_json(confinement)})
    return confinement_from_json(json.loads(canonical(told))["confined"])


def test_what_is_recorded_reads_back_the_same() -> None:
    assert through_the_journal(CONFINED) == CONFINED
    assert through_the_journal(Confinement()) == Confinement()


def test_as_many_mounts_as_a_policy_may_admit_fit() -> None:
    mounts = tuple(ExpectedMount("bind", f"/t{number}", "/s" * 200) for number in range(120))
    assert through_the_journal(Confinement(mounts=mounts)) == Confinement(mounts=mounts)


def test_what_the_journal_would_cut_or_escape_is_not_recorded_at_all() -> None:
    """A half of it would make a violation of what is as it was admitted."""
    for text in ("/x" * 300, "/a\u200bb", "/a\nb"):
        for name in ("target", "source", "subpath", "place"):
            other: dict[str, Any] = {name: text}
            mount = replace(ExpectedMount("bind", "/a"), **other)
            assert confinement_to_json(Confinement(mounts=(mount,))) is None


def test_an_older_record_has_none() -> None:
    assert confinement_from_json(None) is None


def test_a_volumes_data() -> None:
    assert data_path("/var/lib/docker/volumes", "store") == "/var/lib/docker/volumes/store/_data"
    assert data_path("/var/lib/docker/volumes", "") == ""


def test_a_create_records_the_identity_of_what_it_mounts() -> None:
    source, data = "/var/lib/platform/x", "/var/lib/docker/volumes/alice-data/_data"
    paths = {
        source: PathFacts(source, "dir", device=8, inode=7, place="/platform/x"),
        data: PathFacts(data, "dir", device=8, inode=9, place="/v/_data", protected="engine-data"),
    }
    image = image_of(Volumes=("/cache", "/store"))
    modes = {"volume.anonymous": "audit"}  # so that the engine makes a volume without a name
    rules = policy(modes=modes, security={"requireNonRoot": True})
    admission = judged(
        {"User": "1000"},
        host={
            "Binds": [f"{source}:/data:ro", "alice-data:/store"],
            "Tmpfs": {"/scratch": "size=1m"},
            "CapAdd": ["CAP_CHOWN"],
            "ReadonlyRootfs": True,
            "CgroupnsMode": "private",
            "ShmSize": 1024**2,
        },
        rules=rules,
        facts=replace(FACTS, paths=paths, image=image),
    )
    assert denials(admission) == ()
    assert confinement_from_json(admission.summary["confined"]) == Confinement(
        capabilities=("CHOWN",),
        read_only_root=True,
        non_root=True,
        user="1000:1000",
        private_cgroup=True,
        shm=1024**2,
        mounts=(
            ExpectedMount(
                "bind", "/data", source, read_only=True, device=8, inode=7, place="/platform/x"
            ),
            ExpectedMount("volume", "/store", "alice-data", device=8, inode=9, place="/v/_data"),
            ExpectedMount("tmpfs", "/scratch", size=1024**2),
            ExpectedMount("volume", "/cache"),
        ),
    )
