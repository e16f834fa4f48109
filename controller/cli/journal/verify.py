"""``journal verify``, ``keys`` and ``rotate-key``: check that no record was changed.

The trust anchors of ``journal verify``: public keys, and saved checkpoints.

A separate module, so that commands that only read don't import the code for signatures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import command, note_option, open_state, print_result
from controller.cli.output.tables import table
from controller.cli.output.times import current_time
from controller.core.encoding.text import printable
from controller.core.records.checkpoint import Checkpoint, parse_checkpoint
from controller.core.transparency import BadNote, PublicKey, parse_note, parse_public
from controller.journal.writer.checkpointer import PublishedKey, ends_of, read_published_keys
from controller.model.errors import StateError, error_reason
from controller.settings import read_in_force
from controller.system.durable_files import write_atomic

if TYPE_CHECKING:
    from controller.journal.verify.checks import KeyValidity
    from controller.journal.verify.verify import Verification


#: The exit code of ``verify``, by the fault of the first bad record.
EXIT_CODES: Final = {
    "changed": 10,
    "gap": 11,
    "signature": 12,
    "root": 13,
    "cut": 14,
    "unreadable": 15,
    "life": 16,
    "inventory": 17,
    "newer": 18,
}

_JUMPS_SHOWN: Final = 10


@command(
    """\b
Examples:
  trimtab journal verify
  trimtab journal verify --from 120000
  trimtab journal verify --journal /srv/copies/journal --key journal.pub --checkpoint old.checkpoint

\b
Exit codes: 0 every record is as it was written; else what the first bad one is:
  10 changed, or not continuing the one before   14 cut off at the end
  11 missing, or in another's place              15 unreadable
  12 a checkpoint without the right signature    16 an intent closed twice, an id used again
  13 other records than those that were signed     18 of a newer trimtab, which can verify on
  17 all records are good, but an inventory file isn't the one that they describe
   1 there is no journal, or no key in FILE
