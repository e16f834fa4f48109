"""The shipper: at least once, in order, each sink at its own pace, and never less."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from controller.journal.store.segments import MARK_NAME, DurableMark, first_seq_of, list_segments
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.model.errors import StateError
from controller.ship import shipper
from controller.ship.destination import Rejected, Sink, Undelivered
from controller.ship.fd_server import JournalFiles, LocalFiles
from controller.ship.follower import Cursor, Diverged, Shipped
from controller.ship.shipper import Shipper, ShipperPaths, SinkStatus, load_cursor, metrics
from controller.ship.sinks import FileSink, NoteSink, OnlyCheckpoints
from tests.instance import eventually
from tests.unit.journal.builders import entry, open_writer
from tests.unit.ship.test_follower import wrote

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it look, tell and try again soon."""
    for name in ("LOOK_S", "TELL_S", "SECOND_LOOK_S", "RETRY_FIRST_S"):
        monkeypatch.setattr(shipper, name, 0.02)


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Memory:
    """A sink that keeps what it got; ``faults`` are raised first, one at a delivery."""

    def __init__(self, *faults: Undelivered | Rejected | None) -> None:
        self.got: list[int] = []
        self.faults = list(faults)
        self.go_on = threading.Event()
        self.go_on.set()

    def deliver(self, batch: Sequence[Shipped]) -> None:
        assert self.go_on.wait(PATIENCE_S)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.got += [shipped.record.seq for shipped in batch]

    def close(self) -> None:
        pass


class Running:
    """A shipper in a thread of its own, during a block."""

    def __init__(self, root: Path, files: JournalFiles | None = None, **sinks: Sink) -> None:
        self.places = ShipperPaths(root, root / "metrics.prom")
        self.clock = Clock()
        files = files or LocalFiles(root / "journal")
        self.shipper = Shipper(sinks, files, self.places, clock=self.clock)
        self.error: StateError | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.shipper.run()
        except StateError as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shipper.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it ends"

    def cursor(self, name: str) -> Cursor:
        return load_cursor(self.places.cursor(name))

    def sink(self, name: str) -> dict[str, object]:
        told = json.loads(self.places.status.read_text())
        found: dict[str, object] = next(each for each in told["sinks"] if each["name"] == name)
        return found


def test_each_sink_gets_everything_and_the_next_process_goes_on(tmp_path: Path) -> None:
    written = wrote(tmp_path / "journal", 30)
    one, other = Memory(), Memory()
    with Running(tmp_path, one=one, other=other) as running:
        eventually(lambda: running.cursor("one").seq == running.cursor("other").seq == 31)
    assert one.got == other.got == list(range(1, len(written) + 1))
    wrote(tmp_path / "journal", 3, first=50)
    again = Memory()
    with Running(tmp_path, one=again) as running:
        eventually(lambda: running.cursor("one").seq == 34)
    assert again.got == [32, 33, 34]


def test_a_sink_that_hangs_delays_nobody_else_and_says_how_far_it_is_behind(
    tmp_path: Path,
) -> None:
    wrote(tmp_path / "journal", 30)
    slow, quick = Memory(), Memory()
    slow.go_on.clear()
    with Running(tmp_path, slow=slow, quick=quick) as running:
        eventually(lambda: running.cursor("quick").seq == 31)
        assert running.cursor("slow") == Cursor()

        def told() -> bool:
            if not running.places.status.exists():
                return False
            behind = [running.sink(name)["lag_records"] for name in ("slow", "quick")]
            return behind == [31, 0]

        eventually(told)
        assert float(str(running.sink("slow")["lag_seconds"])) > 0
        prom, line = tmp_path / "metrics.prom", 'trimtab_ship_lag_records{sink="slow"} 31\n'
        eventually(lambda: prom.exists() and line in prom.read_text())
        slow.go_on.set()
        eventually(lambda: running.cursor("slow").seq == 31)
    assert slow.got == list(range(1, 32))


def test_a_delivery_that_hangs_is_told_and_how_far_behind_it_is(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 5)
    sink = Memory()
    prom = tmp_path / "metrics.prom"

    def says(line: str) -> bool:
        return prom.exists() and line in prom.read_text()

    with Running(tmp_path, siem=sink) as running:
        eventually(lambda: says('up{sink="siem"} 1\n') and says('lag_records{sink="siem"} 0\n'))
        sink.go_on.clear()
        wrote(tmp_path / "journal", 1, first=20)
        eventually(lambda: says('lag_records{sink="siem"} 1\n'))
        wrote(tmp_path / "journal", 500, first=30)
        eventually(lambda: says('lag_records{sink="siem"} 501\n'))
        assert says('up{sink="siem"} 1\n')
        running.clock.ahead += 61.0
        eventually(lambda: says('up{sink="siem"} 0\n'))
        assert running.sink("siem")["error"] == "a delivery takes longer than 60 s"
        sink.go_on.set()
        eventually(lambda: says('up{sink="siem"} 1\n') and says('lag_records{sink="siem"} 0\n'))


