"""Processes that write a journal until they are done or killed, and say what was acknowledged.

Each line of the input is FOLDER, THREADS, APPENDS and a crash point or nothing, between tabs. Each
line gets a process of its own, forked from this one: imports cost more than what it writes. The
output has the lines of the process, then `ended CODE`.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from controller.app.process import SystemClock, crash_reach, new_id
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.writer_thread import Writer
from controller.model.records import Entry


def write(folder: Path, threads: int, appends: int, crash_at: str) -> None:
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
        reach=crash_reach({"TRIMTAB_CRASH_AT": crash_at} if crash_at else {}),
        limits=SegmentLimits(max_segment_bytes=2000),
    ) as writer:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    os.write(1, b"done\n")


def main() -> None:
    for line in sys.stdin:
        folder, threads, appends, crash_at = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            write(Path(folder), int(threads), int(appends), crash_at)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
