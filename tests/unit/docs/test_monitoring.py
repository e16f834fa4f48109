"""docs/operations/monitoring.md has each metric and each alert, and Prometheus' own tool accepts the rules."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from controller.core.metrics.families import FAMILIES
from tools import docs

RULES = docs.PAGE.parents[1] / "configs" / "monitoring"
ALERTS = [
    rule
    for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PAGE = docs.MONITORING.read_text("utf-8")


def test_the_table_is_what_the_code_says() -> None:
    assert docs.with_metrics(PAGE) == PAGE, "run `make docs`"


def test_each_alert_is_of_metrics_that_exist_and_has_a_section() -> None:
    names = {each.name for each in FAMILIES}
    for alert in ALERTS:
        found = re.findall(r"trimtab_[a-z_]+", alert["expr"])
        assert found and set(found) <= names, alert["alert"]
        assert alert["annotations"]["runbook"].endswith(f"#{alert['alert'].lower()}")
        assert f"### {alert['alert']}\n" in PAGE


def test_the_dashboard_asks_for_metrics_and_labels_that_exist() -> None:
    labels = {each.name: set(each.labels) for each in FAMILIES}
    panels = json.loads((RULES / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for target in (target for panel in panels for target in panel["targets"]):
        names = re.findall(r"trimtab_[a-z_]+", target["expr"])
        assert names and set(names) <= labels.keys(), target
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= set.union(*(labels[name] for name in names)), target


@pytest.mark.parametrize("words", [("check", "alerts.yaml"), ("test", "alerts_test.yaml")])
def test_promtool_accepts_the_rules(words: tuple[str, str]) -> None:
    act, file = words
    done = subprocess.run(
        ["promtool", act, "rules", file], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
