"""The children of `trimtab up` return the memory of long lists to the system."""

from __future__ import annotations

import subprocess
import sys

from controller.app.child_commands import SET_ENVIRONMENT

#: Two threads make and free long lists one after another, and keep something small beside each. The program
#: prints the growth of the resident memory in MiB: with glibc's defaults, some 50.
PROGRAM = """
import threading

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

def work(kept=[]):
    for size in range(24, 0, -1):
        body = bytearray(b"x") * (size << 20)
        kept.append(bytes(60_000))
        del body

def run():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

before = resident()
run()
run()
print(resident() - before)
"""


def test_long_lists_leave_no_memory_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM], env=SET_ENVIRONMENT, capture_output=True, check=True
    )
    assert int(done.stdout) < 10
