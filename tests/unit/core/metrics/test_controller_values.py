from __future__ import annotations

from collections import Counter
from typing import Any

from controller.core.metrics.controller_values import ControllerFacts, controller_values
from controller.core.metrics.families import BOUNDS, MetricsOwner, ProcessFacts, text_of
from controller.core.metrics.samples import Use
from controller.model.names import Key

SINCE = "1970-01-02T00:00:00Z"


def row(
    name: str,
    worst: str = "Ready",
    severity: str = "ok",
    *,
    kind: str = "Service",
    ready: bool = True,
) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": str(ready), "reason": "AsDeclared", "since": SINCE},
        {"type": "CrashLoop", "status": str(not ready), "reason": "KeepsFailing", "since": SINCE},
    ]
    return {
        "kind": kind,
        "namespace": "shop",
        "name": name,
        "worst": worst,
        "severity": severity,
        "conditions": conditions,
    }


def facts(*rows: dict[str, Any], **others: Any) -> ControllerFacts:
    report = {"resources": list(rows), "problems": [{}], **others}
    web = Key("Service", "shop", "web")
    return ControllerFacts(
        report,
        is_engine_reachable=True,
        observed_at=900.0,
        pass_s=1.5,
        queued=2,
        restarts={web: 3},
        use={web: Use(cpu_s=4.5, memory_bytes=1024)},
    )


def test_a_resource_as_declared_has_no_condition_and_another_one_its_worst() -> None:
    rows = (row("web"), row("api", "CrashLoop", "page", ready=False), row("data", kind="Volume"))
    values = controller_values(facts(*rows), Counter())
    conditions = {key: v for key, v in values.items() if key[0].startswith("trimtab_resource_c")}
    assert conditions == {
        (
            "trimtab_resource_condition",
            *("Service", "shop", "api", "CrashLoop", "KeepsFailing"),
        ): 1,
        (
            "trimtab_resource_condition_since_seconds",
            *("Service", "shop", "api", "CrashLoop"),
        ): 86_400.0,
    }
    ready = {key[1:]: v for key, v in values.items() if key[0] == "trimtab_resource_ready"}
    assert ready == {
        ("Service", "shop", "web"): True,
        ("Service", "shop", "api"): False,
        ("Volume", "shop", "data"): True,
    }
    assert values["trimtab_resources", "Ready"] == 2
    assert values["trimtab_resources", "CrashLoop"] == 1


def test_a_resource_that_only_starts_is_not_ready_and_a_note_is_no_condition() -> None:
    starting = row("web", "Ready", "progress", ready=False)
    noted = row("api", "Moved", "ok")
    noted["conditions"].append({"type": "Moved", "status": "True", "reason": "X", "since": SINCE})
    values = controller_values(facts(starting, noted), Counter())
    assert not values["trimtab_resource_ready", "Service", "shop", "web"]
    assert values["trimtab_resource_ready", "Service", "shop", "api"]
    told = {key[3:] for key in values if key[0] == "trimtab_resource_condition"}
    assert told == {("web", "NotReady", "AsDeclared")}
    assert values["trimtab_resources", "NotReady"] == 1


def test_a_service_has_its_restarts_and_its_use_once_known() -> None:
    values = controller_values(facts(row("web"), row("api")), Counter())
    assert values["trimtab_service_restarts_total", "shop", "web"] == 3
    assert values["trimtab_service_restarts_total", "shop", "api"] == 0
    assert values["trimtab_service_cpu_seconds_total", "shop", "web"] == 4.5
    assert values["trimtab_service_memory_bytes", "shop", "web"] == 1024
    assert ("trimtab_service_memory_bytes", "shop", "api") not in values


def test_sources_are_told_by_their_state() -> None:
    sources = [{"name": "main", "state": "Ready"}, {"name": "other", "state": "Held"}]
    values = controller_values(facts(sources=sources), Counter())
    assert values["trimtab_source_ready", "main", "Ready"]
    assert not values["trimtab_source_ready", "other", "Held"]


def test_sums_and_what_pages_come_before_single_resources_that_are_beyond_the_bound() -> None:
    rows = [row(f"s{n}", "CrashLoop", "warning", ready=False) for n in range(4_000)]
    rows.append(row("bad", "CrashLoop", "page", ready=False))
    values = controller_values(facts(*rows), Counter({("trimtab_passes_total", "done"): 7}))
    text = text_of(MetricsOwner.CONTROLLER, values, ProcessFacts("1", 0.0, 0, 0.0))
    assert 'trimtab_resources{condition="CrashLoop"} 4001\n' in text
    assert 'trimtab_passes_total{outcome="done"} 7\n' in text
    assert 'trimtab_resource_condition{kind="Service",namespace="shop",name="bad",' in text
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert len(lines) <= BOUNDS[MetricsOwner.CONTROLLER].series + 1, "one tells of the dropped ones"
    assert "trimtab_series_dropped" in lines[-1] and not lines[-1].endswith(" 0")
