"""What happens to repositories, and what a fetcher then serves: real repositories, real git."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.core.git.commit_objects import DetachedSignature
from controller.fetch.verify import Verifier, read_keys
from controller.model.desired.source_spec import SourceSpec
from controller.model.sources import CommitSignature
from tests.git.happenings import HAPPENINGS, MESSAGES
from tests.git.places import Happening, Place, Surroundings, open_place
from tests.git.repository import Followed


class PlaceSource(Followed):
    """The source that follows a place's repository."""

    place: Place | None = None

    @property
    def spec(self) -> SourceSpec:
        if self.place is None:
            return super().spec
        return SourceSpec.model_validate_json(json.dumps(self.place.spec()))


@contextmanager
def followed(happening: Happening, folder: Path) -> Iterator[tuple[Place, PlaceSource]]:
    """Make a repository, and a source that serves its first commit."""
    fetcher = folder / "fetcher"
    around = Surroundings(folder, fetcher / "git" / "team", folder / "keys")

    def verify(_keys: str, signature: DetachedSignature | None) -> CommitSignature:
        found = read_keys(around.keys, owners=(os.getuid(),))
        now = time.clock_gettime(time.CLOCK_REALTIME)
        return Verifier(found, now=now, monotonic=time.monotonic).verify(signature)

    with open_place(happening, around) as place:
        source = PlaceSource(fetcher, place.url, limits=happening.limits, verify=verify)
        source.place = place
        assert source.fetch() == "Ready", source.memory.status.message
        place.served = source.current
        yield place, source


@pytest.mark.parametrize("name", HAPPENINGS)
def test_only_a_good_newer_commit_is_served(tmp_path: Path, name: str) -> None:
    happening = HAPPENINGS[name]
    with followed(happening, tmp_path) as (place, source):
        files = source.files()
        newest = happening.happen(place)
        assert source.fetch() == happening.outcome
        message = MESSAGES.get(happening.reason, "")
        assert re.search(message, source.message), source.message
        assert source.current == (newest if happening.moves else place.served)
        assert happening.moves or source.files() == files
        assert source.fetch() == happening.outcome  # also at the next try