def test_what_was_not_delivered_is_sent_again_and_the_error_is_told(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 5)
    sink = Memory(*[Undelivered("siem:601: refused")] * 10_000)
    prom = tmp_path / "metrics.prom"
    with Running(tmp_path, siem=sink) as running:
        eventually(lambda: prom.exists() and 'up{sink="siem"} 0' in prom.read_text())
        assert running.sink("siem")["error"] == "siem:601: refused"
        sink.faults = []
        eventually(lambda: running.cursor("siem").seq == 6)
    assert sink.got == list(range(1, 7))
    assert running.sink("siem")["error"] == ""


def test_what_a_receiver_says_makes_no_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrote(tmp_path / "journal", 5)
    said = "no\n2026-01-01 ship INFO all is well\x1b[2J"
    sink = Memory(Rejected(said, count=1), Undelivered(said))
    with Running(tmp_path, otel=sink) as running:
        eventually(lambda: running.cursor("otel").seq == 6)
        wrote(tmp_path / "journal", 1, first=20)
        eventually(lambda: running.cursor("otel").seq == 7)
    messages = [record.getMessage() for record in caplog.records]
    assert (
        sum("no\\u000a2026-01-01 ship INFO all is well\\u001b[2J" in each for each in messages) == 2
    )
    assert not any("\n" in each or "\x1b" in each for each in messages)


def test_what_a_receiver_refuses_for_good_is_counted_and_not_sent_again(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 5)
    sink = Memory(Rejected("too old", count=2))
    with Running(tmp_path, otel=sink) as running:
        eventually(lambda: running.cursor("otel").seq == 6)
        wrote(tmp_path / "journal", 1, first=20)
        eventually(lambda: running.cursor("otel").seq == 7)
    assert sink.got == [7]
    assert running.sink("otel")["rejected"] == 2
    assert 'rejected_total{sink="otel"} 2\n' in (tmp_path / "metrics.prom").read_text()


def test_what_is_doubtful_is_sent_again_also_after_another_failure(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 5)
    broke = Undelivered("it hung up", doubtful_s=10.0)
    sink = Memory(None, broke, Undelivered("refused"))
    with Running(tmp_path, siem=sink) as running:
        eventually(lambda: running.cursor("siem").seq == 6)
        running.clock.ahead += 20.0  # what was delivered until here is certain
        sink.go_on.clear()
        wrote(tmp_path / "journal", 1, first=20)
        sink.go_on.set()
        eventually(lambda: running.cursor("siem").seq == 7)
        assert sink.got == [*range(1, 7), 7], "the break came before anything new was delivered"
        sink.faults = [broke, Undelivered("refused")]
        wrote(tmp_path / "journal", 1, first=30)
        eventually(lambda: running.cursor("siem").seq == 8)
    assert sink.got == [*range(1, 7), 7, 7, 8]


def test_another_journal_ends_it_with_an_error(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 5)
    (tmp_path / "siem.cursor").write_text(json.dumps({"seq": 99, "hash": "f" * 64}))
    with Running(tmp_path, siem=Memory()) as running:
        eventually(lambda: running.error is not None)
    assert running.error is not None
    assert running.error.code == "ship.diverged"
    assert "ship.diverged" in str(running.sink("siem")["error"])


def test_a_journal_that_was_cut_ends_it_after_what_is_whole_was_delivered(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 40, segment_bytes=2000)
    _, second, *_ = list_segments(folder)
    second.unlink()
    sink = Memory()
    with Running(tmp_path, siem=sink) as running:
        eventually(lambda: running.error is not None)
    assert running.error is not None
    assert running.error.code == "ship.diverged"
    assert sink.got == list(range(1, first_seq_of(second)))
    assert 'up{sink="siem"} 0' in (tmp_path / "metrics.prom").read_text()


def test_an_emptied_folder_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 5)
    with Running(tmp_path, siem=Memory()) as running:
        eventually(lambda: running.cursor("siem").seq == 6)
        for path in folder.iterdir():
            path.unlink()
        eventually(lambda: running.error is not None)
    assert "ship.diverged" in str(running.sink("siem")["error"])


