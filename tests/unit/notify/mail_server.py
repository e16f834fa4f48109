"""A mail server on loopback: it keeps what arrives, speaks STARTTLS, and knows one password."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from pathlib import Path
from typing import Self

PASSWORD = "s3cret-0123456789"


class MailServer(socketserver.ThreadingTCPServer):
    """Accepts mail. With *certificate*, a folder with ``ca.pem`` and ``key.pem``, it offers STARTTLS."""

    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        self.mails: list[str] = []
        #: The first words of what clients sent before the connection was secure.
        self.plain: list[str] = []
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate / "ca.pem", certificate / "key.pem")
        super().__init__(("127.0.0.1", 0), _Conversation)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Conversation(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        secure = False
        self._say("220 test")
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if not secure:
                self.server.plain.append(word)
            match word:
                case "EHLO":
                    offers = ["250-test", "250-AUTH PLAIN"]
                    if self.server.context is not None and not secure:
                        offers.append("250-STARTTLS")
                    self._say(*offers, "250 8BITMIME")
                case "STARTTLS":
                    assert self.server.context is not None
                    self._say("220 go")
                    self.request = self.server.context.wrap_socket(self.request, server_side=True)
                    self.rfile = self.request.makefile("rb")
                    self.wfile = self.request.makefile("wb")
                    secure = True
                case "AUTH":
                    known = base64.b64decode(line.split()[2]).split(b"\0")[2] == PASSWORD.encode()
                    self._say("235 yes" if known else "535 no")
                case "DATA":
                    self._say("354 go")
                    lines: list[str] = []
                    while (text := self.rfile.readline().decode()) != ".\r\n":
                        lines.append(text)
                    self.server.mails.append("".join(lines))
                    self._say("250 taken")
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())
        self.wfile.flush()
