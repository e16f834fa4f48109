"""Services of the machine for every process: ids, crash points, logging, the boot id.

No other module makes ids or reads the clock.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

from controller.core.encoding.text import printable
from controller.model.crashpoints import (
    COMMAND_POINTS,
    CRASH_POINTS,
    NOTIFIER_POINTS,
    Reach,
    pass_by,
)
from controller.model.errors import UsageError
from controller.system.durable_files import hold_lock

LOG = logging.getLogger(__name__)
#: The environment variable that names a crash point; only tests set it.
CRASH_AT = "TRIMTAB_CRASH_AT"


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, then random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_instance_id() -> str:
    """Return a new instance id: 16 hex digits."""
    return secrets.token_hex(8)


def crash_reach(environ: Mapping[str, str]) -> Reach:
    """Return the process's ``reach`` callback.

    The callback does nothing, unless the environment names a crash point: then the process kills
    itself there. ``TRIMTAB_CRASH_AT=NAME:N`` selects the N-th time; ``NAME`` alone the first.

    Raises:
        UsageError: the crash point is unknown.
    """
    wanted = environ.get(CRASH_AT)
    if not wanted:
        return pass_by
    name, _, count = wanted.partition(":")
    if name not in CRASH_POINTS + COMMAND_POINTS + NOTIFIER_POINTS:
        raise UsageError("crash-point.unknown", f"{CRASH_AT} names no crash point: {name}")
    left = int(count or "1")

    def reach(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


#: What Python and libraries load on use: codecs, and pydantic's types of stored forms.
LIBRARIES_ON_USE = (
    "concurrent/futures/thread",
    "encodings/ascii",
    "encodings/idna",
    "encodings/latin_1",
    "encodings/utf_16_be",
    "encodings/utf_8_sig",  # the start of an environment with .pth files loads it, that of others doesn't
    "pydantic/dataclasses",
    "pydantic/type_adapter",
)


def load_modules(paths: Iterable[str]) -> None:
    """Import modules that commands load on use, such as ``app/up``, before a service is ready.

    A service loads nothing later: a package that is unpacked meanwhile changes no running process.
    """
    own = (f"controller/{path}" for path in paths)
    for path in (*LIBRARIES_ON_USE, *own):
        import_module(path.replace("/", "."))
    import_module("pydantic").TypeAdapter(bool)  # the first schema loads the rest of pydantic


class LateImports:
    """A finder for ``sys.meta_path``: logs each import of a service after its start, and finds no module."""

    def __init__(self) -> None:
        self._logged = set[str]()

    def find_spec(self, name: str, *_: object) -> None:
        """Log the name of a module that isn't loaded, and return None: the next finder looks for the module."""
        if name not in self._logged:
            self._logged.add(name)
            LOG.error("import.late module=%s", name)


def log_late_imports() -> None:
    """Log an error for each later import of this process."""
    sys.meta_path.insert(0, LateImports())


def hold_process_lock(path: Path, *, program: str, settings: str) -> int:
    """Do the same as ``hold_lock``, and note in the file with which settings a process started.

    *settings* is their ``digest_of``. ``read_started_settings`` reads it.

    Raises:
        StateError: as ``hold_lock``.
    """
    handle = hold_lock(path, program=program, monotonic=time.monotonic)
    os.ftruncate(handle, 0)
    os.pwrite(handle, settings.encode(), 0)
    return handle


def boot_id() -> str:
    """Return the id of this boot of the host (proc_sys_kernel(5)); '' if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def log_to_stderr(name: str, level: str = "WARNING") -> None:
    """Log to stderr, a line per message, as journald and docker expect. ``$TRIMTAB_LOG`` wins over *level*."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(f"%(asctime)s {name} %(levelname)s %(message)s"))
    chosen = os.environ.get("TRIMTAB_LOG", level).upper()
    logging.basicConfig(handlers=[handler], level=chosen)


class OneLine(logging.Formatter):
    """Writes a message on one line: a text of an engine in it can't forge another message.

    The lines of a traceback follow, escaped and indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record; only the first one begins at the margin."""
        first, *further = super().format(record).split("\n")
        return "\n".join([first, *(f"  {printable(line)}" for line in further)])

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line of a record, with escapes for control characters."""
        record.message = printable(record.message)
        return super().formatMessage(record)


def call_on_termination(stop: Callable[[], object]) -> None:
    """Call *stop* on SIGTERM and SIGINT; *stop* must be safe in a signal handler."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop())


class SystemClock:
    """``ports.Timer`` over the machine's clocks."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds on a clock without jumps."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep for *seconds*."""
        time.sleep(seconds)