class Moving(LocalFiles):
    """A journal whose segments move just when they are opened, each the first time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.moved: set[str] = set()

    def open(self, name: str) -> int:
        if name.endswith(".jsonl") and name not in self.moved:
            self.moved.add(name)
            raise FileNotFoundError(2, "compressed just now", name)
        return super().open(name)


def test_a_file_that_moves_while_it_is_looked_for_is_found_by_the_second_look(
    tmp_path: Path,
) -> None:
    written = wrote(tmp_path / "journal", 40, segment_bytes=2000)
    sink, files = Memory(), Moving(tmp_path / "journal")
    with Running(tmp_path, files, siem=sink) as running:
        eventually(lambda: running.cursor("siem").seq == len(written))
    assert running.error is None
    assert sink.got == [record.seq for record in written]
    assert len(files.moved) == len(list_segments(tmp_path / "journal"))


@pytest.mark.parametrize(
    "told",
    [
        *("{}", "[]", "", "[" * 100_000, '{"seq": 1}', '{"seq": 1e999, "hash": ""}'),
        *('{"seq": 7, "hash": ""}', f'{{"seq": -1, "hash": "{"f" * 64}"}}'),
        *(f'{{"seq": "7", "hash": "{"f" * 64}"}}', '{"seq": 7, "hash": null}'),
    ],
)
def test_a_cursor_of_nonsense_is_refused(tmp_path: Path, told: str) -> None:
    (tmp_path / "siem.cursor").write_text(told)
    with pytest.raises(StateError, match=r"siem\.cursor can't be read"):
        Running(tmp_path, siem=Memory())


# Sinks on this machine


def shipped(root: Path, count: int = 3) -> list[Shipped]:
    from controller.ship.follower import Follower

    follower = Follower(LocalFiles(root / "journal"), Cursor())
    mark = follower.mark()
    assert mark is not None
    batch = follower.batch(mark, records=count, size=10**9)
    follower.close()
    return batch


def test_a_file_gets_the_lines_as_they_are_and_is_made_anew_when_it_was_rotated(
    tmp_path: Path,
) -> None:
    wrote(tmp_path / "journal", 5)
    batch = shipped(tmp_path)
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"an earlier":"line"}\n{"half of a li')
    sink = FileSink(path)
    sink.deliver(batch[:2])
    path.rename(tmp_path / "out.1")
    sink.deliver(batch[2:])
    sink.close()
    lines = [each.line + b"\n" for each in batch]
    assert (tmp_path / "out.1").read_bytes() == b'{"an earlier":"line"}\n' + b"".join(lines[:2])
    assert path.read_bytes() == lines[2]
    assert lines[0] == list_segments(tmp_path / "journal")[0].read_bytes().splitlines(True)[0]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were synced."""
    found: list[Path] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_dir():
            found.append(path)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_the_name_of_what_is_new_is_as_durable_as_what_is_in_it(
    tmp_path: Path, synced: list[Path]
) -> None:
    batch = signed(tmp_path)
    for name in ("files", "notes"):
        (tmp_path / name).mkdir()
    synced.clear()
    file = FileSink(tmp_path / "files" / "out.jsonl")
    file.deliver(batch[:1])
    file.deliver(batch[1:])
    file.close()
    NoteSink(tmp_path / "notes" / "witness").deliver(batch)
    assert synced == [tmp_path / "files", tmp_path / "notes"]
    wrote(tmp_path / "journal", 1)
    with Running(tmp_path, siem=Memory()) as running:
        eventually(lambda: running.cursor("siem").seq == 2)
    assert synced[-1] == tmp_path


def test_a_file_that_can_not_be_written_is_an_error_that_is_tried_again(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 1)
    with pytest.raises(Undelivered, match="No such file"):
        FileSink(tmp_path / "none" / "x").deliver(shipped(tmp_path))
    with pytest.raises(Undelivered, match="No such file"):
        NoteSink(tmp_path / "none" / "x").deliver(signed(tmp_path))


def signed(root: Path) -> list[Shipped]:
    """Return the records of a journal that is signed every three records."""
    folder = root / "signed" / "journal"
    folder.parent.mkdir(exist_ok=True)
    writer = open_writer(folder, every=CheckpointInterval(records=3))
    for number in range(9):
        writer.append(entry(number))
    writer.close()
    return shipped(root / "signed", 100)


def test_the_last_checkpoint_is_kept_as_a_note(tmp_path: Path) -> None:
    batch = signed(tmp_path)
    path = tmp_path / "witness"
    sink = NoteSink(path)
    sink.deliver(batch)
    published = (tmp_path / "signed" / "journal.checkpoint").read_text()
    assert path.read_text() == published
    sink.deliver([each for each in batch if each.record.entry.stage != "checkpoint"])
    assert path.read_text() == published


