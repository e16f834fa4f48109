"""Compare the keys that a file beside the journal lists with the keys that the records introduce.

Whoever can write records can write the file as well. A key in the file that no record introduced
signed nothing, but a verification with the file would trust it from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from controller.journal.verify.trust import KeyValidity
from controller.journal.writer.signing_keys import PublishedKey


@dataclass(frozen=True, slots=True)
class FileFinding:
    """The result of comparing files with the records."""

    file: str = ""  # a bad file; '' if none is bad
    reason: str = ""
    notes: tuple[str, ...] = ()  # differences without harm, and files that were not compared


def check_published_keys(
    published: Sequence[PublishedKey], keys: Sequence[KeyValidity], *, file: str, begin: int
) -> FileFinding:
    """Compare a list of keys with the journal's *keys* after record *begin*.

    A replaced key that signed only records up to *begin* is not compared.
    """
    known = {each.key: each for each in keys}
    for each in published:
        is_earlier = each.until is not None and each.until <= begin
        if str(each.key) not in known and not is_earlier:
            reason = (
                f"{file} lists the key {each.key}, which no record introduced: whoever has it could "
                "sign a changed journal. Keep a copy of the file, find out who added the line, and "
                "remove it"
            )
            return FileFinding(file, reason)
    return FileFinding(notes=tuple(_differences(published, known.values(), file=file)))


def _differences(
    published: Sequence[PublishedKey], keys: Iterable[KeyValidity], *, file: str
) -> Iterator[str]:
    introduced = {each.key: each.record for each in keys if each.record is not None}
    for each in published:
        record = introduced.get(str(each.key))
        if record is not None and each.introduced is not None and each.introduced.seq != record:
            yield (
                f"{file} says that record {each.introduced.seq} introduced the key {each.key}: it "
                f"was record {record}"
            )
