"""``schema``: the JSON Schema of one kind or of all kinds."""

from __future__ import annotations

import json

import pytest

from controller.cli.main import main


def test_one_kind_all_kinds_and_no_kind(capsys: pytest.CaptureFixture[str]) -> None:
    for words, title, code in (
        (["Service"], "trimtab Service", 0),
        ([], "trimtab documents", 0),
        (["Servce"], None, 64),
    ):
        with pytest.raises(SystemExit) as end:
            main(["schema", *words])
        out = capsys.readouterr()
        assert end.value.code == code
        if title is None:
            assert "kind.unknown" in out.err
        else:
            assert json.loads(out.out)["title"] == title
