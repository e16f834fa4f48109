"""The running controller's review for ``plan`` and ``diff``, and how a review is printed.

A running controller has everything in memory that a review needs. Without one, the command looks
itself, with a broker and a controller of its own (``clients.oneshot``). Both make the same bytes:
``core.review.printed_review``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from controller import __version__
from controller.cli.clients.socket_client import PLAN_S, ask_controller
from controller.cli.options import HostChoice
from controller.cli.output.excerpts import report_excerpts
from controller.core.review.review_form import EXCERPT_MARK, ReviewForm
from controller.model.errors import TrimtabError
from controller.settings import read_instance, state_of


def make_printed_review(
    host: HostChoice, form: ReviewForm, *, reveal: bool = False
) -> dict[str, Any]:
    """Return the review of the plan for a host, in the form that ``printed_review`` documents.

    With *reveal* the command looks itself: the controller's socket answers with no secret.

    Raises: as ``clients.oneshot.make_review``.
    """
    answer = None if reveal else ask_for_review(host.root, form, directory=host.directory)
    if answer is not None:
        return answer
    from controller.cli.clients.oneshot import make_review
    from controller.core.review.printed_review import printed_review

    return printed_review(make_review(host, reveal=reveal), form)


def ask_for_review(root: Path, form: ReviewForm, *, directory: Path) -> dict[str, Any] | None:
    """Return the running controller's review; None if no controller gives one for *directory*.

    A controller of another version or another directory gives none. Nor does one without an engine:
    the command's own look words the error.
    """
    instance = read_instance(root)
    if instance is None:
        return None
    question: dict[str, object] = {
        "do": "review",
        "version": __version__,
        "directory": str(directory),
        "form": form.to_json(),
    }
    try:
        answer = ask_controller(
            state_of(root, instance).controller_socket, question, timeout_s=PLAN_S
        )
    except (TrimtabError, ValueError):
        return None
    assert isinstance(answer, dict)
    return answer


def with_excerpts(text: str, places: list[dict[str, Any]], folder: Path) -> str:
    """Return a text with the lines of files below *folder* in the places of the marks."""
    if not places:
        return text
    show = report_excerpts(folder)

    def lines() -> Iterator[str]:
        for line in text.split("\n"):
            if line.startswith(EXCERPT_MARK):
                yield from show(places[int(line.removeprefix(EXCERPT_MARK))])
            else:
                yield line

    return "\n".join(lines())


def differences_of(
    answer: Mapping[str, Any], is_chosen: Callable[[str], bool]
) -> tuple[dict[str, Any], str]:
    """Return the differences of the chosen resources, by key: as ``diff --json``, and as text."""
    chosen = [each for each in answer["objects"] if is_chosen(each["object"])]
    objects = [each for item in chosen for each in item["json"]["objects"]]
    return {"objects": objects}, "\n".join(item["text"] for item in chosen).rstrip()
