"""``journal verify`` and ``keys`` as an auditor types them: with a copy of the folder, and what was kept elsewhere."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli.journal.verify import EXIT_CODES
from controller.cli.main import main
from controller.core.records.checkpoint import Checkpoint
from controller.core.transparency import PrivateKey, parse_private, sign_note
from controller.journal.store.segments import MARK_NAME, list_segments
from controller.journal.writer.checkpointer import CheckpointInterval
from tests.unit.journal.builders import ORIGIN, edit, entry, key_files, open_log, read_public_keys
from tests.unit.journal.verify.test_verify_tamper import (
    Entries,
    Signed,
    changed,
    forge,
    resigned,
    without,
)
from tests.unit.journal.writer.test_checkpointer import rotate

EVERY = CheckpointInterval(records=5)
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
    found = json.loads(told)
    assert (found["ok"], found["code"]) == (code == 0, code)
    assert EXIT_CODES.get(found["fault"], 0) == code
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


def test_without_its_mark_a_cut_end_is_told_as_what_may_be(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "note: the mark .head is missing or empty"
    assert said not in verified(capsys, journal)[1]
    mark = journal / MARK_NAME
    for remove in (lambda: mark.write_bytes(b""), mark.unlink):
        remove()
        code, words = verified(capsys, journal)
        assert (code, said in words) == (0, True), words
    lines(lambda told: told[:-2])(journal)
    code, words = verified(capsys, journal)
    assert (code, said in words) == (0, True), words
    assert verified(capsys, journal, "--checkpoint", journal.parent / "journal.checkpoint")[0] == 14


def test_a_checkpoint_that_nobody_trusted_signed_proves_nothing(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = journal.parent / "journal.checkpoint"
    note.write_text(note.read_text().replace("\n16\n", "\n15\n"))
    assert verified(capsys, journal, "--checkpoint", note)[0] == 12
    note.write_text("a note\n")
    assert verified(capsys, journal, "--checkpoint", note)[0] == 12


@pytest.mark.parametrize("content", ["", "\n\n", "# journal.pub of the other host\n"])
def test_a_list_without_a_key_is_not_taken_for_leave_to_believe_any(
    journal: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (journal.parent / "journal.pub").write_text(content)
    argv = ["--journal", str(journal), "--key", str(journal.parent / "journal.pub")]
    with pytest.raises(SystemExit) as ended:
        main(["journal", "verify", *argv])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (1, "")
    assert "there is no key in it [journal.bad-key]" in printed.err


@pytest.mark.parametrize("option", ["--key", "--checkpoint"])
def test_a_key_or_checkpoint_that_is_not_there_is_no_verdict(
    journal: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["journal", "verify", "--journal", str(journal), option, str(journal / "nothing")])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (1, "")
    assert "journal.bad-key" in printed.err or "journal.no-checkpoint" in printed.err


def test_a_key_that_was_rotated_out_proves_nothing_by_the_list_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    log = open_log(journal, every=EVERY)
    old = parse_private(key_files(journal).secret.read_text())
    before = ("--checkpoint", tmp_path / "before.checkpoint")
    for number in range(6):
        log.append(entry(number))
    shutil.copy(key_files(journal).checkpoint, before[1])
    log.append(rotate(100))
    log.close()
    assert verified(capsys, journal, *before)[0] == 0
    made = Checkpoint(ORIGIN, 13, bytes(32))
    (tmp_path / "made").write_text(str(sign_note(str(made), [old])))
    assert verified(capsys, journal, "--checkpoint", tmp_path / "made")[0] == 12

    def fork(entries: Entries) -> Entries:
        return resigned([*entries[:5], (entry(800), entries[5][1]), entries[6]], old)

    forge(Signed(journal, old, old.public, ()), fork)
    code, words = verified(capsys, journal)
    assert (code, words.startswith("record 8 is bad")) == (14, True), words
    # Who names the older key alone means a copy from before the rotation.
    with pytest.raises(SystemExit) as ended:
        main(["journal", "verify", "--journal", str(journal), "--key", str(old.public)])
    assert ended.value.code == 0


def test_from_a_record_on_only_what_is_after_its_checkpoint_is_looked_at(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(journal / FIRST, lambda told: [*told[:4], told[4].replace(b"web", b"wab"), *told[5:]])
    code, words = verified(capsys, journal, "--from", 12)
    assert (code, "note: looked at from record" in words) == (0, True), words
    assert verified(capsys, journal, "--from", 6)[0] == 10


def test_a_checkpoint_that_cant_be_compared_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    log = open_log(journal, every=EVERY)
    for number in range(11):
        log.append(entry(number))
    log.close()
    kept = tmp_path / "kept"
    key = parse_private(key_files(journal).secret.read_text())
    kept.write_text(str(sign_note(str(Checkpoint(ORIGIN, 5, bytes(32))), [key])))
    assert verified(capsys, journal, "--checkpoint", kept)[0] == 13
    code, words = verified(capsys, journal, "--checkpoint", kept, "--from", 12)
    said = "note: the checkpoint of 5 records that was kept elsewhere wasn't compared"
    assert (code, said in words) == (0, True), words


def test_the_checkpoint_on_the_host_takes_the_place_of_none_that_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody with the broker's key wrote the history anew, as long as it was."""
    hosts = (tmp_path / "kept" / "journal", tmp_path / "host" / "journal")
    for what, journal in zip(("web", "evil"), hosts, strict=True):
        journal.parent.mkdir()
        if what == "evil":
            shutil.copy(key_files(hosts[0]).secret, key_files(journal).secret)
        log = open_log(journal, every=EVERY)
        for number in range(4):
            log.append(entry(number, request={"object": what}))
        log.close()
    kept, local = (("--checkpoint", key_files(journal).checkpoint) for journal in hosts)
    assert verified(capsys, hosts[1], *local)[0] == 0
    for copies in (kept, (*kept, *local), (*local, *kept)):
        code, words = verified(capsys, hosts[1], *copies)
        assert (code, words.startswith("record 1 is bad")) == (13, True), words
