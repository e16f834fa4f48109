"""Charts as read, and the documents that Releases render to. Nothing here renders.

A chart is read whole first, and rendered without any reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.manifests.parse import parse_document
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlFault, YamlPath, compose_all
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, is_dns_label

MAX_RELEASES = 200
MAX_TEMPLATES = 100
#: Bytes of a chart's files together.
MAX_CHART_BYTES = 4 * 1024 * 1024
#: Characters that one Release renders to, and values, with aliases expanded.
MAX_RENDERED = 2 * 1024 * 1024
MAX_RENDERED_VALUES = 200_000

CHART, VALUES, SCHEMA, TEMPLATES = "Chart.yaml", "values.yaml", "values.schema.json", "templates"

#: The code of a Release that takes too much time or memory, and of a Release that a later reading renders.
TOO_COSTLY, DEFERRED = "chart.too-costly", "chart.deferred"
_COSTLY_REMEDY = (
    "simplify the chart at this place: patterns, references and uniqueItems of the schema,"
    " loops and nested values of the templates"
)
_DEFERRED_REMEDY = "nothing to do here; correct the Releases with chart.too-costly"

#: The texts of a Release's templates by file, or its problems.
RenderedTexts = dict[str, str] | tuple[Problem, ...]


class RenderLimitError(BaseException):
    """The time of a Release is used up. No ``Exception``, because libraries handle those."""

    def __init__(self, seconds: float, *, is_shortened: bool = False) -> None:
        super().__init__(f"{seconds:g} s of processor time")
        #: Earlier Releases of the same reading took the time.
        self.is_shortened = is_shortened


#: Returns the context in which one Release is rendered, within limits.
RenderLimit = Callable[[], AbstractContextManager[None]]


def limit_problem(error: RenderLimitError | MemoryError, file: str, line: int = 0) -> Problem:
    """Return the problem of a Release that reached a limit of time or memory at *file*."""
    if isinstance(error, RenderLimitError) and error.is_shortened:
        message = f"the Release takes more than {error}, and others took the time of this reading"
        return Problem(DEFERRED, message, file, line, remedy=_DEFERRED_REMEDY)
    much = f"more than {error}" if isinstance(error, RenderLimitError) else "too much memory"
    message = f"rendering takes {much} here"
    return Problem(TOO_COSTLY, message, file, line, remedy=_COSTLY_REMEDY)


@dataclass(frozen=True, slots=True)
class Chart:
    """The texts of a chart. A chart with problems is unusable."""

    name: str
    #: The printable name of the folder.
    place: str = ""
    #: Pairs of a printable file name and a text.
    files: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()
    #: The resolved path of the folder; '' for an unusable chart.
    top: str = ""

    @property
    def size(self) -> int:
        """The number of characters of all files."""
        return sum(len(text) for _, text in self.files)

    def text(self, name: str) -> str | None:
        """Return the text of a file in the chart's folder, None for a missing file."""
        return dict(self.files).get(f"{self.place}/{name}")

    def templates(self) -> Iterator[tuple[str, str]]:
        """Yield (name, text) of each template."""
        prefix = f"{self.place}/{TEMPLATES}/"
        return ((name, text) for name, text in self.files if name.startswith(prefix))


def unnamed(name: str) -> Chart | None:
    """Return the chart with the problem of its name; None for a possible name."""
    if is_dns_label(name, length=SERVICE_NAME_MAX):
        return None
    expected = f"lower-case letters, digits and '-', at most {SERVICE_NAME_MAX} characters"
    problem = Problem("chart.missing", "no chart can have that name", expected=expected)
    return Chart(name, problems=(problem,))


def too_many_templates(place: str) -> Problem:
    """Return the problem of a chart with too many templates; *place* is its folder's name."""
    message = f"a chart has at most {MAX_TEMPLATES} templates"
    return Problem("chart.too-many", message, f"{place}/{TEMPLATES}")


def too_big_chart(place: str) -> Problem:
    """Return the problem of a chart with too many bytes; *place* is its folder's name."""
    message = f"a chart has at most {MAX_CHART_BYTES // 1024**2} MiB"
    return Problem("chart.too-many", message, place)


def documents_of(release: Declaration, rendered: RenderedTexts) -> tuple[ParsedDocument, ...]:
    """Return the documents that a Release rendered to, with their problems. Never raises.

    Each document gets the Release's namespace and owner.
    """
    if not isinstance(rendered, dict):
        # Without a key the document possibly declares anything; its problems are the Release's.
        problems = tuple(replace(problem, key=release.key) for problem in rendered)
        return (ParsedDocument(None, problems, None),)
    documents: list[ParsedDocument] = []
    for file, text in rendered.items():
        if sum(each.nodes for each in documents) > MAX_RENDERED_VALUES:
            message = f"the chart gives more than {MAX_RENDERED_VALUES} values"
            problem = Problem("chart.template", message, file, key=release.key)
            return (ParsedDocument(None, attributed((problem,), release), None),)
        for document in compose_all(text, file):
            parsed = parse_document(_with_metadata(document, release))
            declaration = parsed.declaration
            if declaration is not None:
                source = replace(declaration.source, release=described(release))
                declaration = replace(declaration, source=source)
            problems = attributed(parsed.problems, release)
            read = ParsedDocument(
                declaration, problems, parsed.key, release.key, nodes=parsed.nodes
            )
            documents.append(read)
    return tuple(documents)


def attributed(problems: tuple[Problem, ...], release: Declaration) -> tuple[Problem, ...]:
    """Add the Release to the messages, because line numbers are of the rendered text."""
    suffix = f" (rendered for {described(release)})"
    return tuple(replace(problem, message=problem.message + suffix) for problem in problems)


def described(release: Declaration) -> str:
    """Return the Release with the place of its document."""
    return f"{release.key}, {release.place}"


def unusable(
    release: Declaration, problems: tuple[Problem, ...] | list[Problem]
) -> tuple[Problem, ...]:
    """Return the problem of a Release without a usable chart, and the chart's own problems."""
    assert isinstance(release.spec, ReleaseSpec), "only a Release is rendered"
    first = problems[0]
    where = f" ({first.file}:{first.line})" if first.line else ""
    message = f"chart {release.spec.chart!r} can't be used: {first.message}{where}"
    remedy = first.remedy or "see the chart's problems, and `trimtab render`"
    path = ("spec", "chart")
    own = problem_at(release.document, path, "chart.unusable", message, remedy=remedy)
    return (own, *(problem for problem in problems if problem.file))


def _with_metadata(document: Document, release: Declaration) -> Document:
    """Return a rendered document with the namespace and owner of its Release."""
    value = document.value
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(metadata, dict):
        return document
    faults = list(document.faults)
    if value.get("kind") == "Release":
        problem = problem_at(
            document, ("kind",), "release.nested", "a chart can't hold another Release"
        )
        faults.append(YamlFault(("kind",), problem))
    required = {"namespace": release.key.namespace, "owner": release.owner}
    for name, value_required in required.items():
        if metadata.get(name, value_required) != value_required:
            message = f"metadata.{name} isn't the Release's, which is {value_required}"
            path: YamlPath = ("metadata", name)
            remedy = f"leave it out, or write {{{{ release.{name} }}}}"
            problem = problem_at(document, path, f"release.{name}", message, remedy=remedy)
            faults.append(YamlFault(path, problem))
    value = {**value, "metadata": {**metadata, **required}}
    return replace(document, value=value, faults=tuple(faults))
