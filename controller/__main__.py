"""``python -m controller`` is ``trimtab``."""

from controller.cli.main import main

main()
