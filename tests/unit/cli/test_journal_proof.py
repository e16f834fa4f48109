"""``journal verify`` and ``keys`` as an auditor types them: with a copy of the folder, and what was kept elsewhere."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.core.note import PrivateKey
from controller.journal.keys import read_public_keys
from controller.journal.notary import Every
from controller.journal.segments import list_segments
from tests.unit.journal.builders import edit, entry, key_files, open_log
from tests.unit.journal.test_tamper import Signed, changed, forge, without

EVERY = Every(records=5)
FIRST = "00000000000000000001.jsonl"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A copy of a signed journal's folder, of 17 records; its public files are above."""
    folder = tmp_path / "host" / "journal"
    kept = tmp_path / "elsewhere"
    for made in (folder.parent, kept):
        made.mkdir()
    log = open_log(folder, every=EVERY)
    for number in range(11):
        log.append(entry(number))
        if number == 5:
            shutil.copy(key_files(folder).checkpoint, kept / "old.checkpoint")
    log.close()
    shutil.copytree(folder, kept / "journal")
    for path in (key_files(folder).public, key_files(folder).checkpoint):
        shutil.copy(path, kept)
    shutil.rmtree(folder.parent)  # what follows has the copies alone
    return kept / "journal"


def verified(
    capsys: pytest.CaptureFixture[str], journal: Path, *options: object
) -> tuple[int, str]:
    """Verify with the public key alone, in words and for programs, which say the same."""
    argv = ["journal", "verify", "--journal", journal, "--key", journal.parent / "journal.pub"]
    said = []
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in [*argv, *options, *form]])
        said.append((ended.value.code, capsys.readouterr().out))
    (code, words), (same, told) = said
    assert isinstance(code, int)
    assert code == same
    assert json.loads(told)["ok"] == (code == 0)
    return code, words


def forged(change: Callable[..., object]) -> Callable[[Path], None]:
    """Have everything written anew by somebody who has no key."""

    def tamper(journal: Path) -> None:
        (key,) = read_public_keys(journal.parent / "journal.pub")
        forge(Signed(journal, PrivateKey("", b""), key, ()), change)  # type: ignore[arg-type]

    return tamper


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    return lambda journal: edit(journal / FIRST, change)


def cut_in_its_packed_form(journal: Path) -> None:
    (path,) = list_segments(journal)
    path.with_name(f"{FIRST}.gz").write_bytes(gzip.compress(path.read_bytes())[:-40])
    path.unlink()


def close_one_twice(journal: Path) -> None:
    log = open_log(journal)
    log.append(entry(3))
    log.close()


KINDS: list[tuple[Callable[[Path], None], int, str]] = [
    (lines(lambda told: told), 0, "17 records, chain intact"),
    (lines(lambda told: [*told[:4], told[4].replace(b"web", b"wab"), *told[5:]]), 10, "record 5 "),
    (lines(lambda told: [*told[:4], *told[5:]]), 11, "record 5 "),
    (forged(without("checkpoint")), 12, "record 1 "),
    (forged(changed(5, request={"object": "forged"})), 13, "record 3 "),
    (lines(lambda told: told[:-1]), 14, "record 17 "),
    (cut_in_its_packed_form, 15, "record "),
    (close_one_twice, 16, "record 18 "),
]


@pytest.mark.parametrize(("tamper", "code", "expected"), KINDS, ids=[str(k[1]) for k in KINDS])
def test_each_kind_of_bad_has_its_exit_code_and_names_its_record(
    journal: Path,
    capsys: pytest.CaptureFixture[str],
    tamper: Callable[[Path], None],
    code: int,
    expected: str,
) -> None:
    tamper(journal)
    found, words = verified(capsys, journal)
    assert (found, words.startswith(expected)) == (code, True), words


def test_a_checkpoint_that_was_kept_shows_what_was_set_back(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = ("--checkpoint", journal.parent / "journal.checkpoint")
    old = ("--checkpoint", journal.parent / "old.checkpoint")
    assert verified(capsys, journal, *new, *old)[0] == 0
    forged(lambda entries: entries[:9])(journal)
    assert verified(capsys, journal)[0] == 0, "as if it had never gone on"
    assert verified(capsys, journal, *old)[0] == 0
    code, words = verified(capsys, journal, *new)
    assert (code, words.startswith("record 10 ")) == (14, True), words


def test_a_checkpoint_that_nobody_trusted_signed_proves_nothing(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = journal.parent / "journal.checkpoint"
    note.write_text(note.read_text().replace("\n16\n", "\n15\n"))
    assert verified(capsys, journal, "--checkpoint", note)[0] == 12
    note.write_text("a note\n")
    assert verified(capsys, journal, "--checkpoint", note)[0] == 12


def test_from_a_record_on_only_what_is_after_its_checkpoint_is_looked_at(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(journal / FIRST, lambda told: [*told[:4], told[4].replace(b"web", b"wab"), *told[5:]])
    code, words = verified(capsys, journal, "--from", 12)
    assert (code, "note: looked at from record" in words) == (0, True), words
    assert verified(capsys, journal, "--from", 6)[0] == 10
