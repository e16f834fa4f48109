"""The request to stop the process, safe to set in a signal handler."""

from __future__ import annotations

import os
from contextlib import suppress


class StopSignal:
    """A flag that can be waited for with ``select``.

    A signal handler can run while its own thread holds a lock, so ``set`` takes none.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._read_end, self._write_end = os.pipe()

    def set(self) -> None:
        """Request the stop; any number of times, also after ``close``."""
        self._is_set = True
        with suppress(OSError):
            os.write(self._write_end, b".")

    def is_set(self) -> bool:
        """Return True once the stop was requested."""
        return self._is_set

    def fileno(self) -> int:
        """Return the descriptor, readable once the stop was requested."""
        return self._read_end

    def close(self) -> None:
        """Close the pipe; any number of times."""
        ends = (self._read_end, self._write_end)
        self._read_end = self._write_end = -1
        for end in ends:
            if end >= 0:
                os.close(end)