""",
)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--journal", "copy", type=click.Path(path_type=Path, file_okay=False), help="As FOLDER."
)
@click.option(
    "--key",
    "trusted",
    multiple=True,
    metavar="FILE|KEY",
    help="Use this public key alone (default: verify.key of the settings, else journal.pub of the state folder).",
)
@click.option(
    "--checkpoint",
    "kept",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A saved checkpoint: no record before it was changed or removed.",
)
@click.option(
    "--from",
    "begin",
    type=click.IntRange(min=1),
    default=1,
    metavar="SEQ",
    help="Begin at the last checkpoint before this record.",
)
@click.option("--thorough", is_flag=True, help="Parse each line, also of signed records; slower.")
@click.option("--keep", is_flag=True, help="Keep the result in verified.json of the state folder.")
def verify(
    folder: Path | None,
    copy: Path | None,
    trusted: tuple[str, ...],
    kept: tuple[Path, ...],
    begin: int,
    thorough: bool,
    keep: bool,
    state: Path | None,
    as_json: bool,
) -> int:
    """Check every record of the journal, or of a copy of its FOLDER. Needs no running process.

    Without --key the public keys come from the state folder. An attacker who changes the journal
    can change them as well: keep a copy of journal.pub and journal.checkpoint on another host. Only
    a key from elsewhere is called trusted.
    """
    from controller.journal.verify.verify import TrustAnchors
    from controller.journal.verify.verify import verify as verify_folder

    files, state_folder, snapshot, given = list(kept), None, None, None
    if keep and not (folder is None and copy is None and begin == 1):
        raise click.UsageError("--keep is for all of the instance's own journal")
    if folder is None and copy is None:
        state_folder = open_state(state)[0]
        folder, snapshot = state_folder.journal, state_folder.inventory_snapshot
        current = read_in_force(state_folder.root).settings
        trusted = trusted or current.verify_key
        files = files or [Path(path) for path in current.verify_checkpoint]
        if not trusted:
            given = published_keys(state_folder.journal_public)
        if _size(state_folder.journal_checkpoint):
            files.append(state_folder.journal_checkpoint)
    kept_in = state_folder.verified if state_folder is not None and keep else None
    journal = copy or folder or Path()
    given = given or trusted_keys(trusted, journal)
    keys = given.ends
    try:
        # Checkpoints are read before segments, so that the segments have all signed records.
        trust = TrustAnchors(
            frozenset(keys),
            tuple(read_checkpoint(path, keys) for path in files),
            {key: until for key, until in keys.items() if until is not None},
            file=given.beside,
            published=given.published if given.beside else (),
        )
        result = verify_folder(
            journal,
            trust,
            begin=begin,
            thorough=thorough,
            workers=len(os.sched_getaffinity(0)),
            snapshot=snapshot,
        )
    except (Unsigned, StateError) as error:
        fault, reason = _fault_of(error)
        _keep(kept_in, fault, None)
        return _report_fault(as_json, fault, reason)
    if state_folder is not None:
        published = compare_published(state_folder.journal_checkpoint, signed=result.signed)
        result = replace(result, notes=result.notes + published)
    code = EXIT_CODES.get(result.fault, 0)
    _keep(kept_in, result.fault or "ok", result)
    report = {"ok": result.ok, "code": code, **asdict(result)}
    print_result(report, render_verification(result), as_json=as_json)
    return code


def _fault_of(error: Unsigned | StateError) -> tuple[str, str]:
    """Return the fault and the reason of a journal that can't be checked.

    Raises:
        StateError: another fault than that of a journal.
    """
    if isinstance(error, Unsigned):
        return "signature", str(error)
    if error.code != "journal.unreadable":
        raise error
    return "unreadable", f"{error.message} ({error.remedy})"


def _keep(path: Path | None, word: str, result: Verification | None) -> None:
    """Replace the kept result: what was found and since when, head and keys; no head without *result*."""
    if path is None:
        return
    now = current_time()
    kept: dict[str, object] = {"format": 1, "result": word, "at": now, "since": now}
    if result is not None:
        kept["records"], kept["head"] = result.records, result.last_hash
        kept["signed"], kept["trusted"] = result.signed, result.trusted
        kept["keys"] = [each.key for each in result.keys]
    try:
        former = json.loads(path.read_bytes())
        if all(
            former.get(name) == kept.get(name) for name in ("format", "result", "keys", "trusted")
        ):
            kept["since"] = float(former["since"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # the first one, or a damaged file
    write_atomic(path, f"{json.dumps(kept, indent=2)}\n".encode(), mode=0o644)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _report_fault(as_json: bool, fault: str, reason: str) -> int:
    """Report a fault that prevents the check of records, and return the exit code."""
    code = EXIT_CODES[fault]
    report = {"ok": False, "code": code, "fault": fault, "reason": reason}
    print_result(report, printable(reason), as_json=as_json)
    return code


def render_verification(result: Verification) -> str:
    """Return the result of ``verify`` as text."""
    lines = []
    if result.ok:
        lines.append(
            f"{result.records} records, chain intact, {len(result.open_intents)} open intents"
        )
    elif result.first_bad is None:
        lines.append(f"{result.records} records, chain intact; but {result.reason}")
    else:
        place = f"{result.file or 'the folder'}, line {result.line}"
        how = "can't be read by this version" if result.fault == "newer" else "is bad"
        lines.append(f"record {result.first_bad} {how} ({place}): {result.reason}")
        lines.append(f"{result.records} earlier records are intact")
    lines += _signature_lines(result)
    if result.pruned:
        lines.append(
            f"note: records 1 to {result.pruned} were pruned; what is kept holds from the "
            f"checkpoint {result.pruned} on"
        )
    if result.begin > result.pruned + 1:
        lines.append(f"note: looked at from record {result.begin} on")
    lines += (
        f"note: the checkpoint of {size} records that was kept elsewhere wasn't compared: what it is "
        "of wasn't looked at"
        for size in result.uncompared
    )
    lines += (f"note: record {repair.seq} says: {repair.what}" for repair in result.repairs)
    lines += _clock_lines(result)
    lines += (f"note: {note}" for note in result.notes)
    if result.unmarked:
        lines.append(
            "note: the mark .head is missing or empty, which the broker leaves beside the records: "
            "a checkpoint that was kept elsewhere alone shows now that the end was cut"
        )
    if result.unfinished_bytes:
        lines.append(
            f"note: {result.unfinished_bytes} bytes after the last record aren't one yet: being "
            "written, or left by a crash (the next start moves them aside)"
        )
    lines += (
        f"open: record {seq}, intent {identity}, has no closing record yet"
        for identity, seq in result.open_intents[:20]
    )
    return "\n".join(printable(line) for line in lines)


def _signature_lines(result: Verification) -> Iterator[str]:
    """Yield the lines about signatures."""
    if not result.signed:
        if result.ok:
            yield "note: no record is signed"
        return
    if result.trusted:
        yield f"signed up to record {result.signed} by a key that is trusted"
    elif result.keys_from:
        yield f"signed up to record {result.signed} by the key in {result.keys_from} beside the journal"
        yield "note: whoever changes one can change both: compare the key with a copy kept elsewhere (--key)"
    else:
        yield f"signed up to record {result.signed} by the journal's own key"
        yield "note: a rewritten journal can be signed with another key: name your key with --key"
    yield from map(_key_line, result.keys)


def _clock_lines(result: Verification) -> Iterator[str]:
    """Yield lines about the first jumps of the clock."""
    for jump in result.clock_jumps[:_JUMPS_SHOWN]:
        how = "went back" if jump.time < jump.before else "jumped ahead"
        yield (
            f"note: the clock {how} at record {jump.seq}, from {jump.before} to {jump.time}: the "
            "order of records is by their numbers"
        )
    if more := len(result.clock_jumps[_JUMPS_SHOWN:]):
        yield f"note: the clock jumped at {more} or more further records"


_INTRODUCED: Final = {
    "first": "the first key",
    "previous key": "signed by the key before",
    "lost key": "not signed by the key before, which was lost",
}


def _key_line(key: KeyValidity) -> str:
    """Return a line about a key: the record that introduced it, and the last record it signed."""
    if key.record is None:
        origin = "introduced before the first record that was looked at"
    else:
        origin = f"introduced by record {key.record} at {key.time}, {_INTRODUCED[key.by]}"
    end = f"; signed up to record {key.until}" if key.until is not None else ""
    return f"key {key.key}: {origin}{end}"


@command(
    """\b
