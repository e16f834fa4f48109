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


def told(desired: Desired) -> dict[str, tuple[str, str, int]]:
    return {str(each.key): (each.code, each.file, each.line) for each in desired.problems}


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
        assert file == expected[key][1]
        assert line in {0, expected[key][2] if code == TOO_COSTLY else 1}
    for key, (code, file, line) in told(second).items():
        # Where the limit of time ends the work between two lines, no line is known either.
        assert (code, file) == expected[key][:2]
        assert line in {0, expected[key][2]}
    for desired in (first, second):
        names = [str(each.key) for each in desired.services]
        assert names == ["Service/shop/rendered", "Service/shop/web"]
