"""The document that ``up --git`` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core.manifests.source_document import SourceOptions, name_of, render_source
from controller.model.errors import UsageError
from controller.sources.directory import DirectorySource


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/team/Deploy.git", "deploy"),
        ("git@example.org:team/my_app.git/", "my-app"),
        ("git@example.org:app.git", "app"),
        ("file:///srv/git/" + "x" * 60, "x" * 27),
        ("file:///___", "source"),
    ],
)
def test_a_source_is_called_like_its_repository(url: str, name: str) -> None:
    assert name_of(url) == name


def test_the_document_is_read_as_it_was_meant(tmp_path: Path) -> None:
    options = SourceOptions(
        "https://example.org/team/deploy.git", "live", "prod", ("shop", "web"), "team", "release"
    )
    (tmp_path / "source.yaml").write_text(render_source(options))
    desired = DirectorySource(tmp_path).load()
    assert desired.problems == ()
    (source,) = desired.sources
    assert source.key.name == "deploy"
    spec = source.spec
    assert (spec.git.url, str(spec.git.ref), spec.git.path) == (options.url, "branch live", "prod")
    assert (spec.git.credentials, spec.verify.keys, spec.verify.mode) == ("team", "release", "head")
    assert spec.namespaces == ("shop", "web")


@pytest.mark.parametrize(
    "options",
    [
        SourceOptions("/srv/git/x"),
        SourceOptions("file:///x", branch="-x"),
        SourceOptions("file:///x", path="../x"),
        SourceOptions("file:///x", credentials="../x"),
    ],
)
def test_an_option_that_git_could_misread_is_refused(options: SourceOptions) -> None:
    with pytest.raises(UsageError) as caught:
        render_source(options)
    assert caught.value.code == "source.options"
