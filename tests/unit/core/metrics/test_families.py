from __future__ import annotations

import re

from controller.core.metrics.families import (
    BOUNDS,
    FAMILIES,
    MetricsOwner,
    MetricValues,
    ProcessFacts,
    merged,
    text_of,
)

PROCESS = ProcessFacts("1.0", cpu_s=1.25, memory_bytes=4096, began=1000.0)


def test_names_follow_the_conventions_of_prometheus() -> None:
    names = [each.name for each in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert re.fullmatch(r"trimtab_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert "\n" not in family.about and family.about.endswith(".")


def test_a_text_tells_of_its_process_and_of_what_it_left_out() -> None:
    limit = BOUNDS[MetricsOwner.BROKER].series
    values: MetricValues = {
        ("trimtab_admissions_total", "deny", f"rule.{n}"): n for n in range(limit + 5)
    }
    text = text_of(MetricsOwner.BROKER, values, PROCESS)
    assert 'trimtab_build_info{process="broker",version="1.0"} 1\n' in text
    assert 'trimtab_process_cpu_seconds_total{process="broker"} 1.250\n' in text
    # Four values are of the process itself.
    assert 'trimtab_series_dropped{process="broker"} 9\n' in text


def test_a_process_without_an_answer_is_down_in_the_merged_text() -> None:
    own = text_of(MetricsOwner.CONTROLLER, {}, PROCESS)
    text = merged({MetricsOwner.BROKER: None, MetricsOwner.CONTROLLER: own})
    assert 'trimtab_up{process="broker"} 0\n' in text
    assert 'trimtab_up{process="controller"} 1\n' in text
    assert own and all(line in text for line in own.split("\n"))


def test_no_number_of_values_passes_five_thousand_series_or_a_mebibyte() -> None:
    assert sum(each.series for each in BOUNDS.values()) <= 5_000
    heads = sum(len(each.head) for each in FAMILIES)
    assert sum(each.size for each in BOUNDS.values()) + heads <= 1 << 20
