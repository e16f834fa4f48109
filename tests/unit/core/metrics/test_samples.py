from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.metrics.samples import (
    SAMPLE_S,
    SAMPLES_MAX,
    SERVICES_MAX,
    History,
    Running,
    Use,
    UseLook,
    next_look,
)
from controller.model.names import Key
from controller.model.observed import ContainerUse
from tests.examples import examples

WEB, API = Key("Service", "shop", "web"), Key("Service", "shop", "api")


def look(before: UseLook | None, at: float, **counted: tuple[Key, float, float]) -> UseLook:
    """Take a look; a container has its service, its start and its processor time."""
    running = tuple(Running(name, key, 1, began) for name, (key, began, _) in counted.items())
    used = {name: ContainerUse(cpu_s, 100, 2) for name, (_, _, cpu_s) in counted.items()}
    return next_look(before, running, used, known={WEB, API}, at=at)


def test_a_counter_begins_at_nothing_and_has_what_was_used_since() -> None:
    first = look(None, 100.0, a=(WEB, 0.0, 50.0))
    assert first.services == {WEB: Use(0.0, 100, 2, None)}
    second = look(first, 110.0, a=(WEB, 0.0, 55.0))
    assert second.services == {WEB: Use(5.0, 100, 2, 0.5)}
    assert second.containers == {"a": Use(55.0, 100, 2, 0.5)}


def test_a_counter_goes_on_while_containers_are_replaced_and_restarted() -> None:
    first = look(None, 100.0, a=(WEB, 0.0, 50.0))
    replaced = look(first, 110.0, b=(WEB, 105.0, 2.0))
    assert replaced.services[WEB].cpu_s == 2.0
    restarted = look(replaced, 120.0, b=(WEB, 115.0, 1.0))
    assert restarted.services[WEB].cpu_s == 3.0
    down = look(restarted, 130.0)
    assert down.services == {WEB: Use(3.0)}


def test_a_container_that_ran_unseen_counts_from_now_on() -> None:
    first = look(None, 100.0)
    adopted = look(first, 110.0, a=(WEB, 5.0, 5_000.0))
    assert adopted.services[WEB] == Use(0.0, 100, 2, None)


def test_an_unknown_service_is_forgotten() -> None:
    first = look(None, 100.0, a=(Key("Service", "gone", "x"), 0.0, 50.0))
    assert look(first, 110.0).services == {}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]), st.floats(0, 1e6, allow_nan=False), max_size=3
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=examples(80))
def test_a_counter_never_goes_back(rounds: list[dict[str, float]]) -> None:
    last, before, at = 0.0, None, 100.0
    for counted in rounds:
        before = look(before, at, **{name: (WEB, at, cpu) for name, cpu in counted.items()})
        at += 10.0
        now = before.services.get(WEB, Use(last)).cpu_s
        assert now >= last
        last = now


def test_an_hour_of_samples_is_kept_and_not_more_often_than_meant() -> None:
    history = History()
    for n in range(2 * SAMPLES_MAX):
        at = n * SAMPLE_S
        history.add(UseLook(at, services={WEB: Use(0.0, n, 1, 0.25)}))
        history.add(UseLook(at + 1, services={WEB: Use(0.0, -1, 1, 9.0)}))
    samples = history.samples_of(WEB)
    assert len(samples) == SAMPLES_MAX
    assert samples[-1] == (at, 0.25, 2 * SAMPLES_MAX - 1)
    assert samples[0][0] == at - (SAMPLES_MAX - 1) * SAMPLE_S


def test_samples_of_a_service_that_came_later_begin_with_it_and_end_with_it() -> None:
    history = History()
    history.add(UseLook(0.0, services={WEB: Use(0.0, 1)}))
    history.add(UseLook(10.0, services={WEB: Use(0.0, 1), API: Use(0.0, 2, 1, 0.5)}))
    assert history.samples_of(API) == ((10.0, 0.5, 2),)
    assert history.samples_of(WEB) == ((0.0, None, 1), (10.0, None, 1))
    history.add(UseLook(20.0, services={API: Use(0.0, 2)}))
    assert history.samples_of(WEB) == ()


def test_samples_from_before_the_last_hour_are_not_shown() -> None:
    history = History()
    history.add(UseLook(0.0, services={WEB: Use(0.0, 1)}))
    for at in (5000.0, 5010.0):  # nobody looked in between
        history.add(UseLook(at, services={WEB: Use(0.0, 2)}))
    assert [at for at, _, _ in history.samples_of(WEB)] == [5000.0, 5010.0]


def test_more_services_than_the_bound_keep_no_samples() -> None:
    history = History()
    many = {Key("Service", "n", f"s{n}"): Use(0.0, 1) for n in range(SERVICES_MAX + 10)}
    history.add(UseLook(0.0, services=many))
    kept = [key for key in many if history.samples_of(key)]
    assert len(kept) == SERVICES_MAX
    history.add(UseLook(10.0, services=many))
    assert [key for key in many if history.samples_of(key)] == kept, (
        "those that were kept first stay"
    )