Examples:
  trimtab journal keys
  cp /var/lib/trimtab/journal.pub /mnt/elsewhere/     verify with it there
""",
    short_help="List the keys that signed the journal.",
)
def keys(state: Path | None, as_json: bool) -> None:
    """List the public keys of the journal's checkpoints, the current key first.

    FROM is the record that introduced the key; '-' if that is unknown. The keys are in
    journal.pub in the state folder. Copy the file to another host: an attacker who
    changes the journal here can change the file as well.
    """
    report: list[dict[str, Any]] = [
        {
            "key": str(each.key),
            "until": each.until,
            "record": each.introduced.seq if each.introduced else None,
            "time": each.introduced.time if each.introduced else None,
        }
        for each in _read_keys(open_state(state)[0].journal_public)
    ]
    rows = [
        (
            each["key"],
            f"record {each['record']}" if each["record"] is not None else "-",
            each["time"] or "-",
            str(each["until"]) if each["until"] is not None else "signs now",
        )
        for each in report
    ]
    print_result(report, table(("KEY", "FROM", "TIME", "SIGNED UNTIL"), rows), as_json=as_json)


@command(
    """\b
Examples:
  sudo trimtab journal rotate-key --note "an admin left"
""",
    name="rotate-key",
    short_help="Sign with a new key from here on.",
)
@note_option
def rotate_key(note: str, state: Path | None, as_json: bool) -> None:
    """Sign the journal with a new key from here on; the previous key signs the new one.

    The running broker generates the key. Copy journal.pub to the other hosts again afterwards.
    """
    folder, _ = open_state(state)
    BrokerApi(folder.broker_socket).post("records", {"act": "rotate-key", "note": note[:512]})
    current = str(_read_keys(folder.journal_public)[0].key)
    text = f"signs now: {current}\ncopy {folder.journal_public} to where you verify"
    print_result({"key": current}, text, as_json=as_json)


def _read_keys(path: Path) -> tuple[PublishedKey, ...]:
    """Return the public keys in a file, the current key first.

    Raises:
        StateError: the file can't be read, or isn't a list of keys.
    """
    try:
        key_list = read_published_keys(path)
        if not key_list:
            raise ValueError("it lists no key")  # noqa: TRY301 - reported below
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        reason = (
            os.strerror(number) if number else "it doesn't have the form that the broker writes"
        )
        raise StateError(
            "journal.bad-key",
            f"{path}: {reason}",
            remedy="the broker writes it when it starts: start it once",
        ) from error
    return key_list


class Unsigned(Exception):
    """A saved checkpoint isn't valid, or has no signature of a trusted key."""


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """The public keys for a verification."""

    published: tuple[PublishedKey, ...] = ()
    #: The file with the keys, if it lies beside the journal; '' if the keys come from elsewhere.
    beside: str = ""

    @property
    def ends(self) -> dict[PublicKey, int | None]:
        """The last record for which each key's signature is good; None for no limit."""
        return ends_of(self.published)


