"""The cost of documents grows no faster than their size: a share of all places, and drawn ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from controller.core.manifests import check_together
from controller.core.manifests.object_checks import ResourceClaim
from controller.core.proofs.render import render
from controller.core.yaml.source_excerpt import excerpt
from tests.examples import examples
from tests.growth import LINEAR
from tests.unit.core.proofs.document_cost import BOUNDED, SCOPE, SEED, growths
from tests.unit.core.proofs.document_places import all_places, drawn, file

pytestmark = pytest.mark.slow

SIZE = 64
#: `make fuzz KIND=documents` measures every place, and each run these: places that once grew faster.
ALWAYS = (
    *("one port, many addresses", "one volume, shared", "one with the ports of all others"),
    "networks",
)
EVERY = 120


def test_the_cost_of_documents_grows_no_faster_than_their_size() -> None:
    places = [place for place in all_places() if place.name not in BOUNDED]
    some = [place for place in places if place.name in ALWAYS]
    some += [*places[::EVERY], *(drawn(number, SEED) for number in range(examples(15)))]
    assert [str(each) for each in growths(some, SIZE) if each.factor > LINEAR] == []


def test_a_comparison_of_all_pairs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def pairwise(claims: Sequence[ResourceClaim]) -> Iterator[tuple[int, int]]:
        for index, claim in enumerate(claims):
            for at, other in enumerate(claims):
                if other is not claim and claim.conflicts(other):
                    yield index, at
                    break

    monkeypatch.setattr(check_together, "find_conflicts", pairwise)
    places = [place for place in all_places() if place.name == ALWAYS[0]]
    assert [each.factor > LINEAR for each in growths(places, SIZE // 4)] == [True]


def test_the_patterns_of_broken_projects_and_of_excerpts_do_not_backtrack() -> None:
    """With backtracking, each takes more than an hour."""
    broken = "include: [a\nservices: {a: {image: b}}\nx: " + ".yam" * 200_000
    assert render(file(broken, "compose.yaml"), SCOPE)["entries"] == {}
    assert len(excerpt("a: [\n" + "-" * 900_000, 2, 1, width=80)) == 2
