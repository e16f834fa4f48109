"""Graphs of keys: cycles, paths, and orders along every edge."""

from hypothesis import given
from hypothesis import strategies as st

from controller.core.encoding.graph import cycles, reverse, shortest_path, topological_order, waves
from controller.model.names import Key, service_key

NAMES = "abcdefg"


def keys(text: str) -> list[Key]:
    return [service_key("default", name) for name in text.split()]


def graph(text: str) -> dict[Key, set[Key]]:
    """Read ``a: b c, b: c, c:``."""
    made = {}
    for entry in text.split(","):
        name, _, pointed = entry.partition(":")
        made[keys(name)[0]] = set(keys(pointed))
    return made


def join_names(found) -> str:
    return " ".join(key.name for key in found)


graphs = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES), max_size=3)).map(
    lambda drawn: {
        service_key("default", name): {service_key("default", other) for other in pointed}
        for name, pointed in drawn.items()
    }
)


def test_what_is_pointed_at_comes_first_and_else_the_name_decides():
    assert join_names(topological_order(graph("a: c, b:, c:, d: a"))) == "b c a d"
    assert join_names(topological_order(graph("a: nobody, b: b"))) == "a b"


def test_in_a_circle_the_first_by_name_goes_first():
    assert join_names(topological_order(graph("a: b, b: c, c: a, d: a"))) == "a c b d"


def test_dependents_are_in_an_earlier_wave():
    assert [join_names(wave) for wave in waves(graph("web: api db, api: db, db:, log:"))] == [
        "log web",
        "api",
        "db",
    ]
    assert waves({}) == ()


def test_rings_are_the_groups_that_lead_to_one_another():
    found = cycles(graph("a: b, b: a c, c: c, d: a, e: f, f: e"))
    assert sorted(join_names(sorted(ring)) for ring in found) == ["a b", "c", "e f"]


def test_the_way_is_the_shortest_one():
    there = graph("a: b c, b: c, c: a")
    assert join_names(shortest_path(there, *keys("a c"))) == "a c"
    assert join_names(shortest_path(there, *keys("b a"))) == "b c a"
    assert join_names(shortest_path(there, *keys("a a"))) == "a c a"
    assert shortest_path(graph("a: b, b:"), *keys("b a")) == ()


@given(graphs)
def test_every_edge_outside_of_a_circle_is_kept_by_order_and_waves(drawn):
    circles = cycles(drawn)
    order, groups = topological_order(drawn), waves(drawn)
    place = {key: number for number, key in enumerate(order)}
    wave = {key: number for number, group in enumerate(groups) for key in group}
    assert sorted(order) == sorted(drawn) == sorted(wave)
    for key, pointed in drawn.items():
        for other in pointed & drawn.keys():
            if not circles:
                assert place[other] < place[key]
                assert wave[key] < wave[other]


@given(graphs)
def test_a_key_is_in_a_ring_exactly_if_a_way_leads_back_to_it(drawn):
    ringed = [key for ring in cycles(drawn) for key in ring]
    assert len(ringed) == len(set(ringed))
    for key in drawn:
        inside = {k: pointed & drawn.keys() for k, pointed in drawn.items()}
        assert (key in ringed) == bool(shortest_path(inside, key, key))


@given(graphs)
def test_turning_twice_changes_nothing_but_what_points_outside(drawn):
    inside = {key: pointed & drawn.keys() for key, pointed in drawn.items()}
    assert reverse(reverse(drawn)) == inside


def test_a_chain_of_ten_thousand_needs_no_recursion():
    names = [service_key("default", f"s{number:05}") for number in range(10_000)]
    chain = {key: {after} for key, after in zip(names, [*names[1:], names[0]], strict=True)}
    (ring,) = cycles(chain)
    assert len(ring) == 10_000
    chain[names[-1]] = set()
    assert cycles(chain) == ()
    assert topological_order(chain) == names[::-1]
