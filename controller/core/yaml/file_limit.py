"""The largest file with documents. A program that only reads files needs this limit, and no parser."""

from controller.model.errors import Problem

MAX_BYTES = 1024 * 1024


def too_big(file: str) -> Problem:
    """Return the problem of a file over ``MAX_BYTES``."""
    return Problem(
        code="file.too-big",
        message=f"the file is over {MAX_BYTES // 1024} KiB and wasn't read",
        file=file,
        expected=f"at most {MAX_BYTES} bytes a file",
        remedy="split it into several files",
    )