def trusted_keys(values: tuple[str, ...], journal: Path) -> GivenKeys:
    """Return the keys of the ``--key`` options: keys, or files of keys.

    A file lies beside the journal if it is anywhere in the state folder. For a copy of the journal
    alone, that is the folder *journal* and what is directly in one of the two above. Who changes one
    can change the other.

    Raises:
        StateError: a value is neither a key nor a file of keys.
    """
    published: list[PublishedKey] = []
    beside = ""
    for value in values:
        try:
            published += _parse_keys(value)
        except (BadNote, OSError) as error:
            raise StateError(
                "journal.bad-key",
                f"--key {value}: {error_reason(error)}",
                remedy="name a copy of journal.pub, or one of the keys in it",
            ) from error
        if Path(value).exists() and _is_beside(Path(value), journal):
            beside = beside or value
    return GivenKeys(tuple(published), beside)


def _is_beside(file: Path, journal: Path) -> bool:
    file, folder = file.resolve(), journal.resolve()
    if file.is_relative_to(folder) or file.parent in folder.parents[:2]:
        return True
    is_in_state = folder.parts[-2:] == ("broker", "journal")
    return is_in_state and file.is_relative_to(folder.parents[1])


def _parse_keys(value: str) -> tuple[PublishedKey, ...]:
    if not Path(value).exists():
        return (PublishedKey(parse_public(value)),)
    keys = read_published_keys(Path(value))
    if not keys:
        raise BadNote("there is no key in it")
    return keys


def published_keys(path: Path) -> GivenKeys:
    """Return the keys of a state folder; none before a broker's first start.

    Raises:
        StateError: the keys can't be read.
    """
    try:
        keys = read_published_keys(path)
    except FileNotFoundError:
        return GivenKeys()
    except (BadNote, OSError) as error:
        raise StateError(
            "journal.bad-key",
            f"{path}: {error_reason(error)}",
            remedy="name the public key with --key; the broker rewrites the file at its start",
        ) from error
    return GivenKeys(keys, str(path) if keys else "")


def read_checkpoint(path: Path, keys: Mapping[PublicKey, int | None]) -> Checkpoint:
    """Return a saved checkpoint.

    Raises:
        Unsigned: the file has no checkpoint, or no signature of a key trusted for its records.
        StateError: the file can't be read.
    """
    try:
        note = parse_note(path.read_text(encoding="utf-8"))
        checkpoint = parse_checkpoint(note)
    except OSError as error:
        raise StateError(
            "journal.no-checkpoint",
            f"{path}: {error.strerror}",
            remedy="name a copy of journal.checkpoint",
        ) from error
    except (BadNote, UnicodeDecodeError) as error:
        raise Unsigned(f"{path} is no checkpoint: {error}") from error
    valid = [key for key, end in keys.items() if end is None or checkpoint.size <= end]
    if keys and not any(map(note.is_signed_by, valid)):
        raise Unsigned(f"{path} isn't signed by one of the given keys")
    return checkpoint


def compare_published(path: Path, *, signed: int) -> tuple[str, ...]:
    """Return notes on ``journal.checkpoint`` of a state folder whose journal is *signed* so far.

    The file is missing, empty or outdated after a crash, until the next checkpoint; or somebody
    changed it. The journal itself has the checkpoint, so no record is in doubt.
    """
    if not signed:
        return ()
    try:
        content = path.read_text(encoding="utf-8")
        size = parse_checkpoint(parse_note(content)).size if content else 0
    except FileNotFoundError:
        return (f"{path} is missing: the broker's next checkpoint writes it",)
    except (BadNote, OSError, UnicodeDecodeError):
        return ()  # reported before, or replaced meanwhile
    if not content:
        return (f"{path} is empty: the broker's next checkpoint writes it",)
    if size < signed:
        how = f"is of the first {size} records, and the journal's last checkpoint of {signed}"
        return (f"{path} {how}: a crash left it behind, or an older copy was put there",)
    return ()
