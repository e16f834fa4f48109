"""A client as most are: it asks by name, and where nobody is at an address it tries the next one.

So it does where one hangs up before it answered: what only reads may be asked for again (RFC 9110,
section 9.2.2), also at the same address if the connection was reset. Where nobody answers it asks DNS anew, and goes
on if that tells other addresses. While DNS is silent it goes on with what it was told last (RFC 8767), and so it does
for a while if DNS tells no address.

With "first" it is strict: a request counts as answered only if the first address of the name answers it
within the patience, connection and answer together.

Run inside the network namespace of a container: the engine's DNS is at 127.0.0.11 there. The first
argument is for how many seconds it waits for a connection, the second is "all" or "first", each other one a
name, or NAME:PORT. A line is printed for each request: the name, the outcome of it, how long it took in
milliseconds, and when.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

DNS = ("127.0.0.11", 53)
PORT = 8080
TIMEOUT_S = 4.0
#: How often all names together are asked in a second, at most. A request forks a process of the server, and
#: the engine answers the question of DNS: more would keep processors busy.
PER_S = 40
REQUEST = b"GET / HTTP/1.0\r\nHost: service\r\n\r\n"
TRIES = 5  # while DNS is silent
#: So long addresses are used after DNS told them last, if it tells none: a name that is lost is told.
STALE_S = 10.0


def addresses(name: str) -> list[str]:
    """Return the A records of *name* (RFC 1035, section 4)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.sendto(question, DNS)
        answer = sock.recv(4096)
    count, at, found = struct.unpack(">H", answer[6:8])[0], len(question), []
    for _ in range(count):
        # The name that was asked for, again: a pointer to it, or the labels as they were.
        at += 2 if answer[at] >= 0xC0 else len(labels) + 1
        kind, _, _, length = struct.unpack(">2HIH", answer[at : at + 10])
        at += 10
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at : at + length]))
        at += length
    return found


class Unserved(OSError):
    """Nobody there took the request, so that it may be made elsewhere."""


def ask(address: str, port: int, patience_s: float, answer_s: float = TIMEOUT_S) -> None:
    """Ask for one page.

    *patience_s* is for the connection, *answer_s* for each part of the answer.

    By hand: http.client takes three times as long for it.

    Raises:
        Unserved: nobody takes requests there, or whoever did hung up before answering.
        OSError: the answer isn't what it should be.
    """
    try:
        sock = socket.create_connection((address, port), patience_s)
    except OSError as error:
        raise Unserved(str(error)) from error
    with sock:
        sock.settimeout(answer_s)
        answer = b""
        try:
            sock.sendall(REQUEST)
            while part := sock.recv(65536):
                answer += part
        except ConnectionError as error:
            if not answer:
                raise Unserved(str(error)) from error
            raise
    if not answer:
        raise Unserved("hung up before it answered")
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    if status.split()[1:2] != [b"200"]:
        raise ConnectionError(f"status {status!r}")
    lengths = [
        field.split(b":")[1] for field in fields if field.lower().startswith(b"content-length:")
    ]
    if any(int(length) != len(body) for length in lengths):
        raise ConnectionError(f"cut short: {len(body)} bytes of {lengths}")


class Held:
    """What DNS told last of a name, and when."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._told = time.monotonic()

    def ask_dns(self, name: str) -> None:
        """Ask anew.

        In the moment in which an only replica hands its address over, the name has none.

        Raises:
            OSError: DNS is silent.
        """
        told = addresses(name)
        if told or time.monotonic() - self._told > STALE_S:
            self.addresses, self._told = told, time.monotonic()


def request(asked: str, held: Held, patience_s: float) -> str:
    """Return the outcome of one request by name; *held* is kept up."""
    name, _, port = asked.partition(":")
    why, tried = "has no address", list[str]()
    for _ in range(TRIES):
        try:
            held.ask_dns(name)
        except OSError as error:
            why = f"no name: {error}"
        else:
            if held.addresses == tried:
                break
        tried = list(held.addresses)
        for address in tried:
            try:
                ask(address, int(port or PORT), patience_s)
            except Unserved as error:
                why = f"{address}: {error}"
                if isinstance(error.__cause__, ConnectionResetError):
                    tried = []
            except OSError as error:
                return f"failed: {address}: {error}"
            else:
                return "ok"
    return f"failed: {why}"


def strict_request(asked: str, patience_s: float) -> str:
    """Return the outcome of one request to the first address of the name, once, within the patience."""
    name, _, port = asked.partition(":")
    began = time.monotonic()
    try:
        address, *_ = addresses(name) or [""]
        if not address:
            return "failed: has no address"
        ask(address, int(port or PORT), patience_s, patience_s)
    except OSError as error:
        return f"failed: {error}"
    took_s = time.monotonic() - began
    return "ok" if took_s <= patience_s else f"failed: answered after {took_s:.1f} s"


def go_on(name: str, patience_s: float, pause_s: float, *, strict: bool) -> None:
    """Ask for ever."""
    held = Held()
    while True:
        began = time.monotonic()
        what = strict_request(name, patience_s) if strict else request(name, held, patience_s)
        took_ms = round((time.monotonic() - began) * 1000)
        # One write: threads must not meet within a line.
        os.write(1, f"{name}\t{what}\t{took_ms}\t{began:.3f}\n".encode())
        threading.Event().wait(pause_s)


if __name__ == "__main__":
    patience_s, mode, *asked = sys.argv[1:]
    for each in asked:
        args = (each, float(patience_s), len(asked) / PER_S)
        kwargs = {"strict": mode == "first"}
        threading.Thread(target=go_on, args=args, kwargs=kwargs, daemon=True).start()
    sys.stdin.read()  # until whoever started it hangs up
