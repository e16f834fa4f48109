"""A running controller for commands: the control socket of a state folder, and who answers there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from controller.loop.control_api import ControlApi
from controller.settings import Instance, state_of, write_instance
from controller.system.conversation import ConversationServer

DIR = "/srv/desired"


@contextmanager
def answering(api: ControlApi) -> Iterator[Path]:
    """Yield a state folder with an instance on ``DIR``, and *api* behind its control socket."""
    with TemporaryDirectory(prefix="trimtab-", dir="/tmp") as folder:  # sun_path is short
        root = Path(folder)
        instance = Instance(id="0123456789abcdef", dir=DIR)
        write_instance(root, instance)
        state = state_of(root, instance)
        state.run.mkdir()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(state.controller_socket))
        listener.listen()
        server = ConversationServer(listener, api.answer, trusted=frozenset({os.getuid()}))
        server.start()
        try:
            yield root
        finally:
            server.stop()
