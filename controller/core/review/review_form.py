"""The form in which a command prints a review: what ``plan`` and ``diff`` ask a running controller for.

Commands import this module at their start, so the module imports nothing slow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal

#: The widest terminal.
WIDTH_MAX: Final = 100_000
TITLE_MAX: Final = 512
#: Begins a line of a text in the place of an excerpt; the excerpt's number follows.
EXCERPT_MARK: Final = "\0"


@dataclass(frozen=True, slots=True)
class ReviewForm:
    """The form of a printed review."""

    #: ``plan``: everything that would change. ``diff``: the different fields alone.
    subject: Literal["plan", "diff"]
    output: Literal["text", "json", "markdown"] = "text"
    #: Columns of the terminal; None for a pipe.
    width: int | None = None
    #: Each action too, with the policy's verdict.
    verbose: bool = False
    #: The headline in Markdown.
    title: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the members of a request."""
        return asdict(self)


def form_from_json(members: object) -> ReviewForm | None:
    """Return the form that a request has, None for another value."""
    match members:
        case {
            "subject": "plan" | "diff" as subject,
            "output": "text" | "json" | "markdown" as output,
            "width": int() | None as width,
            "verbose": bool(verbose),
            "title": str(title),
        } if (width is None or 0 < width <= WIDTH_MAX) and len(title) <= TITLE_MAX:
            return ReviewForm(subject, output, width, verbose, title)
        case _:
            return None