def test_a_witness_never_goes_back_nor_to_another_journal(tmp_path: Path) -> None:
    batch = signed(tmp_path)
    path = tmp_path / "witness"
    NoteSink(path).deliver(batch)
    kept = path.read_text()
    NoteSink(path).deliver(batch)  # once more, as after a kill
    assert path.read_text() == kept
    first = next(n for n, each in enumerate(batch) if each.record.entry.stage == "checkpoint")
    with pytest.raises(Diverged, match=r"witness is of \d+ records, and what follows of \d+"):
        NoteSink(path).deliver(batch[: first + 1])
    assert path.read_text() == kept
    for spoilt, why in (
        (kept.replace("trimtab/5109", "trimtab/ffff", 1), "is of trimtab/ffff"),
        (kept.replace(kept.splitlines()[2], "A" * 43 + "=", 1), r"is of \d+ records"),
        ("a diary", "holds no checkpoint"),
    ):
        path.write_text(spoilt)
        with pytest.raises(Diverged, match=why):
            NoteSink(path).deliver(batch)
        assert path.read_text() == spoilt
    path.write_text("")
    NoteSink(path).deliver(batch)
    assert path.read_text() == kept


def test_a_witness_that_knows_more_ends_shipping(tmp_path: Path) -> None:
    batch = signed(tmp_path)
    witness = NoteSink(tmp_path / "witness")
    witness.deliver(batch)
    lost = tmp_path / "signed" / "journal"
    segment, *_ = list_segments(lost)
    first = next(each for each in batch if each.record.entry.stage == "checkpoint")
    kept = batch[: first.record.seq]
    segment.write_bytes(b"".join(each.line + b"\n" for each in kept))
    (lost / MARK_NAME).write_bytes(
        DurableMark(kept[-1].record.seq, kept[-1].record.hash).to_bytes()
    )
    with Running(tmp_path / "signed", witness=witness) as running:
        eventually(lambda: running.error is not None)
    assert "it isn't replaced" in str(running.error)


def test_only_checkpoints_go_where_only_they_are_wanted(tmp_path: Path) -> None:
    sink = Memory()
    OnlyCheckpoints(sink).deliver(signed(tmp_path))
    assert len(sink.got) >= 2
    assert sink.got[0] >= 3


# Killed


#: Ships a journal, and dies in the last of as many batches, before or after the line is written.
MORTAL_SHIPPER = """
import os, signal, sys
from pathlib import Path
from controller.app.process import SystemClock
from controller.ship import shipper
from controller.ship.fd_server import LocalFiles
from controller.ship.sinks import FileSink

root, batches, after = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "after"
shipper.BATCH_RECORDS = 3

class MortalSink(FileSink):
    def deliver(self, batch):
        global batches
        batches -= 1
        if batches == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        super().deliver(batch)
        if batches == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sinks = {"file": MortalSink(root / "out.jsonl")}
places = shipper.ShipperPaths(root)
shipper.Shipper(sinks, LocalFiles(root / "journal"), places, clock=SystemClock()).run()
"""


def test_a_shipper_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    written = wrote(tmp_path / "journal", 400, segment_bytes=20_000)
    program = [sys.executable, "-c", MORTAL_SHIPPER, str(tmp_path)]
    for batches, moment in ((1, "before"), (1, "after"), (20, "before"), (7, "after")):
        done = subprocess.run([*program, str(batches), moment], check=False)
        assert done.returncode == -signal.SIGKILL
    process = subprocess.Popen([*program, "0", "after"])
    eventually(lambda: load_cursor(tmp_path / "file.cursor").seq == len(written))
    process.terminate()
    process.wait()
    out = tmp_path / "out.jsonl"
    found = [json.loads(line)["seq"] for line in out.read_bytes().splitlines()]
    assert set(found) == set(range(1, len(written) + 1))
    # In order, but for what is sent again after a kill.
    backward = sum(later <= earlier for earlier, later in itertools.pairwise(found))
    assert backward <= 3


def test_metrics_are_of_the_text_format() -> None:
    text = metrics([SinkStatus("a", lag_records=3, lag_seconds=1.5), SinkStatus("b", error="x")])
    assert text.startswith("# HELP trimtab_ship_lag_records ")
    assert 'trimtab_ship_lag_seconds{sink="a"} 1.5\n' in text
    assert 'trimtab_ship_up{sink="b"} 0\n' in text
    assert text.endswith("\n")
