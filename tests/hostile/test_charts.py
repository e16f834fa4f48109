"""Charts that would stop the loop are problems of their Releases alone."""

from __future__ import annotations

from pathlib import Path

from controller.core.charts.releases import DEFERRED, TOO_COSTLY
from controller.model.desired.desired import Desired
from controller.sources.directory import DirectorySource
from tests.hostile.chart_bombs import BOMBS

WEB = """apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: shop, owner: team}
spec: {image: 'team/web:1'}
"""
GOOD = {
    "configs/good/Chart.yaml": "{apiVersion: trimtab/v1, name: good, version: '1'}",
    "configs/good/templates/a.yaml": WEB.replace("web", "{{ release.name }}", 1).replace(
        "namespace: shop, ", ""
    ),
    "desired-state/z.yaml": "apiVersion: trimtab/v1\nkind: Release\n"
    "metadata: {name: rendered, namespace: shop, owner: team}\nspec: {chart: good}\n",
}
COSTLY = {name: bomb for name, bomb in BOMBS.items() if bomb.code == TOO_COSTLY}
#: Its line is so long that the time can end while the line is compiled: then no line is known.
LONG = "Release/bombs/lists"


def told(desired: Desired) -> dict[str, tuple[str, str, int]]:
    found = {str(each.key): (each.code, each.file, each.line) for each in desired.problems}
    code, file, line = found[LONG]
    return {**found, LONG: (code, file, line or 1)}


def test_charts_without_end_are_problems_of_their_releases_alone_and_cost_a_reading_little(
    tmp_path: Path,
) -> None:
    """Releases after those that took the time of a reading can be left to the next one."""
    files = {"desired-state/web.yaml": WEB, **GOOD}
    for name, bomb in COSTLY.items():
        files |= bomb.write_to(name)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    source = DirectorySource(tmp_path / "desired-state", charts=tmp_path / "configs")
    expected = {
        f"Release/bombs/{name}": (TOO_COSTLY, f"configs/{name}/{bomb.file}", bomb.line)
        for name, bomb in COSTLY.items()
    }
    first, second = source.load(), source.load()
    assert told(first).keys() == expected.keys()
    for key, (code, file, line) in told(first).items():
        # No line of a chart is known that was left to the next reading.
        assert code in {TOO_COSTLY, DEFERRED}
        assert (file, line) == (expected[key][1], expected[key][2] if code == TOO_COSTLY else 1)
    assert told(second) == expected
    for desired in (first, second):
        names = [str(each.key) for each in desired.services]
        assert names == ["Service/shop/rendered", "Service/shop/web"]
