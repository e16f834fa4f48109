"""Conflicts of claims: found without comparing all pairs, and the same ones."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.manifests.object_checks import ResourceClaim, find_conflicts
from controller.model.observed import HostPort
from tests.examples import examples

ADDRESSES = ("0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1", "0:0::1")
ports = st.builds(lambda address: ResourceClaim(HostPort(address, 80)), st.sampled_from(ADDRESSES))
volumes = st.builds(
    lambda exclusive: ResourceClaim("data", exclusive=exclusive), exclusive=st.booleans()
)


@settings(max_examples=examples(200))
@given(st.one_of(st.lists(ports, max_size=9), st.lists(volumes, max_size=9)))
def test_the_first_conflicting_claim_is_that_of_a_comparison_of_all_pairs(
    claims: list[ResourceClaim],
) -> None:
    expected = []
    for index, claim in enumerate(claims):
        others = (
            at for at, other in enumerate(claims) if other is not claim and claim.conflicts(other)
        )
        if (first := next(others, None)) is not None:
            expected.append((index, first))
    assert [*find_conflicts(claims)] == expected
