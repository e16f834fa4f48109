"""``version``: the versions of trimtab, Python and the kernel."""

from __future__ import annotations

import platform
from pathlib import Path

from controller import __version__
from controller.cli.options import command, print_result


@command("""\b
Examples:
  trimtab version
  trimtab version --json
""")
def version(state: Path | None, as_json: bool) -> None:  # noqa: ARG001 - may follow any command
    """Print the versions of trimtab, Python and the kernel, for a bug report."""
    versions = {
        "trimtab": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    text = f"trimtab {__version__}\nPython {versions['python']}, {versions['system']}"
    print_result(versions, text, as_json=as_json)
