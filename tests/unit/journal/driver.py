"""A process that writes a journal until it is done or killed, and says what was acknowledged.

Usage: driver.py FOLDER THREADS APPENDS. The environment may name a crash point.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from controller.app.clock import SystemClock
from controller.app.process import crash_reach, new_id
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.writer_thread import Writer
from controller.model.records import Entry


def main(folder: Path, threads: int, appends: int) -> None:
    def work() -> None:
        for number in range(appends):
            if number % 2 == 0:
                entry = Entry(new_id(), "intent", request={"object": f"web.{number}"})
            else:
                entry = Entry(entry.id, "outcome", result={"status": 204})
            record = writer.append(entry)
            # One write call: a line is there whole, or not at all.
            os.write(1, f"{record.seq} {record.hash}\n".encode())

    with Writer(
        folder,
        clock=SystemClock(),
        new_id=new_id,
        reach=crash_reach(os.environ),
        limits=SegmentLimits(max_segment_bytes=2000),
    ) as writer:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    os.write(1, b"done\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
