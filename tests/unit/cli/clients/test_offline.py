"""``render``: what files and charts declare, and where a mistake is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.test_main import run


def test_a_mistake_in_values_is_at_its_place_in_the_values_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "configs/app"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: trimtab/v1\nname: app\nversion: 1.0.0\n")
    (chart / "values.schema.json").write_text('{"properties": {"replicas": {"type": "integer"}}}')
    values = tmp_path / "values.yaml"

    def render(text: str) -> str:
        values.write_text(text)
        command = ["render", "--chart", str(chart), "--values", str(values)]
        assert run(*command, "--state", str(tmp_path / "state")) == (3 if text else 0)
        return capsys.readouterr().err.split(" error ")[0]

    assert render("replicas: many\n") == f"{values}:1:11:"
    assert render("---\n# of the site\nname: web\nreplicas: many\n") == f"{values}:4:11:"
    assert render("{replicas: many}") == f"{values}:1:12:"
    assert render("replicas: [") != ""
    assert render("") == ""
